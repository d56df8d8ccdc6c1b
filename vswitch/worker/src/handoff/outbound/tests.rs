use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dataplane::tables::Tables;
use dataplane::wire::{EtherType, MacAddr, Protocol, ethernet, ipv4};
use frame::{Packet, Pool};
use mio::{Poll, Waker};

use super::{BUCKETS, Handed, Kept, Outbound, Way};
use crate::WAKE;
use crate::handoff::{Bell, Inbound, Ring};

const LOCAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);

/// Flows that are sure to have many buckets.
const FLOWS: u16 = 64;

fn tables() -> Tables {
    let mut tables = Tables::default();
    let tunnels = Arc::make_mut(&mut tables.tunnels);
    tunnels.ipip = true;
    tunnels.local.v4 = Some(LOCAL);
    tables
}

fn ip(protocol: Protocol, destination: Ipv4Addr, payload: usize) -> ipv4::Repr {
    ipv4::Repr {
        tos: 0,
        total_len: 20 + payload as u16,
        id: 7,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol,
        source: Ipv4Addr::new(203, 0, 113, 12),
        destination,
    }
}

/// An IPIP packet of a flow with its number in it.
fn packet(pool: &Pool, flow: u16, number: u32) -> Packet {
    let mut frame = pool.alloc().expect("a frame is free");
    let bytes = frame.extend(66).expect("room");
    let (destination, source) = (MacAddr::ZERO, MacAddr::ZERO);
    let header = ethernet::Repr { destination, source, ethertype: EtherType::IPV4 };
    header.emit(bytes).expect("room");
    ip(Protocol::IPIP, LOCAL, 32).emit(&mut bytes[14..]).expect("room");
    ip(Protocol::UDP, [198, 18, 1, 2].into(), 12).emit(&mut bytes[34..]).expect("room");
    bytes[54..56].copy_from_slice(&flow.to_be_bytes());
    bytes[62..66].copy_from_slice(&number.to_be_bytes());
    Packet::plain(frame)
}

fn flow_of(packet: &Packet) -> u16 {
    u16::from_be_bytes([packet.frame[54], packet.frame[55]])
}

/// The first worker's end, the other's, and what both need.
struct Two {
    outbound: Outbound,
    inbound: Inbound,
    kept: Arc<Kept>,
    tables: Tables,
    pool: Pool,
    _poll: Poll,
}

impl Two {
    fn sharing(members: &[usize]) -> Self {
        let poll = Poll::new().expect("epoll");
        let waker = Waker::new(poll.registry(), WAKE).expect("eventfd");
        let (ring, bell) = (Arc::new(Ring::new()), Arc::new(Bell::new(Arc::new(waker))));
        let kept = Arc::<Kept>::default();
        let mut outbound = Outbound::new(0, Arc::clone(&kept));
        let mut inbound = Inbound::new(Arc::clone(&bell));
        inbound.add(Arc::clone(&ring));
        outbound.share(members.to_vec(), vec![Way::new(1, ring, bell)]);
        let (tables, pool) = (tables(), Pool::new(300));
        Self { outbound, inbound, kept, tables, pool, _poll: poll }
    }

    fn offer(&mut self, flow: u16) -> Handed {
        let packet = packet(&self.pool, flow, 0);
        self.outbound.hand_over(&self.tables, &packet)
    }

    /// A turn of the first worker with a packet of each flow; those that it handed over.
    fn turn(&mut self, holds: bool) -> Vec<u16> {
        self.outbound.begin_turn();
        let over = (0..FLOWS).filter(|flow| self.offer(*flow) == Handed::Over).collect();
        self.outbound.publish();
        self.outbound.end_turn(holds);
        over
    }

    /// The other one takes all, and ends its turn.
    fn take(&mut self, holds: bool) -> Vec<u16> {
        let mut flows = Vec::new();
        self.inbound.recv(&self.pool, BUCKETS, |packet| {
            flows.push(flow_of(&packet.expect("a frame is free")));
        });
        self.inbound.end_turn(holds);
        flows
    }
}

#[test]
fn flows_are_shared_among_all_that_are_to_have_some() {
    let mut two = Two::sharing(&[0, 1]);
    let over = two.turn(false);
    assert!(over.len() > 16 && over.len() < 48, "{} of {FLOWS} flows", over.len());
    assert_eq!(two.take(false), over);
    assert_eq!(two.turn(false), over, "a flow stays where it is");
    let kept = two.kept.packets.load(Ordering::Relaxed);
    assert_eq!(kept, 2 * (u64::from(FLOWS) - over.len() as u64));
    assert_eq!(two.kept.bytes.load(Ordering::Relaxed), kept * 66);

    let mut all = Two::sharing(&[1]);
    assert_eq!(all.turn(false).len(), usize::from(FLOWS), "the other one alone");
}

