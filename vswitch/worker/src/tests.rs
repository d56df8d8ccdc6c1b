//! Workers over socketpair ports: real threads, real tables, no root.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dataplane::session::{Header, SessionTable};
use dataplane::tables::{
    Adjacency, AdjacencyId, Attachment, Bridge, BridgeId, Domain, Epoch, Gateway, LocalAddresses,
    Offloads, Peer, PeerId, Port, PortId, PortRole, RemoteVtep, Tables, Template, Tunnels,
};
use dataplane::wire::{EtherType, MacAddr, Protocol, Vni, ethernet, ipv4, udp, vxlan};
use frame::{Packet, Pool};
use netio::port::{PortFd, Recv};

use super::essential::testing::ends_its_process;
use super::{Command, Confinement, Idle, PortIo, SharedState, WorkerSpec, Workers};

mod handoff;
mod latencies;
mod moves;
mod port_io;
mod queues;
mod rates;

const PATIENCE: Duration = Duration::from_secs(5);
const MTU: u16 = 1450;

fn pod_mac(number: u16) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 0, number as u8])
}

fn pod_address(number: u16) -> [u8; 4] {
    [198, 18, 1, number as u8]
}

/// Routed pods 1 to `pods`, each on the port of its number.
pub(super) fn tables(epoch: u64, pods: u16) -> Tables {
    let mut tables = Tables { epoch: Epoch(epoch), ports: vec![None], ..Tables::default() };
    tables.gateway =
        Gateway { mac: Gateway::MAC, v4: Some([198, 18, 1, 254].into()), ..Gateway::default() };
    for number in 1..=pods {
        let port = PortId(number);
        tables.ports.push(Some(Port {
            kind: PortRole::Pod,
            attachment: Attachment::Routed,
            mac: pod_mac(number),
            mtu: MTU,
            offloads: Offloads::default(),
            addresses: vec![pod_address(number).into()],
            rx_limit: None,
            tx_limit: None,
        }));
        let template = Template::ethernet(pod_mac(number), Gateway::MAC);
        tables.adjacencies.push(Adjacency::Port { port, template, mtu: MTU });
        let adjacency = AdjacencyId(tables.adjacencies.len() as u32 - 1);
        tables.fib4.insert(pod_address(number).into(), 32, adjacency);
    }
    tables
}

fn spec(idle: Idle) -> WorkerSpec {
    WorkerSpec {
        id: 0,
        core: None,
        idle,
        port_io: PortIo::IoUring,
        frames: 64,
        fdb_max: 64,
        fdb_ageing_ms: 300_000,
        uplink: None,
    }
}

/// An IPv4 packet between two pods, as its sender would address it.
fn packet(pool: &Pool, from: u16, to: u16) -> Packet {
    packet_of(pool, from, to, 60)
}

/// One whose frame has so many bytes.
fn packet_of(pool: &Pool, from: u16, to: u16, len: u16) -> Packet {
    let mut frame = pool.alloc().expect("a frame is free");
    let bytes = frame.extend(len.into()).expect("room");
    let header = ethernet::Repr {
        destination: Gateway::MAC,
        source: pod_mac(from),
        ethertype: EtherType::IPV4,
    };
    header.emit(bytes).expect("room");
    let ip = ipv4::Repr {
        tos: 0,
        total_len: len - 14,
        id: 7,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol: Protocol::UDP,
        source: pod_address(from).into(),
        destination: pod_address(to).into(),
    };
    ip.emit(&mut bytes[ethernet::HEADER_LEN..]).expect("room");
    Packet::plain(frame)
}

fn receive(pool: &Pool, port: &PortFd) -> Option<Packet> {
    let mut packet = Packet::plain(pool.alloc().expect("a frame is free"));
    for _ in 0..PATIENCE.as_millis() {
        match port.recv(&mut packet) {
            Recv::Packet => return Some(packet),
            Recv::WouldBlock => thread::sleep(Duration::from_millis(1)),
            _ => return None,
        }
    }
    None
}

fn state() -> SharedState {
    let header = Header { boot_id: 1, seed: 2, buckets: 64 };
    let sessions = SessionTable::on_heap(&header).expect("two buckets at least");
    SharedState { sessions: Arc::new(sessions), origin: Instant::now() }
}

