//! What is true of any packet, from whichever port.

use std::net::{IpAddr, Ipv6Addr};

use dataplane::tables::{Attachment, Port, PortId, PortRole};
use etherparse::{LaxNetSlice, LaxSlicedPacket, NetSlice, SlicedPacket, TransportSlice};
use frame::{Checksum, Gso, GsoKind, Offload};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::node::{Node, Worker};

/// A node with a port of every kind and a peer of every encapsulation.
const A: &str = "underlay 198.51.100.11 2001:db8:1::11
    vxlan 10
    clamp-mss
    ipip
    direct
    host
    gateway 198.18.1.1 fd00:18:1::1
    bridge red vni 100
    bridge blue vni 200
    pod a 198.18.1.2 fd00:18:1::2
    pod p 198.18.1.4 fd00:18:1::4 plain
    pod m 198.18.1.66 fd00:18:1::66 in red
    pod n 198.18.1.67 in red plain
    pod y 198.18.1.70 in blue
    pod z 198.18.1.71 in blue
    peer b 203.0.113.12 vxlan 198.18.2.0/24 fd00:18:2::/64
    peer c 203.0.113.13 ipip 198.18.3.0/24 fd00:18:3::/64
    peer d 203.0.113.14 direct 198.18.4.0/24
    multipath 198.18.9.0/24 b c d
    peer e 2001:db8:2::12 vxlan 198.18.5.0/24 fd00:18:5::/64
    stretch red to b
    stretch red to e
    stretch blue to b
    route 198.18.0.0/15 unreachable
    frames 16";

/// Valid packets, from which the others are bent.
const SEEDS: &[&str] = &[
    "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.4 / udp 1 > 2 / 40 bytes",
    "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.2.7 / tcp 1 > 2 partial / 3000 bytes / gso tcp4 1000",
    "pod-a eth pod-a > gateway / ip fd00:18:1::2 > fd00:18:5::7 / tcp 1 > 2 partial / 3000 bytes / gso tcp6 1000",
    "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.5.7 / udp 1 > 2 partial / 40 bytes",
    "uplink eth router > uplink / ip 2001:db8:2::12 > 2001:db8:1::11 / udp 50000 > 4789 nosum / vxlan 10 / \
     eth vtep-e > vtep6 / ip 198.18.5.7 > 198.18.1.2 ttl 2 / udp 1 > 2 / 40 bytes",
    "uplink eth router > uplink / ip 2001:db8:2::12 > 2001:db8:1::11 ce / udp 50000 > 4789 nosum / vxlan 100 / \
     eth 02:bb:00:00:00:03 > pod-m / ip fd00:18:1::98 > fd00:18:1::66 ect0 / udp 1 > 2 / 40 bytes",
    "pod-a eth pod-a > gateway / ip fd00:18:1::2 > fd00:18:3::7 ext 2 / tcp 1 > 2 partial / 3000 bytes / gso tcp6 1000",
    "pod-a eth pod-a > gateway / ip fd00:18:1::2 > fd00:18:1::4 / udp 1 > 2 partial / 3000 bytes / gso udp 1000",
    "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.2.7 / udp 1 > 2 / 3000 bytes",
    "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.2.7 frag 65528 proto 17 / 3000 bytes",
    "uplink eth router > uplink / ip 192.0.2.1 > 198.51.100.11 / icmp too-big 1400 / \
     ip 198.51.100.11 > 203.0.113.12 df len 1500 / udp 50000 > 4789 nosum len 1480",
    "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.2.7 / udp 1 > 2 partial / 3000 bytes / gso udp 1600",
    "pod-a eth pod-a > gateway / ip fd00:18:1::2 > fd00:18:2::7 / tcp 1 > 2 flags S mss 8960 options 8",
    "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.9.7 / udp 1 > 2 / 40 bytes",
    "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.1 / icmp echo 1 1 partial / 30 bytes",
    "pod-a eth pod-a > broadcast / arp who-has 198.18.1.1 tell 198.18.1.2 at pod-a / pad 18",
    "pod-a eth pod-a > gateway / ip fd00:18:1::2 > fd00:18:1::1 ttl 255 / nd solicit fd00:18:1::1 from pod-a",
    "pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.4 ttl 1 options 8 / udp 1 > 2 / 40 bytes",
    "pod-m eth pod-m > pod-n / ip 198.18.1.66 > 198.18.1.67 / tcp 1 > 2 partial / 3000 bytes / gso tcp4 1000",
    "pod-m eth pod-m > 02:bb:00:00:00:01 / ip fd00:18:1::66 > fd00:18:1::99 / udp 1 > 2 / 40 bytes",
    "pod-m eth pod-m > broadcast / arp who-has 198.18.1.67 tell 198.18.1.66 at pod-m",
    "pod-m eth pod-m > broadcast / arp who-has 198.18.1.66 tell 0.0.0.0 at pod-m",
    "pod-m eth pod-m > pod-n / ip fd00:18:1::66 > fd00:18:1::67 ttl 255 / nd advertise fd00:18:1::66 at pod-m",
    "pod-m eth pod-m > 33:33:ff:00:00:66 / ip :: > ff02::1:ff00:66 ttl 255 / nd solicit fd00:18:1::66",
    "pod-m eth pod-m > pod-n / ip 198.18.1.66 > 198.18.1.67 options 8 / icmp type 3 code 1 / 28 bytes",
    "pod-m eth pod-m > broadcast / ip 0.0.0.0 > 255.255.255.255 / udp 68 > 67 / 240 bytes",
    "pod-y eth pod-y > gateway / ip 198.18.1.70 > 198.18.1.66 / udp 1 > 2 / 40 bytes",
    "uplink eth router > uplink / ip 203.0.113.12 > 198.51.100.11 / udp 50000 > 4789 nosum / vxlan 200 / \
     eth 02:bb:00:00:00:02 > pod-y type 88b5 / 60 bytes",
    "host eth host > gateway / ip 198.18.1.1 > 198.18.1.66 / udp 1 > 2 / 40 bytes",
    "host eth host > broadcast / arp who-has 198.18.1.2 tell 198.18.1.1 at host",
    "uplink eth router > uplink / ip 203.0.113.12 > 198.51.100.11 / udp 50000 > 4789 nosum / vxlan 10 / \
     eth vtep-b > vtep / ip 198.18.2.7 > 198.18.1.2 ttl 2 / udp 1 > 2 / 40 bytes",
    "uplink eth router > uplink / ip 203.0.113.12 > 198.51.100.11 ce / udp 50000 > 4789 nosum / vxlan 100 / \
     eth 02:bb:00:00:00:01 > broadcast / ip 198.18.1.99 > 198.18.1.255 ect0 / udp 1 > 2 / 40 bytes",
    "uplink eth router > uplink / ip 203.0.113.12 > 198.51.100.11 / udp 50000 > 4789 nosum / vxlan 200 / \
     eth 02:bb:00:00:00:01 > pod-y / ip fd00:18:1::99 > fd00:18:1::70 / udp 1 > 2 / 40 bytes",
    "uplink eth router > uplink / ip 203.0.113.13 > 198.51.100.11 / ip 198.18.3.7 > 198.18.1.2 / udp 1 > 2 / 40 bytes",
    "uplink eth router > uplink / ip 203.0.113.13 > 198.51.100.11 / ip fd00:18:3::7 > fd00:18:1::2 ttl 1 / udp 1 > 2 / 40 bytes",
    "uplink eth router > uplink / ip 198.18.4.7 > 198.18.1.2 / tcp 1 > 2 / 40 bytes",
];

