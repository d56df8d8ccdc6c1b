//! rtnetlink against the kernel, in namespaces of the test's own. Needs root.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;

// Namespaces are made by an unsafe call, which stands once, beside netio's tests.
#[path = "../../../netio/tests/kernel/common.rs"]
mod common;

use common::{Namespace, eventually, ip, link};
use netlink::{
    Error, FibHop, FibRoute, FibRouteKind, KernelEvent, LinkChange, MAIN_TABLE, Monitor, Netlink,
    NudState, ROUTE_PROTOCOL, Route, RouteFilter, RoutePlacement,
};

const MAC: [u8; 6] = [0x02, 0x76, 0x73, 0x77, 0, 1];

/// What the daemon wrote.
const OURS: RouteFilter = RouteFilter { table: Some(MAIN_TABLE), protocol: Some(ROUTE_PROTOCOL) };

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> (IpAddr, u8) {
    let (network, len) = text.split_once('/').expect("a slash");
    (addr(network), len.parse().expect("a length"))
}

/// A veth pair `v0` and `v1`, up, in the calling thread's namespace.
fn veth() -> (Netlink, u32) {
    ip("link add v0 numrxqueues 2 numtxqueues 2 type veth peer name v1");
    let mut netlink = Netlink::open().expect("a socket");
    for name in ["v0", "v1"] {
        netlink.set_up(link(name).index).expect("up");
    }
    (netlink, link("v0").index)
}

#[test]
fn links_are_found_and_changed() {
    let Some(namespace) = Namespace::new("links_are_found_and_changed") else { return };
    namespace.run(|| {
        let (mut netlink, index) = veth();
        netlink.set_mac(index, MAC).expect("a unicast address");
        netlink.set_mtu(index, 1400).expect("in range");
        let v0 = eventually("carrier", || Some(link("v0")).filter(|link| link.carrier));
        assert_eq!((v0.index, v0.name.as_str(), v0.mac), (index, "v0", Some(MAC)));
        assert_eq!((v0.mtu, v0.up, v0.xdp), (1400, true, false));
        assert_eq!((v0.rx_queues, v0.tx_queues), (2, 2));
        assert_eq!(v0.kind.as_deref(), Some("veth"));
        assert_eq!(netlink.link_by_index(index).expect("an answer"), Some(v0));
        let mut names: Vec<_> =
            netlink.links().expect("a list").into_iter().map(|link| link.name).collect();
        names.sort();
        assert_eq!(names, ["lo", "v0", "v1"]);

        netlink.set_down(index).expect("down");
        assert!(!link("v0").up);
        assert!(matches!(netlink.set_mtu(index, 7), Err(Error::Refused { .. })));
        assert_eq!(netlink.link("absent").expect("an answer"), None);
        assert_eq!(netlink.link_by_index(9999).expect("an answer"), None);
        assert!(netlink.delete_link(index).expect("it was there"));
        assert!(!netlink.delete_link(index).expect("it is gone"));
    });
}

#[test]
fn a_link_is_changed_in_one_request_and_moved() {
    let test = "a_link_is_changed_in_one_request_and_moved";
    let Some(node) = Namespace::new(test) else { return };
    let Some(pod) = Namespace::new(test) else { return };
    let pod_id = pod.id();
    node.run(move || {
        let (mut netlink, index) = veth();
        netlink.set_down(index).expect("down");
        let inside = File::open(format!("/proc/{pod_id}/ns/net")).expect("the pod's namespace");
        netlink.move_link(index, inside.as_fd(), "eth0").expect("moved");
        assert_eq!(netlink.link_by_index(index).expect("an answer"), None);
        assert!(matches!(
            netlink.move_link(index, inside.as_fd(), "eth0"),
            Err(Error::Refused { .. })
        ));
    });
    pod.run(|| {
        let mut netlink = Netlink::open().expect("a socket");
        let index = link("eth0").index;
        let change = LinkChange {
            up: Some(true),
            mtu: Some(1400),
            mac: Some(MAC),
            alias: Some("vswitch c1/eth0"),
        };
        netlink.change_link(index, &change).expect("all of it can be");
        let eth0 = link("eth0");
        assert_eq!((eth0.up, eth0.mtu, eth0.mac), (true, 1400, Some(MAC)));
        assert_eq!(eth0.alias.as_deref(), Some("vswitch c1/eth0"));
        netlink.set_mtu(index, 1300).expect("in range");
        let changed = link("eth0");
        assert_eq!((changed.up, changed.mtu, changed.mac), (true, 1300, Some(MAC)));
        assert_eq!(changed.alias, eth0.alias);
        let refused = netlink.change_link(index, &LinkChange { mtu: Some(7), ..change });
        assert_eq!(
            refused.expect_err("too small").to_string(),
            format!(
                "the kernel refused to set interface {index} to up, MTU 7, MAC 02:76:73:77:00:01, alias \"vswitch c1/eth0\""
            )
        );
    });
}

