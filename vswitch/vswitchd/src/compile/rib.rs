//! Which route wins for each prefix.
//!
//! Enters: the same input as `compile`. Leaves: one route a prefix, to `compile` and to `show fib`.
//! Longer prefixes win in the FIB; for the same prefix the order here decides: the node's own
//! pods and gateways, then the sources in the order of `api::Source`, each one's routes before the
//! prefixes of its peers, and last what closes the gaps: an address of the cluster that nobody has
//! is answered as unreachable and never leaves for the host, whose kernel would send it back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::{AttachmentId, Mac, PeerSpec, Source};
use ipnet::IpNet;

use super::candidates::{Among, candidates};
use super::{Input, PodPort};
use crate::model::Lease;

/// Where a route leads.
#[derive(Debug, Clone)]
pub enum Target<'a> {
    /// A pod of this node.
    Pod {
        /// Whose.
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
    /// One of several, by weight.
    Several(Vec<(Exit<'a>, u16)>),
    /// A host of a bridge domain.
    Neighbor {
        /// The domain.
        bridge: &'a str,
        /// Its MAC.
        mac: Mac,
    },
    /// Dropped.
    Blackhole,
    /// Dropped, and the sender told.
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
    /// As the target of a route that has no other.
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
pub struct Route<'a> {
    /// Destination.
    pub prefix: IpNet,
    /// Where it leads.
    pub target: Target<'a>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a route comes from. For the same prefix the earlier one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The node's own: gateways.
    Node,
    /// A pod of this node.
    Attachment,
    /// A static neighbour.
    Neighbor,
    /// A route that a source names.
    Route(Source),
    /// A prefix of a peer.
    Peer(Source),
    /// What closes the gaps.
    Gap,
}

impl Origin {
    /// As it is shown.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Node | Self::Gap => "node",
            Self::Attachment => "attachment",
            Self::Neighbor => "runtime",
            Self::Route(source) | Self::Peer(source) => source.label(),
        }
    }

    /// The node first, then the sources in their order, each one's routes before its peers.
    fn rank(self) -> (u8, Option<Source>, u8) {
        match self {
            Self::Node => (0, None, 0),
            Self::Attachment => (1, None, 0),
            Self::Neighbor => (2, None, 0),
            Self::Route(source) => (3, Some(source), 0),
            Self::Peer(source) => (3, Some(source), 1),
            Self::Gap => (4, None, 0),
        }
    }
}

/// Every route that is to be had.
#[derive(Debug)]
pub struct Rib<'a> {
    /// Those that forward, by prefix; one a prefix.
    pub routes: Vec<Route<'a>>,
    /// Those that do not, and who has their prefix.
    pub hidden: Vec<(Route<'a>, Origin)>,
}

/// What wins for each prefix, and what does not.
#[must_use]
pub fn routes<'a>(input: &Input<'a>) -> Rib<'a> {
    select(candidates(input, Among::All))
}

/// What wins for these prefixes; nothing for those that nobody has a route for.
#[must_use]
pub fn routes_for<'a>(input: &Input<'a>, prefixes: &BTreeSet<IpNet>) -> Vec<Route<'a>> {
    select(candidates(input, Among::These(prefixes))).routes
}

fn select(mut candidates: Vec<Route<'_>>) -> Rib<'_> {
    // By family, address and length, as numbers: a hundred thousand are sorted here.
    candidates.sort_by_cached_key(|route| (sort_key(&route.prefix), route.origin.rank()));
    let mut rib = Rib { routes: Vec::with_capacity(candidates.len()), hidden: Vec::new() };
    for route in candidates {
        match rib.routes.last() {
            Some(winner) if winner.prefix == route.prefix => {
                rib.hidden.push((route, winner.origin));
            }
            _ => rib.routes.push(route),
        }
    }
    rib
}

fn sort_key(prefix: &IpNet) -> (bool, u128, u8) {
    match prefix {
        IpNet::V4(net) => (false, net.network().to_bits().into(), net.prefix_len()),
        IpNet::V6(net) => (true, net.network().to_bits(), net.prefix_len()),
    }
}
