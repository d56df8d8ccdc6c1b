//! Which node gets what, and which is kept out.

use std::collections::BTreeMap;

use api::PeerSpec;
use proptest::prelude::*;

use super::{Desired, Nodes, Peers, desired};
use crate::fields::NodeReach;
use crate::node::ClusterNode;
use crate::problem::NodeProblem;

fn peer(name: &str, address: [u8; 4], prefixes: &[&str]) -> PeerSpec {
    PeerSpec {
        name: name.to_owned(),
        address: address.into(),
        prefixes: prefixes.iter().map(|text| text.parse().expect("a prefix")).collect(),
        encapsulation: None,
        encapsulate: None,
        vtep_mac: None,
    }
}

fn node(
    name: &str,
    created_seconds: i64,
    reach: Result<Vec<PeerSpec>, NodeProblem>,
) -> ClusterNode {
    let reach = reach.map(|peers| NodeReach { peers, vni: None });
    ClusterNode { name: name.to_owned(), created_seconds, reach }
}

fn plain(name: &str, created_seconds: i64, last: u8, prefix: &str) -> ClusterNode {
    node(name, created_seconds, Ok(vec![peer(name, [203, 0, 113, last], &[prefix])]))
}

fn all(nodes: impl IntoIterator<Item = ClusterNode>) -> Nodes {
    nodes.into_iter().map(|node| (node.name.clone(), node)).collect()
}

fn decided(nodes: impl IntoIterator<Item = ClusterNode>) -> Desired {
    desired(&all(nodes), "own", None, &Peers::new())
}

fn names(desired: &Desired) -> Vec<&str> {
    desired.peers.keys().map(String::as_str).collect()
}

#[test]
fn every_other_node_is_a_peer() {
    let out = decided([
        plain("own", 1, 1, "198.18.1.0/24"),
        plain("b", 2, 2, "198.18.2.0/24"),
        plain("c", 3, 3, "198.18.3.0/24"),
    ]);
    assert_eq!(names(&out), ["b", "c"]);
    assert!(out.refused.is_empty());
}

#[test]
fn the_older_node_keeps_what_two_claim() {
    for overlapping in ["198.18.2.0/24", "198.18.0.0/16", "198.18.2.128/25"] {
        let out = decided([plain("b", 20, 2, overlapping), plain("c", 10, 3, "198.18.2.0/24")]);
        assert_eq!(names(&out), ["c"], "{overlapping}");
        assert!(out.refused["b"].ends_with("overlaps 198.18.2.0/24 of node c"), "{out:?}");
    }
    let twins = decided([plain("b", 5, 2, "198.18.2.0/24"), plain("c", 5, 3, "198.18.2.0/24")]);
    assert_eq!(names(&twins), ["b"], "of the same age, the first name");
}

#[test]
fn two_nodes_do_not_share_an_address() {
    let out = decided([plain("b", 1, 2, "198.18.2.0/24"), plain("c", 2, 2, "198.18.3.0/24")]);
    assert_eq!(out.refused["c"], "its address 203.0.113.2 is that of node b");
}

#[test]
fn a_conflict_with_the_own_node_is_seen_from_both_sides() {
    let nodes = [plain("own", 10, 1, "198.18.1.0/24"), plain("b", 5, 2, "198.18.1.0/24")];
    let out = decided(nodes.clone());
    assert_eq!(names(&out), ["b"]);
    assert!(out.refused.contains_key("own"));
    let out = desired(&all(nodes), "b", None, &Peers::new());
    assert!(out.peers.is_empty() && out.refused.contains_key("own"));
}

