//! Whether dropped packets are followed.
//!
//! Enters: that somebody asks for them, and the time. Leaves: workers that take samples of what they drop,
//! until nobody has asked for a while. A client that goes away needs not say so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::drop_ring::DropRing;

/// Somebody who follows asks once a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// When dropped packets were last asked for; none if no samples are taken.
#[derive(Debug, Default)]
pub(super) struct DropSampling(Option<Instant>);

impl DropSampling {
    /// Has samples taken from now on.
    pub(super) fn asked(&mut self, rings: &[Arc<DropRing>], now: Instant) {
        self.0 = Some(now);
        rings.iter().for_each(|ring| ring.arm(true));
    }

    /// Ends it if nobody has asked for a while.
    pub(super) fn look(&mut self, rings: &[Arc<DropRing>], now: Instant) {
        if self.0.is_some_and(|asked| now.saturating_duration_since(asked) >= PATIENCE) {
            self.0 = None;
            rings.iter().for_each(|ring| ring.arm(false));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use dataplane::drop_ring::DropRing;

    use super::DropSampling;

    #[test]
    fn samples_are_taken_for_as_long_as_somebody_asks() {
        let rings = [Arc::new(DropRing::new()), Arc::new(DropRing::new())];
        let are_armed = || rings.iter().filter(|ring| ring.is_armed()).count();
        let mut sampling = DropSampling::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        sampling.look(&rings, at(0));
        assert_eq!(are_armed(), 0);
        sampling.asked(&rings, at(1));
        sampling.asked(&rings, at(3));
        sampling.look(&rings, at(7));
        assert_eq!(are_armed(), 2);
        sampling.look(&rings, at(8));
        assert_eq!(are_armed(), 0);
        sampling.asked(&rings, at(60));
        assert_eq!(are_armed(), 2);
    }
}
