//! What each request does.
//!
//! Enters: a request and the file descriptors that came with it, from `control`. Leaves: the
//! answer. A question is answered here; a change is an event for the control plane.
//!
//! | file | answers |
//! |---|---|
//! | `attachments` | takes a pod's port over, and compares what a runtime knows |
//! | `show`        | `show ports`, `fdb`, `neighbors`, `drops` |
//! | `routes`      | `show fib`, `peers`: in force or hidden |
//! | `status`      | `status` |
//! | `problems`    | what keeps the node from serving its pods |
//! | `trace`       | `trace` |
//! | `words`       | what the walk found, in words |
//! | `packet`      | builds and prints packets for it |
//! | `arrival`     | encapsulates those that arrive by the NIC |

mod arrival;
mod attachments;
mod packet;
mod problems;
mod routes;
mod show;
mod status;
mod trace;
mod words;

use std::os::fd::OwnedFd;
use std::time::Instant;

use api::{ErrorKind, ErrorReply, Reply, Request, Response};
use controlplane::model::refuse;
use controlplane::plane::Event;

use crate::daemon::Daemon;

impl Daemon {
    /// Does as asked. File descriptors that the request has no use for are closed.
    pub fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) -> Response {
        // A pod that died a moment ago must not stand in the way of its successor.
        self.notice_gone_ports();
        let event = match request {
            Request::Status => return Ok(Reply::Status(Box::new(self.status()))),
            Request::ShowPorts => return Ok(Reply::Ports(self.show_ports())),
            Request::ShowFdb => return Ok(Reply::Fdb(self.show_fdb())),
            Request::ShowFib => return Ok(Reply::Fib(self.show_fib())),
            Request::ShowNeighbors => return Ok(Reply::Neighbors(self.show_neighbors())),
            Request::ShowPeers => return Ok(Reply::Peers(self.show_peers())),
            Request::ShowDrops => return Ok(Reply::Drops(self.show_drops())),
            Request::Trace(packet) => return self.trace(&packet).map(Reply::Trace),
            Request::Check(check) => return self.check(&check).map(|()| Reply::Done),
            Request::Adjustments => return Ok(Reply::Adjustments(self.plane.adjustments())),
            Request::Reattachments => {
                return Ok(Reply::Reattachments(self.plane.reattachments()));
            }
            Request::Drain => {
                let answer = self.react(Event::Request(Request::Drain))?;
                self.is_drained = true;
                return answer.ok_or_else(|| refuse(ErrorKind::Internal, "a change has no answer"));
            }
            Request::Attach(request) => self.arrival(request, fds)?,
            Request::Reserve(request) => {
                // The attachment's own DEL may be queued, and came before.
                self.detach_queued(Instant::now());
                Event::Request(Request::Reserve(request))
            }
            change => Event::Request(change),
        };
        let answer = self.react(event)?;
        answer.ok_or_else(|| refuse(ErrorKind::Internal, "a change has no answer"))
    }
}

/// A refusal of this daemon's own making.
pub(crate) fn refused<T>(kind: ErrorKind, message: impl Into<String>) -> Result<T, ErrorReply> {
    Err(refuse(kind, message))
}
