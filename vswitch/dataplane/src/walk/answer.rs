//! Right of the verdict: packets that the switch sends in its own name, which are answers to ARP,
//! neighbour discovery and ping, and ICMP errors.
//!
//! Enters: the packet that is answered or refused, with its [`Headers`], from `act`. Leaves: the
//! same frame, turned into the answer or the error in place. `resolve` and `route` decided that
//! there is one.

use core::net::{Ipv4Addr, Ipv6Addr};

use frame::{Checksum, Offload, Packet};

use super::flow::Addresses;
use super::parse::{Headers, Ip, Net};
use crate::tables::Gateway;
use crate::verdict::{Answer, IcmpError};
use crate::wire::{
    Arp, EtherType, Ipv4, MacAddr, Protocol, Solicitation, arp, checksum, ethernet, header_mut,
    icmpv4, icmpv6, ipv4, ipv6, ndp,
};

/// Turns a request into its answer, sent by the gateway, or by the NIC for this node's pods. `None`
/// if the packet is not what the verdict says.
pub(crate) fn answer(
    packet: &mut Packet,
    headers: &Headers,
    answer: Answer,
    from: MacAddr,
) -> Option<()> {
    match answer {
        Answer::Arp => arp_reply(packet, headers, from)?,
        Answer::NeighborAdvertisement => advertisement(packet, headers, from)?,
        Answer::Echo4 | Answer::Echo6 => echo_reply(packet, headers)?,
    }
    packet.offload = Offload::default();
    let ethernet = header_mut(&mut packet.frame, headers.start)?;
    ethernet::set_addresses(ethernet, headers.source_mac, from);
    Some(())
}

fn arp_reply(packet: &mut Packet, headers: &Headers, from: MacAddr) -> Option<()> {
    let body = packet.frame.get_mut(headers.l3..)?;
    let reply = Arp::parse(body).ok()?.repr().reply_from(from);
    reply.emit(body)?;
    packet.frame.truncate(headers.l3 + arp::HEADER_LEN);
    Some(())
}

fn advertisement(packet: &mut Packet, headers: &Headers, from: MacAddr) -> Option<()> {
    let Net::Ip(ip) = &headers.net else { return None };
    let Addresses::V6 { source: asker, .. } = ip.flow.addresses else { return None };
    let target = Solicitation::parse(headers.transport(&packet.frame, ip)).ok()?.target();
    // RFC 4861, section 7.2.8: a proxy on a link that it shares leaves the owner the last word.
    let is_gateway = from == Gateway::MAC;
    let advertisement = ndp::Repr::Advertisement {
        target,
        flags: ndp::AdvertFlags { router: is_gateway, solicited: true, overriding: is_gateway },
        target_link: Some(from),
    };
    let l4 = headers.l3 + ipv6::HEADER_LEN;
    let end = l4 + advertisement.message_len();
    if let Some(missing) = end.checked_sub(packet.frame.len()) {
        packet.frame.extend(missing).ok()?;
    }
    packet.frame.truncate(end);
    advertisement.emit(packet.frame.get_mut(l4..)?, target, asker)?;
    let ip = ipv6::Repr {
        traffic_class: 0,
        flow_label: 0,
        payload_len: advertisement.message_len() as u16,
        next_header: Protocol::ICMPV6,
        hop_limit: 255,
        source: target,
        destination: asker,
    };
    ip.emit(packet.frame.get_mut(headers.l3..)?)?;
    Some(())
}

/// Turns a ping into its reply. Swapping the addresses leaves the sums of both headers as they are;
/// one that the sender left undone is finished first.
fn echo_reply(packet: &mut Packet, headers: &Headers) -> Option<()> {
    let Net::Ip(ip) = headers.net else { return None };
    packet.frame.truncate(headers.l3 + ip.len);
    if let Checksum::Partial { start, offset } = packet.offload.checksum {
        checksum::complete_partial(&mut packet.frame, start.into(), offset.into())?;
    }
    let message = packet.frame.get_mut(ip.l4..)?;
    let turned = if ip.flow.is_v6() {
        icmpv6::turn_echo_into_reply(message)
    } else {
        icmpv4::turn_echo_into_reply(message)
    };
    if !turned {
        return None;
    }
    let (at, len) = if ip.flow.is_v6() { (8, 16) } else { (12, 4) };
    let addresses = packet.frame.get_mut(headers.l3 + at..headers.l3 + at + 2 * len)?;
    let (source, destination) = addresses.split_at_mut_checked(len)?;
    source.swap_with_slice(destination);
    Some(())
}

/// Bytes of an ICMPv4 error at most: RFC 1812, section 4.3.2.3.
const ERROR4_MAX: usize = ipv4::MIN_RECEIVED as usize;
/// Bytes of an ICMPv6 error at most: RFC 4443, section 2.4(c).
const ERROR6_MAX: usize = ipv6::MIN_MTU as usize;
/// Linux's default of both.
pub(crate) const ERROR_TTL: u8 = 64;

