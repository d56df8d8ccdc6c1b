//! Routes: written, told from others, read back as they were written.

use netlink::{Error, FibRouteKind, MAIN_TABLE, Netlink, ROUTE_PROTOCOL, Route, RouteFilter};

use super::common::{Namespace, ip};
use super::{OURS, addr, net, veth};

#[test]
fn our_routes_are_told_from_others_and_removed() {
    let Some(namespace) = Namespace::new("our_routes_are_told_from_others_and_removed") else {
        return;
    };
    namespace.run(|| {
        let (mut netlink, oif) = veth();
        netlink.add_address(oif, net("198.51.100.1/24")).expect("added");
        netlink.add_address(oif, net("fd00::1/64")).expect("added");
        let route = |destination, gateway, source, metric| Route {
            gateway,
            source,
            metric,
            ..Route::unicast(net(destination), oif)
        };
        let source = Some(addr("198.51.100.1"));
        let ours = [
            route("198.18.0.0/24", None, source, None),
            // Not in the prefix of any address: on the link all the same.
            route("198.18.1.0/24", Some(addr("203.0.113.9")), source, Some(50)),
            route("fd00:18::/64", None, Some(addr("fd00::1")), Some(1024)),
            route("2001:db8:1::/48", Some(addr("fd77::9")), None, Some(7)),
            route("0.0.0.0/0", Some(addr("198.51.100.254")), None, None),
        ];
        ip("route add 198.18.9.0/24 dev v0");
        for route in &ours {
            netlink.replace_route(route).expect("new");
            netlink.replace_route(route).expect("there already");
        }
        let mut found = netlink.routes(OURS).expect("a list");
        found.sort_by_key(|route| route.destination);
        let mut expected = ours.to_vec();
        expected.sort_by_key(|route| route.destination);
        assert_eq!(found, expected, "protocol {ROUTE_PROTOCOL} only");

        let hop = netlink.route_to(addr("198.18.1.7")).expect("an answer").expect("a way");
        assert_eq!((hop.oif, hop.gateway, hop.source), (oif, Some(addr("203.0.113.9")), source));
        assert!(!hop.local);
        let hop = netlink.route_to(addr("fd00:18::7")).expect("an answer").expect("a way");
        assert_eq!((hop.oif, hop.gateway), (oif, None));
        assert_eq!(hop.mtu, None);
        ip("route add 203.0.113.128/25 dev v0 mtu 1400");
        ip("route add 203.0.113.192/26 dev v0 mtu lock 1300 advmss 1200");
        ip("route add 2001:db8:2::/48 dev v0 mtu 1350");
        for (address, mtu) in
            [("203.0.113.129", 1400), ("203.0.113.200", 1300), ("2001:db8:2::1", 1350)]
        {
            let hop = netlink.route_to(addr(address)).expect("an answer").expect("a way");
            assert_eq!((hop.oif, hop.mtu), (oif, Some(mtu)), "{address}");
        }
        for prefix in ["203.0.113.128/25", "203.0.113.192/26", "2001:db8:2::/48"] {
            ip(&format!("route del {prefix}"));
        }
        assert!(netlink.route_to(addr("198.51.100.1")).expect("an answer").expect("a way").local);

        for route in &ours {
            assert!(netlink.delete_route(route).expect("it was there"), "{route:?}");
            assert!(!netlink.delete_route(route).expect("it is gone"), "{route:?}");
        }
        assert_eq!(netlink.routes(OURS).expect("a list"), []);
        assert!(netlink.route_to(addr("198.18.9.1")).expect("an answer").is_some(), "not ours");
        assert_eq!(netlink.route_to(addr("203.0.113.1")).expect("an answer"), None);
        ip("route add blackhole 203.0.113.0/24");
        assert_eq!(netlink.route_to(addr("203.0.113.1")).expect("an answer"), None);
    });
}

