//! Routes: ours in the kernel's main table, and the kernel's way to an address.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Netlink, Result};

/// Marks our routes in the kernel (`ip route show proto 86`), so that they are recognized after a
/// restart and nobody else's is removed. Unassigned in include/uapi/linux/rtnetlink.h and in
/// iproute2's rt_protos.
pub const ROUTE_PROTOCOL: u8 = 86;

/// A route of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Network and prefix length.
    pub destination: (IpAddr, u8),
    /// Who forwards; taken to be on the link, whatever its prefix. `None`: the link itself.
    pub gateway: Option<IpAddr>,
    /// The interface that packets leave by.
    pub oif: u32,
    /// The source address of packets that the node itself sends.
    pub source: Option<IpAddr>,
    /// Which of several routes to one destination wins: the lowest. `None` leaves it to the kernel:
    /// 0 for IPv4, 1024 for IPv6.
    pub metric: Option<u32>,
}

/// The kernel's way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// The interface that packets leave by.
    pub oif: u32,
    /// Who forwards them; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that the kernel would take.
    pub source: Option<IpAddr>,
    /// The largest packet that passes, bytes, if the route says so (`mtu`) or the kernel has heard it
    /// of this destination lately (its cache of path MTUs).
    pub mtu: Option<u32>,
    /// The destination is this node itself.
    pub local: bool,
}

impl Netlink {
    /// Adds a route; one to the same destination with the same metric is replaced, whoever made it.
    ///
    /// # Errors
    /// If the kernel refuses: the interface is down, most likely.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        let (network, len) = route.destination;
        let mut message = message(route);
        message.header.kind = RouteType::Unicast;
        // A route without gateway reaches its link and no farther; IPv6 has no scopes here.
        message.header.scope = match (network, route.gateway) {
            (IpAddr::V4(_), None) => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        if route.gateway.is_some() {
            message.header.flags = RouteFlags::Onlink;
        }
        self.change(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            format_args!("add the route to {network}/{len}"),
        )
    }

    /// Removes a route of ours; false if there is none like it.
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

    /// Our routes, of both families.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut wanted = RouteMessage::default();
            wanted.header.address_family = family;
            wanted.header.table = RouteHeader::RT_TABLE_MAIN;
            wanted.header.protocol = ROUTE_PROTOCOL.into();
            let answers = self.dump(&RouteNetlinkMessage::GetRoute(wanted), "list the routes")?;
            routes.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => read(route),
                _ => None,
            }));
        }
        Ok(routes)
    }

    /// Which way the kernel would send a packet, by all its tables and rules; `None` if no way.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn route_to(&mut self, destination: IpAddr) -> Result<Option<NextHop>> {
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
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = ROUTE_PROTOCOL.into();
    message.attributes =
        vec![RouteAttribute::Destination(network.into()), RouteAttribute::Oif(route.oif)];
    message.attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    message.attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

/// What a route's attributes say, whoever made it.
#[derive(Default)]
struct Attributes {
    destination: Option<IpAddr>,
    gateway: Option<IpAddr>,
    oif: Option<u32>,
    source: Option<IpAddr>,
    metric: Option<u32>,
    mtu: Option<u32>,
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
            RouteAttribute::Metrics(metrics) => {
                found.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
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

/// A route of ours from the kernel's message; `None` if it is somebody else's.
fn read(message: &RouteMessage) -> Option<Route> {
    if message.header.protocol != RouteProtocol::from(ROUTE_PROTOCOL) {
        return None;
    }
    let found = attributes(message);
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    Some(Route {
        // A default route has no destination attribute.
        destination: (
            found.destination.unwrap_or(unspecified),
            message.header.destination_prefix_length,
        ),
        gateway: found.gateway,
        oif: found.oif?,
        source: found.source,
        metric: found.metric,
    })
}

fn next_hop(message: &RouteMessage) -> Option<NextHop> {
    let found = attributes(message);
    match message.header.kind {
        RouteType::Unreachable | RouteType::BlackHole | RouteType::Prohibit => None,
        kind => Some(NextHop {
            oif: found.oif?,
            gateway: found.gateway,
            source: found.source,
            // The kernel has zero for none.
            mtu: found.mtu.filter(|mtu| *mtu > 0),
            local: kind == RouteType::Local,
        }),
    }
}
