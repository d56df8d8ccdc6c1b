//! Packets of IPIP that one worker receives and two process: real threads, over socketpairs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dataplane::DropReason;
use dataplane::counters::Accounting;
use dataplane::tables::{
    Attachment, Epoch, Offloads, Peer, PeerId, Port, PortId, PortRole, Tables,
};
use dataplane::wire::{EtherType, MacAddr, Protocol, ethernet, ipv4};
use frame::{Packet, Pool};
use netio::port::{PortFd, Recv};
use netio::uplink::{TxError, UplinkQueue};

use super::{PATIENCE, pod_address, spec, state, tables};
use crate::{Confinement, Idle, WorkerSpec, WorkerUplink, Workers};

const POD: PortId = PortId(1);
const UPLINK: PortId = PortId(2);
const LOCAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 12);
const REMOTE_POD: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 7);

/// Enough that each of two workers has some, but for a chance of one in 2^31.
const FLOWS: u16 = 32;

/// Where a packet has its flow, its number, and its end.
const FLOW: std::ops::Range<usize> = 54..56;
const NUMBER: std::ops::Range<usize> = 62..66;
const LEN: usize = 66;

/// A pod, and a NIC behind which there is a peer that speaks IPIP.
fn with_peer() -> Tables {
    let mut tables = tables(1, 1);
    tables.ports.push(Some(Port {
        kind: PortRole::Uplink,
        attachment: Attachment::Routed,
        mac: MacAddr([2; 6]),
        mtu: 1500,
        offloads: Offloads::default(),
        addresses: Vec::new(),
        rx_limit: None,
        tx_limit: None,
    }));
    let tunnels = Arc::make_mut(&mut tables.tunnels);
    tunnels.uplink = Some(UPLINK);
    tunnels.local.v4 = Some(LOCAL);
    tunnels.ipip = true;
    tunnels.by_address.insert(PEER.into(), PeerId(0));
    let prefix = "198.18.2.0/24".parse().expect("a prefix");
    tunnels.peers.push(Peer::new(PEER.into(), [prefix]));
    tables
}

fn ip(protocol: Protocol, source: Ipv4Addr, destination: Ipv4Addr, len: usize) -> ipv4::Repr {
    ipv4::Repr {
        tos: 0,
        total_len: len as u16,
        id: 7,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol,
        source,
        destination,
    }
}

/// A packet of the peer's, by IPIP.
fn packet(pool: &Pool, flow: u16, number: u32) -> Packet {
    let mut frame = pool.alloc().expect("a frame is free");
    let bytes = frame.extend(LEN).expect("room");
    bytes.fill(0);
    let (destination, source) = (MacAddr([2; 6]), MacAddr([4; 6]));
    let header = ethernet::Repr { destination, source, ethertype: EtherType::IPV4 };
    header.emit(bytes).expect("room");
    let outer = ip(Protocol::IPIP, PEER, LOCAL, LEN - 14);
    outer.emit(&mut bytes[14..]).expect("room");
    let inner = ip(Protocol::UDP, REMOTE_POD, pod_address(1).into(), LEN - 34);
    inner.emit(&mut bytes[34..]).expect("room");
    bytes[FLOW].copy_from_slice(&flow.to_be_bytes());
    bytes[58..60].copy_from_slice(&12_u16.to_be_bytes());
    bytes[NUMBER].copy_from_slice(&number.to_be_bytes());
    Packet::plain(frame)
}

/// Two workers, of which the first has the queue of the NIC.
struct Scene {
    workers: Workers,
    wire: UplinkQueue,
    pod: PortFd,
    /// So that the second worker's handle leads somewhere.
    _beside: UplinkQueue,
}

impl Scene {
    fn new(idle: Idle) -> Self {
        let published = Arc::new(ArcSwap::from_pointee(with_peer()));
        let [own, wire] = UplinkQueue::pair().expect("a socketpair");
        let [other, beside] = UplinkQueue::pair().expect("a socketpair");
        let uplinks = [
            WorkerUplink { port: UPLINK, queues: vec![(0, own.rx)], tx: own.tx },
            WorkerUplink { port: UPLINK, queues: Vec::new(), tx: other.tx },
        ];
        let specs = uplinks.into_iter().enumerate();
        let specs = specs.map(|(id, uplink)| WorkerSpec { id, uplink: Some(uplink), ..spec(idle) });
        let workers =
            Workers::spawn(specs.collect(), &published, &state(), &Confinement::default())
                .expect("threads can be made");
        let (ours, pod) = PortFd::pair().expect("a socketpair");
        workers.add_port(POD, &Arc::new(ours), 0);
        assert!(workers.wait_epoch(Epoch(1), PATIENCE));
        Self { workers, wire, pod, _beside: beside }
    }

