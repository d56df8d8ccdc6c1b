//! The translation of the cluster as the cluster changes.
//!
//! Enters: pods, namespaces, nodes and policies, one after the other as they come, change and go. Leaves:
//! groups, rule sets and subjects, the same that [`Translation::of`] makes of the same cluster while it is within
//! the bounds of all, and what of them has changed. A pod costs the groups it enters and leaves, and its own rules if it is of this node;
//! the labels of a namespace cost that for each of its pods; a policy costs its own rule sets, new groups
//! of these a look at the pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{GroupId, PodName, RuleSet, RuleSetId, Subject, SubjectRules};

use super::changes::PolicyChanges;
use super::group::{GroupMembers, PodScope};
use super::interner::Interner;
use super::live_groups::LiveGroups;
use super::live_rule_sets::LiveRuleSet;
use super::live_shares::Shares;
use super::named_ports::NamedPorts;
use super::pod::{NamedPort, Pod, PodKey};
use super::resolve::policy_of;
use super::rule::Policy;
use super::scope_index::ScopeIndex;
use super::selector::Labels;
use super::share::{Ledger, PolicyBounds};
use super::{Cluster, PolicyNode, Translation};

/// The translation.
#[derive(Debug, Default)]
pub struct LiveTranslation {
    /// Name of this node.
    own: String,
    pub(super) cluster: Cluster,
    /// The pods of this node.
    pub(super) own_pods: BTreeSet<PodKey>,
    /// Policies by the pods that they select.
    policies: ScopeIndex<String>,
    pub(super) groups: LiveGroups,
    pub(super) named_ports: NamedPorts,
    pub(super) rule_sets: BTreeMap<RuleSetId, LiveRuleSet>,
    /// Why rule sets are not what their policies say.
    pub(super) problems: BTreeMap<RuleSetId, &'static str>,
    subjects: BTreeMap<PodKey, Subject>,
    /// Pods of this node whose rules are to be looked at.
    pub(super) unsettled: BTreeSet<PodKey>,
    /// Rule sets that are to be made anew.
    pub(super) stale: BTreeSet<RuleSetId>,
    pub(super) changes: PolicyChanges,
    pub(super) bounds: PolicyBounds,
    /// How much there is.
    pub(super) ledger: Ledger,
    pub(super) shares: Shares,
    /// Subjects are settled for policies that were cut.
    pub(super) is_reviewing: bool,
    labels: Interner<Labels>,
    node_names: Interner<str>,
    ports: Interner<[NamedPort]>,
}

impl LiveTranslation {
    /// Of an empty cluster, for the node `own`.
    #[must_use]
    pub fn new(own: &str) -> Self {
        Self::bounded(own, PolicyBounds::default())
    }

    /// Likewise, with other bounds.
    #[must_use]
    pub fn bounded(own: &str, bounds: PolicyBounds) -> Self {
        Self { own: own.to_owned(), bounds, ledger: Ledger::new(bounds.share), ..Self::default() }
    }

    /// The cluster as it is known.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Adds a pod, or replaces it; true if that may change something.
    pub fn put_pod(&mut self, key: &PodKey, mut pod: Pod) -> bool {
        if !self.is_own(&pod) {
            // Only subjects are told apart by it.
            pod.uid = String::new();
        }
        if self.cluster.pods.get(key) == Some(&pod) {
            return false;
        }
        self.labels.share(&mut pod.labels);
        self.ports.share(&mut pod.ports);
        if let Some(node) = &mut pod.node {
            self.node_names.share(node);
        }
        pod.addresses.shrink_to_fit();
        self.change_pod(key, Some(pod));
        true
    }

    /// Removes a pod; true if it was there.
    pub fn remove_pod(&mut self, key: &PodKey) -> bool {
        let is_known = self.cluster.pods.contains_key(key);
        if is_known {
            self.change_pod(key, None);
        }
        is_known
    }

    fn change_pod(&mut self, key: &PodKey, pod: Option<Pod>) {
        let was_own = self.own_pods.remove(key);
        let is_own = pod.as_ref().is_some_and(|pod| self.is_own(pod));
        if is_own {
            self.own_pods.insert(key.clone());
        }
        if was_own || is_own {
            self.unsettled.insert(key.clone());
            self.shares.touch(&key.namespace);
        }
        self.change_cluster([key.clone()], |cluster| match pod {
            Some(pod) => drop(cluster.pods.insert(key.clone(), pod)),
            None => drop(cluster.pods.remove(key)),
        });
    }

    /// Sets the labels of a namespace, `None` if it is gone; true if that may change something.
    pub fn put_namespace(&mut self, name: &str, labels: Option<Labels>) -> bool {
        if self.cluster.namespaces.get(name) == labels.as_ref() {
            return false;
        }
        let pods: Vec<PodKey> = self.cluster.pods_of(name).map(|(key, _)| key.clone()).collect();
        self.unsettled.extend(pods.iter().filter(|key| self.own_pods.contains(*key)).cloned());
        self.change_cluster(pods, |cluster| match labels {
            Some(labels) => drop(cluster.namespaces.insert(name.to_owned(), labels)),
            None => drop(cluster.namespaces.remove(name)),
        });
        true
    }

