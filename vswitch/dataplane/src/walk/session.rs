//! Door 4: which session a packet belongs to, and which endpoints it has there.
//!
//! Enters: a packet that is routed, and where its destination leads. Leaves: a [`Translation`] if a
//! service stands between the two ends, by which `route` goes on; what is to change in the session
//! table, as a proposal that `process` carries out and `trace` does not; or the end of the walk.
//!
//! Most packets have nothing to do here ([`concerns`]): their destination is no virtual address, and
//! neither port carries a translated session.

use core::net::IpAddr;

use super::arrival::Arrival;
use super::flow::{Addresses, FlowKey, Ports};
use super::fragments::FirstFragment;
use super::narrator::{Narrator, TraceEvent};
use super::parse::{Ip, Net};
use super::quoted::quoted;
use super::standing::{self, Standing};
use super::translate::{QuotedTranslation, Translation};
use super::{Decision, Effects, Step, View, affinity, reset, route};
use crate::session::{
    Direction, Endpoint, Found, Lookup, PolicyStamp, Session, SessionEffect, State, Tuple,
};
use crate::tables::{
    Adjacency, AdjacencyId, PortId, PortRole, Service, Tables, VirtualPort, WithoutBackend,
};
use crate::verdict::{DropReason, IcmpError, Verdict};
use crate::wire::{Protocol, Tcp, TcpFlags};

/// The network that a session belongs to: tables have one space of addresses.
pub(super) const ZONE: u16 = 0;

/// Other source ports for a client, if its own is taken already: those from here on.
const FIRST_SHIFTED_PORT: u16 = 61_000;
/// So many are tried.
const SHIFTS: u16 = 8;

/// Whether a packet whose destination leads there may belong to a translated session.
#[inline(always)]
pub(crate) fn concerns(view: &View<'_>, ingress: PortId, towards: Option<AdjacencyId>) -> bool {
    if is_idle(view) {
        return false;
    }
    let adjacency = towards.and_then(|id| view.tables.adjacency(id));
    let carries = |port: PortId| view.sessions.steered_of(port) > 0;
    match adjacency {
        Some(Adjacency::Service) => true,
        Some(Adjacency::Port { port, .. } | Adjacency::Gateway { host: Some(port), .. }) => {
            carries(*port) || carries(ingress)
        }
        // Its port is known once its MAC is looked up.
        Some(Adjacency::Bridged { .. }) => true,
        _ => carries(ingress),
    }
}

/// Whether a packet from one port to the other, on one segment, may belong to a translated session.
#[inline(always)]
pub(crate) fn concerns_ports(view: &View<'_>, ingress: PortId, egress: PortId) -> bool {
    let carries = |port| view.sessions.steered_of(port) > 0;
    !is_idle(view) && (carries(ingress) || carries(egress))
}

/// Whether no packet at all has anything to do here. Sessions outlive the last service.
#[inline(always)]
fn is_idle(view: &View<'_>) -> bool {
    view.tables.services.is_empty() && !view.sessions.has_steered()
}

/// Completes the effects once the packet's end is known: what does not leave begins no session.
#[inline(always)]
pub(crate) fn settle(tables: &Tables, decision: &mut Decision) {
    let Some(translation) = &decision.edits.translation else { return };
    let (Verdict::Route { port, .. } | Verdict::Forward { port }) = decision.verdict else {
        decision.effects.begin_none();
        return;
    };
    let Effects { session, first_fragment, .. } = &mut decision.effects;
    if let Some(SessionEffect::Create(session)) = session {
        let is_pod = tables.port(port).is_some_and(|port| port.kind == PortRole::Pod);
        session.local_out = is_pod.then_some(port);
    }
    if let Net::Ip(ip) = &decision.headers.net {
        *first_fragment = FirstFragment::of(&ip.flow, &translation.flow);
    }
}

