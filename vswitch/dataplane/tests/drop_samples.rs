//! What a reader of the ring sees of dropped packets: each as it came, wherever it was dropped.

use std::sync::Arc;

use dataplane::counters::{Accounting, Counters};
use dataplane::drop_ring::{BEGINNING_BYTES, DropRing, DropSnapshot};
use dataplane::rate::Nanos;
use dataplane::tables::{Fdb, PortId};
use dataplane::{Account, Dataplane, DropReason, Millis};
use frame::Pool;

use crate::node::packet::at_port;
use crate::node::{Described, Node, Ports};

const NODE: &str = "underlay 198.51.100.11
    vxlan 10
    gateway 198.18.1.1
    bridge red vni 100
    pod a 198.18.1.2
    pod q 198.18.1.6
    pod r 198.18.1.5 rate 1000000 burst 0
    pod m 198.18.1.66 in red
    pod s 198.18.1.69 in red
    peer b 203.0.113.12 vxlan 198.18.2.0/24
    policy shop/q ingress pod-q isolate
    policy shop/s ingress pod-s isolate";

struct Followed {
    node: Node,
    pool: Pool,
    dataplane: Dataplane,
    counters: Arc<Counters>,
    ring: Arc<DropRing>,
    ports: Ports,
    now: Millis,
}

impl Followed {
    fn new() -> Self {
        let node = Node::parse(NODE.lines()).expect("a node");
        let pool = Pool::new(node.frames);
        let fdb = Fdb::new(node.fdb_entries, node.ageing_ms);
        let ring = Arc::new(DropRing::new());
        ring.arm(true);
        let counters = Arc::new(Counters::new());
        let dataplane = Dataplane::new(fdb, pool.clone(), Arc::clone(&counters), node.sessions())
            .sampling(Arc::clone(&ring));
        Self { node, pool, dataplane, counters, ring, ports: Ports::default(), now: Millis(5000) }
    }

    /// The port and bytes of a packet, and what is seen of it when it comes so many times.
    fn seen(&mut self, text: &str, times: u32) -> (PortId, Vec<u8>, Vec<DropSnapshot>) {
        let (port, text) = at_port(&self.node, text).expect("a port");
        let packet = Described::parse(&self.node, text, &[]).expect("a packet");
        self.now.0 += 2000;
        let from = self.ring.written();
        self.dataplane.turn(&self.node.tables, Nanos(self.now.0 * 1_000_000), &mut self.ports);
        for _ in 0..times {
            let received = packet.packet(&self.pool);
            self.dataplane.process(&self.node.tables, port, received, self.now, &mut self.ports);
        }
        self.ports.end_batch(&mut self.dataplane, &self.node.tables);
        let mut seen = Vec::new();
        self.ring.since(from, |snapshot| seen.push(*snapshot));
        (port, packet.bytes, seen)
    }
}

#[test]
fn a_dropped_packet_is_seen_as_it_came() {
    let mut followed = Followed::new();
    for (text, reason) in [
        (
            "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.6 / tcp 1 > 2 flags S / 300 bytes",
            DropReason::PolicyDenied,
        ),
        (
            "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.6 ttl 1 / udp 1 > 2 / 26 bytes",
            DropReason::TtlExceeded,
        ),
        (
            "pod-a eth pod-a > gateway / ip 198.18.1.3 > 198.18.1.6 / udp 1 > 2 / 26 bytes",
            DropReason::SourceAddressSpoofed,
        ),
        (
            "pod-m eth pod-m > broadcast / ip 198.18.1.66 > 198.18.1.255 / udp 1 > 2 / 26 bytes",
            DropReason::PolicyFlood,
        ),
        (
            "uplink eth router > uplink / ip 203.0.113.99 > 198.51.100.11 / udp 50000 > 4789 nosum / \
             vxlan 10 / eth vtep-b > vtep / ip 198.18.2.7 > 198.18.1.2 / udp 1 > 2 / 26 bytes",
            DropReason::UnknownPeer,
        ),
    ] {
        let (port, bytes, seen) = followed.seen(text, 1);
        let [seen] = seen[..] else { panic!("{text}: {seen:?}") };
        assert_eq!((seen.reason, seen.ingress, seen.packets), (reason, port, 1), "{text}");
        assert_eq!(seen.at, followed.now);
        assert_eq!(seen.len as usize, bytes.len(), "{text}");
        assert_eq!(seen.beginning(), &bytes[..bytes.len().min(BEGINNING_BYTES)], "{text}");
    }
    assert_eq!(followed.pool.available(), followed.pool.total(), "no frame is kept for it");
}