fn forwards_between_pods(idle: Idle) {
    let published = Arc::new(ArcSwap::from_pointee(tables(1, 2)));
    let workers = Workers::spawn(vec![spec(idle)], &published, &state(), &Confinement::default())
        .expect("threads can be made");
    let pods: Vec<_> = (1..=2)
        .map(|number| {
            let (ours, theirs) = PortFd::pair().expect("a socketpair");
            workers.add_port(PortId(number), &Arc::new(ours), 0);
            theirs
        })
        .collect();
    assert!(workers.wait_epoch(Epoch(1), PATIENCE));

    let pool = Pool::new(4);
    for round in 0..3 {
        pods[0].send(&mut packet(&pool, 1, 2)).expect("the port takes it");
        let received = receive(&pool, &pods[1]).unwrap_or_else(|| panic!("round {round}"));
        assert_eq!(received.frame[..6], pod_mac(2).0);
        assert_eq!(received.frame[22], 63, "a hop was taken");
        // Long enough for an adaptive worker to fall asleep in between.
        thread::sleep(Duration::from_millis(5));
    }
    let counters = workers.counters();
    assert_eq!(counters[0].port(PortId(1)).rx_packets, 3);
    assert_eq!(counters[0].port(PortId(2)).tx_packets, 3);
    workers.stop();
}

#[test]
fn a_worker_that_sleeps_is_woken_by_a_packet() {
    forwards_between_pods(Idle::Micros(50));
}

#[test]
fn a_worker_that_spins_forwards_alike() {
    forwards_between_pods(Idle::Spin);
}

