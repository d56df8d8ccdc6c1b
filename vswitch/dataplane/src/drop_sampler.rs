//! One worker's choice of the dropped packets that it takes a snapshot of.
//!
//! Enters: every drop, where it is counted. Leaves: at most ten snapshots a second of each reason, to the
//! worker's [`DropRing`]. While nobody follows, a drop costs one test here.

use std::sync::Arc;

use crate::Millis;
use crate::drop_ring::{DropRing, DropSnapshot};
use crate::tables::PortId;
use crate::verdict::DropReason;

/// Snapshots of one reason in a second.
pub const DROPS_SAMPLED_A_SECOND: u32 = 10;

const REASONS: usize = DropReason::ALL.len();

#[derive(Debug)]
pub(crate) struct DropSampler {
    ring: Arc<DropRing>,
    now: Millis,
    reasons: [Window; REASONS],
}

/// What became of a reason's drops in this second.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    second: u64,
    sampled: u32,
    /// Packets since the last snapshot.
    unsampled: u32,
}

impl DropSampler {
    pub(crate) fn new(ring: Arc<DropRing>) -> Self {
        Self { ring, now: Millis(0), reasons: [Window::default(); REASONS] }
    }

    /// Sets the time of what is dropped from now on.
    #[inline]
    pub(crate) fn set_time(&mut self, now: Millis) {
        self.now = now;
    }

    /// Notes a drop. `frame` is empty if it is not there any more.
    #[inline(always)]
    pub(crate) fn dropped(
        &mut self,
        ingress: PortId,
        packets: u64,
        reason: DropReason,
        frame: &[u8],
    ) {
        if self.ring.is_armed() {
            self.sample(ingress, packets, reason, frame);
        }
    }

    #[cold]
    #[inline(never)]
    fn sample(&mut self, ingress: PortId, packets: u64, reason: DropReason, frame: &[u8]) {
        let Some(window) = self.reasons.get_mut(reason as usize).filter(|_| packets > 0) else {
            return;
        };
        let second = self.now.0 / 1000;
        if window.second != second {
            // What was left out some seconds ago says nothing about now.
            let goes_on = window.second.wrapping_add(1) == second;
            let unsampled = if goes_on { window.unsampled } else { 0 };
            *window = Window { second, sampled: 0, unsampled };
        }
        window.unsampled = window.unsampled.saturating_add(packets.min(u64::from(u32::MAX)) as u32);
        if window.sampled < DROPS_SAMPLED_A_SECOND {
            window.sampled += 1;
            let packets = core::mem::take(&mut window.unsampled);
            self.ring.put(&DropSnapshot::new(self.now, reason, ingress, packets, frame));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::sync::Arc;

    use super::{DROPS_SAMPLED_A_SECOND, DropSampler};
    use crate::Millis;
    use crate::drop_ring::{DropRing, DropSnapshot};
    use crate::tables::PortId;
    use crate::verdict::DropReason;

    fn taken(ring: &DropRing, from: u64) -> Vec<DropSnapshot> {
        let mut all = Vec::new();
        ring.since(from, |snapshot| all.push(*snapshot));
        all
    }

    fn flood(sampler: &mut DropSampler, packets: u32, reason: DropReason) {
        for _ in 0..packets {
            sampler.dropped(PortId(1), 1, reason, b"frame");
        }
    }

    #[test]
    fn a_reason_has_ten_a_second_and_they_stand_for_all() {
        let ring = Arc::new(DropRing::new());
        let mut sampler = DropSampler::new(Arc::clone(&ring));
        flood(&mut sampler, 5, DropReason::NoRoute);
        assert_eq!(ring.written(), 0, "nobody follows");

        ring.arm(true);
        sampler.set_time(Millis(7_000));
        flood(&mut sampler, 311, DropReason::NoRoute);
        flood(&mut sampler, 1, DropReason::PolicyDenied);
        sampler.dropped(PortId(1), 0, DropReason::TooBig, b"no copy was too big");
        let first = taken(&ring, 0);
        assert_eq!(first.len() as u32, DROPS_SAMPLED_A_SECOND + 1, "each reason by itself");
        assert_eq!(first[0].at, Millis(7_000));
        assert_eq!(first[10].reason, DropReason::PolicyDenied);

        sampler.set_time(Millis(8_001));
        flood(&mut sampler, 1, DropReason::NoRoute);
        let packets = taken(&ring, 0).into_iter().filter(|one| one.reason == DropReason::NoRoute);
        assert_eq!(packets.map(|one| one.packets).sum::<u32>(), 312);

        // Those that were left out long ago are not of this second.
        flood(&mut sampler, 100, DropReason::NoRoute);
        sampler.set_time(Millis(20_000));
        let before = ring.written();
        sampler.dropped(PortId(1), 3, DropReason::NoRoute, b"");
        assert_eq!(taken(&ring, before)[0].packets, 3);
    }
}
