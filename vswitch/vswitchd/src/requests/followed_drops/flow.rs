//! The flow of a dropped packet.
//!
//! Enters: the beginning of its frame, as it came or as it would have left. Leaves: addresses, ports and
//! kind of the innermost packet; of the outer one where that is what the drop is about.

use std::net::{IpAddr, Ipv4Addr};

use dataplane::DropReason;
use dataplane::wire::{EtherType, Ethernet, Protocol};
use etherparse::{
    ArpOperation, ArpPacketSlice, Icmpv4Type, Icmpv6Type, IpNumber, LaxNetSlice, LaxSlicedPacket,
    TcpSlice, TransportSlice,
};

const VXLAN_HEADER: usize = 8;

/// The packet of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Flow {
    pub(super) source: Option<FlowEnd>,
    pub(super) destination: Option<FlowEnd>,
    /// None if it is not IP.
    pub(super) number: Option<Protocol>,
    /// What it is, in a word.
    pub(super) protocol: String,
    /// TCP flags, or the kind of message.
    pub(super) detail: Option<String>,
}

/// One end of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowEnd {
    pub(super) address: IpAddr,
    /// None where the protocol or the packet has none.
    pub(super) port: Option<u16>,
}

impl Flow {
    /// Of a frame, or its beginning, that was dropped for this reason. `vxlan_ports` are the UDP ports behind
    /// which another frame is.
    pub(super) fn of(frame: &[u8], reason: DropReason, vxlan_ports: &[u16]) -> Self {
        if frame.is_empty() {
            return Self { protocol: "gone".to_owned(), ..Self::default() };
        }
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
            return Self { protocol: "unreadable".to_owned(), ..Self::default() };
        };
        let vxlan_ports = if is_about_outer(reason) { None } else { Some(vxlan_ports) };
        Self::of_packet(&packet, vxlan_ports).unwrap_or_else(|| {
            let ethertype = Ethernet::parse(frame).map(|frame| frame.ethertype());
            let protocol = match ethertype {
                Ok(EtherType::IPV4) => "IPv4, unreadable".to_owned(),
                Ok(EtherType::IPV6) => "IPv6, unreadable".to_owned(),
                Ok(other) => other.to_string(),
                Err(_) => "unreadable".to_owned(),
            };
            Self { protocol, ..Self::default() }
        })
    }

    /// `None` if it is not IP, nor ARP. The packet inside is looked for only with `vxlan_ports`.
    fn of_packet(packet: &LaxSlicedPacket<'_>, vxlan_ports: Option<&[u16]>) -> Option<Self> {
        let (source, destination): (IpAddr, IpAddr) = match packet.net.as_ref()? {
            LaxNetSlice::Arp(arp) => return Some(Self::of_arp(arp)),
            LaxNetSlice::Ipv4(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            LaxNetSlice::Ipv6(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
        };
        let payload = packet.net.as_ref()?.ip_payload_ref()?;
        if let Some(inner) = vxlan_ports.and_then(|ports| inner(packet, payload, ports)) {
            return Some(inner);
        }
        let (number, bytes) = (payload.ip_number, payload.payload);
        let of_sctp = bytes.first_chunk::<4>().filter(|_| number == IpNumber::SCTP);
        let (ports, detail) = match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                (Some((tcp.source_port(), tcp.destination_port())), Some(flags(tcp)))
            }
            Some(TransportSlice::Udp(udp)) => {
                (Some((udp.source_port(), udp.destination_port())), None)
            }
            Some(TransportSlice::Icmpv4(icmp)) => (None, Some(kind4(&icmp.icmp_type()))),
            Some(TransportSlice::Icmpv6(icmp)) => (None, Some(kind6(&icmp.icmp_type()))),
            _ if payload.fragmented => (None, Some("fragment".to_owned())),
            _ => (
                of_sctp.map(|[a, b, c, d]| {
                    (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
                }),
                None,
            ),
        };
        let end = |address, port| Some(FlowEnd { address, port });
        Some(Self {
            source: end(source, ports.map(|(source, _)| source)),
            destination: end(destination, ports.map(|(_, destination)| destination)),
            number: Some(Protocol(number.0)),
            protocol: Protocol(number.0).to_string(),
            detail,
        })
    }

    fn of_arp(arp: &ArpPacketSlice<'_>) -> Self {
        let end = |bytes: &[u8]| {
            let address = Ipv4Addr::from(*<&[u8; 4]>::try_from(bytes).ok()?);
            Some(FlowEnd { address: address.into(), port: None })
        };
        let detail = match arp.operation() {
            ArpOperation::REQUEST => Some("request"),
            ArpOperation::REPLY => Some("reply"),
            _ => None,
        };
        Self {
            source: end(arp.sender_protocol_addr()),
            destination: end(arp.target_protocol_addr()),
            number: None,
            protocol: "ARP".to_owned(),
            detail: detail.map(str::to_owned),
        }
    }
}

