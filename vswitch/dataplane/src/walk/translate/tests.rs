//! A translated packet is what its sender would have sent to the other endpoints, and comes back as
//! it was.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use core::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, IpNumber, PacketBuilder};
use frame::{Checksum, Offload, Packet, Pool};
use proptest::prelude::*;

use super::{Quoted, QuotedTranslation, Translation, translate};
use crate::tables::{Attachment, Offloads, Port, PortId, PortRole};
use crate::walk::arrival::{Arrival, ArrivedFrom};
use crate::walk::flow::{Addresses, FlowKey, Ports};
use crate::walk::narrator::Silent;
use crate::walk::parse::{Headers, Net, parse};
use crate::wire::{MacAddr, checksum};

const L3: usize = 14;

/// RFC 9260, section 6.8.
const SCTP_SUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Tcp,
    Udp,
    /// Without a checksum, which IPv4 alone allows.
    UdpUnsummed,
    Sctp,
    Echo,
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    addresses: Addresses,
    ports: Ports,
}

/// The frame that a host with this address and port would send.
fn frame_of(kind: Kind, ends: Ends, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = match ends.addresses {
        Addresses::V4 { source, destination } => {
            builder.ipv4(source.octets(), destination.octets(), 64)
        }
        Addresses::V6 { source, destination } => {
            builder.ipv6(source.octets(), destination.octets(), 64)
        }
    };
    let (from, to) = (ends.ports.source(), ends.ports.destination());
    let mut bytes = Vec::new();
    let echo = IcmpEchoHeader { id: 7, seq: 9 };
    if kind == Kind::Sctp {
        let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
        packet.extend([0, 0, 0, 7, 0, 0, 0, 0]);
        packet.extend(payload);
        let sum = SCTP_SUM.checksum(&packet);
        packet[8..12].copy_from_slice(&sum.to_le_bytes());
        builder.write(&mut bytes, IpNumber::SCTP, &packet).unwrap();
        return bytes;
    }
    match (kind, ends.addresses) {
        (Kind::Tcp, _) => builder.tcp(from, to, 5, 6).write(&mut bytes, payload).unwrap(),
        (Kind::Udp | Kind::UdpUnsummed, _) => {
            builder.udp(from, to).write(&mut bytes, payload).unwrap();
        }
        (Kind::Sctp, _) => unreachable!("above"),
        (Kind::Echo, Addresses::V4 { .. }) => {
            builder.icmpv4(Icmpv4Type::EchoRequest(echo)).write(&mut bytes, payload).unwrap();
        }
        (Kind::Echo, Addresses::V6 { .. }) => {
            builder.icmpv6(Icmpv6Type::EchoRequest(echo)).write(&mut bytes, payload).unwrap();
        }
    }
    if kind == Kind::UdpUnsummed {
        bytes[L3 + 20 + 6..L3 + 20 + 8].fill(0);
    }
    bytes
}

fn headers_of(bytes: &[u8]) -> Headers {
    let port = Port {
        kind: PortRole::Pod,
        attachment: Attachment::Routed,
        mac: MacAddr::ZERO,
        mtu: 1500,
        offloads: Offloads::default(),
        addresses: Vec::new(),
        rx_limit: None,
        tx_limit: None,
    };
    let arrival = Arrival::plain(PortId(0), &port, ArrivedFrom::Pod, bytes.len());
    let mut headers = Headers::none();
    parse(bytes, &arrival, &mut headers, &mut Silent).unwrap();
    headers
}

fn flow_of(headers: &Headers) -> FlowKey {
    match &headers.net {
        Net::Ip(ip) => ip.flow,
        net => panic!("no IP packet: {net:?}"),
    }
}

/// The frame with these endpoints in place of its own, and the checksum that was left undone.
fn translated(bytes: &[u8], ends: Ends, checksum: Checksum) -> Vec<u8> {
    let headers = headers_of(bytes);
    let flow = flow_of(&headers).translated(ends.addresses, Some(ends.ports));
    edited(bytes, &headers, Translation { flow, quoted: None }, checksum)
}

fn edited(bytes: &[u8], headers: &Headers, to: Translation, checksum: Checksum) -> Vec<u8> {
    let pool = Pool::new(1);
    let mut frame = pool.alloc().unwrap();
    frame.extend_from_slice(bytes).unwrap();
    let mut packet = Packet { frame, offload: Offload { checksum, gso: None } };
    translate(&mut packet, headers, &to).unwrap();
    packet.frame.to_vec()
}