#[test]
fn an_ipv4_address_has_the_broadcast_address_of_its_prefix() {
    let test = "an_ipv4_address_has_the_broadcast_address_of_its_prefix";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(|| {
        let (mut netlink, index) = veth();
        let local = |netlink: &mut Netlink| {
            let mut found = Vec::new();
            netlink
                .kernel_routes(RouteFilter::of_table(255), |route| {
                    let is_broadcast = route.kind == FibRouteKind::Other(3);
                    found.extend(is_broadcast.then_some(route.destination.0));
                })
                .expect("a list");
            found
        };
        netlink.add_address(index, net("198.51.100.1/31")).expect("new");
        netlink.add_address(index, net("198.51.100.9/32")).expect("new");
        let broadcast = addr("203.0.113.63");
        assert!(!local(&mut netlink).iter().any(|ip| ip.to_string().starts_with("198.51.100.")));
        netlink.add_address(index, net("203.0.113.40/27")).expect("new");
        assert!(local(&mut netlink).contains(&broadcast));
    });
}

#[test]
fn addresses_are_added_once_and_usable_at_once() {
    let Some(namespace) = Namespace::new("addresses_are_added_once_and_usable_at_once") else {
        return;
    };
    namespace.run(|| {
        let (mut netlink, index) = veth();
        for address in [net("198.51.100.1/24"), net("fd00::1/64")] {
            netlink.add_address(index, address).expect("new");
            netlink.add_address(index, address).expect("there already");
            assert!(netlink.addresses(index).expect("a list").contains(&address));
            std::net::UdpSocket::bind((address.0, 0)).expect("no detection of duplicates");
            assert!(netlink.delete_address(index, address).expect("it was there"));
            assert!(!netlink.delete_address(index, address).expect("it is gone"));
            assert!(!netlink.addresses(index).expect("a list").contains(&address));
        }
    });
}

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

