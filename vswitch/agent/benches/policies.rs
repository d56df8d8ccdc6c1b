//! From the API server's words to messages for the daemon, for 10,000 pods in 500 namespaces and 1,000
//! policies: what a node with 110 of the pods does when the agent starts, and when one object changes.
//! Prints the memory that all of it takes.

use std::fs;
use std::hint::black_box;
use std::io::Write;

use api::PolicyDigest;
use criterion::{Criterion, criterion_group, criterion_main};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use vswitch_agent::object::NodeObject;
use vswitch_agent::policy::held;
use vswitch_agent::policy::index::PolicyIndex;
use vswitch_agent::policy::object::{ClusterPolicyKind, NamespaceObject};
use vswitch_agent::policy::pod::PodObject;

const PODS: usize = 10_000;
const NAMESPACES: usize = 500;
const NODES: usize = 91;
const APPS: usize = 5;
const OWN: &str = "node-0000.example.com";

fn namespace_name(index: usize) -> String {
    format!("team-{:03}", index % NAMESPACES)
}

fn namespace(index: usize, tier: usize) -> Value {
    let name = namespace_name(index);
    json!({ "metadata": { "name": name, "labels": {
        "kubernetes.io/metadata.name": name, "tier": format!("tier-{tier}"),
        "team": format!("{}", index / 10),
    } } })
}

/// A Pod as its kubelet and controllers leave it: some four kilobytes, most of which is not read here.
fn pod(index: usize, round: usize) -> Value {
    let app = index / NAMESPACES % APPS;
    let [.., high, low] = (index as u32).to_be_bytes();
    let condition = |kind: &str| {
        json!({ "type": kind, "status": "True", "lastProbeTime": null,
            "lastTransitionTime": "2024-05-01T10:00:00Z" })
    };
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    let environment: Vec<_> = (0..12)
        .map(|n| json!({ "name": format!("SETTING_{n}"), "value": "of no use here" }))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("app-{app}-6d4cf56db6-{index:05}"), "namespace": namespace_name(index),
            "uid": format!("00000000-0000-0000-0000-{index:012}"), "resourceVersion": "1",
            "creationTimestamp": "2024-05-01T10:00:00Z",
            "labels": {
                "app.kubernetes.io/name": format!("app-{app}"), "app.kubernetes.io/instance": "prod",
                "app.kubernetes.io/managed-by": "Helm", "pod-template-hash": format!("6d4cf56d{app}"),
                "round": round.to_string(),
            },
            "managedFields": [{ "manager": "kubelet", "operation": "Update", "apiVersion": "v1",
                "time": "2024-05-01T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {
                    "f:status": { "f:conditions": { ".": {} }, "f:podIP": {}, "f:podIPs": { ".": {} },
                        "f:startTime": {}, "f:containerStatuses": {}, "f:hostIP": {}, "f:phase": {} } } }],
        },
        "spec": {
            "nodeName": format!("node-{:04}.example.com", index % NODES),
            "containers": [{ "name": "main", "image": "registry.example.com/app:1", "env": environment,
                "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" },
                    { "name": "metrics", "containerPort": 9090 + app, "protocol": "TCP" }],
                "resources": { "requests": { "cpu": "100m", "memory": "128Mi" } } }],
            "volumes": [{ "name": "token", "projected": { "sources": [] } }],
            "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists" }],
        },
        "status": {
            "phase": "Running", "podIP": format!("10.1.{high}.{low}"),
            "podIPs": [{ "ip": format!("10.1.{high}.{low}") }], "hostIP": "192.0.2.1",
            "conditions": conditions,
        },
    })
}

/// Two in each namespace: what applications take from their own namespace and from those of a tier; and what
/// one of them sends, by the name of a port.
fn policy(index: usize, port: u16) -> Value {
    let metadata = json!({ "namespace": namespace_name(index), "name": format!("policy-{index}"), "uid": "1" });
    let app = |number: usize| json!({ "matchLabels": { "app.kubernetes.io/name": format!("app-{number}") } });
    let spec = if index < NAMESPACES {
        json!({
            "podSelector": {}, "policyTypes": ["Ingress"],
            "ingress": [
                { "from": [{ "podSelector": app(0) }], "ports": [{ "port": "http" }] },
                { "from": [{ "namespaceSelector": { "matchLabels": { "tier": "tier-1" } },
                    "podSelector": app(1) }], "ports": [{ "port": port }] },
            ],
        })
    } else {
        json!({
            "podSelector": app(index % APPS), "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "from": [{ "ipBlock": { "cidr": "192.0.2.0/24" } }] }],
            "egress": [
                { "to": [{ "namespaceSelector": {} }], "ports": [{ "port": 53, "protocol": "UDP" }] },
                { "to": [{ "podSelector": app(2) }], "ports": [{ "port": "metrics" }] },
            ],
        })
    };
    json!({ "metadata": metadata, "spec": spec })
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).expect("an object")
}

