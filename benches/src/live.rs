//! Tables of a node with 1,000 pods and 250 peers, and 10,000 flows through them.
//!
//! Enters: which way is to be measured. Leaves: a [`Node`] ready for it. Pods are in 198.18.0.0/16
//! and fd00:18::/32, the peers' pods in 198.19.0.0/16 and fd00:19::/32, the underlay is
//! 198.51.100.0/24, and this node is 203.0.113.1 in it.

pub mod sessions;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::Millis;
use dataplane::tables::{
    Adjacency, AdjacencyId, Attachment, Bridge, BridgeId, Domain, Fdb, FdbTarget, Gateway,
    Offloads, Peer, PeerId, Port, PortId, PortRole, RemoteVtep, Tables, Template, Tunnels, VtepId,
    adjacency::{Ends, Outer},
};
use dataplane::wire::{MacAddr, Vni, vxlan};
use frame::Offload;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::node::{Node, Ready};
use crate::traffic::{self, Macs, VNI};
use crate::{Random, routes};

/// Pods on the node.
pub const PODS: u16 = 1000;
/// Other nodes.
pub const PEERS: u16 = 250;
/// Different flows, each of which sends in turn.
pub const FLOWS: usize = 10_000;

const HOST: PortId = PortId(0);
const UPLINK: PortId = PortId(1);
const UPLINK_MAC: MacAddr = MacAddr([0x02, 0, 0, 0xff, 0, 1]);
const UNDERLAY_ROUTER: MacAddr = MacAddr([0x02, 0, 0, 0xff, 0, 2]);
const UNDERLAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const MTU: u16 = 1500;
const SEGMENT: Vni = Vni::MAX;

/// How packets travel between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Routed by the underlay.
    Direct,
    /// VXLAN, routed overlay.
    Vxlan,
    /// IPIP.
    Ipip,
}

/// Pod to pod in one bridge domain; their MACs are known without learning.
#[must_use]
pub fn bridged() -> Node {
    let mut tables = tables(Path::Direct, Attachment::Bridged(BridgeId(0)));
    let fdb = (0..PODS).map(|pod| (pod_mac(pod), FdbTarget::Port(pod_port(pod)))).collect();
    let members = (0..PODS).map(pod_port).collect();
    tables.bridges = vec![Bridge { members, fdb, ..Bridge::default() }];
    let ring = flows(|random, port| {
        let (from, to) = two_pods(random);
        let macs = Macs { source: pod_mac(from), destination: pod_mac(to) };
        ready(pod_port(from), traffic::udp_frame(macs, pod_v4(from), pod_v4(to), port))
    });
    Node::new(tables, Fdb::new(16_384, 300_000), ring)
}

/// Pod to one of 10,000 stations at the other ends of a stretched segment, whose MACs were learned.
#[must_use]
pub fn learned() -> Node {
    let mut tables = tables(Path::Vxlan, Attachment::Bridged(BridgeId(0)));
    let fdb = (0..PODS).map(|pod| (pod_mac(pod), FdbTarget::Port(pod_port(pod)))).collect();
    let members = (0..PODS).map(pod_port).collect();
    let vteps = (0..PEERS).map(vtep).collect();
    tables.bridges = vec![Bridge { members, vni: Some(SEGMENT), vteps, fdb }];
    let mut fdb = Fdb::new(16_384, 300_000);
    for station in 0..FLOWS as u16 {
        fdb.learn(BridgeId(0), station_mac(station), VtepId(station % PEERS), Millis(0));
    }
    let ring = flows(|random, port| {
        let (from, to) = (random.below(PODS.into()) as u16, random.below(FLOWS) as u16);
        let macs = Macs { source: pod_mac(from), destination: station_mac(to) };
        let destination = remote_pod(to % PEERS, random, false);
        ready(pod_port(from), traffic::udp_frame(macs, pod_v4(from), destination, port))
    });
    Node::new(tables, fdb, ring)
}

/// Another end of the stretched segment.
fn vtep(peer: u16) -> RemoteVtep {
    let template = Template::vxlan_bridged(outer(peer), SEGMENT, vxlan::PORT);
    RemoteVtep {
        address: peer_address(peer).into(),
        port: UPLINK,
        template: Some(template),
        mtu: MTU - Template::VXLAN_OVERHEAD,
    }
}

/// Pod to pod of one node by the gateway.
#[must_use]
pub fn routed_locally() -> Node {
    let ring = flows(|random, port| {
        let (from, to) = two_pods(random);
        ready(pod_port(from), traffic::udp_frame(to_gateway(from), pod_v4(from), pod_v4(to), port))
    });
    Node::new(tables(Path::Direct, Attachment::Routed), no_fdb(), ring)
}

