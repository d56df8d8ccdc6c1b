//! A part of `--adjust`: looks for pods that the daemon's journal has lost, and hands them over anew.
//!
//! Enters: the directories of namespaces that the daemon names. Leaves: what each interface with a mark holds
//! that the daemon does not know, to the daemon; and its TAP.

use std::fs;
use std::path::Path;

use api::{AttachmentId, Mac, Recover, Reply, Request, Survey};
use netlink::NudState;

use crate::adjust::Outcome;
use crate::client;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::netns::NetNs;
use crate::pod::{self, Found};

/// Takes up every pod that is found, if the daemon asks for it.
///
/// # Errors
/// If the daemon does not answer.
pub(crate) fn recover_all(socket: &Path, deadline: &Deadline) -> Result<Vec<Outcome>, Error> {
    let survey = match client::call(socket, "say where to look", &Request::Survey, deadline) {
        Ok(Reply::Survey(Some(survey))) => survey,
        // An older daemon knows no such request.
        Ok(Reply::Survey(None)) | Err(Error::Daemon { .. }) => return Ok(Vec::new()),
        Ok(other) => return Err(client::unexpected(socket, &other)),
        Err(error) => return Err(error),
    };
    let outcomes = look_everywhere(socket, &survey, deadline);
    if outcomes.iter().all(|outcome| outcome.result.is_ok()) {
        client::order(socket, "note that pods were looked for", &Request::Surveyed, deadline)?;
    }
    Ok(outcomes)
}

fn look_everywhere(socket: &Path, survey: &Survey, deadline: &Deadline) -> Vec<Outcome> {
    let group = pod::group(socket);
    let mut outcomes = Vec::new();
    for entry in survey.directories.iter().filter_map(|path| fs::read_dir(path).ok()).flatten() {
        let Ok(path) = entry.map(|entry| entry.path()) else { continue };
        // What is there besides namespaces, and what ends meanwhile, is nobody's.
        let Ok(netns) = NetNs::open(&path) else { continue };
        let Ok(marked) = netns.run(|| pod::marked(group)) else { continue };
        for (attachment, found) in marked {
            if survey.known.contains(&attachment) {
                continue;
            }
            let result = recover(socket, &netns, &path, &attachment, &found, deadline);
            let done = "it was lost, and is taken up again".to_owned();
            outcomes.push(Outcome::new(attachment, path.display().to_string(), done, result));
        }
    }
    outcomes
}

fn recover(
    socket: &Path,
    netns: &NetNs,
    path: &Path,
    attachment: &AttachmentId,
    found: &Found,
    deadline: &Deadline,
) -> Result<bool, Error> {
    // One that another process has open is that process's: an ADD of it may be under way.
    let Some(mut queues) = netns.run(|| pod::reattach(attachment, 1))? else { return Ok(false) };
    let Some(mac) = found.link.mac.map(Mac) else { return Ok(false) };
    let is_gateway = |state| state == NudState::Permanent;
    let request = Request::Recover(Recover {
        attachment: attachment.clone(),
        netns: path.to_string_lossy().into_owned(),
        addresses: found.addresses.iter().copied().filter(|net| !is_link_local(net)).collect(),
        gateways: found
            .neighbors
            .iter()
            .filter(|neighbor| is_gateway(neighbor.state))
            .map(|neighbor| neighbor.ip)
            .collect(),
        mac,
        mtu: found.link.mtu,
    });
    let reserved = match client::call(socket, "take the pod up", &request, deadline)? {
        Reply::Reserved(reserved) => reserved,
        other => return Err(client::unexpected(socket, &other)),
    };
    if found.link.tap_queues.is_some() {
        queues.extend(netns.run(|| pod::more_queues(attachment, reserved.queues - 1))?);
    }
    client::attach(socket, attachment, mac, &queues, netns.process(), deadline)?;
    Ok(true)
}

fn is_link_local(net: &ipnet::IpNet) -> bool {
    match net {
        ipnet::IpNet::V4(net) => net.addr().is_link_local(),
        ipnet::IpNet::V6(net) => net.addr().is_unicast_link_local(),
    }
}
