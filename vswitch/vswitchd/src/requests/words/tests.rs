//! The exact text of traces: people read it, and scripts take it apart.

mod policies;

use std::net::IpAddr;
use std::sync::Arc;

use api::TracePacket;
use dataplane::session::{Header, SessionTable};
use dataplane::tables::adjacency::{Ends, Outer};
use dataplane::tables::{
    Adjacency, AdjacencyId, Attachment, Bridge, BridgeId, Domain, Fdb, FdbTarget, Gateway, Member,
    Multipath, Offloads, Peer, PeerId, Port, PortId, PortRole, RemoteVtep, Tables, Template,
    Tunnels,
};
use dataplane::wire::{MacAddr, Vni};
use dataplane::{Millis, trace};
use frame::{Packet, Pool};

use super::{door, verdict};
use crate::requests::packet::build;

const HOST: PortId = PortId(0);
const UPLINK: PortId = PortId(1);
const POD: PortId = PortId(2);
const BRIDGED: PortId = PortId(3);
const BRIDGE: BridgeId = BridgeId(0);
const ROUTER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xcc]);

fn mac(port: PortId) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, port.0 as u8])
}

/// The NIC has no name: what has none is called by its number.
fn name(port: PortId) -> String {
    match port {
        HOST => "vsw0".into(),
        POD => "shop/web-0".into(),
        BRIDGED => "shop/db-0".into(),
        other => other.to_string(),
    }
}

