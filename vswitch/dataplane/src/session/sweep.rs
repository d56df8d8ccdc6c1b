//! Removal of what has expired, and of what belongs to a port that is gone.
//!
//! Enters: a worker's cursor, or a port's number. Leaves: room. Each worker sweeps buckets of its own,
//! so that all are swept without two workers at one bucket.

use super::counts::Removal;
use super::entry::Layout;
use super::state::Tick;
use super::table::{Memory, Table};
use crate::tables::PortId;

/// Which buckets a worker sweeps, and which of them is next: those whose numbers leave the worker's
/// number when they are divided by the count of workers.
#[derive(Debug, Clone)]
pub struct SweepCursor {
    worker: u32,
    workers: u32,
    pub(crate) v4: u32,
    pub(crate) v6: u32,
}

impl SweepCursor {
    /// Of worker `worker`, counted from zero, of `workers`.
    #[must_use]
    pub fn new(worker: u32, workers: u32) -> Self {
        let workers = workers.max(1);
        let worker = worker % workers;
        Self { worker, workers, v4: worker, v6: worker }
    }
}

impl<L: Layout, M: Memory> Table<L, M> {
    /// Removes what has expired in `budget` buckets from `next` on, but not more than each once.
    /// Returns how many sessions it removed. What cannot be had now is left for the next round.
    pub(crate) fn sweep(
        &self,
        cursor: &SweepCursor,
        next: &mut u32,
        budget: u32,
        now: Tick,
    ) -> u32 {
        let mut removed = 0;
        for _ in 0..budget.min(self.buckets.div_ceil(cursor.workers)) {
            removed += self.sweep_bucket(*next, now);
            *next = match next.checked_add(cursor.workers) {
                Some(next) if next < self.buckets => next,
                _ => cursor.worker,
            };
        }
        removed
    }

    fn sweep_bucket(&self, index: u32, now: Tick) -> u32 {
        let has_any = self.bucket(index).is_some_and(|bucket| bucket.occupied() > 0);
        if !has_any {
            return 0;
        }
        self.mains(index)
            .filter(|session| session.is_expired(now))
            .map(|session| self.remove(&session, Removal::Expired, |held| held.is_expired(now)))
            .filter(|removed| *removed == Ok(true))
            .count() as u32
    }

    /// Ends all sessions that are charged to a port or carried by it. Returns how many.
    pub(crate) fn forget_port(&self, port: PortId) -> u32 {
        (0..self.buckets)
            .flat_map(|index| self.mains(index))
            .filter(|session| session.carriers().any(|carrier| carrier == port))
            .map(|session| self.remove(&session, Removal::Closed, |_| true))
            .filter(|removed| *removed == Ok(true))
            .count() as u32
    }
}
