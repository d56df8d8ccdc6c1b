//! At which addresses and ports it is served, and what is left to others.

use serde_json::json;

use super::{
    assert_left_out, assert_served, at, here, judged, service, slice, slice6, slices, with,
    with_ingress,
};

#[test]
fn an_internal_policy_of_local_is_the_cluster_ips_alone() {
    let local = with_ingress(
        json!({ "internalTrafficPolicy": "Local", "externalIPs": ["203.0.113.5"],
            "loadBalancerSourceRanges": ["198.51.100.0/24"] }),
        json!([{ "ip": "203.0.113.9" }]),
    );
    assert_served(
        &local,
        &[slice(json!([here(1), at(2)]))],
        &[
            "shop/db:sql: TCP/5432 at 10.96.0.7 to 10.0.0.1:15432 10.0.0.2:15432!existing",
            "shop/db:sql external: TCP/5432 at 203.0.113.5 to 10.0.0.1:15432 10.0.0.2:15432",
            "shop/db:sql load-balancer: TCP/5432 at 203.0.113.9 from 198.51.100.0/24 to 10.0.0.1:15432 10.0.0.2:15432",
        ],
    );
}

#[test]
fn an_external_policy_of_local_is_not_for_pods() {
    let local = with_ingress(
        json!({ "externalTrafficPolicy": "Local", "externalIPs": ["203.0.113.5"] }),
        json!([{ "ip": "203.0.113.9" }]),
    );
    assert_served(
        &local,
        &[slice(json!([at(2)]))],
        &["shop/db:sql: TCP/5432 at 10.96.0.7,203.0.113.5,203.0.113.9 to 10.0.0.2:15432"],
    );
}

#[test]
fn external_and_load_balancer_addresses_are_served_with_the_cluster_ip() {
    let object = with_ingress(
        json!({ "externalIPs": ["203.0.113.5", "203.0.113.9", "203.0.113.5"] }),
        json!([
            { "ip": "203.0.113.9" },
            { "ip": "203.0.113.10", "ipMode": "VIP" },
            { "ip": "203.0.113.11", "ipMode": "Proxy" },
            { "hostname": "lb.example.com" },
        ]),
    );
    assert_served(
        &object,
        &[],
        &["shop/db:sql: TCP/5432 at 10.96.0.7,203.0.113.5,203.0.113.9,203.0.113.10 to else refuse"],
    );
}

#[test]
fn source_ranges_restrict_a_load_balancers_addresses_of_their_family() {
    let object = with_ingress(
        json!({
            "clusterIPs": ["10.96.0.7", "fd00:96::7"],
            "externalIPs": ["203.0.113.5", "203.0.113.9"],
            "loadBalancerSourceRanges": [" 198.51.100.7/24 ", "192.0.2.0/24", "192.0.2.0/24"],
        }),
        json!([{ "ip": "203.0.113.9" }, { "ip": "2001:db8::9" }]),
    );
    assert_served(
        &object,
        &[],
        &[
            "shop/db:sql: TCP/5432 at 10.96.0.7,203.0.113.5 to else refuse",
            "shop/db:sql load-balancer: TCP/5432 at 203.0.113.9 from 192.0.2.0/24,198.51.100.0/24 to else refuse",
            "shop/db:sql ipv6: TCP/5432 at fd00:96::7,2001:db8::9 to else refuse",
        ],
    );
}

#[test]
fn each_family_has_its_own_endpoints() {
    let endpoint6 = json!({ "addresses": ["fd00::1"] });
    assert_served(
        &service(json!({ "clusterIPs": ["10.96.0.7", "fd00:96::7"] })),
        &[slice(json!([at(1)])), slice6(json!([endpoint6]))],
        &[
            "shop/db:sql: TCP/5432 at 10.96.0.7 to 10.0.0.1:15432",
            "shop/db:sql ipv6: TCP/5432 at fd00:96::7 to fd00::1:15432",
        ],
    );
    // The first family is that of the first ClusterIP.
    assert_served(
        &service(json!({ "clusterIPs": ["fd00:96::7", "10.96.0.7"] })),
        &[slice6(json!([endpoint6]))],
        &[
            "shop/db:sql: TCP/5432 at fd00:96::7 to fd00::1:15432",
            "shop/db:sql ipv4: TCP/5432 at 10.96.0.7 to else refuse",
        ],
    );
}

