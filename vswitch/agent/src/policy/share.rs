//! How much the policies of one namespace may bring about on a node, so that no user of a cluster can take
//! what the daemon has for all of them.
//!
//! Enters: the policies of a namespace, and what is counted of them in `live`. Leaves: the first of them that
//! is beyond the namespace's share; from it on they are represented by one rule set that allows nothing. The
//! oldest come first, so that it is the same on each node, and after a restart.

use std::collections::{BTreeMap, BTreeSet};

use api::{GroupId, PolicyTier, RuleSet, RuleSetId};

use super::Cluster;
use super::group::GroupMembers;
use super::pod::{Pod, PodKey};
use super::resolve::{NamedPortQuery, PortNumbers, Resolved, Side, rule_set, rule_set_id};
use super::rule::Policy;

/// What an entry takes beside its name, bytes.
const ENTRY_BYTES: usize = 64;

/// How much there is, or may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Groups of peers.
    pub groups: usize,
    /// Members of these.
    pub members: usize,
    /// Rule sets.
    pub rule_sets: usize,
    /// Bytes of groups' names, of rule sets, and of the lists that name the rule sets of each pod.
    pub bytes: usize,
}

impl Usage {
    /// A group with so many members.
    pub(super) fn of_group(id: &GroupId, members: usize) -> Self {
        Self { groups: 1, members, bytes: id.0.len() + ENTRY_BYTES, ..Self::default() }
    }

    /// A rule set of so many bytes, which no pod has yet.
    pub(super) fn of_rule_set(id: &RuleSetId, bytes: usize) -> Self {
        Self { rule_sets: 1, bytes: id.0.len() + ENTRY_BYTES + bytes, ..Self::default() }
    }

    /// A pod that has a rule set.
    pub(super) fn of_user(id: &RuleSetId) -> Self {
        Self { bytes: id.0.len() + ENTRY_BYTES, ..Self::default() }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.groups += other.groups;
        self.members += other.members;
        self.rule_sets += other.rule_sets;
        self.bytes += other.bytes;
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.groups = self.groups.saturating_sub(other.groups);
        self.members = self.members.saturating_sub(other.members);
        self.rule_sets = self.rule_sets.saturating_sub(other.rule_sets);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }

    /// Each number by `change`.
    pub(super) fn each(self, change: impl Fn(usize) -> usize) -> Self {
        let Self { groups, members, rule_sets, bytes } = self;
        Self {
            groups: change(groups),
            members: change(members),
            rule_sets: change(rule_sets),
            bytes: change(bytes),
        }
    }

    /// What there is more of than possible, and how much is possible; `None` if nothing.
    #[must_use]
    pub fn excess(&self, most: &Self) -> Option<(&'static str, usize)> {
        let all = [
            ("groups of peers", self.groups, most.groups),
            ("members of such groups", self.members, most.members),
            ("rule sets", self.rule_sets, most.rule_sets),
            ("bytes of rules and selectors", self.bytes, most.bytes),
        ];
        let excess = all.into_iter().find(|(_, count, most)| count > most);
        excess.map(|(what, _, most)| (what, most))
    }
}

/// How much is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyBounds {
    /// Of one namespace.
    pub share: Usage,
    /// Of all of them and the policies of the whole cluster. The daemon takes no more, so that what is beyond
    /// it would keep every change from coming into force.
    pub total: Usage,
}

impl Default for PolicyBounds {
    fn default() -> Self {
        let total =
            Usage { groups: 65_536, members: 4_000_000, rule_sets: 65_536, bytes: 64 << 20 };
        let share = total.each(|most| most / 8);
        // The list of one pod, of names of some 850 bytes at most, fits into a message.
        Self { share: Usage { rule_sets: 4096, ..share }, total }
    }
}

/// Where the policies of a namespace begin that are beyond its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    /// When the first of them was created, and its `Policy::id`.
    at: (i64, String),
    /// What there would be too much of with it, and how much is possible.
    excess: (&'static str, usize),
}

impl Cut {
    /// Whether it is one of those.
    pub(super) fn refuses(&self, policy: &Policy) -> bool {
        age(policy) >= (self.at.0, &self.at.1)
    }

    /// Why such a policy allows nothing.
    pub(super) fn reason(&self, namespace: &str) -> String {
        let (what, most) = self.excess;
        format!(
            "the policies of the namespace {namespace} take more than {most} {what} on this node, its share: \
             those that were created last, as this one, allow nothing until there is room; have fewer \
             policies in it, or selectors of fewer pods"
        )
    }
}

fn age(policy: &Policy) -> (i64, &String) {
    (policy.created_seconds, &policy.id)
}

/// The policies of a namespace.
pub(super) fn policies_of<'c>(
    cluster: &'c Cluster,
    namespace: &str,
) -> impl Iterator<Item = &'c Policy> + use<'c> {
    let first = format!("NetworkPolicy {namespace}/");
    let policies = cluster.policies.range(first.clone()..);
    policies.take_while(move |(id, _)| id.starts_with(&first)).map(|(_, policy)| policy)
}