/// The segment that a packet belongs to when it comes in or leaves, unless it is routed.
fn segment(node: &Node, port: PortId, bytes: &[u8]) -> Option<u32> {
    const VNIS: [u32; 2] = [100, 200];
    let attached = node.tables.port(port).expect("attached");
    match (attached.kind, attached.attachment) {
        (PortRole::Pod, Attachment::Bridged(bridge)) => Some(VNIS[usize::from(bridge.0)]),
        (PortRole::Uplink, _) => vni(bytes).filter(|vni| VNIS.contains(vni)),
        _ => None,
    }
}

/// Of a VXLAN packet; etherparse says whether it is UDP at all.
fn vni(bytes: &[u8]) -> Option<u32> {
    match SlicedPacket::from_ethernet(bytes).ok()?.transport? {
        TransportSlice::Udp(udp) if udp.destination_port() == 4789 => {
            let header: &[u8; 8] = udp.payload().first_chunk()?;
            Some(u32::from_be_bytes([0, header[4], header[5], header[6]]))
        }
        _ => None,
    }
}

/// The IP packet inside of a tunnel packet that leaves; the packet itself if it is none.
fn inner(bytes: &[u8]) -> &[u8] {
    let start = match (vni(bytes), bytes.get(23)) {
        (Some(_), _) if bytes[12..14] == [0x86, 0xdd] => 70 + 14,
        (Some(_), _) => 50 + 14,
        (None, Some(4 | 41)) if bytes[12..14] == [8, 0] => 34,
        _ => 14,
    };
    bytes.get(start..).unwrap_or_default()
}

/// Over IPv6 a tunnel packet leaves with a checksum, and with that which etherparse computes.
fn outer_sum_holds(bytes: &[u8]) {
    let Ok(packet) = SlicedPacket::from_ethernet(bytes) else { return };
    if let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Udp(udp))) =
        (packet.net, packet.transport)
        && udp.destination_port() == 4789
    {
        let (source, destination) = (ip.header().source(), ip.header().destination());
        let sum = udp.to_header().calc_checksum_ipv6_raw(source, destination, udp.payload());
        assert_eq!(sum.expect("short enough"), udp.checksum());
        assert_ne!(udp.checksum(), 0);
        assert_eq!(usize::from(ip.header().payload_length()) + 54, bytes.len());
    }
}

