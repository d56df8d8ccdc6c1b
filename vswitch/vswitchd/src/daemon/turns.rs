//! Which workers turn.
//!
//! Enters: how often each worker's loop has turned so far, and the time. Leaves: those whose loop has
//! stopped; to the watchdog and to `status`.

use std::time::{Duration, Instant};

/// A worker turns at least once a second.
const PATIENCE: Duration = Duration::from_secs(4);

/// Turns of each worker, and when they were last seen to grow.
#[derive(Debug, Default)]
pub(super) struct Turns {
    seen: Vec<(u64, Instant)>,
}

impl Turns {
    /// Numbers of the workers that have not turned for a while; one that has since the last look, however
    /// long ago that was, is not among them.
    pub(super) fn stalled(
        &mut self,
        turns: impl IntoIterator<Item = u64>,
        now: Instant,
    ) -> Vec<usize> {
        let mut stalled = Vec::new();
        for (number, turns) in turns.into_iter().enumerate() {
            match self.seen.get_mut(number) {
                None => self.seen.push((turns, now)),
                Some(seen) if seen.0 != turns => *seen = (turns, now),
                Some((_, since)) if now.saturating_duration_since(*since) >= PATIENCE => {
                    stalled.push(number);
                }
                Some(_) => {}
            }
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Turns;

    #[test]
    fn a_worker_has_stalled_that_did_not_turn_for_four_seconds() {
        let mut turns = Turns::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(turns.stalled([7, 7], at(0)), [0; 0]);
        assert_eq!(turns.stalled([7, 8], at(3)), [0; 0]);
        assert_eq!(turns.stalled([7, 8], at(4)), [0]);
        assert_eq!(turns.stalled([7, 8], at(7)), [0, 1]);
        assert_eq!(turns.stalled([8, 8], at(8)), [1]);
        // Nobody looked for a while: the control thread was held up, and not the workers.
        assert_eq!(turns.stalled([9, 9], at(60)), [0; 0]);
    }
}
