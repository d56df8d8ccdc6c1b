//! Routes with one next hop, written and read back, and the kernel's way to an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteScope,
    RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{FibRouteKind, Netlink, Result, RouteFilter};

/// Marks our routes in the kernel (`ip route show proto 86`), so that they are recognized after a
/// restart and no other is removed. Unassigned in include/uapi/linux/rtnetlink.h and in
/// iproute2's rt_protos.
pub const ROUTE_PROTOCOL: u8 = 86;

/// The table that the kernel looks in for all packets: RT_TABLE_MAIN.
pub const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// A route with one next hop, or with none, as it is written and as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Network and prefix length.
    pub destination: (IpAddr, u8),
    /// The table that it is in.
    pub table: u32,
    /// The program that made it: RTPROT_*, 4 for an administrator, [`ROUTE_PROTOCOL`] for us.
    pub protocol: u8,
    /// What becomes of packets.
    pub kind: FibRouteKind,
    /// The router that forwards; taken to be on the link, whatever its prefix. `None`: the link
    /// itself.
    pub gateway: Option<IpAddr>,
    /// The interface that packets leave by; `None` if they are dropped.
    pub oif: Option<u32>,
    /// The source address of packets that the node itself sends.
    pub source: Option<IpAddr>,
    /// Which of several routes to one destination wins: the lowest. `None` leaves it to the kernel:
    /// none for IPv4, which is 0, and 1024 for IPv6, which is read back.
    pub metric: Option<u32>,
    /// The largest packet, bytes, if it is smaller than the interface's.
    pub mtu: Option<u32>,
    /// The largest TCP segment to announce, bytes.
    pub advmss: Option<u32>,
}

impl Route {
    /// A route of ours, in the main table, by an interface.
    #[must_use]
    pub fn unicast(destination: (IpAddr, u8), oif: u32) -> Self {
        Self { oif: Some(oif), ..Self::without_hop(destination, FibRouteKind::Unicast) }
    }

    /// A route of ours, in the main table, that drops packets and answers their senders.
    #[must_use]
    pub fn unreachable(destination: (IpAddr, u8)) -> Self {
        Self::without_hop(destination, FibRouteKind::Unreachable)
    }

    /// A route of ours, in the main table, that drops packets in silence.
    #[must_use]
    pub fn blackhole(destination: (IpAddr, u8)) -> Self {
        Self::without_hop(destination, FibRouteKind::Blackhole)
    }

    fn without_hop(destination: (IpAddr, u8), kind: FibRouteKind) -> Self {
        Self {
            destination,
            table: MAIN_TABLE,
            protocol: ROUTE_PROTOCOL,
            kind,
            gateway: None,
            oif: None,
            source: None,
            metric: None,
            mtu: None,
            advmss: None,
        }
    }
}

/// The kernel's way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteLookup {
    /// The interface that packets leave by.
    pub oif: u32,
    /// The router that forwards them; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that the kernel would take.
    pub source: Option<IpAddr>,
    /// The largest packet that passes, bytes, if the route has it (`mtu`) or the kernel has received it
    /// for this destination lately (its cache of path MTUs).
    pub mtu: Option<u32>,
    /// The destination is this node itself.
    pub local: bool,
}

