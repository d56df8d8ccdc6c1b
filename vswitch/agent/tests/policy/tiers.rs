//! Cluster policies, and what the table of cases does not have: addresses of no pod, pods that selectors do
//! not select, protocols without ports, both families.

use dataplane::wire::Protocol;
use serde_json::{Value, json};
use vswitch_agent::policy::PolicyNode;

use crate::world::{Kind, Node, Probe, World, labels};

const TCP: (&str, Protocol) = ("TCP", Protocol::TCP);

fn network_policy(world: &mut World, namespace: &str, name: &str, spec: Value) {
    let metadata = json!({ "namespace": namespace, "name": name });
    let object = json!({ "metadata": metadata, "spec": spec });
    world.set_policy(serde_json::from_value(object).expect("a NetworkPolicy"));
}

fn cluster_policy(world: &mut World, kind: Kind, name: &str, spec: Value) {
    let spec = serde_json::from_value(spec).expect("a spec");
    world.cluster_policies.push((kind, name.into(), spec));
}

/// The allowed ones of connections from these addresses to TCP port 80 of the pod y/b.
fn clients<'a>(world: &World, node: &mut Node, from: &[&'a str]) -> Vec<&'a str> {
    let to = world.pods[4].addresses.clone();
    let probe = |from: &str| {
        let from: std::net::IpAddr = from.parse().expect("an address");
        let family = usize::from(from.is_ipv6());
        Probe { from, to: to[family], protocol: TCP, port: Some(80) }
    };
    let probes: Vec<_> = from.iter().map(|from| probe(from)).collect();
    node.check(world, &probes, "clients");
    from.iter().copied().filter(|from| node.allows(probe(from))).collect()
}

#[test]
fn pods_that_cannot_be_selected_are_addresses() {
    let mut world = World::nine_pods();
    world.pod("x", "a").host_network = true;
    world.pod("x", "b").phase = "Succeeded";
    let spec = json!({ "podSelector": {}, "ingress": [{ "from": [{ "namespaceSelector": {} }] }] });
    network_policy(&mut world, "y", "from-pods", spec);
    let (host, finished, pod) = ("198.18.1.2", "198.18.1.5", "198.18.1.8");
    let mut node = Node::default();
    assert_eq!(clients(&world, &mut node, &[host, finished, pod, "203.0.113.1"]), [pod]);
    // As subjects they are not isolated.
    let spec = json!({ "podSelector": {}, "policyTypes": ["Egress"] });
    network_policy(&mut world, "x", "deny-egress", spec);
    network_policy(&mut world, "y", "from-pods", json!({ "podSelector": {}, "ingress": [{}] }));
    assert_eq!(clients(&world, &mut node, &[host, finished, pod]), [host, finished]);
    // A block selects them all.
    let block = json!({ "ipBlock": { "cidr": "198.18.1.0/28", "except": ["198.18.1.5/32"] } });
    let spec = json!({ "podSelector": {}, "ingress": [{ "from": [block] }] });
    network_policy(&mut world, "y", "from-pods", spec);
    world.policies.retain(|policy| policy.metadata.namespace.as_deref() == Some("y"));
    assert_eq!(clients(&world, &mut node, &[host, finished, pod]), [host, pod]);
}

#[test]
fn both_families_are_judged_each_by_its_blocks() {
    let mut world = World::nine_pods();
    let from = json!([
        { "ipBlock": { "cidr": "fd00:18::/64", "except": ["fd00:18::8/128"] } },
        { "podSelector": {} },
    ]);
    network_policy(
        &mut world,
        "y",
        "six",
        json!({ "podSelector": {}, "ingress": [{ "from": from }] }),
    );
    let from = ["198.18.1.2", "fd00:18::2", "fd00:18::8", "198.18.1.11", "fd00:18::b"];
    let allowed = clients(&world, &mut Node::default(), &from);
    assert_eq!(allowed, ["fd00:18::2", "198.18.1.11", "fd00:18::b"]);
}

#[test]
fn protocols_without_ports_match_rules_without_ports_alone() {
    let mut world = World::nine_pods();
    let spec = json!({ "podSelector": {}, "ingress": [
        { "from": [{ "namespaceSelector": { "matchLabels": { "ns": "x" } } }] },
        { "ports": [{ "protocol": "TCP" }, { "protocol": "UDP", "port": 0, "endPort": 65535 }] },
    ] });
    network_policy(&mut world, "y", "ports", spec);
    let mut node = Node::default();
    let address = |place: usize| world.pods[place].addresses[0];
    let mut allowed = Vec::new();
    for (place, protocol) in
        [(0, ("ICMP", Protocol::ICMP)), (6, ("ICMP", Protocol::ICMP)), (6, ("GRE", Protocol(47)))]
    {
        let probe = Probe { from: address(place), to: address(4), protocol, port: None };
        node.check(&world, &[probe], "without ports");
        allowed.push(node.allows(probe));
    }
    assert_eq!(allowed, [true, false, false]);
}

