//! What arrives: of a superframe that was cut, and of a packet that crossed two nodes.

use std::net::IpAddr;

use dataplane::tables::PortId;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use crate::node::Worker;
use crate::node::egress::Sent;
use crate::node::topology::{ROUTER_MAC, UPLINK_MAC};

const A: &str = "underlay 198.51.100.11 2001:db8:1::11
    vxlan 10
    ipip
    gateway 198.18.1.1 fd00:18:1::1
    pod a 198.18.1.2 fd00:18:1::2
    pod p 198.18.1.4 fd00:18:1::4 plain
    peer b 203.0.113.12 vxlan 198.18.2.0/24 fd00:18:2::/64
    peer c 203.0.113.12 ipip 198.18.3.0/24 fd00:18:3::/64
    peer d 2001:db8:2::12 vxlan 198.18.4.0/24 fd00:18:4::/64";

/// The node behind all of A's peers.
const B: &str = "underlay 203.0.113.12 2001:db8:2::12
    vxlan 10
    ipip
    gateway 198.18.2.1 fd00:18:2::1
    pod b 198.18.2.7 fd00:18:2::7
    pod c 198.18.3.7 fd00:18:3::7
    pod d 198.18.4.7 fd00:18:4::7
    peer a 198.51.100.11 vxlan 198.18.1.0/24 fd00:18:1::/64
    peer z 2001:db8:1::11 vxlan 198.18.1.0/24 fd00:18:1::/64";

/// Where a packet from `pod-a` goes: whom for, the port that it leaves by, bytes of outer headers.
#[derive(Debug, Clone, Copy)]
struct Way {
    to: [&'static str; 2],
    port: &'static str,
    /// The pod that it arrives at.
    pod: &'static str,
    outer: usize,
    mtu: usize,
}

const HERE: Way =
    Way { to: ["198.18.1.4", "fd00:18:1::4"], port: "pod-p", pod: "pod-p", outer: 0, mtu: 1450 };
const VXLAN: Way = Way {
    to: ["198.18.2.7", "fd00:18:2::7"],
    port: "uplink",
    pod: "pod-b",
    outer: 14 + 36,
    mtu: 1450,
};
/// The outer header has 20 bytes more.
const VXLAN_V6: Way = Way {
    to: ["198.18.4.7", "fd00:18:4::7"],
    port: "uplink",
    pod: "pod-d",
    outer: 14 + 56,
    mtu: 1430,
};
/// No inner Ethernet header: what is in front of the inner IP packet is 34 bytes, not 14.
const IPIP: Way =
    Way { to: ["198.18.3.7", "fd00:18:3::7"], port: "uplink", pod: "pod-c", outer: 20, mtu: 1480 };

fn source(v6: bool) -> &'static str {
    if v6 { "fd00:18:1::2" } else { "198.18.1.2" }
}

/// One transport segment, checked against its own checksum.
struct Piece {
    payload: Vec<u8>,
    sequence: Option<u32>,
    ip_len: usize,
}

/// Etherparse reads the piece and sums it again.
fn piece(sent: &Sent, way: Way) -> Piece {
    let ip = &sent.bytes[way.outer + 14..];
    let packet = SlicedPacket::from_ip(ip).expect("a well-formed IP packet");
    let (from, to): (IpAddr, IpAddr) = match packet.net.as_ref().expect("IP") {
        NetSlice::Ipv4(v4) => {
            let header = v4.header();
            assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum());
            assert_eq!(usize::from(header.total_len()), ip.len());
            (header.source_addr().into(), header.destination_addr().into())
        }
        NetSlice::Ipv6(v6) => {
            assert_eq!(usize::from(v6.header().payload_length()) + 40, ip.len());
            (v6.header().source_addr().into(), v6.header().destination_addr().into())
        }
        NetSlice::Arp(_) => unreachable!("sliced as IP"),
    };
    let (sum, calculated, payload, sequence) = match packet.transport.as_ref().expect("transport") {
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            let calculated = match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    header.calc_checksum_ipv4_raw(from.octets(), to.octets(), tcp.payload())
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    header.calc_checksum_ipv6_raw(from.octets(), to.octets(), tcp.payload())
                }
                _ => unreachable!("one version"),
            };
            (tcp.checksum(), calculated, tcp.payload(), Some(tcp.sequence_number()))
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            assert_eq!(usize::from(header.length), udp.payload().len() + 8);
            let calculated = match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    header.calc_checksum_ipv4_raw(from.octets(), to.octets(), udp.payload())
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    header.calc_checksum_ipv6_raw(from.octets(), to.octets(), udp.payload())
                }
                _ => unreachable!("one version"),
            };
            (udp.checksum(), calculated, udp.payload(), None)
        }
        other => panic!("{other:?} was not sent"),
    };
    assert_eq!(sum, calculated.expect("short enough"), "the checksum of a piece");
    Piece { payload: payload.to_vec(), sequence, ip_len: ip.len() }
}

