//! What each request does.
//!
//! Enters: a request and the file descriptors that came with it, from `control`. Leaves: the
//! answer. A question is answered here; a change is an event for the control plane.
//!
//! | file | answers |
//! |---|---|
//! | `attachments` | takes a pod's port over, and compares what a runtime knows |
//! | `held`        | nothing: it holds answers back until the journal is on disk, the nftables table in force, and policies known |
//! | `show`        | `show ports`, `fdb`, `neighbors`, `drops` |
//! | `kernel_drops` | what the kernel drops beside the switch, for `show ports` and `drops` |
//! | `routes`      | `show fib`, `peers`: in force or hidden |
//! | `status`      | `status` |
//! | `problems`    | what keeps the node from serving its pods |
//! | `trace`       | `trace` |
//! | `explain`     | `explain` |
//! | `latency`     | `latency` |
//! | `metrics`     | Prometheus |
//! | `followed_drops` | `drops --follow` |
//! | `words`       | what the walk found, in words |
//! | `packet`      | builds and prints packets for it |
//! | `arrival`     | encapsulates those that arrive by the NIC |

mod arrival;
mod attachments;
mod explain;
mod followed_drops;
mod held;
mod kernel_drops;
mod latency;
mod metrics;
mod packet;
mod problems;
mod routes;
mod services;
mod show;
mod status;
mod trace;
mod words;

use std::os::fd::OwnedFd;
use std::time::Instant;

use api::{AttachmentId, ErrorKind, ErrorReply, Reply, Request, Response};
use controlplane::model::refuse;
use controlplane::plane::Event;

use crate::daemon::{Daemon, Told};
use held::{AwaitedPolicies, AwaitedTable, HeldChange};
pub use held::{Handled, Held};

