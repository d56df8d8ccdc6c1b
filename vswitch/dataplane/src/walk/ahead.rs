//! Loads what the walk of a packet is going to read, while other packets of its batch are loading theirs.
//!
//! Enters: the packets of a batch, before the first of them is processed. Leaves: nothing, but their
//! routes, next hops and sessions are in the cache then. A walk waits for each of these in turn; here the
//! processor waits for those of many packets at the same time. Nothing is checked and nothing decided:
//! bytes at a fixed place that mean something else cost a look-up.

use core::net::Ipv4Addr;

use frame::{Packet, prefetch};

use super::session::ZONE;
use crate::session::{Endpoint, Location, SessionTable, Tuple};
use crate::tables::{Adjacency, PortId, PortRole, Tables};
use crate::wire::{EtherType, Protocol, ethernet, ipv4, udp, vxlan};

/// Where an IPv4 header has its protocol, its source and its destination.
const PROTOCOL: usize = 9;
const SOURCE: usize = 12;
const DESTINATION: usize = 16;

/// Sessions that are looked ahead for together.
const TOGETHER: usize = 32;

/// Looks the destinations of IPv4 packets up. Others are left alone.
#[inline]
pub(crate) fn routes<'p>(tables: &Tables, batch: impl Iterator<Item = (PortId, &'p Packet)>) {
    for (ingress, packet) in batch {
        // Of what it does not know it loads nothing.
        let _ = route(tables, ingress, &packet.frame);
    }
}

/// Looks the sessions of IPv4 packets up that need one. Of the others nothing is hashed.
#[inline(never)]
pub(crate) fn sessions<'p>(
    tables: &Tables,
    sessions: &SessionTable,
    batch: impl Iterator<Item = (PortId, &'p Packet)>,
) {
    let mut located = [None; TOGETHER];
    let mut len = 0;
    let mut sender = None;
    for (ingress, packet) in batch {
        // A batch from a pod has one sender: most are asked for but once.
        let of = match sender {
            Some((known, of)) if known == ingress => of,
            _ => sender.insert((ingress, Concerned::of(tables, sessions, ingress))).1,
        };
        let Some(at) = locate(tables, sessions, ingress, of, &packet.frame) else { continue };
        sessions.prefetch(&at);
        if let Some(place) = located.get_mut(len) {
            *place = Some(at);
            len += 1;
        }
        if len == TOGETHER {
            load(sessions, &mut located);
            len = 0;
        }
    }
    load(sessions, located.get_mut(..len).unwrap_or_default());
}

/// Loads the entries whose tags are loading.
#[inline]
fn load(sessions: &SessionTable, located: &mut [Option<Location>]) {
    located.iter().flatten().for_each(|at| sessions.prefetch_entry(at));
    if sessions.has_steered() {
        for place in &mut *located {
            *place = place.and_then(|at| sessions.behind_alias(&at));
            place.iter().for_each(|at| sessions.prefetch(at));
        }
        located.iter().flatten().for_each(|at| sessions.prefetch_entry(at));
    }
}

#[inline]
fn route(tables: &Tables, ingress: PortId, bytes: &[u8]) -> Option<()> {
    let l3 = l3(tables, ingress, bytes)?;
    let adjacency = tables.fib4.lookup(address(bytes, l3 + DESTINATION)?)?;
    prefetch(tables.adjacency(adjacency)?);
    Some(())
}

/// Whether packets of this port may need a session.
#[inline]
fn concerns(tables: &Tables, sessions: &SessionTable, port: PortId) -> bool {
    tables.policies.concern(port) || sessions.steered_of(port) > 0
}

/// Which packets of a sender may need a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Concerned {
    All,
    /// Those to some pods: where one is judged, or the sender is no pod.
    ByReceiver,
    None,
}

impl Concerned {
    #[inline]
    fn of(tables: &Tables, sessions: &SessionTable, ingress: PortId) -> Self {
        if concerns(tables, sessions, ingress) {
            Self::All
        } else if !tables.policies.is_empty() || tables.tunnels.uplink == Some(ingress) {
            Self::ByReceiver
        } else {
            Self::None
        }
    }
}

/// Where the packet's session is, if it may need one.
#[inline]
fn locate(
    tables: &Tables,
    sessions: &SessionTable,
    ingress: PortId,
    of: Concerned,
    bytes: &[u8],
) -> Option<Location> {
    if of == Concerned::None {
        return None;
    }
    let l3 = l3(tables, ingress, bytes)?;
    let (source, destination) = (address(bytes, l3 + SOURCE)?, address(bytes, l3 + DESTINATION)?);
    if of == Concerned::ByReceiver {
        match tables.fib4.lookup(destination).and_then(|id| tables.adjacency(id))? {
            Adjacency::Port { port, .. } if concerns(tables, sessions, *port) => {}
            _ => return None,
        }
    }
    let protocol = Protocol(*bytes.get(l3 + PROTOCOL)?);
    if !matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP) {
        return None;
    }
    let [a, b, c, d] = *bytes.get(l3 + ipv4::HEADER_LEN..)?.first_chunk()?;
    let end = |address: Ipv4Addr, port| Endpoint {
        address: address.into(),
        port: u16::from_be_bytes(port),
    };
    let tuple = Tuple::new(ZONE, protocol, end(source, [a, b]), end(destination, [c, d]))?;
    Some(sessions.locate(&tuple))
}

#[inline]
fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let address: &[u8; 4] = bytes.get(at..)?.first_chunk()?;
    Some(Ipv4Addr::from(*address))
}

/// Where the network header of an IPv4 packet is, behind those that are taken away.
#[inline]
fn l3(tables: &Tables, ingress: PortId, bytes: &[u8]) -> Option<usize> {
    match tables.port(ingress)?.kind {
        PortRole::Uplink => l3_in_tunnel(bytes),
        PortRole::Pod | PortRole::Host => l3_behind(bytes, 0),
    }
}

/// Where the network header is behind an Ethernet header that says IPv4.
#[inline]
fn l3_behind(bytes: &[u8], ethernet_at: usize) -> Option<usize> {
    let l3 = ethernet_at + ethernet::HEADER_LEN;
    (*bytes.get(l3 - 2..l3)? == EtherType::IPV4.0.to_be_bytes()).then_some(l3)
}

/// The same of the packet inside, if a tunnel over IPv4 carries one.
#[inline]
fn l3_in_tunnel(bytes: &[u8]) -> Option<usize> {
    let l3 = l3_behind(bytes, 0)?;
    let l4 = l3 + ipv4::HEADER_LEN;
    match Protocol(*bytes.get(l3 + PROTOCOL)?) {
        Protocol::UDP => l3_behind(bytes, l4 + udp::HEADER_LEN + vxlan::HEADER_LEN),
        Protocol::IPIP => Some(l4),
        _ => Some(l3),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests;