/// Writes the translation and its effects in `decision`, or the verdict; and in `looked_up` what the
/// table has at the packet's tuple, or of an error at that of the packet it is about.
#[inline(never)]
pub(crate) fn session(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    towards: Option<AdjacencyId>,
    looked_up: &mut Option<Lookup>,
    decision: &mut Decision,
    narrator: &mut impl Narrator,
) -> Result<Step, DropReason> {
    let Net::Ip(ip) = decision.headers.net else { return Ok(Step::Route) };
    let is_virtual =
        matches!(towards.and_then(|id| view.tables.adjacency(id)), Some(Adjacency::Service));
    if ip.flow.is_later_fragment() {
        return later_fragment(view, &ip, is_virtual, decision);
    }
    if is_error(&ip.flow) {
        return icmp_error(view, bytes, &ip, is_virtual, looked_up, decision, narrator);
    }
    let Some(tuple) = tuple_of(&ip.flow) else {
        // Neither ports nor an echo's identifier: nothing of a service.
        return nothing_here(view, arrival, bytes, is_virtual, decision);
    };
    let flags = tcp_flags(&decision.headers, bytes, &ip);
    let lookup = looked_up.insert(view.sessions.find(&tuple, view.tick()));
    match lookup {
        Lookup::Busy => return Err(DropReason::SessionBusy),
        Lookup::Hit(found) => match standing::of_session(view, &tuple, found, flags, is_virtual) {
            Standing::GoesOn(touch) => {
                decision.effects.session = touch.map(SessionEffect::Touch);
                translate(&ip, found, decision, narrator);
                return Ok(Step::Route);
            }
            Standing::Reopened => {}
            Standing::Over => {
                decision.effects.session = Some(SessionEffect::Close(found.session.server_side));
                // Whoever asks next is not to take the packet for one of that session.
                *lookup = Lookup::Miss;
            }
        },
        Lookup::Miss => {}
    }
    if !is_virtual {
        return Ok(Step::Route);
    }
    begin(view, arrival, bytes, tuple, flags, decision, narrator)
}

/// A flow to a virtual address that has no session yet.
fn begin(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    tuple: Tuple,
    flags: TcpFlags,
    decision: &mut Decision,
    narrator: &mut impl Narrator,
) -> Result<Step, DropReason> {
    let Net::Ip(ip) = decision.headers.net else { return Ok(Step::Route) };
    let Some(service) = service_of(view, &tuple) else {
        return nothing_here(view, arrival, bytes, true, decision);
    };
    if !service.admits(tuple.source().address) {
        return Err(DropReason::ServiceSourceRefused);
    }
    let Some((backend, by_affinity)) = affinity::choose(view, service, &tuple) else {
        return match service.without_backend {
            WithoutBackend::Refuse => nothing_here(view, arrival, bytes, true, decision),
            WithoutBackend::Drop => Err(DropReason::ServiceWithoutLocalBackend),
        };
    };
    narrator.event(|| TraceEvent::Balanced {
        service: VirtualPort {
            address: tuple.destination().address,
            protocol: tuple.protocol(),
            port: tuple.destination().port,
        },
        backend: backend.endpoint,
        is_affine: by_affinity.as_ref().is_some_and(|by_affinity| by_affinity.is_kept),
    });
    let server_side = server_side(view, tuple, backend.endpoint, flags)?;
    let now = view.tick();
    let session = Session {
        client_side: tuple,
        server_side,
        state: State::opened(tuple.protocol(), flags, now),
        policy: PolicyStamp::default(),
        charged: arrival.ingress,
        created: now,
        service: 0,
        service_generation: service.generation,
        local_in: (arrival.port.kind == PortRole::Pod).then_some(arrival.ingress),
        local_out: None,
        through_tunnel: false,
    };
    decision.effects.begin(session);
    decision.effects.affinity = by_affinity.map(|by_affinity| by_affinity.affinity);
    decision.edits.translation =
        Some(Translation { flow: flow_of(&ip.flow, &server_side), quoted: None });
    Ok(Step::Route)
}