/// The addresses that ICMP errors about a packet are sent from: the gateway's. The node's kernel
/// has these itself, and takes no IPv4 packet from an address of its own (RFC 1812, section 5.3.7);
/// to it an error comes from the packet's destination, to which a route leads by the same
/// interface.
pub(crate) fn speaker(gateway: &Gateway, about: &Ip, to_host: bool) -> Gateway {
    let mut speaker = *gateway;
    if to_host {
        match about.flow.addresses {
            Addresses::V4 { destination, .. } => speaker.v4 = Some(destination),
            Addresses::V6 { destination, .. } => speaker.v6 = Some(destination),
        }
    }
    speaker
}

/// Turns a packet into the ICMP error about it: an IP packet from `speaker` to its sender that
/// begins at the frame's first byte, without Ethernet header. `None` if there is no room.
pub(crate) fn icmp_error(
    packet: &mut Packet,
    headers: &Headers,
    speaker: &Gateway,
    error: IcmpError,
) -> Option<()> {
    let Net::Ip(ip) = headers.net else { return None };
    packet.offload = Offload::default();
    packet.frame.truncate(headers.l3 + ip.len);
    if !packet.frame.pull(headers.l3) {
        return None;
    }
    match ip.flow.addresses {
        Addresses::V4 { source, .. } => error4(packet, speaker.v4?, source, error),
        Addresses::V6 { source, .. } => error6(packet, speaker.v6?, source, error),
    }
}

fn error4(
    packet: &mut Packet,
    gateway: Ipv4Addr,
    sender: Ipv4Addr,
    error: IcmpError,
) -> Option<()> {
    packet.frame.truncate(ERROR4_MAX - ipv4::HEADER_LEN - icmpv4::HEADER_LEN);
    // RFC 1812, section 4.3.2.5: an error has the precedence of what it is about; Linux's default
    // of internetwork control is not kept, as underlays drop marks that they did not set.
    let tos = Ipv4::parse_header(&packet.frame).map_or(0, |quoted| quoted.tos() & !0b11);
    let icmp = match error {
        IcmpError::TimeExceeded => icmpv4::Repr::time_exceeded(),
        IcmpError::TooBig { mtu } => icmpv4::Repr::fragmentation_needed(mtu),
        IcmpError::NetUnreachable => icmpv4::Repr::unreachable(icmpv4::NET_UNREACHABLE),
        IcmpError::HostUnreachable => icmpv4::Repr::unreachable(icmpv4::HOST_UNREACHABLE),
        IcmpError::PortUnreachable => icmpv4::Repr::unreachable(icmpv4::PORT_UNREACHABLE),
    };
    packet.push(icmpv4::HEADER_LEN).ok()?;
    icmp.emit(&mut packet.frame)?;
    packet.push(ipv4::HEADER_LEN).ok()?;
    let header = ipv4::Repr {
        tos,
        total_len: packet.frame.len() as u16,
        id: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: ERROR_TTL,
        protocol: Protocol::ICMP,
        source: gateway,
        destination: sender,
    };
    header.emit(&mut packet.frame)?;
    Some(())
}

fn error6(
    packet: &mut Packet,
    gateway: Ipv6Addr,
    sender: Ipv6Addr,
    error: IcmpError,
) -> Option<()> {
    packet.frame.truncate(ERROR6_MAX - ipv6::HEADER_LEN - icmpv6::HEADER_LEN);
    let icmp = match error {
        IcmpError::TimeExceeded => icmpv6::Repr::time_exceeded(),
        IcmpError::TooBig { mtu } => icmpv6::Repr::packet_too_big(mtu.into()),
        IcmpError::NetUnreachable => icmpv6::Repr::unreachable(icmpv6::NO_ROUTE),
        IcmpError::HostUnreachable => icmpv6::Repr::unreachable(icmpv6::ADDRESS_UNREACHABLE),
        IcmpError::PortUnreachable => icmpv6::Repr::unreachable(icmpv6::PORT_UNREACHABLE),
    };
    packet.push(icmpv6::HEADER_LEN).ok()?;
    icmp.emit(&mut packet.frame, gateway, sender)?;
    let payload_len = packet.frame.len() as u16;
    packet.push(ipv6::HEADER_LEN).ok()?;
    let header = ipv6::Repr {
        traffic_class: 0,
        flow_label: 0,
        payload_len,
        next_header: Protocol::ICMPV6,
        hop_limit: ERROR_TTL,
        source: gateway,
        destination: sender,
    };
    header.emit(&mut packet.frame)?;
    Some(())
}

/// Puts the Ethernet header from the gateway in front of an IP packet.
pub(crate) fn from_gateway(packet: &mut Packet, destination: MacAddr, is_v6: bool) -> Option<()> {
    let header = ethernet::Repr {
        destination,
        source: Gateway::MAC,
        ethertype: if is_v6 { EtherType::IPV6 } else { EtherType::IPV4 },
    };
    header.emit(packet.push(ethernet::HEADER_LEN).ok()?)?;
    Some(())
}
