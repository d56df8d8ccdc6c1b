//! A packet costs no allocation, whatever becomes of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use dataplane::counters::Counters;
use dataplane::drop_ring::DropRing;
use dataplane::rate::Nanos;
use dataplane::tables::{Fdb, PortId};
use dataplane::{Dataplane, DropReason, Egress, Millis};
use frame::{CAPACITY_BYTES, Packet, Pool};

use crate::node::packet::at_port;
use crate::node::{Described, Node};

const NODE: &str = "underlay 198.51.100.11 2001:db8:1::11
    vxlan 10
    clamp-mss
    ipip
    direct
    host
    gateway 198.18.1.1 fd00:18:1::1
    bridge red vni 100
    pod a 198.18.1.2 fd00:18:1::2
    pod p 198.18.1.4 fd00:18:1::4 plain
    pod r 198.18.1.5 rate 1000000 burst 0
    pod m 198.18.1.66 in red
    pod n 198.18.1.67 in red
    pod o 198.18.1.68 in red plain
    peer b 203.0.113.12 vxlan 198.18.2.0/24 fd00:18:2::/64
    peer c 203.0.113.13 ipip 198.18.3.0/24 fd00:18:3::/64
    multipath 198.18.9.0/24 b c 2
    peer d 2001:db8:2::12 vxlan 198.18.4.0/24
    stretch red to b
    stretch red to d
    pod q 198.18.1.6
    pod s 198.18.1.69 in red
    policy shop/q ingress pod-q from 198.18.1.0/24 except 198.18.1.4 ports udp 2 icmp
    policy shop/s egress pod-s to 198.18.1.0/24 ports udp
    policy shop/s ingress pod-s isolate
    fdb 256
    frames 8";

