//! Door 3, for a pod on a segment: does it speak in its own name.
//!
//! Enters: a frame from a bridged pod. Leaves: nothing, or the drop. On a routed port `route` asks
//! this of every packet; on a segment frames reach other pods without passing there, and one pod
//! that answers ARP for the gateway would hear all of its neighbours' traffic. What cannot be read
//! cannot be checked, and is not let through: a VLAN tag of zero, or a ninth extension header, would
//! otherwise carry what is refused without it.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::arrival::Arrival;
use super::decap::speaks_for_itself;
use super::flow::Addresses;
use super::parse::{Headers, Ip, Net};
use super::route::no_rogue_server;
use crate::tables::Gateway;
use crate::verdict::DropReason;
use crate::wire::{Arp, EtherType, Ethernet, Protocol, header, icmpv6};

#[inline(always)]
pub(crate) fn claims(
    arrival: &Arrival<'_>,
    bytes: &[u8],
    headers: &Headers,
) -> Result<(), DropReason> {
    match &headers.net {
        Net::Malformed(reason) => Err(*reason),
        Net::Other => untagged(bytes),
        Net::Arp => arp(arrival, bytes.get(headers.l3..).unwrap_or_default(), headers),
        // `route` is next, and asks more.
        Net::Ip(_) if headers.destination_mac == Gateway::MAC => Ok(()),
        Net::Ip(ip) => {
            no_rogue_server(ip)?;
            source(arrival, ip)?;
            if ip.flow.protocol == Protocol::ICMPV6 {
                advertised(arrival, headers.transport(bytes, ip), ip)?;
            }
            Ok(())
        }
    }
}

/// IEEE 802.1Q and 802.1ad: a host takes a tag of zero for none at all.
#[inline(never)]
fn untagged(bytes: &[u8]) -> Result<(), DropReason> {
    let ethertype = Ethernet::parse(bytes).map(|ethernet| ethernet.ethertype());
    match ethertype {
        Ok(EtherType::VLAN | EtherType::QINQ) => Err(DropReason::EthertypeUnsupported),
        _ => Ok(()),
    }
}

/// An unspecified sender only asks (RFC 5227, section 2.1.1).
#[inline(never)]
fn arp(arrival: &Arrival<'_>, bytes: &[u8], headers: &Headers) -> Result<(), DropReason> {
    let arp = Arp::parse(bytes).map_err(|_| DropReason::ArpMalformed)?;
    if arp.sender_mac() != headers.source_mac {
        return Err(DropReason::SourceMacSpoofed);
    }
    let sender = arp.sender_ip();
    if sender.is_unspecified() || arrival.port.addresses.contains(&sender.into()) {
        Ok(())
    } else {
        Err(DropReason::SourceAddressSpoofed)
    }
}

#[inline(always)]
fn source(arrival: &Arrival<'_>, ip: &Ip) -> Result<(), DropReason> {
    if speaks_for_itself(arrival.port, ip) {
        return Ok(());
    }
    let without_address = match ip.flow.addresses {
        // DHCP, before there is an address.
        Addresses::V4 { source, destination } => {
            source.is_unspecified() && destination == Ipv4Addr::BROADCAST
        }
        Addresses::V6 { source, destination } => {
            source.is_unicast_link_local()
                || (source.is_unspecified() && destination.is_multicast())
        }
    };
    if without_address { Ok(()) } else { Err(DropReason::SourceAddressSpoofed) }
}

/// Of an ICMPv6 packet: a neighbour advertisement gives away the address in its body, whatever its
/// source.
#[inline(never)]
fn advertised(arrival: &Arrival<'_>, transport: &[u8], ip: &Ip) -> Result<(), DropReason> {
    if ip.flow.icmp().is_none_or(|icmp| icmp.kind != icmpv6::NEIGHBOR_ADVERTISEMENT) {
        return Ok(());
    }
    // RFC 4861, section 4.4: the target is behind the flags.
    let target: &[u8; 16] = header(transport, 8).ok_or(DropReason::NeighborDiscoveryMalformed)?;
    let target = Ipv6Addr::from(*target);
    if target.is_unicast_link_local() || arrival.port.addresses.contains(&target.into()) {
        Ok(())
    } else {
        Err(DropReason::SourceAddressSpoofed)
    }
}
