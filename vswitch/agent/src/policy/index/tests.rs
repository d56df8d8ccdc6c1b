//! What the watches report, and what it comes to.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::super::object::{ClusterPolicyKind, ClusterPolicyObject, NamespaceObject};
use super::super::pod::PodObject;
use super::PolicyIndex;
use crate::object::NodeObject;

fn pod(name: &str, uid: &str) -> PodObject {
    serde_json::from_value(json!({
        "metadata": { "namespace": "shop", "name": name, "uid": uid, "labels": { "app": name } },
        "spec": { "nodeName": "node-a" },
        "status": { "podIP": "198.18.1.7" },
    }))
    .expect("a Pod")
}

fn network(name: &str, spec: Value) -> NetworkPolicy {
    let metadata = json!({ "namespace": "shop", "name": name, "uid": "1234" });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).expect("a NetworkPolicy")
}

fn cluster(name: &str, spec: Value) -> ClusterPolicyObject {
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).expect("a policy")
}

fn subjects(index: &mut PolicyIndex) -> Vec<String> {
    index.live().settle();
    let subjects = index.live().subjects().values();
    subjects
        .map(|subject| {
            let uid = subject.pod.uid.clone().unwrap_or_default();
            let rules = subject.rules.ingress.len();
            format!("{} {uid} {rules}", subject.pod.name)
        })
        .collect()
}

/// Of an empty list of each kind that is always there.
fn listed() -> PolicyIndex {
    let mut index = PolicyIndex::new("node-a");
    index.take_pod(&Event::InitDone);
    index.take_namespace(&Event::<NamespaceObject>::InitDone);
    index.take_node(&Event::<NodeObject>::InitDone);
    index.take_network_policy(&Event::InitDone);
    index
}

#[test]
fn nothing_is_known_before_all_kinds_are_listed_or_absent() {
    let mut index = listed();
    assert!(!index.is_listed());
    assert!(index.has_no(ClusterPolicyKind::Cluster));
    assert!(index.has_no(ClusterPolicyKind::Admin));
    assert!(!index.is_listed());
    index.take_cluster_policy(ClusterPolicyKind::BaselineAdmin, &Event::InitDone);
    assert!(index.is_listed());
    assert!(!index.has_no(ClusterPolicyKind::Cluster), "it was told before");
}

#[test]
fn a_list_that_begins_anew_takes_away_what_is_missing_once_it_is_whole() {
    let mut index = listed();
    for name in ["db", "web"] {
        assert!(index.take_pod(&Event::Apply(pod(name, "1"))));
    }
    assert!(index.take_network_policy(&Event::Apply(network("all", json!({})))));
    assert_eq!(subjects(&mut index), ["db 1 1", "web 1 1"]);
    index.take_pod(&Event::Init);
    assert!(!index.take_pod(&Event::InitApply(pod("db", "1"))), "it is the same");
    assert!(index.take_pod(&Event::InitApply(pod("new", "1"))));
    assert_eq!(subjects(&mut index), ["db 1 1", "new 1 1", "web 1 1"]);
    index.take_pod(&Event::InitDone);
    assert_eq!(subjects(&mut index), ["db 1 1", "new 1 1"]);
    index.take_network_policy(&Event::Init);
    index.take_network_policy(&Event::InitDone);
    assert_eq!(subjects(&mut index), ["db 1 0", "new 1 0"]);
}

#[test]
fn a_pod_of_the_same_name_is_another() {
    let mut index = listed();
    index.take_pod(&Event::Apply(pod("db", "1")));
    assert_eq!(subjects(&mut index), ["db 1 0"]);
    index.live().take_changes();
    index.take_pod(&Event::Delete(pod("db", "1")));
    index.take_pod(&Event::Apply(pod("db", "2")));
    assert_eq!(subjects(&mut index), ["db 2 0"]);
    let changes = index.live().take_changes();
    let parts = crate::policy::held::changed(index.live(), changes);
    let [part] = &parts[..] else { panic!("{parts:?}") };
    let uids = |uids: Vec<&Option<String>>| uids.into_iter().flatten().cloned().collect::<Vec<_>>();
    assert_eq!(uids(part.gone_subjects.iter().map(|pod| &pod.uid).collect()), ["1"]);
    assert_eq!(uids(part.subjects.iter().map(|one| &one.pod.uid).collect()), ["2"]);
}