#[test]
fn the_kernel_resolves_a_neighbour_and_the_monitor_tells() {
    let test = "the_kernel_resolves_a_neighbour_and_the_monitor_tells";
    let Some(node) = Namespace::new(test) else { return };
    let Some(peer) = Namespace::new(test) else { return };
    let peer_id = peer.id();
    node.run(move || ip(&format!("link add v0 type veth peer name v1 netns {peer_id}")));
    let mac = peer.run(|| {
        let mut netlink = Netlink::open().expect("a socket");
        let v1 = link("v1");
        netlink.set_up(v1.index).expect("up");
        netlink.add_address(v1.index, net("198.51.100.2/24")).expect("added");
        netlink.add_address(v1.index, net("fd00::2/64")).expect("added");
        v1.mac
    });
    node.run(move || {
        let mut netlink = Netlink::open().expect("a socket");
        let v0 = link("v0").index;
        netlink.set_up(v0).expect("up");
        netlink.add_address(v0, net("198.51.100.1/24")).expect("added");
        netlink.add_address(v0, net("fd00::1/64")).expect("added");
        eventually("carrier", || link("v0").carrier.then_some(()));
        let mut monitor = Monitor::open().expect("a socket");
        for ip in [addr("198.51.100.2"), addr("fd00::2")] {
            netlink.resolve(v0, ip).expect("it is up");
            let told = eventually("the monitor's word", || {
                let (mut told, mut failed) = (None, false);
                let mut each = |event| match event {
                    KernelEvent::NeighborChanged(neighbor) if neighbor.ip == ip => {
                        failed = neighbor.state == NudState::Failed;
                        told = neighbor.state.is_usable().then_some(neighbor);
                    }
                    _ => {}
                };
                monitor.drain(|event, _| each(event)).expect("open");
                // IPv6 cannot ask until its link-local address is no longer tentative.
                if failed {
                    netlink.resolve(v0, ip).expect("it is up");
                }
                told
            });
            assert_eq!((told.ifindex, told.mac), (v0, mac));
            let asked = netlink.neighbor(v0, ip).expect("an answer").expect("an entry");
            assert_eq!(asked.mac, mac);
            assert!(netlink.neighbors(v0).expect("a list").iter().any(|found| found.ip == ip));
            netlink.probe(&asked).expect("its MAC is known");
            let asking = netlink.neighbor(v0, ip).expect("an answer").expect("an entry");
            assert!(matches!(asking.state, NudState::Probe | NudState::Reachable));
            eventually("the neighbour's answer", || {
                let found = netlink.neighbor(v0, ip).expect("an answer").expect("an entry");
                (found.state == NudState::Reachable).then_some(())
            });
        }
        let absent = addr("198.51.100.77");
        assert_eq!(netlink.neighbor(v0, absent).expect("an answer"), None);
        netlink.replace_neighbor(v0, absent, MAC).expect("set");
        let set = netlink.neighbor(v0, absent).expect("an answer").expect("an entry");
        assert_eq!((set.mac, set.state), (Some(MAC), NudState::Permanent));
        let permanent: Vec<_> = netlink
            .neighbors(v0)
            .expect("a list")
            .into_iter()
            .filter(|neighbor| neighbor.state == NudState::Permanent)
            .collect();
        assert_eq!(permanent, [set]);
        assert!(netlink.delete_neighbor(v0, absent).expect("it was there"));
    });
}

#[test]
fn the_monitor_tells_of_links_addresses_and_routes() {
    let Some(namespace) = Namespace::new("the_monitor_tells_of_links_addresses_and_routes") else {
        return;
    };
    namespace.run(|| {
        let mut monitor = Monitor::open().expect("a socket");
        let (mut netlink, index) = veth();
        netlink.add_address(index, net("198.51.100.1/24")).expect("added");
        ip("route add 198.18.0.0/24 dev v0");
        netlink.delete_link(index).expect("removed");
        let mut events = Vec::new();
        monitor.drain(|event, _| events.push(event)).expect("open");
        let address = Some(addr("198.51.100.1"));
        assert!(events.contains(&KernelEvent::AddressChanged { ifindex: index, address }));
        let is_ours = |e: &KernelEvent| matches!(e, KernelEvent::RouteChanged(route, _) if route.destination == net("198.18.0.0/24"));
        assert!(events.iter().any(is_ours));
        let is_v0 = |link: &netlink::Link| link.index == index && link.name == "v0";
        assert!(events.iter().any(|e| matches!(e, KernelEvent::LinkChanged(link) if is_v0(link))));
        assert!(events.iter().any(|e| matches!(e, KernelEvent::LinkGone(link) if is_v0(link))));
        assert!(!events.contains(&KernelEvent::Overrun));
    });
}

/// Routes of the main table that people or daemons made.
fn made(netlink: &mut Netlink) -> Vec<FibRoute> {
    let mut routes = Vec::new();
    netlink
        .kernel_routes(RouteFilter::of_table(MAIN_TABLE), |route| routes.push(route))
        .expect("a list");
    // The kernel's own: those of addresses and of links.
    routes.retain(|route| route.protocol != 2);
    routes
}

/// Events about such routes since the last time.
fn made_since(monitor: &mut Monitor) -> Vec<KernelEvent> {
    let mut told = Vec::new();
    monitor.drain(|event, _| told.push(event)).expect("open");
    told.retain(|event| match event {
        KernelEvent::RouteChanged(route, _) | KernelEvent::RouteGone(route) => route.protocol != 2,
        _ => false,
    });
    told
}

