//! A worker without I/O: packet memory, tables, and a sink behind the way out.
//!
//! Enters: tables from `live`, frames from `traffic`. Leaves: the time that `process` took for a
//! batch. Frames lie ready as in a NIC's ring; before each batch they are copied into packet
//! memory, which is not part of the time but can be measured by itself with [`Node::receive`]. What
//! is sent is dropped at once, its memory back in the pool: that is part of the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::counters::{Accounting, Counters};
use dataplane::session::{Header, SessionTable, default_buckets};
use dataplane::tables::{Fdb, PortId, Tables};
use dataplane::{Dataplane, DropReason, Egress, Millis};
use frame::{Offload, Packet, Pool};

use crate::BATCH;

/// A frame in a ring.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The port that it came by.
    pub ingress: PortId,
    /// The frame, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Offloads that its sender left undone.
    pub offload: Offload,
}

/// A worker without I/O.
pub struct Node {
    dataplane: Dataplane,
    tables: Tables,
    counters: Arc<Counters>,
    pool: Pool,
    ring: Vec<Ready>,
    next: usize,
    received: Vec<(PortId, Packet)>,
    sink: Sink,
}

/// An empty table with the size that it has by default for so many cores.
fn sessions(cores: u32) -> Arc<SessionTable> {
    let header = Header { boot_id: 1, seed: 2, buckets: default_buckets(cores) };
    Arc::new(SessionTable::on_heap(&header).expect("two buckets at least"))
}

impl Ready {
    /// A copy in packet memory.
    fn received(&self, pool: &Pool) -> (PortId, Packet) {
        let mut frame = pool.alloc().expect("the pool holds a batch");
        frame.extend_from_slice(&self.bytes).expect("a ring's frame fits");
        (self.ingress, Packet { frame, offload: self.offload })
    }
}

impl Node {
    /// With these tables, and these frames coming in again and again, all of them forwarded.
    ///
    /// # Panics
    /// If a frame of the ring does not leave, or the ring is empty: dropping is not what is to be
    /// measured.
    #[must_use]
    pub fn new(tables: Tables, fdb: Fdb, ring: Vec<Ready>) -> Self {
        let node = Self::with_sessions(tables, fdb, ring, sessions(2));
        node.tried()
    }

    /// The same without learned MACs, after each of these frames has begun a session.
    ///
    /// # Panics
    /// If one begins none or does not leave, or for the reasons of [`new`](Self::new).
    #[must_use]
    pub fn knowing(
        tables: Tables,
        openers: impl ExactSizeIterator<Item = Ready>,
        ring: Vec<Ready>,
    ) -> Self {
        // A session that is translated has two entries.
        let (count, cores) = (openers.len(), (2 * openers.len() as u32).div_ceil(32_768));
        let fdb = Fdb::new(1, 300_000);
        let mut node = Self::with_sessions(tables, fdb, ring, sessions(cores));
        for opener in openers {
            let (ingress, packet) = opener.received(&node.pool);
            node.dataplane.process(&node.tables, ingress, packet, Millis(0), &mut node.sink);
        }
        let node = node.tried();
        let [v4, _] = node.dataplane.sessions().totals();
        assert_eq!(v4.embryonic as usize, count, "each frame began a session, and no other did");
        node
    }

    fn with_sessions(
        tables: Tables,
        fdb: Fdb,
        ring: Vec<Ready>,
        sessions: Arc<SessionTable>,
    ) -> Self {
        assert!(!ring.is_empty(), "there is something to forward");
        let pool = Pool::new(2 * BATCH as u32);
        let counters = Arc::new(Counters::new());
        Self {
            dataplane: Dataplane::new(fdb, pool.clone(), Arc::clone(&counters), sessions),
            tables,
            counters,
            pool,
            ring,
            next: 0,
            received: Vec::with_capacity(BATCH),
            sink: Sink::default(),
        }
    }

    /// Takes all frames of the ring through the walk once.
    fn tried(mut self) -> Self {
        for _ in 0..self.ring.len().div_ceil(BATCH) {
            self.turn();
        }
        let Accounting { received, made, sent, dropped } = self.counters.accounting();
        assert_eq!(dropped, 0, "every frame is forwarded");
        assert_eq!(sent, received + made, "every frame leaves once");
        self
    }

    /// Takes a batch through the walk; the time from the first frame to the last.
    pub fn turn(&mut self) -> Duration {
        self.receive();
        let start = Instant::now();
        let batch = self.received.iter().map(|(ingress, packet)| (*ingress, packet));
        self.dataplane.prefetch(&self.tables, batch);
        for (ingress, packet) in self.received.drain(..) {
            self.dataplane.process(&self.tables, ingress, packet, Millis(0), &mut self.sink);
        }
        start.elapsed()
    }

    /// Copies a batch into packet memory, as a driver would; an earlier batch is dropped.
    ///
    /// # Panics
    /// If the pool is too small for a batch.
    pub fn receive(&mut self) {
        self.received.clear();
        for _ in 0..BATCH {
            let ready = &self.ring[self.next];
            self.next = if self.next + 1 == self.ring.len() { 0 } else { self.next + 1 };
            self.received.push(ready.received(&self.pool));
        }
    }

    /// Bytes of a batch, on average over the ring.
    #[must_use]
    pub fn batch_bytes(&self) -> u64 {
        let all: usize = self.ring.iter().map(|ready| ready.bytes.len()).sum();
        (all * BATCH / self.ring.len()) as u64
    }

    /// What was received, made, sent and dropped so far.
    #[must_use]
    pub fn accounting(&self) -> Accounting {
        self.counters.accounting()
    }
}

/// Takes everything. Pieces of a superframe are written to its own memory, as to a ring's.
struct Sink {
    memory: Vec<u8>,
}

impl Default for Sink {
    fn default() -> Self {
        Self { memory: vec![0; 2048] }
    }
}

impl Egress for Sink {
    fn send(&mut self, _: PortId, packet: Packet) -> Result<(), DropReason> {
        drop(std::hint::black_box(packet));
        Ok(())
    }

    fn send_with(
        &mut self,
        _: PortId,
        len: usize,
        write: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), DropReason> {
        let memory = self.memory.get_mut(..len).ok_or(DropReason::NoHeadroom)?;
        write(memory);
        std::hint::black_box(memory);
        Ok(())
    }
}