const TRAFFIC: &[(&str, &str)] = &[
    ("L2", "pod-m eth pod-m > pod-n / ip 198.18.1.66 > 198.18.1.67 / udp 1 > 2 / 26 bytes"),
    ("L3", "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.4 / udp 1 > 2 / 26 bytes"),
    (
        "L3 of IPv6",
        "pod-a eth pod-a > gateway / ip fd00:18:1::2 > fd00:18:1::4 / udp 1 > 2 / 26 bytes",
    ),
    (
        "VXLAN encap",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.2.7 / udp 1 > 2 / 26 bytes",
    ),
    (
        "VXLAN encap over IPv6",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.4.7 / udp 1 > 2 / 26 bytes",
    ),
    (
        "VXLAN decap over IPv6",
        "uplink eth router > uplink / ip 2001:db8:2::12 > 2001:db8:1::11 / udp 50000 > 4789 / \
         vxlan 10 / eth vtep-d > vtep6 / ip 198.18.4.7 > 198.18.1.2 / udp 1 > 2 / 26 bytes",
    ),
    (
        "superframe, cut, over IPv6",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.4.7 / tcp 1 > 2 partial / \
         9000 bytes / gso tcp4 1378",
    ),
    (
        "IPIP encap",
        "pod-a eth pod-a > gateway / ip fd00:18:1::2 > fd00:18:3::7 / udp 1 > 2 / 26 bytes",
    ),
    (
        "VXLAN decap",
        "uplink eth router > uplink / ip 203.0.113.12 > 198.51.100.11 / udp 50000 > 4789 nosum / \
         vxlan 10 / eth vtep-b > vtep / ip 198.18.2.7 > 198.18.1.2 / udp 1 > 2 / 26 bytes",
    ),
    (
        "IPIP decap",
        "uplink eth router > uplink / ip 203.0.113.13 > 198.51.100.11 / \
         ip 198.18.3.7 > 198.18.1.2 / udp 1 > 2 / 26 bytes",
    ),
    (
        "to a port with a rate: passed, held, dropped",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.5 / udp 1 > 2 / 1026 bytes",
    ),
    (
        "one of several next hops",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.9.7 / udp 1 > 2 / 26 bytes",
    ),
    (
        "fragments",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.2.7 / udp 1 > 2 / 4000 bytes",
    ),
    (
        "fragments of a superframe",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.2.7 / udp 1 > 2 partial / \
         9000 bytes / gso udp 1600",
    ),
    (
        "path MTU",
        "uplink eth router > uplink / ip 192.0.2.1 > 198.51.100.11 / icmp too-big 1400 / \
         ip 198.51.100.11 > 203.0.113.12 df len 1500 / udp 50000 > 4789 nosum len 1480",
    ),
    ("SYN", "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.2.7 / tcp 1 > 2 flags S mss 1460"),
    ("direct", "uplink eth router > uplink / ip 203.0.113.99 > 198.18.1.2 / udp 1 > 2 / 26 bytes"),
    ("flood", "pod-m eth pod-m > broadcast / ip 198.18.1.66 > 198.18.1.255 / udp 1 > 2 / 26 bytes"),
    (
        "flood from the overlay, learning",
        "uplink eth router > uplink / ip 203.0.113.12 > 198.51.100.11 / udp 50000 > 4789 nosum / \
         vxlan 100 / eth 02:bb:00:00:00:01 > broadcast / arp who-has 198.18.1.66 tell 198.18.1.99 \
         at 02:bb:00:00:00:01",
    ),
    ("ARP", "pod-a eth pod-a > broadcast / arp who-has 198.18.1.1 tell 198.18.1.2 at pod-a"),
    (
        "ND",
        "pod-a eth pod-a > gateway / ip fd00:18:1::2 > fd00:18:1::1 ttl 255 / \
         nd solicit fd00:18:1::1 from pod-a",
    ),
    ("ping", "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.1 / icmp echo 1 1 / 56 bytes"),
    (
        "error",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.4 ttl 1 / udp 1 > 2 / 26 bytes",
    ),
    (
        "error to another node",
        "uplink eth router > uplink / ip 203.0.113.13 > 198.51.100.11 / \
         ip 198.18.3.7 > 198.18.1.2 ttl 1 / udp 1 > 2 / 26 bytes",
    ),
    (
        "superframe, whole",
        "pod-p eth pod-p > gateway / ip 198.18.1.4 > 198.18.1.2 / tcp 1 > 2 partial / \
         60000 bytes / gso tcp4 1400",
    ),
    (
        "superframe, cut",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.2.7 / tcp 1 > 2 partial / \
         9000 bytes / gso tcp4 1400",
    ),
    (
        "superframe, flooded",
        "pod-m eth pod-m > broadcast / ip 198.18.1.66 > 198.18.1.255 / udp 1 > 2 partial / \
         9000 bytes / gso udp 1400",
    ),
    (
        "partial checksum",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.4 / udp 1 > 2 partial / 99 bytes",
    ),
    ("spoofed", "pod-a eth pod-a > gateway / ip 198.18.1.3 > 198.18.1.4 / udp 1 > 2 / 26 bytes"),
    (
        "malformed",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.4 badsum / udp 1 > 2 / 26 bytes",
    ),
    (
        "allowed by a policy",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.6 / udp 1 > 2 / 26 bytes",
    ),
    (
        "denied by a policy",
        "pod-p eth pod-p > gateway / ip 198.18.1.4 > 198.18.1.6 / udp 1 > 2 / 26 bytes",
    ),
    (
        "first fragment, allowed by a policy",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.6 id 9 more / udp 1 > 2 len 1208 / \
         592 bytes",
    ),
    (
        "later fragment, whose first was allowed",
        "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.6 id 9 frag 600 proto 17 / 608 bytes",
    ),
    (
        "error about a session",
        "pod-q eth pod-q > gateway / ip 198.18.1.6 > 198.18.1.2 / icmp port-unreachable / \
         ip 198.18.1.2 > 198.18.1.6 / udp 1 > 2 / 8 bytes",
    ),
    (
        "on a segment",
        "pod-s eth pod-s > pod-m / ip 198.18.1.69 > 198.18.1.66 / udp 1 > 2 / 26 bytes",
    ),
    (
        "flood that a policy denies",
        "pod-s eth pod-s > broadcast / ip 198.18.1.69 > 198.18.1.255 / udp 1 > 2 / 26 bytes",
    ),
    (
        "unknown peer",
        "uplink eth router > uplink / ip 203.0.113.66 > 198.51.100.11 / ip 198.18.3.7 > 198.18.1.2 / 26 bytes",
    ),
];

