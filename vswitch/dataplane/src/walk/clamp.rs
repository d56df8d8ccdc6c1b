//! Door 5, its last step, if configured: the size of segments that a connection may announce.
//!
//! Enters: a TCP packet that is routed to another node or comes from one. Leaves: for `act`, the
//! largest size that the way to that node takes in one packet, if a SYN announces more. A
//! connection whose ICMP errors are lost would stall with its first full segment otherwise.

use super::arrival::Arrival;
use super::parse::{Headers, Ip};
use crate::tables::{Adjacency, Tables};
use crate::wire::{Protocol, Tcp, TcpFlags, ipv4, ipv6, mss, tcp};

/// The largest size that a SYN may announce, if it announces more. `towards` is where the packet
/// goes.
#[inline(always)]
pub(crate) fn clamp(
    tables: &Tables,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    headers: &Headers,
    ip: &Ip,
    towards: &Adjacency,
) -> Option<u16> {
    if !tables.tunnels.clamp_mss || ip.flow.protocol != Protocol::TCP || ip.flow.is_later_fragment()
    {
        return None;
    }
    limit(tables, arrival, headers.transport(bytes, ip), ip, towards)
}

/// The same of a TCP packet. Segments towards the announcing end come by the way that this packet
/// goes.
#[inline(never)]
fn limit(
    tables: &Tables,
    arrival: &Arrival<'_>,
    segment: &[u8],
    ip: &Ip,
    towards: &Adjacency,
) -> Option<u16> {
    let segment = Tcp::parse(segment).ok()?;
    if !segment.flags().contains(TcpFlags::SYN) {
        return None;
    }
    let mtu = if arrival.is_remote() {
        remote_mtu(tables, tables.adjacency(tables.route(ip.flow.source())?)?)?
    } else {
        remote_mtu(tables, towards)?
    };
    // RFC 6691: the headers without options, whatever options there are going to be.
    let headers =
        tcp::HEADER_LEN + if ip.flow.is_v6() { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
    let limit = mtu.checked_sub(headers as u16)?;
    mss::announced(&segment).is_some_and(|size| size > limit).then_some(limit)
}

/// The MTU of the way to another node; the smallest, if flows are shared by several ways: the other
/// direction chooses for itself.
fn remote_mtu(tables: &Tables, adjacency: &Adjacency) -> Option<u16> {
    match adjacency {
        Adjacency::Remote { mtu, .. } => Some(*mtu),
        Adjacency::Multipath(group) => {
            let members = group.members().iter();
            members
                .filter_map(|member| match tables.adjacency(member.adjacency)? {
                    Adjacency::Remote { mtu, .. } => Some(*mtu),
                    _ => None,
                })
                .min()
        }
        _ => None,
    }
}