    /// Changes pods, or what selectors see of them: they leave what they belong to no more, and enter what
    /// they belong to now.
    fn change_cluster(
        &mut self,
        pods: impl IntoIterator<Item = PodKey>,
        change: impl FnOnce(&mut Cluster),
    ) {
        let pods: Vec<PodKey> = pods.into_iter().collect();
        for key in &pods {
            if self.cluster.pods.contains_key(key) {
                self.shares.depart();
            }
        }
        let old: Vec<_> = pods.iter().map(|key| self.contributions(key)).collect();
        change(&mut self.cluster);
        for (key, (old_groups, old_ports)) in pods.iter().zip(old) {
            let (new_groups, new_ports) = self.contributions(key);
            if old_groups != new_groups {
                let counted = (&mut self.ledger, &mut self.changes);
                self.groups.change(old_groups, new_groups, counted);
            }
            if old_ports != new_ports {
                let stale = self.named_ports.change(old_ports, new_ports);
                self.make_anew(stale);
            }
        }
    }

    fn contributions(
        &self,
        key: &PodKey,
    ) -> (super::live_groups::Contribution, super::named_ports::NamedPortsOfPod) {
        let Some(pod) = self.cluster.pods.get(key) else { return Default::default() };
        let groups = self.groups.of_pod(&self.cluster, key, pod);
        (groups, self.named_ports.of_pod(&self.cluster, key, pod))
    }

    /// Adds a node, or replaces it, or removes it if it is `None`; true if that may change something.
    pub fn put_node(&mut self, name: &str, node: Option<PolicyNode>) -> bool {
        let known = self.cluster.nodes.get(name);
        if known == node.as_ref() {
            return false;
        }
        let of = |node: Option<&PolicyNode>| node.map(|node| self.groups.of_node(node));
        let (old, new) = (of(known), of(node.as_ref()));
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        if known.is_some() {
            self.shares.depart();
        }
        self.groups.change(old, new, (&mut self.ledger, &mut self.changes));
        match node {
            Some(node) => drop(self.cluster.nodes.insert(name.to_owned(), node)),
            None => drop(self.cluster.nodes.remove(name)),
        }
        true
    }

    /// Adds a policy, or replaces it; true if that may change something.
    pub fn put_policy(&mut self, policy: Policy) -> bool {
        if self.cluster.policies.get(&policy.id) == Some(&policy) {
            return false;
        }
        self.withdraw_policy(&policy.id);
        policy.namespace.iter().for_each(|namespace| self.shares.touch(namespace));
        if let Some(scope) = &policy.subject {
            self.policies.insert(scope, &policy.id);
            self.unsettle(scope);
        }
        self.cluster.policies.insert(policy.id.clone(), policy);
        true
    }

    /// Removes a policy; true if it was there.
    pub fn remove_policy(&mut self, id: &str) -> bool {
        self.withdraw_policy(id);
        self.cluster.policies.remove(id).is_some()
    }

    fn withdraw_policy(&mut self, id: &str) {
        let Some(policy) = self.cluster.policies.get(id) else { return };
        policy.namespace.iter().for_each(|namespace| self.shares.touch(namespace));
        let Some(scope) = policy.subject.clone() else { return };
        self.policies.remove(&scope, &policy.id);
        self.unsettle(&scope);
        self.stale.extend(self.rule_sets_of(id));
    }

    /// Rule sets of a policy. Names of objects have no spaces.
    fn rule_sets_of(&self, id: &str) -> Vec<RuleSetId> {
        let first = format!("{id} ");
        let sets = self.rule_sets.range(RuleSetId(first.clone())..).map(|(id, _)| id);
        sets.take_while(|id| id.0.starts_with(&first)).cloned().collect()
    }

    /// Subjects in a scope are looked at.
    fn unsettle(&mut self, scope: &PodScope) {
        let Self { cluster, own_pods, unsettled, .. } = self;
        let is_in = |key: &&PodKey| {
            cluster.pods.get(*key).is_some_and(|pod| scope.contains(cluster, key, pod))
        };
        unsettled.extend(own_pods.iter().filter(is_in).cloned());
    }

    /// Rule sets are made anew for the subjects that have them.
    fn make_anew(&mut self, stale: BTreeSet<RuleSetId>) {
        if stale.is_empty() {
            return;
        }
        let has = |subject: &Subject| {
            let SubjectRules { ingress, egress } = &subject.rules;
            ingress.iter().chain(egress).any(|id| stale.contains(id))
        };
        let subjects = self.subjects.iter().filter(|(_, subject)| has(subject));
        self.unsettled.extend(subjects.map(|(key, _)| key.clone()));
        self.stale.extend(stale);
    }

