//! Door 1, for the NIC alone: which node sent this over the underlay, and where the inner packet
//! begins.
//!
//! Enters: an Ethernet frame that the pinhole redirected. Leaves: an [`Arrival`] for `parse`; the
//! outer headers are stepped over, not removed. A tunnel packet carries no proof of origin
//! (CVE-2020-10136): packets of known peers alone are taken, and `route` holds the inner source
//! against the peer's prefixes.
//!
//! An uplink may hand over packets of which work is left: a superframe, or one whose sum is still to be
//! finished. Neither has crossed a wire as it is. It came from this machine, or the kernel merged it of
//! packets whose sums it had verified; its own outer checksum is then not final, and not looked at.

use core::net::IpAddr;

use frame::{Checksum, Offload};

use super::arrival::{Arrival, ArrivedFrom};
use super::narrator::{Decapsulation, Narrator, TraceEvent};
use super::parse::{Headers, Net};
use super::path_mtu::{self, PathMtu};
use crate::tables::{Domain, Peer, Tables, Tunnels};
use crate::verdict::DropReason;
use crate::wire::checksum::Sum;
use crate::wire::{
    Ecn, EtherType, Ethernet, Ipv4, Ipv6, Protocol, Udp, Vxlan, ethernet, ipv6, udp, vxlan,
};

/// Finds the sending node of a frame that came by the NIC, and the packet in it; `arrival` is
/// [`ArrivedFrom::Direct`].
pub(crate) fn decap<'t>(
    tables: &'t Tables,
    bytes: &[u8],
    offload: &Offload,
    arrival: &mut Arrival<'t>,
    path_mtu: &mut Option<PathMtu>,
    narrator: &mut impl Narrator,
) -> Result<(), DropReason> {
    let outer = outer(tables, bytes, offload, arrival, path_mtu);
    if let Some(path_mtu) = *path_mtu {
        narrator.event(|| TraceEvent::PathMtu(path_mtu));
    }
    outer?;
    narrator.event(|| {
        TraceEvent::Decapsulated(match arrival.from {
            ArrivedFrom::Peer { peer, domain: Domain::Routed, .. } if arrival.ethernet => {
                Decapsulation::Vxlan(peer.address)
            }
            ArrivedFrom::Peer { peer, domain: Domain::Routed, .. } => {
                Decapsulation::Ipip(peer.address)
            }
            ArrivedFrom::Peer { peer, domain: Domain::Bridged(bridge), .. } => {
                Decapsulation::Vtep(peer.address, bridge)
            }
            _ => Decapsulation::Direct,
        })
    });
    Ok(())
}

#[inline(always)]
fn outer<'t>(
    tables: &'t Tables,
    bytes: &[u8],
    offload: &Offload,
    arrival: &mut Arrival<'t>,
    path_mtu: &mut Option<PathMtu>,
) -> Result<(), DropReason> {
    let tunnels: &Tunnels = &tables.tunnels;
    let Ok(ethernet) = Ethernet::parse(bytes) else { return Err(DropReason::FrameTooShort) };
    if ethernet.ethertype() == EtherType::IPV6 {
        return outer6(tables, &ethernet, offload, arrival, path_mtu);
    }
    if ethernet.ethertype() != EtherType::IPV4 {
        let asks = ethernet.ethertype() == EtherType::ARP && tunnels.proxy_neighbors;
        return if asks && tunnels.direct { Ok(()) } else { Err(DropReason::NotForUs) };
    }
    let Ok(ip) = Ipv4::parse(ethernet.payload()) else { return Err(DropReason::OuterMalformed) };
    if tunnels.local.v4 != Some(ip.destination()) {
        return if tunnels.direct { Ok(()) } else { Err(DropReason::NotForUs) };
    }
    sent_to_this_host(&ethernet, arrival)?;
    if !ip.checksum_ok() || ip.is_fragment() {
        return Err(DropReason::OuterMalformed);
    }
    arrival.outer_ecn = Some(ip.ecn());
    let l4 = ethernet::HEADER_LEN + ip.header_len();
    match ip.protocol() {
        Protocol::IPIP | Protocol::IPV6 if tunnels.ipip => {
            let peer = peer(tunnels, ip.source().into())?;
            // RFC 2003, section 3.1, and RFC 4213, section 3.5: the outer header names the inner version.
            let version = if ip.protocol() == Protocol::IPIP { 4 } else { 6 };
            if ip.payload().first().is_none_or(|first| first >> 4 != version) {
                return Err(DropReason::OuterMalformed);
            }
            arrival.from = ArrivedFrom::Peer { peer, domain: Domain::Routed, vtep: None };
            arrival.ethernet = false;
            arrival.start = l4;
            arrival.end = l4 + ip.payload().len();
        }
        Protocol::UDP => {
            let Ok(udp) = Udp::parse(ip.payload()) else { return Err(DropReason::OuterMalformed) };
            if !tunnels.takes_vxlan_on(udp.destination()) {
                return Err(DropReason::NotForUs);
            }
            vxlan(tunnels, tables, ip.source().into(), l4, &udp, arrival)?;
        }
        Protocol::ICMP => {
            *path_mtu = Some(path_mtu::read_v4(tunnels, &tables.gateway, &ip)?);
            return Err(DropReason::PathMtuNoted);
        }
        _ => return Err(DropReason::NotForUs),
    }
    Ok(())
}

