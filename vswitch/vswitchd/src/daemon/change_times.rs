//! How long changes take until they are in force.
//!
//! Enters: the time from a change's being taken up to the moment at which every worker uses its tables. Leaves: counts
//! for metrics. Changes that concern no tables, and those that are refused, are none of these.

use std::time::{Duration, Instant};

use crate::metrics::HistogramFigures;

/// Ends of the buckets, microseconds. A pod's change takes some milliseconds, mostly the kernel's; one of ten
/// thousand peers tenths of a second; five seconds are what an alert is for.
const BOUNDS_US: [u64; 13] = [
    1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Changes by how long each took.
#[derive(Debug, Default)]
pub(crate) struct ChangeTimes {
    within: [u64; BOUNDS_US.len()],
    count: u64,
    sum: Duration,
    /// When the first of those was taken up that a worker has not followed yet.
    late: Option<Instant>,
}

impl ChangeTimes {
    /// A change was taken up then, and is in force since; `None` if a worker does not follow.
    pub(super) fn note(&mut self, begun: Instant, in_force_since: Option<Instant>) {
        match in_force_since {
            Some(at) => self.count(at.saturating_duration_since(begun)),
            None => _ = self.late.get_or_insert(begun),
        }
    }

    /// Every worker follows now.
    pub(super) fn caught_up(&mut self, now: Instant) {
        if let Some(begun) = self.late.take() {
            self.count(now.saturating_duration_since(begun));
        }
    }

    fn count(&mut self, took: Duration) {
        let us = took.as_micros();
        for (count, bound) in self.within.iter_mut().zip(BOUNDS_US) {
            *count += u64::from(us <= u128::from(bound));
        }
        self.count += 1;
        self.sum += took;
    }

    pub(crate) fn figures(&self) -> HistogramFigures {
        let bounds = BOUNDS_US.into_iter().map(|bound| bound as f64 / 1e6);
        HistogramFigures {
            within: bounds.zip(self.within).collect(),
            count: self.count,
            sum_seconds: self.sum.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::ChangeTimes;

    #[test]
    fn a_change_is_within_each_bound_that_it_does_not_exceed() {
        let mut times = ChangeTimes::default();
        let begun = Instant::now();
        for us in [1, 2500, 2501, 20_000_000] {
            times.note(begun, Some(begun + Duration::from_micros(us)));
        }
        let figures = times.figures();
        assert_eq!((figures.count, figures.sum_seconds), (4, 20.005_002));
        let within: Vec<_> = figures.within.iter().take(3).copied().collect();
        assert_eq!(within, [(0.001, 1), (0.0025, 2), (0.005, 3)]);
        assert_eq!(figures.within.last(), Some(&(10.0, 3)));
    }

    #[test]
    fn a_change_that_a_worker_follows_late_counts_when_it_does() {
        let mut times = ChangeTimes::default();
        let begun = Instant::now();
        times.caught_up(begun);
        times.note(begun, None);
        times.note(begun + Duration::from_secs(1), None);
        assert_eq!(times.figures().count, 0);
        for seconds in [3, 4] {
            times.caught_up(begun + Duration::from_secs(seconds));
        }
        let figures = times.figures();
        assert_eq!((figures.count, figures.sum_seconds), (1, 3.0));
    }
}