#[test]
fn a_server_before_dual_stack_gives_one_cluster_ip() {
    assert_served(
        &service(json!({ "clusterIPs": null })),
        &[],
        &["shop/db:sql: TCP/5432 at 10.96.0.7 to else refuse"],
    );
}

#[test]
fn ports_are_found_by_name_and_protocol_whatever_their_number() {
    let object = service(json!({ "ports": [
        { "name": "dns", "protocol": "UDP", "port": 53 },
        { "name": "dns-tcp", "protocol": "TCP", "port": 53 },
        { "name": "sip", "protocol": "SCTP", "port": 5060, "targetPort": "signalling" },
    ] }));
    let ports = |sip: u16| {
        json!({ "ports": [
            { "name": "dns", "protocol": "UDP", "port": 1053 },
            { "name": "dns-tcp", "port": 2053 },
            { "name": "sip", "protocol": "SCTP", "port": sip },
            { "name": "dns", "protocol": "TCP", "port": 9999 },
        ] })
    };
    assert_served(
        &object,
        &[with(slice(json!([at(1)])), ports(6000)), with(slice(json!([at(2)])), ports(6001))],
        &[
            "shop/db:dns: UDP/53 at 10.96.0.7 to 10.0.0.1:1053 10.0.0.2:1053",
            "shop/db:dns-tcp: TCP/53 at 10.96.0.7 to 10.0.0.1:2053 10.0.0.2:2053",
            "shop/db:sip: SCTP/5060 at 10.96.0.7 to 10.0.0.1:6000 10.0.0.2:6001",
        ],
    );
}

#[test]
fn a_port_without_a_name_is_known_by_its_number() {
    let ports = json!({ "ports": [{ "port": 8080 }] });
    assert_served(
        &service(json!({ "ports": [{ "port": 80 }] })),
        &[with(slice(json!([at(1)])), ports)],
        &["shop/db:80: TCP/80 at 10.96.0.7 to 10.0.0.1:8080"],
    );
}

#[test]
fn affinity_lasts_three_hours_unless_it_says_otherwise() {
    let config = |seconds: i64| json!({ "clientIP": { "timeoutSeconds": seconds } });
    for (spec, expected) in [
        (json!({ "sessionAffinity": "ClientIP" }), " for 10800 s"),
        (
            json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": config(60) }),
            " for 60 s",
        ),
        (json!({ "sessionAffinity": "None", "sessionAffinityConfig": config(60) }), ""),
    ] {
        let expected = format!("shop/db:sql: TCP/5432 at 10.96.0.7 to else refuse{expected}");
        assert_served(&service(spec), &[], &[&expected]);
    }
    assert_left_out(
        &service(json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": config(0) })),
        &[],
        &["shop/db:sql: TCP/5432 at 10.96.0.7 to else refuse for 10800 s"],
        "a timeout of 0 seconds is none of sessionAffinity; it is 10800 instead",
    );
}

#[test]
fn what_others_serve_is_not_ours() {
    let labelled = |label: &str| {
        let mut object = service(json!({}));
        object["metadata"]["labels"] = json!({ label: "" });
        object
    };
    for object in [
        service(json!({ "clusterIP": "None", "clusterIPs": ["None"] })),
        service(json!({ "clusterIP": "", "clusterIPs": null })),
        service(json!({ "clusterIP": null, "clusterIPs": null })),
        service(json!({ "type": "ExternalName", "externalName": "db.example.com" })),
        labelled("service.kubernetes.io/service-proxy-name"),
        labelled("service.kubernetes.io/headless"),
    ] {
        assert_eq!(judged(&object), None, "{object}");
    }
    for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
        let mut others = slice(json!([at(1)]));
        others["metadata"]["labels"][label] = "".into();
        assert_eq!(slices(&[others]), [], "{label}");
    }
}

#[test]
fn slices_of_names_or_of_no_service_are_ignored() {
    let names =
        with(slice(json!([{ "addresses": ["db.example.com"] }])), json!({ "addressType": "FQDN" }));
    let mut stray = slice(json!([at(1)]));
    stray["metadata"]["labels"] = json!({});
    assert_eq!(slices(&[names, stray]), []);
}
