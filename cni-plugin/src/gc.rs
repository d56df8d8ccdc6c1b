//! GC: detaches every pod that the runtime's list does not name, and lets the IPAM plugin do the
//! same. One that fails does not keep the others.

use std::collections::HashSet;

use api::{AttachmentId, Reply, Request};
use serde::Deserialize;

use crate::client;
use crate::config::{Call, NetConf};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::ipam::Delegate;
use crate::version::Command;

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

/// Frees what is not listed.
///
/// # Errors
/// `Invalid` without a list: an absent one is no empty one, and would unplug the whole node. Else all
/// that failed.
pub(crate) fn gc(call: &Call, deadline: &Deadline) -> Result<(), Error> {
    let socket = &call.conf.socket;
    let valid = valid_attachments(&call.conf)?;
    let mut errors = Vec::new();
    match client::call(socket, "list the pods", &Request::ShowPorts, deadline) {
        Ok(Reply::Ports(ports)) => {
            let stale = ports.into_iter().filter_map(|port| port.attachment);
            for attachment in stale.filter(|attachment| !valid.contains(attachment)) {
                errors.extend(client::detach(socket, &attachment, deadline).err());
            }
        }
        Ok(other) => errors.push(client::unexpected(socket, &other)),
        Err(error) => errors.push(error),
    }
    match Delegate::of(call) {
        Ok(None) => {}
        Ok(Some(delegate)) => errors.extend(delegate.order(Command::Gc, deadline).err()),
        Err(error) => errors.push(error),
    }
    Error::all(errors)
}

/// The runtime's list.
///
/// # Errors
/// `Invalid` if it is absent, `Decode` if it is none.
pub(crate) fn valid_attachments(conf: &NetConf) -> Result<HashSet<AttachmentId>, Error> {
    let Some(value) = &conf.valid_attachments else {
        return Err(Error::Invalid(
            "GC needs the list `cni.dev/valid-attachments`; without it every pod would go".into(),
        ));
    };
    let listed = Vec::<Listed>::deserialize(value)
        .map_err(|source| Error::Decode { what: "`cni.dev/valid-attachments`".into(), source })?;
    let id = |item: Listed| AttachmentId { container_id: item.container_id, ifname: item.ifname };
    Ok(listed.into_iter().map(id).collect())
}
