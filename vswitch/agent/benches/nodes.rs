//! From the API server's words to messages for the daemon, for a cluster of 5,000 nodes: what a node
//! does when the agent starts, and when one of the nodes changes.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use vswitch_agent::desired::{Nodes, Peers, desired};
use vswitch_agent::node::ClusterNode;
use vswitch_agent::object::NodeObject;
use vswitch_agent::sync::Held;

const NODES: u16 = 5_000;

/// A Node as a kubelet of a busy cluster leaves it: some ten kilobytes, most of which is not read
/// here.
fn node(index: u16) -> Value {
    let [high, low] = index.to_be_bytes();
    let name = format!("node-{index:04}.example.com");
    let images: Vec<Value> = (0..40)
        .map(|image| {
            json!({ "names": [format!("registry.example.com/team/image-{image}@sha256:{image:064x}"),
                format!("registry.example.com/team/image-{image}:v1")], "sizeBytes": 123_456_789 })
        })
        .collect();
    json!({
        "metadata": {
            "name": name, "uid": format!("00000000-0000-0000-0000-{index:012}"),
            "resourceVersion": "1", "creationTimestamp": "2024-05-01T10:00:00Z",
            "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" },
            "annotations": {
                "vswitch.dev/underlay-address": format!("10.200.{high}.{low}"),
                "vswitch.dev/vtep-mac": format!("02:76:0a:c8:{high:02x}:{low:02x}"),
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
        },
        "spec": { "podCIDR": format!("10.{high}.{low}.0/24"),
            "podCIDRs": [format!("10.{high}.{low}.0/24"), format!("fd00:18:{index:x}::/64")] },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": format!("10.200.{high}.{low}") },
                { "type": "Hostname", "address": name }],
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
            "images": images,
        },
    })
}

fn judged(texts: &[String]) -> Nodes {
    let parse = |text: &String| serde_json::from_str::<NodeObject>(text).expect("a Node");
    texts
        .iter()
        .map(|text| ClusterNode::judge(&parse(text)))
        .map(|node| (node.name.clone(), node))
        .collect()
}

fn nodes(c: &mut Criterion) {
    let texts: Vec<String> = (0..NODES).map(|index| node(index).to_string()).collect();
    let own = "node-0000.example.com";
    let all = judged(&texts);
    let peers = desired(&all, own, None, &Peers::new()).peers;
    let mut held = Held::default();
    for message in held.messages(&peers) {
        held.answered(message, &[]);
    }
    assert_eq!(held.peers().len(), usize::from(NODES) - 1);

    let mut group = c.benchmark_group("5000 nodes");
    group.sample_size(10);
    group.bench_function("parse and judge", |b| b.iter(|| judged(black_box(&texts))));
    group.bench_function("decide", |b| {
        b.iter(|| desired(black_box(&all), own, None, held.peers()));
    });
    group.bench_function("compare, nothing changed", |b| {
        b.iter(|| held.messages(black_box(&peers)))
    });
    group.bench_function("compare, all new", |b| {
        b.iter(|| Held::default().messages(black_box(&peers)));
    });
    group.finish();
}

criterion_group!(benches, nodes);
criterion_main!(benches);
