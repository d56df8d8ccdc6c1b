//! Door 5: where the packet goes.
//!
//! Enters: a packet for the gateway, or from the routed overlay, with the endpoints that `session`
//! gave it. Leaves: `Route`, `Answer` or `Refuse`. Checks come in the order of RFC 1812, section 5.2: is it an IP packet, may its source
//! send it, may its destination be forwarded to, is there a route, then hops and size.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::arrival::{Arrival, ArrivedFrom};
use super::clamp::clamp;
use super::flow::{Addresses, FlowKey};
use super::fragment::payload_size;
use super::narrator::{Narrator, TraceEvent};
use super::parse::{Headers, Ip, Net};
use super::{Decision, View};
use super::{guard, resolve, source};
use crate::tables::{
    Adjacency, AdjacencyId, FdbTarget, Member, Multipath, PortRole, Tables, Tunnels,
};
use crate::verdict::{DropReason, IcmpError, Verdict};
use crate::wire::{Protocol, icmpv4, icmpv6, ipv4};

/// Checks whether a packet may be routed at all, as it came: before its endpoints are translated.
#[inline(always)]
pub(crate) fn admit<'h>(
    tables: &Tables,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    headers: &'h Headers,
) -> Result<&'h Ip, DropReason> {
    let ip = match &headers.net {
        Net::Ip(ip) => ip,
        Net::Malformed(reason) => return Err(*reason),
        Net::Arp | Net::Other => return Err(DropReason::EthertypeUnsupported),
    };
    addresses_may_be_routed(ip)?;
    source::may_send_from(tables, arrival, ip)?;
    match arrival.from {
        ArrivedFrom::Pod => guard::pod(&tables.tunnels, bytes, headers, ip)?,
        ArrivedFrom::Host => {}
        ArrivedFrom::Direct | ArrivedFrom::Peer { .. } => guard::remote(bytes, headers, ip)?,
    }
    Ok(ip)
}

/// Where a flow's destination leads.
#[inline(always)]
pub(crate) fn look_up(tables: &Tables, flow: &FlowKey) -> Option<AdjacencyId> {
    match flow.addresses {
        Addresses::V4 { destination, .. } => tables.fib4.lookup(destination),
        Addresses::V6 { destination, .. } => tables.fib6.lookup(destination),
    }
}

/// Writes the verdict of a packet that was admitted. `towards` is where its destination leads, as its
/// session has it.
#[inline(always)]
pub(crate) fn route(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    towards: Option<AdjacencyId>,
    decision: &mut Decision,
    narrator: &mut impl Narrator,
) -> Result<(), DropReason> {
    let Decision { headers, verdict, edits, .. } = decision;
    let Net::Ip(ip) = &headers.net else { return Err(DropReason::EthertypeUnsupported) };
    let flow = edits.translation.as_ref().map_or(&ip.flow, |translation| &translation.flow);

    let mut refuse = |reason, error| {
        *verdict = refuse(view.tables, arrival, ip, reason, error);
        Ok(())
    };
    let Some(mut id) = towards else {
        narrator.event(|| TraceEvent::NoRoute(flow.destination()));
        return refuse(DropReason::NoRoute, IcmpError::NetUnreachable);
    };
    let mut adjacency = view.tables.adjacency(id).ok_or(DropReason::NoRoute)?;
    narrator.event(|| TraceEvent::Route(adjacency.clone()));
    if let Adjacency::Multipath(group) = adjacency {
        let member = next_hop(group, flow).ok_or(DropReason::NoRoute)?;
        id = member.adjacency;
        adjacency = view.tables.adjacency(id).ok_or(DropReason::NoRoute)?;
        narrator.event(|| TraceEvent::Member {
            next_hop: member.identity,
            adjacency: adjacency.clone(),
        });
    }
    let mut takes_a_hop = true;
    let (port, mtu) = match adjacency {
        Adjacency::Gateway { host, mtu, .. } => {
            if matches!(arrival.from, ArrivedFrom::Pod)
                && let Some(answer) = resolve::echo(ip)
            {
                *verdict = Verdict::Answer(answer);
                return Ok(());
            }
            let Some(port) = *host else {
                return refuse(DropReason::Unreachable, IcmpError::HostUnreachable);
            };
            if port == arrival.ingress {
                return Err(DropReason::SamePort);
            }
            // Tunnels of the kernel's (tunl0, sit0, gre0) take what comes to any address of it.
            if flow.protocol.is_tunnel() || is_vxlan(&view.tables.tunnels, flow) {
                return Err(DropReason::TunnelFromPod);
            }
            // The kernel's own address: no hop is taken, so any TTL will do.
            takes_a_hop = false;
            (port, *mtu)
        }
        Adjacency::Port { port, mtu, .. } => {
            towards_host(view.tables, arrival, flow, *port)?;
            (*port, *mtu)
        }
        Adjacency::Bridged { bridge, template, mtu } => {
            let mac = template.destination();
            // A member of this node: its MAC is known without learning.
            match view.tables.bridge(*bridge).and_then(|domain| domain.fdb.get(&mac)) {
                Some(FdbTarget::Port(port)) => (*port, *mtu),
                _ => return refuse(DropReason::NextHopUnresolved, IcmpError::HostUnreachable),
            }
        }
        Adjacency::Remote { .. } if arrival.is_remote() => return Err(DropReason::SplitHorizon),
        // A group's member is no group: tables with one would have no next hop either.
        Adjacency::Remote { template: None, .. } | Adjacency::Multipath(_) => {
            return refuse(DropReason::NextHopUnresolved, IcmpError::HostUnreachable);
        }
        Adjacency::Remote { port, mtu, .. } => (*port, *mtu),
        Adjacency::Blackhole => return Err(DropReason::Blackhole),
        // `session` has taken what a service can have. A backend is no virtual address.
        Adjacency::Service => return Err(DropReason::ServiceRefused),
        Adjacency::Unreachable => {
            return refuse(DropReason::Unreachable, IcmpError::HostUnreachable);
        }
    };
    if takes_a_hop && ip.ttl <= 1 {
        return refuse(DropReason::TtlExceeded, IcmpError::TimeExceeded);
    }
    if headers.piece_len > usize::from(mtu) {
        if !may_be_cut(headers, ip, mtu) {
            return refuse(DropReason::TooBig, IcmpError::TooBig { mtu });
        }
        edits.fragment_mtu = Some(mtu);
        narrator.event(|| TraceEvent::Fragments { mtu });
    }
    edits.mss_limit = clamp(view.tables, arrival, bytes, headers, ip, adjacency);
    if let Some(limit) = edits.mss_limit {
        narrator.event(|| TraceEvent::MssLimit { bytes: limit });
    }
    *verdict = Verdict::Route { adjacency: id, port };
    Ok(())
}

