//! Random policies of every kind on random labels, one world after the other on the same node.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::world::{Kind, Node, PROTOCOLS, Probe, World};

fn selector(key: &'static str, values: [&'static str; 3]) -> impl Strategy<Value = Value> {
    let value = move || select(values.to_vec());
    prop_oneof![
        Just(json!({})),
        value().prop_map(move |value| json!({ "matchLabels": { key: value } })),
        (select(vec!["In", "NotIn"]), value(), value()).prop_map(move |(operator, one, two)| {
            json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": [one, two] }] })
        }),
        select(vec!["Exists", "DoesNotExist"]).prop_map(move |operator| {
            json!({ "matchExpressions": [{ "key": key, "operator": operator }] })
        }),
    ]
}

fn pods() -> impl Strategy<Value = Value> {
    selector("pod", ["a", "b", "c"])
}

fn namespaces() -> impl Strategy<Value = Value> {
    selector("ns", ["x", "y", "z"])
}

const PREFIXES: [&str; 8] = [
    "0.0.0.0/0",
    "198.18.1.0/24",
    "198.18.1.0/28",
    "198.18.1.2/32",
    "203.0.113.0/24",
    "::/0",
    "fd00:18::/64",
    "fd00:18::5/128",
];

fn peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        pods().prop_map(|pods| json!({ "podSelector": pods })),
        namespaces().prop_map(|namespaces| json!({ "namespaceSelector": namespaces })),
        (pods(), namespaces()).prop_map(|(pods, namespaces)| {
            json!({ "podSelector": pods, "namespaceSelector": namespaces })
        }),
        (select(&PREFIXES[..]), proptest::collection::vec(select(&PREFIXES[..]), 0..3))
            .prop_map(|(cidr, except)| json!({ "ipBlock": { "cidr": cidr, "except": except } })),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let protocol = proptest::option::of(select(vec!["TCP", "UDP", "SCTP"]));
    let port = prop_oneof![
        Just(json!({})),
        select(vec![80, 81]).prop_map(|port| json!({ "port": port })),
        Just(json!({ "port": 53, "endPort": 80 })),
        select(vec!["serve-80-tcp", "serve-81-udp", "http"])
            .prop_map(|name| json!({ "port": name })),
    ];
    (protocol, port).prop_map(|(protocol, mut port)| {
        if let Some(protocol) = protocol {
            port["protocol"] = json!(protocol);
        }
        port
    })
}

fn network_policy() -> impl Strategy<Value = Value> {
    let rule = |field: &'static str| {
        let (peers, ports) =
            (proptest::collection::vec(peer(), 0..3), proptest::collection::vec(port(), 0..3));
        let rule =
            (peers, ports).prop_map(move |(peers, ports)| json!({ field: peers, "ports": ports }));
        proptest::collection::vec(rule, 0..3)
    };
    let types = select(vec![
        json!(null),
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
    ]);
    (select(vec!["x", "y", "z"]), pods(), types, rule("from"), rule("to")).prop_map(
        |(namespace, pods, types, ingress, egress)| {
            json!({
                "metadata": { "namespace": namespace },
                "spec": {
                    "podSelector": pods, "policyTypes": types, "ingress": ingress, "egress": egress,
                },
            })
        },
    )
}

