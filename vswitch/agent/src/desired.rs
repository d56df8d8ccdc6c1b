//! Decides which peers this node should have.
//!
//! Enters: all nodes as `node` judged them, and what the daemon has. Leaves: the peers to have, and
//! a reason for each node that is kept out, to `sync` and `report`. Pure, and the same on every node
//! for the same Nodes, as far as the nodes agree with one another.
//!
//! Two rules. Of two nodes that claim overlapping prefixes or the same address the older keeps it:
//! by creation, then by name. And a node that spoils its own object keeps what it had, as long as
//! no other claims that: a bad annotation is no reason to cut off pods that were reached before.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{PeerSpec, is_v4, overlap};
use ipnet::IpNet;

use crate::node::{ClusterNode, node_of};

/// Every node of the cluster by name.
pub type Nodes = BTreeMap<String, ClusterNode>;
/// Peers by name.
pub type Peers = BTreeMap<String, PeerSpec>;

/// The peers that there should be, and the nodes that are kept out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Peers that the daemon should have.
    pub peers: Peers,
    /// Nodes that are kept out, by name, and why.
    pub refused: BTreeMap<String, String>,
    /// Nodes that are not complete yet.
    pub pending: usize,
}

/// The peers that `nodes` make for the node `own` with the VNI `vni`, where its daemon has `held`.
#[must_use]
pub fn desired(nodes: &Nodes, own: &str, vni: Option<u32>, held: &Peers) -> Desired {
    let mut by_age: Vec<&ClusterNode> = nodes.values().collect();
    by_age.sort_by_key(|node| (node.created_seconds, node.name.as_str()));
    let mut out = Desired::default();
    let mut claims = Claims::default();
    for node in by_age.iter().copied() {
        let reach = match &node.reach {
            Ok(reach) => reach,
            Err(problem) if problem.is_pending() => {
                out.pending += 1;
                continue;
            }
            Err(problem) => {
                out.refused.insert(node.name.clone(), problem.to_string());
                continue;
            }
        };
        let judged =
            check_vni(reach.vni, vni).and_then(|()| claims.admit(&node.name, &reach.peers));
        match judged {
            Ok(()) if node.name == own => {}
            Ok(()) => {
                out.peers.extend(reach.peers.iter().map(|peer| (peer.name.clone(), peer.clone())));
            }
            Err(why) => {
                out.refused.insert(node.name.clone(), why);
            }
        }
    }
    // Last, so that what is past stands back behind what is claimed now.
    let spoiled = by_age.iter().filter(|node| out.refused.contains_key(&node.name));
    for node in spoiled.filter(|node| node.name != own) {
        let kept: Vec<PeerSpec> = held_by(held, &node.name).cloned().collect();
        if !kept.is_empty() && claims.admit(&node.name, &kept).is_ok() {
            out.peers.extend(kept.into_iter().map(|peer| (peer.name.clone(), peer)));
        }
    }
    out
}

/// What the daemon has of one node: its own name, and names below it.
fn held_by<'a>(held: &'a Peers, node: &'a str) -> impl Iterator<Item = &'a PeerSpec> {
    let own = held.get(node).into_iter();
    let below = held.range(format!("{node}/")..).map(|(_, peer)| peer);
    own.chain(below.take_while(move |peer| peer.name != node && node_of(&peer.name) == node))
}

fn check_vni(theirs: Option<u32>, ours: Option<u32>) -> Result<(), String> {
    match (theirs, ours) {
        (Some(theirs), Some(ours)) if theirs != ours => Err(format!(
            "its flannel uses VNI {theirs} and this node {ours}; set overlay.vni in vswitch.toml to flannel's"
        )),
        _ => Ok(()),
    }
}

/// The owner of each address: prefixes that never overlap, so that a neighbour in the order is all
/// that there is to compare with.
#[derive(Default)]
struct Claims<'n> {
    prefixes: BTreeMap<(bool, u128), (IpNet, &'n str)>,
    addresses: BTreeMap<IpAddr, &'n str>,
}

impl<'n> Claims<'n> {
    /// All of a node's peers, or none of them.
    fn admit(&mut self, node: &'n str, peers: &[PeerSpec]) -> Result<(), String> {
        for peer in peers {
            if let Some(other) = self.addresses.get(&peer.address) {
                return Err(format!("its address {} is that of node {other}", peer.address));
            }
            for prefix in &peer.prefixes {
                if let Some((theirs, other)) = self.overlapping(prefix) {
                    return Err(format!("its podCIDR {prefix} overlaps {theirs} of node {other}"));
                }
            }
        }
        for peer in peers {
            self.addresses.insert(peer.address, node);
            for prefix in &peer.prefixes {
                self.prefixes.insert(start_of(prefix), (*prefix, node));
            }
        }
        Ok(())
    }

    fn overlapping(&self, prefix: &IpNet) -> Option<(IpNet, &'n str)> {
        // What starts before may reach into it; what starts within it is in it.
        let before = self.prefixes.range(..=start_of(prefix)).next_back();
        let after = self.prefixes.range(start_of(prefix)..).next();
        [before, after]
            .into_iter()
            .flatten()
            .map(|(_, claim)| *claim)
            .find(|(net, _)| overlap(net, prefix))
    }
}

fn start_of(prefix: &IpNet) -> (bool, u128) {
    let start = match prefix.network() {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => u128::from(v6),
    };
    (is_v4(prefix), start)
}

#[cfg(test)]
mod tests;