#[test]
fn nothing_is_handed_over_that_is_no_ipip_or_without_another_worker() {
    let mut two = Two::sharing(&[0, 1]);
    let mut packet = packet(&two.pool, 1, 0);
    packet.frame[23] = Protocol::UDP.0;
    assert_eq!(two.outbound.hand_over(&two.tables, &packet), Handed::No);
    assert_eq!(two.kept.packets.load(Ordering::Relaxed), 0, "and it is none that was kept");

    let mut alone = Two::sharing(&[0]);
    assert!(alone.outbound.looks());
    assert_eq!(alone.turn(false), []);
    assert_eq!(alone.kept.packets.load(Ordering::Relaxed), u64::from(FLOWS));

    let unasked = Outbound::new(0, Arc::default());
    assert!(!unasked.looks());
}

#[test]
fn a_worker_to_which_there_is_no_way_gets_none() {
    let mut two = Two::sharing(&[0, 2]);
    assert_eq!(two.turn(false), []);
}

#[test]
fn a_flow_of_this_worker_goes_over_when_its_packets_are_carried_out() {
    let mut two = Two::sharing(&[0]);
    two.turn(true);
    two.outbound.share(vec![1], Vec::new());
    assert_eq!(two.turn(true), [], "some wait for the rate of a port");
    assert_eq!(two.turn(false), [], "they did when this turn began");
    assert_eq!(two.turn(false).len(), usize::from(FLOWS));
}

#[test]
fn no_flow_goes_over_between_two_packets_of_a_turn() {
    let mut two = Two::sharing(&[0]);
    two.turn(false);
    two.outbound.begin_turn();
    assert_eq!(two.offer(1), Handed::No);
    two.outbound.share(vec![1], Vec::new());
    assert_eq!(two.offer(1), Handed::No, "the first may be gathered, or in a train");
    two.outbound.end_turn(false);
    two.outbound.begin_turn();
    assert_eq!(two.offer(1), Handed::Over);
}

#[test]
fn a_flow_comes_back_when_the_other_one_has_carried_out_its_packets() {
    let mut two = Two::sharing(&[1]);
    let all = two.turn(false);
    assert_eq!(all.len(), usize::from(FLOWS));
    two.outbound.share(vec![0], Vec::new());
    assert_eq!(two.turn(false), all, "the other one has not begun");
    assert_eq!(two.take(true).len(), 2 * all.len());
    assert_eq!(two.turn(false), all, "some wait there for the rate of a port");
    assert_eq!(two.take(false), all);
    assert_eq!(two.turn(false), [], "now it is done");
    assert_eq!(two.outbound.away, 0);
}

#[test]
fn flows_that_have_ended_come_back_by_themselves() {
    let mut two = Two::sharing(&[1]);
    let all = two.turn(false);
    two.outbound.share(vec![0], Vec::new());
    two.outbound.begin_turn();
    two.outbound.end_turn(false);
    assert!(two.outbound.away > 0, "the other one has them still");
    assert_eq!(two.take(false), all);
    two.outbound.begin_turn();
    two.outbound.end_turn(false);
    assert_eq!(two.outbound.away, 0);
}

#[test]
fn one_flow_that_is_not_done_keeps_no_other() {
    let mut two = Two::sharing(&[1]);
    two.turn(false);
    two.take(false);
    two.outbound.begin_turn();
    assert_eq!(two.offer(1), Handed::Over);
    two.outbound.publish();
    two.outbound.share(vec![0], Vec::new());
    let over = two.turn(false);
    assert!(over.contains(&1) && over.len() < 5, "{over:?}: few have the same bucket");
}

#[test]
fn what_finds_no_room_is_said_to_and_stays_the_others() {
    let mut two = Two::sharing(&[1]);
    two.outbound.begin_turn();
    for _ in 0..BUCKETS {
        assert_eq!(two.offer(1), Handed::Over);
    }
    assert_eq!(two.offer(1), Handed::NoRoom);
    two.outbound.publish();
    assert_eq!(two.take(false).len(), BUCKETS);
    assert_eq!(two.offer(1), Handed::Over);
}

#[test]
fn a_worker_with_packets_does_not_sleep() {
    let mut two = Two::sharing(&[1]);
    assert!(two.inbound.may_sleep());
    two.inbound.awake();
    two.turn(false);
    assert!(!two.inbound.may_sleep());
    two.take(false);
    assert!(two.inbound.may_sleep());
}
