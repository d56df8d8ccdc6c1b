//! This node's prefixes for pods, and what becomes of them when the cluster changes its mind.
//!
//! Enters: `SetPodPrefixes`, the configuration, the end of leases. Leaves: the edit that sets them,
//! or a refusal. A prefix that is replaced stays the node's until its last lease ends: routed,
//! steered, masqueraded, with its gateway; nothing of it is given out any more.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{AttachmentId, ErrorKind, ErrorReply, overlap};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::attachments::join;
use super::ipam::Ipam;
use super::{Edit, Lease, Model, refuse};
use crate::config::{Config, check_pod_prefixes};

/// This node's prefixes for pods.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPrefixes {
    /// New pods get addresses of these; one a family.
    current: Vec<IpNet>,
    /// Pods still have addresses of these. None overlaps another, or a current one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retired: Vec<IpNet>,
    /// Addresses of the current prefixes by which the node's kernel masquerades, one a family at most.
    /// Made of the leases, by [`Model::choose_masquerade`].
    #[serde(skip)]
    masquerade: Vec<IpAddr>,
}

impl PodPrefixes {
    /// New pods get addresses of these; one a family.
    #[must_use]
    pub fn current(&self) -> &[IpNet] {
        &self.current
    }

    /// All prefixes of this node, the current ones first.
    pub fn all(&self) -> impl Iterator<Item = &IpNet> + Clone {
        self.current.iter().chain(&self.retired)
    }

    /// The gateway of each prefix, the current ones first.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> + Clone + '_ {
        self.all().map(Config::gateway_of)
    }

    /// The addresses by which the node's kernel masquerades what it forwards to pods, one a family at
    /// most. They are the node's as the gateways are, but it does not speak from them to its pods.
    #[must_use]
    pub fn masquerade(&self) -> &[IpAddr] {
        &self.masquerade
    }

    /// Every address that the node has within its prefixes: those to masquerade by, then the gateways.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> + Clone + '_ {
        self.masquerade.iter().copied().chain(self.gateways())
    }

    /// Whether there are pods of this family, or may be.
    #[must_use]
    pub fn has_family(&self, is_v4: bool) -> bool {
        self.all().any(|prefix| api::is_v4(prefix) == is_v4)
    }

    /// Whether this node has no prefix.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.current.is_empty() && self.retired.is_empty()
    }

    /// Whether the current prefixes are these, in whatever order.
    #[must_use]
    pub fn is_same(&self, prefixes: &[IpNet]) -> bool {
        self.current.len() == prefixes.len()
            && prefixes.iter().all(|prefix| self.current.contains(prefix))
    }

    /// These prefixes with other current ones; of the old those that still have a lease are retired.
    pub(super) fn followed_by(
        &self,
        prefixes: &[IpNet],
        leases: &BTreeMap<AttachmentId, Lease>,
    ) -> Self {
        let retired = self.all().filter(|old| {
            !prefixes.iter().any(|new| overlap(new, old))
                && leases.values().any(|lease| has_of(lease, old))
        });
        Self {
            retired: retired.copied().collect(),
            current: prefixes.to_vec(),
            masquerade: Vec::new(),
        }
    }
}

fn has_of(lease: &Lease, prefix: &IpNet) -> bool {
    lease.addresses.iter().any(|net| prefix.contains(&net.addr()))
}

