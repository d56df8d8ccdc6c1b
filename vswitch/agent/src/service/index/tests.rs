//! What a change comes to, and what waits until the lists are whole.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::watcher::Event;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Services;
use crate::object::NodeObject;
use crate::service::object::{ServiceObject, SliceObject};

fn service(name: &str, last: u8, external_ips: &[&str]) -> ServiceObject {
    let object = json!({
        "metadata": { "namespace": "shop", "name": name },
        "spec": { "clusterIP": format!("10.96.0.{last}"), "externalIPs": external_ips,
            "ports": [{ "name": "http", "port": 80 }] },
    });
    serde_json::from_value(object).expect("a Service")
}

fn slice(name: &str, of: &str, endpoint: Value) -> SliceObject {
    let object = json!({
        "metadata": { "namespace": "shop", "name": name,
            "labels": { "kubernetes.io/service-name": of } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }],
        "endpoints": [endpoint],
    });
    serde_json::from_value(object).expect("a slice")
}

fn at(last: u8) -> Value {
    json!({ "addresses": [format!("10.0.0.{last}")] })
}

/// A Node with two addresses; none of them if `last` is 0.
fn node(name: &str, last: u8) -> NodeObject {
    let at = |kind, address: String| json!({ "type": kind, "address": address });
    let addresses =
        [at("InternalIP", format!("10.1.0.{last}")), at("ExternalIP", format!("203.0.113.{last}"))];
    let object = json!({ "metadata": { "name": name },
        "status": { "addresses": addresses[..if last == 0 { 0 } else { 2 }] } });
    serde_json::from_value(object).expect("a Node")
}

fn created(second: u8) -> Time {
    serde_json::from_value(json!(format!("2026-01-01T00:00:{second:02}Z"))).expect("a time")
}

/// What is served: addresses and backends.
fn shown(services: &mut Services) -> Vec<String> {
    let line = |spec: &Arc<api::ServiceSpec>| {
        let addresses: Vec<_> = spec.addresses.iter().map(ToString::to_string).collect();
        let backends: Vec<_> =
            spec.backends.iter().map(|backend| backend.address.to_string()).collect();
        format!("{} {} > {}", spec.name, addresses.join(","), backends.join(","))
    };
    services.settle().values().map(line).collect()
}

fn list(services: &mut Services, objects: &[ServiceObject], slices: &[SliceObject]) {
    services.take_node(&Event::Init);
    services.take_node(&Event::InitDone);
    services.take_service(&Event::Init);
    for object in objects {
        services.take_service(&Event::InitApply(object.clone()));
    }
    services.take_service(&Event::InitDone);
    services.take_slice(&Event::Init);
    for slice in slices {
        services.take_slice(&Event::InitApply(slice.clone()));
    }
    services.take_slice(&Event::InitDone);
}

#[test]
fn nothing_is_known_before_all_lists_are_whole() {
    let mut services = Services::new("node-a");
    services.take_service(&Event::Init);
    services.take_service(&Event::InitApply(service("db", 1, &[])));
    services.take_slice(&Event::Init);
    services.take_slice(&Event::InitDone);
    assert!(!services.is_listed());
    services.take_service(&Event::InitDone);
    assert!(!services.is_listed(), "an address may be a Node's");
    services.take_node(&Event::Init);
    services.take_node(&Event::InitDone);
    assert!(services.is_listed());
    assert!(Services::none().is_listed());
}