#[test]
fn tiers_priorities_and_names_order_cluster_policies() {
    let mut world = World::nine_pods();
    let subject = json!({ "namespaces": { "matchLabels": { "ns": "y" } } });
    let pods = |pod: &str| json!({ "pods": { "podSelector": { "matchLabels": { "pod": pod } } } });
    let rule = |action: &str, peer: Value| json!({ "action": action, "from": [peer] });
    let spec = |tier: &str, priority: u32, rules: Value| json!({ "tier": tier, "priority": priority, "subject": subject, "ingress": rules });
    let all = || json!({ "namespaces": {} });
    let (a, b, c) = ("198.18.1.2", "198.18.1.5", "198.18.1.8");
    let everyone = [a, b, c, "203.0.113.1"];
    let mut node = Node::default();
    let kind = Kind::Cluster;

    cluster_policy(&mut world, kind, "last", spec("Admin", 7, json!([rule("Deny", all())])));
    assert_eq!(clients(&world, &mut node, &everyone), ["203.0.113.1"]);
    // Of the same priority, and before it by name.
    let rules = json!([rule("Pass", pods("b")), rule("Accept", pods("a"))]);
    cluster_policy(&mut world, kind, "first", spec("Admin", 7, rules));
    assert_eq!(clients(&world, &mut node, &everyone), [a, b, "203.0.113.1"]);
    // Passed on to the baseline; what is denied before stays denied.
    let rules = json!([rule("Deny", pods("b")), rule("Accept", pods("c"))]);
    cluster_policy(&mut world, kind, "base", spec("Baseline", 0, rules));
    assert_eq!(clients(&world, &mut node, &everyone), [a, "203.0.113.1"]);
    // An isolated pod never gets to the baseline.
    let from =
        json!([{ "podSelector": { "matchLabels": { "pod": "b" } }, "namespaceSelector": {} }]);
    network_policy(
        &mut world,
        "y",
        "b",
        json!({ "podSelector": {}, "ingress": [{ "from": from }] }),
    );
    assert_eq!(clients(&world, &mut node, &everyone), [a, b]);
    // The lower priority goes before all of them.
    cluster_policy(&mut world, kind, "zero", spec("Admin", 0, json!([rule("Deny", pods("a"))])));
    assert_eq!(clients(&world, &mut node, &everyone), [b]);
}

#[test]
fn the_older_kinds_are_tiers_too() {
    let mut world = World::nine_pods();
    let subject = json!({ "pods": { "podSelector": { "matchLabels": { "pod": "b" } } } });
    let port = |port: Value| json!([port]);
    let admin = json!({ "priority": 10, "subject": subject, "ingress": [
        { "action": "Allow", "from": [{ "namespaces": { "matchLabels": { "ns": "x" } } }],
          "ports": port(json!({ "portNumber": { "port": 80 } })) },
        { "action": "Deny", "from": [{ "namespaces": { "matchLabels": { "ns": "z" } } }],
          "ports": port(json!({ "portRange": { "protocol": "TCP", "start": 79, "end": 80 } })) },
        { "action": "Deny", "from": [{ "namespaces": {} }],
          "ports": port(json!({ "namedPort": "serve-81-tcp" })) },
    ] });
    cluster_policy(&mut world, Kind::Admin, "admin", admin);
    let baseline = json!({ "subject": subject, "ingress": [
        { "action": "Deny", "from": [{ "namespaces": {} }] },
    ] });
    cluster_policy(&mut world, Kind::BaselineAdmin, "default", baseline);
    let mut node = Node::default();
    let probes = world.all_probes();
    let allowed = node.check(&world, &probes, "both kinds");
    // To the three pods `b`: TCP port 80 from the three pods of x. To the others, everything.
    assert_eq!(allowed, 3 * 3 + 9 * 6 * 6);
}

