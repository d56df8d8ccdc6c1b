//! STATUS: could an ADD succeed now? The daemon must answer and know its pod prefixes, and so must
//! the IPAM plugin answer if there is one. Code 50 means no.

use api::{ErrorKind, ErrorReply, Reply, Request};

use crate::client;
use crate::config::Call;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::ipam::Delegate;
use crate::version::Command;

/// Asks the daemon, then the IPAM plugin.
///
/// # Errors
/// `NotAvailable` with the daemon's reason; the IPAM plugin's own error.
pub(crate) fn status(call: &Call, deadline: &Deadline) -> Result<(), Error> {
    let socket = &call.conf.socket;
    match client::call(socket, "tell its status", &Request::Status, deadline) {
        Ok(Reply::Status(status)) if status.pod_prefixes.is_empty() => {
            let message = "this node has no pod prefixes yet; the cluster's agent tells them, or \
                           node.pod_prefixes in the daemon's configuration"
                .to_owned();
            let reply = ErrorReply { kind: ErrorKind::NotReady, message };
            let doing = "give a pod an address";
            return Err(Error::NotAvailable(Box::new(Error::Daemon { doing, reply })));
        }
        Ok(Reply::Status(_)) => {}
        Ok(other) => return Err(Error::NotAvailable(Box::new(client::unexpected(socket, &other)))),
        Err(error) => return Err(Error::NotAvailable(Box::new(error))),
    }
    match Delegate::of(call)? {
        Some(delegate) => delegate.order(Command::Status, deadline),
        None => Ok(()),
    }
}