/// The packet in a tunnel packet. Tunnels are not nested.
fn inner(
    packet: &LaxSlicedPacket<'_>,
    payload: &etherparse::LaxIpPayloadSlice<'_>,
    vxlan_ports: &[u16],
) -> Option<Flow> {
    match &packet.transport {
        Some(TransportSlice::Udp(udp)) if vxlan_ports.contains(&udp.destination_port()) => {
            let frame = udp.payload().get(VXLAN_HEADER..)?;
            Flow::of_packet(&LaxSlicedPacket::from_ethernet(frame).ok()?, None)
        }
        None if matches!(payload.ip_number, IpNumber::IPV4 | IpNumber::IPV6) => {
            Flow::of_packet(&LaxSlicedPacket::from_ip(payload.payload).ok()?, None)
        }
        _ => None,
    }
}

/// The tunnel packet is what was dropped, not the one inside.
fn is_about_outer(reason: DropReason) -> bool {
    use DropReason as R;
    matches!(
        reason,
        R::TunnelFromPod
            | R::NotForUs
            | R::OuterMalformed
            | R::OuterChecksum
            | R::UnknownPeer
            | R::UnknownVni
            | R::PathMtuNoted
            | R::PathMtuRefused
    )
}

/// As tcpdump has them, but for an A where it has a dot.
fn flags(tcp: &TcpSlice<'_>) -> String {
    let flags = [
        (tcp.fin(), 'F'),
        (tcp.syn(), 'S'),
        (tcp.rst(), 'R'),
        (tcp.psh(), 'P'),
        (tcp.ack(), 'A'),
        (tcp.urg(), 'U'),
    ];
    flags.into_iter().filter_map(|(is_set, letter)| is_set.then_some(letter)).collect()
}

fn kind4(icmp: &Icmpv4Type) -> String {
    match icmp {
        Icmpv4Type::EchoRequest(_) => "echo request".to_owned(),
        Icmpv4Type::EchoReply(_) => "echo reply".to_owned(),
        Icmpv4Type::TimeExceeded(_) => "time exceeded".to_owned(),
        Icmpv4Type::DestinationUnreachable(why) => format!("unreachable {}", why.code_u8()),
        Icmpv4Type::Unknown { type_u8, code_u8, .. } => format!("type {type_u8} code {code_u8}"),
        _ => "other".to_owned(),
    }
}

