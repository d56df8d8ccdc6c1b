//! Door 6: whether the policies of this node's pods let a packet pass.
//!
//! Enters: a packet whose end is written, with the endpoints that `session` gave it, and what `session`
//! looked up. Leaves: the same end, or a drop; and what is to change in the session table, as a proposal.
//!
//! A connection is judged once, when its first packet comes: by the egress rules of the pod that opens it,
//! if that is here, and by the ingress rules of its target, if that is here. Both must allow it. The session
//! that it gets lets all later packets and all answers pass, until policies change. It is judged by what
//! the two ends really are: the backend behind a service, the client in front of it.
//!
//! | packet | is |
//! |---|---|
//! | of a session, judged by the present policies | allowed, or dropped as they revoked it |
//! | of a session, judged by former ones | judged anew, as the session's opener began it |
//! | that opens a connection | judged, and gets a session |
//! | of TCP in the middle of a connection, without session | judged as its opener began it ([`possible_openers`]) |
//! | an ICMP error about a packet of a session | allowed |
//! | a later fragment | allowed if the first of its packet was |
//! | from this node itself to a pod (`is_exempt`) | allowed |
//! | from a pod to its own address, by no service | allowed: it never has to leave the pod |
//! | ARP, neighbour discovery; on a segment DHCP | allowed |
//! | neither IP nor ARP, as from another end of a segment | dropped from and to a pod that is judged in that direction |
//! | flooded on a segment | dropped if its sender's egress is judged; else no copy for pods whose ingress is |
//!
//! Most packets have nothing to do here ([`concerns`]).
//!
//! | file | holds |
//! |---|---|
//! | `judge` | both ends of a connection, and what their policies say |
//! | `link`  | packets that keep a link going |

mod judge;
mod link;

use super::arrival::Arrival;
use super::flow::FlowKey;
use super::fragments::FirstFragment;
use super::narrator::{Narrator, PolicyEvent, SessionStanding, TraceEvent};
use super::parse::{Headers, Ip, Net};
use super::quoted::quoted;
use super::session::{ZONE, is_error, tcp_flags, tuple_of};
use super::{Decision, Effects, View};
use crate::session::{
    self, Endpoint, Found, Lookup, PolicyStamp, Session, SessionEffect, State, Touch, Tuple,
    is_opening,
};
use crate::tables::policy::Direction;
use crate::tables::{PortId, PortRole, Tables};
use crate::verdict::{Answer, DropReason, Verdict};
use crate::wire::{Protocol, TcpFlags, icmpv4, icmpv6};
pub(crate) use judge::Judged;
use judge::{Connection, Passage, judge};
use link::{asks_for_address, is_dhcp_answer, is_of_link};

/// Ports from here on are given to clients by Linux (`net.ipv4.ip_local_port_range`).
const FIRST_CLIENT_PORT: u16 = 32_768;

/// Why a packet is dropped, and what that changes in its session.
struct Denial {
    reason: DropReason,
    revokes: Option<Touch>,
}

impl From<DropReason> for Denial {
    fn from(reason: DropReason) -> Self {
        Self { reason, revokes: None }
    }
}

/// Whether policies concern a packet that came by this port and meets this end.
#[inline(always)]
pub(crate) fn concerns(tables: &Tables, ingress: PortId, verdict: &Verdict) -> bool {
    let policies = &tables.policies;
    if policies.is_empty() {
        return false;
    }
    match *verdict {
        Verdict::Route { port, .. } | Verdict::Forward { port } => {
            policies.concern(ingress) || policies.concern(port)
        }
        Verdict::Tunnel { .. } | Verdict::Answer(Answer::Echo4 | Answer::Echo6) => {
            policies.concern(ingress)
        }
        Verdict::Flood { .. } => true,
        // What is answered on the link, and the switch's own errors.
        Verdict::Answer(_) | Verdict::Refuse { .. } | Verdict::Reset { .. } | Verdict::Drop(_) => {
            false
        }
    }
}

