//! What a packet gets in front of it, by where its route leads.
//!
//! Enters: targets from `rib`, next hops of the underlay. Leaves: adjacencies, and routes to them,
//! into tables. Routes that lead to the same place share one adjacency.

use std::collections::{BTreeMap, HashMap};
use std::iter::successors;
use std::net::IpAddr;

use api::{Encapsulation, PeerSpec};
use dataplane::tables::adjacency::{Ends, Outer};
use dataplane::tables::{
    Adjacency, AdjacencyId, Gateway, Member, Multipath, Tables, Template, Tunnels,
};
use dataplane::wire::MacAddr;
use ipnet::IpNet;

use super::route::{Exit, Target};
use super::{DEFAULT_BRIDGE, Input, UplinkPort, clamp, vni, vtep_mac};

/// Adjacencies that are there already, by what they lead to.
pub(super) type Known = HashMap<Shared, AdjacencyId>;

/// Gives targets their adjacencies, and prefixes their targets.
pub(super) struct Adjacencies<'a, 'i> {
    input: &'a Input<'i>,
    known: &'a mut Known,
    /// MTU of pods' interfaces, bytes.
    pod_mtu: u32,
    tables: &'a mut Tables,
}

/// What many routes may lead to, and has one adjacency for all of them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Shared {
    /// A peer, by underlay address: no two peers have the same.
    Peer(IpAddr),
    Direct(IpAddr),
    Several(Vec<(AdjacencyId, u16)>),
    Host,
    Service,
    Blackhole,
    Unreachable,
}

impl<'a, 'i> Adjacencies<'a, 'i> {
    /// For these tables, of which some adjacencies are known.
    pub(super) fn new(
        input: &'a Input<'i>,
        pod_mtu: u32,
        tables: &'a mut Tables,
        known: &'a mut Known,
    ) -> Self {
        Self { input, known, pod_mtu, tables }
    }

    /// Another adjacency is made for this end, and for groups that it belongs to.
    pub(super) fn forget(&mut self, end: IpAddr) {
        self.known.remove(&Shared::Peer(end));
        self.known.remove(&Shared::Direct(end));
    }

    /// Adds a route, or replaces the one of the same prefix.
    pub(super) fn route(&mut self, prefix: IpNet, target: &Target<'_>) -> AdjacencyId {
        let id = self.of(target);
        match prefix {
            IpNet::V4(net) => self.tables.fib4.insert(net.addr(), net.prefix_len(), id),
            IpNet::V6(net) => self.tables.fib6.insert(net.addr(), net.prefix_len(), id),
        }
        id
    }

    /// Takes a route away that the longest of these others hid, if one did.
    pub(super) fn no_route(&mut self, prefix: IpNet, others: &BTreeMap<IpNet, AdjacencyId>) {
        let cover = successors(prefix.supernet(), IpNet::supernet)
            .find_map(|cover| Some((cover.prefix_len(), *others.get(&cover)?)));
        match prefix {
            IpNet::V4(net) => self.tables.fib4.remove(net.addr(), net.prefix_len(), cover),
            IpNet::V6(net) => self.tables.fib6.remove(net.addr(), net.prefix_len(), cover),
        }
    }

    fn of(&mut self, target: &Target<'_>) -> AdjacencyId {
        let shared = match target {
            Target::Peer(peer) => Some(Shared::Peer(peer.address)),
            Target::Direct(gateway) => Some(Shared::Direct(*gateway)),
            Target::Several(exits) => {
                let exits: Vec<_> =
                    exits.iter().map(|(exit, weight)| (self.of(&exit.target()), *weight)).collect();
                Some(Shared::Several(exits))
            }
            Target::Host => Some(Shared::Host),
            Target::Service => Some(Shared::Service),
            Target::Blackhole => Some(Shared::Blackhole),
            Target::Unreachable => Some(Shared::Unreachable),
            Target::Pod { .. } | Target::Gateway | Target::Neighbor { .. } => None,
        };
        if let Some(id) = shared.as_ref().and_then(|shared| self.known.get(shared)) {
            return *id;
        }
        let adjacency = match (target, &shared) {
            (Target::Several(exits), Some(Shared::Several(ids))) => self.group(exits, ids),
            _ => self.make(target),
        };
        let id = AdjacencyId(self.tables.adjacencies.len() as u32);
        self.tables.adjacencies.push(adjacency);
        if let Some(shared) = shared {
            self.known.insert(shared, id);
        }
        id
    }

