//! Source checks: whether the sender may send this packet.
//!
//! Enters: an [`Arrival`] with its [`Headers`], from `bridge` and `route`. Leaves: nothing, or the
//! drop. Outer addresses are checked by `decap`, before there is an inner packet.
//!
//! | check | of |
//! |---|---|
//! | [`has_valid_mac`]   | every frame that is forwarded or routed |
//! | [`has_own_mac`]     | every frame of a pod |
//! | [`bridged_pod`]     | every frame of a pod on a segment |
//! | [`may_send_from`]   | every routed packet |
//! | [`is_not_this_node`] | every frame of another node on a segment |

use core::net::{IpAddr, Ipv4Addr};

use super::arrival::{Arrival, ArrivedFrom};
use super::flow::{Addresses, Ports};
use super::parse::{Headers, Ip, Net};
use super::{guard, inspect};
use crate::tables::{Adjacency, Encap, Gateway, Port, Tables, Tunnels};
use crate::verdict::DropReason;
use crate::wire::Protocol;

/// Checks that the source MAC is one that an interface can have: a group address never sends
/// (IEEE 802.3, 3.2.3), and no interface has zero.
#[inline(always)]
pub(crate) fn has_valid_mac(headers: &Headers) -> Result<(), DropReason> {
    if headers.source_mac.is_multicast() || headers.source_mac.is_zero() {
        return Err(DropReason::SourceMacInvalid);
    }
    Ok(())
}

/// Checks that a pod's frame has the MAC of its interface. Nothing is learned from pods, so that one
/// frame with another's MAC cannot draw the other's traffic to it.
#[inline(always)]
pub(crate) fn has_own_mac(port: &Port, headers: &Headers) -> Result<(), DropReason> {
    if headers.source_mac == port.mac {
        return Ok(());
    }
    has_valid_mac(headers)?;
    Err(DropReason::SourceMacSpoofed)
}

/// Checks the source address of a routed packet: its sender is the one that has it.
#[inline(always)]
pub(crate) fn may_send_from(
    tables: &Tables,
    arrival: &Arrival<'_>,
    ip: &Ip,
) -> Result<(), DropReason> {
    match arrival.from {
        ArrivedFrom::Host => Ok(()),
        ArrivedFrom::Pod if is_own_address(arrival.port, ip) => Ok(()),
        ArrivedFrom::Pod => Err(DropReason::SourceAddressSpoofed),
        ArrivedFrom::Peer { peer, .. }
            if peer.has(ip.flow.source()) || peer.address == ip.flow.source() =>
        {
            Ok(())
        }
        ArrivedFrom::Peer { .. } => Err(DropReason::InnerSourceForeign),
        // A host of the underlay may send to pods that it routes to, but not with an address of this
        // node or a pod of it, nor with one whose packets come through a tunnel from a known peer,
        // unless its node may have left the tunnel.
        ArrivedFrom::Direct
            if tables.is_local(ip.flow.source())
                || tables.tunnels.local.has(ip.flow.source())
                || !tables.tunnels.direct_from_tunnelled
                    && is_tunnelled(tables, ip.flow.source()) =>
        {
            Err(DropReason::SourceAddressSpoofed)
        }
        ArrivedFrom::Direct => Ok(()),
    }
}

/// Checks a frame that came by a tunnel of a stretched segment: this node does not speak from there.
#[inline(always)]
pub(crate) fn is_not_this_node(tables: &Tables, headers: &Headers) -> Result<(), DropReason> {
    match &headers.net {
        Net::Ip(ip) if tables.tunnels.local.has(ip.flow.source()) => {
            Err(DropReason::SourceAddressSpoofed)
        }
        _ => Ok(()),
    }
}

/// Checks a frame of a bridged pod. On a routed port `route` asks this of every packet; on a segment
/// frames reach other pods without passing there, and one pod that answers ARP for the gateway would
/// receive all of its neighbours' traffic. What cannot be read cannot be checked, and is not let
/// through: a VLAN tag of zero, which a host takes for none at all (IEEE 802.1Q), or a ninth extension
/// header would otherwise carry what is refused without it. Neither are protocols of links between
/// bridges and to providers, such as LLDP, MACsec and PPPoE: a pod is no bridge.
#[inline(always)]
pub(crate) fn bridged_pod(
    tunnels: &Tunnels,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    headers: &Headers,
) -> Result<(), DropReason> {
    match &headers.net {
        Net::Malformed(reason) => Err(*reason),
        Net::Other => Err(DropReason::EthertypeUnsupported),
        Net::Arp => {
            inspect::arp(arrival.port, bytes.get(headers.l3..).unwrap_or_default(), headers)
        }
        // `route` is next, and asks more.
        Net::Ip(_) if headers.destination_mac == Gateway::MAC => Ok(()),
        Net::Ip(ip) => {
            guard::pod(tunnels, bytes, headers, ip)?;
            bridged_source(arrival, ip)?;
            if ip.flow.protocol == Protocol::ICMPV6 {
                inspect::discovery(arrival.port, headers.transport(bytes, ip), ip)?;
            }
            Ok(())
        }
    }
}

#[inline(always)]
fn bridged_source(arrival: &Arrival<'_>, ip: &Ip) -> Result<(), DropReason> {
    if is_own_address(arrival.port, ip) {
        return Ok(());
    }
    bridged_link_source(arrival.port, ip)
}

/// Checks a source address that is none of those that the pod was given.
#[inline(never)]
fn bridged_link_source(port: &Port, ip: &Ip) -> Result<(), DropReason> {
    const DHCP: Ports = Ports::new(68, 67);
    let is_allowed = match ip.flow.addresses {
        // DHCP, before there is an address.
        Addresses::V4 { source, destination } => {
            source.is_unspecified()
                && destination == Ipv4Addr::BROADCAST
                && ip.flow.protocol == Protocol::UDP
                && ip.flow.ports() == Some(DHCP)
        }
        Addresses::V6 { source, .. } if source.is_unspecified() => inspect::is_of_new_interface(ip),
        Addresses::V6 { source, .. } => inspect::has_v6(port, source),
    };
    if is_allowed { Ok(()) } else { Err(DropReason::SourceAddressSpoofed) }
}

/// Whether the source address is one that the pod behind this port has.
#[inline(always)]
fn is_own_address(port: &Port, ip: &Ip) -> bool {
    let mut own = port.addresses.iter();
    match &ip.flow.addresses {
        Addresses::V4 { source, .. } => {
            own.any(|own| matches!(own, IpAddr::V4(v4) if v4 == source))
        }
        Addresses::V6 { source, .. } => {
            own.any(|own| matches!(own, IpAddr::V6(v6) if v6 == source))
        }
    }
}

fn is_tunnelled(tables: &Tables, address: IpAddr) -> bool {
    let tunnels = |adjacency: &Adjacency| {
        matches!(adjacency, Adjacency::Remote { template: Some(template), .. }
            if template.encap() != Encap::None)
    };
    match tables.route(address).and_then(|id| tables.adjacency(id)) {
        Some(Adjacency::Multipath(group)) => {
            let mut members = group.members().iter();
            members.any(|member| tables.adjacency(member.adjacency).is_some_and(tunnels))
        }
        adjacency => adjacency.is_some_and(tunnels),
    }
}