#[test]
fn routes_are_told_as_they_are_listed() {
    let Some(namespace) = Namespace::new("routes_are_told_as_they_are_listed") else { return };
    namespace.run(|| {
        let (mut netlink, oif) = veth();
        let other = link("v1").index;
        netlink.add_address(oif, net("198.51.100.1/24")).expect("added");
        netlink.add_address(oif, net("2001:db8::1/64")).expect("added");
        eventually("carrier", || link("v0").carrier.then_some(()));
        let mut monitor = Monitor::open().expect("a socket");
        for route in [
            "198.18.1.0/24 via 198.51.100.2",
            "198.18.2.0/24 via 203.0.113.9 dev v0 onlink metric 7 proto 12",
            "198.18.3.0/24 nexthop via 198.51.100.2 weight 3 nexthop via 198.51.100.3 dev v0",
            "198.18.4.0/24 via inet6 2001:db8::9",
            "198.18.5.0/24 dev v1",
            "blackhole 198.18.6.0/24",
            "unreachable 198.18.7.0/24 metric 9",
            "default via 198.51.100.254",
            "198.18.8.0/24 tos 8 via 198.51.100.2",
        ] {
            ip(&format!("route add {route}"));
        }
        for route in [
            "fd00:18:1::/64 via 2001:db8::2",
            "fd00:18:2::/64 nexthop via 2001:db8::2 nexthop via 2001:db8::3 weight 2",
            "fd00:18:3::/64 via fe80::9 dev v1",
            "blackhole fd00:18:4::/64",
        ] {
            ip(&format!("-6 route add {route}"));
        }
        let mut told = Vec::new();
        for event in made_since(&mut monitor) {
            match event {
                KernelEvent::RouteChanged(
                    route,
                    RoutePlacement::First | RoutePlacement::Appended,
                ) => {
                    told.push(route);
                }
                other => panic!("{other:?}"),
            }
        }
        let mut listed = made(&mut netlink);
        assert_eq!(listed.len(), 13);
        let sort = |routes: &mut Vec<FibRoute>| routes.sort_by_key(|r| (r.destination, r.metric));
        sort(&mut told);
        sort(&mut listed);
        assert_eq!(told, listed);

        let find = |network: &str| {
            listed.iter().find(|route| route.destination == net(network)).expect("listed")
        };
        let hop = |oif, gateway: Option<&str>, weight| FibHop {
            oif,
            gateway: gateway.map(addr),
            weight,
            onlink: false,
            usable: true,
        };
        let route = find("198.18.2.0/24");
        assert_eq!((route.metric, route.protocol, route.table), (7, 12, 254));
        let onlink = FibHop { onlink: true, ..hop(oif, Some("203.0.113.9"), 1) };
        assert_eq!(route.next_hops, [onlink]);
        assert_eq!(
            find("198.18.3.0/24").next_hops,
            [hop(oif, Some("198.51.100.2"), 3), hop(oif, Some("198.51.100.3"), 1)]
        );
        assert_eq!(find("198.18.4.0/24").next_hops, [hop(oif, Some("2001:db8::9"), 1)]);
        assert_eq!(find("198.18.5.0/24").next_hops, [hop(other, None, 1)]);
        assert_eq!(find("198.18.6.0/24").kind, FibRouteKind::Blackhole);
        assert_eq!(find("198.18.6.0/24").next_hops, []);
        assert_eq!(find("198.18.7.0/24").kind, FibRouteKind::Unreachable);
        assert_eq!(find("0.0.0.0/0").next_hops, [hop(oif, Some("198.51.100.254"), 1)]);
        assert_eq!(find("198.18.8.0/24").tos, 8);
        assert_eq!(
            find("fd00:18:2::/64").next_hops,
            [hop(oif, Some("2001:db8::2"), 1), hop(oif, Some("2001:db8::3"), 2)]
        );
        assert_eq!(find("fd00:18:3::/64").next_hops, [hop(other, Some("fe80::9"), 1)]);

        ip("route replace 198.18.1.0/24 via 198.51.100.7");
        ip("route del 198.18.2.0/24 metric 7");
        let told = made_since(&mut monitor);
        let [
            KernelEvent::RouteChanged(replaced, RoutePlacement::Replaces),
            KernelEvent::RouteGone(gone),
        ] = told.as_slice()
        else {
            panic!("{told:?}");
        };
        assert_eq!(replaced.next_hops, [hop(oif, Some("198.51.100.7"), 1)]);
        assert!(gone.is_same_as(find("198.18.2.0/24")));
        let mut empty = 0;
        netlink
            .kernel_routes(RouteFilter::of_table(77), |_| empty += 1)
            .expect("a table that is not there is empty");
        assert_eq!(empty, 0);
    });
}

