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
//! | `exit`     | sends to a port, or drops |
//! | `shaper`   | what waits for the rate of its port |
//! | `path_mtu_inbox` | path MTUs that routers of the underlay reported, until they are taken |
//! | `rate`     | limits of what ports send and receive, and what is left of them |
//! | `session`  | the session table, which all workers share |
//! | `limiter`  | the rate limit of answers and ICMP errors |
//! | `counters` | packets, bytes and drops by port |
//! | `drop_sampler` | chooses the dropped packets that `drops --follow` shows |
//! | `drop_ring` | the latest of them, for a reader on another thread |
//! | `trace`    | the same walk, as a list of what each door found |

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod act;
pub mod counters;
pub mod drop_ring;
mod drop_sampler;
mod exit;
mod limiter;
mod path_mtu_inbox;
pub mod rate;
pub mod session;
mod shaper;
pub mod tables;
mod trace;
mod verdict;
mod walk;
pub mod wire;

use std::sync::Arc;

use frame::{Packet, Pool};

pub use act::{Account, Egress, Posted};
use act::{Act, Tally};
use counters::Counters;
use drop_ring::DropRing;
pub use drop_sampler::DROPS_SAMPLED_A_SECOND;
use drop_sampler::DropSampler;
use exit::Exit;
use limiter::Limiter;
use path_mtu_inbox::PathMtuInbox;
use rate::{Budgets, Nanos};
use session::{Outcome, Refusal, SessionEffect, SessionTable, Tick};
use shaper::Shaper;
pub use shaper::wire_len;
use tables::{Fdb, PortId, Tables};
pub use trace::{Trace, trace};
pub use verdict::{Answer, DropReason, IcmpError, Verdict};
use walk::ahead;
use walk::coalesce::Coalescer;
use walk::fragments::Fragments;
pub use walk::ipip::Ipip;
use walk::joined;
use walk::narrator::Silent;
pub use walk::narrator::{
    AfterBridge, Decapsulation, DecidedBy, Network, PolicyEvent, SessionStanding, TraceEvent,
};
pub use walk::path_mtu::PathMtu;
use walk::segment;
use walk::{Decision, View, decide};

/// Time of a turn, in milliseconds since a moment that the caller chose; never decreasing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The session table's time.
    #[inline]
    #[must_use]
    pub fn tick(self) -> Tick {
        Tick((self.0 / 1000) as u32)
    }

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
    sessions: Arc<SessionTable>,
    fragments: Fragments,
    path_mtus: PathMtuInbox,
    limiter: Limiter,
    coalescer: Coalescer,
    shaper: Shaper,
    counters: Arc<Counters>,
    sampler: DropSampler,
    pool: Pool,
}

/// Whether a decision stands once its effects were tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Committed {
    Yes,
    /// Another session holds one of its tuples: perhaps another worker began it a moment before. If it
    /// does not stand the second time either, this is why.
    DecideAgain(DropReason),
}

impl Dataplane {
    /// A dataplane with room for what its worker learns, packet memory for copies, and the session
    /// table that it shares with others.
    #[must_use]
    pub fn new(fdb: Fdb, pool: Pool, counters: Arc<Counters>, sessions: Arc<SessionTable>) -> Self {
        Self {
            shaper: Shaper::new(&pool, Arc::default()),
            fdb,
            sessions,
            fragments: Fragments::new(),
            path_mtus: PathMtuInbox::default(),
            limiter: Limiter::new(),
            coalescer: Coalescer::default(),
            counters,
            sampler: DropSampler::new(Arc::default()),
            pool,
        }
    }

    /// The same, which shares the budgets of what is sent to ports with other workers.
    #[must_use]
    pub fn sharing(self, tx_budgets: Arc<Budgets>) -> Self {
        Self { shaper: Shaper::new(&self.pool, tx_budgets), ..self }
    }

    /// The same, which writes the beginnings of dropped packets to this ring while it is armed.
    #[must_use]
    pub fn sampling(self, ring: Arc<DropRing>) -> Self {
        Self { sampler: DropSampler::new(ring), ..self }
    }

    /// Whether what `process` is going to read is likely not to be in the caches, so that it pays to have
    /// the packets of a batch at hand before the first of them is processed.
    #[inline]
    #[must_use]
    pub fn looks_ahead(&self, tables: &Tables) -> bool {
        tables.fib4.is_large() || self.sessions.is_large()
    }