/// Action, peers and protocols.
type Rule = (&'static str, Vec<Value>, Option<Vec<Value>>);

fn cluster_policy() -> impl Strategy<Value = (Kind, Value)> {
    let pods = || {
        prop_oneof![
            namespaces().prop_map(|namespaces| json!({ "namespaces": namespaces })),
            (namespaces(), pods()).prop_map(|(namespaces, pods)| {
                json!({ "pods": { "namespaceSelector": namespaces, "podSelector": pods } })
            }),
        ]
    };
    let peer = prop_oneof![
        6 => pods(),
        2 => select(&PREFIXES[..]).prop_map(|prefix| json!({ "networks": [prefix] })),
        1 => Just(json!({ "somethingNew": true })),
    ];
    let protocol = prop_oneof![
        select(vec!["tcp", "udp", "sctp"]).prop_map(|name| json!({ name: {} })),
        select(vec!["tcp", "udp"])
            .prop_map(|name| json!({ name: { "destinationPort": { "number": 80 } } })),
        select(vec!["serve-80-tcp", "http"])
            .prop_map(|name| json!({ "destinationNamedPort": name })),
    ];
    let protocols = proptest::option::of(proptest::collection::vec(protocol, 1..3));
    let rule =
        (select(vec!["Accept", "Deny", "Pass"]), proptest::collection::vec(peer, 1..3), protocols);
    let rules = proptest::collection::vec(rule, 0..4);
    let rules = (rules.clone(), rules).prop_map(|(ingress, egress)| {
        let of = |field: &'static str, rules: Vec<Rule>| {
            let rule = |(action, peers, protocols): Rule| match protocols {
                Some(protocols) => {
                    json!({ "action": action, field: peers, "protocols": protocols })
                }
                None => json!({ "action": action, field: peers }),
            };
            rules.into_iter().map(rule).collect::<Vec<_>>()
        };
        (of("from", ingress), of("to", egress))
    });
    let kind = select(vec![Kind::Cluster, Kind::Cluster, Kind::Admin, Kind::BaselineAdmin]);
    (kind, select(vec!["Admin", "Baseline"]), 0..3u32, pods(), rules).prop_map(
        |(kind, tier, priority, subject, (ingress, egress))| {
            // A baseline policy of the older kind has no priority.
            let priority = (kind != Kind::BaselineAdmin).then_some(priority);
            let spec = json!({
                "tier": tier, "priority": priority, "subject": subject,
                "ingress": ingress, "egress": egress,
            });
            (kind, spec)
        },
    )
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    let labels = proptest::collection::vec(select(vec!["a", "b", "c", ""]), 9);
    let oddities = proptest::collection::vec(0..12u8, 9);
    let policies = proptest::collection::vec(network_policy(), 0..4);
    let cluster_policies = proptest::collection::vec(cluster_policy(), 0..4);
    (labels, oddities, policies, cluster_policies).prop_map(
        |(labels, oddities, policies, cluster_policies)| {
            let mut world = World::nine_pods();
            for (pod, (label, oddity)) in
                world.pods.iter_mut().zip(labels.into_iter().zip(oddities))
            {
                pod.labels.clear();
                if !label.is_empty() {
                    pod.labels.insert("pod".into(), label.into());
                }
                match oddity {
                    0 => pod.host_network = true,
                    1 => pod.phase = "Failed",
                    2 => pod.ports.push(("http".into(), "TCP".into(), 80)),
                    3 => pod.ports.push(("http".into(), "TCP".into(), 81)),
                    4 => pod.ports.push(("http".into(), "UDP".into(), 81)),
                    _ => {}
                }
            }
            for (number, mut policy) in policies.into_iter().enumerate() {
                policy["metadata"]["name"] = json!(format!("policy-{number}"));
                world.set_policy(serde_json::from_value(policy).expect("a NetworkPolicy"));
            }
            for (number, (kind, spec)) in cluster_policies.into_iter().enumerate() {
                let spec = serde_json::from_value(spec).expect("a spec");
                world.cluster_policies.push((kind, format!("policy-{number}"), spec));
            }
            world
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_worlds_are_judged_as_the_api_has_it(worlds in proptest::collection::vec(world(), 1..4)) {
        let mut node = Node::default();
        for world in worlds {
            let mut probes = world.all_probes();
            // Of IPv6, from outside, to outside, and without ports.
            let outside = ["203.0.113.1", "fd00:19::1"].map(|text| text.parse().expect("an address"));
            for (place, pod) in world.pods.iter().enumerate() {
                let [v4, v6] = [pod.addresses[0], pod.addresses[1]];
                let other = world.pods[(place + 4) % 9].addresses[1];
                for (from, to) in [(v6, other), (v4, outside[0]), (outside[1], v6)] {
                    for protocol in PROTOCOLS {
                        probes.push(Probe { from, to, protocol, port: Some(80) });
                    }
                    let icmp = ("ICMP", dataplane::wire::Protocol::ICMP);
                    probes.push(Probe { from, to, protocol: icmp, port: None });
                }
            }
            node.check(&world, &probes, "random");
        }
    }
}
