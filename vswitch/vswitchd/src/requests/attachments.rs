//! The port of a pod on its way in, and CHECK.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use api::{Attach, Check, ErrorKind, ErrorReply};
use controlplane::desired::nft_table::TABLE;
use controlplane::model::{attachments, refuse};
use controlplane::plane::Event;
use netio::port::PortFd;

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
        let count = fds.len();
        let mut fds = fds.into_iter();
        let (Some(fd), process, None) = (fds.next(), fds.next(), fds.next()) else {
            let message = format!(
                "an attach request carries a port's file descriptor and at most a process's, this one {count}"
            );
            return refused(ErrorKind::Invalid, message);
        };
        let port = PortFd::adopt(fd).map_err(|error| refuse(ErrorKind::Invalid, chain(&error)))?;
        failpoint::hit("add-port-adopted").map_err(fault)?;
        let offloads = offloads(port.offloads());
        let fds = PortFds { port: Arc::new(port), process: process.map(Arc::new) };
        let name = descriptors::name_of(&request.attachment);
        let lease = self.plane.model().attachments.get(&request.attachment);
        let netns = lease.map(|lease| lease.netns.clone().into()).unwrap_or_default();
        self.node.arriving.push_back(Arriving { name, fds, netns, is_kept: false });
        Ok(Event::Attach { request, offloads })
    }

    pub(super) fn check(&self, request: &Check) -> Result<(), ErrorReply> {
        let lease = self.plane.model().check(request)?;
        if !lease.port_mappings.is_empty() && !self.node.nft.is_in_force() {
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
        Ok(())
    }
}
