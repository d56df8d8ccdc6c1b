//! Guard: which kinds of packets are not forwarded, whatever their addresses.
//!
//! Enters: an IP packet, from `route` and, on a segment, from `bridge` and `source`. Leaves: nothing, or
//! the drop. Nearly all packets are plain TCP and UDP ([`Ip::is_plain`]) and are not looked at closely.
//!
//! | neither a pod nor the underlay | as |
//! |---|---|
//! | names hosts to pass, by IPv4's options or IPv6's routing header | policies judge the address that the packet has now, and it would go on to another (RFC 5095, RFC 7126 section 4.3) |
//! | has a pod send to another router (ICMP redirect) | a pod has none but the switch, which sends no such |
//!
//! What the node's kernel sends is not looked at: its `accept_source_route` and `send_redirects` decide.
//!
//! | a pod does not | as |
//! |---|---|
//! | play router or DHCP server | its neighbours would send to it (CVE-2020-10749; RFC 6105) |
//! | play multicast router | switches would send it all groups, and members leave them at its word (RFC 4541) |
//! | cut neighbour discovery | what is in pieces passes every other check here (RFC 6980) |
//! | hide headers in fragments | ports could not be held against policies (RFC 1858, RFC 7112) |
//! | send tunnel packets to a node | it would take them, masqueraded or not, for another node's; see `route`, too |

use super::parse::{Headers, Ip};
use crate::tables::Tunnels;
use crate::verdict::DropReason;
use crate::wire::{Ipv4, Ipv6, Protocol, icmpv4, icmpv6, igmp, sctp, tcp, udp};

/// Checks a pod's packet.
#[inline(always)]
pub(crate) fn pod(
    tunnels: &Tunnels,
    bytes: &[u8],
    headers: &Headers,
    ip: &Ip,
) -> Result<(), DropReason> {
    if ip.is_plain {
        match ip.flow.protocol {
            Protocol::TCP => return Ok(()),
            Protocol::UDP => return datagram(tunnels, ip),
            _ => {}
        }
    }
    closely(tunnels, bytes, headers, ip)
}

/// Checks a packet that came by the NIC, in a tunnel or without: with inner headers alone.
#[inline(always)]
pub(crate) fn remote(bytes: &[u8], headers: &Headers, ip: &Ip) -> Result<(), DropReason> {
    match ip.flow.protocol {
        Protocol::TCP | Protocol::UDP if ip.is_plain => Ok(()),
        _ => no_detour(bytes, headers, ip),
    }
}

/// A pod's packet, unless it is plain TCP or UDP.
#[inline(never)]
fn closely(tunnels: &Tunnels, bytes: &[u8], headers: &Headers, ip: &Ip) -> Result<(), DropReason> {
    no_detour(bytes, headers, ip)?;
    no_router(bytes, headers, ip)?;
    if ip.flow.is_fragment() {
        fragment(bytes, headers, ip)?;
    }
    match ip.flow.protocol {
        Protocol::UDP => datagram(tunnels, ip),
        tunnel if tunnel.is_tunnel() && tunnels.is_end(ip.flow.destination()) => {
            Err(DropReason::TunnelFromPod)
        }
        _ => Ok(()),
    }
}

/// Linux takes no segments left of type 0, skips a routing header without segments left, whatever its
/// type, and follows other types only where it is told to (`ipv6_rthdr_rcv` in net/ipv6/exthdrs.c).
#[inline(never)]
fn no_detour(bytes: &[u8], headers: &Headers, ip: &Ip) -> Result<(), DropReason> {
    let packet = bytes.get(headers.l3..).unwrap_or_default();
    let is_source_routed = if ip.is_plain {
        false
    } else if ip.flow.is_v6() {
        let upper = Ipv6::parse(packet).and_then(|ip| ip.upper());
        upper.map_err(|_| DropReason::Ipv6Malformed)?.is_source_routed
    } else {
        let is_source_routed = Ipv4::parse(packet).and_then(|ip| ip.is_source_routed());
        is_source_routed.map_err(|_| DropReason::Ipv4Malformed)?
    };
    if is_source_routed {
        return Err(DropReason::SourceRouted);
    }
    match (ip.flow.protocol, ip.flow.icmp()) {
        (Protocol::ICMP, Some(icmp)) if icmp.kind == icmpv4::REDIRECT => {
            Err(DropReason::RogueAdvertisement)
        }
        _ => Ok(()),
    }
}