/// The same frame with the pseudo header's sum alone, and what completes it.
fn left_undone(bytes: &[u8], kind: Kind) -> (Vec<u8>, Checksum) {
    let headers = headers_of(bytes);
    let Net::Ip(ip) = headers.net else { unreachable!("an IP packet") };
    let offset = if kind == Kind::Tcp { 16 } else { 6 };
    let len = (bytes.len() - ip.l4) as u16;
    let sum = match ip.flow.addresses {
        Addresses::V4 { source, destination } => {
            checksum::Sum::pseudo_v4(source, destination, ip.flow.protocol, len)
        }
        Addresses::V6 { source, destination } => {
            checksum::Sum::pseudo_v6(source, destination, ip.flow.protocol, len.into())
        }
    };
    let mut bytes = bytes.to_vec();
    bytes[ip.l4 + offset..ip.l4 + offset + 2].copy_from_slice(&sum.fold().to_be_bytes());
    (bytes, Checksum::Partial { start: ip.l4 as u16, offset: offset as u16 })
}

fn ends(v6: bool, source: u32, destination: u32, ports: (u16, u16)) -> Ends {
    let addresses = if v6 {
        let address = |host: u32| Ipv6Addr::from_bits(0xfd00_u128 << 112 | u128::from(host));
        Addresses::V6 { source: address(source), destination: address(destination) }
    } else {
        Addresses::V4 {
            source: Ipv4Addr::from_bits(source),
            destination: Ipv4Addr::from_bits(destination),
        }
    };
    Ends { addresses, ports: Ports::new(ports.0, ports.1) }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(&[Kind::Tcp, Kind::Udp, Kind::UdpUnsummed, Kind::Sctp, Kind::Echo][..])
}

proptest! {
    #[test]
    fn it_is_what_the_other_endpoints_would_have_sent(
        kind in kinds(),
        v6: bool,
        from in (any::<u32>(), any::<u32>(), any::<(u16, u16)>()),
        to in (any::<u32>(), any::<u32>(), any::<(u16, u16)>()),
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        prop_assume!(!(v6 && kind == Kind::UdpUnsummed));
        let (from, to) = (ends(v6, from.0, from.1, from.2), ends(v6, to.0, to.1, to.2));
        let sent = frame_of(kind, from, &payload);
        let wanted = frame_of(kind, to, &payload);
        let there = translated(&sent, to, Checksum::Unchecked);
        prop_assert_eq!(&there, &wanted);
        prop_assert_eq!(translated(&there, from, Checksum::Valid), sent);
    }

    #[test]
    fn a_checksum_left_undone_is_completed_to_the_right_one(
        tcp: bool,
        v6: bool,
        from in (any::<u32>(), any::<u32>(), any::<(u16, u16)>()),
        to in (any::<u32>(), any::<u32>(), any::<(u16, u16)>()),
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let kind = if tcp { Kind::Tcp } else { Kind::Udp };
        let (from, to) = (ends(v6, from.0, from.1, from.2), ends(v6, to.0, to.1, to.2));
        let (sent, undone) = left_undone(&frame_of(kind, from, &payload), kind);
        let mut there = translated(&sent, to, undone);
        prop_assert_eq!(translated(&there, from, undone), &sent[..]);
        let Checksum::Partial { start, offset } = undone else { unreachable!("left undone") };
        checksum::complete_partial(&mut there, start.into(), offset.into()).unwrap();
        let mut wanted = frame_of(kind, to, &payload);
        if kind == Kind::Tcp {
            // Zero may be all ones, where nobody says which protocol it is.
            let at = usize::from(start + offset);
            if there[at..at + 2] == [0xff; 2] && wanted[at..at + 2] == [0; 2] {
                wanted[at..at + 2].fill(0xff);
            }
        }
        prop_assert_eq!(there, wanted);
    }

    #[test]
    fn what_an_error_quotes_follows_and_both_checksums_are_true(
        tcp: bool,
        v6: bool,
        from in (any::<u32>(), any::<u32>(), any::<(u16, u16)>()),
        to in (any::<u32>(), any::<u32>(), any::<(u16, u16)>()),
        quoted_len in 8usize..64,
    ) {
        // Half of TCP's checksum cannot follow.
        prop_assume!(!(tcp && quoted_len == 17));
        let kind = if tcp { Kind::Tcp } else { Kind::Udp };
        let (from, to) = (ends(v6, from.0, from.1, from.2), ends(v6, to.0, to.1, to.2));
        let about = |ends: Ends| {
            let mut quoted = frame_of(kind, ends, &[0x5a; 40]).split_off(L3);
            quoted.truncate(if v6 { 40 } else { 20 } + quoted_len);
            error_about(ends, &quoted)
        };
        let sent = about(from);
        let headers = headers_of(&sent);
        let Net::Ip(ip) = headers.net else { unreachable!("an IP packet") };
        let l3 = ip.l4 + 8;
        let l4 = l3 + if v6 { 40 } else { 20 };
        let inner = flow_of(&headers_of(&frame_of(kind, from, &[])));
        let quoted = QuotedTranslation {
            quoted: Quoted { flow: inner, l3, l4 },
            flow: inner.translated(to.addresses, Some(to.ports)),
        };
        let flow = ip.flow.translated(reversed(to.addresses), None);
        let there =
            edited(&sent, &headers, Translation { flow, quoted: Some(quoted) }, Checksum::Unchecked);
        prop_assert_eq!(&there, &about(to));

        // The same the other way: what is quoted, and the error about it, are as they were.
        let back = QuotedTranslation {
            quoted: Quoted { flow: inner.translated(to.addresses, Some(to.ports)), l3, l4 },
            flow: inner,
        };
        let translation = Translation { flow: ip.flow, quoted: Some(back) };
        let back = edited(&there, &headers_of(&there), translation, Checksum::Unchecked);
        prop_assert_eq!(back, sent);
    }
}

