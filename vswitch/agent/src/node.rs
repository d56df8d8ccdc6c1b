//! Judges a Node's own fields.
//!
//! Enters: a [`NodeObject`], any field of which may be hostile: a writer of a Node's annotations or
//! status would otherwise steer the packets of all others. Leaves: a [`Node`], slim and parsed, to
//! `desired`: the peers that it makes, or the named [`Problem`] that keeps it out. Pure.

use crate::fields::{
    NodeReach, check_name, internal_address, parse_address, parse_mac, peer, pod_cidrs,
};
use crate::flannel;
use crate::object::NodeObject;
use crate::problem::NodeProblem;

/// Underlay address of a node that runs vswitchd, as its agent published it.
pub const UNDERLAY_ADDRESS: &str = "vswitch.dev/underlay-address";
/// MAC that goes into the inner Ethernet header towards that node.
pub const VTEP_MAC: &str = "vswitch.dev/vtep-mac";

/// Another node, or this one, as far as packets to it are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Name of the node, unique in the cluster.
    pub name: String,
    /// When the object was made, in seconds since 1970: the older node keeps what two claim.
    pub created_seconds: i64,
    /// How it is reached, or why it is not.
    pub reach: Result<NodeReach, NodeProblem>,
}

impl ClusterNode {
    /// Judges a Node by its fields.
    #[must_use]
    pub fn judge(object: &NodeObject) -> Self {
        let created = object.metadata.creation_timestamp.as_ref();
        Self {
            name: object.name().to_owned(),
            created_seconds: created.map_or(0, |time| time.0.as_second()),
            reach: reach(object),
        }
    }
}

fn reach(object: &NodeObject) -> Result<NodeReach, NodeProblem> {
    check_name(object.name())?;
    let prefixes = pod_cidrs(object)?;
    // Our own agent's annotation goes before flannel's, so that a node in both roles is one of ours.
    if let Some(address) = object.annotation(UNDERLAY_ADDRESS) {
        let address = parse_address(UNDERLAY_ADDRESS, address)?;
        let mac = object.annotation(VTEP_MAC).map(|mac| parse_mac(VTEP_MAC, mac)).transpose()?;
        let peer = peer(object.name().to_owned(), address, prefixes, None, mac)?;
        return Ok(NodeReach { peers: vec![peer], vni: None });
    }
    if flannel::is_managed(object) {
        return flannel::reach(object, &prefixes);
    }
    let peer = peer(object.name().to_owned(), internal_address(object)?, prefixes, None, None)?;
    Ok(NodeReach { peers: vec![peer], vni: None })
}

/// The name of the Node that a peer stands for.
#[must_use]
pub fn node_of(peer: &str) -> &str {
    // No Node's name has a slash: it is a DNS subdomain.
    peer.split_once('/').map_or(peer, |(node, _)| node)
}

#[cfg(test)]
mod tests;
