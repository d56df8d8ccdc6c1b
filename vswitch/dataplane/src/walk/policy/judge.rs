//! Whether the policies of both ends allow a connection.
//!
//! Enters: a connection's ends and the ports by which its packets pass, from `policy` and nobody else.
//! Leaves: what its session is stamped with, or the reason for a drop. Tables say what the policies are
//! (`tables::policy`); which ends they are asked about is said here.

use core::net::IpAddr;

use crate::session::{Endpoint, PolicyStamp, Tuple};
use crate::tables::policy::{Direction, DirectionPolicy, Judgement, RuleNumber};
use crate::tables::{PortId, PortRole, Tables};
use crate::verdict::DropReason;
use crate::walk::View;
use crate::walk::narrator::{DecidedBy, Narrator, PolicyEvent, TraceEvent};
use crate::wire::Protocol;

/// What the policies of both ends said of a packet's connection; of an end that has none, nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Judged {
    /// Those of the end that opens it: whether they allow it.
    pub(crate) egress: Option<bool>,
    /// Those of the other end.
    pub(crate) ingress: Option<bool>,
}

impl Judged {
    /// No policy said anything.
    pub(crate) const NOT: Self = Self { egress: None, ingress: None };
}

/// The ports by which a packet comes and leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passage {
    pub(super) ingress: PortId,
    /// `None` if it leaves by none that could be a pod's.
    pub(super) egress: Option<PortId>,
}

/// A connection as policies see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connection {
    /// The port of the end that opens it; `None` if that is not here.
    pub(super) opener: Option<PortId>,
    /// The port of the other end; likewise.
    pub(super) target: Option<PortId>,
    /// The opener's own address.
    pub(super) client: IpAddr,
    /// The end that really answers. Its port is zero if the protocol has none.
    pub(super) server: Endpoint,
    pub(super) protocol: Protocol,
}

impl Passage {
    pub(super) fn opened_by_sender(self, client_side: &Tuple, server_side: &Tuple) -> Connection {
        Connection::of(client_side, server_side, Some(self.ingress), self.egress)
    }

    pub(super) fn opened_by_receiver(self, client_side: &Tuple, server_side: &Tuple) -> Connection {
        Connection::of(client_side, server_side, self.egress, Some(self.ingress))
    }
}

impl Connection {
    fn of(
        client_side: &Tuple,
        server_side: &Tuple,
        opener: Option<PortId>,
        target: Option<PortId>,
    ) -> Self {
        Self {
            opener,
            target,
            client: client_side.source().address,
            server: server_side.destination(),
            protocol: server_side.protocol(),
        }
    }
}

/// Judges a connection by the policies of both ends, as far as they are here, and notes what they said.
pub(super) fn judge(
    view: &View<'_>,
    connection: &Connection,
    judged: &mut Judged,
    narrator: &mut impl Narrator,
) -> Result<PolicyStamp, DropReason> {
    let Connection { opener, target, client, server, protocol } = *connection;
    *judged = Judged::NOT;
    let mut stamp = PolicyStamp {
        generation: view.tables.policies.generation(),
        rule_in: RuleNumber::NONE.0,
        rule_out: RuleNumber::NONE.0,
        is_revoked: false,
    };
    if let Some(opener) = opener {
        if is_exempt(view.tables, opener, client) {
            narrator.event(|| TraceEvent::Policy(PolicyEvent::Exempt { source: client }));
            return Ok(stamp);
        }
        let peer = Peer { address: server.address, protocol, port: server.port };
        stamp.rule_out =
            judge_subject(view, opener, Direction::Egress, &peer, &mut judged.egress, narrator)?;
    }
    if let Some(target) = target {
        let peer = Peer { address: client, protocol, port: server.port };
        stamp.rule_in =
            judge_subject(view, target, Direction::Ingress, &peer, &mut judged.ingress, narrator)?;
    }
    Ok(stamp)
}

/// Whether a connection is this node's own, by the port of the end that opens it and that end's address:
/// its agents, such as the kubelet's probes, reach every pod of the node whatever its policies say.
///
/// By the host port comes what the node's kernel routes. Of that only packets from an address of the node
/// are its own. From its masquerade address come others' packets, whose sender is not known any more, and
/// from any other address theirs that it forwards. A pod cannot pass for the node: it comes by its own port.
fn is_exempt(tables: &Tables, opener: PortId, client: IpAddr) -> bool {
    let is_host = tables.port(opener).is_some_and(|port| port.kind == PortRole::Host);
    is_host && tables.is_of_node(client)
}

/// The other end of a subject's connection, and the connection's destination port.
struct Peer {
    address: IpAddr,
    protocol: Protocol,
    /// Zero if there is none.
    port: u16,
}

/// The rule that allows a pod's connection. A port that is no pod's has no policies.
fn judge_subject(
    view: &View<'_>,
    subject: PortId,
    direction: Direction,
    peer: &Peer,
    judged: &mut Option<bool>,
    narrator: &mut impl Narrator,
) -> Result<u16, DropReason> {
    let policies = &view.tables.policies;
    let has_ports = matches!(peer.protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP);
    let port = Some(peer.port).filter(|port| has_ports && *port != 0);
    let judgement = policies.judge(subject, direction, peer.address, peer.protocol, port);
    let Judgement { allowed, rule } = judgement;
    if view.tables.port(subject).is_some_and(|port| port.kind == PortRole::Pod) {
        narrator.event(|| {
            let by = DecidedBy::of(policies, subject, direction, rule);
            TraceEvent::Policy(PolicyEvent::Judged { subject, direction, allowed, by })
        });
    }
    let policy = policies.of(subject, direction);
    *judged = (!matches!(policy, DirectionPolicy::Open)).then_some(allowed);
    match policy {
        _ if allowed => Ok(rule.0),
        DirectionPolicy::Pending => Err(DropReason::PolicyPending),
        _ => Err(DropReason::PolicyDenied),
    }
}
