//! The kernel's routes beside those of other sources, judged by what packets meet.

use std::net::IpAddr;
use std::sync::Arc;

use api::{PeerSpec, Source};
use dataplane::tables::{Adjacency, Encap, Tables};
use ipnet::IpNet;

use super::rib;
use super::tests::{Node, ROUTER, route};
use crate::kernel::Scope;
use crate::kernel::judge::judge;
use crate::kernel::lines::{self, HOST, UPLINK};
use crate::kernel::mirror::Mirror;
use crate::next_hop::NextHop;

/// A tunnel to each peer; a VTEP of a bridge, which is no peer.
const CONFIG: &str = r#"
[node]
name = "a"
pod_prefixes = ["198.18.1.0/24", "fd00:18:1::/64"]
cluster_prefixes = ["198.18.0.0/16", "fd00:18::/32"]
[uplink]
interface = "eth0"
[overlay]
accept = ["vxlan", "ipip"]
[bridge]
vni = 20
vteps = ["198.51.100.12"]
[[peers]]
name = "b"
address = "203.0.113.12"
prefixes = ["198.18.2.0/24", "fd00:18:2::/64"]
[[peers]]
name = "c"
address = "203.0.113.13"
prefixes = ["198.18.3.0/24"]
encapsulation = "ipip"
[[routes.static]]
prefix = "198.18.50.0/24"
to = "peer"
name = "c"
[routes.kernel]
"#;

/// A node that has learned these lines of `ip route`.
fn learned(lines: &[&str]) -> Node {
    let mut node = Node::new(CONFIG);
    let scope = Scope {
        prefixes: node.config.node.cluster_prefixes.clone(),
        own: node.config.node.pod_prefixes.clone(),
        cluster: node.config.node.cluster_prefixes.clone(),
        uplink: Some(UPLINK),
        host: Some(HOST),
        ..Scope::default()
    };
    let mut mirror = Mirror::new(254, &scope.prefixes);
    lines.iter().for_each(|line| mirror.read(lines::route(line)));
    node.model.kernel = judge(&mirror, &scope).into();
    for gateway in ["198.51.100.2", "fe80::2"] {
        let gateway: IpAddr = gateway.parse().expect("an address");
        node.next_hops.insert(gateway, NextHop::resolved(ROUTER));
    }
    node
}

fn encap(tables: &Tables, address: &str) -> Option<(Encap, u16)> {
    match route(tables, address) {
        Some(Adjacency::Remote { template: Some(template), mtu, .. }) => {
            Some((template.encap(), *mtu))
        }
        _ => None,
    }
}

fn source(node: &Node, prefix: &str) -> Option<&'static str> {
    let prefix: IpNet = prefix.parse().expect("a prefix");
    node.with_input(|input| {
        let routes = rib::routes(input).routes;
        routes.iter().find(|route| route.prefix == prefix).map(|route| route.origin.label())
    })
}

#[test]
fn a_gateway_on_the_link_gets_packets_as_they_are() {
    let lines = ["198.18.9.0/24 via 198.51.100.2 dev eth0", "fd00:18:9::/64 via fe80::2 dev eth0"];
    let tables = learned(&lines).tables();
    assert_eq!(encap(&tables, "198.18.9.5"), Some((Encap::None, 1500)));
    assert_eq!(encap(&tables, "fd00:18:9::5"), Some((Encap::None, 1500)));
    assert!(tables.tunnels.direct, "they come back as they are");
    assert!(!learned(&[]).tables().tunnels.direct);
}

#[test]
fn a_gateways_own_address_is_reached_as_what_lies_behind_it() {
    let node = learned(&[
        "198.18.9.0/24 via 198.51.100.2 dev eth0",
        "fd00:18:9::/64 via fe80::2 dev eth0",
    ]);
    let tables = node.tables();
    assert_eq!(encap(&tables, "198.51.100.2"), Some((Encap::None, 1500)));
    assert_eq!(source(&node, "198.51.100.2/32"), Some("node"));
    // Link-local addresses mean nothing to a pod.
    assert_eq!(source(&node, "fe80::2/128"), None);
    // What is reached by a tunnel is masqueraded, whatever the kernel would do.
    let node = learned(&["198.18.9.0/24 via 203.0.113.12 dev eth0 onlink"]);
    assert_eq!(source(&node, "203.0.113.12/32"), None);
}