/// RFC 791, section 3.2. Not with options, of which each fragment would want its own selection:
/// their sender is told the MTU instead, as routers of the underlay often drop them anyway.
fn may_be_cut(headers: &Headers, ip: &Ip, mtu: u16) -> bool {
    !ip.dont_fragment && ip.l4 - headers.l3 == ipv4::HEADER_LEN && payload_size(mtu).is_some()
}

/// The member of a group that has the packet's flow. Kept out of the way of routes with one next
/// hop.
#[inline(never)]
fn next_hop<'t>(group: &'t Multipath, flow: &FlowKey) -> Option<&'t Member> {
    group.member(flow.hash())
}

#[inline(always)]
fn addresses_may_be_routed(ip: &Ip) -> Result<(), DropReason> {
    match ip.flow.addresses {
        // Most packets: neither address is in a block that the rest of this is about.
        Addresses::V4 { source, destination }
            if is_plain_unicast(source) && is_plain_unicast(destination) =>
        {
            Ok(())
        }
        Addresses::V4 { source, destination } => may_be_routed4(source, destination),
        Addresses::V6 { source, destination }
            if is_plain_unicast6(source) && is_plain_unicast6(destination) =>
        {
            Ok(())
        }
        Addresses::V6 { source, destination } => may_be_routed6(source, destination),
    }
}

/// RFC 1812, sections 4.2.2.11 and 5.3.7: martians.
#[inline(never)]
fn may_be_routed4(source: Ipv4Addr, destination: Ipv4Addr) -> Result<(), DropReason> {
    let is_reserved = |address: Ipv4Addr| {
        address.is_loopback() || address.octets()[0] == 0 || address.octets()[0] >= 240
    };
    if is_reserved(destination) {
        Err(DropReason::DestinationMartian)
    } else if destination.is_multicast() {
        Err(DropReason::MulticastUnrouted)
    } else if is_reserved(source) || source.is_multicast() {
        Err(DropReason::SourceMartian)
    } else {
        Ok(())
    }
}

/// RFC 4291, section 2.5.
#[inline(never)]
fn may_be_routed6(source: Ipv6Addr, destination: Ipv6Addr) -> Result<(), DropReason> {
    let stays_on_link = |address: Ipv6Addr| {
        address.is_multicast() || address.is_unicast_link_local() || address.is_unspecified()
    };
    if destination.is_loopback() || destination.is_unspecified() || is_mapped(destination) {
        Err(DropReason::DestinationMartian)
    } else if stays_on_link(destination) || stays_on_link(source) {
        Err(DropReason::MulticastUnrouted)
    } else if source.is_loopback() || is_mapped(source) {
        Err(DropReason::SourceMartian)
    } else {
        Ok(())
    }
}

/// Whether the address is from 1.0.0.0 to 223.255.255.255, and not loopback.
#[inline(always)]
pub(super) fn is_plain_unicast(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    (1..224).contains(&first) && first != 127
}