/// What the backend sees of a client's flow: the client itself. But a pod that is its own backend
/// would take its own address for a mistake, so it is spoken to by the gateway; and a client that
/// speaks to one backend by two virtual addresses from one port gets another port. If all are taken, a
/// connection gets one whose connection is over: last, as the backend may remember that one.
fn server_side(
    view: &View<'_>,
    tuple: Tuple,
    backend: Endpoint,
    flags: TcpFlags,
) -> Result<Tuple, DropReason> {
    let client = tuple.source();
    let gateway = match client.address {
        IpAddr::V4(_) => view.tables.gateway.v4.map(IpAddr::from),
        IpAddr::V6(_) => view.tables.gateway.v6.map(IpAddr::from),
    };
    let address = match gateway {
        Some(gateway) if client.address == backend.address => gateway,
        None if client.address == backend.address => return Err(DropReason::ServiceHairpin),
        _ => client.address,
    };
    let spread = client.port % (u16::MAX - FIRST_SHIFTED_PORT);
    let shifted = (0..SHIFTS)
        .map(|shift| FIRST_SHIFTED_PORT + (spread + shift * 397) % (u16::MAX - FIRST_SHIFTED_PORT));
    let mut over = None;
    for port in core::iter::once(client.port).chain(shifted) {
        let source = Endpoint { address, port };
        let wanted = Tuple::new(ZONE, tuple.protocol(), source, backend);
        // The IP versions agree: a service's backends are of its own.
        let wanted = wanted.ok_or(DropReason::NoRoute)?;
        // By the answer that would come.
        match view.sessions.find(&wanted.reversed(), view.tick()) {
            Lookup::Miss => return Ok(wanted),
            // Of this very flow, which begins anew.
            Lookup::Hit(found) if found.session.client_side == tuple => return Ok(wanted),
            Lookup::Hit(found) if found.is_reopened_by(flags) => _ = over.get_or_insert(wanted),
            Lookup::Hit(_) => {}
            Lookup::Busy => return Err(DropReason::SessionBusy),
        }
    }
    over.ok_or(DropReason::SessionPortsUsed)
}

/// A packet to a virtual address behind which nothing is: its sender is told at once, as by a host
/// where nobody listens.
fn nothing_here(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    is_virtual: bool,
    decision: &mut Decision,
) -> Result<Step, DropReason> {
    let Net::Ip(ip) = &decision.headers.net else { return Ok(Step::Route) };
    if !is_virtual {
        return Ok(Step::Route);
    }
    let reason = DropReason::ServiceRefused;
    if arrival.is_remote() {
        return Err(reason);
    }
    decision.verdict = if ip.flow.protocol == Protocol::TCP {
        if !reset::is_due(decision.headers.transport(bytes, ip)) {
            return Err(reason);
        }
        Verdict::Reset { reason }
    } else {
        route::refuse(view.tables, arrival, ip, reason, IcmpError::PortUnreachable)
    };
    Ok(Step::Done)
}

/// An error about a packet of a session: its sender is to know its own packet again.
fn icmp_error(
    view: &View<'_>,
    bytes: &[u8],
    ip: &Ip,
    is_virtual: bool,
    looked_up: &mut Option<Lookup>,
    decision: &mut Decision,
    narrator: &mut impl Narrator,
) -> Result<Step, DropReason> {
    let about = quoted(bytes, ip);
    let tuple = about.as_ref().and_then(|about| tuple_of(&about.flow));
    let (Some(about), Some(tuple)) = (about, tuple) else {
        return if is_virtual { Err(DropReason::ServiceRefused) } else { Ok(Step::Route) };
    };
    // What is quoted went the other way than the error.
    let found = match looked_up.insert(view.sessions.find(&tuple.reversed(), view.tick())) {
        Lookup::Hit(found) => found,
        Lookup::Busy => return Err(DropReason::SessionBusy),
        Lookup::Miss if is_virtual => return Err(DropReason::ServiceRefused),
        Lookup::Miss => return Ok(Step::Route),
    };
    if !found.session.is_translated() {
        return Ok(Step::Route);
    }
    let there = towards(found);
    let addresses = addresses_of(&there).unwrap_or(ip.flow.addresses);
    let flow = ip.flow.translated(with_speaker(&ip.flow.addresses, &addresses, &tuple), None);
    let back = flow_of(&about.flow, &there.reversed());
    narrator.event(|| TraceEvent::Session { direction: found.direction, to: there });
    decision.edits.translation =
        Some(Translation { flow, quoted: Some(QuotedTranslation { quoted: about, flow: back }) });
    Ok(Step::Route)
}

