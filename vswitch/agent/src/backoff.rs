//! How long to wait before the next attempt: twice as long each time, up to a bound, and spread, so
//! that a cluster's agents do not all come back at once.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Delays between attempts.
#[derive(Debug, Clone)]
pub struct Attempts {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Attempts {
    /// From `first` to `longest`, and then every `longest`.
    #[must_use]
    pub fn between(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The delay before the next attempt: between a half and the whole of the bound, which doubles.
    pub fn delay(&mut self) -> Duration {
        let bound = self.next;
        self.next = (bound * 2).min(self.longest);
        // A new `RandomState` has new keys, which is all the randomness that is needed.
        let random = RandomState::new().build_hasher().finish();
        let fraction = f64::from((random >> 32) as u32) / f64::from(u32::MAX);
        bound.mul_f64(0.5 + fraction / 2.0)
    }

    /// After a success: the next failure is the first again.
    pub fn succeeded(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Attempts;

    #[test]
    fn delays_double_are_spread_and_bounded() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut attempts = Attempts::between(first, longest);
        for bound_ms in [100, 200, 400, 800, 1000, 1000] {
            let bound = Duration::from_millis(bound_ms);
            let delay = attempts.delay();
            assert!(delay >= bound / 2 && delay <= bound, "{delay:?} of {bound:?}");
        }
        attempts.succeeded();
        assert!(attempts.delay() <= first);
    }
}