/// Whether the address is of 2000::/3, global unicast, or fc00::/7, unique local (RFC 4291, section
/// 2.4; RFC 4193).
#[inline(always)]
fn is_plain_unicast6(address: Ipv6Addr) -> bool {
    let [first, ..] = address.octets();
    first & 0b1110_0000 == 0x20 || first & 0b1111_1110 == 0xfc
}

/// IPv4 in the notation of IPv6 never appears on a wire (RFC 6890).
fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

/// Checks a packet for the world by way of the node's kernel: it is neither from the overlay, unless it is
/// for the node itself, nor VXLAN on a port of the cluster's, which another node would take, masqueraded,
/// for this node's own. The tunnels that are known by their protocol are no matter of the way: `guard` keeps
/// pods from sending such to nodes; elsewhere a pod may have one of its own.
#[inline(always)]
fn towards_host(
    tables: &Tables,
    arrival: &Arrival<'_>,
    flow: &FlowKey,
    port: crate::tables::PortId,
) -> Result<(), DropReason> {
    if !tables.port(port).is_some_and(|port| port.kind == PortRole::Host) {
        return Ok(());
    }
    let tunnels = &tables.tunnels;
    let is_to_this_node = || tunnels.local.has(flow.destination());
    if arrival.is_remote() && !is_to_this_node() {
        return Err(DropReason::SplitHorizon);
    }
    if port == arrival.ingress {
        return Err(DropReason::SamePort);
    }
    let is_tunnel = matches!(flow.protocol, Protocol::IPIP | Protocol::IPV6);
    match is_vxlan(tunnels, flow) {
        // A tunnel within a tunnel.
        is_vxlan if arrival.is_remote() && (is_vxlan || is_tunnel) => Err(DropReason::SplitHorizon),
        true => Err(DropReason::TunnelFromPod),
        false => Ok(()),
    }
}

#[inline(always)]
fn is_vxlan(tunnels: &Tunnels, flow: &FlowKey) -> bool {
    flow.protocol == Protocol::UDP
        && flow.ports().is_some_and(|ports| tunnels.takes_vxlan_on(ports.destination()))
}

/// The verdict of a packet that is dropped with an ICMP error to its sender, or without one where
/// RFC 1122, section 3.2.2, and RFC 4443, section 2.4(e), forbid it.
#[cold]
pub(crate) fn refuse(
    tables: &Tables,
    arrival: &Arrival<'_>,
    ip: &Ip,
    reason: DropReason,
    error: IcmpError,
) -> Verdict {
    let silent = Verdict::Drop(reason);
    // One that is too short to tell may be.
    let is_error = |is_error: fn(u8) -> bool| ip.flow.icmp().is_none_or(|icmp| is_error(icmp.kind));
    let about_an_error = match ip.flow.protocol {
        Protocol::ICMP => is_error(icmpv4::is_error),
        Protocol::ICMPV6 => is_error(icmpv6::is_error),
        _ => false,
    };
    let gateway =
        if ip.flow.is_v6() { tables.gateway.v6.is_some() } else { tables.gateway.v4.is_some() };
    let nobody = ip.flow.source().is_unspecified() || ip.flow.destination().is_multicast();
    if nobody || ip.flow.is_later_fragment() || about_an_error || !gateway {
        return silent;
    }
    if !arrival.is_remote() {
        return Verdict::Refuse { reason, error, back: None };
    }
    match way_back(tables, ip.flow.source()) {
        Some(back) => Verdict::Refuse { reason, error, back: Some(back) },
        None => silent,
    }
}

fn way_back(tables: &Tables, sender: IpAddr) -> Option<AdjacencyId> {
    let id = tables.route(sender)?;
    let leads_there = |id: &AdjacencyId| {
        matches!(tables.adjacency(*id), Some(Adjacency::Remote { template: Some(_), .. }))
    };
    match tables.adjacency(id)? {
        // Any will do: an error of our own belongs to no flow.
        Adjacency::Multipath(group) => {
            group.members().iter().map(|member| member.adjacency).find(leads_there)
        }
        _ => Some(id).filter(leads_there),
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv6Addr;

    use super::{is_plain_unicast6, may_be_routed6};

    #[test]
    fn a_plain_address_may_be_routed_whatever_its_rest_is() {
        let rests = [0, 1, 0xffff_c612_0102, u128::MAX >> 16];
        let addresses = (0..=0xffff_u128)
            .flat_map(|prefix| rests.map(|rest| Ipv6Addr::from_bits(prefix << 112 | rest)));
        let plain = addresses.filter(|address| is_plain_unicast6(*address));
        let mut count = 0;
        for address in plain {
            assert_eq!(may_be_routed6(address, address), Ok(()), "{address}");
            count += 1;
        }
        // An eighth of all, and a 128th.
        assert_eq!(count, 4 * (0x2000 + 0x200));
    }
}