/// Pod to the underlay by one of `count` IPv4 routes, beside those to the pods.
#[must_use]
pub fn routed(count: usize) -> Node {
    let mut tables = tables(Path::Direct, Attachment::Routed);
    let random = &mut Random::new(1);
    let prefixes = routes::prefixes_v4(count, random);
    for (prefix, len) in &prefixes {
        tables.fib4.insert(*prefix, *len, peer_adjacency(random.below(PEERS.into()) as u16));
    }
    let ring = flows(|random, port| {
        let from = random.below(PODS.into()) as u16;
        let to = routes::inside_v4(*random.pick(&prefixes), random).into();
        ready(pod_port(from), traffic::udp_frame(to_gateway(from), pod_v4(from), to, port))
    });
    Node::new(tables, no_fdb(), ring)
}

/// Pod to a peer's pod.
#[must_use]
pub fn encapsulating(path: Path, v6: bool) -> Node {
    let ring = flows(|random, port| {
        let (from, to) = (random.below(PODS.into()) as u16, random.below(PEERS.into()) as u16);
        let (source, destination) = (pod(from, v6), remote_pod(to, random, v6));
        ready(pod_port(from), traffic::udp_frame(to_gateway(from), source, destination, port))
    });
    Node::new(tables(path, Attachment::Routed), no_fdb(), ring)
}

/// A peer's pod to ours, the tunnel ending here.
#[must_use]
pub fn decapsulating(path: Path, v6: bool) -> Node {
    let ring = flows(|random, port| {
        let (from, to) = (random.below(PEERS.into()) as u16, random.below(PODS.into()) as u16);
        let (source, destination) = (remote_pod(from, random, v6), pod(to, v6));
        let packet = traffic::udp_packet(source, destination, port, traffic::SMALL_PAYLOAD);
        let outer = Macs { source: UNDERLAY_ROUTER, destination: UPLINK_MAC };
        let address = peer_address(from);
        let bytes = match path {
            Path::Direct => traffic::ethernet_frame(outer, &packet),
            Path::Ipip => traffic::in_ipip(outer, address, UNDERLAY, &packet),
            Path::Vxlan => {
                let source = Tunnels::derived_vtep_mac(address);
                let vteps = Macs { source, destination: Tunnels::derived_vtep_mac(UNDERLAY) };
                let inner = traffic::ethernet_frame(vteps, &packet);
                traffic::in_vxlan(outer, address, UNDERLAY, &inner)
            }
        };
        ready(UPLINK, bytes)
    });
    Node::new(tables(path, Attachment::Routed), no_fdb(), ring)
}

/// Superframes from a pod to a peer's, cut for the NIC. A ring of few, as senders of such are few.
#[must_use]
pub fn segmenting(path: Path) -> Node {
    let random = &mut Random::new(1);
    let ring = (0..BATCH_OF_SENDERS)
        .map(|from| {
            let to = random.below(PEERS.into()) as u16;
            let (source, destination) = (pod_v4(from), remote_pod(to, random, false));
            let (bytes, offload) = traffic::superframe(to_gateway(from), source, destination);
            Ready { ingress: pod_port(from), bytes, offload }
        })
        .collect();
    Node::new(tables(path, Attachment::Routed), no_fdb(), ring)
}

const BATCH_OF_SENDERS: u16 = 32;

fn tables(path: Path, attachment: Attachment) -> Tables {
    let mut tables = Tables {
        gateway: Gateway {
            mac: Gateway::MAC,
            v4: Some(Ipv4Addr::new(198, 18, 0, 1)),
            v6: Some(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 1)),
            ..Gateway::default()
        },
        tunnels: tunnels(path).into(),
        ..Tables::default()
    };
    tables.ports = vec![
        Some(port(PortRole::Host, Attachment::Routed, MacAddr([2, 0, 0, 0xff, 0, 3]))),
        Some(port(PortRole::Uplink, Attachment::Routed, UPLINK_MAC)),
    ];
    for pod in 0..PODS {
        let addresses = vec![pod_v4(pod), pod_v6(pod)];
        let port = port(PortRole::Pod, attachment, pod_mac(pod));
        tables.ports.push(Some(Port { addresses, ..port }));
        let template = Template::ethernet(pod_mac(pod), Gateway::MAC);
        tables.adjacencies.push(Adjacency::Port { port: pod_port(pod), template, mtu: MTU });
        route_to(&mut tables, pod_v4(pod), 32, AdjacencyId(pod.into()));
        route_to(&mut tables, pod_v6(pod), 128, AdjacencyId(pod.into()));
    }
    for peer in 0..PEERS {
        let template = Some(peer_template(path, peer));
        tables.adjacencies.push(Adjacency::Remote { port: UPLINK, template, mtu: MTU });
        for prefix in peer_prefixes(peer) {
            route_to(&mut tables, prefix.addr(), prefix.prefix_len(), peer_adjacency(peer));
        }
    }
    let template = Template::ethernet(MacAddr([2, 0, 0, 0xff, 0, 3]), Gateway::MAC);
    let gateway = AdjacencyId(tables.adjacencies.len() as u32);
    tables.adjacencies.push(Adjacency::Gateway { host: Some(HOST), template, mtu: MTU });
    let (v4, v6) = (tables.gateway.v4, tables.gateway.v6);
    for address in v4.map(IpAddr::from).into_iter().chain(v6.map(IpAddr::from)) {
        route_to(&mut tables, address, 128, gateway);
    }
    tables
}