/// From the receiver of the quoted packet to its sender.
fn error_about(ends: Ends, quoted: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let mut bytes = Vec::new();
    match reversed(ends.addresses) {
        Addresses::V4 { source, destination } => builder
            .ipv4(source.octets(), destination.octets(), 64)
            .icmpv4_raw(3, 3, [0; 4])
            .write(&mut bytes, quoted)
            .unwrap(),
        Addresses::V6 { source, destination } => builder
            .ipv6(source.octets(), destination.octets(), 64)
            .icmpv6_raw(1, 4, [0; 4])
            .write(&mut bytes, quoted)
            .unwrap(),
    }
    bytes
}

fn reversed(addresses: Addresses) -> Addresses {
    match addresses {
        Addresses::V4 { source, destination } => {
            Addresses::V4 { source: destination, destination: source }
        }
        Addresses::V6 { source, destination } => {
            Addresses::V6 { source: destination, destination: source }
        }
    }
}

#[test]
fn a_later_fragment_has_no_ports_to_change() {
    let (from, to) = (ends(false, 1, 2, (3, 4)), ends(false, 5, 6, (7, 8)));
    let mut bytes = frame_of(Kind::Udp, from, &[9; 32]);
    // An offset of 8 bytes, and the header's checksum after it.
    bytes[L3 + 6..L3 + 8].copy_from_slice(&[0, 1]);
    bytes[L3 + 10..L3 + 12].fill(0);
    let sum = checksum::Sum::new().bytes(&bytes[L3..L3 + 20]).finish();
    bytes[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
    let there = translated(&bytes, to, Checksum::Unchecked);
    assert_eq!(there[L3 + 20..], bytes[L3 + 20..]);
    assert_eq!(there[L3 + 12..L3 + 20], [0, 0, 0, 5, 0, 0, 0, 6]);
}

#[test]
fn a_packet_that_ends_before_its_checksum_is_not_forwarded_half_translated() {
    let (from, to) = (ends(false, 1, 2, (3, 4)), ends(false, 5, 6, (7, 8)));
    let mut bytes = frame_of(Kind::Tcp, from, &[]);
    bytes.truncate(L3 + 20 + 12);
    bytes[L3 + 2..L3 + 4].copy_from_slice(&32u16.to_be_bytes());
    bytes[L3 + 10..L3 + 12].fill(0);
    let sum = checksum::Sum::new().bytes(&bytes[L3..L3 + 20]).finish();
    bytes[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
    let headers = headers_of(&bytes);
    let flow = flow_of(&headers).translated(to.addresses, Some(to.ports));
    let pool = Pool::new(1);
    let mut frame = pool.alloc().unwrap();
    frame.extend_from_slice(&bytes).unwrap();
    let mut packet = Packet::plain(frame);
    assert_eq!(translate(&mut packet, &headers, &Translation { flow, quoted: None }), None);
}
