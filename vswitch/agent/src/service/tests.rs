//! What a node serves of a Service: a row a rule, and what the rows are written in.

mod endpoints;
mod hostile;
mod left_out;
mod virtuals;

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{BackendUse, ServiceSpec, WithoutBackend};
use serde_json::{Value, json};

use super::object::{ServiceObject, SliceObject};
use super::owners::Owners;
use super::problem::summary;
use super::slice::EndpointSlice;
use super::translate::{Translated, translate};
use super::virtuals::ClusterService;

const NODE: &str = "node-a";
const ZONE: &str = "zone-1";

/// A Service `shop/db` with the port `sql`, and what else `spec` has.
fn service(spec: Value) -> Value {
    let mut fields = json!({
        "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
        "ports": [{ "name": "sql", "protocol": "TCP", "port": 5432, "targetPort": "any" }],
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        fields[key] = value.clone();
    }
    json!({ "metadata": { "namespace": "shop", "name": "db", "uid": "1234" }, "spec": fields })
}

fn with_ingress(spec: Value, ingress: Value) -> Value {
    let mut object = service(spec);
    object["status"] = json!({ "loadBalancer": { "ingress": ingress } });
    object
}

/// A slice of it with the port `sql` at 15432.
fn slice(endpoints: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": { "namespace": "shop", "name": "db-1",
            "labels": { "kubernetes.io/service-name": "db" } },
        "addressType": "IPv4",
        "ports": [{ "name": "sql", "protocol": "TCP", "port": 15432 }],
        "endpoints": endpoints,
    })
}

fn slice6(endpoints: Value) -> Value {
    let mut object = slice(endpoints);
    object["addressType"] = "IPv6".into();
    object
}

/// An endpoint 10.0.0.LAST.
fn at(last: u8) -> Value {
    json!({ "addresses": [format!("10.0.0.{last}")], "conditions": { "ready": true } })
}

fn with(mut object: Value, fields: Value) -> Value {
    for (key, value) in fields.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

fn here(last: u8) -> Value {
    with(at(last), json!({ "nodeName": NODE }))
}

fn draining() -> Value {
    json!({ "conditions": { "ready": false, "serving": true, "terminating": true } })
}

fn unready() -> Value {
    json!({ "conditions": { "ready": false, "serving": false, "terminating": false } })
}

fn for_zones(zones: &[&str]) -> Value {
    let zones: Vec<Value> = zones.iter().map(|zone| json!({ "name": zone })).collect();
    json!({ "hints": { "forZones": zones } })
}

fn for_nodes(nodes: &[&str], zones: &[&str]) -> Value {
    let nodes: Vec<Value> = nodes.iter().map(|node| json!({ "name": node })).collect();
    with_hints(for_zones(zones), json!(nodes))
}

fn with_hints(mut hints: Value, nodes: Value) -> Value {
    hints["hints"]["forNodes"] = nodes;
    hints
}

fn judged(object: &Value) -> Option<ClusterService> {
    let object: ServiceObject = serde_json::from_value(object.clone()).expect("a Service");
    ClusterService::judge(&object)
}

fn slices(objects: &[Value]) -> Vec<EndpointSlice> {
    let judge = |object: &Value| {
        let object: SliceObject = serde_json::from_value(object.clone()).expect("a slice");
        EndpointSlice::judge(&object, NODE)
    };
    objects.iter().filter_map(judge).collect()
}

/// What a node in `zone` serves, where 10.96.0.1 is another Service's.
fn in_zone(zone: Option<&str>, object: &Value, objects: &[Value]) -> Translated {
    let kubernetes = json!({
        "metadata": { "namespace": "default", "name": "kubernetes" },
        "spec": { "clusterIP": "10.96.0.1", "ports": [{ "port": 443 }] },
    });
    let mut owners = Owners::default();
    let other = judged(&kubernetes).expect("it has an address");
    owners.put_service(&Arc::from(&*other.key), None, Some(&other), &mut BTreeSet::new());
    let Some(service) = judged(object) else { return Translated::default() };
    owners.put_service(&Arc::from(&*service.key), None, Some(&service), &mut BTreeSet::new());
    translate(&service, slices(objects).iter(), zone, &owners)
}

fn served(object: &Value, objects: &[Value]) -> Translated {
    in_zone(Some(ZONE), object, objects)
}

/// One of the daemon's services in one line: addresses, sources, backends with their use, the rest.
fn line(spec: &ServiceSpec) -> String {
    let addresses: Vec<String> = spec.addresses.iter().map(ToString::to_string).collect();
    let mut line = format!(
        "{}: {}/{} at {}",
        spec.name,
        spec.protocol.label(),
        spec.port,
        addresses.join(",")
    );
    if !spec.sources.is_empty() {
        let sources: Vec<String> = spec.sources.iter().map(ToString::to_string).collect();
        line += &format!(" from {}", sources.join(","));
    }
    line += " to";
    for backend in &spec.backends {
        let mark = match backend.flows {
            BackendUse::All => "",
            BackendUse::Existing => "!existing",
            BackendUse::Connections => "!connections",
        };
        line += &format!(" {}:{}{mark}", backend.address, backend.port);
    }
    if spec.backends.iter().all(|backend| backend.flows != BackendUse::All) {
        line += match spec.without_backend {
            WithoutBackend::Refuse => " else refuse",
            WithoutBackend::Drop => " else drop",
        };
    }
    if let Some(seconds) = spec.affinity_seconds {
        line += &format!(" for {seconds} s");
    }
    line
}

fn lines(translated: &Translated) -> Vec<String> {
    translated.specs.iter().map(line).collect()
}

/// What is served, without problems.
#[track_caller]
fn assert_served(object: &Value, objects: &[Value], expected: &[&str]) {
    let translated = served(object, objects);
    assert_eq!(lines(&translated), expected);
    assert_eq!(translated.problems, []);
}

/// To what the port is served at its ClusterIP.
#[track_caller]
fn assert_backends(objects: &[Value], expected: &str) {
    assert_served(
        &service(json!({})),
        objects,
        &[&format!("shop/db:sql: TCP/5432 at 10.96.0.7 to{expected}")],
    );
}

/// What is left out, and that nothing else is.
#[track_caller]
fn assert_left_out(object: &Value, objects: &[Value], expected: &[&str], problem: &str) {
    let translated = served(object, objects);
    assert_eq!(lines(&translated), expected);
    assert_eq!(summary(&translated.problems).as_deref(), Some(problem));
}
