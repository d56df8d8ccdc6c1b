//! The routes of a pod's interface, beside those of the pod's other interfaces.
//!
//! Enters: the routes that the IPAM plugin gave, the gateways, and the default routes that the namespace has
//! already. Leaves: the routes to make, and these in the kernel. `add` chooses them, `pod` makes them inside the
//! namespace, `check` compares them.
//!
//! Each route names its interface, and goes with it. So an interface has all of its routes, though another
//! leads to the same destination: the later one stands behind the earlier one by its metric, and takes its
//! place when that goes. One of the same metric would be refused in IPv4, and in IPv6 take half of the flows.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink::{FibRoute, FibRouteKind, MAIN_TABLE, Netlink, RouteFilter};

use crate::error::Error;
use crate::result::{Route, of_family};

/// `RTPROT_STATIC` of the kernel's include/uapi/linux/rtnetlink.h: the pod's routes are what an
/// administrator would have written.
const STATIC: u8 = 4;

/// `IP6_RT_PRIO_USER` of the kernel's include/uapi/linux/ipv6_route.h: the metric of a route that names none.
/// That of IPv4 is zero.
const METRIC6: u32 = 1024;

/// Routes to one destination that a pod can have: more interfaces than any has.
const MOST_TO_ONE: u32 = 256;

/// Families in which a namespace has a default route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DefaultRoutes {
    v4: bool,
    v6: bool,
}

