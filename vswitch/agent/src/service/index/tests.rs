//! What a change comes to, and what waits until the lists are whole.

use std::sync::Arc;

use kube::runtime::watcher::Event;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Services;
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
fn nothing_is_known_before_both_lists_are_whole() {
    let mut services = Services::new("node-a");
    services.take_service(&Event::Init);
    services.take_service(&Event::InitApply(service("db", 1, &[])));
    services.take_slice(&Event::Init);
    services.take_slice(&Event::InitDone);
    assert!(!services.is_listed());
    services.take_service(&Event::InitDone);
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
    Service(u8, u8, bool),
    NoService(u8),
    Slice(u8, u8, u8),
    NoSlice(u8),
    Settle,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u8, 1..4_u8, any::<bool>()).prop_map(|(n, ip, e)| Step::Service(n, ip, e)),
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
        let mut objects = std::collections::BTreeMap::new();
        let mut slices = std::collections::BTreeMap::new();
        for step in steps {
            match step {
                Step::Service(n, ip, names_others) => {
                    // Two Services never have the same ClusterIP.
                    let external: &[&str] = if names_others { &["10.96.0.11", "10.96.0.22"] } else { &[] };
                    let object = service(&format!("s{n}"), 10 * n + ip, external);
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
        prop_assert_eq!(shown(&mut services), shown(&mut listed));
        prop_assert_eq!(services.problems(), listed.problems());
        prop_assert_eq!(services.len(), listed.len());
    }
}
