//! Counters of packets, bytes and drops: one block per worker, written by that worker alone.
//!
//! Enters: `process` and `act` count. Leaves: the control thread reads at any time. A single writer
//! makes load-add-store enough; relaxed, as no counter orders anything else. The accounting closes:
//! at rest, `received + made == sent + dropped`. Packets that wait for the rate of their port, or to be
//! written to it together with others, are not at their end yet.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::tables::policy::Direction;
use crate::tables::{MAX_PORTS, PortId};
use crate::verdict::DropReason;
use crate::walk::policy::Judged;

const REASONS: usize = DropReason::ALL.len();

/// Counters of one worker.
#[derive(Debug)]
pub struct Counters {
    totals: Totals,
    /// The sum of ports that are gone.
    gone: PortBlock,
    ports: Box<[PortBlock]>,
}

/// Over all ports that ever were.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Totals {
    received: AtomicU64,
    made: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    /// By [`Totals::judged`].
    judged: [AtomicU64; 4],
}

impl Totals {
    fn judged(&self, direction: Direction, allowed: bool) -> &AtomicU64 {
        let [in_allowed, in_denied, out_allowed, out_denied] = &self.judged;
        match (direction, allowed) {
            (Direction::Ingress, true) => in_allowed,
            (Direction::Ingress, false) => in_denied,
            (Direction::Egress, true) => out_allowed,
            (Direction::Egress, false) => out_denied,
        }
    }
}

/// Two lines are prefetched together, hence the alignment: no block shares a pair with another's.
#[derive(Debug)]
#[repr(align(128))]
struct PortBlock {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
    rx_delayed: AtomicU64,
    tx_delayed: AtomicU64,
    drops: [AtomicU64; REASONS],
}

impl Default for PortBlock {
    fn default() -> Self {
        Self {
            rx_packets: AtomicU64::default(),
            rx_bytes: AtomicU64::default(),
            tx_packets: AtomicU64::default(),
            tx_bytes: AtomicU64::default(),
            rx_delayed: AtomicU64::default(),
            tx_delayed: AtomicU64::default(),
            drops: [const { AtomicU64::new(0) }; REASONS],
        }
    }
}

impl PortBlock {
    fn counts(&self) -> PortCounts {
        PortCounts {
            rx_packets: self.rx_packets.load(Ordering::Relaxed),
            rx_bytes: self.rx_bytes.load(Ordering::Relaxed),
            tx_packets: self.tx_packets.load(Ordering::Relaxed),
            tx_bytes: self.tx_bytes.load(Ordering::Relaxed),
            rx_delayed: self.rx_delayed.load(Ordering::Relaxed),
            tx_delayed: self.tx_delayed.load(Ordering::Relaxed),
        }
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Every count, in an order that is the same for all blocks.
    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        let own = [
            &self.rx_packets,
            &self.rx_bytes,
            &self.tx_packets,
            &self.tx_bytes,
            &self.rx_delayed,
            &self.tx_delayed,
        ];
        own.into_iter().chain(&self.drops)
    }
}

/// The accounting of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accounting {
    /// Packets from ports.
    pub received: u64,
    /// Copies, ICMP errors and segments that were made here.
    pub made: u64,
    /// Packets to ports; segments that were merged into a superframe count one by one.
    pub sent: u64,
    /// Packets with a [`DropReason`].
    pub dropped: u64,
}

/// One port's counters; rx and tx as seen from the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortCounts {
    /// Packets from the port.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets to the port.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// How often reading from the port was put off for its rate.
    pub rx_delayed: u64,
    /// Packets to the port that waited for its rate, whether they were sent then or dropped.
    pub tx_delayed: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