#[test]
fn a_gateway_on_the_host_port_is_reached_and_heard_through_the_overlay() {
    let lines = [
        "198.18.9.0/25 via 198.51.100.12 dev vsw0 onlink",
        "198.18.9.128/25 via 198.51.100.12 dev vsw0 onlink",
    ];
    let tables = learned(&lines).tables();
    assert_eq!(encap(&tables, "198.18.9.5"), Some((Encap::VxlanRouted, 1450)));
    let node = "198.51.100.12".parse().expect("an address");
    let (_, peer) = tables.tunnels.peer_at(node).expect("it is heard");
    assert!(peer.has("198.18.9.200".parse().expect("an address")));
    assert!(!peer.has("198.18.8.1".parse().expect("an address")));
    assert!(!tables.tunnels.direct);
}

#[test]
fn a_gateway_that_is_a_peer_is_that_peer() {
    // c uses IPIP; the route's interface decides nothing.
    for interface in ["eth0", "vsw0"] {
        let line = format!("198.18.9.0/24 via 203.0.113.13 dev {interface} onlink");
        let node = learned(&[&line]);
        let tables = node.tables();
        assert_eq!(encap(&tables, "198.18.9.5"), Some((Encap::Ipip, 1480)));
        let c = "203.0.113.13".parse().expect("an address");
        let (_, peer) = tables.tunnels.peer_at(c).expect("configured");
        assert!(peer.has("198.18.9.5".parse().expect("an address")), "and may send from there");
        assert!(peer.has("198.18.3.5".parse().expect("an address")), "as from its own");
        assert!(!tables.tunnels.direct);
    }
}

#[test]
fn the_configuration_stands_above_and_the_cluster_below() {
    let lines = [
        "blackhole 198.18.2.0/24",
        "blackhole 198.18.50.0/24",
        "blackhole 198.18.77.0/24",
        "198.18.2.128/25 via 198.51.100.2 dev eth0",
    ];
    let mut node = learned(&lines);
    let mut cluster = PeerSpec::clone(&node.model.peers["b"].0);
    cluster.name = "d".into();
    cluster.address = "203.0.113.14".parse().expect("an address");
    cluster.prefixes = vec!["198.18.77.0/24".parse().expect("a prefix")];
    Arc::make_mut(&mut node.model.peers).insert("d".into(), (cluster.into(), Source::Kubernetes));
    assert_eq!(source(&node, "198.18.2.0/24"), Some("config"));
    assert_eq!(source(&node, "198.18.50.0/24"), Some("config"));
    assert_eq!(source(&node, "198.18.77.0/24"), Some("kernel"));
    // A longer prefix is another prefix.
    assert_eq!(encap(&node.tables(), "198.18.2.200"), Some((Encap::None, 1500)));
}

#[test]
fn several_next_hops_share_what_is_resolved() {
    let line = "198.18.9.0/24 nexthop via 198.51.100.2 dev eth0 weight 2 nexthop via 203.0.113.13 dev eth0 nexthop via 198.51.100.3 dev eth0";
    let tables = learned(&[line, &line.replace("198.18.9.0", "198.18.8.0")]).tables();
    let Some(Adjacency::Multipath(group)) = route(&tables, "198.18.9.5") else {
        panic!("{:?}", route(&tables, "198.18.9.5"));
    };
    let members: Vec<_> =
        group.members().iter().map(|one| (one.identity.to_string(), one.weight)).collect();
    assert_eq!(members, [("198.51.100.2".into(), 2), ("203.0.113.13".into(), 1)]);
    let address = |text: &str| tables.route(text.parse().expect("an address"));
    assert_eq!(address("198.18.9.5"), address("198.18.8.5"), "one group for both");
}

#[test]
fn what_the_kernel_forwards_or_drops_is_its_own() {
    let lines = ["198.18.9.0/24 dev docker0", "blackhole 198.18.8.0/24", "prohibit 198.18.7.0/24"];
    let tables = learned(&lines).tables();
    assert!(matches!(route(&tables, "198.18.9.5"), Some(Adjacency::Port { .. })));
    assert_eq!(route(&tables, "198.18.8.5"), Some(&Adjacency::Blackhole));
    assert_eq!(route(&tables, "198.18.7.5"), Some(&Adjacency::Unreachable));
}