fn route_to(tables: &mut Tables, address: IpAddr, len: u8, adjacency: AdjacencyId) {
    match address {
        IpAddr::V4(v4) => tables.fib4.insert(v4, len, adjacency),
        IpAddr::V6(v6) => tables.fib6.insert(v6, len, adjacency),
    }
}

fn port(kind: PortRole, attachment: Attachment, mac: MacAddr) -> Port {
    let offloads = match kind {
        // As a NIC under AF_XDP: everything is done here.
        PortRole::Uplink => Offloads::default(),
        PortRole::Pod | PortRole::Host => {
            Offloads { checksum: true, tso: true, uso: true, vxlan: false }
        }
    };
    Port {
        kind,
        attachment,
        mac,
        mtu: MTU,
        offloads,
        addresses: Vec::new(),
        rx_limit: None,
        tx_limit: None,
    }
}

fn tunnels(path: Path) -> Tunnels {
    let peers = |peer| Peer::new(peer_address(peer).into(), peer_prefixes(peer).iter().copied());
    Tunnels {
        uplink: Some(UPLINK),
        local: IpAddr::V4(UNDERLAY).into(),
        vxlan_port: (path == Path::Vxlan).then_some(vxlan::PORT),
        ipip: path == Path::Ipip,
        direct: path == Path::Direct,
        vtep_mac: Tunnels::derived_vtep_mac(UNDERLAY),
        vnis: [(VNI, Domain::Routed)].into_iter().collect(),
        peers: (0..PEERS).map(peers).collect(),
        by_address: (0..PEERS)
            .map(|peer| (peer_address(peer).into(), PeerId(peer.into())))
            .collect(),
        ..Tunnels::default()
    }
}

fn outer(peer: u16) -> Outer {
    Outer {
        source_mac: UPLINK_MAC,
        next_hop_mac: UNDERLAY_ROUTER,
        ends: Ends::V4 { source: UNDERLAY, destination: peer_address(peer) },
    }
}

fn peer_template(path: Path, peer: u16) -> Template {
    let outer = outer(peer);
    let local = Tunnels::derived_vtep_mac(UNDERLAY);
    match path {
        Path::Direct => Template::ethernet(UNDERLAY_ROUTER, UPLINK_MAC),
        Path::Ipip => Template::ipip(outer).expect("both ends are IPv4"),
        Path::Vxlan => {
            let remote = Tunnels::derived_vtep_mac(peer_address(peer));
            Template::vxlan_routed(outer, VNI, vxlan::PORT, remote, local)
        }
    }
}

fn peer_address(peer: u16) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, peer as u8 + 1)
}

fn peer_adjacency(peer: u16) -> AdjacencyId {
    AdjacencyId(u32::from(PODS + peer))
}

fn peer_prefixes(peer: u16) -> [IpNet; 2] {
    [
        Ipv4Net::new_assert(Ipv4Addr::new(198, 19, peer as u8, 0), 24).into(),
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x19, peer, 0, 0, 0, 0, 0), 64).into(),
    ]
}

fn remote_pod(peer: u16, random: &mut Random, v6: bool) -> IpAddr {
    let host = random.below(250) as u8 + 2;
    if v6 {
        Ipv6Addr::new(0xfd00, 0x19, peer, 0, 0, 0, 0, host.into()).into()
    } else {
        Ipv4Addr::new(198, 19, peer as u8, host).into()
    }
}

fn pod_port(pod: u16) -> PortId {
    PortId(2 + pod)
}

fn pod(pod: u16, v6: bool) -> IpAddr {
    if v6 { pod_v6(pod) } else { pod_v4(pod) }
}

fn pod_v4(pod: u16) -> IpAddr {
    Ipv4Addr::new(198, 18, (pod / 250) as u8, (pod % 250) as u8 + 2).into()
}

fn pod_v6(pod: u16) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 1, pod).into()
}

fn pod_mac(pod: u16) -> MacAddr {
    let [high, low] = pod.to_be_bytes();
    MacAddr([0x02, 0x70, 0, 0, high, low])
}

fn station_mac(station: u16) -> MacAddr {
    let [high, low] = station.to_be_bytes();
    MacAddr([0x02, 0x73, 0, 0, high, low])
}

fn to_gateway(pod: u16) -> Macs {
    Macs { source: pod_mac(pod), destination: Gateway::MAC }
}

fn two_pods(random: &mut Random) -> (u16, u16) {
    let from = random.below(PODS.into()) as u16;
    (from, (from + 1 + random.below(usize::from(PODS) - 1) as u16) % PODS)
}

fn flows(mut make: impl FnMut(&mut Random, u16) -> Ready) -> Vec<Ready> {
    let random = &mut Random::new(2);
    (0..FLOWS as u16).map(|flow| make(random, 20_000 + flow)).collect()
}

fn ready(ingress: PortId, bytes: Vec<u8>) -> Ready {
    Ready { ingress, bytes, offload: Offload::default() }
}

/// Nothing is learned on routed ports.
fn no_fdb() -> Fdb {
    Fdb::new(1, 300_000)
}
