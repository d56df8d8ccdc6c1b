//! How long a command may take.
//!
//! Runtimes wait a minute or more, and a hung plugin blocks the node's other pods; so each command
//! bounds its own time. Work that waits on another process takes what is left of its `Deadline`. What
//! no deadline reaches, a system call on a path whose file system hangs, is left behind by a thread
//! that waits no longer (`within`), or ends with the whole command (`Watchdog`).

use std::cell::Cell;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::version::Command;

/// For everything that a command does, except taking it back.
const COMMAND: Duration = Duration::from_millis(3600);

/// For each step by which a failed ADD is taken back: two wait on another process.
const UNDO_STEP: Duration = Duration::from_millis(500);

/// For a delegated plugin of a command that goes on though the daemon used up all the time before.
const DELEGATES_SHARE: Duration = Duration::from_millis(900);

/// For a whole command, whatever it meets, so that it stays below five seconds: `COMMAND` with either
/// two of `UNDO_STEP` or one of `DELEGATES_SHARE`.
const WHOLE: Duration = Duration::from_millis(4700);

/// A moment after which nothing is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

    /// This one, or a later one that leaves a delegated plugin its share.
    pub(crate) fn or_delegates_share(self) -> Self {
        self.max(Self::after(DELEGATES_SHARE))
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

/// Does `work` in a thread of its own; `None` if it takes longer. It goes on then, for as long as the
/// process lives.
pub(crate) fn within<T: Send + 'static>(
    longest: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Nobody waits any more, perhaps.
        let _ = sender.send(work());
    });
    receiver.recv_timeout(longest).ok()
}

/// Ends a command that hangs, with an error as the runtime expects it. What an ADD has made until then
/// goes with the DEL that follows it.
pub(crate) struct Watchdog {
    /// The command has answered, or the watchdog has for it.
    is_answered: Arc<AtomicBool>,
    /// It was the command.
    is_by_command: Cell<bool>,
    version: Arc<OnceLock<String>>,
}

impl Watchdog {
    /// Watches from now on.
    pub(crate) fn over(command: Command) -> Self {
        let (is_answered, version) = (Arc::<AtomicBool>::default(), Arc::<OnceLock<_>>::default());
        let watchdog = Self {
            is_answered: Arc::clone(&is_answered),
            is_by_command: Cell::default(),
            version: Arc::clone(&version),
        };
        thread::spawn(move || {
            thread::sleep(WHOLE);
            if is_answered.swap(true, Ordering::AcqRel) {
                return;
            }
            let error = Error::Hung { command: command.as_str(), bound: WHOLE };
            crate::print_error(&error, Some(command), version.get().cloned());
            process::exit(1);
        });
        watchdog
    }

    /// The `cniVersion` that an error is to repeat.
    pub(crate) fn note_version(&self, version: Option<String>) {
        if let Some(version) = version {
            // It is read once.
            let _ = self.version.set(version);
        }
    }

    /// The command is about to answer: it is not ended any more. Never returns if the watchdog was
    /// faster, which ends the process.
    pub(crate) fn answer(&self) {
        while !self.is_by_command.get() && self.is_answered.swap(true, Ordering::AcqRel) {
            thread::park();
        }
        self.is_by_command.set(true);
    }
}