/// Judges a packet that policies concern, and completes the effects of one that passes. `looked_up` is
/// what `session` found.
#[inline(never)]
pub(crate) fn policy(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    looked_up: &mut Option<Lookup>,
    decision: &mut Decision,
    narrator: &mut impl Narrator,
) -> Result<(), DropReason> {
    let judged = match decision.verdict {
        Verdict::Flood { .. } => flood(view, arrival, decision),
        _ => packet(view, arrival, bytes, looked_up, decision, narrator),
    };
    judged.map_err(|Denial { reason, revokes }| {
        decision.effects.begin_none();
        if let Some(touch) = revokes {
            decision.effects.session = Some(SessionEffect::Touch(touch));
        }
        reason
    })
}

fn packet(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    looked_up: &mut Option<Lookup>,
    decision: &mut Decision,
    narrator: &mut impl Narrator,
) -> Result<(), Denial> {
    let Decision { headers, verdict, edits, effects } = decision;
    let (egress, is_routed) = match *verdict {
        Verdict::Route { port, .. } => (Some(port), true),
        Verdict::Forward { port } => (Some(port), false),
        Verdict::Answer(_) => (None, true),
        _ => (None, false),
    };
    let passage = Passage { ingress: arrival.ingress, egress };
    let Net::Ip(ip) = &headers.net else { return without_addresses(view, headers, passage) };
    let is_to_itself = egress == Some(arrival.ingress) && edits.translation.is_none();
    if is_of_link(headers) || is_to_itself || !is_routed && is_dhcp_answer(&ip.flow) {
        return Ok(());
    }
    if ip.flow.is_later_fragment() {
        return match view.fragments.find(&ip.flow, view.now) {
            Some(_) => Ok(()),
            None => Err(DropReason::FragmentEarly.into()),
        };
    }
    let tuple = session_tuple(&ip.flow)?;
    let alone = |effects: &mut Effects, narrator: &mut _| {
        let connection = passage.opened_by_sender(&tuple, &tuple);
        judge(view, &connection, &mut effects.judged, narrator).map(|_| ())
    };
    let flags = tcp_flags(headers, bytes, ip);
    if matches!(verdict, Verdict::Answer(_)) {
        alone(effects, narrator)?;
    } else if is_error(&ip.flow) {
        if is_related(view, bytes, ip, looked_up)? {
            narrator.event(|| TraceEvent::Policy(PolicyEvent::Related));
        } else {
            alone(effects, narrator)?;
        }
    } else if let Some(SessionEffect::Create(session)) = &mut effects.session {
        // To a service.
        let connection = passage.opened_by_sender(&session.client_side, &session.server_side);
        session.policy = judge(view, &connection, &mut effects.judged, narrator)?;
    } else {
        match looked_up.get_or_insert_with(|| view.sessions.find(&tuple, view.tick())) {
            Lookup::Busy => return Err(DropReason::SessionBusy.into()),
            Lookup::Hit(found) if found.is_reopened_by(flags) => {
                begin(view, tuple, passage, flags, effects, narrator)?;
            }
            Lookup::Hit(found) if opens_another(&ip.flow, flags, found) => {
                alone(effects, narrator)?
            }
            Lookup::Hit(found) => of_session(view, found, passage, flags, effects, narrator)?,
            Lookup::Miss => begin(view, tuple, passage, flags, effects, narrator)?,
        }
    }
    if edits.translation.is_none() {
        effects.first_fragment = FirstFragment::of(&ip.flow, &ip.flow);
    }
    Ok(())
}

/// A packet of a session.
fn of_session(
    view: &View<'_>,
    found: &Found,
    passage: Passage,
    flags: TcpFlags,
    effects: &mut Effects,
    narrator: &mut impl Narrator,
) -> Result<(), Denial> {
    let session = &found.session;
    let generation = view.tables.policies.generation();
    let standing = match session.policy {
        policy if policy.generation != generation => SessionStanding::Stale,
        policy if policy.is_revoked => SessionStanding::Revoked,
        _ => SessionStanding::Current,
    };
    narrator.event(|| {
        TraceEvent::Policy(PolicyEvent::OfSession { direction: found.direction, standing })
    });
    match standing {
        SessionStanding::Current => {
            if effects.session.is_none() {
                effects.session = found.touch(flags, view.tick()).map(SessionEffect::Touch);
            }
            return Ok(());
        }
        SessionStanding::Revoked => return Err(DropReason::PolicyRevoked.into()),
        SessionStanding::Stale => {}
    }
    let (client_side, server_side) = (&session.client_side, &session.server_side);
    let connection = match found.direction {
        session::Direction::FromOpener => passage.opened_by_sender(client_side, server_side),
        session::Direction::FromResponder => passage.opened_by_receiver(client_side, server_side),
    };
    let touch = match effects.session {
        Some(SessionEffect::Touch(touch)) => touch,
        _ => found.touched(flags),
    };
    match judge(view, &connection, &mut effects.judged, narrator) {
        Ok(stamp) => {
            effects.session = Some(SessionEffect::Touch(touch.with_policy(stamp)));
            Ok(())
        }
        // Once they are known it may be allowed still.
        Err(DropReason::PolicyPending) => Err(DropReason::PolicyPending.into()),
        Err(_) => {
            let stamp = PolicyStamp { generation, is_revoked: true, ..session.policy };
            let revokes = Some(touch.with_policy(stamp));
            Err(Denial { reason: DropReason::PolicyRevoked, revokes })
        }
    }
}