impl DefaultRoutes {
    /// Those of the calling thread's namespace, whatever made them.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub(crate) fn read(netlink: &mut Netlink) -> netlink::Result<Self> {
        let mut found = Self::default();
        netlink.kernel_routes(RouteFilter::of_table(MAIN_TABLE), |route| {
            // IPv6 has an unreachable default route by itself.
            if route.destination.1 == 0 && route.kind == FibRouteKind::Unicast {
                found.note(route.destination.0);
            }
        })?;
        Ok(found)
    }

    fn note(&mut self, family_of: IpAddr) {
        if family_of.is_ipv4() { self.v4 = true } else { self.v6 = true }
    }

    fn has(self, family_of: IpAddr) -> bool {
        if family_of.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// The IPAM plugin's routes, each once. Where it gave none at all, a default route by each gateway, unless the
/// pod has one of that family by another interface.
pub(crate) fn chosen(gateways: &[IpAddr], given: &[Route], there: DefaultRoutes) -> Vec<Route> {
    if given.is_empty() {
        let missing = gateways.iter().filter(|gateway| !there.has(**gateway));
        return missing.map(|gateway| default_by(*gateway)).collect();
    }
    let mut routes: Vec<Route> = Vec::new();
    for route in given {
        let gw = route.gw.or_else(|| of_family(gateways, route.dst.addr()));
        let route = Route { gw, ..route.clone() };
        if !routes.iter().any(|other| is_same(other, &route)) {
            routes.push(route);
        }
    }
    routes
}

fn default_by(gateway: IpAddr) -> Route {
    let any: IpAddr = match gateway {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Route::via(IpNet::new(any, 0).expect("0 is a length in either family"), Some(gateway))
}

/// Whether the kernel would take the two for one.
fn is_same(one: &Route, other: &Route) -> bool {
    let key = |route: &Route| (route.dst.trunc(), route.gw, route.priority, route.table);
    key(one) == key(other)
}

/// Adds a route by the interface, behind those to the same destination that are there. Answers with the route
/// as it was made: another metric than its own shows in it.
///
/// # Errors
/// `Kernel`.
pub(crate) fn add(
    netlink: &mut Netlink,
    index: u32,
    ifname: &str,
    route: &Route,
) -> Result<Route, Error> {
    let first = route.priority.unwrap_or(if route.dst.addr().is_ipv4() { 0 } else { METRIC6 });
    let doing = || format!("add the route to {} to {ifname}", route.dst);
    let mut made = route.clone();
    for metric in first..=first.saturating_add(MOST_TO_ONE) {
        match netlink.add_route(&of_kernel(&made, index)) {
            Ok(()) => return Ok(made),
            Err(error) if is_taken(&error) => made.priority = Some(metric.saturating_add(1)),
            Err(error) => return Err(Error::kernel(doing())(error)),
        }
    }
    let taken = io::Error::from_raw_os_error(libc::EEXIST);
    Err(Error::kernel(doing())(taken))
}

fn of_kernel(route: &Route, index: u32) -> netlink::Route {
    netlink::Route {
        table: route.table.unwrap_or(MAIN_TABLE),
        protocol: STATIC,
        gateway: route.gw,
        metric: route.priority,
        mtu: route.mtu,
        advmss: route.advmss,
        ..netlink::Route::unicast((route.dst.network(), route.dst.prefix_len()), index)
    }
}

fn is_taken(error: &netlink::Error) -> bool {
    matches!(error, netlink::Error::Refused { source, .. }
        if source.raw_os_error() == Some(libc::EEXIST))
}

/// Whether the kernel's route does what the result's does, for the interface `index` with these gateways.
/// Where that names no gateway, ADD chose it. Of a result's routes those by the interface's own gateway are its
/// own; others may be another plugin's, by another interface.
pub(crate) fn stands_for(is: &FibRoute, route: &Route, index: u32, gateways: &[IpAddr]) -> bool {
    let is_own = route.gw.is_some_and(|gw| gateways.contains(&gw));
    // IPv6 joins routes of one metric by several gateways to one with several next hops.
    let leads = is.next_hops.iter().any(|hop| {
        (!is_own || hop.oif == index)
            && (hop.gateway == route.gw || (route.gw.is_none() && hop.oif != 0))
    });
    leads
        && is.kind == FibRouteKind::Unicast
        && is.destination == (route.dst.network(), route.dst.prefix_len())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{DefaultRoutes, Route, chosen};

    fn shown(given: Value, there: DefaultRoutes) -> Vec<String> {
        let gateways = ["198.18.1.1", "fd00::1"].map(|a| a.parse().expect("an address"));
        let given: Vec<Route> = serde_json::from_value(given).expect("routes");
        chosen(&gateways, &given, there)
            .iter()
            .map(|route| {
                let gw = route.gw.map(|gw| gw.to_string()).unwrap_or_default();
                let metric = route.priority.map(|metric| format!(" {metric}")).unwrap_or_default();
                format!("{} {gw}{metric}", route.dst)
            })
            .collect()
    }

    #[test]
    fn without_routes_of_the_delegate_the_gateways_are_the_default() {
        let none = DefaultRoutes::default();
        assert_eq!(shown(json!([]), none), ["0.0.0.0/0 198.18.1.1", "::/0 fd00::1"]);
    }

    #[test]
    fn a_default_route_is_invented_where_the_pod_has_none_of_that_family() {
        let (v4, v6) = (true, true);
        let v4_alone = DefaultRoutes { v4, v6: false };
        assert_eq!(shown(json!([]), v4_alone), ["::/0 fd00::1"]);
        assert_eq!(shown(json!([]), DefaultRoutes { v4, v6 }), [""; 0]);
        // One that was given is made, whatever is there.
        assert_eq!(shown(json!([{"dst": "0.0.0.0/0"}]), v4_alone), ["0.0.0.0/0 198.18.1.1"]);
    }

    #[test]
    fn routes_of_the_delegate_are_used_instead_by_the_gateway_that_they_name_or_ours() {
        let given = json!([{"dst": "198.19.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "198.18.1.254"}]);
        let routes = ["198.19.0.0/16 198.18.1.1", "0.0.0.0/0 198.18.1.254"];
        assert_eq!(shown(given, DefaultRoutes::default()), routes);
    }

    #[test]
    fn a_route_that_is_listed_twice_is_one() {
        let given = json!([
            {"dst": "0.0.0.0/0"}, {"dst": "0.0.0.0/0", "gw": "198.18.1.1"},
            {"dst": "198.19.7.7/16"}, {"dst": "198.19.0.0/16"},
            {"dst": "0.0.0.0/0", "priority": 5}, {"dst": "0.0.0.0/0", "gw": "198.18.1.254"},
        ]);
        let routes = [
            "0.0.0.0/0 198.18.1.1",
            "198.19.7.7/16 198.18.1.1",
            "0.0.0.0/0 198.18.1.1 5",
            "0.0.0.0/0 198.18.1.254",
        ];
        assert_eq!(shown(given, DefaultRoutes::default()), routes);
    }
}
