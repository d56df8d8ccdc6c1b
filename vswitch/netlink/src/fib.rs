//! The kernel's routing tables, whatever filled them.
//!
//! Enters: `rtmsg` messages, from `monitor` and from dumps. Leaves: [`FibRoute`]s. They come a
//! hundred thousand at a time, so that they are read in place by the few attributes that matter:
//! include/uapi/linux/rtnetlink.h, `struct rtmsg`, `struct rtattr` and `struct rtnexthop`.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::socket::{NLM_F_APPEND, NLM_F_REPLACE};
use crate::{Netlink, Result};

/// RTM_NEWROUTE and RTM_DELROUTE.
pub(crate) const NEW_ROUTE: u16 = 24;
pub(crate) const DELETE_ROUTE: u16 = 25;

/// `struct rtmsg`: family, lengths of destination and source, TOS, table, protocol, scope, type,
/// and flags in four bytes.
const HEADER_BYTES: usize = 12;
/// RTM_F_CLONED: an exception that path MTU discovery or a redirect made.
const CLONED: u32 = 0x200;

const DESTINATION: u16 = 1;
const OIF: u16 = 4;
const GATEWAY: u16 = 5;
const PRIORITY: u16 = 6;
const MULTIPATH: u16 = 9;
const TABLE: u16 = 15;
const VIA: u16 = 18;
/// NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const TYPE_FLAGS: u16 = 0xc000;

// RTNH_F_* of a next hop.
const DEAD: u32 = 1;
const ONLINK: u32 = 4;
const LINKDOWN: u32 = 16;

/// A route of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FibRoute {
    /// Network and prefix length.
    pub destination: (IpAddr, u8),
    /// The table that it is in; 254 is the main one.
    pub table: u32,
    /// For packets with this type of service alone; 0 for all.
    pub tos: u8,
    /// Which of several routes to one destination wins: the lowest.
    pub metric: u32,
    /// Protocol of the program that made it: RTPROT_*, 4 for `ip route`, 12 for BIRD, 186 for BGP by FRR.
    pub protocol: u8,
    /// What becomes of packets.
    pub kind: FibRouteKind,
    /// Where they go; none for a blackhole.
    pub next_hops: Vec<FibHop>,
}

/// One of a route's next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FibHop {
    /// The interface that packets leave by; 0 if the kernel named none.
    pub oif: u32,
    /// The router that forwards them; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Its share among the others', 1 to 256.
    pub weight: u16,
    /// The gateway is on the link, whatever the addresses suggest.
    pub onlink: bool,
    /// The interface is up and has its carrier.
    pub usable: bool,
}

/// What a route does with packets: RTN_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FibRouteKind {
    /// Forwards them.
    Unicast,
    /// The destination is this node.
    Local,
    /// Drops them.
    Blackhole,
    /// Drops them and reports that the destination is unreachable.
    Unreachable,
    /// Drops them and reports that it is forbidden.
    Prohibit,
    /// Broadcast, anycast, multicast and what this program does not know.
    Other(u8),
}

impl From<u8> for FibRouteKind {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Unicast,
            2 => Self::Local,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            8 => Self::Prohibit,
            other => Self::Other(other),
        }
    }
}

impl From<FibRouteKind> for u8 {
    fn from(kind: FibRouteKind) -> Self {
        match kind {
            FibRouteKind::Unicast => 1,
            FibRouteKind::Local => 2,
            FibRouteKind::Blackhole => 6,
            FibRouteKind::Unreachable => 7,
            FibRouteKind::Prohibit => 8,
            FibRouteKind::Other(number) => number,
        }
    }
}

/// Which routes are listed; `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteFilter {
    /// The table that they are in; 254 is the main one.
    pub table: Option<u32>,
    /// The program that made them: RTPROT_*.
    pub protocol: Option<u8>,
}

impl RouteFilter {
    /// The routes of one table, whatever program made them.
    #[must_use]
    pub fn of_table(table: u32) -> Self {
        Self { table: Some(table), protocol: None }
    }

    /// Whether a route of that table and protocol is among them.
    pub(crate) fn has(self, table: u32, protocol: u8) -> bool {
        self.table.is_none_or(|wanted| wanted == table)
            && self.protocol.is_none_or(|wanted| wanted == protocol)
    }

