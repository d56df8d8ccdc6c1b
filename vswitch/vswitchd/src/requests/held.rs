//! Answers that wait for the disk.
//!
//! Enters: the answer to a change, and the last line of the journal then. Leaves: the answer, once that
//! line is on disk, or a refusal if it may not be.

use api::{ErrorKind, Response};
use controlplane::model::refuse;

use crate::journal::OnDisk;

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
}

impl Held {
    /// The line that it waits for.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// The answer, once it is known whether the line is on disk.
    ///
    /// A change whose line may not be there is refused and not taken back: what came after it may build
    /// on it. A pod that was added so is removed by the DEL that follows every ADD that failed; until
    /// then it has its lease, in the model and in the journal that is written anew from the model. A
    /// release stands: its pod is gone, and the new journal will not have its lease either.
    pub(crate) fn answer(&self, on_disk: OnDisk) -> Option<Response> {
        match on_disk {
            OnDisk::NotYet => None,
            OnDisk::Failed(why) if self.response.is_ok() && !self.is_release => {
                Some(Err(refuse(ErrorKind::NotReady, why)))
            }
            OnDisk::Yes | OnDisk::Failed(_) => Some(self.response.clone()),
        }
    }
}
