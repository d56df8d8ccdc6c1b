//! Tables in which every kind of port, route and tunnel occurs.
//!
//! | port | what |
//! |---|---|
//! | 0 | the host |
//! | 1 | the NIC, without offloads |
//! | 2, 3 | routed pods, with and without offloads |
//! | 4, 5 | pods of a bridge domain that is stretched over VXLAN, with and without offloads |
//! | 6 | a pod of another such domain |
//! | 7 | nothing |
//!
//! Three of the pods have [policies](crate::policies).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use dataplane::session::Endpoint;
use dataplane::tables::{
    Adjacency, AdjacencyId, Attachment, Backend, BackendState, Backends, ConnectionCount, Bridge, BridgeId, Domain,
    FdbTarget, Gateway, LocalAddresses, Offloads, Peer, PeerId, Port, PortId, PortRole, RemoteVtep,
    Service, Tables, Template, Tunnels, VirtualPort, VtepId, WithoutBackend,
    adjacency::{Ends, Outer},
};
use dataplane::wire::{MacAddr, Protocol, Vni, vxlan};
use ipnet::IpNet;

use crate::policies;

/// Numbers of ports, one of which is free.
pub const PORTS: u8 = 8;

/// This node in the underlay.
pub const UNDERLAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// And over IPv6.
pub const UNDERLAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
/// The peers: by VXLAN, by IPIP, by direct routing, one whose next hop is not resolved, and by VXLAN
/// over IPv6.
pub const PEERS: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 3)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1)),
];
/// The NIC's MAC.
pub const NIC: MacAddr = MacAddr([2, 0, 0, 0xff, 0, 1]);
/// The underlay's next hop.
pub const ROUTER: MacAddr = MacAddr([2, 0, 0, 0xff, 0, 2]);
/// The routed overlay.
pub const ROUTED_VNI: Vni = Vni::new(10).expect("below 2^24");
/// The stretched domains.
pub const BRIDGED_VNIS: [Vni; 2] =
    [Vni::new(20).expect("below 2^24"), Vni::new(30).expect("below 2^24")];

/// The address of a service.
pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(198, 19, 253, 1);

const MTU: u16 = 1450;

/// MAC of a pod.
#[must_use]
pub const fn pod_mac(port: u8) -> MacAddr {
    MacAddr([2, 0x70, 0, 0, 0, port])
}

/// IPv4 address of a pod.
#[must_use]
pub const fn pod_v4(port: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, port)
}

/// IPv6 address of a pod.
#[must_use]
pub const fn pod_v6(port: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, port as u16)
}

/// Pods of a peer.
#[must_use]
pub const fn remote_v4(peer: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 19, peer, 9)
}

/// Pods of a peer.
#[must_use]
pub const fn remote_v6(peer: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x19, peer as u16, 0, 0, 0, 0, 9)
}

/// The tables; always the same.
#[must_use]
pub fn tables() -> &'static Tables {
    static TABLES: LazyLock<Tables> = LazyLock::new(build);
    &TABLES
}