impl Model {
    /// Sets the prefixes that the cluster assigned to this node; nothing if it has them already.
    ///
    /// # Errors
    /// If the configuration names others, or another node has a part of them.
    pub fn set_pod_prefixes(
        &self,
        config: &Config,
        prefixes: &[IpNet],
    ) -> Result<Vec<Edit>, ErrorReply> {
        let configured = &config.node.pod_prefixes;
        if !configured.is_empty() {
            return if self.pods.is_same(prefixes) {
                Ok(Vec::new())
            } else {
                Err(refuse(
                    ErrorKind::Conflict,
                    format!(
                        "{} configures {} as this node's pod prefixes, the cluster assigns {}; make them the same, or remove node.pod_prefixes and restart the daemon",
                        config.origin.file(),
                        join(configured),
                        if prefixes.is_empty() { "none".into() } else { join(prefixes) }
                    ),
                ))
            };
        }
        if prefixes.is_empty() {
            return Err(refuse(
                ErrorKind::Invalid,
                "a node needs at least one pod prefix; what it has is kept",
            ));
        }
        if self.pods.is_same(prefixes) {
            return Ok(Vec::new());
        }
        if let Some((_, message)) =
            check_pod_prefixes(prefixes, &self.cluster_prefixes).into_iter().next()
        {
            return Err(refuse(ErrorKind::Invalid, format!("pod prefixes: {message}")));
        }
        for prefix in prefixes {
            self.judge_pod_prefix(prefix)?;
        }
        Ok(vec![Edit::PodPrefixes { pods: self.pods.followed_by(prefixes, &self.attachments) }])
    }

    fn judge_pod_prefix(&self, prefix: &IpNet) -> Result<(), ErrorReply> {
        let conflict = |message: String| {
            Err(refuse(ErrorKind::Conflict, format!("pod prefixes: {prefix} {message}")))
        };
        let own = [self.own.v4.map(IpAddr::from), self.own.v6.map(IpAddr::from)];
        if let Some(address) = own.iter().flatten().find(|address| prefix.contains(*address)) {
            return conflict(format!("contains {address}, this node's underlay address"));
        }
        for (peer, source) in self.peers.values() {
            if let Some(other) = peer.prefixes.iter().find(|other| overlap(other, prefix)) {
                let (name, source) = (&peer.name, source.label());
                return conflict(format!("overlaps {other} of peer \"{name}\" ({source})"));
            }
            if prefix.contains(&peer.address) {
                return conflict(format!(
                    "contains the underlay address of peer \"{}\"",
                    peer.name
                ));
            }
        }
        if self.routes.contains_key(prefix) {
            return conflict("has a route already; delete it first".into());
        }
        // A part of a prefix that pods still have: their gateway would be given out.
        let mut old = self.pods.all().filter(|old| *old != prefix && overlap(old, prefix));
        let still_leased =
            old.find(|old| self.attachments.values().any(|lease| has_of(lease, old)));
        if let Some(old) = still_leased {
            return conflict(format!(
                "overlaps {old}, of which pods of this node still have addresses; delete those first"
            ));
        }
        Ok(())
    }

    /// The edit that gives up what this lease was the last of.
    pub(super) fn retire_without(&self, attachment: &AttachmentId, lease: &Lease) -> Option<Edit> {
        let is_last = |prefix: &IpNet| {
            let mut others = self.attachments.iter().filter(|(other, _)| *other != attachment);
            has_of(lease, prefix) && !others.any(|(_, other)| has_of(other, prefix))
        };
        let mut pods = self.pods.clone();
        pods.retired.retain(|prefix| !is_last(prefix));
        (pods != self.pods).then_some(Edit::PodPrefixes { pods })
    }

    /// Chooses the addresses anew by which the kernel masquerades: of each current prefix the highest that
    /// no pod has. It follows from the leases alone, so a restart finds the same. Of a prefix from which
    /// another IPAM gives out addresses none is taken: it may give out any.
    pub(super) fn choose_masquerade(&mut self) {
        let is_others = |prefix: &IpNet| {
            self.attachments.values().any(|lease| lease.delegated && has_of(lease, prefix))
        };
        let ours = self.pods.current.iter().filter(|prefix| !is_others(prefix));
        let chosen: Vec<_> = ours.filter_map(|prefix| self.ipam.highest_free(prefix)).collect();
        self.ipam.keep(&chosen);
        self.pods.masquerade = chosen;
    }

    /// Replaces them; what was before.
    pub(super) fn set_pods(&mut self, pods: PodPrefixes) -> PodPrefixes {
        let ipam = Ipam::new(pods.current());
        self.ipam = ipam.with_leases_of(&self.ipam, &pods.retired);
        std::mem::replace(&mut self.pods, pods)
    }
}
