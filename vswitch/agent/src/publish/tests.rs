//! What is written to the own Node.

use api::{Encapsulate, Encapsulation, Mac, UplinkStatus};
use serde_json::{Value, json};

use super::{Health, Own, Vtep};
use crate::degraded::condition;
use crate::flannel::{
    BACKEND_DATA, BACKEND_TYPE, BACKEND_V6_DATA, MANAGED, PUBLIC_IP, PUBLIC_IP_OVERWRITE,
    PUBLIC_IPV6,
};
use crate::node::{UNDERLAY_ADDRESS, VTEP_MAC};

const NOW: &str = "2026-01-01T00:00:00Z";

fn own(node: Value) -> Own {
    Own::of(&serde_json::from_value(node).expect("a Node"))
}

fn vtep() -> Vtep {
    Vtep {
        address: [198, 51, 100, 11].into(),
        address6: None,
        mac: Mac([0x02, 0x76, 0xc6, 0x33, 0x64, 0x0b]),
        vni: 1,
        is_vxlan: true,
    }
}

/// The Node after the patch, as the API server merges it.
fn patched(mut node: Value, patch: &Value) -> Value {
    for (key, value) in patch["metadata"]["annotations"].as_object().into_iter().flatten() {
        node["metadata"]["annotations"][key] = value.clone();
    }
    if let Some(conditions) = patch["status"]["conditions"].as_array() {
        node["status"]["conditions"] = json!(conditions);
    }
    node
}

#[test]
fn once_it_says_so_there_is_nothing_more_to_say() {
    let node = json!({ "metadata": { "name": "own" } });
    for flannel in [false, true] {
        let patch = own(node.clone()).patch(Some(&vtep()), flannel, &[Health::Up.condition()], NOW);
        let patch = patch.expect("all of it is new");
        let annotations = patch["metadata"]["annotations"].as_object().expect("some");
        assert_eq!(annotations[UNDERLAY_ADDRESS], "198.51.100.11");
        assert_eq!(annotations[VTEP_MAC], "02:76:c6:33:64:0b");
        assert_eq!(annotations.contains_key(MANAGED), flannel);
        let condition = &patch["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["status"]),
            (&json!("NetworkUnavailable"), &json!("False"))
        );
        assert_eq!(condition["lastTransitionTime"], NOW);
        let after = own(patched(node.clone(), &patch));
        assert_eq!(after.patch(Some(&vtep()), flannel, &[Health::Up.condition()], NOW), None);
    }
}