    /// Begins to load what `process` is going to read for the packets of a batch, before the first of them
    /// is processed, if [`looks_ahead`](Self::looks_ahead): then the routes and sessions of all are waited
    /// for at once.
    #[inline]
    pub fn prefetch<'p>(
        &self,
        tables: &Tables,
        batch: impl Iterator<Item = (PortId, &'p Packet)> + Clone,
    ) {
        if tables.fib4.is_large() {
            ahead::routes(tables, batch.clone());
        }
        if self.sessions.is_large() {
            ahead::sessions(tables, &self.sessions, batch);
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
        if let Some(plan) = joined::tunnel_packets(tables, ingress, &packet) {
            return self.process_each(tables, ingress, &packet, &plan, now, egress);
        }
        self.counters.received(ingress, packet.frame.len());

        let mut decision = Decision::open();
        self.decide(tables, ingress, &packet, now, &mut decision);
        if self.commit(tables, &mut decision, ingress, now) != Committed::Yes {
            self.decide_again(tables, ingress, &packet, now, &mut decision);
        }
        self.counters.policies_said(decision.effects.judged);

        let coalescer = decision.edits.may_merge.then_some(&mut self.coalescer);
        let (tally, pool) = (Counted(&self.counters, &mut self.sampler), &self.pool);
        let exit = Exit { tables, pool, egress, tally, shaper: Some(&mut self.shaper) };
        Act { tables, pool, ingress, exit, coalescer }.carry_out(packet, &decision);
    }

    /// Each of the tunnel packets that came as one, to its end.
    #[cold]
    fn process_each(
        &mut self,
        tables: &Tables,
        ingress: PortId,
        joined: &Packet,
        plan: &segment::Plan,
        now: Millis,
        egress: &mut impl Egress,
    ) {
        for piece in 0..plan.pieces() {
            match joined::tunnel_packet(joined, plan, piece, &self.pool) {
                Ok(packet) => self.process(tables, ingress, packet, now, egress),
                Err(reason) => self.unreadable(ingress, reason),
            }
        }
    }

    #[inline(always)]
    fn decide(
        &self,
        tables: &Tables,
        ingress: PortId,
        packet: &Packet,
        now: Millis,
        decision: &mut Decision,
    ) {
        let view = self.view(tables, now);
        decide(&view, ingress, &packet.frame, &packet.offload, decision, &mut Silent);
    }

    #[inline(always)]
    pub(crate) fn view<'a>(&'a self, tables: &'a Tables, now: Millis) -> View<'a> {
        let Self { fdb, sessions, fragments, .. } = self;
        View { tables, fdb, sessions, fragments, now }
    }

    /// The session is in the table by now, so that it is found.
    #[cold]
    fn decide_again(
        &mut self,
        tables: &Tables,
        ingress: PortId,
        packet: &Packet,
        now: Millis,
        decision: &mut Decision,
    ) {
        *decision = Decision::open();
        self.decide(tables, ingress, packet, now, decision);
        if let Committed::DecideAgain(reason) = self.commit(tables, decision, ingress, now) {
            decision.verdict = Verdict::Drop(reason);
        }
    }

    /// Carries out the decision's effects: on the worker's own state, and on the session table. A
    /// verdict that answers becomes a drop if the port is over its rate limit, and one that begins a
    /// session if there is no room.
    #[inline(always)]
    fn commit(
        &mut self,
        tables: &Tables,
        decision: &mut Decision,
        ingress: PortId,
        now: Millis,
    ) -> Committed {
        if decision.effects.session.is_some()
            && let again @ Committed::DecideAgain(_) = self.commit_session(tables, decision, now)
        {
            return again;
        }
        if let Some(first) = decision.effects.first_fragment {
            self.fragments.note(first, now);
        }
        if let Some(found) = decision.effects.learn {
            self.fdb.learn(found.bridge, found.mac, found.vtep, now);
        }
        if let Some(path_mtu) = decision.effects.path_mtu {
            self.path_mtus.note(path_mtu);
        }
        self.limiter.admit(&mut decision.verdict, ingress, now);
        Committed::Yes
    }

    #[inline(never)]
    fn commit_session(&self, tables: &Tables, decision: &mut Decision, now: Millis) -> Committed {
        let now = now.tick();
        if let Some(ended) = decision.effects.ends {
            self.sessions.commit(&SessionEffect::Close(ended), now);
        }
        let Some(effect) = decision.effects.session else { return Committed::Yes };
        let outcome = self.sessions.commit(&effect, now);
        if outcome == Outcome::Created {
            if let Some(affinity) = decision.effects.affinity {
                self.sessions.note_affinity(affinity, now);
            }
            count_connection(tables, &effect);
        }
        let refusal = match (outcome, effect) {
            (Outcome::Existing(found), SessionEffect::Create(wanted))
                if found.session.server_side != wanted.server_side =>
            {
                return Committed::DecideAgain(DropReason::SessionBusy);
            }
            (Outcome::Refused(Refusal::Taken), _) => {
                return Committed::DecideAgain(DropReason::SessionPortsUsed);
            }
            (Outcome::Refused(refusal), SessionEffect::Create(_)) => refusal,
            // What is not noted of a session is noted with its next packet.
            _ => return Committed::Yes,
        };
        decision.effects.first_fragment = None;
        decision.verdict = Verdict::Drop(match refusal {
            Refusal::Full => DropReason::SessionFull,
            Refusal::Quota => DropReason::SessionQuota,
            Refusal::Busy | Refusal::Taken => DropReason::SessionBusy,
        });
        Committed::Yes
    }

    /// The session table.
    #[must_use]
    pub fn sessions(&self) -> &Arc<SessionTable> {
        &self.sessions
    }

    /// Ends a batch from the NIC: sends what was merged of it, but for a superframe whose flow streams, which
    /// stays for more of it. `more` tells that further packets are known to wait there.
    pub fn end_batch(&mut self, tables: &Tables, more: bool, egress: &mut impl Egress) {
        let (tally, pool) = (Counted(&self.counters, &mut self.sampler), &self.pool);
        let mut exit = Exit { tables, pool, egress, tally, shaper: Some(&mut self.shaper) };
        self.coalescer.end_batch(more, &mut |train| exit.send_train(train));
    }

    /// Begins a turn at this time: sends what waited for the rates of ports and is due, and superframes that
    /// have waited for long enough when the former turn began, all of whose packets were seen since. Neither
    /// rates nor superframes that wait know of another time until the next turn, nor do samples of what is
    /// dropped.
    pub fn turn(&mut self, tables: &Tables, now: Nanos, egress: &mut impl Egress) {
        self.sampler.set_time(Millis(now.0 / 1_000_000));
        self.shaper.turn(tables, now, egress, &mut Counted(&self.counters, &mut self.sampler));
        let (tally, pool) = (Counted(&self.counters, &mut self.sampler), &self.pool);
        let mut exit = Exit { tables, pool, egress, tally, shaper: Some(&mut self.shaper) };
        self.coalescer.turn(tables.epoch, now, &mut |train| exit.send_train(train));
    }

    /// When a turn has something to send that waits now; `None` if nothing waits.
    #[must_use]
    pub fn due(&self) -> Option<Nanos> {
        [self.shaper.due(), self.coalescer.due()].into_iter().flatten().min()
    }

    /// Whether a superframe waits for more of its flow: for some microseconds, shorter than any sleep.
    #[must_use]
    pub fn merges(&self) -> bool {
        self.coalescer.due().is_some()
    }

    /// Drops what waits for a port that is taken away.
    pub fn forget_port(&mut self, port: PortId) {
        let mut tally = Counted(&self.counters, &mut self.sampler);
        self.shaper.forget(port, &mut tally);
        self.coalescer.forget(port, &mut |train| {
            let ingress = train.ingress;
            let (packet, packets) = train.into_packet();
            tally.dropped(ingress, packets, DropReason::PortGone, &packet.frame);
        });
    }

    /// Takes the path MTUs that routers of the underlay reported since the last call, one of each
    /// tunnel's end.
    pub fn take_path_mtus(&mut self) -> impl Iterator<Item = PathMtu> {
        self.path_mtus.take()
    }

    /// Counts the end of a packet that [`Egress::post`] put off: its port has taken it by now, or refused it
    /// for this reason.
    pub fn settle(
        &mut self,
        port: PortId,
        account: Account,
        frame: &[u8],
        outcome: Result<(), DropReason>,
    ) {
        let Account { ingress, packets } = account;
        let mut tally = Counted(&self.counters, &mut self.sampler);
        match outcome {
            Ok(()) => tally.sent(port, packets, frame.len()),
            Err(reason) => tally.dropped(ingress, packets, reason, frame),
        }
    }

    /// Counts a packet that another worker was to process and that found no room on the way to it.
    pub fn not_handed_over(&mut self, ingress: PortId, frame: &[u8]) {
        self.counters.received(ingress, frame.len());
        let mut tally = Counted(&self.counters, &mut self.sampler);
        tally.dropped(ingress, 1, DropReason::HandoffFull, frame);
    }

    /// Counts a packet that the port's own I/O could not even hand over.
    pub fn unreadable(&mut self, ingress: PortId, reason: DropReason) {
        self.counters.received(ingress, 0);
        Counted(&self.counters, &mut self.sampler).dropped(ingress, 1, reason, &[]);
    }
}

/// Counts a connection of a service, whose session has begun.
fn count_connection(tables: &Tables, effect: &SessionEffect) {
    if let SessionEffect::Create(session) = effect
        && session.is_translated()
        && let Some(service) = walk::session::service_at(tables, &session.client_side)
    {
        service.connections.note();
    }
}

struct Counted<'a>(&'a Counters, &'a mut DropSampler);

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
    fn delayed(&mut self, port: PortId) {
        self.0.tx_delayed(port);
    }

    #[inline]
    fn dropped(&mut self, ingress: PortId, packets: u64, reason: DropReason, frame: &[u8]) {
        self.0.dropped(ingress, packets, reason);
        self.1.dropped(ingress, packets, reason, frame);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
