//! Pods whose DEL came while no daemon was there to hear of it: the plugin has queued them on disk.
//!
//! Enters: the queue beside the journal. Leaves: pods that are detached, and a queue without them. At the
//! start the model is rid of them before anything is made of it; what is queued until the control
//! socket is open, and by a plugin to which a busy daemon did not answer, is found later. A pod is
//! taken from the queue when the journal has it.

use std::path::Path;
use std::time::{Duration, Instant};

use api::{DetachQueue, QueueError, Queued, Request};
use controlplane::model::{Model, attachments};
use controlplane::plane::Event;

use super::Daemon;
use crate::error::chain;

/// The queue is looked at this often; besides before each reservation, as the DEL of a pod comes before
/// its next ADD.
const PERIOD: Duration = Duration::from_secs(1);
/// After a failure, which is logged.
const PERIOD_AFTER_FAILURE: Duration = Duration::from_secs(30);
/// For a plugin that is just adding to the queue: one write to disk.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// When the queue is looked at, and what is wrong with it.
#[derive(Debug)]
pub(super) struct QueueWatch {
    due: Instant,
    /// The failure that was logged, if it lasts.
    failure: Option<String>,
}

impl QueueWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, failure: None }
    }
}

/// What a start finds queued.
#[derive(Debug, Default)]
pub(super) struct AtStart {
    queue: Option<DetachQueue>,
    queued: Queued,
}

impl AtStart {
    /// Takes what is queued out of a model that nothing was made of yet.
    pub(super) fn apply(state_dir: &Path, model: &mut Model, warnings: &mut Vec<String>) -> Self {
        let read = DetachQueue::open(state_dir).and_then(|queue| Ok((queue.queued()?, queue)));
        let (queued, queue) = match read {
            Ok(read) => read,
            Err(error) => {
                warnings.push(unusable(&error));
                return Self::default();
            }
        };
        warnings.extend(damaged(&queued));
        for attachment in &queued.attachments {
            let edits = model.detach(attachment);
            model.apply_all(&edits);
            let name = attachments::name(attachment);
            tracing::info!("{name} is detached, as its DEL asked while no daemon ran");
        }
        Self { queue: Some(queue), queued }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queued.attachments.is_empty()
    }

    /// The journal has it all: the queue is not needed any more.
    pub(super) fn empty_queue(self) {
        let Some(queue) = self.queue else { return };
        for attachment in &self.queued.attachments {
            if let Err(error) = queue.remove(attachment) {
                // It is found again, and there is nothing to detach then.
                tracing::warn!("{}", unusable(&error));
            }
        }
    }
}

impl Daemon {
    /// The control socket is open, and every plugin that missed it has queued what it asked for, or is
    /// about to: it has the lock.
    pub fn socket_is_open(&mut self) {
        let state_dir = &self.plane.config().control.state_dir;
        if let Ok(queue) = DetachQueue::open(state_dir) {
            // It is looked at in any case, and again a second later.
            let _ = queue.lock(Instant::now() + LOCK_PATIENCE);
        }
        self.detach_queued(Instant::now());
    }

    /// Looks at the queue if it is time.
    pub(super) fn look_at_queued(&mut self, now: Instant) {
        if now >= self.queue_watch.due {
            self.detach_queued(now);
        }
    }

    fn journal_has_all(&self) -> bool {
        self.node.journal.trouble().is_none() && !self.plane.owes_lines()
    }

    /// Detaches what is queued.
    pub(crate) fn detach_queued(&mut self, now: Instant) {
        let outcome = self.try_detach_queued();
        let period = if matches!(outcome, Ok(true)) { PERIOD } else { PERIOD_AFTER_FAILURE };
        let failure = outcome.err().map(|error| unusable(&error));
        if let Some(failure) = &failure
            && self.queue_watch.failure.as_ref() != Some(failure)
        {
            tracing::warn!("{failure}");
        }
        self.queue_watch = QueueWatch { due: now + period, failure };
    }

    /// True if nothing is left.
    fn try_detach_queued(&mut self) -> Result<bool, QueueError> {
        let queue = DetachQueue::open(&self.plane.config().control.state_dir)?;
        let queued = queue.queued()?;
        damaged(&queued).for_each(|warning| tracing::warn!("{warning}"));
        let mut is_done = true;
        for attachment in queued.attachments {
            // A failure is logged there, and the pod stays queued.
            match self.react(Event::Request(Request::Detach(attachment.clone()))) {
                // Otherwise the lease would be there again at the next start. No other pod gets the
                // attachment's name until then: the journal takes no lease.
                Ok(_) if !self.journal_has_all() => {}
                Ok(_) => {
                    failpoint::pass("del-queued-done");
                    queue.remove(&attachment)?;
                }
                Err(_) => is_done = false,
            }
        }
        Ok(is_done)
    }
}

fn unusable(error: &QueueError) -> String {
    format!("pods that were deleted while no daemon ran may keep their addresses: {}", chain(error))
}

fn damaged(queued: &Queued) -> impl Iterator<Item = String> + '_ {
    queued.damaged.iter().map(|path| {
        format!(
            "{} is no entry of the queue of deleted pods and was set aside; a pod that was deleted while no daemon ran may keep its address",
            path.display()
        )
    })
}
