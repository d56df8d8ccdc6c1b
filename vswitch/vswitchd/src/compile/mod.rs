//! From what should be to what forwards.
//!
//! Enters: the model, the ports, and what the kernel says of the underlay. Leaves: [`Tables`], for
//! `publish`. A pure function: the same input gives the same tables, and a test needs neither
//! interfaces nor time.

pub mod base;
pub mod encapsulation;
#[cfg(test)]
mod kernel_tests;
pub mod rib;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use api::{AttachmentId, Encapsulation, Mode, PeerSpec, RouteTarget};
use dataplane::tables::adjacency::{Ends, Outer};
use dataplane::tables::{
    Adjacency, AdjacencyId, Attachment, Bridge, BridgeId, Domain, Epoch, FdbTarget, Gateway,
    LocalAddresses, Member, Multipath, Offloads, Peer, PeerId, Port, PortId, PortKind, RemoteVtep,
    Tables, Template, Tunnels, VtepId,
};
use dataplane::wire::{MacAddr, Vni};
use ipnet::IpNet;

use crate::config::Config;
use crate::model::Model;
use crate::mtu::{least, pod_mtu};
use crate::path_mtu::PathMtus;
use crate::underlay::NextHop;
pub use base::Base;
use encapsulation::{Decision, decide, heard, overhead};
use rib::{Exit, Target};

/// The bridge domain of the configuration; the only one so far.
const DEFAULT_BRIDGE: BridgeId = BridgeId(0);

/// The NIC, as far as forwarding needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkPort {
    /// Its number.
    pub id: PortId,
    /// Its MAC.
    pub mac: MacAddr,
    /// Underlay addresses.
    pub addresses: LocalAddresses,
    /// Largest IP packet, bytes.
    pub mtu: u32,
}

/// The host port, as far as forwarding needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Its number.
    pub id: PortId,
    /// The TAP's MAC.
    pub mac: MacAddr,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// What the kernel takes undone.
    pub offloads: Offloads,
}

/// A pod's live port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodPort {
    /// Its number.
    pub id: PortId,
    /// What the pod's kernel takes undone.
    pub offloads: Offloads,
}

/// Everything that tables are made of.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The operator's decisions.
    pub config: &'a Config,
    /// The desired state.
    pub model: &'a Model,
    /// Attachments with a live port.
    pub pods: &'a BTreeMap<AttachmentId, PodPort>,
    /// The node's own port.
    pub host: Option<&'a HostPort>,
    /// The NIC.
    pub uplink: Option<&'a UplinkPort>,
    /// How the kernel reaches underlay addresses.
    pub next_hops: &'a BTreeMap<IpAddr, NextHop>,
    /// What routers said of the ways there.
    pub path_mtus: &'a PathMtus,
    /// Of the tables to be.
    pub epoch: Epoch,
}

impl Input<'_> {
    /// How a peer is reached.
    #[must_use]
    pub fn decide(&self, peer: &PeerSpec) -> Decision {
        decide(self.config, peer, self.next_hops.get(&peer.address))
    }

    /// Largest inner packet to a peer, bytes; without an uplink there is none.
    #[must_use]
    pub fn peer_mtu(&self, peer: &PeerSpec) -> Option<u32> {
        let uplink = self.uplink?;
        Some(self.mtu_within(self.decide(peer).in_force, peer.address, uplink))
    }

    /// What an encapsulation to this address leaves. What routers say is about tunnel packets: of
    /// the others their senders hear it themselves. What the kernel's route says is about all that
    /// goes there; but the kernel may have it from an ICMP message that anybody forged, so it lowers
    /// nobody's packets below what every pod's interface has.
    fn mtu_within(
        &self,
        encapsulation: Encapsulation,
        towards: IpAddr,
        uplink: &UplinkPort,
    ) -> u32 {
        let overhead = overhead(encapsulation, towards);
        let said = self.path_mtus.to(towards).filter(|_| encapsulation != Encapsulation::Direct);
        let of_route = self.next_hops.get(&towards).and_then(|hop| hop.mtu);
        let of_route = of_route.map(|mtu| mtu.max(least(self.model) + overhead));
        let outer = said.into_iter().chain(of_route).fold(uplink.mtu, u32::min);
        outer.saturating_sub(overhead)
    }
}

/// The tables of this input.
#[must_use]
pub fn compile(input: &Input<'_>) -> Tables {
    Base::of(input).tables(input)
}

/// MAC of this node's VTEP, as a peer knows it that reaches us by this address of ours.
#[must_use]
pub fn vtep_mac(config: &Config, own: IpAddr) -> MacAddr {
    config.overlay.vtep_mac.map_or_else(|| Tunnels::derived_vtep_mac(own), |mac| MacAddr(mac.0))
}

struct Adjacencies<'a, 'i> {
    input: &'a Input<'i>,
    known: HashMap<Shared, AdjacencyId>,
    /// Looks at every peer: asked for once.
    pod_mtu: u32,
    tables: &'a mut Tables,
}

/// What many routes may lead to, and has one adjacency for all of them.
#[derive(PartialEq, Eq, Hash)]
enum Shared {
    /// By underlay address: no two peers have the same.
    Peer(IpAddr),
    Direct(IpAddr),
    Several(Vec<(AdjacencyId, u16)>),
    Host,
    Blackhole,
    Unreachable,
}

impl<'a, 'i> Adjacencies<'a, 'i> {
    fn new(input: &'a Input<'i>, tables: &'a mut Tables) -> Self {
        let mtu = input.uplink.map(|uplink| uplink.mtu);
        let pod_mtu = pod_mtu(input.config, input.model, mtu);
        Self { input, known: HashMap::new(), pod_mtu, tables }
    }