/// Checks the port to which UDP goes. A DHCP client takes what comes to its own, and most do not ask
/// from which (RFC 8357). To a node VXLAN may go without passing its kernel, which `route` keeps it from.
#[inline(always)]
fn datagram(tunnels: &Tunnels, ip: &Ip) -> Result<(), DropReason> {
    const DHCP_CLIENT: u16 = 68;
    const DHCPV6_CLIENT: u16 = 546;
    match ip.flow.ports().map(|ports| ports.destination()) {
        Some(DHCP_CLIENT | DHCPV6_CLIENT) => Err(DropReason::RogueAdvertisement),
        Some(port) if tunnels.takes_vxlan_on(port) && tunnels.is_end(ip.flow.destination()) => {
            Err(DropReason::TunnelFromPod)
        }
        _ => Ok(()),
    }
}

fn no_router(bytes: &[u8], headers: &Headers, ip: &Ip) -> Result<(), DropReason> {
    let kind = ip.flow.icmp().map(|icmp| icmp.kind);
    match (ip.flow.protocol, kind) {
        (Protocol::ICMPV6, Some(icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT)) => {
            Err(DropReason::RogueAdvertisement)
        }
        (
            Protocol::ICMPV6,
            Some(icmpv6::LISTENER_QUERY | icmpv6::MULTICAST_ROUTER_ADVERTISEMENT),
        ) => Err(DropReason::RogueQuery),
        (Protocol::IGMP, _) if !ip.flow.is_later_fragment() => {
            match headers.transport(bytes, ip).first() {
                Some(&(igmp::QUERY | igmp::MULTICAST_ROUTER_ADVERTISEMENT)) => {
                    Err(DropReason::RogueQuery)
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// A fragment of a packet whose ports, or whose kind, only the first fragment tells.
fn fragment(bytes: &[u8], headers: &Headers, ip: &Ip) -> Result<(), DropReason> {
    let header_len = header_len(ip.flow.protocol);
    if ip.flow.is_later_fragment() {
        // RFC 3128: over the first fragment's header, by receivers that allow an overlap. Those of
        // IPv6 do not (RFC 5722).
        let begins_within = Ipv4::parse_header(bytes.get(headers.l3..).unwrap_or_default())
            .is_ok_and(|ipv4| usize::from(ipv4.fragment_offset()) < header_len);
        return if begins_within { Err(DropReason::FragmentTiny) } else { Ok(()) };
    }
    if headers.transport(bytes, ip).len() < header_len {
        return Err(DropReason::FragmentTiny);
    }
    let kind = ip.flow.icmp().map(|icmp| icmp.kind);
    match (ip.flow.protocol, kind) {
        (Protocol::ICMPV6, Some(kind)) if icmpv6::is_neighbor_discovery(kind) => {
            Err(DropReason::NeighborDiscoveryMalformed)
        }
        _ => Ok(()),
    }
}

/// The least that the header of a transport takes; nothing of those that are not known here.
const fn header_len(protocol: Protocol) -> usize {
    match protocol {
        Protocol::TCP => tcp::HEADER_LEN,
        Protocol::UDP => udp::HEADER_LEN,
        Protocol::SCTP => sctp::HEADER_LEN,
        Protocol::ICMP => icmpv4::HEADER_LEN,
        Protocol::ICMPV6 => icmpv6::HEADER_LEN,
        Protocol::IGMP => igmp::HEADER_LEN,
        _ => 0,
    }
}
