//! Packets that keep a link going, and are of no connection that policies could judge.
//!
//! Enters: a packet's headers, from `policy` and nobody else. Leaves: whether it is one.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::walk::flow::{Addresses, FlowKey, Ports};
use crate::walk::parse::{Headers, Net};
use crate::wire::{Protocol, icmpv6};

/// Whether a packet is a matter of the link, and of no connection: ARP and neighbour discovery, by which
/// neighbours find each other.
pub(super) fn is_of_link(headers: &Headers) -> bool {
    match &headers.net {
        Net::Arp => true,
        // RFC 4861, section 7.1: what has passed a router is none.
        Net::Ip(ip) if ip.flow.protocol == Protocol::ICMPV6 => {
            ip.ttl == 255
                && ip.flow.icmp().is_some_and(|icmp| icmpv6::is_neighbor_discovery(icmp.kind))
        }
        _ => false,
    }
}

/// Whether a flooded packet asks a DHCP server for an address, without which an interface has no
/// connection that could be judged. Security groups and filters of virtual machines let it pass as well.
/// Other pods with policies get no copy: no pod is a server.
pub(super) fn asks_for_address(flow: &FlowKey) -> bool {
    // RFC 2131, section 4.1; RFC 8415, section 7.
    const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    let (client, server) = match flow.addresses {
        Addresses::V4 { destination: Ipv4Addr::BROADCAST, .. } => (68, 67),
        Addresses::V6 { destination: SERVERS, .. } => (546, 547),
        _ => return false,
    };
    flow.protocol == Protocol::UDP && flow.ports() == Some(Ports::new(client, server))
}

/// Whether a DHCP server answers on a segment. No pod does (`guard`).
pub(super) fn is_dhcp_answer(flow: &FlowKey) -> bool {
    let (server, client) = if flow.is_v6() { (547, 546) } else { (67, 68) };
    flow.protocol == Protocol::UDP && flow.ports() == Some(Ports::new(server, client))
}
