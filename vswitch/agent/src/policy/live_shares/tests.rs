//! One namespace that has more than its share, and others that do not notice.

use std::collections::{BTreeMap, BTreeSet};

use api::PolicyDigest;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use super::super::live::LiveTranslation;
use super::super::pod::{Pod, PodKey, PodObject};
use super::super::rule::Policy;
use super::super::selector::Labels;
use super::super::share::{PolicyBounds, Usage};
use super::super::{Translation, held};

const ANY: Usage = Usage { groups: 1 << 30, members: 1 << 30, rule_sets: 1 << 30, bytes: 1 << 30 };

/// Of the namespaces `shop` and `bank`, each with a pod `own` on this node.
fn live(share: Usage, total: Usage) -> LiveTranslation {
    let mut live = LiveTranslation::bounded("node-a", PolicyBounds { share, total });
    for (number, namespace) in (1..).zip(["shop", "bank"]) {
        live.put_namespace(namespace, Some(Labels::new()));
        put_pod(&mut live, namespace, "own", number, "node-a");
    }
    live
}

fn put_pod(live: &mut LiveTranslation, namespace: &str, name: &str, host: u8, node: &str) {
    put_pod_with(live, namespace, name, host, node, &json!([]));
}

fn put_pod_with(
    live: &mut LiveTranslation,
    namespace: &str,
    name: &str,
    host: u8,
    node: &str,
    ports: &Value,
) {
    let object: PodObject = serde_json::from_value(json!({
        "metadata": { "namespace": namespace, "name": name, "uid": name, "labels": { "app": name } },
        "spec": { "nodeName": node, "containers": [{ "ports": ports }] },
        "status": { "phase": "Running", "podIP": format!("198.18.1.{host}") },
    }))
    .expect("a Pod");
    let (key, pod) = Pod::new(&object);
    live.put_pod(&key, pod);
}

fn remove_pod(live: &mut LiveTranslation, namespace: &str, name: &str) {
    live.remove_pod(&PodKey { namespace: namespace.into(), name: name.into() });
}

fn policy(namespace: &str, name: &str, created: u32, spec: &Value) -> Policy {
    let object: NetworkPolicy = serde_json::from_value(json!({
        "metadata": {
            "namespace": namespace, "name": name,
            "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z"),
        },
        "spec": spec,
    }))
    .expect("a NetworkPolicy");
    Policy::network(&object)
}

/// A policy for all pods of the namespace that allows from pods with this label, or from all.
fn from(namespace: &str, name: &str, created: u32, app: Option<&str>) -> Policy {
    let pods = app.map_or(json!({}), |app| json!({ "matchLabels": { "app": app } }));
    policy(namespace, name, created, &json!({ "ingress": [{ "from": [{ "podSelector": pods }] }] }))
}

/// Rule sets of the pod `own` of a namespace.
fn has(live: &LiveTranslation, namespace: &str) -> Vec<String> {
    let key = PodKey { namespace: namespace.into(), name: "own".into() };
    let rules = &live.subjects()[&key].rules;
    rules.ingress.iter().chain(&rules.egress).map(|id| id.0.clone()).collect()
}

fn refused(live: &LiveTranslation) -> BTreeMap<&str, &str> {
    live.refusals().collect()
}

/// Panics unless what is counted is what there is.
fn check_ledger(live: &LiveTranslation) {
    let (total, owned) = (live.ledger.total(), live.rule_sets().count());
    let groups: BTreeSet<_> = live.groups().collect();
    let members: usize = groups.iter().map(|id| live.members(id).count()).sum();
    assert_eq!((total.groups, total.members, total.rule_sets), (groups.len(), members, owned));
}