    fn group(&self, exits: &[(Exit<'_>, u16)], ids: &[(AdjacencyId, u16)]) -> Adjacency {
        let members: Vec<_> = exits
            .iter()
            .zip(ids)
            .map(|((exit, _), (adjacency, weight))| Member {
                identity: exit.address(),
                adjacency: *adjacency,
                weight: *weight,
            })
            .collect();
        let group = Multipath::of(&members, &self.tables.adjacencies);
        group.map_or(Adjacency::Unreachable, Adjacency::Multipath)
    }

    fn make(&self, target: &Target<'_>) -> Adjacency {
        let input = self.input;
        match target {
            Target::Pod { port, lease, .. } => Adjacency::Port {
                port: port.id,
                template: Template::ethernet(MacAddr(lease.mac.0), Gateway::MAC),
                mtu: clamp(lease.mtu),
            },
            Target::Host => match input.host {
                Some(host) => Adjacency::Port {
                    port: host.id,
                    template: Template::ethernet(host.mac, Gateway::MAC),
                    mtu: clamp(host.mtu),
                },
                None => Adjacency::Unreachable,
            },
            Target::Gateway => Adjacency::Gateway {
                host: input.host.map(|host| host.id),
                template: Template::ethernet(
                    input.host.map_or(MacAddr::ZERO, |host| host.mac),
                    Gateway::MAC,
                ),
                mtu: input.host.map_or(u16::MAX, |host| clamp(host.mtu)),
            },
            Target::Neighbor { mac, .. } => Adjacency::Bridged {
                bridge: DEFAULT_BRIDGE,
                template: Template::ethernet(MacAddr(mac.0), Gateway::MAC),
                mtu: clamp(self.pod_mtu),
            },
            Target::Peer(peer) => match (input.uplink, input.peer_mtu(peer)) {
                (Some(uplink), Some(mtu)) => Adjacency::Remote {
                    port: uplink.id,
                    template: peer_template(input, peer, uplink),
                    mtu: clamp(mtu),
                },
                _ => Adjacency::Unreachable,
            },
            Target::Direct(gateway) => match input.uplink {
                Some(uplink) => Adjacency::Remote {
                    port: uplink.id,
                    template: input
                        .next_hops
                        .get(gateway)
                        .and_then(|hop| hop.mac)
                        .map(|mac| Template::ethernet(mac, uplink.mac)),
                    mtu: clamp(uplink.mtu),
                },
                None => Adjacency::Unreachable,
            },
            Target::Service => Adjacency::Service,
            Target::Blackhole => Adjacency::Blackhole,
            // A group is made of its members, in `group`.
            Target::Several(_) | Target::Unreachable => Adjacency::Unreachable,
        }
    }
}

/// What stands in front of a packet to this peer, once the underlay's next hop is resolved.
fn peer_template(input: &Input<'_>, peer: &PeerSpec, uplink: &UplinkPort) -> Option<Template> {
    let outer = outer(input, peer.address, uplink)?;
    let overlay = &input.config.overlay;
    let template = match input.choose_encapsulation(peer).in_force {
        Encapsulation::Vxlan => Template::vxlan_routed(
            outer,
            vni(overlay.vni),
            overlay.vxlan_port,
            peer.vtep_mac
                .map_or_else(|| Tunnels::derived_vtep_mac(peer.address), |mac| MacAddr(mac.0)),
            vtep_mac(input.config, uplink.addresses.towards(peer.address)?),
        ),
        Encapsulation::Ipip => Template::ipip(outer)?,
        Encapsulation::Direct => Template::ethernet(outer.next_hop_mac, outer.source_mac),
    };
    Some(template.with_outer_df(overlay.outer_df))
}

pub(super) fn outer(input: &Input<'_>, destination: IpAddr, uplink: &UplinkPort) -> Option<Outer> {
    let next_hop_mac = input.next_hops.get(&destination)?.mac?;
    let ends = Ends::between(uplink.addresses.towards(destination)?, destination)?;
    Some(Outer { source_mac: uplink.mac, next_hop_mac, ends })
}