#[test]
fn a_node_that_spoils_its_object_keeps_what_it_had_until_another_claims_it() {
    let held = Peers::from([
        ("b".to_owned(), peer("b", [203, 0, 113, 2], &["198.18.2.0/24"])),
        ("b/v6".to_owned(), peer("b/v6", [203, 0, 113, 9], &["fd00:18:2::/64"])),
        ("b-2".to_owned(), peer("b-2", [203, 0, 113, 8], &["198.18.8.0/24"])),
    ]);
    let spoiled = node("b", 1, Err(NodeProblem::ManyPodCidrs));
    let out = desired(&all([spoiled.clone()]), "own", None, &held);
    assert_eq!(names(&out), ["b", "b/v6"], "and what is gone is gone");
    assert!(out.refused.contains_key("b"));
    // Even the youngest, if it claims it now.
    let nodes = all([spoiled, plain("c", 99, 3, "198.18.2.0/24")]);
    assert_eq!(names(&desired(&nodes, "own", None, &held)), ["c"]);
}

#[test]
fn a_node_that_is_not_complete_has_nothing_and_is_no_refusal() {
    let held = Peers::from([("b".to_owned(), peer("b", [203, 0, 113, 2], &["198.18.2.0/24"]))]);
    let out = desired(&all([node("b", 1, Err(NodeProblem::NoPodCidr))]), "own", None, &held);
    assert_eq!((out.peers.len(), out.refused.len(), out.pending), (0, 0, 1));
}

#[test]
fn another_vni_is_named() {
    let mut node = plain("b", 1, 2, "198.18.2.0/24");
    node.reach = node.reach.map(|reach| NodeReach { vni: Some(1), ..reach });
    let nodes = all([node]);
    assert_eq!(names(&desired(&nodes, "own", Some(1), &Peers::new())), ["b"]);
    let out = desired(&nodes, "own", Some(10), &Peers::new());
    assert!(out.refused["b"].contains("VNI 1 and this node 10"), "{out:?}");
}

/// Few addresses, so that many collide.
fn crowd() -> impl Strategy<Value = Nodes> {
    let one = (0..6_i64, 0..8_u8, 0..16_u8, 22..28_u8);
    proptest::collection::vec(one, 0..12).prop_map(|nodes| {
        let node = |(index, (age, address, third, len)): (usize, (i64, u8, u8, u8))| {
            let name = format!("n{index}");
            let net: ipnet::IpNet = format!("198.18.{third}.64/{len}").parse().expect("a prefix");
            plain(&name, age, address, &net.trunc().to_string())
        };
        all(nodes.into_iter().enumerate().map(node))
    })
}

proptest! {
    #[test]
    fn nothing_overlaps_and_nobody_is_lost(nodes in crowd()) {
        let out = desired(&nodes, "own", None, &Peers::new());
        prop_assert_eq!(out.peers.len() + out.refused.len(), nodes.len());
        let peers: Vec<_> = out.peers.values().collect();
        for (index, a) in peers.iter().enumerate() {
            for b in &peers[index + 1..] {
                prop_assert!(a.address != b.address);
                prop_assert!(!a.prefixes[0].contains(&b.prefixes[0]));
                prop_assert!(!b.prefixes[0].contains(&a.prefixes[0]));
            }
        }
        // A node that is kept out stands behind an older one.
        for name in out.refused.keys() {
            let Ok(reach) = &nodes[name].reach else { unreachable!("all are well") };
            let mine = &reach.peers[0];
            let is_older = |peer: &&&PeerSpec| {
                (nodes[&peer.name].created_seconds, &peer.name)
                    < (nodes[name].created_seconds, name)
            };
            let clashes = |peer: &&&PeerSpec| {
                peer.address == mine.address
                    || peer.prefixes[0].contains(&mine.prefixes[0])
                    || mine.prefixes[0].contains(&peer.prefixes[0])
            };
            prop_assert!(peers.iter().filter(is_older).any(|peer| clashes(&peer)));
        }
    }

    #[test]
    fn what_stands_is_a_fixed_point(nodes in crowd()) {
        let first = desired(&nodes, "own", None, &Peers::new());
        let second = desired(&nodes, "own", None, &first.peers);
        prop_assert_eq!(&first.peers, &second.peers);
        let refused: BTreeMap<_, _> = second.refused;
        prop_assert_eq!(first.refused, refused);
    }
}