#[test]
fn the_newest_policies_of_a_namespace_with_more_than_its_share_allow_nothing_until_there_is_room() {
    let mut live = live(Usage { members: 4, ..ANY }, ANY);
    live.put_policy(from("shop", "b", 2, None));
    live.put_policy(from("shop", "a", 3, Some("web")));
    live.put_policy(from("shop", "z", 1, Some("web")));
    put_pod(&mut live, "shop", "web", 10, "node-b");
    live.settle();
    assert_eq!(refused(&live), BTreeMap::new());
    let names = ["a", "b", "z"].map(|name| format!("NetworkPolicy shop/{name} ingress"));
    assert_eq!(has(&live, "shop"), names);

    // A pod comes: `z` and `b`, which are older than `a`, have 4 members; then 5.
    put_pod(&mut live, "shop", "web-2", 11, "node-b");
    live.settle();
    assert_eq!(refused(&live), BTreeMap::new(), "`a` and `z` have one group");
    put_pod(&mut live, "shop", "web-3", 12, "node-b");
    live.settle();
    assert_eq!(has(&live, "shop"), ["NetworkPolicy shop/* ingress", &names[2]]);
    let why =
        "the policies of the namespace shop take more than 4 members of such groups on this node";
    let all = refused(&live);
    assert_eq!(
        all.keys().copied().collect::<Vec<_>>(),
        ["NetworkPolicy shop/a", "NetworkPolicy shop/b"]
    );
    assert!(all.values().all(|reason| reason.contains(why)), "{all:?}");
    let translation = live.translation();
    let closed = translation.rule_sets.iter().find(|(id, _)| id.0.contains('*')).expect("it");
    assert_eq!((closed.1.policy.as_str(), closed.1.rules.len()), ("shop/*", 0));
    check_ledger(&live);

    // Another namespace and its new pod have what they ask for meanwhile.
    live.put_policy(from("bank", "c", 4, Some("teller")));
    put_pod(&mut live, "bank", "teller", 20, "node-a");
    live.settle();
    assert_eq!(has(&live, "bank"), ["NetworkPolicy bank/c ingress"]);
    assert_eq!(
        live.members(
            &live
                .rule_sets()
                .find_map(|(id, set)| {
                    let api::PolicyPeers::Of { groups, .. } = &set.rules.first()?.peers else {
                        return None;
                    };
                    id.0.contains("bank").then(|| groups[0].clone())
                })
                .expect("its group")
        )
        .count(),
        1
    );

    // A pod goes, and nothing else happens.
    remove_pod(&mut live, "shop", "web-2");
    live.settle();
    assert_eq!(refused(&live), BTreeMap::new());
    assert_eq!(has(&live, "shop"), names);
    check_ledger(&live);
}

#[test]
fn a_namespace_with_too_many_policies_costs_its_pods_one_rule_set() {
    let mut live = live(Usage { rule_sets: 3, ..ANY }, ANY);
    for number in 0..20 {
        live.put_policy(from("shop", &format!("p{number:02}"), number, Some("web")));
    }
    live.settle();
    assert_eq!(has(&live, "shop").len(), 4);
    assert_eq!(refused(&live).len(), 17);
    // It is the policy that goes that makes room, not one that comes.
    live.put_policy(from("shop", "new", 30, None));
    live.remove_policy("NetworkPolicy shop/p01");
    live.settle();
    let first = ["*", "p00", "p02", "p03"].map(|name| format!("NetworkPolicy shop/{name} ingress"));
    let mut all = has(&live, "shop");
    all.sort_unstable();
    assert_eq!(all, first);
    assert_eq!(refused(&live).len(), 17);
    for number in 4..20 {
        live.remove_policy(&format!("NetworkPolicy shop/p{number:02}"));
    }
    live.settle();
    assert_eq!(refused(&live).into_keys().collect::<Vec<_>>(), ["NetworkPolicy shop/new"]);
    check_ledger(&live);
}

#[test]
fn where_all_together_have_too_much_the_largest_namespace_is_cut_first() {
    let mut live = live(Usage { groups: 8, ..ANY }, Usage { groups: 9, ..ANY });
    for number in 0..8 {
        live.put_policy(from("shop", &format!("p{number}"), number, Some(&number.to_string())));
    }
    live.put_policy(from("bank", "a", 9, Some("a")));
    live.settle();
    assert_eq!(refused(&live), BTreeMap::new());
    live.put_policy(from("bank", "b", 10, Some("b")));
    live.settle();
    assert_eq!(refused(&live).len(), 4, "half a share is left to each");
    assert_eq!(has(&live, "bank").len(), 2);
    check_ledger(&live);
    // Not before it is clearly less.
    live.put_policy(from("bank", "c", 11, Some("c")));
    live.settle();
    assert_eq!(refused(&live).len(), 4);
    for name in ["a", "b", "c"] {
        live.remove_policy(&format!("NetworkPolicy bank/{name}"));
    }
    live.settle();
    assert_eq!(refused(&live), BTreeMap::new());
    assert_eq!(has(&live, "shop").len(), 8);
}

