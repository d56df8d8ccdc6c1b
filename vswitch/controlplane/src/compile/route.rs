//! A route, as far as tables are made of it: a prefix, where it leads, and its origin.
//!
//! Made by `candidates`; `rib` selects among them, `adjacency` has them forward and `show fib` shows
//! them.

use std::net::IpAddr;

use api::{AttachmentId, Mac, PeerSpec, Source};
use ipnet::IpNet;

use super::PodPort;
use crate::model::Lease;

/// Where a route leads.
#[derive(Debug, Clone)]
pub enum Target<'a> {
    /// A pod of this node.
    Pod {
        /// The attachment of the pod.
        attachment: &'a AttachmentId,
        /// What it holds.
        lease: &'a Lease,
        /// Its port.
        port: &'a PodPort,
    },
    /// An address of this node's gateway.
    Gateway,
    /// The node's kernel.
    Host,
    /// Another node.
    Peer(&'a PeerSpec),
    /// A router or node on the uplink's own link, as it is.
    Direct(IpAddr),
    /// One of several exits, by weight.
    Several(Vec<(Exit<'a>, u16)>),
    /// A host of a bridge domain.
    Neighbor {
        /// The domain.
        bridge: &'a str,
        /// Its MAC.
        mac: Mac,
    },
    /// A service's backends, whichever a flow is given to.
    Service,
    /// Dropped.
    Blackhole,
    /// Dropped, and the sender gets an ICMP error.
    Unreachable,
}

/// One of a route's ways out by the uplink.
#[derive(Debug, Clone, Copy)]
pub enum Exit<'a> {
    /// To another node.
    Peer(&'a PeerSpec),
    /// To a router or node on the uplink's own link, as it is.
    Direct(IpAddr),
}

impl<'a> Exit<'a> {
    /// The exit as the target of a route that has no other.
    #[must_use]
    pub fn target(&self) -> Target<'a> {
        match self {
            Self::Peer(peer) => Target::Peer(peer),
            Self::Direct(gateway) => Target::Direct(*gateway),
        }
    }

    /// The underlay address, or the neighbour's.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Peer(peer) => peer.address,
            Self::Direct(gateway) => *gateway,
        }
    }
}

/// One route.
#[derive(Debug, Clone)]
pub struct RibRoute<'a> {
    /// Destination.
    pub prefix: IpNet,
    /// Where it leads.
    pub target: Target<'a>,
    /// Where it comes from.
    pub origin: RouteOrigin,
}

/// Where a route comes from. For the same prefix the earlier one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteOrigin {
    /// The node's own: gateways.
    Node,
    /// A pod of this node.
    Attachment,
    /// A static neighbour.
    Neighbor,
    /// A virtual address of a service.
    Service,
    /// A route that a source names.
    Route(Source),
    /// A prefix of a peer.
    Peer(Source),
    /// What closes the gaps.
    Gap,
}

impl RouteOrigin {
    /// Name of the origin as it is shown.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Node | Self::Gap => "node",
            Self::Attachment => "attachment",
            Self::Neighbor => "runtime",
            Self::Service => "service",
            Self::Route(source) | Self::Peer(source) => source.label(),
        }
    }

    /// The node first, then the sources in their order, each one's routes before its peers.
    pub(super) fn rank(self) -> (u8, Option<Source>, u8) {
        match self {
            Self::Node => (0, None, 0),
            Self::Attachment => (1, None, 0),
            Self::Neighbor => (2, None, 0),
            Self::Service => (3, None, 0),
            Self::Route(source) => (4, Some(source), 0),
            Self::Peer(source) => (4, Some(source), 1),
            Self::Gap => (5, None, 0),
        }
    }
}
