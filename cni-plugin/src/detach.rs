//! Detaches a pod from the daemon, or leaves the order on disk for a daemon that is away: it finds the
//! order at its next start, before it does anything for a pod.
//!
//! Enters: DEL, and an ADD that is taken back. Leaves: a request, or an entry of the queue beside the
//! daemon's journal. A daemon that hangs may have taken the request and find the order as well; doing
//! it twice is doing it once.

use std::time::Duration;

use api::{AttachmentId, ClientError, DetachQueue, QueueError};

use crate::client;
use crate::config::NetConf;
use crate::deadline::Deadline;
use crate::error::Error;

/// For the queue's lock, which another plugin holds for one write to disk: a daemon that hangs has taken
/// most of a command's time.
const LOCK: Duration = Duration::from_millis(500);
/// Where no daemon took any of it: some forty plugins may come at once.
const LOCK_ALONE: Duration = Duration::from_millis(2000);
/// For a daemon that has come meanwhile.
const ONCE_MORE: Duration = Duration::from_millis(300);

/// Frees whatever the daemon holds for `attachment`, now or when it is there again.
///
/// # Errors
/// `Daemon` if it refuses, `NotQueued` if it is away and the order cannot be left on disk.
pub(crate) fn detach(
    conf: &NetConf,
    attachment: &AttachmentId,
    deadline: &Deadline,
) -> Result<(), Error> {
    let away = match client::detach(&conf.socket, attachment, deadline) {
        Err(away @ (Error::Unreachable(_) | Error::NoAnswer(_))) => away,
        outcome => return outcome,
    };
    match leave_on_disk(conf, attachment, &away) {
        Ok(()) => Ok(()),
        Err(source) => Err(Error::NotQueued { away: Box::new(away), source }),
    }
}

fn leave_on_disk(
    conf: &NetConf,
    attachment: &AttachmentId,
    away: &Error,
) -> Result<(), QueueError> {
    let queue = DetachQueue::open(&conf.state_dir)?;
    let is_absent = matches!(away, Error::Unreachable(ClientError::NotRunning { .. }));
    let patience = if is_absent { LOCK_ALONE } else { LOCK };
    let lock = queue.lock(Deadline::after(patience).moment())?;
    // A daemon opens its socket, takes the lock and looks at the queue: either it looks after us, or
    // its socket is open by now.
    let once_more = Deadline::after(ONCE_MORE);
    if is_absent && client::detach(&conf.socket, attachment, &once_more).is_ok() {
        return Ok(());
    }
    lock.push(attachment)?;
    crate::log(&format!(
        "{}; {} of container {} is queued to be detached when it is there again",
        away.sentence(),
        attachment.ifname,
        attachment.container_id
    ));
    Ok(())
}