#[test]
fn a_rule_set_that_fits_into_no_message_closes_what_it_selects_and_is_named() {
    let mut live = live(PolicyBounds::default().share, PolicyBounds::default().total);
    let rules = vec![json!({}); 100_000];
    live.put_policy(policy("shop", "huge", 1, &json!({ "ingress": rules })));
    // Peers times named ports.
    let peers: Vec<_> = (0..3000)
        .map(|number| json!({ "podSelector": { "matchLabels": { "app": number.to_string() } } }))
        .collect();
    let ports: Vec<_> = (0..3000).map(|number| json!({ "port": format!("p{number}") })).collect();
    let spec = json!({ "policyTypes": ["Egress"], "egress": [{ "to": peers, "ports": ports }] });
    live.put_policy(policy("bank", "wide", 1, &spec));
    live.settle();
    let why = "its rules are too large, and what it selects is denied everything";
    let all = refused(&live);
    let names: Vec<_> = all.keys().copied().collect();
    assert_eq!(names, ["NetworkPolicy bank/wide", "NetworkPolicy shop/huge"]);
    assert!(all.values().all(|reason| reason.starts_with(why)), "{all:?}");
    assert!(live.rule_sets().all(|(_, set)| set.rules.is_empty()));
    live.put_policy(from("shop", "huge", 1, None));
    live.remove_policy("NetworkPolicy bank/wide");
    live.settle();
    assert_eq!(refused(&live), BTreeMap::new());
}

#[test]
fn a_pod_with_too_many_named_ports_is_denied_by_the_policy_that_names_them() {
    let mut live = live(ANY, ANY);
    let port = |number: u16| json!({ "name": format!("port-{number}"), "containerPort": number });
    let ports: Vec<_> = (1..100).map(port).collect();
    put_pod_with(&mut live, "shop", "odd", 9, "node-a", &json!(ports));
    let ports: Vec<_> =
        (1..100).map(|number| json!({ "port": format!("port-{number}") })).collect();
    live.put_policy(policy("shop", "web", 1, &json!({ "ingress": [{ "ports": ports }] })));
    live.settle();
    let ids: Vec<_> = live.rule_sets().map(|(id, set)| (id.0.as_str(), set.rules.len())).collect();
    let expected = ["NetworkPolicy shop/web ingress", "NetworkPolicy shop/web ingress *"];
    assert_eq!(ids, expected.map(|id| (id, 0)), "no port, and too many");
    let all = refused(&live);
    assert!(
        all["NetworkPolicy shop/web"].starts_with("a pod that it selects gives numbers to too")
    );
    assert_eq!(live.translation(), Translation::of(live.cluster(), "node-a"));
}

#[test]
fn what_one_namespace_may_have_fits_into_messages() {
    let PolicyBounds { share, total } = PolicyBounds::default();
    let mut live = live(share, total);
    // The longest names that there are, and some more than the share.
    let (namespace, long) = ("n".repeat(63), "p".repeat(248));
    put_pod(&mut live, &namespace, "own", 9, "node-a");
    for number in 0..share.rule_sets + 4 {
        live.put_policy(from(&namespace, &format!("{long}-{number:04}"), 1, Some("web")));
    }
    live.settle();
    assert_eq!(refused(&live).len(), 4);
    let parts = held::difference(&live, PolicyDigest::default());
    assert!(parts.len() > 1);
    for part in parts {
        let request = api::encode_request(&api::Request::SyncPolicies(part));
        assert!(request.is_ok(), "{:?}", request.err());
    }
}
