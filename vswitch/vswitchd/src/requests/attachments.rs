//! The port of a pod on its way in, and CHECK.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use api::{Attach, AttachmentId, Check, ErrorKind, ErrorReply};
use controlplane::desired::nft_table::TABLE;
use controlplane::model::{attachments, refuse};
use controlplane::plane::Event;
use controlplane::ports::PodDevice;
use netio::port::{PortFd, Spread};

use super::{fault, refused};
use crate::daemon::{Daemon, offloads};
use crate::descriptors::{self, PortFds};
use crate::error::chain;
use crate::node::Arriving;

impl Daemon {
    /// Takes the pod's port out of a request; the workers get it by the event's list.
    pub(super) fn arrival(
        &mut self,
        request: Attach,
        fds: Vec<OwnedFd>,
    ) -> Result<Event, ErrorReply> {
        let (count, queues) = (fds.len(), usize::from(request.queues));
        if queues == 0 || !(queues..=queues + 1).contains(&count) {
            let message = format!(
                "an attach request carries the {queues} file descriptor(s) of a port and at most a process's, this one {count}"
            );
            return refused(ErrorKind::Invalid, message);
        }
        let mut fds = fds.into_iter();
        let adopt = |fd| PortFd::adopt(fd).map(Arc::new);
        let ports: Result<Vec<_>, _> = fds.by_ref().take(queues).map(adopt).collect();
        let mut ports =
            ports.map_err(|error| refuse(ErrorKind::Invalid, chain(&error)))?.into_iter();
        let Some(port) = ports.next() else {
            return refused(ErrorKind::Invalid, "an attach request carries a port");
        };
        let more: Vec<_> = ports.collect();
        if !more.iter().all(|queue| queue.is_of_same_device(&port)) {
            let message = "the file descriptors of a port are queues of one TAP, and these are not";
            return refused(ErrorKind::Invalid, message);
        }
        failpoint::hit("add-port-adopted").map_err(fault)?;
        let offloads = offloads(port.offloads());
        let fds = PortFds { port, more, process: fds.next().map(Arc::new) };
        let spread = self.spread(&request.attachment, &fds);
        let queues = spread.map_err(|error| refuse(ErrorKind::Internal, chain(&error)))?;
        let name = descriptors::name_of(&request.attachment);
        let lease = self.plane.model().attachments.get(&request.attachment);
        let netns = lease.map(|lease| lease.netns.clone().into()).unwrap_or_default();
        self.node.arriving.push_back(Arriving { name, fds, netns, is_kept: false });
        Ok(Event::Attach { request, device: PodDevice { offloads, queues } })
    }

    /// How many queues of a pod's interface the kernel gives packets to: as many as workers can read.
    ///
    /// # Errors
    /// If packets would be lost in a queue that nobody reads.
    pub(crate) fn spread(&self, pod: &AttachmentId, fds: &PortFds) -> netio::Result<usize> {
        let Spread { queues, refusal } = fds.spread(self.node.workers.count())?;
        if let Some(refusal) = refusal {
            tracing::warn!(
                "{} is served by one queue of {}, as flows would not stay in order in more: {}",
                attachments::name(pod),
                fds.more.len() + 1,
                chain(&refusal)
            );
        }
        Ok(queues)
    }

    pub(super) fn check(&self, request: &Check) -> Result<(), ErrorReply> {
        let lease = self.plane.model().check(request)?;
        if !lease.port_mappings.is_empty() && !self.node.rules.is_whole() {
            return refused(
                ErrorKind::Conflict,
                format!(
                    "the hostPorts of {} are not served: the nftables {TABLE} is gone or was changed, or host.masquerade is false; see vswitchctl status",
                    attachments::name(&request.attachment)
                ),
            );
        }
        if !self.plane.ports().is_up(&request.attachment) {
            return refused(
                ErrorKind::NotReady,
                format!(
                    "{} has no port: its interface is gone, or is yet to be opened again after a restart; if it stays so, delete and add it",
                    attachments::name(&request.attachment)
                ),
            );
        }
        let live = self.plane.ports().live(&request.attachment);
        let read = live.map_or(0, |live| live.workers.len());
        if let Some(attached) = request.attached_queues.filter(|count| *count as usize != read) {
            return refused(
                ErrorKind::Conflict,
                format!(
                    "{} has {attached} queue(s) that the kernel gives packets to, of which {read} are read here: what its pod sends is lost in the others; delete it and add it anew",
                    attachments::name(&request.attachment)
                ),
            );
        }
        Ok(())
    }
}