/// VXLAN over IPv6, or direct routing. Out of the way of IPv4.
#[inline(never)]
fn outer6<'t>(
    tables: &'t Tables,
    ethernet: &Ethernet<'_>,
    offload: &Offload,
    arrival: &mut Arrival<'t>,
    path_mtu: &mut Option<PathMtu>,
) -> Result<(), DropReason> {
    let tunnels: &Tunnels = &tables.tunnels;
    let bytes = ethernet.payload();
    let to_us = |ip: Ipv6<'_>| tunnels.local.v6 == Some(ip.destination());
    if !Ipv6::parse_header(bytes).is_ok_and(to_us) {
        return if tunnels.direct { Ok(()) } else { Err(DropReason::NotForUs) };
    }
    sent_to_this_host(ethernet, arrival)?;
    let Ok(ip) = Ipv6::parse(bytes) else { return Err(DropReason::OuterMalformed) };
    match ip.next_header() {
        Protocol::UDP => {}
        Protocol::ICMPV6 => {
            *path_mtu = Some(path_mtu::read_v6(tunnels, &tables.gateway, &ip)?);
            return Err(DropReason::PathMtuNoted);
        }
        // A tunnel packet is whole, and no honest end puts options before it.
        Protocol::HOP_BY_HOP | Protocol::ROUTING | Protocol::FRAGMENT | Protocol::DEST_OPTIONS => {
            return Err(DropReason::OuterMalformed);
        }
        _ => return Err(DropReason::NotForUs),
    }
    let Ok(udp) = Udp::parse(ip.payload()) else { return Err(DropReason::OuterMalformed) };
    if !tunnels.takes_vxlan_on(udp.destination()) {
        return Err(DropReason::NotForUs);
    }
    // RFC 6935, section 5: zero is for tunnels whose ends both allow it. RFC 8200, section 8.1, has
    // the pseudo header's length be the datagram's own.
    let holds = || {
        let (source, destination) = (ip.source(), ip.destination());
        udp.checksum_ok(Sum::pseudo_v6(source, destination, Protocol::UDP, udp.length().into()))
    };
    let refuses_zero = udp.checksum() == 0 && !tunnels.zero_checksum6;
    if refuses_zero || !(offload.is_undone() || holds()) {
        return Err(DropReason::OuterChecksum);
    }
    arrival.outer_ecn = Some(ip.ecn());
    let l4 = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
    vxlan(tunnels, tables, ip.source().into(), l4, &udp, arrival)
}

/// Finds the frame in a VXLAN packet, which has its UDP header at `l4`.
#[inline(always)]
fn vxlan<'t>(
    tunnels: &'t Tunnels,
    tables: &'t Tables,
    source: IpAddr,
    l4: usize,
    udp: &Udp<'_>,
    arrival: &mut Arrival<'t>,
) -> Result<(), DropReason> {
    let Ok(vxlan) = Vxlan::parse(udp.payload()) else { return Err(DropReason::OuterMalformed) };
    let domain = *tunnels.vnis.get(&vxlan.vni()).ok_or(DropReason::UnknownVni)?;
    let peer = peer(tunnels, source)?;
    let vtep = match domain {
        Domain::Routed => None,
        Domain::Bridged(bridge) => Some(
            tables
                .bridge(bridge)
                .and_then(|bridge| bridge.vtep_at(source))
                .ok_or(DropReason::UnknownPeer)?,
        ),
    };
    arrival.from = ArrivedFrom::Peer { peer, domain, vtep };
    arrival.start = l4 + udp::HEADER_LEN + vxlan::HEADER_LEN;
    arrival.end = arrival.start + vxlan.payload().len();
    Ok(())
}

/// Checks that the frame was sent to the NIC's MAC. A switch floods frames for a MAC that it does not know, and
/// the kernel leaves those that are for others alone (`PACKET_OTHERHOST`).
#[inline(always)]
fn sent_to_this_host(ethernet: &Ethernet<'_>, arrival: &Arrival<'_>) -> Result<(), DropReason> {
    if ethernet.destination() == arrival.port.mac {
        Ok(())
    } else {
        Err(DropReason::OuterMacForeign)
    }
}

#[inline(always)]
fn peer(tunnels: &Tunnels, source: IpAddr) -> Result<&Peer, DropReason> {
    tunnels.peer_at(source).map(|(_, peer)| peer).ok_or(DropReason::UnknownPeer)
}

/// What is left to do of the inner packet. A sum that is to be finished in the outer UDP header goes with
/// that header: the inner one's is finished. Every other sum in front of the inner packet stays, for
/// `offload` to refuse.
#[inline(always)]
pub(crate) fn inner_offload(arrival: &Arrival<'_>, offload: &Offload) -> Offload {
    const UDP_TO_INNER: usize = udp::HEADER_LEN + vxlan::HEADER_LEN;
    let is_outer = matches!(offload.checksum, Checksum::Partial { start, offset }
        if usize::from(start) + UDP_TO_INNER == arrival.start
            && usize::from(offset) == udp::CHECKSUM_OFFSET);
    if is_outer && arrival.ethernet && offload.gso.is_none() {
        return Offload::default();
    }
    *offload
}

/// The congestion mark that the inner packet gets, if it changes. `Err` if the outer one must not
/// be lost and the inner packet cannot carry it.
#[inline(always)]
pub(crate) fn congestion(
    arrival: &Arrival<'_>,
    headers: &Headers,
) -> Result<Option<Ecn>, DropReason> {
    let Some(outer) = arrival.outer_ecn else { return Ok(None) };
    let Net::Ip(ip) = &headers.net else { return Ok(None) };
    match Ecn::decapsulated(ip.ecn, outer) {
        Some(ecn) if ecn == ip.ecn => Ok(None),
        Some(ecn) => Ok(Some(ecn)),
        None => Err(DropReason::EcnNotCapable),
    }
}