    /// Requests for them, one a family.
    pub(crate) fn requests(self) -> impl Iterator<Item = RouteNetlinkMessage> {
        [AddressFamily::Inet, AddressFamily::Inet6].into_iter().map(move |family| {
            let mut wanted = RouteMessage::default();
            wanted.header.address_family = family;
            wanted.attributes.extend(self.table.map(RouteAttribute::Table));
            wanted.header.protocol = self.protocol.unwrap_or_default().into();
            RouteNetlinkMessage::GetRoute(wanted)
        })
    }
}

impl fmt::Display for RouteFilter {
    /// Written as `table 254, protocol 86`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.table {
            Some(table) => write!(f, "table {table}")?,
            None => f.write_str("every table")?,
        }
        self.protocol.map_or(Ok(()), |protocol| write!(f, ", protocol {protocol}"))
    }
}

/// Where an added route stands among those of the same destination and metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoutePlacement {
    /// Before the others.
    First,
    /// Instead of the first.
    Replaces,
    /// Behind the others, or joined to them.
    Appended,
}

impl FibRoute {
    /// The same route, whatever its links do now.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let hop = |hop: &FibHop| (hop.oif, hop.gateway, hop.weight);
        (self.destination, self.table, self.tos, self.metric, self.protocol, self.kind)
            == (other.destination, other.table, other.tos, other.metric, other.protocol, other.kind)
            && self.next_hops.iter().map(hop).eq(other.next_hops.iter().map(hop))
    }
}

impl Netlink {
    /// Every such route, of both families. A route that comes or goes meanwhile may be among them
    /// or not: a monitor that was open before announces it.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn kernel_routes(
        &mut self,
        filter: RouteFilter,
        mut each: impl FnMut(FibRoute),
    ) -> Result<()> {
        for wanted in filter.requests() {
            let action = format_args!("list the routes of {filter}");
            self.dump_each(wanted, action, |kind, _, payload| {
                let route = (kind == NEW_ROUTE).then(|| read(payload)).flatten();
                if let Some(route) = route.filter(|route| filter.has(route.table, route.protocol)) {
                    each(route);
                }
            })?;
        }
        Ok(())
    }
}

/// Where the flags of a notification put its route.
pub(crate) fn placement(flags: u16) -> RoutePlacement {
    if flags & NLM_F_REPLACE != 0 {
        RoutePlacement::Replaces
    } else if flags & NLM_F_APPEND != 0 {
        RoutePlacement::Appended
    } else {
        RoutePlacement::First
    }
}