#[test]
fn what_is_not_known_fails_closed() {
    let (a, outside) = ("198.18.1.2", "203.0.113.1");
    for (action, peer, allowed) in [
        ("Accept", json!({ "somethingNew": {} }), vec![]),
        ("Accept", json!({ "namespaces": {} }), vec![a]),
        ("Deny", json!({ "somethingNew": {} }), vec![]),
        ("Pass", json!({ "somethingNew": {} }), vec![]),
    ] {
        let mut world = World::nine_pods();
        let subject = json!({ "namespaces": {} });
        let rules =
            json!([{ "action": action, "from": [{ "namespaces": { "matchLabels": {} } }, peer] }]);
        let spec = json!({ "tier": "Admin", "priority": 1, "subject": subject, "ingress": rules });
        cluster_policy(&mut world, Kind::Cluster, "new", spec);
        if action == "Accept" {
            // What the rule does not allow is denied.
            let spec = json!({ "podSelector": {}, "policyTypes": ["Ingress"] });
            network_policy(&mut world, "y", "deny", spec);
        }
        let found = clients(&world, &mut Node::default(), &[a, outside]);
        assert_eq!(found, allowed, "{action} {rules}");
    }
}

#[test]
fn egress_is_judged_by_networks_and_nodes() {
    let mut world = World::nine_pods();
    for (name, zone, address) in [("node-a", "1", "203.0.113.11"), ("node-b", "2", "203.0.113.12")]
    {
        let addresses = vec![address.parse().expect("an address")];
        world
            .nodes
            .insert(name.into(), PolicyNode { labels: labels(&[("zone", zone)]), addresses });
    }
    let spec = json!({ "tier": "Admin", "priority": 1, "subject": { "namespaces": {} }, "egress": [
        { "action": "Accept", "to": [{ "nodes": { "matchLabels": { "zone": "2" } } }],
          "protocols": [{ "tcp": { "destinationPort": { "range": { "start": 80, "end": 90 } } } }] },
        { "action": "Deny", "to": [{ "networks": ["203.0.113.0/24", "198.18.1.0/28"] }],
          "protocols": [{ "tcp": {} }, { "udp": { "destinationPort": { "number": 53 } } }] },
    ] });
    cluster_policy(&mut world, Kind::Cluster, "out", spec);
    let from = world.pods[8].addresses[0];
    let mut node = Node::default();
    let mut allowed = Vec::new();
    for to in ["203.0.113.11", "203.0.113.12", "198.18.1.2", "198.18.1.20", "192.0.2.1"] {
        for (protocol, port) in [(TCP, 80), (TCP, 91), (("UDP", Protocol::UDP), 80)] {
            let to_address = to.parse().expect("an address");
            let probe = Probe { from, to: to_address, protocol, port: Some(port) };
            node.check(&world, &[probe], "egress");
            if protocol == TCP && node.allows(probe) {
                allowed.push((to, port));
            }
        }
    }
    let expected = [
        ("203.0.113.12", 80),
        ("198.18.1.20", 80),
        ("198.18.1.20", 91),
        ("192.0.2.1", 80),
        ("192.0.2.1", 91),
    ];
    assert_eq!(allowed, expected);
}

#[test]
fn a_named_port_is_that_of_each_destination() {
    let mut world = World::nine_pods();
    for (pod, number) in [("a", 80), ("b", 81), ("c", 80)] {
        world.pod("y", pod).ports = vec![("http".into(), "TCP".into(), number)];
    }
    // In two containers: the first counts.
    world.pod("y", "c").ports.push(("http".into(), "TCP".into(), 81));
    let http = || json!([{ "port": "http" }]);
    let probes = world.all_probes();
    let mut node = Node::default();

    let spec = json!({ "podSelector": {}, "ingress": [{ "ports": http() }] });
    network_policy(&mut world, "y", "http", spec);
    let ingress = node.check(&world, &probes, "ingress");
    assert_eq!(ingress, 9 * (6 * 6 + 3), "one port of each pod of y, all of the others");

    world.policies.clear();
    let to = json!([{ "namespaceSelector": { "matchLabels": { "ns": "y" } } }]);
    let block = json!([{ "ipBlock": { "cidr": "198.18.1.0/28" } }]);
    for (name, rule, to_each) in [
        ("pods", json!({ "ports": http(), "to": to }), 3),
        ("everything", json!({ "ports": http() }), 3),
        ("a block, with y/a and y/b in it", json!({ "ports": http(), "to": block }), 2),
    ] {
        let spec = json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [rule] });
        network_policy(&mut world, "z", "http", spec);
        let egress = node.check(&world, &probes, name);
        assert_eq!(egress, 6 * 9 * 6 + 3 * to_each, "{name}");
    }
}