#[test]
fn a_removed_port_is_closed_and_its_number_starts_anew() {
    let published = Arc::new(ArcSwap::from_pointee(tables(1, 1)));
    let workers =
        Workers::spawn(vec![spec(Idle::Micros(0))], &published, &state(), &Confinement::default())
            .expect("threads can be made");
    let (ours, theirs) = PortFd::pair().expect("a socketpair");
    workers.add_port(PortId(1), &Arc::new(ours), 0);
    let pool = Pool::new(4);
    theirs.send(&mut packet(&pool, 1, 9)).expect("the port takes it");
    let counters = workers.counters();
    for _ in 0..PATIENCE.as_millis() {
        if counters[0].port(PortId(1)).rx_packets == 1 {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(counters[0].port(PortId(1)).rx_packets, 1);

    published.store(Arc::new(tables(2, 0)));
    assert!(workers.wait_epoch(Epoch(2), PATIENCE));
    workers.remove_port(PortId(1));
    let mut packet = Packet::plain(pool.alloc().expect("a frame is free"));
    let gone = (0..PATIENCE.as_millis()).any(|_| {
        thread::sleep(Duration::from_millis(1));
        matches!(theirs.recv(&mut packet), Recv::Gone)
    });
    assert!(gone, "the far side sees its peer closed");

    let (ours, _theirs) = PortFd::pair().expect("a socketpair");
    workers.add_port(PortId(1), &Arc::new(ours), 0);
    published.store(Arc::new(tables(3, 1)));
    assert!(workers.wait_epoch(Epoch(3), PATIENCE));
    assert_eq!(counters[0].port(PortId(1)).rx_packets, 0);
    workers.stop();
}

#[test]
fn a_port_whose_far_side_ends_is_reported_once() {
    let published = Arc::new(ArcSwap::from_pointee(tables(1, 1)));
    let workers =
        Workers::spawn(vec![spec(Idle::Micros(0))], &published, &state(), &Confinement::default())
            .expect("threads can be made");
    let (ours, theirs) = PortFd::pair().expect("a socketpair");
    workers.add_port(PortId(1), &Arc::new(ours), 0);
    drop(theirs);
    let mut gone = Vec::new();
    for _ in 0..PATIENCE.as_millis() {
        gone.extend(workers.gone_ports());
        if !gone.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(gone, [PortId(1)]);
    workers.wake();
    assert!(workers.wait_epoch(Epoch(1), PATIENCE));
    assert!(workers.gone_ports().is_empty());
    workers.stop();
}

/// A frame for everybody of a stretched segment, from the other end at [203, 0, 113, 12].
fn from_vtep(pool: &Pool, vni: Vni) -> Packet {
    const LEN: u16 = 20 + 8 + 8 + 60;
    let mut frame = pool.alloc().expect("a frame is free");
    let mut rest = frame.extend(usize::from(14 + LEN)).expect("room");
    let (source, everybody) = (MacAddr([0x02, 0xbb, 0, 0, 0, 1]), MacAddr::BROADCAST);
    let to_us = pod_mac(1);
    let outer = ethernet::Repr { destination: to_us, source, ethertype: EtherType::IPV4 };
    let ip = ipv4::Repr {
        tos: 0,
        total_len: LEN,
        id: 7,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol: Protocol::UDP,
        source: [203, 0, 113, 12].into(),
        destination: [198, 51, 100, 11].into(),
    };
    let udp = udp::Repr { source: 50_000, destination: vxlan::PORT, len: LEN - 20, checksum: 0 };
    let inner = ethernet::Repr { destination: everybody, source, ethertype: EtherType::ARP };
    for part in 0..5 {
        let len = match part {
            0 => outer.emit(rest),
            1 => ip.emit(rest),
            2 => udp.emit(rest),
            3 => vxlan::Repr { vni }.emit(rest),
            _ => inner.emit(rest),
        };
        rest = &mut rest[len.expect("room")..];
    }
    Packet::plain(frame)
}

#[test]
fn what_was_learned_is_forgotten_before_newer_tables() {
    let vni = Vni::new(100).expect("24 bits");
    let address = [203, 0, 113, 12].into();
    let stretched = |epoch| {
        let mut tables = tables(epoch, 1);
        for port in tables.ports.iter_mut().flatten() {
            port.kind = PortRole::Uplink;
        }
        tables.tunnels = Arc::new(Tunnels {
            local: LocalAddresses { v4: Some([198, 51, 100, 11].into()), v6: None },
            vxlan_port: Some(vxlan::PORT),
            vnis: [(vni, Domain::Bridged(BridgeId(0)))].into_iter().collect(),
            peers: vec![Peer::new(address, [])],
            by_address: [(address, PeerId(0))].into_iter().collect(),
            ..Tunnels::default()
        });
        let vtep = RemoteVtep { address, port: PortId(1), template: None, mtu: MTU };
        let vteps = [vtep].into_iter().collect();
        tables.bridges.push(Bridge { vni: Some(vni), vteps, ..Bridge::default() });
        Arc::new(tables)
    };
    let published = Arc::new(ArcSwap::new(stretched(1)));
    let workers =
        Workers::spawn(vec![spec(Idle::Micros(0))], &published, &state(), &Confinement::default())
            .expect("threads can be made");
    let (ours, theirs) = PortFd::pair().expect("a socketpair");
    workers.add_port(PortId(1), &Arc::new(ours), 0);
    let pool = Pool::new(4);
    theirs.send(&mut from_vtep(&pool, vni)).expect("the port takes it");
    let learned = || workers.learned(PATIENCE).first().map(|(_, entries)| entries.len());
    for _ in 0..PATIENCE.as_millis() {
        if learned() == Some(1) {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(learned(), Some(1));

    workers.forget_learned();
    published.store(stretched(2));
    assert!(workers.wait_epoch(Epoch(2), PATIENCE));
    assert_eq!(learned(), Some(0));
    workers.stop();
}

#[test]
fn a_panic_of_a_worker_ends_the_process() {
    let message = ends_its_process("tests::a_panic_of_a_worker_ends_the_process", || {
        let published = Arc::new(ArcSwap::from_pointee(tables(1, 1)));
        let workers = Workers::spawn(
            vec![spec(Idle::Micros(0))],
            &published,
            &state(),
            &Confinement::default(),
        )
        .expect("threads can be made");
        workers.handles[0].send(Command::Panic);
        workers.stop();
    });
    assert!(
        message.contains("vswitchd: thread worker-0 panicked (by order of a test);"),
        "{message}"
    );
}