/// Where the policies of a namespace begin that are beyond this share, if there are any. `own` are the
/// namespace's pods of this node, and `size` tells how many members a group has.
pub(super) fn cut(
    cluster: &Cluster,
    own: &[(&PodKey, &Pod)],
    namespace: &str,
    share: &Usage,
    size: &mut dyn FnMut(&GroupId, &GroupMembers) -> usize,
) -> Option<Cut> {
    let mut policies: Vec<&Policy> = policies_of(cluster, namespace).collect();
    policies.sort_unstable_by_key(|policy| age(policy));
    let (mut used, mut groups) = (Usage::default(), BTreeSet::new());
    let mut answers: BTreeMap<NamedPortQuery, PortNumbers> = BTreeMap::new();
    for policy in policies {
        let cut = |used: &Usage| {
            let at = (policy.created_seconds, policy.id.clone());
            used.excess(share).map(|excess| Cut { at, excess })
        };
        let mut sets = BTreeSet::new();
        let is_selected = |(key, pod): &&(&PodKey, &Pod)| {
            policy.subject.as_ref().is_some_and(|scope| scope.contains(cluster, key, pod))
        };
        for (_, pod) in own.iter().filter(is_selected) {
            for (side, drafts) in policy.sides() {
                let id = rule_set_id(policy, side, drafts, pod);
                used.add(Usage::of_user(&id));
                if sets.contains(&id) {
                    continue;
                }
                let asked = &mut |query: NamedPortQuery| {
                    let answer = answers.entry(query);
                    let answer = answer.or_insert_with_key(|query| query.of(cluster).collect());
                    answer.clone()
                };
                let Resolved { groups: named, bytes, .. } =
                    rule_set(policy, side, drafts, pod, asked);
                used.add(Usage::of_rule_set(&id, bytes));
                sets.insert(id);
                for (id, members) in named {
                    // Each may be a look at all pods.
                    if let Some(cut) = cut(&used) {
                        return Some(cut);
                    }
                    if !groups.contains(&id) {
                        used.add(Usage::of_group(&id, size(&id, &members)));
                        groups.insert(id);
                    }
                }
            }
        }
        if let Some(cut) = cut(&used) {
            return Some(cut);
        }
    }
    None
}

/// The rule set that stands for all policies of a namespace that are beyond its share.
pub(super) fn stand_in(namespace: &str, side: Side) -> (RuleSetId, RuleSet) {
    // No object has such a name.
    let policy = format!("{namespace}/*");
    let id = RuleSetId(format!("NetworkPolicy {policy} {side}"));
    (id, RuleSet { policy, tier: PolicyTier::NetworkPolicy, rules: Vec::new() })
}

/// What is counted: of each namespace, and of all.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    of: BTreeMap<Box<str>, Usage>,
    total: Usage,
    /// What one namespace may have now.
    share: Usage,
    /// Namespaces that had more at some moment.
    over: BTreeSet<Box<str>>,
}

impl Ledger {
    pub(super) fn new(share: Usage) -> Self {
        Self { share, ..Self::default() }
    }

    pub(super) fn total(&self) -> &Usage {
        &self.total
    }

    pub(super) fn share(&self) -> &Usage {
        &self.share
    }

    /// A namespace may have so much from now on. All that have some are looked at.
    pub(super) fn set_share(&mut self, share: Usage) {
        self.share = share;
        self.over = self.of.keys().cloned().collect();
    }

    /// Counts something of a namespace that is its alone, or of nobody's.
    pub(super) fn add(&mut self, owner: Option<&str>, usage: Usage) {
        self.total.add(usage);
        owner.into_iter().for_each(|owner| self.add_to(owner, usage));
    }

    /// Counts it no more.
    pub(super) fn subtract(&mut self, owner: Option<&str>, usage: Usage) {
        self.total.subtract(usage);
        owner.into_iter().for_each(|owner| self.subtract_from(owner, usage));
    }

    /// Counts something that others may have too for one namespace.
    pub(super) fn add_to(&mut self, owner: &str, usage: Usage) {
        if !self.of.contains_key(owner) {
            self.of.insert(owner.into(), Usage::default());
        }
        let Some(known) = self.of.get_mut(owner) else { return };
        known.add(usage);
        if known.excess(&self.share).is_some() && !self.over.contains(owner) {
            self.over.insert(owner.into());
        }
    }

    /// Counts it for that namespace no more.
    pub(super) fn subtract_from(&mut self, owner: &str, usage: Usage) {
        let Some(known) = self.of.get_mut(owner) else { return };
        known.subtract(usage);
        if *known == Usage::default() {
            self.of.remove(owner);
        }
    }

    /// Whether a namespace has more than its share.
    pub(super) fn is_over(&self, owner: &str) -> bool {
        self.of.get(owner).is_some_and(|usage| usage.excess(&self.share).is_some())
    }

    /// The namespaces that have more than their shares.
    pub(super) fn take_over(&mut self) -> BTreeSet<Box<str>> {
        let mut over = std::mem::take(&mut self.over);
        over.retain(|owner| self.is_over(owner));
        over
    }
}