impl Netlink {
    /// Adds a route; one to the same destination with the same metric is replaced, whatever made it.
    ///
    /// # Errors
    /// If the kernel refuses: the interface is down, most likely.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        self.write_route(route, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Adds a route where there is none to the same destination with the same metric.
    ///
    /// # Errors
    /// If there is one, or the kernel refuses: the interface is down, most likely.
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        self.write_route(route, NLM_F_CREATE | NLM_F_EXCL)
    }

    fn write_route(&mut self, route: &Route, flags: u16) -> Result<()> {
        let (network, len) = route.destination;
        let mut message = message(route);
        // A route without gateway reaches its link and no farther; IPv6 has no scopes here.
        message.header.scope = match (network, route.gateway) {
            (IpAddr::V4(_), None) if route.kind == FibRouteKind::Unicast => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        if route.gateway.is_some() {
            message.header.flags = RouteFlags::Onlink;
        }
        let mut metrics = Vec::new();
        metrics.extend(route.mtu.map(RouteMetric::Mtu));
        metrics.extend(route.advmss.map(RouteMetric::Advmss));
        if !metrics.is_empty() {
            message.attributes.push(RouteAttribute::Metrics(metrics));
        }
        self.change(
            RouteNetlinkMessage::NewRoute(message),
            flags,
            format_args!("add the route to {network}/{len}"),
        )
    }

    /// Removes a route of that destination, table, protocol, kind, next hop, source and metric; false
    /// if there is none.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn delete_route(&mut self, route: &Route) -> Result<bool> {
        let (network, len) = route.destination;
        let mut message = message(route);
        message.header.scope = RouteScope::NoWhere;
        self.remove(
            RouteNetlinkMessage::DelRoute(message),
            format_args!("remove the route to {network}/{len}"),
        )
    }

    /// Such routes, of both families. One with several next hops has neither `gateway` nor `oif`
    /// here; [`Netlink::kernel_routes`] returns them.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for wanted in filter.requests() {
            let answers = self.dump(wanted, format_args!("list the routes of {filter}"))?;
            routes.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => read(route),
                _ => None,
            }));
        }
        routes.retain(|route| filter.has(route.table, route.protocol));
        Ok(routes)
    }

    /// Which way the kernel would send a packet, by all its tables and rules; `None` if no way.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn route_to(&mut self, destination: IpAddr) -> Result<Option<RouteLookup>> {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = family(destination);
        wanted.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        wanted.attributes.push(RouteAttribute::Destination(destination.into()));
        match self.ask(RouteNetlinkMessage::GetRoute(wanted), 0) {
            Ok(answers) => Ok(answers.iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => next_hop(route),
                _ => None,
            })),
            // No route; or one of type unreachable, prohibit (EACCES) or blackhole (EINVAL).
            Err(error)
                if matches!(
                    error.errno(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.on(format_args!("show the way to {destination}"))),
        }
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn message(route: &Route) -> RouteMessage {
    let (network, len) = route.destination;
    let mut message = RouteMessage::default();
    message.header.address_family = family(network);
    message.header.destination_prefix_length = len;
    message.header.protocol = route.protocol.into();
    message.header.kind = u8::from(route.kind).into();
    message.attributes = vec![
        // The header's own has room for numbers below 256 alone.
        RouteAttribute::Table(route.table),
        RouteAttribute::Destination(network.into()),
    ];
    message.attributes.extend(route.oif.map(RouteAttribute::Oif));
    message.attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    message.attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

/// What a route's attributes hold, whatever made it.
#[derive(Default)]
struct Attributes {
    destination: Option<IpAddr>,
    gateway: Option<IpAddr>,
    oif: Option<u32>,
    source: Option<IpAddr>,
    metric: Option<u32>,
    mtu: Option<u32>,
    advmss: Option<u32>,
    table: Option<u32>,
}

fn attributes(message: &RouteMessage) -> Attributes {
    let mut found = Attributes::default();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => found.destination = ip(address),
            RouteAttribute::Gateway(address) => found.gateway = ip(address),
            // An IPv4 route by an IPv6 gateway (RFC 5549).
            RouteAttribute::Via(RouteVia::Inet(address)) => found.gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => {
                found.gateway = Some((*address).into());
            }
            RouteAttribute::Oif(oif) => found.oif = Some(*oif),
            RouteAttribute::PrefSource(address) => found.source = ip(address),
            RouteAttribute::Priority(metric) => found.metric = Some(*metric),
            RouteAttribute::Table(table) => found.table = Some(*table),
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        // The kernel has zero for none.
                        RouteMetric::Mtu(mtu) => found.mtu = Some(*mtu).filter(|mtu| *mtu > 0),
                        RouteMetric::Advmss(advmss) => found.advmss = Some(*advmss),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// A route from the kernel's message; `None` if it is of the kernel's cache of path MTUs.
pub(crate) fn read(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let found = attributes(message);
    let kind = FibRouteKind::from(u8::from(header.kind));
    // IPv6 has the loopback interface for routes that drop, which no program wrote.
    let has_hop = !matches!(
        kind,
        FibRouteKind::Blackhole | FibRouteKind::Unreachable | FibRouteKind::Prohibit
    );
    Some(Route {
        // A default route has no destination attribute.
        destination: (found.destination.unwrap_or(unspecified), header.destination_prefix_length),
        table: found.table.unwrap_or(header.table.into()),
        protocol: header.protocol.into(),
        kind,
        gateway: found.gateway,
        oif: found.oif.filter(|_| has_hop),
        source: found.source,
        metric: found.metric,
        mtu: found.mtu,
        advmss: found.advmss,
    })
}

/// The way that a message of the kernel's shows.
pub(crate) fn next_hop(message: &RouteMessage) -> Option<RouteLookup> {
    let found = attributes(message);
    match message.header.kind {
        RouteType::Unreachable | RouteType::BlackHole | RouteType::Prohibit => None,
        kind => Some(RouteLookup {
            oif: found.oif?,
            gateway: found.gateway,
            source: found.source,
            mtu: found.mtu,
            local: kind == RouteType::Local,
        }),
    }
}
