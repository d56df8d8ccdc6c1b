//! Door 1, for the ICMP errors of the underlay's routers: a tunnel packet of this node was too
//! large.
//!
//! Enters: an ICMP message to our underlay address. Leaves: a [`PathMtu`], as an
//! effect of the decision; the message itself is dropped. It carries no proof that a router of the
//! way sent it, so it is checked against what this node sends: it quotes one of its packets, to a
//! known peer, in an encapsulation that is in use. The worst that a forged one does is to lower one
//! peer's MTU to a floor for a while.

use core::net::IpAddr;

use super::flow::FlowKey;
use crate::tables::{Gateway, Template, Tunnels};
use crate::verdict::DropReason;
use crate::wire::{Icmpv4, Icmpv6, Ipv4, Ipv6, Protocol, icmpv4, icmpv6, ipv4, ipv6};

/// The largest outer packet that passes on the way to a tunnel's other end, as a router on it
/// reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMtu {
    /// The other end's underlay address.
    pub address: IpAddr,
    /// Bytes of an IP packet, outer headers included.
    pub mtu: u16,
}

/// RFC 1191, section 7.1: the MTUs of common links, for routers that report none.
const PLATEAUS: [u16; 11] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// Reads an ICMP message to our underlay address. `Err` if it is none of these: it is dropped.
#[inline(never)]
pub(crate) fn read_v4(
    tunnels: &Tunnels,
    gateway: &Gateway,
    ip: &Ipv4<'_>,
) -> Result<PathMtu, DropReason> {
    let Ok(icmp) = Icmpv4::parse(ip.payload()) else { return Err(DropReason::OuterMalformed) };
    if (icmp.kind(), icmp.code()) != (icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED) {
        return Err(DropReason::NotForUs);
    }
    if !icmp.checksum_ok() {
        return Err(DropReason::OuterMalformed);
    }
    let refused = DropReason::PathMtuRefused;
    let quoted = Ipv4::parse_header(icmp.payload()).map_err(|_| refused)?;
    let flow = FlowKey::of_v4(&quoted);
    let address = flow.destination();
    let ours = Some(quoted.source()) == tunnels.local.v4 && tunnels.peer_at(address).is_some();
    let overhead = match flow.protocol {
        Protocol::UDP if goes_to_vxlan(tunnels, &flow, quoted.payload()) => {
            Template::VXLAN_OVERHEAD
        }
        Protocol::IPIP | Protocol::IPV6 if tunnels.ipip => Template::IPIP_OVERHEAD,
        _ => return Err(refused),
    };
    let [_, _, high, low] = icmp.rest();
    let said = match u16::from_be_bytes([high, low]) {
        0 => plateau_below(quoted.total_len()),
        mtu => mtu,
    };
    // A router whose link takes a packet does not refuse it.
    if !ours || flow.is_later_fragment() || said >= quoted.total_len() {
        return Err(refused);
    }
    // Every host takes so much, and no link in use today takes less.
    Ok(PathMtu { address, mtu: said.max(floor(gateway, overhead, ipv4::MIN_RECEIVED)) })
}

/// Reads an ICMPv6 message to our underlay address, likewise (RFC 4443, section 3.2; RFC 8201).
#[inline(never)]
pub(crate) fn read_v6(
    tunnels: &Tunnels,
    gateway: &Gateway,
    ip: &Ipv6<'_>,
) -> Result<PathMtu, DropReason> {
    let Ok(icmp) = Icmpv6::parse(ip.payload()) else { return Err(DropReason::OuterMalformed) };
    // RFC 4443: the code is to be ignored.
    if icmp.kind() != icmpv6::PACKET_TOO_BIG {
        return Err(DropReason::NotForUs);
    }
    if !icmp.checksum_ok(ip.source(), ip.destination()) {
        return Err(DropReason::OuterMalformed);
    }
    let refused = DropReason::PathMtuRefused;
    let quoted = Ipv6::parse_header(icmp.payload()).map_err(|_| refused)?;
    let flow = FlowKey::of_v6(&quoted, &quoted.upper().map_err(|_| refused)?);
    let address = flow.destination();
    let ours = Some(quoted.source()) == tunnels.local.v6
        && tunnels.peer_at(address).is_some()
        && quoted.next_header() == Protocol::UDP
        && goes_to_vxlan(tunnels, &flow, quoted.payload());
    let sent = ipv6::HEADER_LEN + usize::from(quoted.payload_len());
    let said = u32::from_be_bytes(icmp.rest());
    if !ours || said as usize >= sent {
        return Err(refused);
    }
    // No link has less.
    let floor = floor(gateway, Template::VXLAN_V6_OVERHEAD, ipv6::MIN_MTU);
    Ok(PathMtu { address, mtu: u16::try_from(said).unwrap_or(u16::MAX).max(floor) })
}

fn goes_to_vxlan(tunnels: &Tunnels, flow: &FlowKey, quoted: &[u8]) -> bool {
    /// RFC 792 has a router quote this much behind the IP header at least: just the UDP header.
    const LEAST_QUOTED: usize = 8;
    quoted.len() >= LEAST_QUOTED
        && flow.ports().is_some_and(|ports| tunnels.takes_vxlan_on(ports.destination()))
}

/// The smallest MTU that is believed. With IPv6 inside, IPv6's smallest is left: below it a pod has
/// no IPv6 at all.
fn floor(gateway: &Gateway, overhead: u16, least: u16) -> u16 {
    if gateway.v6.is_some() { ipv6::MIN_MTU + overhead } else { least }
}

fn plateau_below(len: u16) -> u16 {
    PLATEAUS.into_iter().find(|plateau| *plateau < len).unwrap_or(0)
}
