//! The pure core of the switch: headers, tables and the walk.
//!
//! No I/O, no clock, no threads, no `unsafe`, no allocation per packet, and no panic on any byte
//! sequence. A worker calls [`Dataplane::process`] with a received packet and the tables of this
//! turn; what leaves goes to its [`Egress`].
//!
//! | module | holds |
//! |---|---|
//! | `wire`     | one file a header: view, value, edits |
//! | `tables`   | what forwards now |
//! | `walk`     | the doors: `decap`, `parse`, `bridge`, `route`, and the edits behind the verdict |
//! | `verdict`  | every end that a packet can meet |
//! | `act`      | carries a verdict out |
//! | `path_mtu_inbox` | path MTUs that routers of the underlay reported, until they are taken |
//! | `session`  | the session table, which all workers share |
//! | `limiter`  | the rate limit of answers and ICMP errors |
//! | `counters` | packets, bytes and drops by port |
//! | `trace`    | the same walk, as a list of what each door found |

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod act;
pub mod counters;
mod limiter;
mod path_mtu_inbox;
pub mod session;
pub mod tables;
mod trace;
mod verdict;
mod walk;
pub mod wire;

use std::sync::Arc;

use frame::{Packet, Pool};

pub use act::Egress;
use act::{Act, Tally};
use counters::Counters;
use limiter::Limiter;
use path_mtu_inbox::PathMtuInbox;
use tables::{Fdb, PortId, Tables};
pub use trace::{Trace, trace};
pub use verdict::{Answer, DropReason, IcmpError, Verdict};
use walk::coalesce::Coalescer;
use walk::narrator::Silent;
pub use walk::narrator::{AfterBridge, Decapsulation, Network, TraceEvent};
pub use walk::path_mtu::PathMtu;
use walk::{Decision, View, decide};

/// Time of a turn, in milliseconds since a moment that the caller chose; never decreasing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// Milliseconds since an earlier moment; zero if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The forwarding state of one worker.
pub struct Dataplane {
    /// Learned MACs.
    pub fdb: Fdb,
    path_mtus: PathMtuInbox,
    limiter: Limiter,
    coalescer: Coalescer,
    counters: Arc<Counters>,
    pool: Pool,
}

impl Dataplane {
    /// A dataplane with room for what its worker learns, and packet memory for copies.
    #[must_use]
    pub fn new(fdb: Fdb, pool: Pool, counters: Arc<Counters>) -> Self {
        Self {
            fdb,
            path_mtus: PathMtuInbox::default(),
            limiter: Limiter::new(),
            coalescer: Coalescer::default(),
            counters,
            pool,
        }
    }

    /// The walk: one received packet to its end.
    pub fn process(
        &mut self,
        tables: &Tables,
        ingress: PortId,
        packet: Packet,
        now: Millis,
        egress: &mut impl Egress,
    ) {
        self.counters.received(ingress, packet.frame.len());

        let view = View { tables, fdb: &self.fdb, now };
        let mut decision = Decision::open();
        let offload = &packet.offload;
        decide(&view, ingress, &packet.frame, offload, &mut decision, &mut Silent);
        self.commit(&mut decision, ingress, now);

        let coalescer = decision.edits.may_merge.then_some(&mut self.coalescer);
        let tally = Counted(&self.counters);
        Act { tables, pool: &self.pool, ingress, egress, tally, coalescer }
            .carry_out(packet, &decision);
    }

    /// Carries out the decision's effects on the worker's own state. A verdict that answers becomes
    /// a drop if the port is over its rate limit.
    #[inline(always)]
    fn commit(&mut self, decision: &mut Decision, ingress: PortId, now: Millis) {
        if let Some(found) = decision.effects.learn {
            self.fdb.learn(found.bridge, found.mac, found.target, ingress, now);
        }
        if let Some(path_mtu) = decision.effects.path_mtu {
            self.path_mtus.note(path_mtu);
        }
        self.limiter.admit(&mut decision.verdict, ingress, now);
    }

    /// Sends what waits for more of its flow. To be called at the end of every batch from the NIC.
    pub fn flush(&mut self, egress: &mut impl Egress) {
        let tally = &mut Counted(&self.counters);
        self.coalescer.flush(&mut |train| act::send_train(train, egress, tally));
    }

    /// Takes the path MTUs that routers of the underlay reported since the last call, one of each
    /// tunnel's end.
    pub fn take_path_mtus(&mut self) -> impl Iterator<Item = PathMtu> {
        self.path_mtus.take()
    }

    /// Counts a packet that the port's own I/O could not even hand over.
    pub fn unreadable(&self, ingress: PortId, reason: DropReason) {
        self.counters.received(ingress, 0);
        self.counters.dropped(ingress, 1, reason);
    }
}

struct Counted<'a>(&'a Counters);

impl Tally for Counted<'_> {
    #[inline]
    fn sent(&mut self, port: PortId, packets: u64, bytes: usize) {
        self.0.sent(port, packets, bytes);
    }

    #[inline]
    fn made(&mut self, packets: u64) {
        self.0.made(packets);
    }

    #[inline]
    fn dropped(&mut self, ingress: PortId, packets: u64, reason: DropReason) {
        self.0.dropped(ingress, packets, reason);
    }
}
