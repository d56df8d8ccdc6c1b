//! `--adjust`: gives live pods the MTU that the daemon wants them to have. Not a command of a runtime:
//! the unit `vswitch-adjust.service` executes it, `watch` calls it, or a person does.
//!
//! The kernel sets the MTU of an interface from inside its namespace alone. The daemon enters none;
//! this binary may, and does so for no longer than it takes.

use std::path::{Path, PathBuf};

use api::{Adjustment, Reply, Request};

use crate::client;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::netns::NetNs;
use crate::pod;

/// Adjusts every pod that the daemon names; one that cannot be does not keep the others from it.
/// Answers with a line for each.
///
/// # Errors
/// If the daemon does not report what there is to do.
pub(crate) fn adjust(socket: &Path, deadline: &Deadline) -> Result<Vec<Outcome>, Error> {
    let doing = "say which pods to adjust";
    let adjustments = match client::call(socket, doing, &Request::Adjustments, None, deadline)? {
        Reply::Adjustments(adjustments) => adjustments,
        other => return Err(client::unexpected(socket, &other)),
    };
    let outcomes = adjustments.into_iter().map(|adjustment| {
        let result = one(socket, &adjustment, deadline);
        Outcome { adjustment, result }
    });
    Ok(outcomes.collect())
}

/// What became of one pod.
pub(crate) struct Outcome {
    adjustment: Adjustment,
    /// False: the interface at that place is not this pod's.
    pub(crate) result: Result<bool, Error>,
}

impl Outcome {
    /// The outcome as a line for the log.
    pub(crate) fn line(&self) -> String {
        let Adjustment { attachment, netns, mtu } = &self.adjustment;
        let name = format!("{} of container {}", attachment.ifname, attachment.container_id);
        match &self.result {
            Ok(true) => format!("{name}: MTU {mtu}"),
            Ok(false) => format!("{name}: not in {netns}; another pod may be there by now"),
            Err(error) => format!("{name}: {error}"),
        }
    }
}

fn one(socket: &Path, adjustment: &Adjustment, deadline: &Deadline) -> Result<bool, Error> {
    let Adjustment { attachment, netns, mtu } = adjustment;
    let is_done = NetNs::open(&PathBuf::from(netns))?.run(|| pod::set_mtu(attachment, *mtu))?;
    if is_done {
        let request = Request::Adjusted { attachment: attachment.clone(), mtu: *mtu };
        client::order(socket, "note the pod's MTU", &request, None, deadline)?;
    }
    Ok(is_done)
}
