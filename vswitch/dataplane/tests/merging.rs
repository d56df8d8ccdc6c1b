//! TCP segments from the NIC that come in several batches and turns: which of them leave together, when, and
//! that they leave in order.

use std::collections::HashMap;
use std::sync::Arc;

use dataplane::counters::Counters;
use dataplane::rate::Nanos;
use dataplane::tables::{Epoch, Fdb};
use dataplane::{Dataplane, DropReason, Millis};
use frame::Pool;
use proptest::prelude::*;

use crate::node::packet::at_port;
use crate::node::{Described, Node, Ports};

const NODE: &str = "underlay 198.51.100.11
    vxlan 10
    gateway 198.18.1.1
    pod a 198.18.1.2
    pod b 198.18.1.3
    peer b 203.0.113.12 vxlan 198.18.2.0/24";

const SEGMENT: u32 = 1000;

/// A step of time: a superframe stays for 20 of them after its latest segment, and for 50 in all.
const QUANTUM_NS: u64 = 250;

/// A node between its NIC and two pods.
struct Receiver {
    node: Node,
    pool: Pool,
    dataplane: Dataplane,
    counters: Arc<Counters>,
    ports: Ports,
    /// In steps of [`QUANTUM_NS`].
    time: u64,
    /// The next sequence number of each flow, by its source port.
    next: HashMap<u16, u32>,
}

/// A segment by its flow, length and flags.
#[derive(Debug, Clone, Copy)]
struct Segment {
    flow: u16,
    len: u32,
    flags: &'static str,
}

const fn full(flow: u16) -> Segment {
    Segment { flow, len: SEGMENT, flags: "A" }
}

const fn pushed(flow: u16) -> Segment {
    Segment { flags: "AP", ..full(flow) }
}

impl Receiver {
    fn new() -> Self {
        let node = Node::parse(NODE.lines()).expect("a node");
        let pool = Pool::new(node.frames);
        let fdb = Fdb::new(node.fdb_entries, node.ageing_ms);
        let counters = Arc::new(Counters::new());
        let dataplane = Dataplane::new(fdb, pool.clone(), Arc::clone(&counters), node.sessions());
        let ports = Ports::default();
        Self { node, pool, dataplane, counters, ports, time: 1000, next: HashMap::new() }
    }

    /// A turn, so many steps of time after the former one, that gets a batch. Returns the bytes of payload of
    /// each packet that left in it.
    fn turn(&mut self, after: u64, batch: &[Segment], more: bool) -> Vec<usize> {
        self.time += after;
        self.ports.sent.clear();
        let tables = &self.node.tables;
        self.dataplane.turn(tables, Nanos(self.time * QUANTUM_NS), &mut self.ports);
        for Segment { flow, len, flags } in batch {
            let next = self.next.entry(*flow).or_insert(1);
            let text = format!(
                "uplink eth router > uplink / ip 203.0.113.12 > 198.51.100.11 / udp 50000 > 4789 nosum / \
                 vxlan 10 / eth vtep-b > vtep / ip 198.18.2.7 > 198.18.1.{} df / \
                 tcp {flow} > 80 seq {next} flags {flags} / {len} bytes from {}",
                2 + flow % 2,
                *next - 1,
            );
            *next += len;
            let (port, text) = at_port(&self.node, &text).expect("a port");
            let packet = Described::parse(&self.node, text, &[]).expect("a packet");
            let received = packet.packet(&self.pool);
            let now = Millis(self.time * QUANTUM_NS / 1_000_000);
            self.dataplane.process(tables, port, received, now, &mut self.ports);
        }
        self.dataplane.end_batch(tables, more, &mut self.ports);
        self.left()
    }

    fn left(&self) -> Vec<usize> {
        self.ports.sent.iter().map(|sent| sent.bytes.len() - 54).collect()
    }

    /// Turns without packets, until nothing waits.
    fn rest(&mut self) -> Vec<usize> {
        let mut left = Vec::new();
        while self.dataplane.merges() {
            left.extend(self.turn(5, &[], false));
        }
        left
    }

    /// A flow that is known to stream.
    fn streaming() -> Self {
        let mut receiver = Self::new();
        assert_eq!(receiver.turn(0, &[full(1)], false), [1000], "one that is alone");
        assert_eq!(receiver.turn(10, &[full(1)], false), [], "the next one came soon");
        assert!(receiver.dataplane.due().is_some() && receiver.dataplane.merges());
        receiver
    }

    fn is_conserved(&self) -> bool {
        let all = self.counters.accounting();
        all.received + all.made == all.sent + all.dropped
            && self.pool.available() == self.pool.total()
    }
}

#[test]
fn segments_of_a_stream_that_come_one_by_one_leave_together() {
    let mut receiver = Receiver::streaming();
    assert_eq!(receiver.turn(10, &[full(1)], false), []);
    assert_eq!(receiver.turn(10, &[pushed(1)], false), [3000], "the sender asks for delivery");
    assert!(receiver.is_conserved() && receiver.dataplane.due().is_none());
    assert_eq!(receiver.turn(10, &[full(1)], false), [], "it streams still");
    assert_eq!(receiver.rest(), [1000]);
    assert!(receiver.is_conserved());
}

#[test]
fn what_is_alone_leaves_at_once() {
    let mut receiver = Receiver::new();
    for _ in 0..5 {
        assert_eq!(receiver.turn(21, &[full(1)], false), [1000]);
    }
    assert_eq!(receiver.turn(3, &[full(2), pushed(3)], false), [1000, 1000], "other flows");
    assert!(receiver.is_conserved());
}

