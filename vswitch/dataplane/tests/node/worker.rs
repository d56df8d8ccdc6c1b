//! A node at work: a packet in, what leaves out, and what must hold of any packet on the way.

use std::sync::Arc;

use dataplane::counters::{Accounting, Counters};
use dataplane::tables::{Fdb, PortId};
use dataplane::{Dataplane, Millis};
use frame::{Offload, Packet, Pool};

use super::egress::Sent;
use super::packet::at_port;
use super::{Described, Node, Ports};

pub(crate) struct Worker {
    pub(crate) node: Node,
    pool: Pool,
    trace_pool: Pool,
    pub(crate) counters: Arc<Counters>,
    dataplane: Dataplane,
}

impl Worker {
    pub(crate) fn new(topology: &str) -> Self {
        let node = Node::parse(topology.lines()).expect("a node");
        let (pool, counters) = (Pool::new(node.frames), Arc::new(Counters::new()));
        let fdb = Fdb::new(node.fdb_entries, node.ageing_ms);
        let dataplane = Dataplane::new(fdb, pool.clone(), Arc::clone(&counters), node.sessions());
        let trace_pool = Pool::new(node.frames);
        Self { node, pool, trace_pool, counters, dataplane }
    }

    pub(crate) fn described(&self, text: &str) -> (PortId, Described) {
        let (port, text) = at_port(&self.node, text).expect("a port");
        (port, Described::parse(&self.node, text, &[]).expect("a packet"))
    }

    fn received(pool: &Pool, bytes: &[u8], offload: Offload) -> Packet {
        let mut frame = pool.alloc().expect("free");
        frame.extend_from_slice(bytes).expect("a chunk holds a superframe");
        Packet { frame, offload }
    }

    /// What leaves; what must hold of any packet is asserted on the way.
    pub(crate) fn process(&mut self, port: PortId, bytes: &[u8], offload: Offload) -> Vec<Sent> {
        let now = Millis(5000);
        let state = |worker: &Self| {
            let mut learned: Vec<_> = worker
                .dataplane
                .fdb
                .page(0..usize::MAX, now)
                .map(|entry| (entry.mac, entry.seen))
                .collect();
            learned.sort_unstable();
            (learned, worker.counters.accounting())
        };
        let before = state(self);
        let traced = Self::received(&self.trace_pool, bytes, offload);
        let tables = &self.node.tables;
        let trace = self.dataplane.trace(tables, &self.trace_pool, port, traced, now);
        assert_eq!(state(self), before, "a trace leaves no mark");

        let sent = self.batch(&[(port, bytes, offload)]);
        let left: Vec<_> = sent.iter().map(|sent| (sent.port, sent.bytes.clone())).collect();
        assert_eq!(left, trace.leaves, "a trace foretells what leaves");

        assert_eq!(self.trace_pool.available(), self.trace_pool.total());
        sent
    }

    /// What leaves of packets that were received in one batch.
    pub(crate) fn batch(&mut self, packets: &[(PortId, &[u8], Offload)]) -> Vec<Sent> {
        let mut ports = Ports::default();
        for (port, bytes, offload) in packets {
            let packet = Self::received(&self.pool, bytes, *offload);
            self.dataplane.process(&self.node.tables, *port, packet, Millis(5000), &mut ports);
        }
        ports.end_batch(&mut self.dataplane, &self.node.tables);
        assert_eq!(self.pool.available(), self.pool.total(), "every frame comes back");
        let Accounting { received, made, sent, dropped } = self.counters.accounting();
        assert_eq!(received + made, sent + dropped, "the accounting closes");
        ports.sent
    }
}