fn listed(namespaces: &[String], pods: &[String], policies: &[String]) -> PolicyIndex {
    let mut index = PolicyIndex::new(OWN);
    index.take_node(&Event::<NodeObject>::InitDone);
    for kind in ClusterPolicyKind::ALL {
        index.has_no(kind);
    }
    for text in namespaces {
        index.take_namespace(&Event::InitApply(parsed::<NamespaceObject>(text)));
    }
    index.take_namespace(&Event::InitDone);
    for text in pods {
        index.take_pod(&Event::InitApply(parsed::<PodObject>(text)));
    }
    index.take_pod(&Event::InitDone);
    for text in policies {
        index.take_network_policy(&Event::InitApply(parsed::<NetworkPolicy>(text)));
    }
    index.take_network_policy(&Event::InitDone);
    assert!(index.is_listed());
    index
}

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("pages") * 4096
}

/// Takes up what has changed; how many messages it makes.
fn settle(index: &mut PolicyIndex) -> usize {
    let live = index.live();
    live.settle();
    let changes = live.take_changes();
    held::changed(live, changes).len()
}

fn policies(c: &mut Criterion) {
    let namespaces: Vec<String> =
        (0..NAMESPACES).map(|index| namespace(index, index % 4).to_string()).collect();
    let pods: Vec<String> = (0..PODS).map(|index| pod(index, 0).to_string()).collect();
    let policies: Vec<String> =
        (0..2 * NAMESPACES).map(|index| policy(index, 8080).to_string()).collect();
    let before = resident_bytes();
    let mut index = listed(&namespaces, &pods, &policies);
    index.live().settle();
    let parts = held::difference(index.live(), PolicyDigest::default());
    drop(index.live().take_changes());
    let kilobytes = (resident_bytes() - before) / 1024;
    let live = index.live();
    let members: usize = live.groups().map(|group| live.members(group).count()).sum();
    let _ = writeln!(
        std::io::stderr(),
        "{PODS} pods and {} policies take {kilobytes} KiB: {} subjects, {} rule sets, {} groups with {members} members, {} message(s)",
        2 * NAMESPACES,
        live.subjects().len(),
        live.rule_sets().count(),
        live.groups().count(),
        parts.len(),
    );
    drop(parts);

    let mut group = c.benchmark_group("10000 pods");
    group.sample_size(10);
    group.bench_function("parse and keep", |b| {
        b.iter(|| listed(&namespaces, &pods, &policies).len());
    });
    group.bench_function("translate all", |b| {
        b.iter_batched(
            || listed(&namespaces, &pods, &policies),
            |mut index| {
                index.live().settle();
                index
            },
            criterion::BatchSize::PerIteration,
        );
    });
    group.bench_function("compare with a daemon that has nothing", |b| {
        b.iter(|| held::difference(index.live(), black_box(PolicyDigest::default())).len());
    });
    group.sample_size(100);
    let mut round = 0;
    let pods_of = |number: usize| {
        [1, 2].map(|round| Event::Apply(parsed::<PodObject>(&pod(number, round).to_string())))
    };
    let [others, own] = [pods_of(1), pods_of(0)];
    let gone = Event::Delete(parsed::<PodObject>(&pods[1]));
    let back = Event::Apply(parsed::<PodObject>(&pods[1]));
    group.bench_function("labels of a pod elsewhere", |b| {
        b.iter(|| {
            round ^= 1;
            assert!(index.take_pod(black_box(&others[round])));
            settle(&mut index)
        });
    });
    group.bench_function("labels of a pod of this node", |b| {
        b.iter(|| {
            round ^= 1;
            assert!(index.take_pod(black_box(&own[round])));
            settle(&mut index)
        });
    });
    group.bench_function("a pod elsewhere goes and comes", |b| {
        b.iter(|| {
            assert!(index.take_pod(black_box(&gone)));
            let messages = settle(&mut index);
            assert!(index.take_pod(black_box(&back)));
            messages + settle(&mut index)
        });
    });
    let tiers =
        [1, 2].map(|tier| Event::Apply(parsed::<NamespaceObject>(&namespace(0, tier).to_string())));
    group.bench_function("labels of a namespace", |b| {
        b.iter(|| {
            round ^= 1;
            assert!(index.take_namespace(black_box(&tiers[round])));
            settle(&mut index)
        });
    });
    let versions =
        [81, 82].map(|port| Event::Apply(parsed::<NetworkPolicy>(&policy(0, port).to_string())));
    group.bench_function("a policy", |b| {
        b.iter(|| {
            round ^= 1;
            assert!(index.take_network_policy(black_box(&versions[round])));
            settle(&mut index)
        });
    });
    group.finish();
}

criterion_group!(benches, policies);
criterion_main!(benches);
