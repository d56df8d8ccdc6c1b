//! Our end of the overlay: what is accepted, from which peers, and with which inner sources.
//!
//! Enters: the configuration and the model. Leaves: tunnels.

use std::collections::HashMap;
use std::net::IpAddr;

use api::RouteTarget;
use dataplane::tables::{Domain, Peer, PeerId, Tunnels};
use ipnet::IpNet;

use super::encapsulation::accepted;
use super::{DEFAULT_BRIDGE, Input, vni, vtep_mac};

/// What comes by a tunnel, and what without.
pub(super) fn tunnels(input: &Input<'_>) -> Tunnels {
    let Some(uplink) = input.uplink else { return Tunnels::default() };
    let (config, model) = (input.config, input.model);
    let mut tunnels = Tunnels {
        uplink: Some(uplink.id),
        local: uplink.addresses,
        proxy_neighbors: config.uplink.as_ref().is_some_and(|uplink| uplink.proxy_neighbors),
        zero_checksum6: config.overlay.udp6_zero_checksum_rx,
        ..Tunnels::default()
    };
    for own in uplink.addresses.iter() {
        let mac = vtep_mac(config, own);
        match own {
            IpAddr::V4(_) => tunnels.vtep_mac = mac,
            IpAddr::V6(_) => tunnels.vtep_mac6 = mac,
        }
    }
    let accepted = accepted(config, model);
    let mut ports = accepted.vxlan_ports.into_iter();
    tunnels.vxlan_port = ports.next();
    tunnels.more_vxlan_ports = ports.collect();
    tunnels.ipip = accepted.ipip;
    tunnels.direct = accepted.direct;
    tunnels.direct_from_tunnelled = accepted.direct_from_tunnelled;
    tunnels.clamp_mss = config.overlay.clamp_mss;
    for number in accepted.vnis {
        tunnels.vnis.insert(vni(number), Domain::Routed);
    }
    if let Some(stretched) = config.bridge.vni {
        tunnels.vnis.insert(vni(stretched), Domain::Bridged(DEFAULT_BRIDGE));
    }
    // What is routed to a peer may also come from it.
    let mut routed: HashMap<&str, Vec<IpNet>> = HashMap::new();
    for (prefix, (target, _)) in model.routes.iter() {
        if let RouteTarget::Peer { name } = target {
            routed.entry(name).or_default().push(*prefix);
        }
    }
    // But not what is this node's, which a route may cover.
    let own = || {
        let addresses = uplink.addresses.iter().map(IpNet::from);
        model.pods.all().copied().chain(addresses)
    };
    let mut add = |address: IpAddr, prefixes: Vec<IpNet>| {
        if tunnels.by_address.get(address).is_none() {
            tunnels.by_address.insert(address, PeerId(tunnels.peers.len() as u32));
            tunnels.peers.push(Peer::new(address, prefixes).without(own()));
        }
    };
    for (name, (peer, _)) in model.peers.iter() {
        let mut prefixes = routed.remove(name.as_str()).unwrap_or_default();
        prefixes.extend(&peer.prefixes);
        prefixes.extend(model.kernel.behind(&peer.address));
        add(peer.address, prefixes);
    }
    for peer in model.kernel.peers.values() {
        add(peer.address, IpNet::aggregate(&peer.prefixes));
    }
    // A VTEP that is no peer is accepted in its bridge domain alone: it has no prefix to route from.
    for vtep in &config.bridge.vteps {
        add(*vtep, Vec::new());
    }
    tunnels
}
