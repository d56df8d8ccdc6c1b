//! The CNI plugin's calls.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use api::{Attach, AttachmentId, Check, ErrorKind, ErrorReply, Reserve, Reserved};
use netio::port::PortFd;

use super::refused;
use crate::daemon::{Daemon, offloads};
use crate::error::chain;
use controlplane::model::{attachments, refuse};
use controlplane::ports::LivePort;

impl Daemon {
    pub(super) fn reserve(&mut self, request: &Reserve) -> Result<Reserved, ErrorReply> {
        let has_port = self.ports.is_up(&request.attachment);
        let (edits, reserved) =
            self.model.reserve(&self.config, request, self.pod_mtu(), has_port)?;
        if self.ports.number(&request.attachment).is_none() {
            return refused(
                ErrorKind::Exhausted,
                "every port number is in use; this node has no room for another pod",
            );
        }
        // Nothing forwards for a lease without a port, so there is nothing to publish.
        if let Err(refusal) = self.record(&edits) {
            self.forget_number(&request.attachment);
            return Err(refusal);
        }
        tracing::info!(
            container = request.attachment.container_id,
            ifname = request.attachment.ifname,
            netns = request.netns,
            addresses = ?reserved.addresses,
            "reserved"
        );
        Ok(reserved)
    }

    fn forget_number(&mut self, attachment: &AttachmentId) {
        if !self.model.attachments.contains_key(attachment) {
            self.ports.forget(attachment);
            self.ports.left();
        }
    }

    /// Takes over the pod's interface; when this returns, every worker forwards for it.
    pub(super) fn attach(&mut self, request: &Attach, fds: Vec<OwnedFd>) -> Result<(), ErrorReply> {
        let attachment = &request.attachment;
        let edits = self.model.attach(attachment, request.mac)?;
        if self.ports.is_up(attachment) {
            return refused(
                ErrorKind::Conflict,
                format!("{} is attached already; delete it first", attachments::name(attachment)),
            );
        }
        let [fd] = <[OwnedFd; 1]>::try_from(fds).map_err(|fds| {
            let message = format!(
                "an attach request carries exactly one file descriptor, this one {}",
                fds.len()
            );
            refuse(ErrorKind::Invalid, message)
        })?;
        let io = PortFd::adopt(fd).map_err(|error| refuse(ErrorKind::Invalid, chain(&error)))?;
        let Some(id) = self.ports.number(attachment) else {
            return refused(ErrorKind::Exhausted, "every port number is in use");
        };
        let loads = self.ports.loads(self.workers.count());
        let worker = (0..loads.len()).min_by_key(|worker| loads[*worker]).unwrap_or(0);
        let offloads = offloads(io.offloads());
        let io = Arc::new(io);
        self.workers.add_port(id, &io, worker);
        self.ports.insert(attachment, LivePort { offloads, worker, up: true });
        if let Err(refusal) = self.transact(&edits) {
            self.ports.unplug(attachment);
            self.workers.remove_port(id);
            return Err(refusal);
        }
        tracing::info!(
            container = attachment.container_id,
            ifname = attachment.ifname,
            "{id}: attached"
        );
        Ok(())
    }

    /// Frees everything; nothing to free is success. The address is free when this returns, the
    /// port's file descriptor is closed once no worker can use it any more.
    pub(super) fn detach(&mut self, attachment: &AttachmentId) -> Result<(), ErrorReply> {
        let edits = self.model.detach(attachment);
        if edits.is_empty() {
            return Ok(());
        }
        self.record(&edits)?;
        let was_live = self.ports.unplug(attachment).is_some();
        self.ports.forget(attachment);
        tracing::info!(container = attachment.container_id, ifname = attachment.ifname, "detached");
        // The last lease of a prefix takes the prefix with it.
        let published = if was_live || edits.len() > 1 { self.publish() } else { Ok(()) };
        self.retry_refused();
        published
    }

    pub(super) fn check(&self, request: &Check) -> Result<(), ErrorReply> {
        self.model.check(request)?;
        if !self.ports.is_up(&request.attachment) {
            return refused(
                ErrorKind::NotReady,
                format!(
                    "{} has no live port: its interface is gone, or the daemon was restarted; delete and add it",
                    attachments::name(&request.attachment)
                ),
            );
        }
        Ok(())
    }
}
