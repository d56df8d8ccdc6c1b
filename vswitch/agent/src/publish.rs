//! What this node publishes of itself to the cluster.
//!
//! Enters: the own Node as the API server has it, and the daemon's state. Leaves: one patch of
//! `nodes/status`, or none if all of it is there already. Pure.
//!
//! Annotations and condition go together in one request to the status subresource: it takes changes
//! of the annotations too, and never of the spec, so that the agent needs no right to patch Nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use api::{Encapsulation, Mac, UplinkStatus};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::degraded::POD_NETWORK_DEGRADED;
use crate::fields::pod_cidrs;
use crate::flannel;
use crate::node::{UNDERLAY_ADDRESS, VTEP_MAC};
use crate::object::{Condition, NodeObject};
use crate::problem::NodeProblem;
use crate::service::object::ZONE;

const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";
/// Types of the conditions that are ours to write.
const CONDITIONS: [&str; 2] = [NETWORK_UNAVAILABLE, POD_NETWORK_DEGRADED];
/// The annotations that are ours to write, or that decide what to write.
const PREFIXES: [&str; 2] = ["vswitch.dev/", "flannel.alpha.coreos.com/"];

/// The own Node, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Prefixes that its pods get their addresses from.
    pub pod_prefixes: Result<Vec<IpNet>, NodeProblem>,
    /// Its zone, by which endpoints are chosen.
    pub zone: Option<String>,
    annotations: BTreeMap<String, String>,
    conditions: Vec<Condition>,
}

/// This node's end of the tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vtep {
    /// Underlay address.
    pub address: IpAddr,
    /// IPv6 underlay address beside an IPv4 one.
    pub address6: Option<Ipv6Addr>,
    /// MAC for the inner Ethernet header.
    pub mac: Mac,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Whether VXLAN is what this node encapsulates in by default.
    pub is_vxlan: bool,
}

/// Whether pods can be networked here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The daemon answers, has the pods' prefixes and knows the other nodes.
    Up,
    /// Pods cannot be networked: in one word, and for people.
    Down {
        /// Reason, as Kubernetes' reasons are written.
        reason: &'static str,
        /// What is wrong.
        message: String,
    },
}

impl Own {
    /// Takes what matters of the own Node's object.
    #[must_use]
    pub fn of(object: &NodeObject) -> Self {
        let all = object.metadata.annotations.iter().flatten();
        let ours = all.filter(|(key, _)| PREFIXES.iter().any(|prefix| key.starts_with(prefix)));
        let conditions = object.status.conditions.iter().flatten();
        let is_ours = |condition: &&Condition| CONDITIONS.contains(&condition.kind.as_str());
        Self {
            pod_prefixes: pod_cidrs(object),
            zone: object.metadata.labels.as_ref().and_then(|all| all.get(ZONE)).cloned(),
            annotations: ours.map(|(key, value)| (key.clone(), value.clone())).collect(),
            conditions: conditions.filter(is_ours).cloned().collect(),
        }
    }

    /// The patch that makes the Node show what holds, or none if it does. `now` is in RFC 3339.
    #[must_use]
    pub fn patch(
        &self,
        vtep: Option<&Vtep>,
        flannel: bool,
        conditions: &[Condition],
        now: &str,
    ) -> Option<Value> {
        let mut annotations = BTreeMap::new();
        if let Some(vtep) = vtep {
            annotations.insert(UNDERLAY_ADDRESS.to_owned(), vtep.address.to_string());
            annotations.insert(VTEP_MAC.to_owned(), vtep.mac.to_string());
            // To a node that cannot take VXLAN, flannel's nodes would send in vain.
            if flannel && vtep.is_vxlan {
                let addresses: Vec<IpAddr> =
                    [vtep.address].into_iter().chain(vtep.address6.map(IpAddr::V6)).collect();
                annotations.append(&mut flannel::annotations(
                    &self.annotations,
                    &addresses,
                    vtep.vni,
                    vtep.mac,
                ));
            }
        }
        annotations.retain(|key, value| self.annotations.get(key) != Some(value));
        let conditions: Vec<_> =
            conditions.iter().filter_map(|condition| self.entry(condition, now)).collect();
        if annotations.is_empty() && conditions.is_empty() {
            return None;
        }
        let mut patch = json!({});
        if !annotations.is_empty() {
            patch["metadata"] = json!({ "annotations": annotations });
        }
        if !conditions.is_empty() {
            patch["status"] = json!({ "conditions": conditions });
        }
        Some(patch)
    }

    /// A condition as it is written, or none if the Node has it so.
    fn entry(&self, condition: &Condition, now: &str) -> Option<Value> {
        let old = self.conditions.iter().rfind(|old| old.kind == condition.kind);
        if old == Some(condition) {
            return None;
        }
        let mut entry = json!({
            "type": condition.kind,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message,
            "lastHeartbeatTime": now,
        });
        if old.map(|old| &old.status) != Some(&condition.status) {
            entry["lastTransitionTime"] = now.into();
        }
        Some(entry)
    }
}

impl Vtep {
    /// The end of an uplink in the daemon's status; none before that has an address.
    #[must_use]
    pub fn of(uplink: &UplinkStatus) -> Option<Self> {
        Some(Self {
            address: uplink.address?,
            address6: uplink.address6,
            mac: uplink.vtep_mac?,
            vni: uplink.vni,
            is_vxlan: uplink.encapsulation == Encapsulation::Vxlan,
        })
    }
}

impl Health {
    /// Health of a node with a daemon that has its pods' prefixes.
    #[must_use]
    pub fn of(uplink: Option<&UplinkStatus>) -> Self {
        match uplink {
            Some(uplink) if uplink.address.is_none() => Self::Down {
                reason: "NoUnderlayAddress",
                message: format!(
                    "{} has no address yet by which other nodes could reach this node's pods",
                    uplink.interface
                ),
            },
            Some(_) | None => Self::Up,
        }
    }

    /// True if pods can be networked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self == Self::Up
    }

    /// The condition that the scheduler goes by.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let (status, reason, message) = match self {
            Self::Up => ("False", "VswitchIsUp", "vswitchd forwards for this node's pods"),
            Self::Down { reason, message } => ("True", *reason, message.as_str()),
        };
        Condition {
            kind: NETWORK_UNAVAILABLE.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
