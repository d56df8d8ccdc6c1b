//! The port of a pod on its way in, and CHECK.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use api::{Attach, Check, ErrorKind, ErrorReply};
use controlplane::model::{attachments, refuse};
use controlplane::plane::Event;
use netio::port::PortFd;

use super::refused;
use crate::daemon::{Daemon, offloads};
use crate::error::chain;

impl Daemon {
    /// Takes the pod's port out of a request; the workers get it by the event's list.
    pub(super) fn arrival(
        &mut self,
        request: Attach,
        fds: Vec<OwnedFd>,
    ) -> Result<Event, ErrorReply> {
        let [fd] = <[OwnedFd; 1]>::try_from(fds).map_err(|fds| {
            let message = format!(
                "an attach request carries exactly one file descriptor, this one {}",
                fds.len()
            );
            refuse(ErrorKind::Invalid, message)
        })?;
        let io = PortFd::adopt(fd).map_err(|error| refuse(ErrorKind::Invalid, chain(&error)))?;
        let offloads = offloads(io.offloads());
        self.node.arriving = Some(Arc::new(io));
        Ok(Event::Attach { request, offloads })
    }

    pub(super) fn check(&self, request: &Check) -> Result<(), ErrorReply> {
        self.plane.model().check(request)?;
        if !self.plane.ports().is_up(&request.attachment) {
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
