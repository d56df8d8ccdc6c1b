//! Wakes a worker that sleeps, when another one has handed packets over to it.
//!
//! Enters: that the worker is going to sleep; that a ring to it has more packets. Leaves: one system call for each
//! sleep that is ended so, and none for a worker that is awake.
//!
//! No wake-up is lost. The sleeper says that it sleeps, and then looks at its rings once more; the sender
//! makes its packets visible, and then looks whether the other sleeps. Between the two steps of each stands a
//! sequentially consistent fence. Whichever fence comes first, what was written before it is seen behind the
//! other: either the sleeper finds the packets, or the sender finds the sleeper. Of several senders one alone
//! finds it; for the others that one's wake-up counts, as the sleeper looks at all its rings before it sleeps again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use mio::Waker;

use super::Line;

/// One worker's.
#[derive(Debug)]
pub(crate) struct Bell {
    sleeps: Line<AtomicBool>,
    waker: Arc<Waker>,
}

impl Bell {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        Self { sleeps: Line::default(), waker }
    }

    /// The worker sleeps from now on, unless `has_packets` says otherwise: false then.
    pub(super) fn sleeps(&self, has_packets: impl FnOnce() -> bool) -> bool {
        self.sleeps.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let sleeps = !has_packets();
        if !sleeps {
            self.is_awake();
        }
        sleeps
    }

    /// The worker does not sleep any more.
    pub(super) fn is_awake(&self) {
        self.sleeps.0.store(false, Ordering::Relaxed);
    }

    /// Wakes the worker if it sleeps; to be called when a ring to it has more packets. True if it slept.
    pub(super) fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        let slept =
            self.sleeps.0.load(Ordering::Relaxed) && self.sleeps.0.swap(false, Ordering::Relaxed);
        if slept && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake a worker for packets that were handed over to it");
        }
        slept
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mio::{Poll, Waker};

    use super::Bell;
    use crate::WAKE;

    #[test]
    fn a_worker_is_woken_once_a_sleep_and_not_while_it_is_awake() {
        let poll = Poll::new().expect("epoll");
        let waker = Waker::new(poll.registry(), WAKE).expect("eventfd");
        let bell = Bell::new(Arc::new(waker));
        assert!(!bell.ring());
        assert!(!bell.sleeps(|| true), "it has packets");
        assert!(!bell.ring());
        assert!(bell.sleeps(|| false));
        assert!(bell.ring());
        assert!(!bell.ring(), "it is being woken already");
        assert!(bell.sleeps(|| false));
        bell.is_awake();
        assert!(!bell.ring());
    }
}
