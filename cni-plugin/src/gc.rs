//! GC: the daemon frees every pod of this network that the runtime's list does not name, and the IPAM
//! plugin does the same. One that fails does not keep the other. Pods of other networks stay, and so do
//! those whose network the daemon does not know, as an older version added them: one that the list
//! names is this network's from then on.

use std::collections::BTreeSet;

use api::{AttachmentId, Collect, Request};
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
/// `Invalid` without a list: an absent one is no empty one, and would unplug the whole network. Else
/// all that failed.
pub(crate) fn gc(call: &Call, deadline: &Deadline) -> Result<(), Error> {
    let valid = valid_attachments(&call.conf)?;
    let collect = Request::Collect(Collect { network: call.conf.name.clone(), valid });
    let doing = "free pods that the runtime does not list";
    let mut errors = Vec::new();
    errors.extend(client::order(&call.conf.socket, doing, &collect, deadline).err());
    match Delegate::of(call) {
        Ok(None) => {}
        Ok(Some(delegate)) => {
            errors.extend(delegate.order(Command::Gc, &deadline.or_delegates_share()).err());
        }
        Err(error) => errors.push(error),
    }
    Error::all(errors)
}

/// The runtime's list.
///
/// # Errors
/// `Invalid` if it is absent, `Decode` if it is none.
pub(crate) fn valid_attachments(conf: &NetConf) -> Result<BTreeSet<AttachmentId>, Error> {
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
