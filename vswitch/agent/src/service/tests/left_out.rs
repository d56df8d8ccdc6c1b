//! What is left out of a Service, and named.

use serde_json::{Value, json};

use super::{
    assert_left_out, assert_served, at, lines, served, service, slice, slice6, slices, unready,
    with, with_ingress,
};
use crate::service::problem::summary;
use crate::service::translate::{MAX_ADDRESSES, MAX_BACKENDS, MAX_SETS};
use crate::service::virtuals::MAX_SOURCES;

#[test]
fn source_ranges_that_cannot_be_read_open_nothing() {
    let object = |ranges: Value| {
        with_ingress(
            json!({ "loadBalancerSourceRanges": ranges }),
            json!([{ "ip": "203.0.113.9" }]),
        )
    };
    let bare = "shop/db:sql: TCP/5432 at 10.96.0.7 to else refuse";
    assert_left_out(
        &object(json!(["everyone"])),
        &[],
        &[bare],
        "\"everyone\" in loadBalancerSourceRanges is no prefix; without another of its family the load balancer's addresses are not served",
    );
    let many: Vec<String> =
        (0..=MAX_SOURCES).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).collect();
    assert_left_out(
        &object(json!(many)),
        &[],
        &[bare],
        "it has 1001 loadBalancerSourceRanges, and 1000 at most are taken: the load balancer's addresses are not served",
    );
    let translated = served(&object(json!(["everyone", "198.51.100.0/24"])), &[]);
    assert_eq!(
        lines(&translated)[1],
        "shop/db:sql load-balancer: TCP/5432 at 203.0.113.9 from 198.51.100.0/24 to else refuse"
    );
}

#[test]
fn an_external_address_of_another_service_is_left_out() {
    assert_left_out(
        &service(json!({ "externalIPs": ["10.96.0.1", "203.0.113.5"] })),
        &[],
        &["shop/db:sql: TCP/5432 at 10.96.0.7,203.0.113.5 to else refuse"],
        "external address 10.96.0.1 is the ClusterIP of Service default/kubernetes",
    );
    // Its own is no conflict.
    assert_served(
        &service(json!({ "externalIPs": ["10.96.0.7"] })),
        &[],
        &["shop/db:sql: TCP/5432 at 10.96.0.7 to else refuse"],
    );
}

#[test]
fn bad_endpoints_are_left_out_and_named() {
    for (address, why) in [
        ("127.0.0.1", "is a loopback address"),
        ("169.254.1.1", "is link-local"),
        ("224.0.0.1", "is a multicast address"),
        ("0.0.0.0", "is no address of a host"),
        ("255.255.255.255", "is no address of a host"),
        ("fd00::1", "is not of its slice's family"),
        ("010.0.0.1", "is no address"),
        ("", "is no address"),
    ] {
        let bad = json!({ "addresses": [address] });
        assert_left_out(
            &service(json!({})),
            &[slice(json!([bad, at(1)]))],
            &["shop/db:sql: TCP/5432 at 10.96.0.7 to 10.0.0.1:15432"],
            &format!("endpoint {address:?} {why}"),
        );
    }
    for address in ["::1", "::", "fe80::1", "ff02::1", "::ffff:10.0.0.1"] {
        let [slice] = &slices(&[slice6(json!([{ "addresses": [address] }]))])[..] else {
            panic!("one")
        };
        assert!(slice.endpoints.is_empty() && slice.problems.len() == 1, "{address}");
    }
}

#[test]
fn bad_ports_addresses_and_names_are_left_out_and_named() {
    let good = "shop/db:sql: TCP/5432 at 10.96.0.7 to else refuse";
    let sql = json!({ "name": "sql", "port": 5432 });
    for (port, problem) in [
        (json!({ "name": "x", "port": 0 }), "port 0 is no port"),
        (json!({ "name": "x", "port": 65536 }), "port 65536 is no port"),
        (json!({ "name": "x:y", "port": 1 }), "port \"x:y\" is no port"),
        (
            json!({ "name": "x", "port": 1, "protocol": "GRE" }),
            "protocol \"GRE\" is none of TCP, UDP and SCTP",
        ),
        (json!({ "name": "x", "port": 5432 }), "two of its ports are TCP x"),
        (json!({ "name": "sql", "port": 1 }), "two of its ports are TCP sql"),
    ] {
        assert_left_out(&service(json!({ "ports": [sql, port] })), &[], &[good], problem);
    }
    assert_left_out(
        &service(json!({ "externalIPs": ["localhost"] })),
        &[],
        &[good],
        "externalIP \"localhost\" is no address",
    );
    let mut odd = service(json!({}));
    odd["metadata"]["name"] = "../db".into();
    assert_left_out(&odd, &[], &[], "its name \"../db\" is no name of a Service");
}

#[test]
fn what_is_too_many_is_left_out_and_said() {
    let endpoints = |count: usize| {
        let at = |n: usize| json!({ "addresses": [format!("10.1.{}.{}", n / 200, n % 200 + 1)] });
        slice((0..count).map(at).collect())
    };
    let crowd =
        [with(endpoints(MAX_BACKENDS + 1), json!({})), slice(json!([with(at(9), unready())]))];
    let translated = served(&service(json!({})), &crowd);
    assert_eq!(translated.specs[0].backends.len(), MAX_BACKENDS);
    // Those that take new flows stay.
    assert!(translated.specs[0].backends.iter().all(|backend| backend.flows.is_all()));
    assert_eq!(
        summary(&translated.problems).as_deref(),
        Some(
            "port sql has 10002 endpoints; 10000 at most are used, and of all its ports six times as many"
        )
    );
    let ports: Vec<Value> =
        (1..=8).map(|n| json!({ "name": format!("p{n}"), "port": n })).collect();
    let ports_of_all = json!({ "ports": ports });
    let objects = [with(endpoints(MAX_BACKENDS), ports_of_all.clone())];
    let translated = served(&service(ports_of_all), &objects);
    let counts: Vec<usize> = translated.specs.iter().map(|spec| spec.backends.len()).collect();
    assert_eq!(counts, [[MAX_BACKENDS; 6].as_slice(), &[0, 0]].concat());

    let addresses: Vec<String> =
        (1..=MAX_ADDRESSES + 5).map(|n| format!("203.0.113.{n}")).collect();
    let translated = served(&service(json!({ "externalIPs": addresses })), &[]);
    assert_eq!(translated.specs[0].addresses.len(), MAX_ADDRESSES);
    assert!(summary(&translated.problems).is_some_and(|why| why.contains("106 addresses")));

    let ports: Vec<Value> =
        (1..=MAX_SETS + 1).map(|n| json!({ "name": format!("p{n}"), "port": n })).collect();
    let translated = served(&service(json!({ "ports": ports })), &[]);
    assert_eq!(translated.specs.len(), MAX_SETS);
    assert!(summary(&translated.problems).is_some_and(|why| why.contains("too many ports")));
}

#[test]
fn a_sentence_names_five_problems_and_counts_the_rest() {
    let bad: Vec<Value> =
        (0..7).map(|n| json!({ "addresses": [format!("127.0.0.{n}")] })).collect();
    let translated = served(&service(json!({})), &[slice(json!(bad))]);
    let sentence = summary(&translated.problems).expect("problems");
    assert!(sentence.ends_with("; and 2 more"), "{sentence}");
    assert_eq!(sentence.matches("loopback").count(), 5);
}
