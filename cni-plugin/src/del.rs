//! DEL: everything that ADD made goes, however often it is asked, and whatever is left of the pod.
//!
//! The daemon first: it stops forwarding for the address before the address can be given to another
//! pod. Then the interface, then the delegated addresses; each is tried though another failed.
//! Nothing here reads `prevResult`, and the namespace's path is only a hint: the attachment is known
//! by container id and interface name.
//!
//! With the daemon away DEL fails with code 11, after all else was done, and the runtime repeats it:
//! the daemon's journal holds the address across its restart, and nothing else could free it.

use crate::client;
use crate::config::Call;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::ipam::Delegate;
use crate::netns::NetNs;
use crate::pod;
use crate::version::Command;

/// What a delegated DEL may take even if the daemon used up all the time before.
const DELEGATE_SHARE: std::time::Duration = std::time::Duration::from_millis(1000);

/// Unplugs the pod.
///
/// # Errors
/// What could not be undone.
pub(crate) fn del(call: &Call, deadline: &Deadline) -> Result<(), Error> {
    let attachment = &call.env.attachment;
    let mut errors = Vec::new();
    errors.extend(client::detach(&call.conf.socket, attachment, deadline).err());
    // A namespace that is gone, or is no namespace any more, took the interface with it.
    if let Some(netns) = call.env.netns.as_deref().and_then(|path| NetNs::open(path).ok()) {
        errors.extend(netns.run(|| pod::remove(attachment)).err());
    }
    match Delegate::of(call) {
        Ok(None) => {}
        Ok(Some(delegate)) => {
            let share = match deadline.remaining() {
                Some(left) if left > DELEGATE_SHARE => *deadline,
                _ => Deadline::after(DELEGATE_SHARE),
            };
            errors.extend(delegate.order(Command::Del, &share).err());
        }
        Err(error) => errors.push(error),
    }
    Error::all(errors)
}
