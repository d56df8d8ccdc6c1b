//! Packets from their description, and back into words.
//!
//! Enters: a description of `trace`; bytes that leave. Leaves: bytes; a line as tcpdump would print
//! it. etherparse judges both, not our own header code, so that a mistake there shows.

use std::net::IpAddr;

use api::TracePacket;
use dataplane::wire::MacAddr;
use etherparse::{
    Icmpv4Type, Icmpv6Type, IpNumber, LinkSlice, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice, icmpv4,
};

/// The longest IP packet.
const MAX_LEN: u32 = 65_535;
const VXLAN_HEADER: usize = 8;
/// The common header of SCTP and that of its first chunk (RFC 9260, section 3).
const SCTP_HEADERS: usize = 16;
/// Chunk by which a client opens an association.
const SCTP_INIT: u8 = 1;

/// The Ethernet frame of a description.
///
/// # Errors
/// What is impossible about it.
pub(super) fn build(
    packet: &TracePacket,
    source_mac: MacAddr,
    destination_mac: MacAddr,
    source: IpAddr,
) -> Result<Vec<u8>, String> {
    let ethernet = PacketBuilder::ethernet2(source_mac.0, destination_mac.0);
    let (step, header, icmp) = match (source, packet.dst) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = etherparse::Ipv4Header {
                time_to_live: packet.ttl,
                dont_fragment: packet.df,
                source: source.octets(),
                destination: destination.octets(),
                ..etherparse::Ipv4Header::default()
            };
            header.protocol = protocol(packet, IpNumber::ICMP)?;
            let number = header.protocol;
            let headers =
                etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default());
            (ethernet.ip(headers), 20, (number, false))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = etherparse::Ipv6Header {
                hop_limit: packet.ttl,
                source: source.octets(),
                destination: destination.octets(),
                ..etherparse::Ipv6Header::default()
            };
            header.next_header = protocol(packet, IpNumber::IPV6_ICMP)?;
            let number = header.next_header;
            let headers =
                etherparse::IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default());
            (ethernet.ip(headers), 40, (number, true))
        }
        _ => return Err(format!("{source} and {} are of different families", packet.dst)),
    };
    let (number, is_v6) = icmp;
    let transport = match number {
        IpNumber::TCP => 20,
        IpNumber::UDP | IpNumber::ICMP | IpNumber::IPV6_ICMP => 8,
        _ => 0,
    };
    let least = header + transport;
    if !(least..=MAX_LEN).contains(&packet.len) {
        return Err(format!("such a packet has {least} to {MAX_LEN} bytes, not {}", packet.len));
    }
    let mut payload = vec![0; (packet.len - least) as usize];
    if let Some(headers) = payload.get_mut(..SCTP_HEADERS).filter(|_| number == IpNumber::SCTP) {
        let ports = [packet.src_port.to_be_bytes(), packet.dst_port.to_be_bytes()];
        headers[..4].copy_from_slice(ports.as_flattened());
        headers[12] = SCTP_INIT;
    }
    let mut bytes = Vec::with_capacity(14 + packet.len as usize);
    let written = match number {
        IpNumber::TCP => {
            step.tcp(packet.src_port, packet.dst_port, 0, 64_240).syn().write(&mut bytes, &payload)
        }
        IpNumber::UDP => step.udp(packet.src_port, packet.dst_port).write(&mut bytes, &payload),
        IpNumber::ICMP if !is_v6 => step.icmpv4_echo_request(1, 1).write(&mut bytes, &payload),
        IpNumber::IPV6_ICMP if is_v6 => step.icmpv6_echo_request(1, 1).write(&mut bytes, &payload),
        other => step.write(&mut bytes, other, &payload),
    };
    written.map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn protocol(packet: &TracePacket, icmp: IpNumber) -> Result<IpNumber, String> {
    Ok(match packet.protocol.as_str() {
        "icmp" | "icmpv6" => icmp,
        "tcp" => IpNumber::TCP,
        "udp" => IpNumber::UDP,
        "sctp" => IpNumber::SCTP,
        number => IpNumber(number.parse().map_err(|_| {
            format!("\"{number}\" is no protocol: icmp, tcp, udp, sctp or a number up to 255")
        })?),
    })
}

/// A frame in one line; `vxlan_port` is the UDP port behind which another frame is.
pub(super) fn describe(frame: &[u8], vxlan_port: u16) -> String {
    match SlicedPacket::from_ethernet(frame) {
        Ok(packet) => {
            let macs = match &packet.link {
                Some(LinkSlice::Ethernet2(link)) => {
                    format!("{} > {}", MacAddr(link.source()), MacAddr(link.destination()))
                }
                _ => String::new(),
            };
            format!("{macs} {}, {} bytes", describe_net(&packet, vxlan_port), frame.len())
        }
        Err(error) => format!("{} bytes that cannot be read: {error}", frame.len()),
    }
}