/// A route from a message's payload; `None` if it is of another family, of the kernel's cache, or
/// makes no sense.
pub(crate) fn read(payload: &[u8]) -> Option<FibRoute> {
    let (header, attributes) = payload.split_first_chunk::<HEADER_BYTES>()?;
    let [family, len, source_len, tos, table, protocol, _, kind, flags @ ..] = *header;
    let flags = u32::from_ne_bytes(flags);
    let mut destination = match i32::from(family) {
        libc::AF_INET => IpAddr::from([0; 4]),
        libc::AF_INET6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let longest = if destination.is_ipv4() { 32 } else { 128 };
    // One that is for some senders alone (IPv6) does not concern all others.
    if len > longest || source_len > 0 || flags & CLONED != 0 {
        return None;
    }
    let mut route = FibRoute {
        destination: (destination, len),
        table: table.into(),
        tos,
        metric: 0,
        protocol,
        kind: kind.into(),
        next_hops: Vec::new(),
    };
    let mut single = hop(0, 1, flags);
    for (kind, value) in Attributes(attributes) {
        match kind {
            DESTINATION => destination = address(value)?,
            OIF => single.oif = number(value)?,
            GATEWAY => single.gateway = Some(address(value)?),
            VIA => single.gateway = Some(via(value)?),
            PRIORITY => route.metric = number(value)?,
            TABLE => route.table = number(value)?,
            MULTIPATH => route.next_hops = multipath(value),
            _ => {}
        }
    }
    if destination.is_ipv4() != route.destination.0.is_ipv4() {
        return None;
    }
    route.destination.0 = destination;
    if route.next_hops.is_empty() && (single.oif != 0 || single.gateway.is_some()) {
        route.next_hops.push(single);
    }
    Some(route)
}

fn hop(oif: u32, weight: u16, flags: u32) -> FibHop {
    let (onlink, usable) = (flags & ONLINK != 0, flags & (DEAD | LINKDOWN) == 0);
    FibHop { oif, gateway: None, weight, onlink, usable }
}

/// `struct rtnexthop`s: length, flags, weight less one, interface, attributes.
fn multipath(mut bytes: &[u8]) -> Vec<FibHop> {
    const HEADER_BYTES: usize = 8;
    let mut hops = Vec::new();
    while let Some(&[a, b, flags, weight, ref oif @ ..]) = bytes.first_chunk::<HEADER_BYTES>() {
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let Some(attributes) = bytes.get(HEADER_BYTES..len) else { break };
        let mut hop = hop(u32::from_ne_bytes(*oif), u16::from(weight) + 1, flags.into());
        for (kind, value) in Attributes(attributes) {
            match kind {
                GATEWAY => hop.gateway = address(value),
                VIA => hop.gateway = via(value),
                _ => {}
            }
        }
        hops.push(hop);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

/// `struct rtvia`: an address of another family than the route's (RFC 5549).
fn via(value: &[u8]) -> Option<IpAddr> {
    address(value.get(2..)?)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// `struct rtattr`s: length, type, value; a length that does not fit ends them.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [a, b, c, d] = *self.0.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & !TYPE_FLAGS, value))
    }
}

#[cfg(test)]
mod tests {
    use super::{FibHop, FibRouteKind, read};

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = (4 + value.len()) as u16;
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0xa5);
        bytes
    }

    fn message(header: [u8; 12], attributes: &[Vec<u8>]) -> Vec<u8> {
        [header.as_slice(), &attributes.concat()].concat()
    }

    #[test]
    fn a_route_with_several_next_hops_is_read() {
        let hop = |flags: u8, weight: u8, oif: u32, via: [u8; 4]| {
            let attributes = attribute(5, &via);
            let len = (8 + attributes.len()) as u16;
            [&len.to_ne_bytes()[..], &[flags, weight], &oif.to_ne_bytes(), &attributes].concat()
        };
        let hops = [hop(0, 0, 3, [198, 51, 100, 2]), hop(16, 4, 4, [198, 51, 100, 3])].concat();
        let bytes = message(
            [2, 24, 0, 0, 254, 12, 0, 1, 0, 0, 0, 0],
            &[
                attribute(1, &[198, 18, 2, 0]),
                attribute(6, &20_u32.to_ne_bytes()),
                attribute(15, &1000_u32.to_ne_bytes()),
                attribute(9, &hops),
            ],
        );
        let route = read(&bytes).expect("well formed");
        assert_eq!(route.destination, ([198, 18, 2, 0].into(), 24));
        assert_eq!((route.table, route.metric, route.protocol), (1000, 20, 12));
        assert_eq!(route.kind, FibRouteKind::Unicast);
        let expected = |oif, last, weight, usable| FibHop {
            oif,
            gateway: Some([198, 51, 100, last].into()),
            weight,
            onlink: false,
            usable,
        };
        assert_eq!(route.next_hops, [expected(3, 2, 1, true), expected(4, 3, 5, false)]);
    }

    #[test]
    fn what_makes_no_sense_is_no_route() {
        let network = attribute(1, &[198, 18, 2, 0]);
        for (what, bytes) in [
            ("less than a header", vec![2; 11]),
            ("a bridge's", message([7, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0], &[])),
            ("longer than its family", message([2, 33, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0], &[])),
            (
                "of the cache",
                message([2, 24, 0, 0, 254, 4, 0, 1, 0, 2, 0, 0], std::slice::from_ref(&network)),
            ),
            ("for some senders", message([10, 24, 8, 0, 254, 4, 0, 1, 0, 0, 0, 0], &[])),
            ("of two families", message([10, 24, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0], &[network])),
            (
                "with an address of three bytes",
                message([2, 24, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0], &[attribute(1, &[1, 2, 3])]),
            ),
        ] {
            assert_eq!(read(&bytes), None, "{what}");
        }
    }

    #[test]
    fn any_bytes_are_read_without_end_or_panic() {
        let whole = message(
            [2, 24, 0, 0, 254, 12, 0, 1, 0, 0, 0, 0],
            &[attribute(1, &[198, 18, 2, 0]), attribute(9, &[16, 0, 0, 0, 1, 0, 0, 0, 8, 0, 5, 0])],
        );
        for at in 0..whole.len() {
            let _ = read(&whole[..at]);
            for value in [0, 1, 4, 0x7f, 0xff] {
                let mut bent = whole.clone();
                bent[at] = value;
                let _ = read(&bent);
            }
        }
    }
}