/// A node with a routed pod, a bridged one, and two peers.
fn tables() -> Tables {
    let mut tables = Tables::default();
    let port = |id, kind, attachment, addresses: &[&str]| {
        Some(Port {
            kind,
            attachment,
            mac: mac(id),
            mtu: 1450,
            offloads: Offloads { checksum: true, tso: true, uso: true, vxlan: false },
            addresses: addresses.iter().map(|text| address(text)).collect(),
            rx_limit: None,
            tx_limit: None,
        })
    };
    tables.ports = vec![
        port(HOST, PortRole::Host, Attachment::Routed, &[]),
        port(UPLINK, PortRole::Uplink, Attachment::Routed, &[]),
        port(POD, PortRole::Pod, Attachment::Routed, &["198.18.1.2", "fd00:18:1::2"]),
        port(BRIDGED, PortRole::Pod, Attachment::Bridged(BRIDGE), &["198.18.1.3"]),
    ];
    tables.gateway = Gateway {
        mac: Gateway::MAC,
        v4: Some([198, 18, 1, 1].into()),
        v6: Some("fd00:18:1::1".parse().expect("an address")),
        ..Gateway::default()
    };
    let (source, b) = ([198, 51, 100, 11].into(), [203, 0, 113, 12].into());
    let outer = Outer {
        source_mac: mac(UPLINK),
        next_hop_mac: ROUTER_MAC,
        ends: Ends::V4 { source, destination: b },
    };
    let vni = |number| Vni::new(number).expect("24 bits");
    let vtep = Tunnels::derived_vtep_mac(b);
    let own_vtep = Tunnels::derived_vtep_mac(source);
    let vxlan = Template::vxlan_routed(outer, vni(10), 4789, vtep, own_vtep);
    let ipip = Template::ipip(outer).expect("over IPv4");
    let direct = Template::ethernet(ROUTER_MAC, mac(UPLINK));
    let to = |port| Adjacency::Port {
        port,
        template: Template::ethernet(mac(port), Gateway::MAC),
        mtu: 1450,
    };
    let remote = |template, mtu| Adjacency::Remote { port: UPLINK, template, mtu };

    add(&mut tables, "0.0.0.0/0", to(HOST));
    add(&mut tables, "198.18.0.0/15", Adjacency::Unreachable);
    add(&mut tables, "198.18.66.0/24", Adjacency::Blackhole);
    let template = Template::ethernet(mac(HOST), Gateway::MAC);
    add(&mut tables, "198.18.1.1/32", Adjacency::Gateway { host: Some(HOST), template, mtu: 1450 });
    add(&mut tables, "198.18.1.2/32", to(POD));
    add(&mut tables, "fd00:18:1::2/128", to(POD));
    let template = Template::ethernet(mac(BRIDGED), Gateway::MAC);
    add(&mut tables, "198.18.1.3/32", Adjacency::Bridged { bridge: BRIDGE, template, mtu: 1450 });
    let first = add(&mut tables, "198.18.2.0/24", remote(Some(vxlan), 1450));
    let second = add(&mut tables, "198.18.3.0/24", remote(Some(ipip), 1480));
    add(&mut tables, "198.18.4.0/24", remote(Some(direct), 1500));
    add(&mut tables, "198.18.5.0/24", remote(None, 1450));
    let member = |number, adjacency, weight| Member {
        identity: IpAddr::from([203, 0, 113, number]),
        adjacency,
        weight,
    };
    let members = [member(12, first, 1), member(13, second, 3)];
    let group = Multipath::of(&members, &tables.adjacencies).expect("members");
    add(&mut tables, "198.18.9.0/24", Adjacency::Multipath(group));

    let mut bridge = Bridge { vni: Some(vni(100)), ..Bridge::default() };
    bridge.members.push(BRIDGED);
    bridge.fdb.insert(mac(BRIDGED), FdbTarget::Port(BRIDGED));
    let template = Some(Template::vxlan_bridged(outer, vni(100), 4789));
    for mtu in [1450, 1000] {
        bridge.vteps.push(RemoteVtep { address: b.into(), port: UPLINK, template, mtu });
    }
    bridge.fdb.insert(ROUTER_MAC, FdbTarget::Vtep(dataplane::tables::VtepId(0)));
    tables.bridges.push(bridge);

    let tunnels = Arc::make_mut(&mut tables.tunnels);
    tunnels.uplink = Some(UPLINK);
    tunnels.local.v4 = Some(source);
    tunnels.vtep_mac = own_vtep;
    tunnels.vxlan_port = Some(4789);
    tunnels.ipip = true;
    tunnels.direct = true;
    tunnels.clamp_mss = true;
    tunnels.vnis.insert(vni(10), Domain::Routed);
    tunnels.vnis.insert(vni(100), Domain::Bridged(BRIDGE));
    let prefixes = ["198.18.2.0/24", "198.18.3.0/24"].map(|text| text.parse().expect("a prefix"));
    tunnels.peers.push(Peer::new(b.into(), prefixes));
    tunnels.by_address.insert(b.into(), PeerId(0));
    tables
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn add(tables: &mut Tables, prefix: &str, adjacency: Adjacency) -> AdjacencyId {
    let id = AdjacencyId(tables.adjacencies.len() as u32);
    tables.adjacencies.push(adjacency);
    let (address, len) = prefix.split_once('/').expect("a prefix");
    let len = len.parse().expect("a length");
    match address.parse().expect("an address") {
        IpAddr::V4(v4) => tables.fib4.insert(v4, len, id),
        IpAddr::V6(v6) => tables.fib6.insert(v6, len, id),
    };
    id
}

/// A packet of 60 bytes from `source` to `dst`.
fn packet(dst: &str, protocol: &str) -> TracePacket {
    TracePacket {
        port: String::new(),
        dst_mac: None,
        src_mac: None,
        src: None,
        dst: address(dst),
        protocol: protocol.into(),
        src_port: 40_000,
        dst_port: 80,
        len: 60,
        ttl: 64,
        df: true,
    }
}

/// Its frame, from the pod to the gateway.
fn from_pod(packet: &TracePacket) -> Vec<u8> {
    let source = if packet.dst.is_ipv4() { "198.18.1.2" } else { "fd00:18:1::2" };
    build(packet, mac(POD), Gateway::MAC, address(source)).expect("a packet")
}

/// The same from the bridged pod.
fn from_bridged(packet: &TracePacket, to: MacAddr) -> Vec<u8> {
    build(packet, mac(BRIDGED), to, address("198.18.1.3")).expect("a packet")
}

/// A peer's frame around an inner one, in VXLAN.
fn in_vxlan(vni: u32, inner: &[u8]) -> Vec<u8> {
    let outer = TracePacket {
        dst_port: 4789,
        len: (20 + 8 + 8 + inner.len()) as u32,
        ..packet("198.51.100.11", "udp")
    };
    let mut bytes =
        build(&outer, ROUTER_MAC, mac(UPLINK), address("203.0.113.12")).expect("a packet");
    let begins = bytes.len() - inner.len();
    bytes[begins - 8] = 0x08;
    bytes[begins - 4..begins].copy_from_slice(&(vni << 8).to_be_bytes());
    bytes[begins..].copy_from_slice(inner);
    bytes
}

fn sessions() -> SessionTable {
    let header = Header { boot_id: 1, seed: 2, buckets: 64 };
    SessionTable::on_heap(&header).expect("two buckets at least")
}

/// Walks a frame; every line that people see of it.
fn traced(ingress: PortId, bytes: &[u8]) -> String {
    traced_at(Millis(0), &tables(), &sessions(), ingress, bytes)
}

fn traced_at(
    now: Millis,
    tables: &Tables,
    sessions: &SessionTable,
    ingress: PortId,
    bytes: &[u8],
) -> String {
    let pool = Pool::new(64);
    let mut frame = pool.alloc().expect("a frame is free");
    frame.extend_from_slice(bytes).expect("room");
    let fdb = Fdb::new(1, 1000);
    let trace = trace(tables, &fdb, sessions, &pool, ingress, Packet::plain(frame), now);
    let mut text = String::new();
    for event in &trace.events {
        let door = door(event, &name);
        text += &format!("{:<9}{}\n", door.door, door.said);
    }
    text + &verdict(&trace.verdict, &name) + "\n"
}

#[test]
fn traces_are_worded_as_they_always_were() {
    let mut text = String::new();
    let with_ttl = |ttl, packet| TracePacket { ttl, ..packet };
    let long = |len, df, packet| TracePacket { len, df, ..packet };
    let arp = |to| {
        let mut bytes = [&[0xff; 6][..], &mac(POD).0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        bytes.extend([&mac(POD).0[..], &[198, 18, 1, 2], &[0; 6], to].concat());
        bytes
    };
    let mut show = |title: &str, ingress, bytes: &[u8]| {
        text += &format!("== {title}\n{}\n", traced(ingress, bytes));
    };
    show("a routed pod to a bridged one", POD, &from_pod(&packet("198.18.1.3", "tcp")));
    show("a pod to itself, IPv6", POD, &from_pod(&packet("fd00:18:1::2", "udp")));
    show("by VXLAN", POD, &from_pod(&packet("198.18.2.7", "udp")));
    show("TCP by VXLAN", POD, &from_pod(&packet("198.18.2.7", "tcp")));
    let mut syn = from_pod(&packet("198.18.2.7", "tcp"));
    syn.truncate(14 + 44);
    syn[17] = 44;
    syn[46] = 6 << 4;
    syn[54..58].copy_from_slice(&[2, 4, 0x05, 0xb4]);
    syn[24..26].fill(0);
    let sum = dataplane::wire::checksum::Sum::new().bytes(&syn[14..34]).finish();
    syn[24..26].copy_from_slice(&sum.to_be_bytes());
    show("a SYN that announces too large segments", POD, &syn);
    show("by IPIP", POD, &from_pod(&packet("198.18.3.7", "udp")));
    show("without encapsulation", POD, &from_pod(&packet("198.18.4.7", "udp")));
    show("the next hop is not resolved", POD, &from_pod(&packet("198.18.5.7", "udp")));
    show("one of several next hops", POD, &from_pod(&packet("198.18.9.7", "udp")));
    show("unreachable", POD, &from_pod(&packet("198.18.7.7", "udp")));
    show("a blackhole", POD, &from_pod(&packet("198.18.66.7", "udp")));
    show("no route", POD, &from_pod(&packet("2001:db8::1", "udp")));
    show("to the gateway", POD, &from_pod(&packet("198.18.1.1", "udp")));
    show("a ping to the gateway", POD, &from_pod(&packet("198.18.1.1", "icmp")));
    show("to the world, by a protocol without a name", POD, &from_pod(&packet("192.0.2.1", "99")));
    show("TTL 1", POD, &from_pod(&with_ttl(1, packet("198.18.2.7", "udp"))));
    show("too big", POD, &from_pod(&long(3000, true, packet("198.18.2.7", "udp"))));
    show(
        "too big, and may be cut",
        POD,
        &from_pod(&long(3000, false, packet("198.18.2.7", "udp"))),
    );
    show("ARP for another pod", POD, &arp(&[198, 18, 1, 9]));
    show("ARP for the own address", POD, &arp(&[198, 18, 1, 2]));
    let mut other = from_pod(&packet("198.18.1.3", "udp"));
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    show("neither IP nor ARP", POD, &other);
    let mut broken = from_pod(&packet("198.18.1.3", "udp"));
    broken[24] ^= 1;
    show("a wrong header checksum", POD, &broken);
    show("a port that is gone", PortId(9), &broken);
    let broadcast = MacAddr([0xff; 6]);
    show(
        "a bridged pod to itself",
        BRIDGED,
        &from_bridged(&packet("198.18.1.9", "udp"), mac(BRIDGED)),
    );
    show(
        "to a VTEP of the segment",
        BRIDGED,
        &from_bridged(&packet("198.18.1.9", "udp"), ROUTER_MAC),
    );
    show("a broadcast", BRIDGED, &from_bridged(&packet("198.18.1.9", "udp"), broadcast));
    show(
        "a broadcast that one VTEP is too small for",
        BRIDGED,
        &from_bridged(&long(1200, true, packet("198.18.1.9", "udp")), broadcast),
    );
    let inner = |to: MacAddr, source, dst| {
        build(
            &packet(dst, "udp"),
            Tunnels::derived_vtep_mac([203, 0, 113, 12]),
            to,
            address(source),
        )
        .expect("a packet")
    };
    let vtep = Tunnels::derived_vtep_mac([198, 51, 100, 11]);
    show("from a peer by VXLAN", UPLINK, &in_vxlan(10, &inner(vtep, "198.18.2.7", "198.18.1.2")));
    show(
        "from a peer by VXLAN, not its address",
        UPLINK,
        &in_vxlan(10, &inner(vtep, "198.18.8.7", "198.18.1.2")),
    );
    show(
        "from a VTEP of the segment",
        UPLINK,
        &in_vxlan(100, &inner(mac(BRIDGED), "198.18.1.7", "198.18.1.3")),
    );
    show(
        "a broadcast from a VTEP",
        UPLINK,
        &in_vxlan(100, &inner(broadcast, "198.18.1.7", "198.18.1.3")),
    );
    show("an unknown VNI", UPLINK, &in_vxlan(11, &inner(broadcast, "198.18.1.7", "198.18.1.3")));
    let ipip = {
        let inner = inner(vtep, "198.18.3.7", "198.18.1.2");
        let outer = TracePacket { len: 20 + 60, ..packet("198.51.100.11", "4") };
        let mut bytes =
            build(&outer, ROUTER_MAC, mac(UPLINK), address("203.0.113.12")).expect("a packet");
        bytes[34..].copy_from_slice(&inner[14..]);
        bytes
    };
    show("from a peer by IPIP", UPLINK, &ipip);
    show(
        "from the underlay",
        UPLINK,
        &build(&packet("198.18.1.2", "udp"), ROUTER_MAC, mac(UPLINK), address("192.0.2.1"))
            .expect("a packet"),
    );
    // A router of the underlay quotes a packet of ours that was too large.
    let quoted = {
        let outer = TracePacket { dst_port: 4789, len: 1500, ..packet("203.0.113.12", "udp") };
        build(&outer, ROUTER_MAC, mac(UPLINK), address("198.51.100.11")).expect("a packet")
    };
    let mut icmp = build(
        &TracePacket { len: 20 + 8 + 28, ..packet("198.51.100.11", "icmp") },
        ROUTER_MAC,
        mac(UPLINK),
        address("192.0.2.1"),
    )
    .expect("a packet");
    icmp[34..42].copy_from_slice(&[3, 4, 0, 0, 0, 0, 0x05, 0x78]);
    icmp[42..].copy_from_slice(&quoted[14..42]);
    let sum = dataplane::wire::checksum::Sum::new().bytes(&icmp[34..]).finish();
    icmp[36..38].copy_from_slice(&sum.to_be_bytes());
    show("a router of the underlay tells the path MTU", UPLINK, &icmp);
    let expected = include_str!("traces.txt");
    let expected = expected.split_once("\n\n").expect("a heading").1;
    for (found, expected) in text.split("\n\n").zip(expected.split("\n\n")) {
        assert_eq!(found.trim(), expected.trim());
    }
    assert_eq!(text.trim(), expected.trim());
}
