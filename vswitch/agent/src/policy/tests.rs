//! What single objects are translated to.

use std::net::IpAddr;

use api::{PolicyTier, RuleAction};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::cluster::ClusterPolicySpec;
use super::pod::{Pod, PodObject};
use super::rule::{Draft, Policy};
use super::selector::{Labels, Selector};
use super::{Cluster, Translation};

fn selector(value: Value) -> Selector {
    let selector: LabelSelector = serde_json::from_value(value).expect("a selector");
    Selector::new(&selector).expect("operators that are known")
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({ "key": key, "operator": operator, "values": values })
}

#[test]
fn a_selector_has_the_same_text_in_whatever_order() {
    let one = selector(json!({
        "matchLabels": { "app": "web", "tier": "front" },
        "matchExpressions": [expression("env", "NotIn", &["dev", "test"]), expression("old", "Exists", &[])],
    }));
    let two = selector(json!({
        "matchExpressions": [
            expression("old", "Exists", &[]),
            expression("env", "NotIn", &["test", "dev", "test"]),
            expression("tier", "In", &["front"]),
        ],
        "matchLabels": { "app": "web" },
    }));
    assert_eq!(one, two);
    assert_eq!(one.to_string(), "app in (web),env notin (dev,test),old,tier in (front)");
    assert_eq!(selector(json!({})).to_string(), "*");
    let absent = selector(json!({ "matchExpressions": [expression("old", "DoesNotExist", &[])] }));
    assert_eq!(absent.to_string(), "!old");
}

