//! What a kernel is to have, and what is done to one that has something else.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{HostPortRepair, HostPortState, HostRoute};
use crate::config::Config;
use crate::desired::{NodePort, Translations};
use crate::model::Model;

fn nets(text: &str) -> Vec<IpNet> {
    text.split_whitespace().map(|net| net.parse().expect("a prefix")).collect()
}

fn state_with(pods: &str, is_shared: bool, ports: &Translations) -> HostPortState {
    let text = format!(
        "[node]\nname = \"a\"\npod_prefixes = [{pods}]\ncluster_prefixes = [\"198.18.0.0/16\", \"fd00:18::/32\"]\n"
    );
    let config = Config::parse("f", &text).unwrap_or_else(|problems| panic!("{problems:?}"));
    let model = Model::new(&config);
    HostPortState::of(&config.node.cluster_prefixes, &model.pods, 1450, is_shared, ports)
}

fn state(pods: &str, is_shared: bool) -> HostPortState {
    state_with(pods, is_shared, &Translations::new())
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn the_cluster_is_routed_from_the_gateway_and_unreachable_without_the_port() {
    let state = state("\"198.18.1.0/24\"", false);
    let prefix = nets("198.18.0.0/16")[0];
    let source = address("198.18.1.1");
    assert_eq!(
        state.routes.into_iter().collect::<Vec<_>>(),
        [HostRoute::ByPort { prefix, source }, HostRoute::Unreachable { prefix }],
        "a family without pods has no route"
    );
    assert_eq!(state.addresses, [address("198.18.1.254"), source]);
    assert_eq!(state.neighbors, [address("169.254.118.1")].into());
}

#[test]
fn where_others_write_routes_the_halves_of_the_own_prefix_are_routed_too() {
    let state = state("\"198.18.1.0/24\"", true);
    let by_port = state.routes.iter().filter(|route| matches!(route, HostRoute::ByPort { .. }));
    let prefixes: Vec<_> = by_port.map(HostRoute::prefix).collect();
    assert_eq!(prefixes, nets("198.18.0.0/16 198.18.1.0/25 198.18.1.128/25"));
}

#[test]
fn loopback_addresses_pass_while_a_port_includes_them() {
    let to = "198.18.1.2:80".parse().expect("an address");
    let none = state("\"198.18.1.0/24\"", false);
    assert!(!none.routes_localnet);
    let table = [
        (true, None, true),
        (true, Some("127.0.0.1"), true),
        (true, Some("198.51.100.11"), false),
        (false, None, false),
    ];
    for (is_v4, at, routes) in table {
        let protocol = api::TransportProtocol::Tcp;
        let from = NodePort { is_v4, address: at.map(address), protocol, port: 8080 };
        let state = state_with("\"198.18.1.0/24\"", false, &[(from, to)].into());
        assert_eq!(state.routes_localnet, routes, "{from:?}");
        let repairs = if routes { vec![HostPortRepair::SetRouteLocalnet(true)] } else { vec![] };
        assert_eq!(state.repairs(&none), repairs);
        assert_eq!(state.widened(&none).routes_localnet, routes, "while it goes");
    }
}

#[test]
fn a_kernel_that_has_it_all_is_left_alone() {
    let wanted = state("\"198.18.1.0/24\", \"fd00:18:1::/64\"", true);
    assert_eq!(wanted.repairs(&wanted), []);
}

#[test]
fn what_replaces_comes_before_what_is_taken_away() {
    let (old, new) = (state("\"198.18.1.0/24\"", false), state("\"198.18.2.0/24\"", false));
    let prefix = nets("198.18.0.0/16")[0];
    let source = address("198.18.2.1");
    assert_eq!(
        new.repairs(&old),
        [
            HostPortRepair::AddAddress(address("198.18.2.254")),
            HostPortRepair::AddAddress(source),
            HostPortRepair::SetRoute(HostRoute::ByPort { prefix, source }),
            HostPortRepair::DeleteAddress(address("198.18.1.254")),
            HostPortRepair::DeleteAddress(address("198.18.1.1")),
        ]
    );
    let wide = old.widened(&new);
    let both = ["198.18.1.254", "198.18.1.1", "198.18.2.254", "198.18.2.1"].map(address);
    assert_eq!(wide.addresses, both, "in an order in which none is moved");
    assert!(!wide.repairs(&old).iter().any(|one| matches!(one, HostPortRepair::MoveBehind(_))));
    assert_eq!(wide.routes, new.routes, "one route to a prefix, from the new address");
    let gone = ["198.18.1.254", "198.18.1.1"];
    assert_eq!(new.repairs(&wide), gone.map(|one| HostPortRepair::DeleteAddress(address(one))));
}

#[test]
fn the_kernel_masquerades_by_another_address_than_the_gateways() {
    let wanted = state("\"198.18.1.0/24\", \"fd00:18:1::/64\"", false);
    let gateway6 = "fd00:18:1::1".parse().expect("an address");
    assert_eq!(wanted.deprecated, [gateway6].into());
    assert_eq!(wanted.addresses.len(), 4);
    // As a former version left it.
    let mut actual = wanted.clone();
    actual
        .addresses
        .retain(|one| one.to_string().ends_with(".1") || one.to_string().ends_with("::1"));
    actual.deprecated.clear();
    let [prefix, _] = nets("198.18.0.0/16 fd00:18::/32")[..] else { panic!("two") };
    let source = address("198.18.1.1");
    assert_eq!(
        wanted.repairs(&actual),
        [
            HostPortRepair::AddAddress(address("198.18.1.254")),
            HostPortRepair::AddAddress(address("fd00:18:1:0:ffff:ffff:ffff:ffff")),
            HostPortRepair::MoveBehind("198.18.1.1".parse().expect("an address")),
            HostPortRepair::Deprecate(gateway6),
            HostPortRepair::SetRoute(HostRoute::ByPort { prefix, source }),
        ]
    );
    // Where it is behind, and where it is alone.
    actual.addresses = wanted.addresses.clone();
    actual.addresses.swap(0, 2);
    let moved = |repairs: Vec<HostPortRepair>| {
        repairs.iter().any(|one| matches!(one, HostPortRepair::MoveBehind(_)))
    };
    assert!(moved(wanted.repairs(&actual)));
    actual.addresses.truncate(1);
    assert!(moved(wanted.repairs(&actual)));
    // A prefix that is too small has none.
    let small = state("\"198.18.1.0/30\", \"fd00:18:1::/126\"", false);
    assert_eq!(small.addresses, [address("198.18.1.1"), address("fd00:18:1::1")]);
    assert!(small.deprecated.is_empty());
    let prefer = small.repairs(&HostPortState { deprecated: [gateway6].into(), ..small.clone() });
    assert_eq!(prefer, [HostPortRepair::Prefer(gateway6)]);
}

#[test]
fn whatever_is_missing_is_set_and_whatever_is_too_much_deleted() {
    let wanted = state("\"198.18.1.0/24\", \"fd00:18:1::/64\"", false);
    let empty = HostPortState::default();
    let repairs = wanted.repairs(&empty);
    assert_eq!(repairs.len(), 2 + 4 + 1 + 2 + 4, "{repairs:?}");
    assert_eq!(repairs[..2], [HostPortRepair::SetMtu(1450), HostPortRepair::SetUp]);
    let repairs = empty.repairs(&wanted);
    assert_eq!(repairs.len(), 1 + 4 + 4, "a neighbour too many harms nobody: {repairs:?}");
    assert!(matches!(repairs.last(), Some(HostPortRepair::DeleteAddress(_))));
}
