//! Links and addresses: found, changed, moved.

use netlink::{Error, FibRouteKind, LinkChange, Netlink, RouteFilter};

use super::common::{Namespace, eventually, link};
use super::{MAC, addr, net, veth};

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
        netlink.set_tx_queue(index, 8192).expect("in range");
        assert_eq!((link("v0").tx_queue_packets, link("v1").tx_queue_packets), (8192, 1000));
        assert!(matches!(netlink.set_mtu(index, 7), Err(Error::Refused { .. })));
        assert_eq!(netlink.link("absent").expect("an answer"), None);
        assert_eq!(netlink.link_by_index(9999).expect("an answer"), None);
        assert!(netlink.delete_link(index).expect("it was there"));
        assert!(!netlink.delete_link(index).expect("it is gone"));
    });
}

#[test]
fn loopback_addresses_may_pass_an_interface_or_not() {
    let Some(node) = Namespace::new("loopback_addresses_may_pass") else { return };
    node.run(|| {
        let (mut netlink, index) = veth();
        assert!(!link("v0").routes_localnet);
        for routes in [true, false] {
            netlink.set_route_localnet(index, routes).expect("set");
            assert_eq!((link("v0").routes_localnet, link("v1").routes_localnet), (routes, false));
        }
    });
}

#[test]
fn a_link_is_changed_in_one_request() {
    let Some(node) = Namespace::new("a_link_is_changed_in_one_request") else { return };
    node.run(|| {
        let (mut netlink, index) = veth();
        netlink.set_down(index).expect("down");
        let change = LinkChange {
            up: Some(true),
            mtu: Some(1400),
            mac: Some(MAC),
            alias: Some("vswitch c1/eth0"),
            group: Some(0x8000_0001),
        };
        netlink.change_link(index, &change).expect("all of it can be");
        let v0 = link("v0");
        assert_eq!((v0.up, v0.mtu, v0.mac), (true, 1400, Some(MAC)));
        assert_eq!((v0.alias.as_deref(), v0.group), (Some("vswitch c1/eth0"), 0x8000_0001));
        netlink.set_mtu(index, 1300).expect("in range");
        let changed = link("v0");
        assert_eq!((changed.up, changed.mtu, changed.mac), (true, 1300, Some(MAC)));
        assert_eq!((&changed.alias, changed.group), (&v0.alias, v0.group));
        let refused = netlink.change_link(index, &LinkChange { mtu: Some(7), ..change });
        assert_eq!(
            refused.expect_err("too small").to_string(),
            format!(
                "the kernel refused to set interface {index} to up, MTU 7, MAC 02:76:73:77:00:01, alias \"vswitch c1/eth0\", group 2147483649"
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
fn the_kernel_chooses_the_first_ipv4_address_and_no_deprecated_ipv6_one() {
    let test = "the_kernel_chooses_the_first_ipv4_address";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(|| {
        let (mut netlink, index) = veth();
        let (first, behind) = (net("198.18.1.254/32"), net("198.18.1.1/32"));
        netlink.add_address(index, behind).expect("new");
        netlink.add_address(index, first).expect("new");
        netlink.delete_address(index, behind).expect("there");
        netlink.add_address(index, behind).expect("new");
        let v4 = netlink.addresses(index).expect("a list").into_iter();
        let v4: Vec<_> = v4.filter(|(ip, _)| ip.is_ipv4()).collect();
        assert_eq!(v4, [first, behind]);

        let deprecated =
            |netlink: &mut Netlink| netlink.deprecated_addresses(index).expect("a list");
        let ip = "fd00:18:1::1".parse().expect("an address");
        netlink.add_address(index, net("fd00:18:1::fe/128")).expect("new");
        for _ in 0..2 {
            netlink.add_address(index, net("fd00:18:1::1/128")).expect("new, or preferred again");
            assert!(deprecated(&mut netlink).is_empty());
            netlink.deprecate_address(index, (ip, 128)).expect("there");
            assert_eq!(deprecated(&mut netlink), [ip]);
        }
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
