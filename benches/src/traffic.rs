//! Frames as a NIC or a TAP would hand them over.
//!
//! Enters: addresses. Leaves: whole frames with true checksums, written by the headers' own `emit`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::wire::{
    EtherType, MacAddr, Protocol, TcpFlags, Vni, checksum::Sum, ethernet, ipv4, ipv6, tcp, udp,
    vxlan,
};
use frame::{Checksum, Gso, GsoKind, Offload};

/// Payload of the shortest frame: an IPv4 UDP datagram in 64 bytes with FCS.
pub const SMALL_PAYLOAD: usize = 18;

/// Payload of the pieces that a superframe is cut into: an MTU of 1,500 less 20 of IPv4 and 32 of
/// TCP with a timestamp.
pub const SEGMENT_SIZE: usize = 1448;

/// Pieces of the largest superframe.
pub const SEGMENTS: usize = 45;

/// Two stations.
#[derive(Debug, Clone, Copy)]
pub struct Macs {
    /// MAC of the sender.
    pub source: MacAddr,
    /// MAC of the receiver.
    pub destination: MacAddr,
}

/// A UDP datagram of `payload` zeros in an IP packet without Ethernet header.
///
/// # Panics
/// If the addresses are of different versions or the payload exceeds a datagram.
#[must_use]
pub fn udp_packet(
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    payload: usize,
) -> Vec<u8> {
    let mut datagram = vec![0; udp::HEADER_LEN + payload];
    let len = u16::try_from(datagram.len()).expect("the payload fits a datagram");
    let header = udp::Repr { source: source_port, destination: 8080, len, checksum: 0 };
    header.emit(&mut datagram).expect("it has room for a header");
    assert!(udp::fill_checksum(&mut datagram, pseudo(source, destination, Protocol::UDP, len)));
    ip_packet(source, destination, Protocol::UDP, &datagram)
}

/// The same with an Ethernet header.
#[must_use]
pub fn udp_frame(macs: Macs, source: IpAddr, destination: IpAddr, source_port: u16) -> Vec<u8> {
    ethernet_frame(macs, &udp_packet(source, destination, source_port, SMALL_PAYLOAD))
}

/// A TCP superframe of [`SEGMENTS`] pieces as a pod's TAP hands it over, and its offload.
///
/// # Panics
/// If the addresses are of different versions.
#[must_use]
pub fn superframe(macs: Macs, source: IpAddr, destination: IpAddr) -> (Vec<u8>, Offload) {
    const OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let header_len = tcp::HEADER_LEN + OPTIONS.len();
    let mut segment = vec![0x5a; header_len + SEGMENTS * SEGMENT_SIZE];
    let len = u16::try_from(segment.len()).expect("a superframe is below 64 KB");
    let header = tcp::Repr {
        source: 40_000,
        destination: 8080,
        sequence: 1,
        acknowledgement: 1,
        flags: TcpFlags::ACK.with(TcpFlags::PSH),
        window: 501,
        checksum: pseudo(source, destination, Protocol::TCP, len).fold(),
        urgent: 0,
    };
    header.emit(&mut segment).expect("it has room for a header");
    // In words of four bytes, in the upper half.
    segment[12] = (header_len as u8 / 4) << 4;
    segment[tcp::HEADER_LEN..header_len].copy_from_slice(&OPTIONS);
    let frame = ethernet_frame(macs, &ip_packet(source, destination, Protocol::TCP, &segment));
    let start = frame.len() - segment.len();
    let kind = match source {
        IpAddr::V4(_) => GsoKind::Tcp4 { ecn: false },
        IpAddr::V6(_) => GsoKind::Tcp6 { ecn: false },
    };
    let header_len = (start + header_len) as u16;
    let offload = Offload {
        checksum: Checksum::Partial { start: start as u16, offset: tcp::CHECKSUM_OFFSET as u16 },
        gso: Some(Gso { kind, size: SEGMENT_SIZE as u16, header_len, vxlan: None }),
    };
    (frame, offload)
}

/// An Ethernet header before an IP packet.
#[must_use]
pub fn ethernet_frame(macs: Macs, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 6 { EtherType::IPV6 } else { EtherType::IPV4 };
    let mut frame = vec![0; ethernet::HEADER_LEN];
    ethernet::Repr { destination: macs.destination, source: macs.source, ethertype }
        .emit(&mut frame)
        .expect("it has room for a header");
    frame.extend_from_slice(packet);
    frame
}

/// An Ethernet frame in VXLAN, as the underlay carries it; without a UDP checksum.
///
/// # Panics
/// If it exceeds a datagram.
#[must_use]
pub fn in_vxlan(
    outer: Macs,
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    inner: &[u8],
) -> Vec<u8> {
    let mut datagram = vec![0; udp::HEADER_LEN + vxlan::HEADER_LEN];
    let len = u16::try_from(datagram.len() + inner.len()).expect("it fits a datagram");
    udp::Repr { source: 50_000, destination: vxlan::PORT, len, checksum: 0 }
        .emit(&mut datagram)
        .expect("it has room for a header");
    vxlan::Repr { vni: VNI }
        .emit(&mut datagram[udp::HEADER_LEN..])
        .expect("it has room for a header");
    datagram.extend_from_slice(inner);
    ethernet_frame(outer, &ip_packet(source.into(), destination.into(), Protocol::UDP, &datagram))
}

/// An IP packet in IPIP, as the underlay carries it.
#[must_use]
pub fn in_ipip(outer: Macs, source: Ipv4Addr, destination: Ipv4Addr, inner: &[u8]) -> Vec<u8> {
    let protocol = if inner[0] >> 4 == 6 { Protocol::IPV6 } else { Protocol::IPIP };
    ethernet_frame(outer, &ip_packet(source.into(), destination.into(), protocol, inner))
}

/// The network of the overlay.
pub const VNI: Vni = Vni::new(10).expect("ten is below 2^24");

fn ip_packet(source: IpAddr, destination: IpAddr, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => v4(source, destination, protocol, payload),
        (IpAddr::V6(source), IpAddr::V6(destination)) => v6(source, destination, protocol, payload),
        _ => panic!("source and destination are of one version"),
    }
}

fn v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ipv4::HEADER_LEN];
    ipv4::Repr {
        tos: 0,
        total_len: u16::try_from(ipv4::HEADER_LEN + payload.len()).expect("below 64 KB"),
        id: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol,
        source,
        destination,
    }
    .emit(&mut packet)
    .expect("it has room for a header");
    packet.extend_from_slice(payload);
    packet
}

fn v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ipv6::HEADER_LEN];
    ipv6::Repr {
        traffic_class: 0,
        flow_label: 0,
        payload_len: u16::try_from(payload.len()).expect("below 64 KB"),
        next_header: protocol,
        hop_limit: 64,
        source,
        destination,
    }
    .emit(&mut packet)
    .expect("it has room for a header");
    packet.extend_from_slice(payload);
    packet
}

fn pseudo(source: IpAddr, destination: IpAddr, protocol: Protocol, len: u16) -> Sum {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Sum::pseudo_v4(source, destination, protocol, len)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Sum::pseudo_v6(source, destination, protocol, u32::from(len))
        }
        _ => panic!("source and destination are of one version"),
    }
}
