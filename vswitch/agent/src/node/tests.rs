//! Nodes with well and badly meant fields.

use api::{Encapsulation, Mac};
use proptest::prelude::*;
use serde_json::json;

use super::{ClusterNode, NodeProblem, NodeReach, UNDERLAY_ADDRESS, VTEP_MAC, node_of};
use crate::flannel::{
    BACKEND_DATA, BACKEND_TYPE, BACKEND_V6_DATA, MANAGED, PUBLIC_IP, PUBLIC_IPV6,
};
use crate::object::NodeObject;

fn judged(node: serde_json::Value) -> ClusterNode {
    let object: NodeObject = serde_json::from_value(node).expect("a Node");
    ClusterNode::judge(&object)
}

fn node(cidrs: &[&str], address: &str, annotations: &[(&str, &str)]) -> ClusterNode {
    let annotations: std::collections::BTreeMap<_, _> = annotations.iter().copied().collect();
    judged(json!({
        "metadata": { "name": "node-b", "annotations": annotations,
            "creationTimestamp": "2024-05-01T10:00:00Z" },
        "spec": { "podCIDRs": cidrs },
        "status": { "addresses": [
            { "type": "Hostname", "address": "node-b" },
            { "type": "InternalIP", "address": address },
        ] },
    }))
}

fn reach(node: ClusterNode) -> NodeReach {
    node.reach.expect("a peer")
}

fn problem(node: ClusterNode) -> String {
    node.reach.expect_err("refused").to_string()
}

