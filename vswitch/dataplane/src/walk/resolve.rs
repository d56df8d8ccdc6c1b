//! Left of the verdict: which requests the switch answers itself, by ARP, neighbour discovery and
//! ping.
//!
//! Enters: a parsed packet, from `bridge` and `route`. Leaves: the [`Answer`] that it gets, for
//! `answer` to make of it; or the reason why it gets none.

use core::net::{IpAddr, Ipv6Addr};

use super::arrival::{Arrival, ArrivedFrom};
use super::flow::{Addresses, Icmp};
use super::parse::{Headers, Ip, Net};
use super::route;
use crate::tables::{Adjacency, Attachment, PortRole, Tables};
use crate::verdict::{Answer, DropReason};
use crate::wire::{Arp, Protocol, Solicitation, arp, icmpv4, icmpv6};

/// Which addresses are resolved for the port that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResolveScope {
    /// All, as a proxy: a port that only routes has no neighbour but the gateway. For the underlay's
    /// link, the addresses of this node's pods.
    Proxy,
    /// The gateway's, and those that have the segment's prefix but are reached by a route: members
    /// of a segment resolve each other.
    Segment,
}

/// The answer to an ARP or neighbour discovery packet that ends here, or why it gets none. `None` if
/// the packet is something else, or for another member of the segment.
#[inline(always)]
pub(crate) fn resolution(
    tables: &Tables,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    headers: &Headers,
    scope: ResolveScope,
) -> Option<Result<Answer, DropReason>> {
    match &headers.net {
        Net::Arp => {}
        Net::Ip(ip) if ip.flow.protocol == Protocol::ICMPV6 => {}
        _ => return None,
    }
    resolved(tables, arrival, bytes, headers, scope)
}

/// The same of ARP and ICMPv6. Out of the way of all other packets.
#[inline(never)]
fn resolved(
    tables: &Tables,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    headers: &Headers,
    scope: ResolveScope,
) -> Option<Result<Answer, DropReason>> {
    let ours = |target: IpAddr| match scope {
        _ if !is_of_a_host(target) => false,
        // No port is told that its own address is another's: duplicate address detection would take
        // it away. The gateway's addresses are the host port's own.
        ResolveScope::Proxy if matches!(arrival.from, ArrivedFrom::Host) => {
            !tables.is_gateway(target)
        }
        ResolveScope::Proxy if arrival.is_remote() => tables.is_local(target),
        ResolveScope::Proxy => !arrival.port.addresses.contains(&target),
        ResolveScope::Segment => is_beyond(tables, target),
    };
    let answered = match &headers.net {
        Net::Arp => arp(bytes.get(headers.l3..)?, headers, ours, scope),
        Net::Ip(ip)
            if ip.flow.protocol == Protocol::ICMPV6
                && ip.flow.is_v6()
                && !ip.flow.is_fragment() =>
        {
            discovery(headers.transport(bytes, ip), ip, ours, scope)
        }
        _ => return None,
    };
    match answered {
        Ok(None) => None,
        Ok(Some(answer)) => Some(Ok(answer)),
        Err(reason) => Some(Err(reason)),
    }
}

/// The answer to a ping that is whole, so that it can be turned round in place.
#[inline(never)]
pub(crate) fn echo(ip: &Ip) -> Option<Answer> {
    let Icmp { kind, code: 0, echo_id: Some(_) } = ip.flow.icmp()? else { return None };
    match (ip.flow.protocol, kind) {
        _ if ip.flow.is_fragment() => None,
        (Protocol::ICMP, icmpv4::ECHO_REQUEST) if !ip.flow.is_v6() => Some(Answer::Echo4),
        (Protocol::ICMPV6, icmpv6::ECHO_REQUEST) if ip.flow.is_v6() => Some(Answer::Echo6),
        _ => None,
    }
}

/// Whether a host can have the address: it is neither unspecified nor loopback, multicast or
/// broadcast (RFC 1122, section 3.2.1.3; RFC 4291, section 2.5).
fn is_of_a_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => route::is_plain_unicast(v4),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast(),
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
            port.kind == PortRole::Pod && port.attachment == Attachment::Routed
        }),
        _ => false,
    }
}

fn arp(
    bytes: &[u8],
    headers: &Headers,
    ours: impl Fn(IpAddr) -> bool,
    scope: ResolveScope,
) -> Result<Option<Answer>, DropReason> {
    let Ok(arp) = Arp::parse(bytes) else {
        return if scope == ResolveScope::Proxy { Err(DropReason::ArpMalformed) } else { Ok(None) };
    };
    let asked = arp.operation() == arp::Operation::Request
        && arp.sender_mac() == headers.source_mac
        && arp.target_ip() != arp.sender_ip()
        && ours(arp.target_ip().into());
    match (asked, scope) {
        (true, _) => Ok(Some(Answer::Arp)),
        (false, ResolveScope::Proxy) => Err(DropReason::ArpUnanswered),
        (false, ResolveScope::Segment) => Ok(None),
    }
}

fn discovery(
    message: &[u8],
    ip: &Ip,
    ours: impl Fn(IpAddr) -> bool,
    scope: ResolveScope,
) -> Result<Option<Answer>, DropReason> {
    let Some(icmp) = ip.flow.icmp() else { return Ok(None) };
    match icmp.kind {
        icmpv6::NEIGHBOR_SOLICITATION => {}
        icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT => {
            return Err(DropReason::RogueAdvertisement);
        }
        icmpv6::NEIGHBOR_ADVERTISEMENT | icmpv6::ROUTER_SOLICITATION
            if scope == ResolveScope::Proxy =>
        {
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
        return match scope {
            ResolveScope::Proxy => Err(DropReason::NeighborDiscoveryMalformed),
            ResolveScope::Segment => Ok(None),
        };
    };
    // An unspecified source is duplicate address detection (RFC 4862): the address is the asker's.
    let asked = !source.is_unspecified()
        && solicitation.target() != source
        && ours(solicitation.target().into());
    match (asked, scope) {
        (true, _) => Ok(Some(Answer::NeighborAdvertisement)),
        (false, ResolveScope::Proxy) => Err(DropReason::NeighborDiscoveryUnanswered),
        (false, ResolveScope::Segment) => Ok(None),
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