    fn books(&self, worker: usize) -> Accounting {
        self.workers.counters()[worker].accounting()
    }

    fn received(&self) -> [u64; 2] {
        [0, 1].map(|worker| self.books(worker).received)
    }

    /// Waits until both workers together have received so many.
    fn wait(&self, received: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.received().iter().sum::<u64>() < received {
            assert!(Instant::now() < deadline, "{:?} of {received}", self.received());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Has the first worker share its packets, and waits until both have ended the turns that they were in.
    fn share(&mut self, members: &[usize]) {
        let turns = |workers: &Workers| workers.states().iter().map(|state| state.turns).collect();
        let before: Vec<u64> = turns(&self.workers);
        self.workers.hand_over(0, members);
        let deadline = Instant::now() + PATIENCE;
        while turns(&self.workers).iter().zip(&before).any(|(now, before)| *now < before + 2) {
            assert!(Instant::now() < deadline, "both turn");
            self.workers.wake();
            thread::yield_now();
        }
    }

    /// Reads what the pod was sent.
    fn drain(&self) -> u64 {
        let pool = Pool::new(1);
        let mut packet = Packet::plain(pool.alloc().expect("a frame is free"));
        let mut count = 0;
        while self.pod.recv(&mut packet) == Recv::Packet {
            count += 1;
        }
        count
    }

    /// Sends a packet of each flow, so slowly that none finds a full queue.
    fn send_each(&mut self, number: u32) {
        let pool = Pool::new(1);
        for flow in 0..FLOWS {
            send(&mut self.wire, &pool, flow, number);
        }
    }
}

/// Sends a packet, when there is room.
fn send(wire: &mut UplinkQueue, pool: &Pool, flow: u16, number: u32) {
    let mut packet = packet(pool, flow, number);
    match wire.tx.send(&mut packet) {
        Ok(()) => {}
        Err(TxError::Full) => panic!("it is flushed each time"),
        Err(other) => panic!("{other:?}"),
    }
    while wire.tx.pending() > 0 {
        wire.tx.flush().expect("the other end is there");
        thread::yield_now();
    }
}

#[test]
fn a_worker_shares_what_one_queue_gives_and_each_packet_is_counted_once() {
    for idle in [Idle::Micros(0), Idle::Spin] {
        let mut scene = Scene::new(idle);
        let flows = u64::from(FLOWS);
        scene.send_each(0);
        scene.wait(flows);
        assert_eq!(scene.received(), [flows, 0], "nobody has said to hand over");

        scene.share(&[0, 1]);
        for round in 1..=4 {
            scene.send_each(round);
            scene.wait(u64::from(round + 1) * flows);
        }
        let mut arrived = scene.drain();
        let [first, second] = scene.received();
        assert!(first > flows && second > 0, "{first} {second}");
        let states = scene.workers.states();
        assert_eq!(
            (&states[0].hands_over_to[..], &states[1].hands_over_to[..]),
            (&[1][..], &[][..])
        );
        assert_eq!(states[0].handed_over, second);
        let work = scene.workers.ipip_work();
        assert_eq!(work[0].handed, [0, crate::work(second, second * LEN as u64)]);

        scene.share(&[1]);
        scene.send_each(5);
        scene.wait(6 * flows);
        assert_eq!(scene.received(), [first, second + flows], "all go over");

        scene.share(&[0]);
        scene.send_each(6);
        scene.wait(7 * flows);
        assert_eq!(scene.received(), [first + flows, second + flows], "none do");
        assert!(scene.workers.states()[0].hands_over_to.is_empty());
        scene.share(&[0]);
        arrived += scene.drain();
        assert_eq!(arrived, 7 * flows);
        for worker in [0, 1] {
            let Accounting { received, made, sent, dropped } = scene.books(worker);
            assert_eq!((made, sent, dropped), (0, received, 0), "worker {worker}");
        }
        scene.workers.stop();
    }
}

#[test]
fn a_worker_that_sleeps_is_woken_by_what_is_handed_over() {
    let mut scene = Scene::new(Idle::Micros(50));
    scene.share(&[1]);
    let pool = Pool::new(2);
    let mut received = Packet::plain(pool.alloc().expect("a frame is free"));
    for round in 0..20 {
        // Long enough for both to fall asleep, and far less than a nap.
        thread::sleep(Duration::from_millis(5));
        send(&mut scene.wire, &pool, 1, round);
        let deadline = Instant::now() + Duration::from_millis(500);
        while scene.pod.recv(&mut received) != Recv::Packet {
            assert!(Instant::now() < deadline, "round {round}");
            thread::yield_now();
        }
    }
    assert_eq!(scene.received(), [0, 20]);
    scene.workers.stop();
}

#[test]
fn flows_stay_in_order_and_whole_while_they_go_to_and_fro() {
    let Scene { mut workers, mut wire, pod, _beside } = Scene::new(Idle::Micros(0));
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let ends = &ends;
        let sent_by = scope.spawn(move || {
            let pool = Pool::new(1);
            let mut number = 0;
            while !ends.load(Ordering::Relaxed) {
                for flow in 0..FLOWS {
                    send(&mut wire, &pool, flow, number);
                }
                number += 1;
            }
            (u64::from(number) * u64::from(FLOWS), wire)
        });
        let arrived = scope.spawn(move || {
            let pool = Pool::new(1);
            let mut packet = Packet::plain(pool.alloc().expect("a frame is free"));
            let (mut last, mut flows, mut count) = (Instant::now(), BTreeMap::new(), 0_u64);
            while !ends.load(Ordering::Relaxed) || last.elapsed() < Duration::from_millis(200) {
                if pod.recv(&mut packet) != Recv::Packet {
                    thread::yield_now();
                    continue;
                }
                // The outer header is gone.
                let at =
                    |range: std::ops::Range<usize>| &packet.frame[range.start - 20..range.end - 20];
                let flow = u16::from_be_bytes(at(FLOW).try_into().expect("two bytes"));
                let number = u32::from_be_bytes(at(NUMBER).try_into().expect("four bytes"));
                let former = flows.insert(flow, number);
                assert!(former.is_none_or(|former| former < number), "{flow}: {former:?} {number}");
                (last, count) = (Instant::now(), count + 1);
            }
            (count, pod)
        });
        let sets: [&[usize]; 4] = [&[0, 1], &[1], &[0, 1], &[0]];
        let received =
            |workers: &Workers, worker: usize| workers.counters()[worker].accounting().received;
        for round in 0..24 {
            let members = sets[round % sets.len()];
            workers.hand_over(0, members);
            let before =
                members.iter().map(|member| received(&workers, *member)).collect::<Vec<_>>();
            let deadline = Instant::now() + PATIENCE;
            for (member, before) in members.iter().zip(before) {
                while received(&workers, *member) < before + 50 {
                    assert!(Instant::now() < deadline, "worker {member} in round {round}");
                    thread::yield_now();
                }
            }
        }
        ends.store(true, Ordering::Relaxed);
        let (sent, _wire) = sent_by.join().expect("no panic");
        let (arrived, _pod) = arrived.join().expect("no panic, and no packet overtook another");
        let counters = workers.counters();
        let books = counters.iter().map(|counters| counters.accounting()).collect::<Vec<_>>();
        let lost: u64 = books.iter().map(|books| books.dropped).sum();
        let all: u64 = books.iter().map(|books| books.received).sum();
        assert_eq!((all, arrived + lost), (sent, sent), "{books:?}");
        let of = |reason| counters.iter().map(|of| of.drops(UPLINK, reason)).sum::<u64>();
        assert_eq!(of(DropReason::QueueFull) + of(DropReason::HandoffFull), lost, "{books:?}");
    });
    workers.stop();
}