#[test]
fn a_list_that_is_under_way_withdraws_nothing_and_its_end_what_is_missing() {
    let mut services = Services::new("node-a");
    let (db, web) = (service("db", 1, &[]), service("web", 2, &[]));
    let slices = [slice("db-1", "db", at(1)), slice("web-1", "web", at(2))];
    list(&mut services, &[db, web.clone()], &slices);
    let all = ["shop/db:http 10.96.0.1 > 10.0.0.1", "shop/web:http 10.96.0.2 > 10.0.0.2"];
    assert_eq!(shown(&mut services), all);
    services.take_service(&Event::Init);
    services.take_slice(&Event::Init);
    assert_eq!(shown(&mut services), all);
    assert!(services.is_listed(), "what was known stays known");
    // It breaks off, and begins anew.
    services.take_service(&Event::Init);
    services.take_service(&Event::InitApply(web));
    services.take_service(&Event::InitDone);
    services.take_slice(&Event::InitApply(slices[0].clone()));
    services.take_slice(&Event::InitDone);
    assert_eq!(shown(&mut services), ["shop/web:http 10.96.0.2 > "]);
    assert_eq!(services.len(), 1);
}

#[test]
fn a_change_of_one_slice_leaves_the_other_services_as_they_are() {
    let mut services = Services::new("node-a");
    let slices = [slice("db-1", "db", at(1)), slice("web-1", "web", at(2))];
    list(&mut services, &[service("db", 1, &[]), service("web", 2, &[])], &slices);
    let before = services.settle().clone();
    assert!(services.take_slice(&Event::Apply(slice("db-2", "db", at(3)))));
    assert!(!services.take_slice(&Event::Apply(slice("web-1", "web", at(2)))), "nothing is new");
    let after = services.settle();
    assert!(Arc::ptr_eq(&before["shop/web:http"], &after["shop/web:http"]));
    assert_eq!(after["shop/db:http"].backends.len(), 2);
    services.take_slice(&Event::Delete(slice("db-1", "db", at(1))));
    assert_eq!(
        shown(&mut services),
        ["shop/db:http 10.96.0.1 > 10.0.0.3", "shop/web:http 10.96.0.2 > 10.0.0.2"]
    );
}

#[test]
fn slices_may_come_before_their_service_and_move_to_another() {
    let mut services = Services::new("node-a");
    list(&mut services, &[], &[slice("x", "db", at(1))]);
    assert_eq!(shown(&mut services), [""; 0]);
    services.take_service(&Event::Apply(service("db", 1, &[])));
    services.take_service(&Event::Apply(service("web", 2, &[])));
    assert_eq!(
        shown(&mut services),
        ["shop/db:http 10.96.0.1 > 10.0.0.1", "shop/web:http 10.96.0.2 > "]
    );
    services.take_slice(&Event::Apply(slice("x", "web", at(1))));
    assert_eq!(
        shown(&mut services),
        ["shop/db:http 10.96.0.1 > ", "shop/web:http 10.96.0.2 > 10.0.0.1"]
    );
    services.take_service(&Event::Delete(service("web", 2, &[])));
    assert_eq!(shown(&mut services), ["shop/db:http 10.96.0.1 > "]);
}

#[test]
fn a_service_that_becomes_headless_is_withdrawn_with_what_was_wrong_with_it() {
    let mut services = Services::new("node-a");
    list(&mut services, &[service("db", 1, &["nonsense"])], &[]);
    assert_eq!(shown(&mut services), ["shop/db:http 10.96.0.1 > "]);
    assert_eq!(services.problems()["shop/db"], "externalIP \"nonsense\" is no address");
    let mut headless = service("db", 1, &[]);
    headless.spec.cluster_ip = Some("None".to_owned());
    assert!(services.take_service(&Event::Apply(headless)));
    assert_eq!(shown(&mut services), [""; 0]);
    assert!(services.problems().is_empty());
}

