//! DEL: everything that ADD made goes, however often it is asked, and whatever is left of the pod.
//!
//! The daemon first: it stops forwarding for the address before the address can be given to another
//! pod. Then the interface, then the delegated addresses; each is tried though another failed.
//! Nothing here reads `prevResult`, and the namespace's path is only a hint: the attachment is known
//! by container id and interface name.
//!
//! With the daemon away the order waits for it on disk (`detach`), and DEL succeeds. Only where that
//! cannot be DEL fails with code 11, after all else was done, and the runtime repeats it: nothing else
//! could free the address that the daemon's journal holds.

use std::path::Path;
use std::time::Duration;

use api::AttachmentId;

use crate::config::Call;
use crate::deadline::{self, Deadline};
use crate::detach;
use crate::error::Error;
use crate::ipam::Delegate;
use crate::netns::NetNs;
use crate::pod;
use crate::version::Command;

/// What the daemon may take: the rest is for the queue, the interface, and the IPAM plugin.
const DAEMONS_SHARE: Duration = Duration::from_millis(2000);
/// What the pod's namespace may take.
const NAMESPACES_SHARE: Duration = Duration::from_millis(800);

/// Unplugs the pod.
///
/// # Errors
/// What could not be undone.
pub(crate) fn del(call: &Call, deadline: &Deadline) -> Result<(), Error> {
    let attachment = &call.env.attachment;
    let mut errors = Vec::new();
    let daemons = Deadline::after(DAEMONS_SHARE).min(*deadline);
    errors.extend(detach::detach(&call.conf, attachment, &daemons).err());
    failpoint::hit("cni-del-detached")?;
    if let Some(path) = call.env.netns.as_deref() {
        errors.extend(remove_interface(path, attachment).err());
    }
    failpoint::hit("cni-del-removed")?;
    match Delegate::of(call) {
        Ok(None) => {}
        Ok(Some(delegate)) => {
            errors.extend(delegate.order(Command::Del, &deadline.or_delegates_share()).err());
        }
        Err(error) => errors.push(error),
    }
    failpoint::hit("cni-del-released")?;
    Error::all(errors)
}

/// A namespace that is gone, or is no namespace any more, took the interface with it. One whose file
/// system hangs must not keep the IPAM plugin from its part.
fn remove_interface(path: &Path, attachment: &AttachmentId) -> Result<(), Error> {
    let (of, attachment) = (path.to_owned(), attachment.clone());
    let remove = move || match NetNs::open(&of) {
        Ok(netns) => netns.run(|| pod::remove(&attachment)),
        Err(_) => Ok(()),
    };
    deadline::within(NAMESPACES_SHARE, remove).unwrap_or_else(|| {
        Err(Error::Netns { path: path.to_owned(), why: "hangs, and is tried again".into() })
    })
}