fn build() -> Tables {
    let gateway_v4 = Ipv4Addr::new(198, 18, 0, 1);
    let gateway_v6 = Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 1);
    let mut tables = Tables {
        gateway: Gateway {
            mac: Gateway::MAC,
            v4: Some(gateway_v4),
            v6: Some(gateway_v6),
            ..Gateway::default()
        },
        tunnels: tunnels().into(),
        bridges: (0..2).map(bridge).collect(),
        ports: (0..PORTS).map(port).collect(),
        ..Tables::default()
    };
    let host = Template::ethernet(pod_mac(0), Gateway::MAC);
    let at_host =
        add(&mut tables, Adjacency::Gateway { host: Some(PortId(0)), template: host, mtu: MTU });
    route(&mut tables, gateway_v4.into(), 32, at_host);
    route(&mut tables, gateway_v6.into(), 128, at_host);
    let world = add(&mut tables, Adjacency::Port { port: PortId(0), template: host, mtu: 1500 });
    route(&mut tables, Ipv4Addr::UNSPECIFIED.into(), 0, world);
    for pod in 2..7 {
        let template = Template::ethernet(pod_mac(pod), Gateway::MAC);
        let adjacency = if pod < 4 {
            Adjacency::Port { port: PortId(pod.into()), template, mtu: MTU }
        } else {
            Adjacency::Bridged { bridge: BridgeId(u16::from(pod == 6)), template, mtu: MTU }
        };
        let adjacency = add(&mut tables, adjacency);
        route(&mut tables, pod_v4(pod).into(), 32, adjacency);
        route(&mut tables, pod_v6(pod).into(), 128, adjacency);
    }
    for peer in 0..PEERS.len() as u8 {
        let outer = outer(peer);
        let template = match peer {
            0 | 4 => {
                let local = Tunnels::derived_vtep_mac(own(peer));
                let remote = Tunnels::derived_vtep_mac(PEERS[usize::from(peer)]);
                Some(Template::vxlan_routed(outer, ROUTED_VNI, vxlan::PORT, remote, local))
            }
            1 => Template::ipip(outer),
            2 => Some(Template::ethernet(ROUTER, NIC)),
            _ => None,
        };
        let port = PortId(1);
        let adjacency = add(&mut tables, Adjacency::Remote { port, template, mtu: MTU });
        for prefix in prefixes(peer) {
            route(&mut tables, prefix.addr(), prefix.prefix_len(), adjacency);
        }
    }
    let blackhole = add(&mut tables, Adjacency::Blackhole);
    route(&mut tables, Ipv4Addr::new(198, 19, 254, 0).into(), 24, blackhole);
    let unreachable = add(&mut tables, Adjacency::Unreachable);
    route(&mut tables, Ipv4Addr::new(198, 19, 255, 0).into(), 24, unreachable);
    let service = add(&mut tables, Adjacency::Service);
    route(&mut tables, VIRTUAL.into(), 32, service);
    let services = Arc::make_mut(&mut tables.services);
    for (protocol, port) in [(Protocol::TCP, 80), (Protocol::UDP, 53), (Protocol::SCTP, 80)] {
        let address = VIRTUAL.into();
        services.insert(VirtualPort { address, protocol, port }, to_pods_and_a_peer());
    }
    tables.policies = policies::policies();
    tables
}

/// Routed and bridged pods, one of another node, and one that takes no new flows.
fn to_pods_and_a_peer() -> Service {
    let usable = [pod_v4(2), pod_v4(3), pod_v4(4), remote_v4(0)];
    let backend = |address: Ipv4Addr, state| Backend {
        endpoint: Endpoint { address: address.into(), port: 8080 },
        state,
    };
    let usable = usable.map(|address| backend(address, BackendState::Usable));
    let leaving = backend(pod_v4(5), BackendState::Serving);
    Service {
        generation: 1,
        backends: Arc::new(Backends::new(usable.into_iter().chain([leaving]))),
        without_backend: WithoutBackend::Refuse,
        affinity: None,
        sources: None,
        connections: ConnectionCount::default(),
    }
}

fn add(tables: &mut Tables, adjacency: Adjacency) -> AdjacencyId {
    tables.adjacencies.push(adjacency);
    AdjacencyId(tables.adjacencies.len() as u32 - 1)
}

fn route(tables: &mut Tables, address: IpAddr, len: u8, adjacency: AdjacencyId) {
    match address {
        IpAddr::V4(v4) => tables.fib4.insert(v4, len, adjacency),
        IpAddr::V6(v6) => tables.fib6.insert(v6, len, adjacency),
    }
}

