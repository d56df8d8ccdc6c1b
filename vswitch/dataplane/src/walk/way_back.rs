//! A part of the door `session`: connections that a peer itself opens through its tunnel.
//!
//! Enters: a packet from a peer's own underlay address, as a program of that node sends it that is bound to the
//! address, and the pods' answers. Leaves: for the first a session, as a proposal; for the others the
//! adjacency of the peer. An answer's destination has a route by the underlay, and no tunnel there: the
//! kernel would masquerade it, and nobody waits for what comes then. The node's kernel remembers connections
//! for the same end, but this one has not passed it.

use core::net::IpAddr;

use super::arrival::{Arrival, ArrivedFrom};
use super::fragments::FirstFragment;
use super::narrator::{Narrator, TraceEvent};
use super::parse::{Headers, Ip, Net};
use super::session::{tcp_flags, tuple_of};
use super::{Decision, View};
use crate::session::{Direction, Lookup, PolicyStamp, Session, SessionEffect, State};
use crate::tables::{Adjacency, AdjacencyId, PortRole, Tables};
use crate::verdict::Verdict;
use crate::wire::TcpFlags;

/// Whether a peer itself sent the packet through its tunnel, by its underlay address.
#[inline(always)]
pub(super) fn is_of_peer_itself(arrival: &Arrival<'_>, ip: &Ip) -> bool {
    matches!(arrival.from, ArrivedFrom::Peer { peer, .. } if peer.address == ip.flow.source())
}

/// Proposes the session of a peer's packet that goes to a pod and has none yet. It is the pod's that
/// is charged with it. Packets without ports leave none.
#[inline(never)]
pub(super) fn open(
    view: &View<'_>,
    bytes: &[u8],
    looked_up: Option<&Lookup>,
    decision: &mut Decision,
) {
    let Verdict::Route { port, .. } = decision.verdict else { return };
    if view.tables.port(port).is_none_or(|port| port.kind != PortRole::Pod) {
        return;
    }
    let Net::Ip(ip) = &decision.headers.net else { return };
    let flags = tcp_flags(&decision.headers, bytes, ip);
    match (&mut decision.effects.session, looked_up) {
        // To a service, or by the pod's policies.
        (Some(SessionEffect::Create(session)), _) => session.through_tunnel = true,
        (Some(SessionEffect::Touch(_)), _) => {}
        (_, Some(Lookup::Hit(found))) if !found.is_reopened_by(flags) => {}
        // The end of a connection that is not known begins none.
        _ if flags.0 & TcpFlags::RST.0 != 0 => {}
        _ => {
            let Some(tuple) = tuple_of(&ip.flow) else { return };
            let now = view.tick();
            decision.effects.begin(Session {
                client_side: tuple,
                server_side: tuple,
                state: State::opened(tuple.protocol(), flags, now),
                policy: PolicyStamp::default(),
                charged: port,
                created: now,
                service: 0,
                service_generation: 0,
                local_in: None,
                local_out: Some(port),
                through_tunnel: true,
            });
        }
    }
}

/// Where an answer goes whose connection a peer itself opened through its tunnel; `None` of every other
/// packet.
pub(super) fn way_back(
    view: &View<'_>,
    headers: &Headers,
    looked_up: Option<&Lookup>,
    narrator: &mut impl Narrator,
) -> Option<AdjacencyId> {
    let Net::Ip(ip) = &headers.net else { return None };
    let goes_back = match looked_up {
        Some(Lookup::Hit(found)) => {
            found.session.through_tunnel && found.direction == Direction::FromResponder
        }
        Some(_) => false,
        None => ip.flow.is_later_fragment() && view.fragments.goes_back(&ip.flow, view.now),
    };
    let node = ip.flow.destination();
    let back = goes_back.then(|| tunnel_to(view.tables, node)).flatten()?;
    narrator.event(|| TraceEvent::ThroughTunnel(node));
    Some(back)
}

/// Has the other fragments of an answer follow the first one.
#[inline(never)]
pub(super) fn note_fragment(decision: &mut Decision) {
    if let (Net::Ip(ip), Verdict::Route { .. }) = (&decision.headers.net, decision.verdict) {
        let first = FirstFragment::of(&ip.flow, &ip.flow);
        decision.effects.first_fragment = first.map(FirstFragment::going_back);
    }
}

/// The adjacency of the peer with this underlay address: the one that its pods have.
fn tunnel_to(tables: &Tables, node: IpAddr) -> Option<AdjacencyId> {
    let (_, peer) = tables.tunnels.peer_at(node)?;
    let leads_there = |id: AdjacencyId| {
        matches!(tables.adjacency(id), Some(Adjacency::Remote { template: Some(template), .. })
            if template.remote_end() == Some(node))
    };
    peer.samples().find_map(|pod| {
        let id = tables.route(pod)?;
        match tables.adjacency(id)? {
            Adjacency::Multipath(group) => {
                let mut members = group.members().iter().map(|member| member.adjacency);
                members.find(|id| leads_there(*id))
            }
            _ => Some(id).filter(|id| leads_there(*id)),
        }
    })
}