/// A superframe of `pod-a`, in the notation of packets.
fn superframe(tcp: bool, v6: bool, way: Way, len: usize, size: usize, seq: u32) -> String {
    let ends = format!("ip {} > {}", source(v6), way.to[usize::from(v6)]);
    let (transport, kind) = match (tcp, v6) {
        (true, false) => (format!("tcp 1 > 2 partial seq {seq} options 12 flags AP"), "tcp4"),
        (true, true) => (format!("tcp 1 > 2 partial seq {seq} options 12 flags AP"), "tcp6"),
        (false, _) => ("udp 1 > 2 partial".to_owned(), "udp"),
    };
    format!("pod-a eth pod-a > gateway / {ends} / {transport} / {len} bytes / gso {kind} {size}")
}

fn any_way() -> impl Strategy<Value = Way> {
    prop_oneof![Just(HERE), any_tunnel()]
}

fn any_tunnel() -> impl Strategy<Value = Way> {
    prop_oneof![Just(VXLAN), Just(VXLAN_V6), Just(IPIP)]
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn through(worker: &mut Worker, text: &str) -> Vec<Sent> {
    let (port, packet) = worker.described(text);
    worker.process(port, &packet.bytes, packet.offload)
}

/// What leaves by A's NIC, as the underlay's last router sends it on to B's.
fn over_the_underlay(sent: Vec<Sent>) -> Vec<Sent> {
    let routed = |sent: Sent| {
        let bytes = [&UPLINK_MAC.0[..], &ROUTER_MAC.0, &sent.bytes[12..]].concat();
        Sent { bytes, ..sent }
    };
    sent.into_iter().map(routed).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_pieces_of_a_superframe_are_its_payload(
        tcp in any::<bool>(),
        v6 in any::<bool>(),
        way in any_way(),
        len in 1usize..20_000,
        size in 100usize..1358,
        seq in any::<u32>(),
    ) {
        let mut node = Worker::new(A);
        let sent = through(&mut node, &superframe(tcp, v6, way, len, size, seq));
        let port = node.node.port(way.port).expect("a port");
        prop_assert_eq!(sent.len(), len.div_ceil(size));
        let mut payload = Vec::new();
        for sent in &sent {
            prop_assert_eq!(sent.port, port);
            let piece = piece(sent, way);
            prop_assert!(piece.payload.len() <= size && piece.ip_len <= way.mtu);
            if let Some(sequence) = piece.sequence {
                prop_assert_eq!(sequence, seq.wrapping_add(payload.len() as u32));
            }
            payload.extend(piece.payload);
        }
        prop_assert_eq!(payload, pattern(len));
    }

    #[test]
    fn the_overlay_costs_two_hops_and_nothing_else(
        protocol in 0..3,
        v6 in any::<bool>(),
        way in any_tunnel(),
        len in 0usize..1300,
        ttl in 3u8..=255,
        tos in any::<u8>(),
        id in any::<u16>(),
        pad in 0usize..30,
    ) {
        let pod = way.pod;
        let ends = format!("ip {} > {} tos {tos}", source(v6), way.to[usize::from(v6)]);
        let id = if v6 { String::new() } else { format!(" df id {id} options 4") };
        let transport = match protocol {
            0 => "udp 1 > 2",
            1 => "tcp 1 > 2 options 8 flags SE",
            _ => "icmp echo 5 6",
        };
        let inside = |ttl: u8| format!("{ends}{id} ttl {ttl} / {transport} / {len} bytes");
        let (mut a, mut b) = (Worker::new(A), Worker::new(B));
        let sent = through(
            &mut a,
            &format!("pod-a eth pod-a > gateway / {} / pad {pad}", inside(ttl)),
        );
        let sent = over_the_underlay(sent);
        prop_assert_eq!(sent.len(), 1);
        let arrived = b.process(PortId(0), &sent[0].bytes, sent[0].offload);
        prop_assert_eq!(arrived.len(), 1);
        let (port, expected) = b.described(&format!("{pod} eth gateway > {pod} / {}", inside(ttl - 2)));
        prop_assert_eq!(arrived[0].port, port);
        prop_assert_eq!(&arrived[0].bytes, &expected.bytes);
    }

    #[test]
    fn a_superframe_arrives_whole_at_the_second_node(
        tcp in any::<bool>(),
        v6 in any::<bool>(),
        way in any_tunnel(),
        len in 1usize..20_000,
        size in 100usize..1358,
    ) {
        let (mut a, mut b) = (Worker::new(A), Worker::new(B));
        let mut payload = Vec::new();
        let sent = through(&mut a, &superframe(tcp, v6, way, len, size, 7));
        for sent in over_the_underlay(sent) {
            let arrived = b.process(PortId(0), &sent.bytes, sent.offload);
            prop_assert_eq!(arrived.len(), 1);
            payload.extend(piece(&arrived[0], HERE).payload);
        }
        prop_assert_eq!(payload, pattern(len));
    }

    #[test]
    fn the_fragments_of_a_packet_are_the_packet(
        ipip in any::<bool>(),
        partial in any::<bool>(),
        // What a tunnel leaves of an Ethernet's MTU, less the header, is not a multiple of eight.
        len in 1420usize..65_000,
        offset in 0usize..64,
        more in any::<bool>(),
        id in any::<u16>(),
    ) {
        let way = if ipip { IPIP } else { VXLAN };
        let offset = offset * 8;
        let first = offset == 0 && !more;
        let len = if first { len } else { len / 8 * 8 };
        let flags = format!("id {id} frag {offset}{}", if more { " more" } else { "" });
        let transport = match (first, partial) {
            (true, true) => "udp 1 > 2 partial",
            (true, false) => "udp 1 > 2",
            (false, _) => "hex 01 02 03 04 05 06 07 08",
        };
        let inside = |ttl: u8, transport: &str| {
            format!("eth pod-a > gateway / ip {} > {} ttl {ttl} {flags} proto 17 / {transport} / {len} bytes",
                source(false), way.to[0])
        };
        let mut node = Worker::new(A);
        let sent = through(&mut node, &format!("pod-a {}", inside(9, transport)));
        let whole = node.described(&format!("pod-a {}", inside(8, &transport.replace(" partial", "")))).1.bytes;
        let (header, wanted) = whole[14..].split_at(20);

        let mut payload = Vec::new();
        for (at, one) in sent.iter().enumerate() {
            let outer = etherparse::Ipv4HeaderSlice::from_slice(&one.bytes[14..]).expect("outer");
            prop_assert_eq!(usize::from(outer.total_len()) + 14, one.bytes.len());
            prop_assert_eq!(outer.to_header().calc_header_checksum(), outer.header_checksum());
            let bytes = &one.bytes[way.outer + 14..];
            prop_assert!(bytes.len() <= way.mtu);
            let ip = etherparse::Ipv4HeaderSlice::from_slice(bytes).expect("an IPv4 packet");
            prop_assert_eq!(usize::from(ip.total_len()), bytes.len());
            prop_assert_eq!(ip.to_header().calc_header_checksum(), ip.header_checksum());
            prop_assert_eq!(usize::from(ip.fragments_offset().value()) * 8, offset + payload.len());
            prop_assert_eq!(ip.more_fragments(), more || at + 1 < sent.len());
            // All else is as it was.
            prop_assert_eq!(&bytes[..2], &header[..2]);
            prop_assert_eq!(&bytes[4..6], &header[4..6]);
            prop_assert_eq!(&bytes[8..10], &header[8..10]);
            prop_assert_eq!(&bytes[12..20], &header[12..20]);
            payload.extend_from_slice(&bytes[20..]);
        }
        // No more fragments than are needed.
        prop_assert_eq!(sent.len(), wanted.len().div_ceil((way.mtu - 20) / 8 * 8)
            .max(usize::from(wanted.len() + 20 <= way.mtu)));
        prop_assert_eq!(payload, wanted);
    }

    #[test]
    fn what_was_cut_arrives_as_it_was(
        v6 in any::<bool>(),
        way in any_tunnel(),
        len in 1usize..60_000,
        size in 100usize..1358,
        seq in any::<u32>(),
    ) {
        let pod = way.pod;
        let (mut a, mut b) = (Worker::new(A), Worker::new(B));
        let sent = over_the_underlay(through(&mut a, &superframe(true, v6, way, len, size, seq)));
        let pieces: Vec<_> =
            sent.iter().map(|sent| (PortId(0), &sent.bytes[..], sent.offload)).collect();
        let arrived = b.batch(&pieces);
        prop_assert_eq!(arrived.len(), 1);

        let ends = format!("ip {} > {} ttl 62", source(v6), way.to[usize::from(v6)]);
        let kind = if v6 { "tcp6" } else { "tcp4" };
        let (sum, gso) = if len > size {
            (" partial", format!(" / gso {kind} {size}"))
        } else {
            ("", String::new())
        };
        let text = format!(
            "{pod} eth gateway > {pod} / {ends} / tcp 1 > 2{sum} seq {seq} options 12 flags AP / \
             {len} bytes{gso}"
        );
        let (port, expected) = b.described(&text);
        prop_assert_eq!(arrived[0].port, port);
        prop_assert_eq!(&arrived[0].bytes, &expected.bytes);
        let (found, wanted) = (arrived[0].offload, expected.offload);
        prop_assert_eq!(found.checksum, wanted.checksum);
        prop_assert_eq!(found.gso.map(|gso| (gso.kind, gso.size)), wanted.gso.map(|gso| (gso.kind, gso.size)));
    }
}

/// A segment of 500 bytes and one that follows it, as they come out of the tunnel; whether they are
/// one packet for the pod.
#[test]
fn only_what_can_be_cut_again_is_merged() {
    const FIRST: &str =
        "ip 198.18.1.2 > 198.18.2.7 df id 1 / tcp 1 > 2 seq 1 flags A options 4 / 500 bytes";
    let cases = [
        (
            "ip 198.18.1.2 > 198.18.2.7 df id 2 / tcp 1 > 2 seq 501 flags A options 4 / 500 bytes",
            true,
        ),
        (
            "ip 198.18.1.2 > 198.18.2.7 df id 9 / tcp 1 > 2 seq 501 flags AP options 4 / 20 bytes",
            true,
        ),
        // A hole, a repetition, more than the first had, nothing at all.
        (
            "ip 198.18.1.2 > 198.18.2.7 df id 2 / tcp 1 > 2 seq 502 flags A options 4 / 500 bytes",
            false,
        ),
        (
            "ip 198.18.1.2 > 198.18.2.7 df id 2 / tcp 1 > 2 seq 1 flags A options 4 / 500 bytes",
            false,
        ),
        (
            "ip 198.18.1.2 > 198.18.2.7 df id 2 / tcp 1 > 2 seq 501 flags A options 4 / 501 bytes",
            false,
        ),
        (
            "ip 198.18.1.2 > 198.18.2.7 df id 2 / tcp 1 > 2 seq 501 flags A options 4 / 0 bytes",
            false,
        ),
        // Another flow, other flags, other headers.
        (
            "ip 198.18.1.2 > 198.18.2.7 df id 2 / tcp 1 > 3 seq 501 flags A options 4 / 500 bytes",
            false,
        ),
        (
            "ip 198.18.1.2 > 198.18.2.7 df id 2 / tcp 1 > 2 seq 501 flags AF options 4 / 500 bytes",
            false,
        ),
        (
            "ip 198.18.1.2 > 198.18.2.7 df id 2 / tcp 1 > 2 seq 501 flags A options 8 / 500 bytes",
            false,
        ),
        (
            "ip 198.18.1.2 > 198.18.2.7 id 2 / tcp 1 > 2 seq 501 flags A options 4 / 500 bytes",
            false,
        ),
        (
            "ip 198.18.1.2 > 198.18.2.7 df id 2 ttl 60 / tcp 1 > 2 seq 501 flags A options 4 / 500 bytes",
            false,
        ),
        (
            "ip 198.18.1.2 > 198.18.2.7 df id 2 tos 8 / tcp 1 > 2 seq 501 flags A options 4 / 500 bytes",
            false,
        ),
        // A corrupted one leaves as it came.
        (
            "ip 198.18.1.2 > 198.18.2.7 df id 2 / tcp 1 > 2 seq 501 flags A options 4 badsum / 500 bytes",
            false,
        ),
    ];
    for (second, merges) in cases {
        let (mut a, mut b) = (Worker::new(A), Worker::new(B));
        let sent: Vec<_> = [FIRST, second]
            .iter()
            .flat_map(|text| through(&mut a, &format!("pod-a eth pod-a > gateway / {text}")))
            .collect();
        let sent = over_the_underlay(sent);
        let batch: Vec<_> =
            sent.iter().map(|sent| (PortId(0), &sent.bytes[..], sent.offload)).collect();
        let together = b.batch(&batch);
        assert_eq!(together.len(), if merges { 1 } else { 2 }, "{second}");
        if merges {
            continue;
        }
        // In the order of their arrival within a flow, and as if they had come alone.
        let alone: Vec<_> = batch.iter().flat_map(|packet| b.batch(&[*packet])).collect();
        let mut found = together.clone();
        found.sort_by_key(|sent| alone.iter().position(|other| other == sent));
        assert_eq!(found, alone, "{second}");
        if !second.contains("> 3") {
            assert_eq!(together, alone, "{second}");
        }
    }
}