#[test]
fn a_sender_that_pauses_costs_one_wait() {
    let mut receiver = Receiver::streaming();
    assert_eq!(receiver.turn(15, &[], false), []);
    assert_eq!(receiver.turn(15, &[], false), [1000]);
    assert_eq!(receiver.turn(100, &[full(1)], false), [1000]);
    assert_eq!(receiver.turn(100, &[full(1)], false), [1000]);
    assert!(receiver.is_conserved());
}

#[test]
fn a_turn_without_a_batch_from_the_nic_lets_go_of_what_was_due_before_it() {
    let mut receiver = Receiver::streaming();
    for left in [0, 1] {
        receiver.time += 20;
        let now = Nanos(receiver.time * QUANTUM_NS);
        receiver.dataplane.turn(&receiver.node.tables, now, &mut receiver.ports);
        assert_eq!(
            receiver.left().len(),
            left,
            "a segment of the first turn might have continued it"
        );
    }
    assert!(receiver.is_conserved());
}

#[test]
fn a_segment_that_comes_while_its_train_is_due_joins_it() {
    let mut receiver = Receiver::streaming();
    assert_eq!(receiver.turn(20, &[full(1)], false), [], "a turn that took long");
    assert_eq!(receiver.rest(), [2000]);
}

#[test]
fn none_waits_longer_than_fifty_steps() {
    let mut receiver = Receiver::streaming();
    for _ in 0..4 {
        assert_eq!(receiver.turn(10, &[full(1)], false), []);
    }
    assert_eq!(receiver.turn(10, &[full(1)], false), [6000]);
    assert_eq!(receiver.turn(10, &[full(1)], false), [], "it streams still");
}

#[test]
fn while_packets_wait_those_of_several_segments_stay() {
    let mut receiver = Receiver::new();
    let batch = [full(1), full(1), full(2)];
    assert_eq!(receiver.turn(10, &batch, true), [1000], "one that is alone leaves");
    assert_eq!(receiver.turn(10, &[pushed(1)], false), [3000]);
    assert_eq!(receiver.turn(10, &[full(1), full(1)], true), []);
    assert_eq!(receiver.turn(10, &[full(2)], false), [2000, 1000], "none waits");
    assert!(receiver.is_conserved());
}

#[test]
fn what_older_tables_have_begun_leaves_before_packets_of_others() {
    let mut receiver = Receiver::streaming();
    receiver.node.tables.epoch = Epoch(receiver.node.tables.epoch.0 + 1);
    assert_eq!(receiver.turn(1, &[full(1)], false), [1000]);
    assert_eq!(receiver.rest(), [1000]);
}

#[test]
fn what_waits_for_a_port_that_is_taken_away_is_dropped() {
    let mut receiver = Receiver::streaming();
    let pod = receiver.node.port("pod-b").expect("a port");
    receiver.dataplane.forget_port(pod);
    let uplink = receiver.node.port("uplink").expect("a port");
    assert_eq!(receiver.counters.drops(uplink, DropReason::PortGone), 1);
    assert!(receiver.is_conserved());
}

/// Segments in turns: a few flows, most of them full, some short, pushed or the last.
fn turns() -> impl Strategy<Value = Vec<(u64, Vec<Segment>, bool)>> {
    let flags = prop_oneof![8 => Just("A"), 2 => Just("AP"), 1 => Just("AF"), 1 => Just("AE")];
    let len = prop_oneof![8 => Just(SEGMENT), 1 => Just(0u32), 1 => 1..SEGMENT, 1 => Just(1200u32)];
    let segment = (0u16..20, len, flags).prop_map(|(flow, len, flags)| Segment {
        flow: flow / 4,
        len,
        flags,
    });
    let batch = prop::collection::vec(segment, 0..8);
    prop::collection::vec((0u64..30, batch, any::<bool>()), 1..40)
}

proptest! {
    #[test]
    fn each_flow_leaves_in_order_and_whole(turns in turns()) {
        let mut receiver = Receiver::new();
        let mut arrived: HashMap<u16, u32> = HashMap::new();
        let mut all = turns;
        all.push((5, vec![], false));
        for (after, batch, more) in &all {
            let mut left = vec![];
            receiver.turn(*after, batch, *more);
            left.append(&mut receiver.ports.sent);
            if std::ptr::eq(batch, &all[all.len() - 1].1) {
                while receiver.dataplane.merges() {
                    receiver.turn(5, &[], false);
                    left.append(&mut receiver.ports.sent);
                }
            }
            for sent in left {
                let word = |at: usize| u16::from_be_bytes([sent.bytes[at], sent.bytes[at + 1]]);
                let sequence = u32::from(word(38)) << 16 | u32::from(word(40));
                let expected = arrived.entry(word(34)).or_insert(1);
                prop_assert_eq!(sequence, *expected, "in order");
                let payload = &sent.bytes[54..];
                let pattern = (sequence - 1..).map(|at| (at % 251) as u8);
                prop_assert!(payload.iter().copied().eq(pattern.take(payload.len())), "the bytes");
                *expected += payload.len() as u32;
            }
        }
        prop_assert_eq!(arrived, receiver.next.clone(), "all of it");
        prop_assert!(receiver.is_conserved());
    }
}