#[test]
fn what_a_port_does_not_take_is_seen_as_it_would_have_left() {
    let mut followed = Followed::new();
    let to_a = "pod-r eth pod-r > gateway / ip 198.18.1.5 > 198.18.1.2 / udp 1 > 2 / 26 bytes";
    let a = followed.node.port("pod-a").expect("a port");
    followed.ports.failing.insert(a, DropReason::QueueFull);
    let (port, bytes, seen) = followed.seen(to_a, 1);
    let [seen] = seen[..] else { panic!("{seen:?}") };
    assert_eq!((seen.reason, seen.ingress), (DropReason::QueueFull, port));
    assert_eq!(seen.beginning()[26..], bytes[26..], "its addresses, and what follows");
    assert_eq!(seen.beginning()[22], bytes[22] - 1, "a hop was taken");

    // The queue of a rate has room for a few.
    let to_r = "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.5 / udp 1 > 2 / 1026 bytes";
    let (port, bytes, seen) = followed.seen(to_r, 20);
    let first = seen.first().expect("not all of them wait");
    assert_eq!((first.reason, first.ingress), (DropReason::BandwidthExceeded, port));
    assert_eq!(first.beginning()[26..], bytes[26..BEGINNING_BYTES]);
    followed.dataplane.forget_port(followed.node.port("pod-r").expect("a port"));
    assert_eq!(followed.pool.available(), followed.pool.total(), "no frame is kept for it");
}

#[test]
fn a_packet_that_was_put_off_is_counted_when_its_end_is_known() {
    let mut followed = Followed::new();
    followed.ports.puts_off = true;
    let to_a = "pod-r eth pod-r > gateway / ip 198.18.1.5 > 198.18.1.2 / udp 1 > 2 / 26 bytes";
    let (from, bytes, seen) = followed.seen(to_a, 3);
    assert!(seen.is_empty());
    let received = Accounting { received: 3, ..Accounting::default() };
    assert_eq!(followed.counters.accounting(), received, "none is at its end");

    let put_off = std::mem::take(&mut followed.ports.put_off);
    let outcomes = [Ok(()), Err(DropReason::QueueFull), Ok(())];
    for ((port, packet, account), outcome) in put_off.into_iter().zip(outcomes) {
        assert_eq!(account, Account { ingress: from, packets: 1 });
        followed.dataplane.settle(port, account, &packet.frame, outcome);
    }
    let counters = &followed.counters;
    let books = Accounting { received: 3, made: 0, sent: 2, dropped: 1 };
    assert_eq!(counters.accounting(), books);
    let a = counters.port(followed.node.port("pod-a").expect("a port"));
    assert_eq!((a.tx_packets, a.tx_bytes), (2, 2 * bytes.len() as u64));
    assert_eq!(counters.drops(from, DropReason::QueueFull), 1);
    let mut seen = Vec::new();
    followed.ring.since(0, |snapshot| seen.push(*snapshot));
    let [seen] = seen[..] else { panic!("{seen:?}") };
    assert_eq!((seen.reason, seen.ingress), (DropReason::QueueFull, from));
    assert_eq!(seen.beginning()[26..], bytes[26..], "as it would have left");
    assert_eq!(followed.pool.available(), followed.pool.total());
}
