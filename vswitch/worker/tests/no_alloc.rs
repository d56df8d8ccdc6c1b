//! A worker that forwards allocates nothing, while its packets are counted and timed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dataplane::session::{Header, SessionTable};
use dataplane::tables::{
    Adjacency, AdjacencyId, Attachment, Epoch, Gateway, Offloads, Peer, PeerId, Port, PortId,
    PortRole, Tables, Template,
};
use dataplane::wire::{EtherType, MacAddr, Protocol, ethernet, ipv4};
use frame::{Packet, Pool};
use netio::port::{PortFd, Recv};
use netio::uplink::UplinkQueue;
use rustix::thread::gettid;
use worker::{
    Confinement, Idle, LatencyPath, PortIo, SharedState, WorkerSpec, WorkerUplink, Workers,
};

const PATIENCE: Duration = Duration::from_secs(5);
const PACKETS: u64 = 1000;

/// The kernel's number of the thread whose allocations are counted; zero for none.
static WATCHED: AtomicU32 = AtomicU32::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);

fn mac(number: u8) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 0, number])
}

fn address(number: u8) -> [u8; 4] {
    [198, 18, 1, number]
}

/// Two routed pods.
fn tables() -> Tables {
    let mut tables = Tables { epoch: Epoch(1), ports: vec![None], ..Tables::default() };
    tables.gateway = Gateway { mac: Gateway::MAC, ..Gateway::default() };
    for number in [1, 2] {
        let port = PortId(number.into());
        tables.ports.push(Some(Port {
            kind: PortRole::Pod,
            attachment: Attachment::Routed,
            mac: mac(number),
            mtu: 1450,
            offloads: Offloads::default(),
            addresses: vec![address(number).into()],
            rx_limit: None,
            tx_limit: None,
        }));
        let template = Template::ethernet(mac(number), Gateway::MAC);
        tables.adjacencies.push(Adjacency::Port { port, template, mtu: 1450 });
        let adjacency = AdjacencyId(tables.adjacencies.len() as u32 - 1);
        tables.fib4.insert(address(number).into(), 32, adjacency);
    }
    tables
}

fn packet(pool: &Pool) -> Packet {
    let mut frame = pool.alloc().expect("a frame is free");
    let bytes = frame.extend(60).expect("room");
    let (destination, source) = (Gateway::MAC, mac(1));
    let header = ethernet::Repr { destination, source, ethertype: EtherType::IPV4 };
    header.emit(bytes).expect("room");
    let ip = ipv4::Repr {
        tos: 0,
        total_len: 46,
        id: 7,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol: Protocol::UDP,
        source: address(1).into(),
        destination: address(2).into(),
    };
    ip.emit(&mut bytes[ethernet::HEADER_LEN..]).expect("room");
    Packet::plain(frame)
}

/// One after the other, as both are counted in one place.
#[test]
fn a_worker_that_forwards_allocates_nothing() {
    forwards_without_allocations(PortIo::ReadWrite);
    // Where the kernel refuses, this is the same again.
    forwards_without_allocations(PortIo::IoUring);
    for watched in [0, 1] {
        hands_over_without_allocations(watched);
    }
}

fn forwards_without_allocations(port_io: PortIo) {
    let published = Arc::new(ArcSwap::from_pointee(tables()));
    let workers =
        Workers::spawn(vec![spec(0, port_io)], &published, &state(), &Confinement::default())
            .expect("threads can be made");
    let far: Vec<_> = [1, 2]
        .map(|number| {
            let (ours, theirs) = PortFd::pair().expect("a socketpair");
            workers.add_port(PortId(number), &Arc::new(ours), 0);
            theirs
        })
        .into();
    assert!(workers.wait_epoch(Epoch(1), PATIENCE));

    let pool = Pool::new(4);
    let mut received = Packet::plain(pool.alloc().expect("a frame is free"));
    let mut exchange = |count: u64| {
        for _ in 0..count {
            far[0].send(&mut packet(&pool)).expect("the port takes it");
            let deadline = Instant::now() + PATIENCE;
            while far[1].recv(&mut received) != Recv::Packet {
                assert!(Instant::now() < deadline, "a packet is lost");
                thread::yield_now();
            }
        }
    };
    // What a worker makes when it is first used.
    exchange(10);
    WATCHED.store(workers.states()[0].thread_id, Ordering::SeqCst);
    exchange(PACKETS);
    WATCHED.store(0, Ordering::SeqCst);
    assert_eq!(COUNT.load(Ordering::SeqCst), 0);
    let path = workers.latencies()[0].path(LatencyPath::PodToPod);
    assert!(path.timed() >= PACKETS, "{} were timed", path.timed());
    workers.stop();
}