fn port(number: u8) -> Option<Port> {
    let all = Offloads { checksum: true, tso: true, uso: true, vxlan: false };
    let (kind, attachment, offloads) = match number {
        0 => (PortRole::Host, Attachment::Routed, all),
        1 => (PortRole::Uplink, Attachment::Routed, Offloads::default()),
        2 => (PortRole::Pod, Attachment::Routed, all),
        3 => (PortRole::Pod, Attachment::Routed, Offloads::default()),
        4 => (PortRole::Pod, Attachment::Bridged(BridgeId(0)), all),
        5 => (PortRole::Pod, Attachment::Bridged(BridgeId(0)), Offloads::default()),
        6 => (PortRole::Pod, Attachment::Bridged(BridgeId(1)), all),
        _ => return None,
    };
    let (mac, addresses) = match kind {
        PortRole::Pod => (pod_mac(number), vec![pod_v4(number).into(), pod_v6(number).into()]),
        PortRole::Host => (pod_mac(number), Vec::new()),
        PortRole::Uplink => (NIC, Vec::new()),
    };
    Some(Port {
        kind,
        attachment,
        mac,
        mtu: MTU,
        offloads,
        addresses,
        rx_limit: None,
        tx_limit: None,
    })
}

/// Its pods' MACs, and one that was put behind a VTEP by hand.
fn bridge(number: u16) -> Bridge {
    let vni = BRIDGED_VNIS[usize::from(number)];
    let vtep = |peer: u8| {
        let template = (peer == 0).then(|| Template::vxlan_bridged(outer(peer), vni, vxlan::PORT));
        RemoteVtep { address: PEERS[usize::from(peer)], port: PortId(1), template, mtu: MTU }
    };
    let (members, vteps): (&[u8], _) = match number {
        0 => (&[4, 5], [vtep(0), vtep(3)].into_iter().collect()),
        _ => (&[6], [vtep(0)].into_iter().collect()),
    };
    let by_hand = MacAddr([2, 0x71, 0, 0, 0, members[0]]);
    let pods = members.iter().map(|pod| (pod_mac(*pod), FdbTarget::Port(PortId((*pod).into()))));
    Bridge {
        members: members.iter().map(|pod| PortId((*pod).into())).collect(),
        vni: Some(vni),
        vteps,
        fdb: pods.chain([(by_hand, FdbTarget::Vtep(VtepId(0)))]).collect(),
    }
}

fn outer(peer: u8) -> Outer {
    Outer {
        source_mac: NIC,
        next_hop_mac: ROUTER,
        ends: Ends::between(own(peer), PEERS[usize::from(peer)]).expect("of one family"),
    }
}

/// Our address of a peer's family.
fn own(peer: u8) -> IpAddr {
    if PEERS[usize::from(peer)].is_ipv4() { UNDERLAY.into() } else { UNDERLAY6.into() }
}

fn prefixes(peer: u8) -> [IpNet; 2] {
    [
        IpNet::new_assert(remote_v4(peer).into(), 24).trunc(),
        IpNet::new_assert(remote_v6(peer).into(), 64).trunc(),
    ]
}

fn tunnels() -> Tunnels {
    let numbers = 0..PEERS.len() as u8;
    let peer = |peer: u8| Peer::new(PEERS[usize::from(peer)], prefixes(peer).iter().copied());
    Tunnels {
        uplink: Some(PortId(1)),
        local: LocalAddresses { v4: Some(UNDERLAY), v6: Some(UNDERLAY6) },
        vxlan_port: Some(vxlan::PORT),
        ipip: true,
        direct: true,
        proxy_neighbors: true,
        zero_checksum6: true,
        vtep_mac: Tunnels::derived_vtep_mac(UNDERLAY),
        vtep_mac6: Tunnels::derived_vtep_mac(UNDERLAY6),
        vnis: [
            (ROUTED_VNI, Domain::Routed),
            (BRIDGED_VNIS[0], Domain::Bridged(BridgeId(0))),
            (BRIDGED_VNIS[1], Domain::Bridged(BridgeId(1))),
        ]
        .into_iter()
        .collect(),
        peers: numbers.clone().map(peer).collect(),
        by_address: numbers.map(|n| (PEERS[usize::from(n)], PeerId(n.into()))).collect(),
        ..Tunnels::default()
    }
}