const FLANNEL: [(&str, &str); 4] = [
    (MANAGED, "true"),
    (BACKEND_TYPE, "vxlan"),
    (BACKEND_DATA, r#"{"VNI":1,"VtepMAC":"8a:11:22:33:44:55"}"#),
    (PUBLIC_IP, "203.0.113.7"),
];

fn flannel_with(key: &'static str, value: &'static str) -> ClusterNode {
    let all: Vec<_> =
        FLANNEL.iter().copied().filter(|(other, _)| *other != key).chain([(key, value)]).collect();
    node(&["198.18.2.0/24"], "203.0.113.12", &all)
}

#[test]
fn a_plain_node_is_reached_at_its_internal_address() {
    let node = node(&["198.18.2.0/24", "fd00:18:2::/64"], "203.0.113.12", &[]);
    assert_eq!(node.created_seconds, 1_714_557_600);
    let NodeReach { peers, vni } = reach(node);
    let [peer] = &peers[..] else { panic!("{peers:?}") };
    assert_eq!((peer.name.as_str(), peer.address.to_string()), ("node-b", "203.0.113.12".into()));
    assert_eq!(peer.prefixes.len(), 2);
    assert_eq!((peer.encapsulation, peer.vtep_mac, vni), (None, None, None));
}

#[test]
fn the_single_pod_cidr_of_old_servers_is_enough() {
    let node = judged(json!({
        "metadata": { "name": "n" },
        "spec": { "podCIDR": "198.18.2.0/24" },
        "status": { "addresses": [{ "type": "InternalIP", "address": "203.0.113.12" }] },
    }));
    assert_eq!(reach(node).peers[0].prefixes, ["198.18.2.0/24".parse().expect("a prefix")]);
}

#[test]
fn our_annotations_go_before_flannels_and_the_internal_address() {
    let mut all = FLANNEL.to_vec();
    all.extend([(UNDERLAY_ADDRESS, "198.51.100.9"), (VTEP_MAC, "02:76:c6:33:64:09")]);
    let peers = reach(node(&["198.18.2.0/24"], "203.0.113.12", &all)).peers;
    assert_eq!(peers[0].address.to_string(), "198.51.100.9");
    assert_eq!(peers[0].vtep_mac, Some(Mac([0x02, 0x76, 0xc6, 0x33, 0x64, 0x09])));
}

#[test]
fn flannels_annotations_name_address_mac_and_vni() {
    let NodeReach { peers, vni } = reach(node(&["198.18.2.0/24"], "203.0.113.12", &FLANNEL));
    assert_eq!(peers[0].address.to_string(), "203.0.113.7");
    assert_eq!(peers[0].encapsulation, Some(Encapsulation::Vxlan));
    assert_eq!(peers[0].vtep_mac, Some(Mac([0x8a, 0x11, 0x22, 0x33, 0x44, 0x55])));
    assert_eq!(vni, Some(1));
}

#[test]
fn flannels_other_backends_are_spoken_or_named() {
    for (backend, spoken) in [("ipip", Encapsulation::Ipip), ("host-gw", Encapsulation::Direct)] {
        let peers = reach(flannel_with(BACKEND_TYPE, backend)).peers;
        assert_eq!((peers[0].encapsulation, peers[0].vtep_mac), (Some(spoken), None));
    }
    assert!(problem(flannel_with(BACKEND_TYPE, "wireguard")).contains("\"wireguard\""));
}

#[test]
fn each_family_of_flannels_pods_has_a_tunnel_of_its_own() {
    let mut all = FLANNEL.to_vec();
    let data = r#"{"VNI":1,"VtepMAC":"8a:11:22:33:44:66"}"#;
    all.extend([(BACKEND_V6_DATA, data), (PUBLIC_IPV6, "2001:db8::7")]);
    let both = ["198.18.2.0/24", "fd00:18:2::/64"];
    let peers = reach(node(&both, "203.0.113.12", &all)).peers;
    let [v4, v6] = &peers[..] else { panic!("{peers:?}") };
    assert_eq!((v4.name.as_str(), v6.name.as_str()), ("node-b", "node-b/v6"));
    assert_eq!(v4.prefixes, ["198.18.2.0/24".parse().expect("a prefix")]);
    assert_eq!(v6.prefixes, ["fd00:18:2::/64".parse().expect("a prefix")]);
    assert_eq!(v6.address.to_string(), "2001:db8::7");
    assert_eq!(v6.vtep_mac, Some(Mac([0x8a, 0x11, 0x22, 0x33, 0x44, 0x66])));

    let other: Vec<_> = all.iter().copied().filter(|(key, _)| *key != BACKEND_V6_DATA).collect();
    let other_vni = (BACKEND_V6_DATA, r#"{"VNI":2,"VtepMAC":"8a:11:22:33:44:66"}"#);
    let other = [other, vec![other_vni]].concat();
    assert!(problem(node(&both, "203.0.113.12", &other)).contains(BACKEND_V6_DATA));
}

#[test]
fn flannel_that_is_not_in_charge_is_not_believed() {
    let peers = reach(flannel_with(MANAGED, "false")).peers;
    assert_eq!((peers[0].address.to_string(), peers[0].vtep_mac), ("203.0.113.12".into(), None));
}

#[test]
fn a_young_node_is_waited_for() {
    assert_eq!(node(&[], "203.0.113.12", &[]).reach, Err(NodeProblem::NoPodCidr));
    let without =
        judged(json!({ "metadata": { "name": "n" }, "spec": { "podCIDR": "198.18.2.0/24" } }));
    assert_eq!(without.reach, Err(NodeProblem::NoAddress));
    assert!(NodeProblem::NoPodCidr.is_pending() && NodeProblem::NoAddress.is_pending());
    assert!(!NodeProblem::ManyPodCidrs.is_pending());
}

#[test]
fn hostile_prefixes_are_refused_by_name() {
    for (cidr, why) in [
        ("0.0.0.0/0", "is everything"),
        ("::/0", "is everything"),
        ("198.18.2.1/24", "has bits set beyond its length"),
        ("224.0.0.0/8", "is loopback, link-local, multicast or reserved"),
        ("240.0.0.0/8", "is loopback, link-local, multicast or reserved"),
        ("127.0.0.0/24", "is loopback, link-local, multicast or reserved"),
        ("169.254.0.0/16", "is loopback, link-local, multicast or reserved"),
        ("0.0.0.0/8", "is loopback, link-local, multicast or reserved"),
        ("ff00::/16", "is loopback, link-local, multicast or reserved"),
        ("fe80::/64", "is loopback, link-local, multicast or reserved"),
        ("::ffff:198.18.2.0/120", "is loopback, link-local, multicast or reserved"),
        ("128.0.0.0/1", "is larger than the pods of any node"),
        ("fc00::/7", "is larger than the pods of any node"),
        ("198.18.2.0/33", "is no prefix"),
        ("198.18.2.0", "is no prefix"),
        ("198.18.2.0/24; rm -rf /", "is no prefix"),
        ("\u{1b}[2J", "is no prefix"),
    ] {
        let text = problem(node(&[cidr], "203.0.113.12", &[]));
        assert!(text.ends_with(why), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
    let two = ["198.18.2.0/24", "198.18.3.0/24"];
    assert_eq!(node(&two, "203.0.113.12", &[]).reach, Err(NodeProblem::ManyPodCidrs));
}

#[test]
fn hostile_addresses_are_refused_by_name() {
    for address in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.1.1",
        "::1",
        "ff02::1",
        "x",
    ] {
        let text = problem(node(&["198.18.2.0/24"], address, &[]));
        assert!(text.starts_with("its InternalIP"), "{text}");
        let ours = [(UNDERLAY_ADDRESS, address)];
        let text = problem(node(&["198.18.2.0/24"], "203.0.113.12", &ours));
        assert!(text.starts_with("its vswitch.dev/underlay-address"), "{text}");
    }
    let inside = node(&["198.18.2.0/24"], "198.18.2.9", &[]);
    assert!(matches!(inside.reach, Err(NodeProblem::AddressInside(_))));
}

#[test]
fn hostile_annotations_are_refused_by_name() {
    for mac in ["", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "$(reboot)"] {
        let ours = [(UNDERLAY_ADDRESS, "198.51.100.9"), (VTEP_MAC, mac)];
        let text = problem(node(&["198.18.2.0/24"], "203.0.113.12", &ours));
        assert!(text.contains(VTEP_MAC), "{text}");
    }
    for data in ["", "null", "[]", r#"{"VNI":-1,"VtepMAC":"8a:11:22:33:44:55"}"#, r#"{"VNI":1}"#] {
        assert!(problem(flannel_with(BACKEND_DATA, data)).contains(BACKEND_DATA), "{data}");
    }
    let group = r#"{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}"#;
    assert!(problem(flannel_with(BACKEND_DATA, group)).contains("no MAC of a host"));
}

#[test]
fn what_is_shown_of_a_hostile_value_is_short() {
    let long: &'static str = Box::leak("x".repeat(1 << 18).into_boxed_str());
    assert!(problem(flannel_with(BACKEND_DATA, long)).len() < 250);
    assert!(problem(node(&[long], "203.0.113.12", &[])).len() < 250);
}

#[test]
fn a_peer_is_named_after_its_node() {
    assert_eq!((node_of("node-b"), node_of("node-b/v6")), ("node-b", "node-b"));
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,80}",
        "[0-9a-f:./]{0,45}",
        (any::<std::net::Ipv4Addr>(), 0..40_u8).prop_map(|(ip, len)| format!("{ip}/{len}")),
        (any::<std::net::Ipv6Addr>(), 0..140_u8).prop_map(|(ip, len)| format!("{ip}/{len}")),
        any::<std::net::IpAddr>().prop_map(|ip| ip.to_string()),
        any::<[u8; 6]>().prop_map(|bytes| Mac(bytes).to_string()),
        r#"\{"VNI":[0-9]{1,12},"VtepMAC":"[0-9a-f:]{0,20}"\}"#,
    ]
}

fn hostile_node() -> impl Strategy<Value = serde_json::Value> {
    let keys = [
        UNDERLAY_ADDRESS,
        VTEP_MAC,
        MANAGED,
        BACKEND_TYPE,
        BACKEND_DATA,
        BACKEND_V6_DATA,
        PUBLIC_IP,
        PUBLIC_IPV6,
    ];
    let value =
        prop_oneof![3 => hostile(), 1 => Just("true".to_owned()), 1 => Just("vxlan".to_owned())];
    let annotations =
        proptest::collection::btree_map(proptest::sample::select(keys.to_vec()), value, 0..8);
    let cidrs = proptest::collection::vec(hostile(), 0..4);
    (hostile(), annotations, cidrs, proptest::collection::vec(hostile(), 0..3)).prop_map(
        |(name, annotations, cidrs, addresses)| {
            let addresses: Vec<_> = addresses
                .into_iter()
                .map(|address| json!({ "type": "InternalIP", "address": address }))
                .collect();
            json!({
                "metadata": { "name": name, "annotations": annotations },
                "spec": { "podCIDRs": cidrs },
                "status": { "addresses": addresses },
            })
        },
    )
}

proptest! {
    #[test]
    fn whatever_a_node_says_is_judged(object in hostile_node()) {
        match judged(object).reach {
            Err(problem) => prop_assert!(problem.to_string().len() < 600),
            Ok(NodeReach { peers, .. }) => for peer in peers {
                prop_assert!(!peer.prefixes.is_empty());
                for prefix in &peer.prefixes {
                    prop_assert!(prefix.prefix_len() > 0 && prefix.trunc() == *prefix);
                    prop_assert!(!prefix.addr().is_multicast() && !prefix.addr().is_loopback());
                    prop_assert!(!prefix.contains(&peer.address));
                }
                let address = peer.address;
                prop_assert!(!address.is_unspecified() && !address.is_multicast() && !address.is_loopback());
                prop_assert!(peer.vtep_mac.is_none_or(|mac| mac.0[0] & 1 == 0));
            },
        }
    }
}