fn spec(id: usize, port_io: PortIo) -> WorkerSpec {
    WorkerSpec {
        id,
        core: None,
        idle: Idle::Micros(0),
        frames: 64,
        fdb_max: 64,
        fdb_ageing_ms: 300_000,
        uplink: None,
        port_io,
    }
}

fn state() -> SharedState {
    let header = Header { boot_id: 1, seed: 2, buckets: 64 };
    let sessions = SessionTable::on_heap(&header).expect("two buckets at least");
    SharedState { sessions: Arc::new(sessions), origin: Instant::now() }
}

const UPLINK: PortId = PortId(3);
const LOCAL: [u8; 4] = [198, 51, 100, 11];
const PEER: [u8; 4] = [203, 0, 113, 12];

/// The same, with a peer that speaks IPIP.
fn tables_with_peer() -> Tables {
    let mut tables = tables();
    let pod = tables.ports[1].clone().expect("a pod");
    let uplink = Port { kind: PortRole::Uplink, mac: mac(9), addresses: Vec::new(), ..pod };
    tables.ports.push(Some(uplink));
    let tunnels = Arc::make_mut(&mut tables.tunnels);
    tunnels.uplink = Some(UPLINK);
    tunnels.local.v4 = Some(LOCAL.into());
    tunnels.ipip = true;
    tunnels.by_address.insert(PEER.into(), PeerId(0));
    let prefix = "198.18.2.0/24".parse().expect("a prefix");
    tunnels.peers.push(Peer::new(PEER.into(), [prefix]));
    tables
}

/// A packet of the peer's by IPIP, for the second pod.
fn ipip_packet(pool: &Pool) -> Packet {
    let mut frame = pool.alloc().expect("a frame is free");
    let bytes = frame.extend(80).expect("room");
    bytes.fill(0);
    let (destination, source) = (mac(9), mac(8));
    let header = ethernet::Repr { destination, source, ethertype: EtherType::IPV4 };
    header.emit(bytes).expect("room");
    let outer = ipv4::Repr {
        tos: 0,
        total_len: 66,
        id: 7,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol: Protocol::IPIP,
        source: PEER.into(),
        destination: LOCAL.into(),
    };
    outer.emit(&mut bytes[ethernet::HEADER_LEN..]).expect("room");
    let inner = ipv4::Repr {
        total_len: 46,
        protocol: Protocol::UDP,
        source: [198, 18, 2, 7].into(),
        destination: address(2).into(),
        ..outer
    };
    inner.emit(&mut bytes[ethernet::HEADER_LEN + 20..]).expect("room");
    Packet::plain(frame)
}

/// The first worker receives, and the second one processes; the `watched` one allocates nothing.
fn hands_over_without_allocations(watched: usize) {
    let published = Arc::new(ArcSwap::from_pointee(tables_with_peer()));
    let [own, mut wire] = UplinkQueue::pair().expect("a socketpair");
    let [other, _beside] = UplinkQueue::pair().expect("a socketpair");
    let uplinks = [
        WorkerUplink { port: UPLINK, queues: vec![(0, own.rx)], tx: own.tx },
        WorkerUplink { port: UPLINK, queues: Vec::new(), tx: other.tx },
    ];
    let specs = uplinks
        .into_iter()
        .enumerate()
        .map(|(id, uplink)| WorkerSpec { uplink: Some(uplink), ..spec(id, PortIo::ReadWrite) });
    let mut workers =
        Workers::spawn(specs.collect(), &published, &state(), &Confinement::default())
            .expect("threads can be made");
    let (ours, pod) = PortFd::pair().expect("a socketpair");
    workers.add_port(PortId(2), &Arc::new(ours), 0);
    workers.hand_over(0, &[1]);
    assert!(workers.wait_epoch(Epoch(1), PATIENCE));

    let pool = Pool::new(4);
    let mut received = Packet::plain(pool.alloc().expect("a frame is free"));
    let mut exchange = |count: u64| {
        for _ in 0..count {
            wire.tx.send(&mut ipip_packet(&pool)).expect("there is room");
            wire.tx.flush().expect("the other end is there");
            let deadline = Instant::now() + PATIENCE;
            while pod.recv(&mut received) != Recv::Packet {
                assert!(Instant::now() < deadline, "a packet is lost");
                thread::yield_now();
            }
        }
    };
    exchange(10);
    WATCHED.store(workers.states()[watched].thread_id, Ordering::SeqCst);
    exchange(PACKETS);
    WATCHED.store(0, Ordering::SeqCst);
    assert_eq!(COUNT.load(Ordering::SeqCst), 0, "worker {watched}");
    assert!(workers.states()[0].handed_over >= PACKETS);
    workers.stop();
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note() {
    let watched = WATCHED.load(Ordering::SeqCst);
    if watched != 0 && gettid().as_raw_nonzero().get().cast_unsigned() == watched {
        COUNT.fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: as for `dealloc`, and the promise about `size` is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
