//! What the doors report of a walk.
//!
//! Enters: from every door, what it found. Leaves: [`TraceEvent`]s, to a [`Narrator`]. `trace` has
//! one that keeps them; forwarding has [`Silent`], which costs nothing: an event is a closure that
//! is never called. There are no sentences in here: the program that shows a walk makes them.

use core::net::IpAddr;

use super::path_mtu::PathMtu;
use crate::session::{Direction, Endpoint, Tuple};
use crate::tables::policy::{self, DirectionPolicy, RuleNumber};
use crate::tables::{Adjacency, BridgeId, Policies, PortId, VirtualPort};
use crate::verdict::{DropReason, Verdict};
use crate::wire::{MacAddr, Protocol};

/// What one door of the walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceEvent {
    /// `decap`: a router of the underlay reported how large a tunnel's packets may be.
    PathMtu(PathMtu),
    /// `decap`: how the packet came over the underlay.
    Decapsulated(Decapsulation),
    /// `parse`: what the packet is that is forwarded.
    Parsed {
        /// Source and destination of its Ethernet header, if it has one.
        macs: Option<(MacAddr, MacAddr)>,
        /// What follows.
        network: Network,
    },
    /// `bridge`: whether the packet stays on its segment.
    Bridged {
        /// The segment; a port that only routes has none.
        segment: Option<BridgeId>,
        /// How the walk goes on.
        next: AfterBridge,
    },
    /// `session`: a flow to a service begins, and is given to this backend.
    Balanced {
        /// What it is addressed to.
        service: VirtualPort,
        /// Where it goes.
        backend: Endpoint,
        /// Its client had this backend before, and keeps it.
        is_affine: bool,
    },
    /// `session`: the packet belongs to a translated session.
    Session {
        /// From which end it comes.
        direction: Direction,
        /// The endpoints that it leaves with.
        to: Tuple,
    },
    /// `session`: an answer of a connection that this node opened, by its underlay address, through its tunnel.
    ThroughTunnel(IpAddr),
    /// `policy`: what it found.
    Policy(PolicyEvent),
    /// `route`: there is no route to this destination.
    NoRoute(IpAddr),
    /// `route`: where the longest prefix leads.
    Route(Adjacency),
    /// `route`: which of several next hops has the packet's flow.
    Member {
        /// Its address.
        next_hop: IpAddr,
        /// Where it leads.
        adjacency: Adjacency,
    },
    /// `route`: the packet is larger than this MTU, in bytes, and is cut.
    Fragments {
        /// The next hop's MTU.
        mtu: u16,
    },
    /// `route`: a SYN announces larger segments than the way takes, and is edited.
    MssLimit {
        /// Payload of a segment.
        bytes: u16,
    },
    /// The end of the walk.
    Verdict(Verdict),
    /// `rewrite`: a packet leaves.
    Leaves {
        /// The port.
        port: PortId,
        /// Its length with all headers, in bytes.
        len: usize,
    },
}

/// What the door `policy` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyEvent {
    /// The packet belongs to a session.
    OfSession {
        /// From which end it comes.
        direction: Direction,
        /// What policies made of the session.
        standing: SessionStanding,
    },
    /// A packet without session is judged as if its receiver had opened the connection.
    MaybeAnswer,
    /// An ICMP error about a packet of a session.
    Related,
    /// The connection is this node's own, by its opener's address.
    Exempt {
        /// The address.
        source: IpAddr,
    },
    /// The connection of a pod was judged.
    Judged {
        /// The pod's port.
        subject: PortId,
        /// As the pod sees the connection's first packet.
        direction: policy::Direction,
        /// Whether it may be.
        allowed: bool,
        /// What decided.
        by: DecidedBy,
    },
}

/// What policies made of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStanding {
    /// The present ones allow it.
    Current,
    /// Former ones judged it, or none did yet: it is judged anew.
    Stale,
    /// The present ones do not allow it.
    Revoked,
}

/// What decided about a pod's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecidedBy {
    /// No policy concerns the pod in this direction.
    NoPolicy,
    /// This rule.
    Rule {
        /// Namespace and name of its policy.
        policy: String,
        /// Its index there.
        index: u32,
    },
    /// No rule of these policies matches: the default.
    Default {
        /// Namespace and name of each.
        policies: Vec<String>,
    },
    /// The policies are not known yet.
    Pending,
    /// The policies cannot be compiled.
    Closed,
}

impl DecidedBy {
    /// What decided about a connection of a subject, by the rule of the judgement.
    #[must_use]
    pub fn of(
        policies: &Policies,
        subject: PortId,
        direction: policy::Direction,
        rule: RuleNumber,
    ) -> Self {
        match policies.of(subject, direction) {
            DirectionPolicy::Open => Self::NoPolicy,
            DirectionPolicy::Pending => Self::Pending,
            DirectionPolicy::Closed => Self::Closed,
            DirectionPolicy::Rules(table) => match table.rule(rule) {
                Some(name) => Self::Rule { policy: name.policy.to_owned(), index: name.index },
                None => Self::Default { policies: table.policies().map(str::to_owned).collect() },
            },
        }
    }
}

/// How a packet came over the underlay. Addresses are those of the sending node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decapsulation {
    /// No encapsulation.
    Direct,
    /// IPIP, from this peer.
    Ipip(IpAddr),
    /// VXLAN, from this peer, on the routed overlay.
    Vxlan(IpAddr),
    /// VXLAN, from the VTEP with this address, on a stretched segment.
    Vtep(IpAddr, BridgeId),
}

/// The network layer of a parsed packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// IPv4 or IPv6.
    Ip {
        /// Source address.
        source: IpAddr,
        /// Destination address.
        destination: IpAddr,
        /// The transport protocol.
        protocol: Protocol,
        /// Length of the IP packet, in bytes.
        len: usize,
        /// TTL or hop limit.
        ttl: u8,
    },
    /// ARP.
    Arp,
    /// Another protocol.
    Other,
    /// IP, but broken.
    Malformed(DropReason),
}

/// How the walk goes on behind `bridge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterBridge {
    /// The packet is for the gateway, and goes on to `route`.
    Route,
    /// It is switched or answered on its segment.
    Stays,
    /// It is dropped.
    Dropped,
}

/// Takes what the doors report.
pub(crate) trait Narrator {
    fn event(&mut self, event: impl FnOnce() -> TraceEvent);
}

/// Forwarding: no event is even made.
pub(crate) struct Silent;

impl Narrator for Silent {
    #[inline]
    fn event(&mut self, _: impl FnOnce() -> TraceEvent) {}
}
