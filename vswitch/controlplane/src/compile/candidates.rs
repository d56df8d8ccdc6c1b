//! Routes that may be had, of every source.
//!
//! Enters: the same input as `compile`. Leaves: routes to `rib`, several for a prefix that several
//! sources name.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use api::{Encapsulation, PeerSpec, RouteTarget, Source};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Input;
use super::route::{Exit, RibRoute, RouteOrigin, Target};
use crate::kernel::{Hop, LearnedRoutes, Way};

/// Which prefixes are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Among<'p> {
    /// Every one.
    All,
    /// A few.
    These(&'p HashSet<IpNet>),
}

impl Among<'_> {
    fn has(&self, prefix: &IpNet) -> bool {
        match self {
            Self::All => true,
            Self::These(prefixes) => prefixes.contains(prefix),
        }
    }

    /// About as many routes as that will be.
    fn at_most(&self, input: &Input<'_>) -> usize {
        let Self::All = self else { return 0 };
        let model = input.model;
        let of_peers = model.peers.values().map(|(peer, _)| peer.prefixes.len()).sum::<usize>();
        let of_services = model.served.addresses.len();
        of_peers
            + of_services
            + model.routes.len()
            + model.kernel.routes.len()
            + 2 * input.pods.len()
            + 16
    }
}

/// Whatever routes the model and the node have, in any order.
pub(super) fn candidates<'a>(input: &Input<'a>, among: Among<'_>) -> Vec<RibRoute<'a>> {
    let model = input.model;
    let mut routes = Vec::with_capacity(among.at_most(input));
    let mut add = |prefix, target, origin| {
        if among.has(&prefix) {
            routes.push(RibRoute { prefix, target, origin });
        }
    };
    for own in model.pods.own_addresses() {
        add(own.into(), Target::Gateway, RouteOrigin::Node);
    }
    for (attachment, port) in input.pods {
        let Some(lease) = model.attachments.get(attachment) else { continue };
        for net in &lease.addresses {
            let target = Target::Pod { attachment, lease, port };
            add(net.addr().into(), target, RouteOrigin::Attachment);
        }
    }
    for ((bridge, address), mac) in &model.neighbors {
        add((*address).into(), Target::Neighbor { bridge, mac: *mac }, RouteOrigin::Neighbor);
    }
    for address in &model.served.addresses {
        add((*address).into(), Target::Service, RouteOrigin::Service);
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
        add(*prefix, target, RouteOrigin::Route(*source));
    }
    for (peer, source) in model.peers.values() {
        for prefix in &peer.prefixes {
            add(*prefix, Target::Peer(peer), RouteOrigin::Peer(*source));
        }
    }
    kernel(input, among, &mut add);
    for (address, target) in reached_directly(input) {
        add(address.into(), target, RouteOrigin::Gap);
    }
    for prefix in model.pods.all().chain(&model.cluster_prefixes) {
        add(*prefix, Target::Unreachable, RouteOrigin::Gap);
    }
    if input.host.is_some() {
        add(Ipv4Net::default().into(), Target::Host, RouteOrigin::Gap);
        add(Ipv6Net::default().into(), Target::Host, RouteOrigin::Gap);
    }
    routes
}

/// Routes of the kernel's table. A next hop that is a peer's underlay address is that peer,
/// whichever source named it.
fn kernel<'a>(
    input: &Input<'a>,
    among: Among<'_>,
    add: &mut impl FnMut(IpNet, Target<'a>, RouteOrigin),
) {
    let learned: &'a LearnedRoutes = &input.model.kernel;
    if learned.routes.is_empty() {
        return;
    }
    let peers = by_address(input);
    let exit = |hop: &Hop| match peers.get(&hop.gateway).copied() {
        Some(peer) => Some((Exit::Peer(peer), hop.weight)),
        None if hop.overlay => Some((Exit::Peer(learned.peers.get(&hop.gateway)?), hop.weight)),
        None => Some((Exit::Direct(hop.gateway), hop.weight)),
    };
    let mut take = |prefix: IpNet, way: &'a Way| {
        let target = match way {
            Way::Hops(hops) => {
                let exits = hops.iter().filter_map(exit).collect::<Vec<_>>();
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
        add(prefix, target, RouteOrigin::Route(Source::Kernel));
    };
    match among {
        Among::All => learned.routes.iter().for_each(|(prefix, way)| take(*prefix, way)),
        Among::These(prefixes) => {
            for prefix in prefixes {
                if let Some(way) = learned.routes.get(prefix) {
                    take(*prefix, way);
                }
            }
        }
    }
}

fn by_address<'a>(input: &Input<'a>) -> HashMap<IpAddr, &'a PeerSpec> {
    input.model.peers.values().map(|(peer, _)| (peer.address, peer.as_ref())).collect()
}

/// The addresses that pods reach without the node's kernel: those of nodes and routers that packets
/// to other pods reach without a tunnel. What they send from such an address comes past the kernel
/// too, and its conntrack would know only the answers. Unless a route names where the address leads:
/// one that closes it to pods is meant.
pub(super) fn reached_directly<'a>(input: &Input<'a>) -> Vec<(IpAddr, Target<'a>)> {
    let (model, learned): (_, &LearnedRoutes) = (input.model, &input.model.kernel);
    if input.uplink.is_none() {
        return Vec::new();
    }
    let lens: BTreeSet<u8> =
        model.routes.keys().map(IpNet::prefix_len).chain(learned.lengths()).collect();
    let is_routed = |address: IpAddr| {
        let mut nets = lens.iter().filter_map(|len| Some(IpNet::new(address, *len).ok()?.trunc()));
        nets.any(|net| model.routes.contains_key(&net) || learned.routes.contains_key(&net))
    };
    let is_passing = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let peers = by_address(input);
    let direct =
        |peer: &&PeerSpec| input.choose_encapsulation(peer).in_force == Encapsulation::Direct;
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
