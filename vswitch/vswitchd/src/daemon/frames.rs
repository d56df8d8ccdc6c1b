//! Which workers have no packet memory left.
//!
//! Enters: how many packets each worker has dropped so far for want of a frame, and the time. Leaves: those
//! that go on doing so; to `status`.

use std::time::{Duration, Instant};

/// A burst that empties the pool once is over within one of these.
const WINDOW: Duration = Duration::from_secs(5);

/// Drops of each worker, window by window.
#[derive(Debug, Default)]
pub(super) struct FrameShortage {
    /// When the window began.
    since: Option<Instant>,
    workers: Vec<Worker>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Worker {
    /// Drops when the window began.
    drops: u64,
    /// Windows in a row, up to the last whole one, in which it dropped.
    windows: u32,
}

impl FrameShortage {
    /// Takes the drops for want of frames of each worker so far, `of_each`, where a window is over.
    pub(super) fn look(&mut self, of_each: impl FnOnce() -> Vec<u64>, now: Instant) {
        let age = self.since.map(|since| now.saturating_duration_since(since));
        if age.is_some_and(|age| age < WINDOW) {
            return;
        }
        // The first look, and one after a pause of the control thread, know of no window.
        let is_window = age.is_some_and(|age| age < 2 * WINDOW);
        self.since = Some(now);
        let drops = of_each();
        self.workers.resize(drops.len(), Worker::default());
        for (worker, drops) in self.workers.iter_mut().zip(drops) {
            // They become fewer when a port's number is used again.
            let has_dropped = is_window && drops > worker.drops;
            worker.windows = if has_dropped { worker.windows.saturating_add(1) } else { 0 };
            worker.drops = drops;
        }
    }

    /// Numbers of the workers that are short of frames: those that dropped packets for want of one, which is
    /// done only while their pool is empty, in each of the last three windows of five seconds. A burst that is
    /// shorter than a window touches two at most, and so is no shortage; a shortage is over with the first
    /// window without such a drop.
    pub(super) fn workers(&self) -> impl Iterator<Item = usize> {
        let short = self.workers.iter().enumerate().filter(|(_, worker)| worker.windows >= 3);
        short.map(|(number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::FrameShortage;

    /// The workers that are short after looks at these seconds, with the drops of each worker by then.
    fn short(looks: &[(u64, &[u64])]) -> Vec<usize> {
        let begin = Instant::now();
        let mut shortage = FrameShortage::default();
        for (seconds, drops) in looks {
            shortage.look(|| drops.to_vec(), begin + Duration::from_secs(*seconds));
        }
        shortage.workers().collect()
    }

    #[test]
    fn drops_in_three_windows_in_a_row_are_a_shortage_of_that_worker() {
        let (a, b, c) = ((0, &[0, 7][..]), (5, &[0, 8][..]), (10, &[0, 9][..]));
        assert_eq!(short(&[a, b, c]), [0; 0], "two windows");
        assert_eq!(short(&[a, b, c, (15, &[0, 10])]), [1]);
        assert_eq!(short(&[a, b, c, (14, &[0, 10])]), [0; 0], "the third is not over yet");
    }

    #[test]
    fn a_burst_is_none_and_a_window_without_a_drop_ends_it() {
        let burst = [(0, &[0][..]), (5, &[400]), (10, &[900]), (15, &[900])];
        assert_eq!(short(&burst), [0; 0]);
        let (a, b, c, d) = ((0, &[0][..]), (5, &[1][..]), (10, &[2][..]), (15, &[3][..]));
        assert_eq!(short(&[a, b, c, d]), [0]);
        assert_eq!(short(&[a, b, c, d, (20, &[3])]), [0; 0]);
    }

    #[test]
    fn drops_of_before_the_first_look_and_of_a_pause_tell_nothing() {
        assert_eq!(short(&[(0, &[5]), (5, &[6]), (10, &[7])]), [0; 0]);
        assert_eq!(short(&[(0, &[0]), (5, &[1]), (10, &[2]), (60, &[3])]), [0; 0]);
        // A port's number was used again, and its counters began anew.
        assert_eq!(short(&[(0, &[0]), (5, &[8]), (10, &[9]), (15, &[3])]), [0; 0]);
    }
}