/// The addresses of a translated error: to the end that gets it; from the other end, if that has sent
/// it, and from the router that did otherwise.
fn with_speaker(was: &Addresses, there: &Addresses, quoted: &Tuple) -> Addresses {
    let speaks = |source: IpAddr| source == quoted.destination().address;
    match (*was, *there) {
        (Addresses::V4 { source, .. }, Addresses::V4 { destination, .. })
            if !speaks(source.into()) =>
        {
            Addresses::V4 { source, destination }
        }
        (Addresses::V6 { source, .. }, Addresses::V6 { destination, .. })
            if !speaks(source.into()) =>
        {
            Addresses::V6 { source, destination }
        }
        _ => *there,
    }
}

/// A fragment without ports goes where the first of its packet went.
fn later_fragment(
    view: &View<'_>,
    ip: &Ip,
    is_virtual: bool,
    decision: &mut Decision,
) -> Result<Step, DropReason> {
    match view.fragments.find(&ip.flow, view.now) {
        // Of a packet that is not translated.
        Some(addresses) if addresses == ip.flow.addresses => Ok(Step::Route),
        Some(addresses) => {
            let flow = ip.flow.translated(addresses, None);
            decision.edits.translation = Some(Translation { flow, quoted: None });
            Ok(Step::Route)
        }
        None if is_virtual => Err(DropReason::FragmentEarly),
        None => Ok(Step::Route),
    }
}

/// Proposes the translation of a packet of a session.
fn translate(ip: &Ip, found: &Found, decision: &mut Decision, narrator: &mut impl Narrator) {
    if !found.session.is_translated() {
        return;
    }
    let to = towards(found);
    narrator.event(|| TraceEvent::Session { direction: found.direction, to });
    decision.edits.translation = Some(Translation { flow: flow_of(&ip.flow, &to), quoted: None });
}

/// The tuple that a packet of a session leaves with.
fn towards(found: &Found) -> Tuple {
    match found.direction {
        Direction::FromOpener => found.session.server_side,
        Direction::FromResponder => found.session.client_side.reversed(),
    }
}

pub(super) fn service_of<'t>(view: &View<'t>, tuple: &Tuple) -> Option<&'t Service> {
    service_at(view.tables, tuple)
}

/// The service that a tuple is addressed to.
pub(crate) fn service_at<'t>(tables: &'t Tables, tuple: &Tuple) -> Option<&'t Service> {
    let Endpoint { address, port } = tuple.destination();
    tables.services.get(&VirtualPort { address, protocol: tuple.protocol(), port })
}

/// The tuple of a packet with ports, or of an echo.
pub(super) fn tuple_of(flow: &FlowKey) -> Option<Tuple> {
    let (source, destination) = (flow.source(), flow.destination());
    if let Some(ports) = flow.ports() {
        let source = Endpoint { address: source, port: ports.source() };
        let destination = Endpoint { address: destination, port: ports.destination() };
        return Tuple::new(ZONE, flow.protocol, source, destination);
    }
    Tuple::echo(ZONE, flow.protocol, source, destination, flow.icmp()?.echo_id?)
}

/// The flow of a packet with a tuple's endpoints.
fn flow_of(flow: &FlowKey, to: &Tuple) -> FlowKey {
    let ports = Ports::new(to.source().port, to.destination().port);
    flow.translated(addresses_of(to).unwrap_or(flow.addresses), Some(ports))
}

/// `None` for two IP versions, which no tuple has.
fn addresses_of(tuple: &Tuple) -> Option<Addresses> {
    match (tuple.source().address, tuple.destination().address) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Some(Addresses::V4 { source, destination })
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Some(Addresses::V6 { source, destination })
        }
        _ => None,
    }
}

/// Whether the packet is an ICMP error.
pub(super) fn is_error(flow: &FlowKey) -> bool {
    use crate::wire::{icmpv4, icmpv6};
    flow.icmp().is_some_and(|icmp| match flow.protocol {
        Protocol::ICMP => icmpv4::is_error(icmp.kind),
        _ => icmpv6::is_error(icmp.kind),
    })
}

/// None of what is not TCP.
pub(super) fn tcp_flags(headers: &super::parse::Headers, bytes: &[u8], ip: &Ip) -> TcpFlags {
    match ip.flow.protocol {
        Protocol::TCP => {
            Tcp::parse(headers.transport(bytes, ip)).map_or(TcpFlags(0), |tcp| tcp.flags())
        }
        _ => TcpFlags(0),
    }
}