/// Makes the checksum of an IPv4 header right again, so that a bent packet gets past it.
fn repair(bytes: &mut [u8], at: usize) {
    let Some(header) = bytes.get_mut(at..) else { return };
    let len = header.first().map_or(0, |first| usize::from(first & 15) * 4);
    if header.first().is_some_and(|first| first >> 4 == 4) && (20..=header.len()).contains(&len) {
        header[10..12].fill(0);
        let checksum = !sum(&header[..len]);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Of an IPv4 header as it lies there: etherparse's own value has no place for the reserved flag.
fn sum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

fn any_offload() -> impl Strategy<Value = Offload> {
    let sum = prop_oneof![
        3 => Just(Checksum::Unchecked),
        1 => Just(Checksum::Valid),
        2 => (0u16..200, 0u16..40).prop_map(|(start, offset)| Checksum::Partial { start, offset }),
    ];
    let kind = prop_oneof![
        any::<bool>().prop_map(|ecn| GsoKind::Tcp4 { ecn }),
        any::<bool>().prop_map(|ecn| GsoKind::Tcp6 { ecn }),
        Just(GsoKind::Udp),
    ];
    let gso = (kind, prop_oneof![0u16..2000, any::<u16>()], any::<u16>())
        .prop_map(|(kind, size, header_len)| Gso { kind, size, header_len, vxlan: None });
    (sum, proptest::option::of(gso)).prop_map(|(checksum, gso)| Offload { checksum, gso })
}

/// On its segment a pod speaks in its own name, by ARP and IP alone, and is no router.
fn speaks_for_itself(pod: &Port, frame: &[u8]) {
    let own = |address: IpAddr| pod.addresses.contains(&address);
    let own_v6 = |v6: Ipv6Addr| v6 == pod.mac.link_local() || own(v6.into());
    assert_eq!(frame[6..12], pod.mac.0, "the source MAC");
    // Lax, as a transport's lengths are for its receiver to check.
    let packet = LaxSlicedPacket::from_ethernet(frame).expect("what passes can be read");
    match packet.net.expect("ARP or IP") {
        LaxNetSlice::Arp(arp) => {
            let [sender, target] = [14, 24].map(|at| arp.slice().get(at..at + 4).expect("IPv4"));
            let [sender, target] = [sender, target]
                .map(|bytes: &[u8]| IpAddr::from(*bytes.first_chunk::<4>().expect("four bytes")));
            assert_eq!(arp.slice()[8..14], pod.mac.0, "the sender's MAC");
            assert!(own(if sender.is_unspecified() { target } else { sender }), "{sender}");
        }
        LaxNetSlice::Ipv4(ip) => {
            let source = ip.header().source_addr();
            assert!(source.is_unspecified() || own(source.into()), "{source}");
        }
        LaxNetSlice::Ipv6(ip) => {
            let source = ip.header().source_addr();
            assert!(source.is_unspecified() || own_v6(source), "{source}");
        }
    }
    match packet.transport {
        Some(TransportSlice::Icmpv6(icmp)) => {
            assert!(!matches!(icmp.type_u8(), 130 | 134 | 137 | 151), "type {}", icmp.type_u8());
            let target = icmp.slice().get(8..24).map(|at| at.first_chunk().expect("16 bytes"));
            if let (136, Some(target)) = (icmp.type_u8(), target) {
                let target = Ipv6Addr::from(*target);
                assert!(own_v6(target), "{target}");
            }
        }
        Some(TransportSlice::Icmpv4(icmp)) => assert_ne!(icmp.type_u8(), 5),
        Some(TransportSlice::Udp(udp)) => assert!(![68, 546].contains(&udp.destination_port())),
        _ => {}
    }
}

/// What holds of every packet, wherever it came from.
fn holds(worker: &mut Worker, port: PortId, bytes: &[u8], offload: Offload) {
    let sent = worker.process(port, bytes, offload);
    let node = &worker.node;
    let kind = node.tables.port(port).expect("attached").kind;
    let gateways = [node.tables.gateway.v4.map(IpAddr::V4), node.tables.gateway.v6.map(IpAddr::V6)];
    let for_gateway = kind == PortRole::Pod && bytes.get(..6) == Some(&[2, 0x76, 0x73, 0, 0, 1]);
    for sent in &sent {
        if let Some(segment_in) = segment(node, port, bytes).filter(|_| !for_gateway) {
            let out = segment(node, sent.port, &sent.bytes);
            assert_eq!(out, Some(segment_in), "{} sent to {}", segment_in, sent.port);
            let [from, to] =
                [port, sent.port].map(|port| node.tables.port(port).expect("attached"));
            if from.kind == PortRole::Pod && to.kind == PortRole::Pod && port != sent.port {
                speaks_for_itself(from, &sent.bytes);
            }
        }
        let to_uplink = node.tables.port(sent.port).expect("attached").kind == PortRole::Uplink;
        if kind == PortRole::Uplink && to_uplink {
            let packet = SlicedPacket::from_ip(inner(&sent.bytes)).expect("an IP packet");
            let from = match packet.net.expect("an IP header") {
                NetSlice::Ipv4(ip) => IpAddr::V4(ip.header().source_addr()),
                NetSlice::Ipv6(ip) => IpAddr::V6(ip.header().source_addr()),
                NetSlice::Arp(_) => unreachable!("sliced as IP"),
            };
            assert!(gateways.contains(&Some(from)), "{from} goes back where it came from");
            let icmp = packet.transport.expect("a transport");
            assert!(matches!(icmp, TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)));
        }
        if to_uplink {
            let ip = etherparse::Ipv4HeaderSlice::from_slice(&sent.bytes[14..]);
            if let Ok(ip) = ip {
                assert_eq!(usize::from(ip.total_len()) + 14, sent.bytes.len());
                assert_eq!(sum(ip.slice()), 0xffff);
            }
            outer_sum_holds(&sent.bytes);
        }
    }
}

/// Policies of pods of every kind, beside `A`.
const POLICIES: &str = "
    policy shop/a ingress pod-a from 198.18.2.0/24 198.18.1.0/24 ports udp 2
    policy shop/p egress pod-p to 198.18.1.0/24
    policy shop/m ingress pod-m from 198.18.1.0/24
    policies pending pod-y";

/// What is bent of a packet.
type Bent = (Index, Option<Index>, Vec<(Index, u8)>, Option<Index>, Option<Offload>);

fn bent() -> impl Strategy<Value = Bent> {
    (
        any::<Index>(),
        proptest::option::weighted(0.1, any::<Index>()),
        proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        proptest::option::weighted(0.1, any::<Index>()),
        proptest::option::weighted(0.3, any_offload()),
    )
}

/// A packet, bent, and the port where it comes in.
fn bend(worker: &Worker, (seed, port, edits, cut, offload): Bent) -> (PortId, Vec<u8>, Offload) {
    let (own_port, described) = worker.described(SEEDS[seed.index(SEEDS.len())]);
    let mut bytes = described.bytes;
    // Most of what is read is in front.
    let front = bytes.len().min(120);
    for (at, byte) in edits {
        bytes[at.index(front)] = byte;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    for header in [14, 34, 64] {
        repair(&mut bytes, header);
    }
    let port = port.map_or(own_port, |to| PortId(to.index(worker.node.ports.len()) as u16));
    (port, bytes, offload.unwrap_or(described.offload))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_from_any_port(
        packets in proptest::collection::vec(
            (any::<Index>(), proptest::collection::vec(any::<u8>(), 0..200), any_offload()),
            1..20,
        ),
    ) {
        let mut worker = Worker::new(A);
        for (port, bytes, offload) in packets {
            let port = PortId(port.index(worker.node.ports.len()) as u16);
            holds(&mut worker, port, &bytes, offload);
        }
    }

    #[test]
    fn bent_packets_from_any_port(packets in proptest::collection::vec(bent(), 1..20)) {
        let mut worker = Worker::new(A);
        for packet in packets {
            let (port, bytes, offload) = bend(&worker, packet);
            holds(&mut worker, port, &bytes, offload);
        }
    }

    #[test]
    fn bent_packets_of_pods_with_policies(packets in proptest::collection::vec(bent(), 1..20)) {
        let mut worker = Worker::new(&format!("{A}{POLICIES}"));
        for packet in packets {
            let (port, bytes, offload) = bend(&worker, packet);
            holds(&mut worker, port, &bytes, offload);
        }
    }

    #[test]
    fn policies_change_nothing_for_ports_that_they_do_not_concern(
        packets in proptest::collection::vec(bent(), 1..20)
    ) {
        // The last port is nobody's seed, and on no segment.
        let bystander = format!("{A}\npod x 198.18.1.99");
        let mut without = Worker::new(&bystander);
        let mut with = Worker::new(&format!("{bystander}\npolicy shop/x ingress pod-x isolate"));
        let x = without.node.port("pod-x").expect("above");
        for packet in packets {
            let (port, bytes, offload) = bend(&without, packet);
            let left = without.process(port, &bytes, offload);
            let left_with = with.process(port, &bytes, offload);
            if port != x && left.iter().all(|sent| sent.port != x) {
                prop_assert_eq!(left_with, left);
            }
        }
    }
}
