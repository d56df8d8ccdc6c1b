//! Which route wins for each prefix.
//!
//! Enters: the same input as `compile`. Leaves: one route a prefix, to `compile` and to `show fib`.
//! Longer prefixes win in the FIB; for the same prefix the order here decides: the node's own
//! pods and gateways, then the sources in the order of `api::Source`, each one's routes before the
//! prefixes of its peers, and last what closes the gaps: an address of the cluster that nobody has
//! is answered as unreachable and never leaves for the host, whose kernel would send it back.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use api::{AttachmentId, Encapsulation, Mac, PeerSpec, RouteTarget, Source};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Input, PodPort};
use crate::kernel::Way;
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
    let mut candidates = candidates(input);
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

/// Whatever the model and the node have to say, in any order.
fn candidates<'a>(input: &Input<'a>) -> Vec<Route<'a>> {
    let model = input.model;
    let of_peers = model.peers.values().map(|(peer, _)| peer.prefixes.len()).sum::<usize>();
    let told = model.routes.len() + model.kernel.routes.len();
    let mut routes = Vec::with_capacity(of_peers + told + 2 * input.pods.len() + 16);
    let mut add = |prefix, target, origin| routes.push(Route { prefix, target, origin });
    for gateway in model.pods.gateways() {
        add(gateway.into(), Target::Gateway, Origin::Node);
    }
    for (attachment, port) in input.pods {
        let Some(lease) = model.attachments.get(attachment) else { continue };
        for net in &lease.addresses {
            let target = Target::Pod { attachment, lease, port };
            add(net.addr().into(), target, Origin::Attachment);
        }
    }
    for ((bridge, address), mac) in &model.neighbors {
        add((*address).into(), Target::Neighbor { bridge, mac: *mac }, Origin::Neighbor);
    }
    for (prefix, (target, source)) in model.routes.iter() {
        let target = match target {
            RouteTarget::Peer { name } => match model.peers.get(name) {
                Some((peer, _)) => Target::Peer(peer),
                None => Target::Unreachable,
            },
            RouteTarget::Host => Target::Host,
            RouteTarget::Blackhole => Target::Blackhole,
            RouteTarget::Unreachable => Target::Unreachable,
        };
        add(*prefix, target, Origin::Route(*source));
    }
    for (peer, source) in model.peers.values() {
        for prefix in &peer.prefixes {
            add(*prefix, Target::Peer(peer), Origin::Peer(*source));
        }
    }
    kernel(input, &mut add);
    for (address, target) in reached_directly(input) {
        add(address.into(), target, Origin::Gap);
    }
    for prefix in model.pods.all().chain(&model.cluster_prefixes) {
        add(*prefix, Target::Unreachable, Origin::Gap);
    }
    if input.host.is_some() {
        add(Ipv4Net::default().into(), Target::Host, Origin::Gap);
        add(Ipv6Net::default().into(), Target::Host, Origin::Gap);
    }
    routes
}

/// What the kernel's routing table says. A next hop that is a peer's underlay address is that peer,
/// whoever named it.
fn kernel<'a>(input: &Input<'a>, add: &mut impl FnMut(IpNet, Target<'a>, Origin)) {
    let learned = &input.model.kernel;
    if learned.routes.is_empty() {
        return;
    }
    let peers = input.model.peers.values().map(|(peer, _)| (peer.address, peer));
    let peers: HashMap<IpAddr, &PeerSpec> = peers.collect();
    let exit = |gateway: &IpAddr, overlay: bool| match peers.get(gateway).copied() {
        Some(peer) => Some(Exit::Peer(peer)),
        None if overlay => learned.peers.get(gateway).map(Exit::Peer),
        None => Some(Exit::Direct(*gateway)),
    };
    for (prefix, way) in &learned.routes {
        let target = match way {
            Way::Hops(hops) => {
                let exits = hops.iter();
                let exits = exits
                    .filter_map(|hop| Some((exit(&hop.gateway, hop.overlay)?, hop.weight)))
                    .collect::<Vec<_>>();
                match exits.as_slice() {
                    [] => Target::Unreachable,
                    [(exit, _)] => exit.target(),
                    _ => Target::Several(exits),
                }
            }
            Way::Host => Target::Host,
            Way::Blackhole => Target::Blackhole,
            Way::Unreachable => Target::Unreachable,
        };
        add(*prefix, target, Origin::Route(Source::Kernel));
    }
}

/// The addresses that pods reach without the node's kernel: those of nodes and routers that packets
/// to other pods reach without a tunnel. What they send from such an address comes past the kernel
/// too, and its conntrack would know only the answers. Unless a route says where the address leads:
/// who closes it to pods means it.
fn reached_directly<'a>(input: &Input<'a>) -> Vec<(IpAddr, Target<'a>)> {
    let (model, learned) = (input.model, &input.model.kernel);
    if input.uplink.is_none() {
        return Vec::new();
    }
    // A hundred thousand routes have few lengths.
    let prefixes = model.routes.keys().chain(learned.routes.keys());
    let lens: BTreeSet<u8> = prefixes.map(IpNet::prefix_len).collect();
    let is_routed = |address: IpAddr| {
        let mut nets = lens.iter().filter_map(|len| Some(IpNet::new(address, *len).ok()?.trunc()));
        nets.any(|net| model.routes.contains_key(&net) || learned.routes.contains_key(&net))
    };
    let is_passing = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let peers: HashMap<IpAddr, &PeerSpec> =
        model.peers.values().map(|(peer, _)| (peer.address, peer)).collect();
    let direct = |peer: &&PeerSpec| input.decide(peer).in_force == Encapsulation::Direct;
    let of_peers = peers.values().copied().filter(direct);
    let of_peers = of_peers.map(|peer| (peer.address, Target::Peer(peer)));
    let gateways = learned
        .direct
        .keys()
        .copied()
        .filter(|gateway| !peers.contains_key(gateway) && !is_passing(gateway));
    of_peers
        .chain(gateways.map(|gateway| (gateway, Target::Direct(gateway))))
        .filter(|(address, _)| !is_routed(*address))
        .collect()
}
