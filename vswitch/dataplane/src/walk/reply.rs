//! Packets that the switch sends in its own name: answers to ARP, neighbour discovery and ping, and
//! ICMP errors.
//!
//! `resolution` is asked by `bridge`, left of the verdict, whether a packet wants such an answer.
//! The others are right of it: they turn the packet that they are given into its own answer, in
//! place.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use frame::{Checksum, Offload, Packet};

use super::arrival::{Arrival, Origin};
use super::flow::Addresses;
use super::parse::{Headers, Ip, Net};
use crate::tables::{Adjacency, Attachment, Gateway, PortKind, Tables};
use crate::verdict::{Answer, DropReason, IcmpError};
use crate::wire::{
    Arp, EtherType, Ipv4, MacAddr, Protocol, Solicitation, arp, checksum, ethernet, header_mut,
    icmpv4, icmpv6, ipv4, ipv6, ndp,
};

/// For whom addresses are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// Proxy: a port that only routes has no neighbour but us, and the underlay's link asks us for
    /// our pods alone.
    Anyone,
    /// The segment resolves itself; ours to answer for are the gateway, and whoever has an address
    /// of the segment's prefix but is reached by a route.
    Segment,
}

/// If the packet is ARP or neighbour discovery that ends here: its answer, or why it gets none.
/// `None` if it is something else, or the segment's business.
#[inline(always)]
pub(crate) fn resolution(
    tables: &Tables,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    headers: &Headers,
    whom: For,
) -> Option<Result<Answer, DropReason>> {
    match &headers.net {
        Net::Arp => {}
        Net::Ip(ip) if ip.flow.protocol == Protocol::ICMPV6 => {}
        _ => return None,
    }
    resolved(tables, arrival, bytes, headers, whom)
}

/// Out of the way of all other packets.
#[inline(never)]
fn resolved(
    tables: &Tables,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    headers: &Headers,
    whom: For,
) -> Option<Result<Answer, DropReason>> {
    let ours = |target: IpAddr| match whom {
        // Nobody is told that its own address is somebody else's: duplicate address detection would
        // take it away. The gateway's addresses are the host port's own.
        For::Anyone if matches!(arrival.origin, Origin::Host) => !tables.is_gateway(target),
        For::Anyone if arrival.is_remote() => tables.is_local(target),
        For::Anyone => !arrival.port.addresses.contains(&target),
        For::Segment => is_beyond(tables, target),
    };
    let answered = match &headers.net {
        Net::Arp => arp(bytes.get(headers.l3..)?, headers, ours, whom),
        Net::Ip(ip)
            if ip.flow.protocol == Protocol::ICMPV6
                && ip.flow.is_v6()
                && !ip.flow.is_fragment() =>
        {
            discovery(headers.transport(bytes, ip), ip, ours, whom)
        }
        _ => return None,
    };
    match answered {
        Ok(None) => None,
        Ok(Some(answer)) => Some(Ok(answer)),
        Err(reason) => Some(Err(reason)),
    }
}

/// Whether a member of a segment finds this address at the gateway or behind it: one of the
/// gateway's own, a routed pod's, or one on another node.
fn is_beyond(tables: &Tables, target: IpAddr) -> bool {
    match tables.route(target).and_then(|id| tables.adjacency(id)) {
        Some(Adjacency::Gateway { .. } | Adjacency::Remote { .. } | Adjacency::Multipath(_)) => {
            true
        }
        // A bridged pod answers for itself.
        Some(Adjacency::Port { port, .. }) => tables.port(*port).is_some_and(|port| {
            port.kind == PortKind::Pod && port.attachment == Attachment::Routed
        }),
        _ => false,
    }
}

fn arp(
    bytes: &[u8],
    headers: &Headers,
    ours: impl Fn(IpAddr) -> bool,
    whom: For,
) -> Result<Option<Answer>, DropReason> {
    let Ok(arp) = Arp::parse(bytes) else {
        return if whom == For::Anyone { Err(DropReason::ArpMalformed) } else { Ok(None) };
    };
    let asked = arp.operation() == arp::Operation::Request
        && arp.sender_mac() == headers.source_mac
        && arp.target_ip() != arp.sender_ip()
        && ours(arp.target_ip().into());
    match (asked, whom) {
        (true, _) => Ok(Some(Answer::Arp)),
        (false, For::Anyone) => Err(DropReason::ArpUnanswered),
        (false, For::Segment) => Ok(None),
    }
}

fn discovery(
    message: &[u8],
    ip: &Ip,
    ours: impl Fn(IpAddr) -> bool,
    whom: For,
) -> Result<Option<Answer>, DropReason> {
    let Some(icmp) = ip.flow.icmp() else { return Ok(None) };
    match icmp.kind {
        icmpv6::NEIGHBOR_SOLICITATION => {}
        icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT => {
            return Err(DropReason::RogueAdvertisement);
        }
        icmpv6::NEIGHBOR_ADVERTISEMENT | icmpv6::ROUTER_SOLICITATION if whom == For::Anyone => {
            return Err(DropReason::NeighborDiscoveryUnanswered);
        }
        _ => return Ok(None),
    }
    let Addresses::V6 { source, destination } = ip.flow.addresses else {
        return Ok(None);
    };
    // RFC 4861, section 7.1.1: anything that passed a router is not a neighbour's.
    let valid = ip.ttl == 255
        && Icmp6Sum { source, destination }.holds(message)
        && Solicitation::parse(message).is_ok();
    let Some(solicitation) = Solicitation::parse(message).ok().filter(|_| valid) else {
        return match whom {
            For::Anyone => Err(DropReason::NeighborDiscoveryMalformed),
            For::Segment => Ok(None),
        };
    };
    // An unspecified source is duplicate address detection (RFC 4862): the address is the asker's.
    let asked = !source.is_unspecified()
        && solicitation.target() != source
        && ours(solicitation.target().into());
    match (asked, whom) {
        (true, _) => Ok(Some(Answer::NeighborAdvertisement)),
        (false, For::Anyone) => Err(DropReason::NeighborDiscoveryUnanswered),
        (false, For::Segment) => Ok(None),
    }
}

struct Icmp6Sum {
    source: Ipv6Addr,
    destination: Ipv6Addr,
}

impl Icmp6Sum {
    fn holds(&self, message: &[u8]) -> bool {
        icmpv6::Icmpv6::parse(message)
            .is_ok_and(|icmp| icmp.checksum_ok(self.source, self.destination))
    }
}

/// Turns a request into its answer, from the gateway or from the NIC in our pods' name. `None` if
/// it is not what the verdict says.
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

/// Swapping the addresses leaves the sums of both headers as they are; one that the sender left
/// undone is finished first.
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
const ERROR_TTL: u8 = 64;

/// Who speaks of a packet that is refused: the gateway. Towards the node's kernel that would be one of
/// its own addresses, and IPv4 hears nobody who claims to be itself (RFC 1812, section 5.3.7); there
/// it is whom the packet was for, as a route leads back to him by the same interface.
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