impl Daemon {
    /// Does as asked. File descriptors that the request has no use for are closed.
    pub fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) -> Handled {
        // A pod that died a moment ago must not stand in the way of its successor.
        self.notice_gone_ports();
        if let Some(held) = self.waits_for_look(&request) {
            return Handled::Later(held);
        }
        let is_release = matches!(request, Request::Detach(_));
        let is_attach = matches!(request, Request::Attach(_));
        let only_takes = is_release
            || matches!(
                request,
                Request::Collect(_)
                    | Request::Drain
                    | Request::DeletePeer(_)
                    | Request::DeleteRoute(_)
            );
        let promised = self.host_ports_promised_by(&request);
        let told = Told::by(&request);
        let is_reservation = matches!(request, Request::Reserve(_));
        let is_drain = matches!(request, Request::Drain);
        let added = self.added_by(&request);
        let places = places_of(&request);
        if let Some([taken, _]) = places
            && let Err(refusal) = failpoint::hit(taken).map_err(fault)
        {
            return Handled::Now(Err(refusal));
        }
        let event = match self.event_of(request, fds) {
            Ok(event) => event,
            Err(response) => return Handled::Now(*response),
        };
        let (before, table_before) = (self.node.journal.written(), self.node.rules.ordered());
        let answer = self.react(event);
        let response = answer.and_then(|answer| {
            answer.ok_or_else(|| refuse(ErrorKind::Internal, "a change has no answer"))
        });
        let response = response.and_then(|reply| match places {
            Some([_, done]) => failpoint::hit(done).map_err(fault).map(|()| reply),
            None => Ok(reply),
        });
        if let (Some(told), Ok(_)) = (told, &response) {
            self.note_sync(told, Instant::now());
        }
        self.is_drained |= is_drain && response.is_ok();
        let line = self.node.journal.written();
        // An ADD waits for the disk once: the line of its Attach comes after that of its reservation, and no
        // runtime has heard of the address before. A plugin that ends in between leaves a reservation, which
        // the DEL that follows removes.
        if is_reservation && response.is_ok() {
            return Handled::Now(response);
        }
        // Also one that changed nothing is held: it may repeat one that is not on disk yet.
        if response.is_ok() || line > before {
            let policies = added.filter(|added| self.plane.is_pending(added));
            let policies = policies.map(AwaitedPolicies::of);
            let table = self.awaited_table(table_before, is_attach, promised, only_takes);
            Handled::Later(Held::Change(HeldChange { response, line, is_release, table, policies }))
        } else {
            Handled::Now(response)
        }
    }

    /// The nftables table that the answer to a change waits for, if the change has ordered one. What is ordered besides
    /// with a pod that has no hostPorts is nothing that the pod needs.
    fn awaited_table(
        &self,
        before: u64,
        is_attach: bool,
        is_promised: bool,
        only_takes: bool,
    ) -> Option<AwaitedTable> {
        let ordered = self.node.rules.ordered();
        let is_awaited = is_promised || ordered > before && !is_attach;
        is_awaited.then(|| AwaitedTable::new(ordered, is_promised, only_takes))
    }

    /// Whether an ADD attaches a pod with hostPorts by this request. Where an interface is opened again, they are in
    /// force.
    fn host_ports_promised_by(&self, request: &Request) -> bool {
        let Request::Attach(attach) = request else { return false };
        let lease = self.plane.model().attachments.get(&attach.attachment);
        lease.is_some_and(|lease| !lease.attached && !lease.port_mappings.is_empty())
    }

    /// The pod with a name that an ADD attaches with this request; none if its interface is opened again.
    fn added_by(&self, request: &Request) -> Option<AttachmentId> {
        let Request::Attach(attach) = request else { return None };
        let lease = self.plane.model().attachments.get(&attach.attachment)?;
        (!lease.attached && lease.pod.is_some()).then(|| attach.attachment.clone())
    }

    /// The event that a change is; the answer to what is none.
    fn event_of(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Event, Box<Response>> {
        let reply = match request {
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::ShowPorts => Reply::Ports(self.show_ports()),
            Request::ShowFdb => Reply::Fdb(self.show_fdb()),
            Request::ShowFib => Reply::Fib(self.show_fib()),
            Request::ShowNeighbors => Reply::Neighbors(self.show_neighbors()),
            Request::ShowPeers => Reply::Peers(self.show_peers()),
            Request::ShowDrops => Reply::Drops(self.show_drops()),
            Request::ShowLatency { by_port } => Reply::Latency(self.show_latency(by_port)),
            Request::FollowDrops(asked) => {
                let answer = self.followed_drops(&asked);
                return Err(Box::new(answer.map(Reply::FollowedDrops)));
            }
            Request::ShowServices => Reply::Services(self.show_services()),
            Request::ShowPolicies => Reply::Policies(self.show_policies()),
            Request::PolicyDigest => Reply::PolicyDigest(self.plane.policy_digest()),
            Request::ShowSessions { most } => Reply::Sessions(self.show_sessions(most)),
            Request::Trace(packet) => {
                return Err(Box::new(self.trace(&packet).map(Reply::Trace)));
            }
            Request::Explain(asked) => {
                let answer = self.explain(&asked);
                return Err(Box::new(answer.map(|told| Reply::Explained(Box::new(told)))));
            }
            Request::Check(check) => {
                return Err(Box::new(self.check(&check).map(|()| Reply::Done)));
            }
            Request::Adjustments => Reply::Adjustments(self.plane.adjustments()),
            Request::Reattachments => Reply::Reattachments(self.plane.reattachments()),
            Request::Survey => Reply::Survey(self.survey()),
            Request::Surveyed => {
                self.surveyed();
                Reply::Done
            }
            Request::Attach(request) => {
                return self.arrival(request, fds).map_err(|refusal| Box::new(Err(refusal)));
            }
            Request::Reserve(request) => {
                // The attachment's own DEL may be queued, and came before.
                self.detach_queued(Instant::now());
                self.admit_pod(Instant::now()).map_err(|refusal| Box::new(Err(refusal)))?;
                return Ok(Event::Request(Request::Reserve(request)));
            }
            change => return Ok(Event::Request(change)),
        };
        Err(Box::new(Ok(reply)))
    }
}

/// The failpoints of a request: when it is taken, and when all but its answer is done.
fn places_of(request: &Request) -> Option<[&'static str; 2]> {
    match request {
        Request::Reserve(_) => Some(["add-reserve", "add-reserve-done"]),
        Request::Attach(_) => Some(["add-attach", "add-attach-done"]),
        Request::Detach(_) => Some(["del-detach", "del-detach-done"]),
        _ => None,
    }
}

/// The refusal of a place that was made to fail.
pub(crate) fn fault(fault: failpoint::Fault) -> ErrorReply {
    refuse(ErrorKind::Internal, fault.to_string())
}

/// A refusal of this daemon's own making.
pub(crate) fn refused<T>(kind: ErrorKind, message: impl Into<String>) -> Result<T, ErrorReply> {
    Err(refuse(kind, message))
}