    fn route(&mut self, prefix: IpNet, target: &Target<'_>) {
        let id = self.of(target);
        match prefix {
            IpNet::V4(net) => self.tables.fib4.insert(net.addr(), net.prefix_len(), id),
            IpNet::V6(net) => self.tables.fib6.insert(net.addr(), net.prefix_len(), id),
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
    let template = match input.decide(peer).in_force {
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

fn outer(input: &Input<'_>, destination: IpAddr, uplink: &UplinkPort) -> Option<Outer> {
    let next_hop_mac = input.next_hops.get(&destination)?.mac?;
    let ends = Ends::between(uplink.addresses.towards(destination)?, destination)?;
    Some(Outer { source_mac: uplink.mac, next_hop_mac, ends })
}

fn ports(input: &Input<'_>) -> Vec<Option<Port>> {
    let mut ports = Vec::new();
    let mut put = |id: PortId, port: Port| {
        let at = usize::from(id.0);
        if ports.len() <= at {
            ports.resize(at + 1, None);
        }
        ports[at] = Some(port);
    };
    if let Some(host) = input.host {
        put(
            host.id,
            Port {
                kind: PortKind::Host,
                attachment: Attachment::Routed,
                mac: host.mac,
                mtu: clamp(host.mtu),
                offloads: host.offloads,
                addresses: Vec::new(),
            },
        );
    }
    if let Some(uplink) = input.uplink {
        put(
            uplink.id,
            Port {
                kind: PortKind::Uplink,
                attachment: Attachment::Routed,
                mac: uplink.mac,
                mtu: clamp(uplink.mtu),
                offloads: Offloads::default(),
                addresses: Vec::new(),
            },
        );
    }
    for (attachment, pod) in input.pods {
        let Some(lease) = input.model.attachments.get(attachment) else { continue };
        let attachment = match lease.mode {
            Mode::Routed => Attachment::Routed,
            Mode::Bridged { .. } => Attachment::Bridged(DEFAULT_BRIDGE),
        };
        put(
            pod.id,
            Port {
                kind: PortKind::Pod,
                attachment,
                mac: MacAddr(lease.mac.0),
                mtu: clamp(lease.mtu),
                offloads: pod.offloads,
                addresses: lease.addresses.iter().map(IpNet::addr).collect(),
            },
        );
    }
    ports
}

fn bridge(input: &Input<'_>) -> Bridge {
    let mut bridge = Bridge { vni: input.config.bridge.vni.map(vni), ..Bridge::default() };
    for (attachment, pod) in input.pods {
        let Some(lease) = input.model.attachments.get(attachment) else { continue };
        if matches!(lease.mode, Mode::Bridged { .. }) {
            bridge.members.push(pod.id);
            bridge.fdb.insert(MacAddr(lease.mac.0), FdbTarget::Port(pod.id));
        }
    }
    bridge.members.sort_unstable();
    if let (Some(vni), Some(uplink)) = (bridge.vni, input.uplink) {
        for address in &input.config.bridge.vteps {
            let overlay = &input.config.overlay;
            let template = outer(input, *address, uplink).map(|outer| {
                Template::vxlan_bridged(outer, vni, overlay.vxlan_port)
                    .with_outer_df(overlay.outer_df)
            });
            bridge.vteps.push(RemoteVtep {
                address: *address,
                port: uplink.id,
                template,
                mtu: clamp(input.mtu_within(Encapsulation::Vxlan, *address, uplink)),
            });
        }
    }
    for ((_, mac), vtep) in &input.model.fdb {
        // A VTEP that the configuration no longer has: the entry waits for it.
        if let Some(id) = bridge.vtep_at(*vtep) {
            bridge.fdb.entry(MacAddr(mac.0)).or_insert(FdbTarget::Vtep(VtepId(id.0)));
        }
    }
    bridge
}

fn tunnels(input: &Input<'_>) -> Tunnels {
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
    let heard = heard(config, model);
    let mut ports = heard.vxlan_ports.into_iter();
    tunnels.vxlan_port = ports.next();
    tunnels.more_vxlan_ports = ports.collect();
    tunnels.ipip = heard.ipip;
    tunnels.direct = heard.direct;
    tunnels.direct_from_tunnelled = heard.direct_from_tunnelled;
    tunnels.clamp_mss = config.overlay.clamp_mss;
    for number in heard.vnis {
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
    let mut add = |address: IpAddr, prefixes: Vec<IpNet>| {
        if tunnels.by_address.get(address).is_none() {
            tunnels.by_address.insert(address, PeerId(tunnels.peers.len() as u32));
            tunnels.peers.push(Peer::new(address, prefixes));
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
    // A VTEP that is no peer is heard in its bridge domain alone: it has no prefix to route from.
    for vtep in &config.bridge.vteps {
        add(*vtep, Vec::new());
    }
    tunnels
}

fn gateway(model: &Model) -> Gateway {
    let mut gateway = Gateway { mac: Gateway::MAC, ..Gateway::default() };
    // The current ones last: they are whom pods hear from.
    for address in model.pods.gateways().collect::<Vec<_>>().into_iter().rev() {
        match address {
            IpAddr::V4(v4) => gateway.v4 = Some(v4),
            IpAddr::V6(v6) => gateway.v6 = Some(v6),
        }
    }
    gateway
}

fn vni(number: u32) -> Vni {
    Vni::new(number).expect("the configuration allows 24 bits")
}

/// An IP packet has at most 65,535 bytes, whatever an interface says.
fn clamp(mtu: u32) -> u16 {
    u16::try_from(mtu).unwrap_or(u16::MAX)
}
