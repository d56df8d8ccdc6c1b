//! What policies allow between pods, without labels.
//!
//! Enters: the cluster's namespaces, pods, nodes and policies, as far as they are read. Leaves: groups of
//! addresses, rule sets over them, and the rule sets of this node's pods: what vswitchd compiles. Pure,
//! and the same for the same objects.
//!
//! | file | holds |
//! |---|---|
//! | `selector` | a label selector, and its text |
//! | `pod`      | a pod as policies see it |
//! | `group`    | what makes an address a member of a group |
//! | `rule`     | a policy of any kind, before its selectors and named ports are resolved |
//! | `network`  | NetworkPolicy as such a policy |
//! | `cluster`  | ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy as such |
//! | `resolve`  | its rule sets for a pod |
//! | `object`   | namespaces and cluster policies as the API server sends them |
//! | `index`    | the watches' events, and what is left out of policies |
//! | `live`     | the translation as the cluster changes: what an event touches, and no more |
//! | `live_rule_sets`, `live_groups`, `named_ports`, `scope_index`, `interner` | its parts |
//! | `share`    | how much the policies of one namespace may bring about |
//! | `live_shares` | which are beyond that, as the cluster changes |
//! | `changes`  | what of it has changed since it was last sent |
//! | `held`     | the difference to what the daemon has, in messages |

pub mod changes;
pub mod cluster;
pub mod group;
pub mod held;
pub mod index;
mod interner;
pub mod live;
mod live_groups;
mod live_rule_sets;
mod live_shares;
mod named_ports;
pub mod network;
pub mod object;
pub mod pod;
pub mod resolve;
pub mod rule;
mod scope_index;
pub mod selector;
pub mod share;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{GroupId, RuleSet, RuleSetId, SubjectRules};

use group::GroupMembers;
use pod::{Pod, PodKey};
use resolve::{NamedPortQuery, Resolved, rule_set, rule_set_id};
use rule::Policy;
use selector::Labels;
use share::{PolicyBounds, Usage, cut, stand_in};

/// A node, as far as policies name nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyNode {
    /// Its labels.
    pub labels: Labels,
    /// Its addresses, of every type.
    pub addresses: Vec<IpAddr>,
}

/// All of the cluster that policies are about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Labels of each namespace.
    pub namespaces: BTreeMap<String, Labels>,
    /// The pods.
    pub pods: BTreeMap<PodKey, Pod>,
    /// The nodes by name.
    pub nodes: BTreeMap<String, PolicyNode>,
    /// The policies by kind, namespace and name, as [`Policy::id`] has them.
    pub policies: BTreeMap<String, Policy>,
}

impl Cluster {
    /// The pods of a namespace.
    fn pods_of(&self, namespace: &str) -> impl Iterator<Item = (&PodKey, &Pod)> {
        let first = PodKey { namespace: namespace.to_owned(), name: String::new() };
        let pods = self.pods.range(first..);
        let namespace = namespace.to_owned();
        pods.take_while(move |(key, _)| key.namespace == namespace)
    }
}

/// What a node's vswitchd is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Translation {
    /// Groups that the rule sets name: what makes an address a member.
    pub groups: BTreeMap<GroupId, GroupMembers>,
    /// Rule sets that the subjects have.
    pub rule_sets: BTreeMap<RuleSetId, RuleSet>,
    /// The node's own pods that some policy selects.
    pub subjects: BTreeMap<PodKey, SubjectRules>,
}

impl Translation {
    /// The policies of the pods of the node `own`.
    #[must_use]
    pub fn of(cluster: &Cluster, own: &str) -> Self {
        Self::within(cluster, own, &PolicyBounds::default().share)
    }

    /// Likewise, where those of each namespace have this share.
    #[must_use]
    pub fn within(cluster: &Cluster, own: &str, share: &Usage) -> Self {
        let is_own = |pod: &Pod| pod.node.as_deref() == Some(own) && pod.is_judged();
        let own: Vec<_> = cluster.pods.iter().filter(|(_, pod)| is_own(pod)).collect();
        let mut by_namespace: BTreeMap<&str, Vec<(&PodKey, &Pod)>> = BTreeMap::new();
        for (key, pod) in &own {
            by_namespace.entry(&key.namespace).or_default().push((key, pod));
        }
        let size = &mut |_: &GroupId, members: &GroupMembers| members.of(cluster).len();
        let cuts = by_namespace
            .into_iter()
            .map(|(namespace, own)| (namespace, cut(cluster, &own, namespace, share, size)));
        let cuts: BTreeMap<_, _> = cuts.collect();
        let mut out = Self::default();
        for (key, pod) in own {
            let mut rules = SubjectRules::default();
            for policy in cluster.policies.values() {
                if policy.subject.as_ref().is_none_or(|scope| !scope.contains(cluster, key, pod)) {
                    continue;
                }
                let namespace = policy.namespace.as_deref();
                let cut = namespace.and_then(|namespace| cuts.get(namespace)?.as_ref());
                let beyond = cut.filter(|cut| cut.refuses(policy)).and(namespace);
                for (side, drafts) in policy.sides() {
                    let ids = side.of(&mut rules);
                    if let Some(namespace) = beyond {
                        let (id, set) = stand_in(namespace, side);
                        if !ids.contains(&id) {
                            ids.push(id.clone());
                        }
                        out.rule_sets.insert(id, set);
                        continue;
                    }
                    let id = rule_set_id(policy, side, drafts, pod);
                    if !out.rule_sets.contains_key(&id) {
                        let asked = &mut |query: NamedPortQuery| query.of(cluster).collect();
                        let Resolved { set, groups, .. } =
                            rule_set(policy, side, drafts, pod, asked);
                        out.groups.extend(groups);
                        out.rule_sets.insert(id.clone(), set);
                    }
                    ids.push(id);
                }
            }
            if rules != SubjectRules::default() {
                out.subjects.insert(key.clone(), rules);
            }
        }
        out
    }

    /// The members of each group.
    #[must_use]
    pub fn members(&self, cluster: &Cluster) -> BTreeMap<GroupId, BTreeSet<IpAddr>> {
        self.groups.iter().map(|(id, group)| (id.clone(), group.of(cluster))).collect()
    }
}

#[cfg(test)]
mod tests;
