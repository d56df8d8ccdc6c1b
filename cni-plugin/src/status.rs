//! STATUS: could an ADD succeed now, and are the pods that are there well? The daemon must answer and have no
//! problem, the configuration must be one that ADD takes, and the IPAM plugin must answer if there is one. Code 50
//! means that no pod can be added, 51 that pods suffer besides: without a daemon nothing forwards for them.

use api::{Reply, Request, ServiceProblemKind};

use crate::add;
use crate::args::Wanted;
use crate::client;
use crate::config::{Call, IpamChoice};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::ipam::Delegate;
use crate::version::Command;

/// Asks the daemon, then the IPAM plugin.
///
/// # Errors
/// `NotAvailable` or `NotWell`, with the reasons; `Invalid` for a configuration with which every ADD fails; the IPAM
/// plugin's own error.
pub(crate) fn status(call: &Call, deadline: &Deadline) -> Result<(), Error> {
    let socket = &call.conf.socket;
    let outcome = client::call(socket, "tell its status", &Request::Status, deadline);
    let status = outcome.and_then(|reply| match reply {
        Reply::Status(status) => Ok(status),
        other => Err(client::unexpected(socket, &other)),
    });
    let status = status.map_err(|error| Error::NotAvailable {
        // One that refuses runs, and forwards.
        pods_suffer: !matches!(error, Error::Daemon { .. }),
        source: Box::new(error),
    })?;
    let allocates_itself = call.conf.ipam == IpamChoice::Own;
    let concerns = |kind| kind != ServiceProblemKind::NoAddress || allocates_itself;
    let problems: Vec<_> =
        status.problems.into_iter().filter(|problem| concerns(problem.kind)).collect();
    if !problems.is_empty() {
        return Err(Error::NotWell(problems));
    }
    // What ADD refuses of this configuration, whichever the pod.
    Wanted::new(&call.conf, &call.env.args)?;
    if allocates_itself {
        add::mtu(&call.conf, status.pod_mtu, &status.pod_prefixes)?;
    }
    match Delegate::of(call)? {
        Some(delegate) => delegate.order(Command::Status, deadline),
        None => Ok(()),
    }
}
