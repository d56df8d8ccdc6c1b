//! Answers that wait for the disk, and those to ADD, which wait for the pod's policies.
//!
//! Enters: the answer to a change, and the last line of the journal then. Leaves: the answer, once that
//! line is on disk, or a refusal if it may not be.

use std::time::{Duration, Instant};

use api::{AttachmentId, ErrorKind, Response};
use controlplane::model::refuse;

use crate::daemon::Daemon;
use crate::journal::OnDisk;

/// A source tells a pod's policies before its ADD, or soon after it saw the pod. A pod that has none by
/// then is added all the same, and denied everything.
const POLICY_PATIENCE: Duration = Duration::from_secs(2);

/// What a request comes to.
pub enum Handled {
    /// An answer at once.
    Now(Response),
    /// An answer when the journal is on disk.
    OnceOnDisk(Held),
}

/// The answer to a change. A refusal may wait, too: of a change that was taken back both lines must be
/// on disk, or a crash of the machine could keep the first alone.
pub struct Held {
    pub(super) response: Response,
    /// The last line of the journal when it was made.
    pub(super) line: u64,
    /// It frees what a pod held.
    pub(super) is_release: bool,
    /// The pod whose policies it waits for.
    pub(super) policies: Option<AwaitedPolicies>,
}

/// Policies that an answer waits for.
pub(super) struct AwaitedPolicies {
    attachment: AttachmentId,
    until: Instant,
}

impl AwaitedPolicies {
    /// Those of a pod that was attached just now.
    pub(super) fn of(attachment: AttachmentId) -> Self {
        Self { attachment, until: Instant::now() + POLICY_PATIENCE }
    }
}

impl Held {
    /// When it waits no longer for policies, if it does.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.policies.as_ref().map(|awaited| awaited.until)
    }

    /// The answer, once nothing is to be waited for.
    pub(crate) fn due(&self, daemon: &Daemon, now: Instant) -> Option<Response> {
        let answer = self.answer(daemon.is_on_disk(self.line))?;
        let is_awaited = |awaited: &AwaitedPolicies| {
            now < awaited.until && daemon.plane.is_pending(&awaited.attachment)
        };
        let waits = answer.is_ok() && self.policies.as_ref().is_some_and(is_awaited);
        (!waits).then_some(answer)
    }

    /// The answer, once it is known whether the line is on disk.
    ///
    /// A change whose line may not be there is refused and not taken back: what came after it may build
    /// on it. A pod that was added so is removed by the DEL that follows every ADD that failed; until
    /// then it has its lease, in the model and in the journal that is written anew from the model. A
    /// release stands: its pod is gone, and the new journal will not have its lease either.
    fn answer(&self, on_disk: OnDisk) -> Option<Response> {
        match on_disk {
            OnDisk::NotYet => None,
            OnDisk::Failed(why) if self.response.is_ok() && !self.is_release => {
                Some(Err(refuse(ErrorKind::NotReady, why)))
            }
            OnDisk::Yes | OnDisk::Failed(_) => Some(self.response.clone()),
        }
    }
}
