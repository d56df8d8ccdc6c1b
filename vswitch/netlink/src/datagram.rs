//! What a datagram of the kernel's holds, read by what reads those of the sockets.
//!
//! Enters: bytes, from the fuzz target and tests, which have no socket. Leaves: what a socket would have given its
//! owner of them.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;

use crate::fib::NEW_ROUTE;
use crate::socket::{Answers, Failure, answer, parts, take, take_raw};
use crate::{
    Error, FibRoute, FlowFilter, KernelEvent, Link, Neighbor, Result, Route, RouteLookup,
    TrackedFlow, Writer, address, conntrack, fib, link, monitor, neighbor, route, ruleset,
};

/// What the answer to a request has, of every kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// Interfaces.
    pub links: Vec<Link>,
    /// Addresses with the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Neighbours.
    pub neighbors: Vec<Neighbor>,
    /// Routes with one next hop.
    pub routes: Vec<Route>,
    /// Ways to an address.
    pub lookups: Vec<RouteLookup>,
    /// The last message is in this datagram.
    pub is_last: bool,
}

/// What a datagram of notifications announces, each with the number of the socket that asked for it.
#[must_use]
pub fn announced(datagram: &[u8]) -> Vec<(KernelEvent, u32)> {
    let mut events = Vec::new();
    monitor::events(datagram, |event, writer| events.push((event, writer)));
    events
}

/// What a datagram answers to the request of this number.
///
/// # Errors
/// If the kernel refused the request by it.
pub fn listed(datagram: &[u8], sequence: u32) -> Result<Listed> {
    let mut answers = Answers::default();
    let is_last = answer(datagram, sequence, |part| take(part, &mut answers)).map_err(refused)?;
    let mut listed = Listed { is_last, ..Listed::default() };
    for message in &answers.messages {
        listed.links.extend(link::link_of(message));
        listed.neighbors.extend(neighbor::neighbor_of(message));
        match message {
            RouteNetlinkMessage::NewAddress(message) => {
                listed.addresses.extend(address::read(message))
            }
            RouteNetlinkMessage::NewRoute(message) => {
                listed.routes.extend(route::read(message));
                listed.lookups.extend(route::next_hop(message));
            }
            _ => {}
        }
    }
    Ok(listed)
}

/// The routes of a datagram that answers a request for all of them, as they are read a hundred thousand at a
/// time.
///
/// # Errors
/// If the kernel refused the request by it.
pub fn listed_routes(datagram: &[u8], sequence: u32) -> Result<Vec<FibRoute>> {
    let mut routes = Vec::new();
    let mut each = |kind, _, payload: &[u8]| {
        routes.extend((kind == NEW_ROUTE).then(|| fib::read(payload)).flatten());
    };
    answer(datagram, sequence, |part| take_raw(part, &mut each)).map_err(refused)?;
    Ok(routes)
}

/// The tracked flows of a filter that a datagram lists.
///
/// # Errors
/// If the kernel refused the request by it.
pub fn listed_flows(
    datagram: &[u8],
    sequence: u32,
    filter: FlowFilter,
) -> Result<Vec<TrackedFlow>> {
    let mut flows = Vec::new();
    answer(datagram, sequence, |part| {
        take_raw(part, |_, _, payload| {
            flows.extend(conntrack::read(payload, filter).map(|(flow, _)| flow));
        })
    })
    .map_err(refused)?;
    Ok(flows)
}

/// The programs that changed an nftables table of that name by the transactions of a datagram.
#[must_use]
pub fn ruleset_writers(datagram: &[u8], table: &str) -> Vec<Writer> {
    let mut is_concerned = false;
    parts(datagram).filter_map(|part| ruleset::read(part, table, &mut is_concerned)).collect()
}

fn refused(failure: Failure) -> Error {
    failure.on("list what a datagram has")
}
