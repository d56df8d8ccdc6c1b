//! From the API server's words to messages for the daemon, for 10,000 Services of two endpoints each:
//! what a node does when the agent starts, and when one endpoint changes. Prints the memory that all of
//! it takes.

use std::fs;
use std::hint::black_box;
use std::io::Write;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use vswitch_agent::service::held::HeldServices;
use vswitch_agent::service::index::Services;
use vswitch_agent::service::object::{ServiceObject, SliceObject};

const SERVICES: u16 = 10_000;
const OWN: &str = "node-0000.example.com";

/// A Service as Helm and a controller leave it: some two kilobytes, most of which is not read here.
fn service(index: u16) -> Value {
    let [high, low] = index.to_be_bytes();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": format!("service-{index:05}"), "namespace": format!("team-{:03}", index % 100),
            "uid": format!("00000000-0000-0000-0000-{index:012}"), "resourceVersion": "1",
            "creationTimestamp": "2024-05-01T10:00:00Z",
            "labels": { "app.kubernetes.io/name": "service", "app.kubernetes.io/managed-by": "Helm" },
            "annotations": { "meta.helm.sh/release-name": "service" },
            "managedFields": [{ "manager": "helm", "operation": "Update", "apiVersion": "v1",
                "time": "2024-05-01T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {
                    "f:metadata": { "f:labels": { ".": {}, "f:app.kubernetes.io/name": {} } },
                    "f:spec": { "f:internalTrafficPolicy": {}, "f:ports": { ".": {} },
                        "f:selector": {}, "f:sessionAffinity": {}, "f:type": {} } } }],
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": format!("10.96.{high}.{low}"),
            "clusterIPs": [format!("10.96.{high}.{low}")], "ipFamilies": ["IPv4"],
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "targetPort": "http" }],
            "selector": { "app.kubernetes.io/name": "service" },
        },
        "status": { "loadBalancer": {} },
    })
}

/// Its slice; endpoints of `round` are others than those of another.
fn slice(index: u16, round: u8) -> Value {
    let [high, low] = index.to_be_bytes();
    let namespace = format!("team-{:03}", index % 100);
    let endpoint = |net: u8| {
        json!({
            "addresses": [format!("10.{net}.{high}.{low}")], "nodeName": format!("node-{net:04}.example.com"),
            "zone": "zone-1", "conditions": { "ready": true, "serving": true, "terminating": false },
            "targetRef": { "kind": "Pod", "namespace": namespace, "name": format!("pod-{index}-{net}"),
                "uid": format!("00000000-0000-0000-0001-{index:012}") },
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("service-{index:05}-abcde"), "namespace": namespace,
            "generateName": format!("service-{index:05}-"), "resourceVersion": "1",
            "creationTimestamp": "2024-05-01T10:00:00Z",
            "labels": { "kubernetes.io/service-name": format!("service-{index:05}"),
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Service", "controller": true,
                "name": format!("service-{index:05}"), "uid": "0", "blockOwnerDeletion": true }],
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "protocol": "TCP", "port": 8080 }],
        "endpoints": [endpoint(0), endpoint(1 + round)],
    })
}

fn parsed_service(text: &str) -> ServiceObject {
    serde_json::from_str(text).expect("a Service")
}

fn parsed_slice(text: &str) -> SliceObject {
    serde_json::from_str(text).expect("a slice")
}

fn listed(services: &[String], slices: &[String]) -> Services {
    let mut all = Services::new(OWN);
    all.take_service(&Event::Init);
    for text in services {
        all.take_service(&Event::InitApply(parsed_service(text)));
    }
    all.take_service(&Event::InitDone);
    all.take_slice(&Event::Init);
    for text in slices {
        all.take_slice(&Event::InitApply(parsed_slice(text)));
    }
    all.take_slice(&Event::InitDone);
    all
}

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("pages") * 4096
}

fn services(c: &mut Criterion) {
    let texts: Vec<String> = (0..SERVICES).map(|index| service(index).to_string()).collect();
    let slices: Vec<String> = (0..SERVICES).map(|index| slice(index, 0).to_string()).collect();
    let before = resident_bytes();
    let mut all = listed(&texts, &slices);
    let mut held = HeldServices::default();
    for message in held.messages(all.settle(), false) {
        held.answered(&message, all.settle(), &[]);
    }
    let kilobytes = (resident_bytes() - before) / 1024;
    let _ = writeln!(
        std::io::stderr(),
        "{SERVICES} Services with their endpoints take {kilobytes} KiB"
    );
    assert_eq!(held.len(), usize::from(SERVICES));
    assert!(all.problems().is_empty());

    let mut group = c.benchmark_group("10000 Services");
    group.sample_size(10);
    group.bench_function("parse and judge", |b| {
        b.iter(|| listed(black_box(&texts), black_box(&slices)));
    });
    group.bench_function("translate all", |b| {
        b.iter_batched(
            || listed(&texts, &slices),
            |mut all| all.settle().len(),
            BatchSize::PerIteration,
        );
    });
    let changes = [1, 2].map(|round| Event::Apply(parsed_slice(&slice(7, round).to_string())));
    let mut round = 0;
    group.bench_function("one slice changes", |b| {
        b.iter(|| {
            round ^= 1;
            assert!(all.take_slice(black_box(&changes[round])));
            all.settle().len()
        });
    });
    for message in held.messages(all.settle(), false) {
        held.answered(&message, all.settle(), &[]);
    }
    group.bench_function("compare, nothing changed", |b| {
        b.iter(|| held.messages(black_box(all.settle()), true).len());
    });
    group.bench_function("compare, all new", |b| {
        b.iter(|| HeldServices::default().messages(black_box(all.settle()), false).len());
    });
    group.finish();
}

criterion_group!(benches, services);
criterion_main!(benches);