#[test]
fn no_packet_allocates() {
    let mut worker = Worker::new();
    for (name, text) in TRAFFIC {
        let (port, text) = at_port(&worker.node, text).expect(name);
        let packet = Described::parse(&worker.node, text, &[]).expect(name);
        worker.run(port, &packet, 100, |_, _| {});
        let count = allocations(|| worker.run(port, &packet, 2000, |_, _| {}));
        assert_eq!(count, 0, "{name}: 2000 packets");
    }
    assert!(worker.drops.written() > 0, "what is dropped is sampled meanwhile");
}

/// A full table takes and gives entries all the time; its memory was reserved at the start.
#[test]
fn a_flood_of_macs_does_not_allocate() {
    let mut worker = Worker::new();
    let is_learned = |(name, _): &&(&str, &str)| name.ends_with("learning");
    let (name, text) = TRAFFIC.iter().find(is_learned).expect("one that is learned");
    let (port, text) = at_port(&worker.node, text).expect(name);
    let packet = Described::parse(&worker.node, text, &[]).expect(name);
    // The inner frame's, behind 50 bytes of outer headers.
    let other_mac = |bytes: &mut [u8], number: u32| {
        bytes[56..58].copy_from_slice(&[2, 0x66]);
        bytes[58..62].copy_from_slice(&number.to_be_bytes());
    };
    let count = allocations(|| worker.run(port, &packet, 20_000, other_mac));
    assert_eq!(count, 0);
    assert_eq!(worker.dataplane.fdb.len(), 256);
}

#[test]
fn an_allocation_would_be_seen() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

struct Worker {
    node: Node,
    pool: Pool,
    dataplane: Dataplane,
    drops: Arc<DropRing>,
    sink: Sink,
    now: Millis,
}

impl Worker {
    fn new() -> Self {
        let node = Node::parse(NODE.lines()).expect("a node");
        let pool = Pool::new(node.frames);
        let fdb = Fdb::new(node.fdb_entries, node.ageing_ms);
        let counters = Arc::new(Counters::new());
        let drops = Arc::new(DropRing::new());
        drops.arm(true);
        let dataplane = Dataplane::new(fdb, pool.clone(), counters, node.sessions())
            .sampling(Arc::clone(&drops));
        Self { node, pool, dataplane, drops, sink: Sink(vec![0; CAPACITY_BYTES]), now: Millis(0) }
    }

    /// A millisecond a packet, so that answers stay below their limit.
    fn run(&mut self, port: PortId, packet: &Described, times: u32, edit: impl Fn(&mut [u8], u32)) {
        for number in 0..times {
            let mut packet = packet.packet(&self.pool);
            edit(&mut packet.frame, number);
            self.now.0 += 1;
            let nanos = Nanos(self.now.0 * 1_000_000);
            self.dataplane.turn(&self.node.tables, nanos, &mut self.sink);
            self.dataplane.process(&self.node.tables, port, packet, self.now, &mut self.sink);
            if number % 32 == 0 {
                self.dataplane.end_batch(&self.node.tables, false, &mut self.sink);
            }
        }
    }
}

/// A port that has memory of its own and forgets.
struct Sink(Vec<u8>);

impl Egress for Sink {
    fn send(&mut self, _: PortId, _: Packet) -> Result<(), DropReason> {
        Ok(())
    }

    fn send_with(
        &mut self,
        _: PortId,
        len: usize,
        write: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), DropReason> {
        write(&mut self.0[..len]);
        Ok(())
    }
}

thread_local! {
    /// Allocations of this thread while somebody counts. No destructor, and so no allocation of
    /// its own.
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

fn allocations(work: impl FnOnce()) -> u64 {
    COUNT.set(Some(0));
    work();
    COUNT.take().expect("counted since above")
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note() {
    COUNT.set(COUNT.get().map(|count| count + 1));
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