fn kind6(icmp: &Icmpv6Type) -> String {
    match icmp {
        Icmpv6Type::EchoRequest(_) => "echo request".to_owned(),
        Icmpv6Type::EchoReply(_) => "echo reply".to_owned(),
        Icmpv6Type::TimeExceeded(_) => "time exceeded".to_owned(),
        Icmpv6Type::PacketTooBig { .. } => "packet too big".to_owned(),
        Icmpv6Type::DestinationUnreachable(why) => format!("unreachable {}", why.code_u8()),
        Icmpv6Type::RouterSolicitation => "router solicitation".to_owned(),
        Icmpv6Type::RouterAdvertisement(_) => "router advertisement".to_owned(),
        Icmpv6Type::NeighborSolicitation => "neighbor solicitation".to_owned(),
        Icmpv6Type::NeighborAdvertisement(_) => "neighbor advertisement".to_owned(),
        Icmpv6Type::Unknown { type_u8, code_u8, .. } => format!("type {type_u8} code {code_u8}"),
        _ => "other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use dataplane::DropReason;
    use etherparse::{ArpHardwareId, ArpPacket, EtherType, PacketBuilder, PacketBuilderStep};

    use super::Flow;

    const VXLAN: &[u16] = &[4789, 8472];

    fn ethernet() -> PacketBuilderStep<etherparse::Ethernet2Header> {
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes);
        bytes
    }

    fn syn6() -> Vec<u8> {
        let (source, destination) = ([0xfd; 16], [0xfc; 16]);
        let step = ethernet().ipv6(source, destination, 64).tcp(40_112, 5432, 1, 100).syn();
        written(|bytes| step.write(bytes, &[0; 300]).expect("a Vec takes all"))
    }

    /// One line.
    fn told(frame: &[u8], reason: DropReason) -> String {
        let Flow { source, destination, protocol, detail, .. } = Flow::of(frame, reason, VXLAN);
        let end = |end: Option<super::FlowEnd>| match end {
            None => "-".to_owned(),
            Some(end) => format!("{}/{}", end.address, end.port.map_or(-1, i32::from)),
        };
        let detail = detail.unwrap_or_default();
        format!("{} {} {protocol} {detail}", end(source), end(destination))
    }

    const SYN6: &str = "fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd/40112 \
                        fcfc:fcfc:fcfc:fcfc:fcfc:fcfc:fcfc:fcfc/5432 TCP S";

    #[test]
    fn the_packet_of_a_tunnel_is_told_unless_the_drop_is_about_the_tunnel() {
        let payload = [&[8, 0, 0, 0, 0, 0, 10, 0], &syn6()[..]].concat();
        let outer = ethernet().ipv6([1; 16], [2; 16], 64).udp(50_000, 8472);
        let vxlan = written(|bytes| outer.write(bytes, &payload).expect("a Vec takes all"));
        // As much as a worker keeps.
        let kept = &vxlan[..dataplane::drop_ring::BEGINNING_BYTES];
        assert_eq!(told(kept, DropReason::PolicyDenied), SYN6);
        assert!(told(kept, DropReason::UnknownVni).ends_with("/8472 UDP "));
        let outer = ethernet().ipv4([198, 51, 100, 1], [198, 51, 100, 2], 64);
        let ipip = written(|bytes| {
            let written = outer.write(bytes, etherparse::IpNumber::IPV6, &syn6()[14..]);
            written.expect("a Vec takes all");
        });
        assert_eq!(told(&ipip, DropReason::PolicyDenied), SYN6);
        let refused = "198.51.100.1/-1 198.51.100.2/-1 IPv6 ";
        assert_eq!(told(&ipip, DropReason::UnknownPeer), refused);
    }

    #[test]
    fn every_kind_of_packet_is_told() {
        let ip = || ethernet().ipv4([198, 18, 1, 2], [198, 18, 1, 3], 64);
        let all = "a Vec takes all";
        let ping = written(|bytes| ip().icmpv4_echo_request(1, 1).write(bytes, &[]).expect(all));
        let sctp = [[0x9c, 0xb0, 0x15, 0x38], [0; 4]].concat();
        let sctp =
            written(|bytes| ip().write(bytes, etherparse::IpNumber::SCTP, &sctp).expect(all));
        let mut fragment = sctp.clone();
        fragment[20..22].copy_from_slice(&[0x00, 0x10]);
        let [from, to] = [[198, 18, 1, 2], [198, 18, 1, 3]];
        let arp = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            etherparse::ArpOperation::REQUEST,
            &[2; 6],
            &from,
            &[0; 6],
            &to,
        );
        let arp = arp.expect("its addresses have their lengths");
        let arp = written(|bytes| ethernet().arp(arp).write(bytes).expect(all));
        for (frame, expected) in [
            (&syn6()[..], SYN6),
            (&syn6()[..74], SYN6),
            (&ping, "198.18.1.2/-1 198.18.1.3/-1 ICMP echo request"),
            (&sctp, "198.18.1.2/40112 198.18.1.3/5432 SCTP "),
            (&fragment, "198.18.1.2/-1 198.18.1.3/-1 SCTP fragment"),
            (&arp, "198.18.1.2/-1 198.18.1.3/-1 ARP request"),
            (&[[2; 12].as_slice(), &[0x88, 0xb5, 1]].concat(), "- - ethertype 0x88b5 "),
            (&[[2; 12].as_slice(), &[0x08, 0x00, 0x45]].concat(), "- - IPv4, unreadable "),
            (&[1, 2, 3], "- - unreadable "),
            (&[], "- - gone "),
        ] {
            assert_eq!(told(frame, DropReason::NoRoute), expected);
        }
    }

    #[test]
    fn no_beginning_of_a_frame_panics() {
        let payload = [&[8, 0, 0, 0, 0, 0, 10, 0], &syn6()[..]].concat();
        let outer = ethernet().ipv6([1; 16], [2; 16], 64).udp(50_000, 4789);
        let vxlan = written(|bytes| outer.write(bytes, &payload).expect("a Vec takes all"));
        for len in 0..vxlan.len() {
            assert!(!told(&vxlan[..len], DropReason::NoRoute).is_empty());
        }
    }
}