/// A packet without a session.
fn begin(
    view: &View<'_>,
    tuple: Tuple,
    passage: Passage,
    flags: TcpFlags,
    effects: &mut Effects,
    narrator: &mut impl Narrator,
) -> Result<(), Denial> {
    let (first, other) = possible_openers(view, &tuple, flags);
    let mut begun = Begun::by(first, tuple, passage);
    let judged = &mut effects.judged;
    let policy = match (begun.judge(view, judged, narrator), other) {
        (Err(reason), Some(other)) => {
            begun = Begun::by(other, tuple, passage);
            begun.judge(view, judged, narrator).map_err(|_| reason)?
        }
        (judged, _) => judged?,
    };
    if tuple.protocol() == Protocol::TCP && flags.0 & TcpFlags::RST.0 != 0 {
        // The end of a connection that is not known begins none.
        return Ok(());
    }
    let now = view.tick();
    let is_pod =
        |port: &PortId| view.tables.port(*port).is_some_and(|port| port.kind == PortRole::Pod);
    let Connection { opener, target, .. } = begun.connection;
    let charged = passage.egress.filter(|_| !is_pod(&passage.ingress)).unwrap_or(passage.ingress);
    effects.begin(Session {
        client_side: begun.tuple,
        server_side: begun.tuple,
        state: State::joined(tuple.protocol(), begun.direction, flags, now),
        policy,
        charged,
        created: now,
        service: 0,
        service_generation: 0,
        local_in: opener.filter(is_pod),
        local_out: target.filter(is_pod),
        through_tunnel: false,
    });
    Ok(())
}

/// A connection that a packet begins, or belongs to if it is from its middle.
struct Begun {
    connection: Connection,
    /// From its opener.
    tuple: Tuple,
    /// The packet's.
    direction: session::Direction,
}

impl Begun {
    fn by(direction: session::Direction, packet: Tuple, passage: Passage) -> Self {
        match direction {
            session::Direction::FromOpener => {
                let connection = passage.opened_by_sender(&packet, &packet);
                Self { connection, tuple: packet, direction }
            }
            session::Direction::FromResponder => {
                let tuple = packet.reversed();
                Self { connection: passage.opened_by_receiver(&tuple, &tuple), tuple, direction }
            }
        }
    }

    fn judge(
        &self,
        view: &View<'_>,
        judged: &mut Judged,
        narrator: &mut impl Narrator,
    ) -> Result<PolicyStamp, DropReason> {
        if self.direction == session::Direction::FromResponder {
            narrator.event(|| TraceEvent::Policy(PolicyEvent::MaybeAnswer));
        }
        judge(view, &self.connection, judged, narrator)
    }
}

