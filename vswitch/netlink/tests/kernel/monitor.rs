//! What the kernel announces: neighbours, links, addresses, routes, and that it could not announce all.

use netlink::{
    FibHop, FibRoute, FibRouteKind, KernelEvent, MAIN_TABLE, Monitor, Netlink, NudState,
    RouteFilter, RoutePlacement,
};

use super::common::{Namespace, eventually, ip, link};
use super::{MAC, addr, net, veth};

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