#[test]
fn a_cluster_ip_is_its_services_whoever_names_it() {
    let mut services = Services::new("node-a");
    list(&mut services, &[service("aa", 1, &["10.96.0.2", "203.0.113.5"])], &[]);
    assert_eq!(shown(&mut services), ["shop/aa:http 10.96.0.1,10.96.0.2,203.0.113.5 > "]);
    let web = service("web", 2, &[]);
    services.take_service(&Event::Apply(web.clone()));
    assert_eq!(
        shown(&mut services),
        ["shop/aa:http 10.96.0.1,203.0.113.5 > ", "shop/web:http 10.96.0.2 > "]
    );
    assert!(services.problems()["shop/aa"].contains("is the ClusterIP of Service shop/web"));
    services.take_service(&Event::Delete(web));
    assert_eq!(shown(&mut services), ["shop/aa:http 10.96.0.1,10.96.0.2,203.0.113.5 > "]);
    assert!(services.problems().is_empty());
}

#[test]
fn an_external_address_cannot_be_a_nodes_whichever_it_is() {
    let mut services = Services::new("node-a");
    list(&mut services, &[service("aa", 1, &["203.0.113.5", "203.0.113.6", "10.1.0.5"])], &[]);
    assert!(services.take_node(&Event::Apply(node("node-b", 5))));
    assert_eq!(shown(&mut services), ["shop/aa:http 10.96.0.1,203.0.113.6 > "]);
    let problem = &services.problems()["shop/aa"];
    assert!(problem.contains("203.0.113.5 is an address of Node node-b"), "{problem}");
    assert!(problem.contains("10.1.0.5 is an address of Node node-b"), "{problem}");
    services.take_node(&Event::Delete(node("node-b", 5)));
    assert_eq!(
        shown(&mut services),
        ["shop/aa:http 10.96.0.1,203.0.113.5,203.0.113.6,10.1.0.5 > "]
    );
    assert!(services.problems().is_empty());
}

#[test]
fn an_address_is_the_load_balancers_then_the_oldest_services() {
    let mut services = Services::new("node-a");
    let with_age = |name, last, age| {
        let mut object = service(name, last, &["203.0.113.5"]);
        object.metadata.creation_timestamp = Some(created(age));
        object
    };
    list(&mut services, &[with_age("web", 2, 1)], &[]);
    // Younger, however its name is.
    services.take_service(&Event::Apply(with_age("aa", 1, 2)));
    let of_web = ["shop/aa:http 10.96.0.1 > ", "shop/web:http 10.96.0.2,203.0.113.5 > "];
    assert_eq!(shown(&mut services), of_web);
    let problem = &services.problems()["shop/aa"];
    assert!(problem.contains("203.0.113.5 is also in the older Service shop/web"), "{problem}");
    // Another port of the address is nobody's yet.
    let mut other_port = with_age("aa", 1, 2);
    other_port.spec.ports.as_mut().expect("it has one")[0].port = 81;
    services.take_service(&Event::Apply(other_port));
    assert_eq!(
        shown(&mut services),
        ["shop/aa:http 10.96.0.1,203.0.113.5 > ", "shop/web:http 10.96.0.2,203.0.113.5 > "]
    );
    services.take_service(&Event::Apply(with_age("aa", 1, 2)));
    // The youngest of all, whose load balancer has it.
    let mut balanced = service("lb", 3, &[]);
    balanced.metadata.creation_timestamp = Some(created(3));
    balanced.status =
        serde_json::from_value(json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.5" }] } }))
            .expect("a status");
    services.take_service(&Event::Apply(balanced.clone()));
    assert_eq!(
        shown(&mut services),
        [
            "shop/aa:http 10.96.0.1 > ",
            "shop/lb:http 10.96.0.3,203.0.113.5 > ",
            "shop/web:http 10.96.0.2 > "
        ]
    );
    assert!(services.problems()["shop/web"].contains("is the load balancer's of Service shop/lb"));
    services.take_service(&Event::Delete(balanced));
    assert_eq!(shown(&mut services), of_web);
    services.take_service(&Event::Delete(with_age("web", 2, 1)));
    assert_eq!(shown(&mut services), ["shop/aa:http 10.96.0.1,203.0.113.5 > "]);
    assert!(services.problems().is_empty());
}

#[test]
fn the_zone_decides_as_soon_as_it_is_known() {
    let mut services = Services::new("node-a");
    let hinted = |last, zone: &str| {
        json!({ "addresses": [format!("10.0.0.{last}")],
            "hints": { "forZones": [{ "name": zone }] } })
    };
    let slices = [slice("1", "db", hinted(1, "east")), slice("2", "db", hinted(2, "west"))];
    list(&mut services, &[service("db", 1, &[])], &slices);
    let usable = |services: &mut Services| {
        let spec = Arc::clone(&services.settle()["shop/db:http"]);
        spec.backends.iter().filter(|backend| backend.flows.is_all()).count()
    };
    assert_eq!(usable(&mut services), 2);
    assert!(services.set_zone(Some("west")));
    assert_eq!(usable(&mut services), 1);
    assert!(!services.set_zone(Some("west")), "nothing is new");
}

#[derive(Debug, Clone)]
enum Step {
    Node(u8, u8),
    Service(u8, u8, u8),
    NoService(u8),
    Slice(u8, u8, u8),
    NoSlice(u8),
    Settle,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2_u8, 0..4_u8).prop_map(|(n, last)| Step::Node(n, last)),
        (0..4_u8, 1..4_u8, 0..3_u8).prop_map(|(n, ip, e)| Step::Service(n, ip, e)),
        (0..4_u8).prop_map(Step::NoService),
        (0..5_u8, 0..4_u8, 1..4_u8).prop_map(|(n, of, at)| Step::Slice(n, of, at)),
        (0..5_u8).prop_map(Step::NoSlice),
        Just(Step::Settle),
    ]
}

