//! How long a command may take.
//!
//! Runtimes wait a minute or more, and a hung plugin blocks the node's other pods; so each command
//! bounds its own time. Work that waits on another process takes what is left of its `Deadline`.

use std::time::{Duration, Instant};

/// For everything that a command does, except taking it back.
const COMMAND: Duration = Duration::from_millis(3800);

/// For each step by which a failed ADD is taken back: two wait on another process, so that the whole
/// stays below five seconds.
const UNDO_STEP: Duration = Duration::from_millis(550);

/// A moment after which nothing is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn of_command() -> Self {
        Self::after(COMMAND)
    }

    pub(crate) fn of_undo_step() -> Self {
        Self::after(UNDO_STEP)
    }

    pub(crate) fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration)
    }

    /// The moment itself.
    pub(crate) fn moment(&self) -> Instant {
        self.0
    }

    /// What is left; `None` once nothing is.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}