fn describe_net(packet: &SlicedPacket<'_>, vxlan_port: u16) -> String {
    let (source, destination, ttl, inner) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            (
                IpAddr::V4(header.source_addr()),
                IpAddr::V4(header.destination_addr()),
                header.ttl(),
                ip.payload(),
            )
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (
                IpAddr::V6(header.source_addr()),
                IpAddr::V6(header.destination_addr()),
                header.hop_limit(),
                ip.payload(),
            )
        }
        Some(NetSlice::Arp(_)) => return "ARP".into(),
        None => return "no IP packet".into(),
    };
    let ends = match &packet.transport {
        Some(TransportSlice::Udp(udp)) => {
            let ports = format!(
                "IP {source}.{} > {destination}.{}: UDP",
                udp.source_port(),
                udp.destination_port()
            );
            match udp.payload().split_at_checked(VXLAN_HEADER) {
                Some((header, inner)) if udp.destination_port() == vxlan_port => {
                    let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
                    format!("{ports} VXLAN vni {vni} [{}]", describe(inner, vxlan_port))
                }
                _ => ports,
            }
        }
        Some(TransportSlice::Tcp(tcp)) => format!(
            "IP {source}.{} > {destination}.{}: TCP",
            tcp.source_port(),
            tcp.destination_port()
        ),
        Some(TransportSlice::Icmpv4(icmp)) => {
            format!("IP {source} > {destination}: ICMP {}", icmp4(&icmp.icmp_type()))
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            format!("IP {source} > {destination}: ICMP6 {}", icmp6(&icmp.icmp_type()))
        }
        Some(TransportSlice::Igmp(_)) => format!("IP {source} > {destination}: IGMP"),
        None if matches!(inner.ip_number, IpNumber::IPV4 | IpNumber::IPV6) => {
            let what = match SlicedPacket::from_ip(inner.payload) {
                Ok(inner) => describe_net(&inner, vxlan_port),
                Err(error) => format!("unreadable: {error}"),
            };
            format!("IP {source} > {destination}: IPIP [{what}]")
        }
        None => format!("IP {source} > {destination}: protocol {}", inner.ip_number.0),
    };
    format!("{ends} ttl {ttl}")
}

fn icmp4(icmp: &Icmpv4Type) -> String {
    match icmp {
        Icmpv4Type::EchoRequest(echo) => format!("echo request, id {}, seq {}", echo.id, echo.seq),
        Icmpv4Type::EchoReply(echo) => format!("echo reply, id {}, seq {}", echo.id, echo.seq),
        Icmpv4Type::TimeExceeded(_) => "time exceeded".into(),
        Icmpv4Type::DestinationUnreachable(why) => match why {
            icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu } => {
                format!("unreachable, need to fragment, mtu {next_hop_mtu}")
            }
            icmpv4::DestUnreachableHeader::Network => "network unreachable".into(),
            icmpv4::DestUnreachableHeader::Host => "host unreachable".into(),
            other => format!("unreachable, code {}", other.code_u8()),
        },
        other => format!("{other:?}"),
    }
}

fn icmp6(icmp: &Icmpv6Type) -> String {
    match icmp {
        Icmpv6Type::EchoRequest(echo) => format!("echo request, id {}, seq {}", echo.id, echo.seq),
        Icmpv6Type::EchoReply(echo) => format!("echo reply, id {}, seq {}", echo.id, echo.seq),
        Icmpv6Type::TimeExceeded(_) => "time exceeded".into(),
        Icmpv6Type::PacketTooBig { mtu } => format!("packet too big, mtu {mtu}"),
        Icmpv6Type::DestinationUnreachable(why) => {
            format!("unreachable, code {}", why.code_u8())
        }
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use api::TracePacket;
    use dataplane::wire::MacAddr;

    use super::{build, describe};

    fn packet(dst: &str, protocol: &str, len: u32) -> TracePacket {
        TracePacket {
            port: "p".into(),
            dst_mac: None,
            src_mac: None,
            src: None,
            dst: dst.parse().expect("an address"),
            protocol: protocol.into(),
            src_port: 1000,
            dst_port: 80,
            len,
            ttl: 64,
            df: true,
        }
    }

    fn built(dst: &str, protocol: &str, len: u32) -> Result<Vec<u8>, String> {
        let source = if dst.contains(':') { "fd00:18:1::2" } else { "198.18.1.2" };
        let macs = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
        build(&packet(dst, protocol, len), macs[0], macs[1], source.parse().expect("an address"))
    }

    #[test]
    fn a_packet_has_the_length_that_was_asked_for_and_reads_as_described() {
        for (dst, protocol, len, expected) in [
            ("198.18.2.2", "tcp", 40, "IP 198.18.1.2.1000 > 198.18.2.2.80: TCP ttl 64, 54 bytes"),
            (
                "198.18.2.2",
                "udp",
                1500,
                "IP 198.18.1.2.1000 > 198.18.2.2.80: UDP ttl 64, 1514 bytes",
            ),
            (
                "fd00:18:2::2",
                "tcp",
                60,
                "IP fd00:18:1::2.1000 > fd00:18:2::2.80: TCP ttl 64, 74 bytes",
            ),
            ("198.18.2.2", "sctp", 84, "IP 198.18.1.2 > 198.18.2.2: protocol 132 ttl 64, 98 bytes"),
            ("198.18.2.2", "132", 28, "IP 198.18.1.2 > 198.18.2.2: protocol 132 ttl 64, 42 bytes"),
        ] {
            let bytes = built(dst, protocol, len).expect("possible");
            assert_eq!(bytes.len() as u32, 14 + len);
            let text = describe(&bytes, 4789);
            assert_eq!(text, format!("02:00:00:00:00:01 > 02:00:00:00:00:02 {expected}"));
        }
        for dst in ["198.18.2.2", "fd00:18:2::2"] {
            let text = describe(&built(dst, "icmp", 84).expect("possible"), 4789);
            assert!(text.contains("echo request, id 1, seq 1 ttl 64"), "{text}");
        }
    }

    #[test]
    fn what_is_impossible_is_refused() {
        for (dst, protocol, len) in
            [("198.18.2.2", "tcp", 39), ("198.18.2.2", "tcp", 65_536), ("198.18.2.2", "tcpp", 60)]
        {
            assert!(built(dst, protocol, len).is_err(), "{protocol} {len}");
        }
    }
}