#[test]
fn routes_of_every_kind_are_read_back_as_they_were_written() {
    let test = "routes_of_every_kind_are_read_back_as_they_were_written";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(|| {
        let (mut netlink, oif) = veth();
        netlink.add_address(oif, net("198.51.100.1/24")).expect("added");
        let last = Some(4_000_000);
        let written = [
            Route { metric: last, ..Route::unreachable(net("198.18.0.0/16")) },
            Route { metric: last, ..Route::unreachable(net("fd00:18::/48")) },
            Route { metric: Some(7), ..Route::blackhole(net("198.19.0.0/16")) },
            Route { metric: Some(7), ..Route::blackhole(net("fd00:19::/48")) },
            // Beside the first: it wins while it is there.
            Route {
                gateway: Some(addr("198.51.100.2")),
                metric: Some(50),
                mtu: Some(1400),
                advmss: Some(1200),
                ..Route::unicast(net("198.18.0.0/16"), oif)
            },
            Route {
                gateway: Some(addr("2001:db8::2")),
                metric: Some(50),
                mtu: Some(1400),
                ..Route::unicast(net("fd00:18::/48"), oif)
            },
            Route { table: 1000, ..Route::unicast(net("198.18.0.0/16"), oif) },
            Route { protocol: 4, metric: Some(9), ..Route::unicast(net("0.0.0.0/0"), oif) },
        ];
        for route in &written {
            netlink.add_route(route).expect("new");
            let again = netlink.add_route(route).expect_err("there already");
            assert!(
                matches!(&again, Error::Refused { source, .. } if source.raw_os_error() == Some(libc::EEXIST)),
                "{again:?}"
            );
            netlink.replace_route(route).expect("there already, and the same");
        }
        let sorted = |mut routes: Vec<Route>| {
            routes.sort_by_key(|route| (route.destination, route.metric));
            routes
        };
        let chosen = |keep: fn(&&Route) -> bool| {
            sorted(written.iter().filter(keep).cloned().collect())
        };
        let ours = netlink.routes(OURS).expect("a list");
        assert_eq!(sorted(ours), chosen(|r| r.table == MAIN_TABLE && r.protocol == ROUTE_PROTOCOL));
        let other = netlink.routes(RouteFilter::of_table(1000)).expect("a list");
        assert_eq!(other, chosen(|route| route.table == 1000));
        assert_eq!(netlink.routes(RouteFilter::of_table(77)).expect("no such table"), []);
        let of_protocol = RouteFilter { protocol: Some(ROUTE_PROTOCOL), table: None };
        assert_eq!(
            sorted(netlink.routes(of_protocol).expect("a list")),
            chosen(|route| route.protocol == ROUTE_PROTOCOL)
        );

        let to = |netlink: &mut Netlink, text| netlink.route_to(addr(text)).expect("an answer");
        assert_eq!(to(&mut netlink, "198.18.0.1").expect("a way").oif, oif);
        assert_eq!(to(&mut netlink, "198.19.0.1"), None);
        // As when the interface goes: the default route must not get what is the cluster's.
        for gone in &written[4..6] {
            assert!(netlink.delete_route(gone).expect("it was there"));
            assert!(!netlink.delete_route(gone).expect("it is gone"));
        }
        assert_eq!(to(&mut netlink, "198.18.0.1"), None);
        assert_eq!(to(&mut netlink, "fd00:18::1"), None);
        assert!(to(&mut netlink, "203.0.113.1").is_some());

        // Another kind takes the place of one of the same metric, and is removed by its own.
        let instead = Route { kind: FibRouteKind::Blackhole, ..written[0].clone() };
        netlink.replace_route(&instead).expect("replaced");
        let now = netlink.routes(OURS).expect("a list");
        assert!(now.contains(&instead) && !now.contains(&written[0]), "{now:?}");
        assert!(!netlink.delete_route(&written[0]).expect("it is of another kind"));
        for route in [&instead, &written[1], &written[2], &written[3]] {
            assert!(netlink.delete_route(route).expect("it was there"), "{route:?}");
        }
        assert_eq!(netlink.routes(OURS).expect("a list"), []);
    });
}

#[test]
fn a_route_with_several_next_hops_is_listed_without_one() {
    let test = "a_route_with_several_next_hops_is_listed_without_one";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(|| {
        let (mut netlink, oif) = veth();
        netlink.add_address(oif, net("198.51.100.1/24")).expect("added");
        ip("route add 198.18.0.0/16 proto 86 nexthop via 198.51.100.2 nexthop via 198.51.100.3");
        let found = netlink.routes(OURS).expect("a list");
        let several = Route { oif: None, ..Route::unicast(net("198.18.0.0/16"), oif) };
        assert_eq!(found, std::slice::from_ref(&several));
        assert!(netlink.delete_route(&several).expect("it was there"));
        assert_eq!(netlink.routes(OURS).expect("a list"), []);
    });
}