/// Which end may have opened the connection of a packet without session, as the packet's direction in it:
/// the first one to be tried, and another.
///
/// A SYN, and a datagram, open one; so does a first fragment that ends before the flags (RFC 1858), as far
/// as anybody can tell. A TCP segment with ACK, or a reset, is from the middle of a connection that began
/// before policies concerned its ends. The end with a client's port opened it, if the other has none; else either
/// may have. While the table is young the connection may be one that was lost with the former table: what
/// either end may open goes on, and the same holds for datagrams.
fn possible_openers(
    view: &View<'_>,
    tuple: &Tuple,
    flags: TcpFlags,
) -> (session::Direction, Option<session::Direction>) {
    use session::Direction::{FromOpener, FromResponder};
    let is_tcp = tuple.protocol() == Protocol::TCP;
    if is_tcp && flags.0 & (TcpFlags::ACK.0 | TcpFlags::RST.0) == 0 {
        (FromOpener, None)
    } else if view.sessions.is_young(tuple.is_v6(), view.tick()) {
        (FromOpener, Some(FromResponder))
    } else if is_tcp {
        let is_clients = |end: Endpoint| end.port >= FIRST_CLIENT_PORT;
        match (is_clients(tuple.source()), is_clients(tuple.destination())) {
            (true, false) => (FromOpener, None),
            (false, true) => (FromResponder, None),
            _ => (FromOpener, Some(FromResponder)),
        }
    } else {
        (FromOpener, None)
    }
}

/// Whether an ICMP error is about a packet of a session, and goes to the end that sent it.
fn is_related(
    view: &View<'_>,
    bytes: &[u8],
    error: &Ip,
    looked_up: &mut Option<Lookup>,
) -> Result<bool, DropReason> {
    let Some(about) = quoted(bytes, error) else { return Ok(false) };
    if about.flow.is_later_fragment() || about.flow.source() != error.flow.destination() {
        return Ok(false);
    }
    let tuple = session_tuple(&about.flow)?.reversed();
    match looked_up.get_or_insert_with(|| view.sessions.find(&tuple, view.tick())) {
        Lookup::Hit(found) => Ok(!found.session.policy.is_revoked),
        Lookup::Miss => Ok(false),
        Lookup::Busy => Err(DropReason::SessionBusy),
    }
}

/// Whether a packet of a session's other end is no answer: a SYN, or a ping by the same identifier. By its
/// answers a session would let in whatever that end begins; and an end that nobody has spoken to may have made
/// the session itself, by a segment that looks like an answer ([`possible_openers`]).
fn opens_another(flow: &FlowKey, flags: TcpFlags, found: &Found) -> bool {
    let is_ping = |kind| match flow.protocol {
        Protocol::ICMP => kind == icmpv4::ECHO_REQUEST,
        _ => kind == icmpv6::ECHO_REQUEST,
    };
    found.direction == session::Direction::FromResponder
        && (is_opening(flow.protocol, flags) || flow.icmp().is_some_and(|icmp| is_ping(icmp.kind)))
}

/// The tuple of any packet with a transport header. That of a protocol without ports, and of ICMP but
/// echo, has zero for both: between two addresses it has one session, by which answers come back.
fn session_tuple(flow: &FlowKey) -> Result<Tuple, DropReason> {
    let end = |address| Endpoint { address, port: 0 };
    let without_ports =
        || Tuple::new(ZONE, flow.protocol, end(flow.source()), end(flow.destination()));
    // An IP packet's addresses are of one version.
    tuple_of(flow).or_else(without_ports).ok_or(DropReason::PolicyDenied)
}

/// A frame in which there is nothing that policies could name.
fn without_addresses(view: &View<'_>, headers: &Headers, passage: Passage) -> Result<(), Denial> {
    let policies = &view.tables.policies;
    let judged = policies.concern_direction(passage.ingress, Direction::Egress)
        || passage.egress.is_some_and(|to| policies.concern_direction(to, Direction::Ingress));
    if judged && !matches!(headers.net, Net::Arp) {
        return Err(DropReason::PolicyDenied.into());
    }
    Ok(())
}

/// A frame to all members of a segment: it opens no connection with any of them.
fn flood(view: &View<'_>, arrival: &Arrival<'_>, decision: &mut Decision) -> Result<(), Denial> {
    let flow = match &decision.headers.net {
        _ if is_of_link(&decision.headers) => return Ok(()),
        Net::Ip(ip) if is_dhcp_answer(&ip.flow) => return Ok(()),
        Net::Ip(ip) => Some(&ip.flow),
        _ => None,
    };
    let is_judged = view.tables.policies.concern_direction(arrival.ingress, Direction::Egress);
    if is_judged && !flow.is_some_and(asks_for_address) {
        return Err(DropReason::PolicyFlood.into());
    }
    decision.edits.spares_judged = true;
    Ok(())
}