#[test]
fn flannel_is_told_in_its_own_words() {
    let node = json!({ "metadata": { "name": "own" } });
    let patch = own(node).patch(Some(&vtep()), true, &[Health::Up.condition()], NOW).expect("new");
    let annotations = &patch["metadata"]["annotations"];
    assert_eq!(annotations[BACKEND_TYPE], "vxlan");
    assert_eq!(annotations[BACKEND_DATA], r#"{"VNI":1,"VtepMAC":"02:76:c6:33:64:0b"}"#);
    assert_eq!(annotations[PUBLIC_IP], "198.51.100.11");
    assert_eq!(annotations[MANAGED], "true");
}

#[test]
fn flannel_is_told_of_both_families() {
    let both = Vtep { address6: Some("2001:db8::11".parse().expect("an address")), ..vtep() };
    let patch =
        own(json!({})).patch(Some(&both), true, &[Health::Up.condition()], NOW).expect("new");
    let annotations = &patch["metadata"]["annotations"];
    assert_eq!(annotations[PUBLIC_IPV6], "2001:db8::11");
    assert_eq!(annotations[BACKEND_V6_DATA], annotations[BACKEND_DATA]);
    assert_eq!(annotations[UNDERLAY_ADDRESS], "198.51.100.11");
}

#[test]
fn an_operators_public_address_goes_before_ours() {
    let with = |text: &str| json!({ "metadata": { "annotations": { PUBLIC_IP_OVERWRITE: text } } });
    let said = |text: &str| {
        let patch = own(with(text))
            .patch(Some(&vtep()), true, &[Health::Up.condition()], NOW)
            .expect("new");
        patch["metadata"]["annotations"][PUBLIC_IP].clone()
    };
    assert_eq!(said("203.0.113.99"), "203.0.113.99");
    assert_eq!(said("nonsense"), "198.51.100.11");
    assert_eq!(said("2001:db8::1"), "198.51.100.11");
}

#[test]
fn flannel_is_not_told_of_a_node_that_takes_no_vxlan() {
    let ipip = Vtep { is_vxlan: false, ..vtep() };
    let patch =
        own(json!({})).patch(Some(&ipip), true, &[Health::Up.condition()], NOW).expect("new");
    assert!(patch["metadata"]["annotations"].get(MANAGED).is_none());
}

#[test]
fn the_transition_is_dated_when_it_happens() {
    let down = |message: &str| {
        Health::Down { reason: "VswitchdIsDown", message: message.to_owned() }.condition()
    };
    let node = json!({ "status": { "conditions": [
        { "type": "Ready", "status": "True" },
        { "type": "NetworkUnavailable", "status": "True", "reason": "VswitchdIsDown", "message": "a" },
    ] } });
    let own = own(node);
    assert_eq!(own.patch(None, false, &[down("a")], NOW), None);
    let patch = own.patch(None, false, &[down("b")], NOW).expect("another message");
    assert!(patch["status"]["conditions"][0].get("lastTransitionTime").is_none());
    let patch = own.patch(None, false, &[Health::Up.condition()], NOW).expect("up");
    assert_eq!(patch["status"]["conditions"][0]["lastTransitionTime"], NOW);
    assert!(patch.get("metadata").is_none());
}

#[test]
fn a_node_without_an_underlay_address_is_not_there_for_the_cluster() {
    let mut uplink = UplinkStatus {
        interface: "eth0".into(),
        kind: "af_xdp".into(),
        xdp_mode: Some("native".into()),
        kind_reason: None,
        copy_mode: Some("copy".into()),
        queues: 1,
        address: None,
        address6: None,
        mtu: 1500,
        encapsulation: Encapsulation::Vxlan,
        encapsulate: Encapsulate::Always,
        vni: 10,
        vxlan_port: 4789,
        vtep_mac: None,
        vtep_mac6: None,
    };
    assert!(Health::of(None).is_up());
    let node = json!({ "metadata": { "name": "own" } });
    let patch = own(node)
        .patch(None, false, &[Health::of(Some(&uplink)).condition()], NOW)
        .expect("a condition");
    let condition = &patch["status"]["conditions"][0];
    assert_eq!(condition["status"], "True");
    assert_eq!(condition["reason"], "NoUnderlayAddress");
    assert_eq!(Vtep::of(&uplink), None);
    (uplink.address, uplink.vtep_mac) = (Some(vtep().address), Some(vtep().mac));
    assert!(Health::of(Some(&uplink)).is_up());
    assert_eq!(Vtep::of(&uplink), Some(Vtep { vni: 10, ..vtep() }));
}

#[test]
fn of_two_conditions_only_the_one_that_changed_is_written() {
    let node = json!({ "status": { "conditions": [{
        "type": "NetworkUnavailable", "status": "False", "reason": "VswitchIsUp",
        "message": "vswitchd forwards for this node's pods",
    }] } });
    let conditions = [Health::Up.condition(), condition(None)];
    let patch = own(node.clone()).patch(None, false, &conditions, NOW).expect("one is new");
    let written = patch["status"]["conditions"].as_array().expect("a list");
    assert_eq!(written.len(), 1);
    assert_eq!(written[0]["type"], "PodNetworkDegraded");
    let mut after = node;
    after["status"]["conditions"].as_array_mut().expect("a list").push(written[0].clone());
    assert_eq!(own(after).patch(None, false, &conditions, NOW), None);
}
