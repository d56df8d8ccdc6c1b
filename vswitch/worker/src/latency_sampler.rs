//! Chooses the packets whose way through a worker is timed, and times them.
//!
//! Enters: the beginning of a turn, which source is served, each packet that is sent, the end of the turn. Leaves:
//! one latency a turn, to [`Latencies`]. The turn and its way out call it.
//!
//! A latency lasts from the beginning of the turn, when the worker had just asked which sources are ready, to the
//! end of the system call that hands the packet on: the write to a TAP, or the flush of the NIC's queue. So it has
//! what the packet waited for others of its turn. It lacks what was before: in the TAP's or NIC's queue, and until
//! a worker that slept had its core again. A packet that came during the turn has waited for less.
//!
//! One packet of each turn is chosen, each with the same chance, and stands for all that the turn has sent: so
//! a small turn counts as little as its packets are few, and in the sum packets count alike. How many there will
//! be is not known before the end: the first is chosen, and each later one takes its place with a chance of one in
//! its number (reservoir sampling; Vitter 1985, and Li 1994 for skipping ahead). The clock is read for those
//! that were chosen at some time: once in a turn of one packet, 1 + 1/2 + … + 1/n times, 4.2 of 36, in others.

use std::sync::Arc;
use std::time::Instant;

use dataplane::tables::{PortId, Tables};

use crate::latency::{Latencies, LatencyPath};

/// A number that no packet of a turn has.
const NEVER: u32 = 0;

pub(super) struct LatencySampler {
    latencies: Arc<Latencies>,
    begun: Instant,
    /// The port that is served.
    source: PortId,
    /// Packets that the turn has sent.
    sent: u32,
    /// The number of the packet that is chosen next.
    next: u32,
    chosen: Option<Chosen>,
    /// One of an earlier turn that the NIC had no room for.
    unsent: Option<Timed>,
    random: u64,
}

/// When a packet is with the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// It is already.
    Now,
    /// With the flush at the end of the turn.
    AtFlush,
}

struct Chosen {
    from: PortId,
    to: PortId,
    /// `None` if it leaves with the flush.
    left_at: Option<Instant>,
}

struct Timed {
    path: LatencyPath,
    from: PortId,
    begun: Instant,
    packets: u32,
}

impl LatencySampler {
    pub(super) fn new(latencies: Arc<Latencies>) -> Self {
        Self {
            latencies,
            begun: Instant::now(),
            source: PortId(0),
            sent: 0,
            next: NEVER,
            chosen: None,
            unsent: None,
            // Any but zero: nobody gains by knowing which packets are chosen.
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// A turn begins to receive. What is sent outside of turns was held back on purpose, and is not timed.
    pub(super) fn begin(&mut self, now: Instant) {
        self.begun = now;
        self.sent = 0;
        self.next = 1;
    }

    /// Packets come from this port from now on.
    pub(super) fn serve(&mut self, source: PortId) {
        self.source = source;
    }

    /// A port has taken a packet. An answer to the port that was served is none that passes the switch.
    #[inline]
    pub(super) fn sent(&mut self, to: PortId, leaves: Leaves) {
        if to == self.source {
            return;
        }
        self.sent = self.sent.wrapping_add(1);
        if self.sent == self.next {
            self.choose(to, leaves);
        }
    }

    #[inline(never)]
    fn choose(&mut self, to: PortId, leaves: Leaves) {
        let left_at = (leaves == Leaves::Now).then(Instant::now);
        self.chosen = Some(Chosen { from: self.source, to, left_at });
        self.next = successor(self.sent, self.random());
    }

    /// The turn has flushed its way out; `is_unsent` if the NIC had no room for all.
    pub(super) fn end(&mut self, tables: &Tables, is_unsent: bool) {
        self.next = NEVER;
        if self.unsent.is_none() && self.chosen.is_none() {
            return;
        }
        if !is_unsent && let Some(timed) = self.unsent.take() {
            self.record(&timed, Instant::now());
        }
        let Some(Chosen { from, to, left_at }) = self.chosen.take() else { return };
        let role = |port| tables.port(port).map(|port| port.kind);
        let (Some(from_role), Some(to_role)) = (role(from), role(to)) else { return };
        let Some(path) = LatencyPath::between(from_role, to_role) else { return };
        let timed = Timed { path, from, begun: self.begun, packets: self.sent };
        match left_at {
            Some(at) => self.record(&timed, at),
            None if is_unsent => {
                // The one that waits longer stays.
                self.unsent.get_or_insert(timed);
            }
            None => self.record(&timed, Instant::now()),
        }
    }

    /// A port's number is given to another.
    pub(super) fn forget(&mut self, port: PortId) {
        self.latencies.clear_port(port);
        self.unsent.take_if(|timed| timed.from == port);
    }

    fn record(&self, timed: &Timed, at: Instant) {
        let took = at.saturating_duration_since(timed.begun).as_nanos();
        let ns = u64::try_from(took).unwrap_or(u64::MAX);
        self.latencies.record(timed.path, timed.from, ns, timed.packets);
    }

    /// Marsaglia's xorshift with shifts of 13, 7 and 17.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// The packet that takes the place of the `number`th: with `u` even in (0, 1], that after `number / u`, as the
/// chance that none up to the `m`th does is `number / m`.
fn successor(number: u32, random: u64) -> u32 {
    let u = (random >> 32) + 1;
    let after = (u64::from(number) << 32) / u;
    u32::try_from(after + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
