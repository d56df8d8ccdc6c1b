//! What each request does.
//!
//! Enters: a request and the file descriptors that came with it, from `control`. Leaves: the
//! answer, when what it says is so.
//!
//! | file | answers |
//! |---|---|
//! | `attachments` | the CNI plugin |
//! | `sources`     | who tells of the other nodes and of this one's prefixes |
//! | `show`        | `show ports`, `fdb`, `neighbors`, `drops` |
//! | `routes`      | `show fib`, `peers`: in force or hidden |
//! | `status`      | `status` |
//! | `trace`       | `trace` |
//! | `packet`      | builds and prints packets for it |
//! | `arrival`     | encapsulates those that arrive by the NIC |

mod arrival;
mod attachments;
mod packet;
mod routes;
mod show;
mod sources;
mod status;
mod trace;

use std::os::fd::OwnedFd;

use api::{AttachmentId, ErrorReply, Reply, Request, Response};

use crate::daemon::Daemon;
use controlplane::model::Edit;

impl Daemon {
    /// Does as asked. File descriptors that the request has no use for are closed.
    pub fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) -> Response {
        // A pod that died a moment ago must not stand in the way of its successor.
        self.notice_gone_ports();
        let (config, model) = (&self.config, &self.model);
        let edits = match request {
            Request::Status => return Ok(Reply::Status(Box::new(self.status()))),
            Request::ShowPorts => return Ok(Reply::Ports(self.show_ports())),
            Request::ShowFdb => return Ok(Reply::Fdb(self.show_fdb())),
            Request::ShowFib => return Ok(Reply::Fib(self.show_fib())),
            Request::ShowNeighbors => return Ok(Reply::Neighbors(self.show_neighbors())),
            Request::ShowPeers => return Ok(Reply::Peers(self.show_peers())),
            Request::ShowDrops => return Ok(Reply::Drops(self.show_drops())),
            Request::Trace(packet) => return self.trace(&packet).map(Reply::Trace),
            Request::Reserve(reserve) => return self.reserve(&reserve).map(Reply::Reserved),
            Request::Attach(attach) => return self.attach(&attach, fds).map(|()| Reply::Done),
            Request::Detach(attachment) => {
                return self.detach(&attachment).map(|()| Reply::Done);
            }
            Request::Check(check) => return self.check(&check).map(|()| Reply::Done),
            Request::Adjustments => return Ok(Reply::Adjustments(self.adjustments())),
            Request::Adjusted { attachment, mtu } => {
                return self.adjusted(&attachment, mtu).map(|()| Reply::Done);
            }
            Request::AddRoute(route) => model.add_route(config, route),
            Request::DeleteRoute(prefix) => model.delete_route(config, prefix),
            Request::AddPeer(peer) => {
                self.admit_mtu(&peer)?;
                model.add_peer(config, peer)
            }
            Request::DeletePeer(name) => model.delete_peer(config, &name),
            Request::SyncPeers(sync) => return self.sync_peers(sync),
            Request::SetPodPrefixes(prefixes) => return self.set_pod_prefixes(&prefixes),
            Request::AddFdb { bridge, mac, vtep } => model.add_fdb(config, bridge, mac, vtep),
            Request::DeleteFdb { bridge, mac } => model.delete_fdb(bridge, mac),
            Request::AddNeighbor { bridge, address, mac } => {
                model.add_neighbor(config, bridge, address, mac)
            }
            Request::DeleteNeighbor { bridge, address } => model.delete_neighbor(bridge, address),
        }?;
        self.change(&edits)
    }

    fn change(&mut self, edits: &[Edit]) -> Response {
        self.transact(edits)?;
        tracing::info!(?edits, "changed");
        Ok(Reply::Done)
    }

    /// The name of a pod's port: the pod's, where the runtime gave it.
    pub(crate) fn port_name(&self, attachment: &AttachmentId) -> String {
        let pod = self.model.attachments.get(attachment).and_then(|lease| lease.pod.as_ref());
        let name = match pod {
            Some(pod) => format!("{}/{}", pod.namespace, pod.name),
            None => attachment.container_id.clone(),
        };
        // A pod's further interfaces have names of their own.
        if attachment.ifname == "eth0" { name } else { format!("{name}:{}", attachment.ifname) }
    }
}

/// A refusal of this daemon's own making.
pub(crate) fn refused<T>(
    kind: api::ErrorKind,
    message: impl Into<String>,
) -> Result<T, ErrorReply> {
    Err(controlplane::model::refuse(kind, message))
}