#[test]
fn a_static_pod_has_the_uid_that_its_kubelet_gave_it() {
    let mut index = listed();
    let mut object = pod("proxy", "of-the-mirror");
    let annotations = [("kubernetes.io/config.hash", "of-the-file")];
    let annotate = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    object.metadata.annotations = Some(annotations.map(annotate).into());
    index.take_pod(&Event::Apply(object.clone()));
    assert_eq!(subjects(&mut index), ["proxy of-the-mirror 0"], "it is no mirror");
    let mirror = annotate(("kubernetes.io/config.mirror", "of-the-file"));
    object.metadata.annotations.get_or_insert_default().extend([mirror]);
    index.take_pod(&Event::Apply(object));
    assert_eq!(subjects(&mut index), ["proxy of-the-file 0"]);
}

#[test]
fn cluster_policies_come_and_go_with_their_kind() {
    let mut index = listed();
    index.take_pod(&Event::Apply(pod("db", "1")));
    index.take_namespace(&Event::Apply(
        serde_json::from_value(json!({ "metadata": { "name": "shop" } })).expect("a Namespace"),
    ));
    let all = json!([{ "namespaces": {} }]);
    let rules = json!([{ "action": "Deny", "from": all }]);
    let spec = json!({ "priority": 1, "subject": { "namespaces": {} }, "ingress": rules });
    for kind in [ClusterPolicyKind::Admin, ClusterPolicyKind::Cluster] {
        index.take_cluster_policy(kind, &Event::Apply(cluster("guard", spec.clone())));
    }
    assert_eq!(subjects(&mut index), ["db 1 2"]);
    assert!(index.has_no(ClusterPolicyKind::Admin));
    assert_eq!(subjects(&mut index), ["db 1 1"], "the other kind's stays");
}

#[test]
fn what_is_wrong_with_a_policy_is_known_until_it_is_right_or_gone() {
    let mut index = listed();
    let ports = json!([{ "ports": [{ "port": 0, "protocol": "ICMP" }] }]);
    index.take_network_policy(&Event::Apply(network("web", json!({ "ingress": ports }))));
    let kind = ClusterPolicyKind::Cluster;
    index.take_cluster_policy(kind, &Event::Apply(cluster("guard", json!({ "priority": "high" }))));
    let problems: Vec<_> =
        index.problems().iter().map(|(policy, why)| format!("{policy}: {why}")).collect();
    assert_eq!(
        problems,
        [
            "ClusterNetworkPolicy guard: it cannot be read: invalid type: string \"high\", expected i64; its subject is of a kind that is not known: it selects no pod",
            "NetworkPolicy shop/web: rule 0: the protocol \"ICMP\" is not known",
        ]
    );
    assert_eq!(index.uid("NetworkPolicy shop/web"), Some("1234"));
    index.take_network_policy(&Event::Apply(network("web", json!({}))));
    index.take_cluster_policy(kind, &Event::Delete(cluster("guard", json!({}))));
    assert!(index.problems().is_empty());
}

#[test]
fn a_policy_that_denies_more_than_it_says_is_named_beside_what_is_wrong_with_it() {
    let mut index = listed();
    index.take_pod(&Event::Apply(pod("db", "1")));
    let wrong = json!([{ "ports": [{ "endPort": 80 }] }]);
    index.take_network_policy(&Event::Apply(network("few", json!({ "ingress": wrong }))));
    let rules = vec![json!({}); 100_000];
    index.take_network_policy(&Event::Apply(network("many", json!({ "ingress": rules }))));
    index.live().settle();
    let problems = index.problems();
    assert_eq!(
        problems.keys().collect::<Vec<_>>(),
        ["NetworkPolicy shop/few", "NetworkPolicy shop/many"]
    );
    assert!(problems["NetworkPolicy shop/many"].contains("split it"), "{problems:?}");
    index.take_pod(&Event::Delete(pod("db", "1")));
    index.live().settle();
    assert_eq!(index.problems().len(), 1, "it selects nothing any more");
}