#[test]
fn what_a_full_ring_does_not_take_is_dropped_and_counted_where_it_came_in() {
    let mut scene = Scene::new(Idle::Micros(0));
    scene.share(&[1]);
    scene.send_each(0);
    scene.wait(FLOWS.into());
    // The second one is kept from its ring by a turn that does not end.
    let (hold, held) = crossbeam_channel::bounded::<()>(0);
    scene.workers.handles[1].send(crate::Command::Wait(held));
    hold.send(()).expect("it takes the command");
    let sent = 300 + u64::from(FLOWS);
    let pool = Pool::new(1);
    for number in 0..300 {
        send(&mut scene.wire, &pool, 1, number);
    }
    let full = || scene.workers.counters()[0].drops(UPLINK, DropReason::HandoffFull);
    let deadline = Instant::now() + PATIENCE;
    while full() < 44 {
        assert!(Instant::now() < deadline, "{} found no room", full());
        thread::sleep(Duration::from_millis(1));
    }
    drop(hold);
    scene.wait(sent);
    assert_eq!(scene.books(0), Accounting { received: 44, made: 0, sent: 0, dropped: 44 });
    assert_eq!(scene.workers.counters()[0].port(UPLINK).rx_bytes, 44 * LEN as u64);
    assert_eq!(scene.books(1).received, sent - 44);
    assert_eq!(scene.workers.states()[0].handed_over, sent - 44);
    scene.workers.stop();
}

#[test]
fn a_worker_that_there_is_not_is_handed_nothing() {
    let mut scene = Scene::new(Idle::Micros(0));
    scene.workers.hand_over(0, &[0, 2]);
    scene.workers.hand_over(2, &[0]);
    scene.send_each(0);
    scene.wait(FLOWS.into());
    assert_eq!(scene.received(), [FLOWS.into(), 0]);
    scene.workers.stop();
}