    /// Makes the rules of this node's pods what the cluster asks for.
    pub fn settle(&mut self) {
        self.settle_subjects();
        self.review_shares();
    }

    pub(super) fn settle_subjects(&mut self) {
        let mut released = BTreeSet::new();
        for key in std::mem::take(&mut self.unsettled) {
            let subject = self.subject(&key);
            let old = self.subjects.remove(&key);
            for id in old.iter().flat_map(|old| old.rules.ingress.iter().chain(&old.rules.egress)) {
                self.release_rule_set(id);
                released.insert(id.clone());
            }
            if old != subject {
                self.changes.change_subject(&key, old.as_ref().map(|old| &old.pod));
            }
            if let Some(subject) = subject {
                self.subjects.insert(key, subject);
            }
        }
        for id in released {
            self.remove_if_unused(&id);
        }
    }

    /// A pod of this node and its rules, whose rule sets are there from then on.
    fn subject(&mut self, key: &PodKey) -> Option<Subject> {
        let pod = self.cluster.pods.get(key)?;
        if !pod.is_judged() || !self.own_pods.contains(key) {
            return None;
        }
        // It is taken out and put back, as what it needs is changed meanwhile.
        let cluster = std::mem::take(&mut self.cluster);
        let subject = self.subject_of(&cluster, key);
        self.cluster = cluster;
        subject
    }

    fn subject_of(&mut self, cluster: &Cluster, key: &PodKey) -> Option<Subject> {
        let pod = cluster.pods.get(key)?;
        let may_select = self.policies.may_contain(&key.namespace, &pod.labels);
        let policies: BTreeSet<&String> = may_select.collect();
        let policies: Vec<&Policy> =
            policies.into_iter().filter_map(|id| cluster.policies.get(id)).collect();
        let mut rules = SubjectRules::default();
        for policy in policies {
            if policy.subject.as_ref().is_none_or(|scope| !scope.contains(cluster, key, pod)) {
                continue;
            }
            for (side, drafts) in policy.sides() {
                let ids = side.of(&mut rules);
                ids.extend(self.acquire(cluster, policy, side, drafts, pod, ids));
            }
        }
        let PodKey { namespace, name } = key.clone();
        let uid = Some(pod.uid.clone()).filter(|uid| !uid.is_empty());
        Some(Subject { pod: PodName { namespace, name, uid }, rules })
    }

    fn is_own(&self, pod: &Pod) -> bool {
        pod.node.as_deref() == Some(&*self.own)
    }

    /// What has changed since this was last asked.
    pub fn take_changes(&mut self) -> PolicyChanges {
        std::mem::take(&mut self.changes)
    }

    /// The groups that rule sets name.
    pub fn groups(&self) -> impl Iterator<Item = &GroupId> {
        self.groups.ids()
    }

    /// Members of a group in their order.
    pub fn members(&self, group: &GroupId) -> impl Iterator<Item = &IpAddr> {
        self.groups.get(group).into_iter().flat_map(|(_, addresses)| addresses.keys())
    }

    /// Whether an address is a member of a group.
    #[must_use]
    pub fn is_member(&self, group: &GroupId, address: IpAddr) -> bool {
        self.groups.get(group).is_some_and(|(_, addresses)| addresses.contains_key(&address))
    }

    /// A rule set that subjects have.
    #[must_use]
    pub fn rule_set(&self, id: &RuleSetId) -> Option<&RuleSet> {
        self.rule_sets.get(id).map(|live| &live.set)
    }

    /// All rule sets that subjects have.
    pub fn rule_sets(&self) -> impl Iterator<Item = (&RuleSetId, &RuleSet)> {
        self.rule_sets.iter().map(|(id, live)| (id, &live.set))
    }

    /// Policies that deny what they do not mean to, by [`Policy::id`], and why: as those of their namespaces
    /// have more than their share, or as they are too large by themselves.
    pub fn refusals(&self) -> impl Iterator<Item = (&str, &str)> {
        let beyond = self.shares.refusals().map(|(id, why)| (&**id, &**why));
        beyond.chain(self.problems.iter().map(|(id, why)| (policy_of(id), *why)))
    }

    /// The pods of this node, each with its rules.
    #[must_use]
    pub fn subjects(&self) -> &BTreeMap<PodKey, Subject> {
        &self.subjects
    }

    /// All of it, as [`Translation::of`] has it.
    #[must_use]
    pub fn translation(&self) -> Translation {
        let group = |id: &GroupId| -> Option<(GroupId, GroupMembers)> {
            Some((id.clone(), self.groups.get(id)?.0.clone()))
        };
        let subjects = self.subjects.iter().map(|(key, one)| (key.clone(), one.rules.clone()));
        Translation {
            groups: self.groups.ids().filter_map(group).collect(),
            rule_sets: self.rule_sets().map(|(id, set)| (id.clone(), set.clone())).collect(),
            subjects: subjects.filter(|(_, rules)| *rules != SubjectRules::default()).collect(),
        }
    }
}
