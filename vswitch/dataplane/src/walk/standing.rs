//! A part of the door `session`: whether a session goes on, as its service and its backend are now.
//!
//! Enters: a packet whose session was found. Leaves: what it changes in that session, or that the session
//! is over and the packet the first of another flow. Reads only.
//!
//! | its opener's packet, of | goes on while |
//! |---|---|
//! | UDP | its service has the backend, and that is serving: nothing else tells a datagram's sender |
//! | TCP, SCTP | its service has the backend |
//! | TCP, SCTP, once the service or the backend in it is gone | the connection was established, and the backend is where it was |
//!
//! What its responder sends goes on. A pod that leaves its service may have connections to end yet: a pod
//! of this node is known by its port, with which its sessions end; of another node's pods nothing is known,
//! as of those that are spoken to without a service.

use super::View;
use super::session::service_of;
use crate::session::{Class, Direction, Found, Session, Touch, Tuple, is_opening};
use crate::tables::{Adjacency, BackendState, PortRole};
use crate::wire::{Protocol, TcpFlags};

/// What becomes of the session of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The packet is the session's, in which it makes this change.
    GoesOn(Option<Touch>),
    /// The packet begins another in its place: it is closing, or revoked.
    Reopened,
    /// Its service or its backend is gone.
    Over,
}

/// What becomes of a session that a packet with this tuple has. `is_virtual`: its destination is a
/// virtual address.
pub(super) fn of_session(
    view: &View<'_>,
    tuple: &Tuple,
    found: &Found,
    flags: TcpFlags,
    is_virtual: bool,
) -> Standing {
    let session = &found.session;
    let is_translated = session.is_translated();
    if found.is_reopened_by(flags) {
        // A flow to a service takes the place by itself. Where none begins here, nothing else would.
        let stays = is_virtual || !is_translated;
        return if stays { Standing::Reopened } else { Standing::Over };
    }
    let touch = found.touch(flags, view.tick());
    let is_openers = found.direction == Direction::FromOpener;
    let is_to_service = is_virtual || is_translated && is_openers;
    if !is_to_service {
        return Standing::GoesOn(touch.filter(|_| !is_translated || is_kept(view, session)));
    }
    match service_of(view, tuple) {
        Some(service) if service.generation == session.service_generation => {
            Standing::GoesOn(touch)
        }
        Some(service) => {
            let backend = service.backends.at(session.server_side.destination());
            let goes_on = match backend.map(|backend| (tuple.protocol(), backend.state)) {
                Some((Protocol::UDP, BackendState::NotServing)) => false,
                Some(_) => true,
                None => is_translated && outlives_service(view, session, flags),
            };
            if !goes_on {
                return Standing::Over;
            }
            let touched = found.touched(flags);
            Standing::GoesOn(Some(touched.with_service_generation(service.generation)))
        }
        None if is_translated && outlives_service(view, session, flags) => Standing::GoesOn(touch),
        None => Standing::Over,
    }
}

/// Whether what the responder sends keeps the session from expiring. A datagram's sender, whose next
/// packet ends the session, may have none: it ends by itself.
fn is_kept(view: &View<'_>, session: &Session) -> bool {
    session.protocol() != Protocol::UDP || service_of(view, &session.client_side).is_some()
}

/// Whether the packet is of a connection that was established when its service, or its backend there, went.
fn outlives_service(view: &View<'_>, session: &Session, flags: TcpFlags) -> bool {
    let protocol = session.protocol();
    protocol != Protocol::UDP
        && session.state.class != Class::Embryonic
        && !is_opening(protocol, flags)
        && is_where_it_was(view, session)
}

/// Whether the backend's address leads to the same pod of this node as it did, or out of it as it did.
fn is_where_it_was(view: &View<'_>, session: &Session) -> bool {
    let address = session.server_side.destination().address;
    let pod = match view.tables.route(address).and_then(|id| view.tables.adjacency(id)) {
        Some(Adjacency::Port { port, .. }) => {
            let is_pod = view.tables.port(*port).is_some_and(|port| port.kind == PortRole::Pod);
            is_pod.then_some(*port)
        }
        // By its MAC, which `route` looks up.
        Some(Adjacency::Bridged { .. }) => return session.local_out.is_some(),
        _ => None,
    };
    pod == session.local_out
}
