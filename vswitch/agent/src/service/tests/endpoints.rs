//! Which endpoints are used, and for what.

use serde_json::{Value, json};

use super::{
    NODE, ZONE, assert_backends, assert_served, at, draining, for_nodes, for_zones, here, in_zone,
    lines, service, slice, unready, with,
};

#[test]
fn the_usable_endpoints_are_the_ready_ones() {
    let slow = with(at(3), unready());
    assert_backends(
        &[slice(json!([at(1), with(at(2), draining()), slow]))],
        " 10.0.0.1:15432 10.0.0.2:15432!existing 10.0.0.3:15432!connections",
    );
}

#[test]
fn where_none_is_ready_those_that_terminate_and_serve_are() {
    assert_backends(
        &[slice(json!([with(at(2), draining()), with(at(3), unready())]))],
        " 10.0.0.2:15432 10.0.0.3:15432!connections",
    );
    let serving = json!({ "conditions": { "ready": false, "serving": true } });
    assert_backends(
        &[slice(json!([with(at(2), serving)]))],
        " 10.0.0.2:15432!existing else refuse",
    );
}

#[test]
fn what_conditions_leave_open_is_taken_for_good() {
    let silent = with(at(1), json!({ "conditions": {} }));
    assert_backends(&[slice(json!([silent]))], " 10.0.0.1:15432");
    let terminating = json!({ "conditions": { "ready": false, "terminating": true } });
    let silent = with(at(1), terminating);
    assert_backends(&[slice(json!([silent]))], " 10.0.0.1:15432");
}

#[test]
fn in_v1beta1_an_unready_endpoint_serves_only_if_it_says_so() {
    let beta = |conditions: Value| {
        let endpoint = with(at(1), json!({ "conditions": conditions }));
        with(slice(json!([endpoint])), json!({ "apiVersion": "discovery.k8s.io/v1beta1" }))
    };
    assert_backends(&[beta(json!({}))], " 10.0.0.1:15432");
    assert_backends(&[beta(json!({ "ready": false }))], " 10.0.0.1:15432!connections else refuse");
}

#[test]
fn in_v1beta1_the_node_may_be_in_the_topology() {
    let endpoint = with(at(1), json!({ "topology": { "kubernetes.io/hostname": NODE } }));
    let local = service(json!({ "internalTrafficPolicy": "Local" }));
    assert_served(
        &local,
        &[slice(json!([endpoint]))],
        &["shop/db:sql: TCP/5432 at 10.96.0.7 to 10.0.0.1:15432"],
    );
}

#[test]
fn without_any_endpoint_it_is_refused() {
    assert_backends(&[], " else refuse");
    assert_backends(&[slice(json!([]))], " else refuse");
}

#[test]
fn an_internal_policy_of_local_takes_this_nodes_alone() {
    let local = service(json!({ "internalTrafficPolicy": "Local" }));
    for (endpoints, expected) in [
        (json!([here(1), at(2)]), " 10.0.0.1:15432 10.0.0.2:15432!existing"),
        // Of this node's, too, those that are ready go first.
        (
            json!([here(1), with(here(2), draining()), at(3)]),
            " 10.0.0.1:15432 10.0.0.2:15432!existing 10.0.0.3:15432!existing",
        ),
        (json!([with(here(1), draining()), at(2)]), " 10.0.0.1:15432 10.0.0.2:15432!existing"),
        (json!([at(2)]), " 10.0.0.2:15432!existing else drop"),
        (json!([with(at(2), draining())]), " 10.0.0.2:15432!existing else drop"),
        (json!([with(at(2), unready())]), " 10.0.0.2:15432!connections else refuse"),
        (json!([]), " else refuse"),
        // Hints do not count.
        (
            json!([with(here(1), for_zones(&["zone-2"])), with(at(2), for_zones(&[ZONE]))]),
            " 10.0.0.1:15432 10.0.0.2:15432!existing",
        ),
    ] {
        let expected = format!("shop/db:sql: TCP/5432 at 10.96.0.7 to{expected}");
        assert_served(&local, &[slice(endpoints)], &[&expected]);
    }
}

#[test]
fn hints_choose_the_node_then_the_zone_if_every_ready_endpoint_has_one() {
    let node = |last, nodes: &[&str], zones: &[&str]| with(at(last), for_nodes(nodes, zones));
    let zone = |last, zones: &[&str]| with(at(last), for_zones(zones));
    for (endpoints, expected) in [
        // The node.
        (
            json!([node(1, &[NODE], &["zone-2"]), node(2, &["node-b"], &[ZONE])]),
            " 10.0.0.1:15432 10.0.0.2:15432!existing",
        ),
        // No node hint names us: the zone.
        (
            json!([node(1, &["node-c"], &["zone-2"]), node(2, &["node-b"], &[ZONE])]),
            " 10.0.0.1:15432!existing 10.0.0.2:15432",
        ),
        // One has no node hint: the zone.
        (
            json!([node(1, &[NODE], &["zone-2"]), zone(2, &[ZONE, "zone-3"])]),
            " 10.0.0.1:15432!existing 10.0.0.2:15432",
        ),
        (
            json!([zone(1, &["zone-2"]), zone(2, &[ZONE])]),
            " 10.0.0.1:15432!existing 10.0.0.2:15432",
        ),
        // One has no hint, or none names us: all.
        (json!([at(1), zone(2, &[ZONE])]), " 10.0.0.1:15432 10.0.0.2:15432"),
        (json!([zone(1, &["zone-2"]), zone(2, &["zone-3"])]), " 10.0.0.1:15432 10.0.0.2:15432"),
        // Those that are not ready have no say.
        (
            json!([zone(1, &["zone-2"]), zone(2, &[ZONE]), with(at(3), unready())]),
            " 10.0.0.1:15432!existing 10.0.0.2:15432 10.0.0.3:15432!connections",
        ),
        // Where none is ready there is no choice.
        (
            json!([with(zone(1, &["zone-2"]), draining()), with(zone(2, &[ZONE]), draining())]),
            " 10.0.0.1:15432 10.0.0.2:15432",
        ),
    ] {
        assert_backends(&[slice(endpoints)], expected);
    }
}

#[test]
fn a_node_without_a_zone_takes_all_and_its_own() {
    let zone = |last, zones: &[&str]| with(at(last), for_zones(zones));
    let objects = [slice(json!([zone(1, &["zone-2"]), zone(2, &[""])]))];
    let translated = in_zone(None, &service(json!({})), &objects);
    assert_eq!(
        lines(&translated),
        ["shop/db:sql: TCP/5432 at 10.96.0.7 to 10.0.0.1:15432 10.0.0.2:15432"]
    );
    let nodes = [slice(json!([
        with(at(1), for_nodes(&[NODE], &[])),
        with(at(2), for_nodes(&["node-b"], &[]))
    ]))];
    let translated = in_zone(None, &service(json!({})), &nodes);
    assert_eq!(
        lines(&translated),
        ["shop/db:sql: TCP/5432 at 10.96.0.7 to 10.0.0.1:15432 10.0.0.2:15432!existing"]
    );
}

#[test]
fn an_endpoint_in_two_slices_is_one_and_the_ready_report_counts() {
    let unready = slice(json!([with(at(1), unready())]));
    let ready = slice(json!([here(1)]));
    for objects in [[unready.clone(), ready.clone()], [ready, unready]] {
        assert_backends(&objects, " 10.0.0.1:15432");
    }
    // Only the first of an endpoint's addresses is its own.
    let several = json!({ "addresses": ["10.0.0.1", "10.0.0.2"] });
    assert_backends(&[slice(json!([several]))], " 10.0.0.1:15432");
}
