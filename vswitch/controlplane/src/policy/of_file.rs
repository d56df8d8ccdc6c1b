//! Policies of the configuration file, as rule sets and groups.
//!
//! Enters: `[[policies]]`, and the leases of pods by name. Leaves: to the compiler, rule sets and the
//! members of their groups, by names that no source may use; to the plane, the rule sets of a pod. Nothing
//! of it is kept over a restart: the file is read again, before the first packet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{
    AttachmentId, GroupId, PolicyPeers, PolicyRule, PolicyTier, RuleAction, RuleSet, RuleSetId,
    SubjectRules,
};

use super::Compiler;
use crate::config::{PodPattern, PolicyPeer, PolicyRuleSettings, PolicySettings};
use crate::model::{Lease, pod_name};

/// What the names of rule sets and groups of the file begin with.
pub(crate) const FILE_NAMES: &str = "vswitch.toml/";

/// What the compiler has of the file.
#[derive(Debug, Default)]
pub(crate) struct FilePolicies {
    policies: Vec<PolicySettings>,
    /// Groups with members.
    groups: BTreeMap<GroupId, BTreeSet<IpAddr>>,
}

impl FilePolicies {
    /// The groups with members.
    pub(crate) fn groups(&self) -> &BTreeMap<GroupId, BTreeSet<IpAddr>> {
        &self.groups
    }

    /// Has the compiler follow the file, and the pods that have a port: a lease alone publishes nothing.
    pub(crate) fn follow(
        &mut self,
        compiler: &mut Compiler,
        policies: &[PolicySettings],
        pods: &BTreeMap<AttachmentId, Lease>,
        has_port: impl Fn(&AttachmentId) -> bool,
    ) {
        if self.policies != policies {
            let mut gone: BTreeSet<_> = self.policies.iter().flat_map(ids).collect();
            for policy in policies {
                for (direction, set) in policy.rule_sets() {
                    let id = rule_set_id(policy, direction);
                    gone.remove(&id);
                    // The configuration was checked.
                    drop(compiler.set_rules(id, set));
                }
            }
            gone.iter().for_each(|id| compiler.remove_rules(id));
            self.policies = policies.to_vec();
        }
        if policies.is_empty() && self.groups.is_empty() {
            return;
        }
        let groups = members(policies, pods.iter().filter(|(pod, _)| has_port(pod)));
        let none = BTreeSet::new();
        for group in self.groups.keys().chain(groups.keys()).collect::<BTreeSet<_>>() {
            let had = self.groups.get(group).unwrap_or(&none);
            let has = groups.get(group).unwrap_or(&none);
            if had != has {
                let join: Vec<_> = has.difference(had).copied().collect();
                let leave: Vec<_> = had.difference(has).copied().collect();
                compiler.change_members(group, &join, &leave);
            }
        }
        self.groups = groups;
    }
}

/// The rule sets that policies of the file give to the pod of this name.
pub(crate) fn rules_of_file(policies: &[PolicySettings], name: &str) -> SubjectRules {
    let mut rules = SubjectRules::default();
    for policy in policies {
        if policy.pods.iter().any(|pattern| pattern.matches(name)) {
            rules.ingress.extend(policy.ingress.as_ref().map(|_| rule_set_id(policy, INGRESS)));
            rules.egress.extend(policy.egress.as_ref().map(|_| rule_set_id(policy, EGRESS)));
        }
    }
    rules
}

const INGRESS: &str = "ingress";
const EGRESS: &str = "egress";

impl PolicySettings {
    /// The rule set of each direction that it isolates, with the direction's name.
    pub(crate) fn rule_sets(&self) -> impl Iterator<Item = (&'static str, RuleSet)> {
        let directions = [(INGRESS, &self.ingress), (EGRESS, &self.egress)];
        directions.into_iter().filter_map(|(direction, rules)| {
            let rules = rules.as_ref()?.iter().enumerate().map(|(index, one)| rule(index, one));
            let policy = format!("{FILE_NAMES}{}", self.name);
            let tier = PolicyTier::NetworkPolicy;
            Some((direction, RuleSet { policy, tier, rules: rules.collect() }))
        })
    }
}

fn ids(policy: &PolicySettings) -> impl Iterator<Item = RuleSetId> {
    policy.rule_sets().map(|(direction, _)| rule_set_id(policy, direction))
}

fn rule_set_id(policy: &PolicySettings, direction: &str) -> RuleSetId {
    RuleSetId(format!("{FILE_NAMES}{} {direction}", policy.name))
}

fn rule(index: usize, rule: &PolicyRuleSettings) -> PolicyRule {
    let peers = match &rule.peers {
        None => PolicyPeers::Any,
        Some(peers) => PolicyPeers::Of {
            groups: peers.iter().flat_map(patterns).map(group_id).collect(),
            blocks: peers.iter().filter_map(PolicyPeer::block).cloned().collect(),
        },
    };
    // No file has so many rules.
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    PolicyRule { index, action: RuleAction::Allow, peers, ports: rule.ports.clone() }
}

fn group_id(pattern: &PodPattern) -> GroupId {
    GroupId(format!("{FILE_NAMES}{pattern}"))
}

fn patterns(peer: &PolicyPeer) -> &[PodPattern] {
    match peer {
        PolicyPeer::Pods(patterns) => patterns,
        PolicyPeer::Block(_) => &[],
    }
}

/// The addresses of the pods by each name that a rule has.
fn members<'a>(
    policies: &[PolicySettings],
    pods: impl Iterator<Item = (&'a AttachmentId, &'a Lease)>,
) -> BTreeMap<GroupId, BTreeSet<IpAddr>> {
    let rules = policies.iter().flat_map(|policy| [&policy.ingress, &policy.egress]).flatten();
    let peers = rules.flatten().filter_map(|rule| rule.peers.as_ref()).flatten();
    let patterns: BTreeSet<_> = peers.flat_map(patterns).collect();
    let mut groups: BTreeMap<GroupId, BTreeSet<IpAddr>> = BTreeMap::new();
    if patterns.is_empty() {
        return groups;
    }
    for (attachment, lease) in pods.filter(|(_, lease)| !lease.name_is_lost) {
        let name = pod_name(attachment, Some(lease));
        for pattern in patterns.iter().filter(|pattern| pattern.matches(&name)) {
            let addresses = lease.addresses.iter().map(|net| net.addr());
            groups.entry(group_id(pattern)).or_default().extend(addresses);
        }
    }
    groups
}
