//! Changes that come in quick succession, which are acted on as one.
//!
//! Enters: that something has changed, and when. Leaves: when to act on all of it.

use std::time::Duration;

use tokio::time::Instant;

/// A burst of changes: it lasts until it is quiet for a while, yet not too long.
pub(crate) struct Burst {
    quiet: Duration,
    longest: Duration,
    /// Of the changes that are not acted on yet, the first and the last.
    changes: Option<(Instant, Instant)>,
}

impl Burst {
    /// Of no change yet; it ends after `quiet` without one, and at the latest after `longest`.
    pub(crate) fn new(quiet: Duration, longest: Duration) -> Self {
        Self { quiet, longest, changes: None }
    }

    /// Something has changed.
    pub(crate) fn changed(&mut self) {
        let now = Instant::now();
        let first = self.changes.map_or(now, |(first, _)| first);
        self.changes = Some((first, now));
    }

    /// When it ends, if there is one.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (first, last) = self.changes?;
        Some((last + self.quiet).min(first + self.longest))
    }

    /// Whether it has ended.
    pub(crate) fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= Instant::now())
    }

    /// The changes are acted on.
    pub(crate) fn clear(&mut self) {
        self.changes = None;
    }
}