#[test]
fn values_of_any_text_make_no_two_selectors_alike() {
    let one = selector(json!({ "matchExpressions": [expression("a", "In", &["b,c"])] }));
    let two = selector(json!({ "matchExpressions": [expression("a", "In", &["b", "c"])] }));
    assert_ne!(one.to_string(), two.to_string());
    assert_eq!(one.to_string(), r#"a in ("b,c")"#);
    assert_eq!(selector(json!({ "matchLabels": { "a": "" } })).to_string(), r#"a in ("")"#);
}

#[test]
fn operators_mean_what_the_api_has_them_mean() {
    let has = labels(&[("env", "dev")]);
    for (operator, values, of_has, of_none) in [
        ("In", &["dev", "test"][..], true, false),
        ("In", &["test"], false, false),
        ("NotIn", &["dev"], false, true),
        ("NotIn", &["test"], true, true),
        ("Exists", &[], true, false),
        ("DoesNotExist", &[], false, true),
    ] {
        let selector =
            selector(json!({ "matchExpressions": [expression("env", operator, values)] }));
        assert_eq!(selector.matches(&has), of_has, "{selector}");
        assert_eq!(selector.matches(&Labels::new()), of_none, "{selector}");
    }
    let unknown =
        serde_json::from_value(json!({ "matchExpressions": [expression("a", "Gt", &["1"])] }));
    assert_eq!(Selector::new(&unknown.expect("a selector")), None);
}

fn pod(object: Value) -> Pod {
    let object: PodObject = serde_json::from_value(object).expect("a Pod");
    Pod::new(&object).1
}

#[test]
fn a_pod_is_read_as_far_as_policies_need_it() {
    let port = |name: &str, number: i64| json!({ "name": name, "containerPort": number });
    let pod = pod(json!({
        "metadata": { "namespace": "shop", "name": "web", "uid": "u-1", "labels": { "app": "web" } },
        "spec": {
            "nodeName": "node-a",
            "containers": [
                { "image": "web", "ports": [port("http", 80), { "containerPort": 81 }] },
                { "ports": [port("http", 8080), { "name": "dns", "protocol": "UDP", "containerPort": 53 }] },
                { "ports": [port("far", 70_000), { "name": "odd", "protocol": "QUIC", "containerPort": 1 }] },
            ],
            "initContainers": [
                { "ports": [port("setup", 1)] },
                { "restartPolicy": "Always", "ports": [port("proxy", 15_001)] },
            ],
        },
        "status": {
            "phase": "Running", "podIP": "198.18.1.7",
            "podIPs": [{ "ip": "198.18.1.7" }, { "ip": "fd00:18::7" }, { "ip": "nonsense" }],
        },
    }));
    let numbers = |name| pod.numbers(name, None).collect::<Vec<_>>();
    assert_eq!(numbers("http"), [(6, 80)], "of two with one name the first");
    assert_eq!((numbers("dns"), numbers("proxy")), (vec![(17, 53)], vec![(6, 15_001)]));
    assert_eq!((numbers("setup"), numbers("far"), numbers("odd")), (vec![], vec![], vec![]));
    assert_eq!(pod.numbers("dns", Some(6)).count(), 0);
    assert_eq!(pod.addresses.len(), 2);
    assert_eq!((pod.uid.as_str(), pod.node.as_deref()), ("u-1", Some("node-a")));
    assert!(pod.is_judged());
}

#[test]
fn pods_of_the_nodes_network_and_finished_ones_are_not_judged() {
    for (network, phase, is_judged) in [
        (false, "Pending", true),
        (false, "Unknown", true),
        (false, "Succeeded", false),
        (false, "Failed", false),
        (true, "Running", false),
    ] {
        let object = json!({ "spec": { "hostNetwork": network }, "status": { "phase": phase } });
        assert_eq!(pod(object).is_judged(), is_judged, "{network} {phase}");
    }
}

fn network_policy(spec: Value) -> Policy {
    let metadata = json!({ "namespace": "shop", "name": "web" });
    let object = serde_json::from_value(json!({ "metadata": metadata, "spec": spec }));
    Policy::network(&object.expect("a NetworkPolicy"))
}

#[test]
fn policy_types_default_to_what_there_are_rules_for() {
    for (spec, ingress, egress) in [
        (json!({}), true, false),
        (json!({ "egress": [] }), true, false),
        (json!({ "egress": [{}] }), true, true),
        (json!({ "policyTypes": [], "egress": [{}] }), true, true),
        (json!({ "policyTypes": ["Egress"], "ingress": [{}] }), false, true),
        (json!({ "policyTypes": ["Ingress"], "egress": [{}] }), true, false),
    ] {
        let policy = network_policy(spec.clone());
        assert_eq!(
            (policy.ingress.is_some(), policy.egress.is_some()),
            (ingress, egress),
            "{spec}"
        );
        assert_eq!(
            (policy.id.as_str(), policy.tier),
            ("NetworkPolicy shop/web", PolicyTier::NetworkPolicy)
        );
    }
}

#[test]
fn what_cannot_be_meant_is_left_out_and_named() {
    let bad = expression("a", "Gt", &["1"]);
    let policy = network_policy(json!({
        "podSelector": { "matchExpressions": [bad] },
        "ingress": [
            { "from": [{}, { "podSelector": {}, "ipBlock": { "cidr": "198.18.0.0/16" } }] },
            { "from": [{ "ipBlock": { "cidr": "198.18.0.0" } }, { "podSelector": { "matchExpressions": [bad] } }] },
            { "ports": [
                { "protocol": "ICMP" }, { "port": 81, "endPort": 80 }, { "port": 70000 }, { "port": "http", "endPort": 80 },
                { "endPort": 80 },
            ] },
            { "from": [{ "ipBlock": { "cidr": "198.18.0.0/16", "except": ["198.18.0.0/15"] } }] },
        ],
    }));
    assert_eq!(policy.subject, None);
    let nothing = |draft: &Draft| {
        draft.peers.as_ref().is_some_and(Vec::is_empty)
            || draft.ports.as_ref().is_some_and(Vec::is_empty)
    };
    assert!(policy.ingress.expect("rules").iter().all(nothing));
    let expected = [
        "rule 0: a peer is of a kind that is not known: it matches nothing",
        "rule 0: a peer has a block and a selector: it matches nothing",
        "rule 1: \"198.18.0.0\" is no prefix",
        "rule 1: a selector has an operator that is not known",
        "rule 2: the protocol \"ICMP\" is not known",
        "rule 2: 81 to 80 are no ports",
        "rule 2: 70000 to 70000 are no ports",
        "rule 2: endPort is of no use with the named port \"http\"",
        "rule 2: endPort is there without a port",
        "its podSelector has an operator that is not known: it selects no pod",
    ];
    assert_eq!(policy.problems, expected);
}

fn cluster_policy(spec: Value) -> Policy {
    let spec: ClusterPolicySpec = serde_json::from_value(spec).expect("a spec");
    Policy::cluster("guard", &spec)
}

#[test]
fn a_cluster_rule_that_is_not_known_allows_nothing_or_denies_everything() {
    let known = json!([{ "namespaces": {} }]);
    for (fields, why) in [
        (json!({ "from": [{ "namespaces": {} }, {}] }), "a peer is of a kind that is not known"),
        (json!({ "from": [] }), "it has no peers"),
        (json!({ "to": [{ "networks": ["nonsense"] }] }), "\"nonsense\" is no prefix"),
        (json!({ "from": known, "protocols": [{}] }), "a protocol is of a kind that is not known"),
        (
            json!({ "from": known, "protocols": [{ "tcp": { "destinationPort": {} } }] }),
            "a port is of a kind that is not known",
        ),
        (json!({ "from": known, "ports": [{}] }), "a port is of a kind that is not known"),
    ] {
        for (action, becomes) in [
            ("Accept", "it matches nothing"),
            ("Deny", "it denies everything"),
            ("Pass", "it denies everything"),
        ] {
            let mut rule = fields.clone();
            rule["action"] = json!(action);
            let policy =
                cluster_policy(json!({ "subject": { "namespaces": {} }, "ingress": [rule] }));
            let unknown = match action {
                "Accept" => Draft::unknown(0, RuleAction::Allow),
                _ => Draft { index: 0, action: RuleAction::Deny, peers: None, ports: None },
            };
            assert_eq!(policy.ingress, Some(vec![unknown]), "{action} {fields}");
            assert_eq!(policy.problems, [format!("rule 0: {why}: {becomes}")]);
            assert_eq!(policy.egress, None);
        }
    }
    let policy = cluster_policy(json!({ "ingress": [{ "action": "Log", "from": known }] }));
    assert_eq!(policy.subject, None);
    let expected = [
        "its subject is of a kind that is not known: it selects no pod",
        "rule 0: the action \"Log\" is not known: it denies everything",
    ];
    assert_eq!(policy.problems, expected);
}

#[test]
fn only_the_rule_sets_and_groups_of_own_pods_are_there() {
    let pod = |name: &str, node: &str, number: i64| {
        let object: PodObject = serde_json::from_value(json!({
            "metadata": { "namespace": "shop", "name": name, "labels": { "app": name } },
            "spec": {
                "nodeName": node,
                "containers": [{ "ports": [{ "name": "http", "containerPort": number }] }],
            },
            "status": { "phase": "Running", "podIP": format!("198.18.1.{}", number % 100) },
        }))
        .expect("a Pod");
        Pod::new(&object)
    };
    let of = |pods: &str, rules: Value| {
        let spec = json!({ "podSelector": { "matchLabels": { "app": pods } }, "ingress": rules });
        let metadata = json!({ "namespace": "shop", "name": pods });
        let object = json!({ "metadata": metadata, "spec": spec });
        let policy = Policy::network(&serde_json::from_value(object).expect("a NetworkPolicy"));
        (policy.id.clone(), policy)
    };
    let from = |pods: &str| json!([{ "podSelector": { "matchLabels": { "app": pods } } }]);
    let cluster = Cluster {
        namespaces: [("shop".to_owned(), Labels::new())].into(),
        pods: [pod("web", "node-a", 8080), pod("db", "node-b", 5432)].into(),
        policies: [
            of("web", json!([{ "from": from("db"), "ports": [{ "port": "http" }] }])),
            of("db", json!([{ "from": from("web") }])),
        ]
        .into(),
        ..Cluster::default()
    };
    let translation = Translation::of(&cluster, "node-a");
    let rule_sets: Vec<_> = translation.rule_sets.keys().map(|id| id.0.as_str()).collect();
    assert_eq!(rule_sets, ["NetworkPolicy shop/web ingress http/6=8080"]);
    let subjects: Vec<_> = translation.subjects.keys().map(ToString::to_string).collect();
    assert_eq!(subjects, ["shop/web"]);
    let members: Vec<_> = translation.members(&cluster).into_iter().collect();
    let [(group, members)] = &members[..] else { panic!("{members:?}") };
    assert_eq!(group.0, "namespace shop, pods app in (db)");
    let db: IpAddr = "198.18.1.32".parse().expect("an address");
    assert_eq!(Vec::from_iter(members), [&db]);
}
