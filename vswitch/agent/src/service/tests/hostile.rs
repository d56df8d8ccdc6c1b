//! Whatever the API server sends.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{NODE, ZONE, in_zone, judged, slice, with};
use crate::service::problem::summary;

/// Any of the texts, now and then one that nobody would write.
fn odd(usual: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![
        4 => proptest::sample::select(usual).prop_map(str::to_owned),
        1 => ".{0,12}",
    ]
}

const ADDRESSES: &[&str] = &[
    "10.0.0.1",
    "10.0.0.2",
    "fd00::1",
    "::1",
    "None",
    "",
    "127.0.0.1",
    "10.96.0.1",
    "::ffff:1.2.3.4",
];
const NAMES: &[&str] = &["sql", "dns", "", "a:b", "80"];
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP", "tcp", ""];

fn any_port() -> impl Strategy<Value = Value> {
    (odd(NAMES), odd(PROTOCOLS), prop_oneof![0..70_000_i64, any::<i64>()]).prop_map(
        |(name, protocol, port)| json!({ "name": name, "protocol": protocol, "port": port }),
    )
}

fn any_service() -> impl Strategy<Value = Value> {
    let addresses = || proptest::collection::vec(odd(ADDRESSES), 0..5);
    (
        (odd(&["shop", ""]), odd(&["db"]), odd(&["ClusterIP", "ExternalName"]), addresses()),
        (addresses(), addresses(), proptest::collection::vec(odd(&["10.0.0.0/8", "::/0"]), 0..3)),
        proptest::collection::vec(any_port(), 0..5),
        (odd(&["Local", "Cluster"]), odd(&["ClientIP", "None"]), any::<i64>()),
        odd(&["VIP", "Proxy"]),
    )
        .prop_map(
            |((namespace, name, kind, ips), (external, vips, ranges), ports, policy, mode)| {
                let ingress: Vec<Value> =
                    vips.iter().map(|ip| json!({ "ip": ip, "ipMode": mode })).collect();
                json!({
                    "metadata": { "namespace": namespace, "name": name },
                    "spec": {
                        "type": kind, "clusterIPs": ips, "externalIPs": external,
                        "loadBalancerSourceRanges": ranges, "ports": ports,
                        "internalTrafficPolicy": policy.0, "sessionAffinity": policy.1,
                        "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": policy.2 } },
                    },
                    "status": { "loadBalancer": { "ingress": ingress } },
                })
            },
        )
}

fn any_slice() -> impl Strategy<Value = Value> {
    let condition = || proptest::option::of(any::<bool>());
    let hints = || proptest::option::of(proptest::collection::vec(odd(&[NODE, ZONE, "x"]), 0..3));
    let named = |names: Option<Vec<String>>| {
        names.map(|names| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>())
    };
    let endpoint = (
        proptest::collection::vec(odd(ADDRESSES), 0..3),
        (condition(), condition(), condition()),
        proptest::option::of(odd(&[NODE])),
        (hints(), hints()),
    )
        .prop_map(move |(addresses, (ready, serving, terminating), node, (nodes, zones))| {
            json!({
                "addresses": addresses, "nodeName": node,
                "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
                "hints": { "forNodes": named(nodes), "forZones": named(zones) },
            })
        });
    (
        odd(&["IPv4", "IPv6", "FQDN"]),
        proptest::collection::vec(any_port(), 0..3),
        proptest::collection::vec(endpoint, 0..6),
    )
        .prop_map(|(family, ports, endpoints)| {
            let own = with(slice(json!(endpoints)), json!({ "addressType": family }));
            with(own, json!({ "ports": ports }))
        })
}

proptest! {
    #[test]
    fn whatever_comes_is_served_or_named(
        object in any_service(),
        objects in proptest::collection::vec(any_slice(), 0..4),
        zone in proptest::option::of(odd(&[ZONE])),
    ) {
        let translated = in_zone(zone.as_deref(), &object, &objects);
        let mut names = BTreeMap::new();
        let mut ports = BTreeMap::new();
        for spec in &translated.specs {
            prop_assert!(spec.name.starts_with("shop/") || judged(&object).is_some());
            prop_assert!(names.insert(spec.name.clone(), ()).is_none(), "{} twice", spec.name);
            prop_assert!(spec.port != 0 && !spec.addresses.is_empty());
            prop_assert!(spec.affinity_seconds.is_none_or(|seconds| (1..=86_400).contains(&seconds)));
            for address in &spec.addresses {
                let at = (*address, spec.protocol, spec.port);
                prop_assert!(ports.insert(at, ()).is_none(), "{at:?} twice");
                prop_assert_eq!(address.is_ipv4(), spec.addresses[0].is_ipv4());
            }
            prop_assert!(spec.backends.is_sorted());
            for backend in &spec.backends {
                prop_assert!(backend.port != 0);
                prop_assert_eq!(backend.address.is_ipv4(), spec.addresses[0].is_ipv4());
                prop_assert!(!backend.address.is_loopback() && !backend.address.is_multicast());
            }
        }
        if let Some(sentence) = summary(&translated.problems) {
            prop_assert!(sentence.len() < 4000);
        }
    }
}