impl Counters {
    /// Counters that are all zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            totals: Totals::default(),
            gone: PortBlock::default(),
            ports: (0..MAX_PORTS).map(|_| PortBlock::default()).collect(),
        }
    }

    /// The packets that were received, made, sent and dropped in all.
    #[must_use]
    pub fn accounting(&self) -> Accounting {
        Accounting {
            received: self.totals.received.load(Ordering::Relaxed),
            made: self.totals.made.load(Ordering::Relaxed),
            sent: self.totals.sent.load(Ordering::Relaxed),
            dropped: self.totals.dropped.load(Ordering::Relaxed),
        }
    }

    /// How often policies of pods allowed a connection in this direction, or denied it. A connection is judged
    /// when it begins and when policies change, one that is denied with each of its packets; one between two
    /// pods of the node in both directions.
    #[must_use]
    pub fn judged(&self, direction: Direction, allowed: bool) -> u64 {
        self.totals.judged(direction, allowed).load(Ordering::Relaxed)
    }

    /// Packets and bytes of one port.
    #[must_use]
    pub fn port(&self, port: PortId) -> PortCounts {
        self.block(port).map_or_else(PortCounts::default, PortBlock::counts)
    }

    /// Packets and bytes of all ports that are gone.
    #[must_use]
    pub fn gone(&self) -> PortCounts {
        self.gone.counts()
    }

    /// Packets from this port that were dropped for this reason.
    #[must_use]
    pub fn drops(&self, port: PortId, reason: DropReason) -> u64 {
        self.block(port).map_or(0, |block| block.dropped(reason))
    }

    /// Packets from ports that are gone that were dropped for this reason.
    #[must_use]
    pub fn gone_drops(&self, reason: DropReason) -> u64 {
        self.gone.dropped(reason)
    }

    /// Clears the counters of a port that is gone, or whose number is given to another: they stay in the sum of
    /// those that are gone. The writer's to call.
    pub fn clear_port(&self, port: PortId) {
        let Some(block) = self.block(port) else { return };
        for (count, sum) in block.all().zip(self.gone.all()) {
            add(sum, count.load(Ordering::Relaxed));
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Counts that reading from a port is put off for its rate. The writer's to call.
    pub fn rx_delayed(&self, port: PortId) {
        if let Some(block) = self.block(port) {
            add(&block.rx_delayed, 1);
        }
    }

    pub(crate) fn tx_delayed(&self, port: PortId) {
        if let Some(block) = self.block(port) {
            add(&block.tx_delayed, 1);
        }
    }

    #[inline]
    pub(crate) fn policies_said(&self, judged: Judged) {
        if judged == Judged::NOT {
            return;
        }
        let said = [(Direction::Ingress, judged.ingress), (Direction::Egress, judged.egress)];
        for (direction, allowed) in said {
            if let Some(allowed) = allowed {
                add(self.totals.judged(direction, allowed), 1);
            }
        }
    }

    #[inline]
    pub(crate) fn received(&self, port: PortId, bytes: usize) {
        add(&self.totals.received, 1);
        if let Some(block) = self.block(port) {
            add(&block.rx_packets, 1);
            add(&block.rx_bytes, bytes as u64);
        }
    }

    #[inline]
    pub(crate) fn sent(&self, port: PortId, packets: u64, bytes: usize) {
        add(&self.totals.sent, packets);
        if let Some(block) = self.block(port) {
            add(&block.tx_packets, packets);
            add(&block.tx_bytes, bytes as u64);
        }
    }

    #[inline]
    pub(crate) fn made(&self, packets: u64) {
        add(&self.totals.made, packets);
    }

    /// `port` is the one that the packet came from.
    #[inline]
    pub(crate) fn dropped(&self, port: PortId, packets: u64, reason: DropReason) {
        add(&self.totals.dropped, packets);
        if let Some(count) = self.block(port).and_then(|block| block.drops.get(reason as usize)) {
            add(count, packets);
        }
    }

    #[inline]
    fn block(&self, port: PortId) -> Option<&PortBlock> {
        self.ports.get(usize::from(port.0))
    }
}

#[inline]
fn add(count: &AtomicU64, packets: u64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(packets), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::{Accounting, Counters, PortCounts};
    use crate::tables::PortId;
    use crate::verdict::DropReason;

    #[test]
    fn a_reused_number_starts_at_zero_and_its_counts_stay_in_sums() {
        let counters = Counters::new();
        let port = PortId(3);
        for round in 1..=2 {
            counters.received(port, 60);
            counters.dropped(port, 1, DropReason::NoRoute);
            assert_eq!(counters.drops(port, DropReason::NoRoute), 1);
            counters.clear_port(port);
            assert_eq!(counters.port(port), PortCounts::default());
            assert_eq!(counters.drops(port, DropReason::NoRoute), 0);
            let gone = counters.gone();
            assert_eq!((gone.rx_packets, gone.rx_bytes), (round, 60 * round));
            assert_eq!(counters.gone_drops(DropReason::NoRoute), round);
        }
        assert_eq!(counters.accounting(), Accounting { received: 2, made: 0, sent: 0, dropped: 2 });
    }
}