#[test]
fn a_link_that_goes_down_takes_routes_along_in_silence() {
    let test = "a_link_that_goes_down_takes_routes_along_in_silence";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(|| {
        let (mut netlink, oif) = veth();
        ip("link add v2 type veth peer name v3");
        let other = link("v2").index;
        netlink.set_up(other).expect("up");
        netlink.set_up(link("v3").index).expect("up");
        netlink.add_address(oif, net("198.51.100.1/25")).expect("added");
        netlink.add_address(other, net("198.51.100.129/25")).expect("added");
        eventually("carrier", || (link("v0").carrier && link("v2").carrier).then_some(()));
        ip("route add 198.18.1.0/24 via 198.51.100.2");
        ip("route add 198.18.2.0/24 nexthop via 198.51.100.2 nexthop via 198.51.100.130");
        let mut monitor = Monitor::open().expect("a socket");
        netlink.set_down(oif).expect("down");
        let mut links = 0;
        monitor
            .drain(|event, _| match event {
                KernelEvent::RouteGone(route) => {
                    assert_ne!(route.destination, net("198.18.1.0/24"))
                }
                KernelEvent::LinkChanged(_) => links += 1,
                _ => {}
            })
            .expect("open");
        assert!(links > 0, "the link is what is told of");
        let left = made(&mut netlink);
        let usable: Vec<_> = left.iter().flat_map(|r| &r.next_hops).map(|hop| hop.usable).collect();
        assert_eq!(usable, [false, true], "{left:?}");
    });
}

#[test]
fn next_hop_objects_are_told_of_and_their_routes_listed_in_full() {
    let test = "next_hop_objects_are_told_of_and_their_routes_listed_in_full";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(|| {
        let (mut netlink, oif) = veth();
        netlink.add_address(oif, net("198.51.100.1/24")).expect("added");
        eventually("carrier", || link("v0").carrier.then_some(()));
        let mut monitor = Monitor::open().expect("a socket");
        ip("nexthop add id 1 via 198.51.100.2 dev v0");
        ip("nexthop add id 2 via 198.51.100.3 dev v0");
        ip("nexthop add id 3 group 1,2/2,5");
        ip("route add 198.18.1.0/24 nhid 3");
        let mut told = Vec::new();
        monitor.drain(|event, _| told.push(event)).expect("open");
        assert!(told.contains(&KernelEvent::NextHopsChanged));
        let hops: Vec<_> =
            made(&mut netlink)[0].next_hops.iter().map(|hop| (hop.gateway, hop.weight)).collect();
        assert_eq!(hops, [(Some(addr("198.51.100.2")), 2), (Some(addr("198.51.100.3")), 5)]);
        ip("nexthop del id 3");
        let mut told = Vec::new();
        monitor.drain(|event, _| told.push(event)).expect("open");
        assert!(told.contains(&KernelEvent::NextHopsChanged));
        assert_eq!(made(&mut netlink), []);
    });
}

#[test]
fn a_monitor_that_was_not_read_says_so_once_and_goes_on() {
    let test = "a_monitor_that_was_not_read_says_so_once_and_goes_on";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(|| {
        let (mut netlink, index) = veth();
        let mut monitor = Monitor::open().expect("a socket");
        // Each change of the MTU is a notification of more than a kilobyte; more than the buffer
        // holds, which is 8 MB.
        for round in 0..12_000 {
            netlink.set_mtu(index, 1400 + round % 2).expect("in range");
        }
        let mut overruns = 0;
        monitor
            .drain(|event, _| overruns += u32::from(event == KernelEvent::Overrun))
            .expect("open");
        assert_eq!(overruns, 1);
        netlink.set_mtu(index, 1300).expect("in range");
        let mut last = None;
        monitor.drain(|event, _| last = Some(event)).expect("open");
        assert!(matches!(last, Some(KernelEvent::LinkChanged(link)) if link.mtu == 1300));
    });
}
