//! A worker that forwards allocates nothing, while its packets are counted and timed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dataplane::session::{Header, SessionTable};
use dataplane::tables::{
    Adjacency, AdjacencyId, Attachment, Epoch, Gateway, Offloads, Port, PortId, PortRole, Tables,
    Template,
};
use dataplane::wire::{EtherType, MacAddr, Protocol, ethernet, ipv4};
use frame::{Packet, Pool};
use netio::port::{PortFd, Recv};
use rustix::thread::gettid;
use worker::{Idle, LatencyPath, PortIo, SharedState, WorkerSpec, Workers};

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
}

fn forwards_without_allocations(port_io: PortIo) {
    let spec = WorkerSpec {
        id: 0,
        core: None,
        idle: Idle::Micros(0),
        frames: 64,
        fdb_max: 64,
        fdb_ageing_ms: 300_000,
        uplink: None,
        port_io,
    };
    let header = Header { boot_id: 1, seed: 2, buckets: 64 };
    let sessions = SessionTable::on_heap(&header).expect("two buckets at least");
    let state = SharedState { sessions: Arc::new(sessions), origin: Instant::now() };
    let published = Arc::new(ArcSwap::from_pointee(tables()));
    let workers = Workers::spawn(vec![spec], &published, &state).expect("threads can be made");
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
