//! `--adjust`: does in pods' namespaces what the daemon asks for. It opens interfaces again whose
//! descriptors were lost, looks for pods that a damaged journal lost, and gives live pods the MTU that they
//! are to have. Not a command of a runtime:
//! the unit `vswitch-adjust.service` executes it, `watch` calls it, or a person does.
//!
//! The kernel opens a TAP, and sets the MTU of an interface, from inside its namespace alone. The daemon
//! enters none; this binary may, and does so for no longer than it takes.

use std::path::{Path, PathBuf};

use api::{Adjustment, AttachmentId, Reattachment, Reply, Request};

use crate::client;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::netns::NetNs;
use crate::pod;
use crate::survey::recover_all;

/// Does what the daemon asks for in every pod that it names; one that cannot be helped does not keep the
/// others from it. Answers with a line for each.
///
/// # Errors
/// If the daemon does not report what there is to do.
pub(crate) fn adjust(socket: &Path, deadline: &Deadline) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = reattach_all(socket, deadline)?;
    outcomes.extend(recover_all(socket, deadline)?);
    outcomes.extend(adjust_mtus(socket, deadline)?);
    Ok(outcomes)
}

/// Before anything else: until then the pods are cut off.
fn reattach_all(socket: &Path, deadline: &Deadline) -> Result<Vec<Outcome>, Error> {
    let doing = "say which pods have no port";
    let pods = match client::call(socket, doing, &Request::Reattachments, deadline)? {
        Reply::Reattachments(pods) => pods,
        other => return Err(client::unexpected(socket, &other)),
    };
    let outcomes = pods.into_iter().map(|pod| Outcome {
        result: reattach(socket, &pod, deadline),
        done: "its interface is open again".to_owned(),
        attachment: pod.attachment,
        netns: pod.netns,
    });
    Ok(outcomes.collect())
}

fn reattach(socket: &Path, pod: &Reattachment, deadline: &Deadline) -> Result<bool, Error> {
    let Reattachment { attachment, netns, mac, bandwidth, queues } = pod;
    let netns = NetNs::open(&PathBuf::from(netns))?;
    let Some(queues) = netns.run(|| pod::reattach(attachment, *queues))? else {
        let request = Request::InterfaceNotFound(attachment.clone());
        client::order(socket, "note that a pod lost its interface", &request, deadline)?;
        return Ok(false);
    };
    failpoint::hit("cni-adjust-opened")?;
    client::attach(socket, attachment, *mac, &queues, netns.process(), deadline)?;
    if let Some(packets) = pod::queue_packets(*bandwidth) {
        netns.run(|| pod::settle_queue(&attachment.ifname, packets))?;
    }
    Ok(true)
}

fn adjust_mtus(socket: &Path, deadline: &Deadline) -> Result<Vec<Outcome>, Error> {
    let doing = "say which pods to adjust";
    let adjustments = match client::call(socket, doing, &Request::Adjustments, deadline)? {
        Reply::Adjustments(adjustments) => adjustments,
        other => return Err(client::unexpected(socket, &other)),
    };
    let outcomes = adjustments.into_iter().map(|adjustment| Outcome {
        result: set_mtu(socket, &adjustment, deadline),
        done: format!("MTU {}", adjustment.mtu),
        attachment: adjustment.attachment,
        netns: adjustment.netns,
    });
    Ok(outcomes.collect())
}

/// What became of one pod.
pub(crate) struct Outcome {
    attachment: AttachmentId,
    netns: String,
    /// What is to be said if it went well.
    done: String,
    /// False: the interface at that place is not this pod's.
    pub(crate) result: Result<bool, Error>,
}

impl Outcome {
    pub(crate) fn new(
        attachment: AttachmentId,
        netns: String,
        done: String,
        result: Result<bool, Error>,
    ) -> Self {
        Self { attachment, netns, done, result }
    }

    /// The outcome as a line for the log.
    pub(crate) fn line(&self) -> String {
        let Self { attachment, netns, done, .. } = self;
        let name = format!("{} of container {}", attachment.ifname, attachment.container_id);
        match &self.result {
            Ok(true) => format!("{name}: {done}"),
            Ok(false) => format!("{name}: not in {netns}; another pod may be there by now"),
            Err(error) => format!("{name}: {error}"),
        }
    }
}

fn set_mtu(socket: &Path, adjustment: &Adjustment, deadline: &Deadline) -> Result<bool, Error> {
    let Adjustment { attachment, netns, mtu } = adjustment;
    let is_done = NetNs::open(&PathBuf::from(netns))?.run(|| pod::set_mtu(attachment, *mtu))?;
    if is_done {
        let request = Request::Adjusted { attachment: attachment.clone(), mtu: *mtu };
        client::order(socket, "note the pod's MTU", &request, deadline)?;
    }
    Ok(is_done)
}