proptest! {
    /// By whatever way: the same as if all of it had been listed at the end.
    #[test]
    fn changes_end_where_a_list_would(steps in proptest::collection::vec(any_step(), 0..24)) {
        let mut services = Services::new("node-a");
        list(&mut services, &[], &[]);
        let mut nodes = std::collections::BTreeMap::new();
        let mut objects = std::collections::BTreeMap::new();
        let mut slices = std::collections::BTreeMap::new();
        for step in steps {
            match step {
                Step::Node(n, last) => {
                    let object = node(&format!("n{n}"), last);
                    nodes.insert(n, object.clone());
                    services.take_node(&Event::Apply(object));
                }
                Step::Service(n, ip, external) => {
                    // Two Services never have the same ClusterIP. The last ones are the oldest.
                    let external = [&[][..], &["10.96.0.11", "203.0.113.1"], &["203.0.113.1", "203.0.113.2"]]
                        [usize::from(external)];
                    let mut object = service(&format!("s{n}"), 10 * n + ip, external);
                    object.metadata.creation_timestamp = Some(created(9 - n));
                    objects.insert(n, object.clone());
                    services.take_service(&Event::Apply(object));
                }
                Step::NoService(n) => {
                    if let Some(object) = objects.remove(&n) {
                        services.take_service(&Event::Delete(object));
                    }
                }
                Step::Slice(n, of, last) => {
                    let object = slice(&format!("e{n}"), &format!("s{of}"), at(last));
                    slices.insert(n, object.clone());
                    services.take_slice(&Event::Apply(object));
                }
                Step::NoSlice(n) => {
                    if let Some(object) = slices.remove(&n) {
                        services.take_slice(&Event::Delete(object));
                    }
                }
                Step::Settle => drop(shown(&mut services)),
            }
        }
        let mut listed = Services::new("node-a");
        let objects: Vec<_> = objects.into_values().collect();
        let slices: Vec<_> = slices.into_values().collect();
        list(&mut listed, &objects, &slices);
        for object in nodes.into_values() {
            listed.take_node(&Event::Apply(object));
        }
        prop_assert_eq!(shown(&mut services), shown(&mut listed));
        prop_assert_eq!(services.problems(), listed.problems());
        prop_assert_eq!(services.len(), listed.len());
    }
}
