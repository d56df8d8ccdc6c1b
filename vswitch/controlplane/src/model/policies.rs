//! Policies as sources told them: groups, rule sets, and the rule sets of each pod.
//!
//! Enters: a change that was committed, and edits of the journal. Leaves: edits for what is different; to
//! the plane, which follows with its compiler, what has changed since it last asked; to the journal, a
//! sum over all, by which a start knows whether a line is missing.

mod bounds;
mod sum;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::{
    GroupId, PodName, PolicyDigest, PolicySync, RuleSet, RuleSetId, Subject, SubjectRules,
    members_hash, rule_set_hash,
};

use super::{Edit, Lease, Model};
use crate::policy::MAX_GROUP_NAME;
pub(crate) use bounds::{check_names, check_totals};
use sum::{sum_of_member, sum_of_rules, sum_of_subject};

/// Everything that sources told of policies.
#[derive(Debug, Clone, Default)]
pub struct PolicyInputs {
    groups: BTreeMap<GroupId, BTreeSet<IpAddr>>,
    /// Members of all groups.
    members: usize,
    rule_sets: BTreeMap<RuleSetId, Arc<RuleSet>>,
    /// By namespace and name: of two pods of one name the one that was told last.
    subjects: BTreeMap<(String, String), Subject>,
    /// The sum over all of these.
    sum: u64,
    /// The sum that the journal has last; `None` before the first.
    committed: Option<u64>,
    changed: ChangedInputs,
}

/// What is different since it was last taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChangedInputs {
    /// Addresses that came or went, by group.
    pub(crate) members: BTreeMap<GroupId, BTreeSet<IpAddr>>,
    /// Rule sets that came, went or are different.
    pub(crate) rule_sets: BTreeSet<RuleSetId>,
}

/// What policies make of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodRules<'a> {
    /// Nothing: it is no pod of a cluster, or the cluster's policies are not kept here.
    Unconcerned,
    /// Nobody told its rule sets: it is denied everything.
    Unknown,
    /// It has these.
    Known(Cow<'a, SubjectRules>),
}

impl PolicyInputs {
    /// Whether a source has ever committed policies.
    #[must_use]
    pub fn are_told(&self) -> bool {
        self.committed.is_some()
    }

    /// The groups with their members.
    #[must_use]
    pub fn groups(&self) -> &BTreeMap<GroupId, BTreeSet<IpAddr>> {
        &self.groups
    }

    /// Members of all groups.
    #[must_use]
    pub fn count_members(&self) -> usize {
        self.members
    }

    /// The rule sets.
    #[must_use]
    pub fn rule_sets(&self) -> &BTreeMap<RuleSetId, Arc<RuleSet>> {
        &self.rule_sets
    }

    /// The pods whose rule sets are known.
    pub fn subjects(&self) -> impl ExactSizeIterator<Item = &Subject> {
        self.subjects.values()
    }

    /// A sum over all that is known: other contents have another one, but for an accident in 2^64.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// What a source compares with what it has.
    #[must_use]
    pub fn digest(&self) -> PolicyDigest {
        let groups = self.groups.iter();
        let rule_sets = self.rule_sets.iter();
        PolicyDigest {
            groups: groups.map(|(id, members)| (id.clone(), members_hash(members))).collect(),
            rule_sets: rule_sets.map(|(id, set)| (id.clone(), rule_set_hash(set))).collect(),
            subjects: self.subjects.values().cloned().collect(),
        }
    }

    /// The rule sets of a pod, if the one of this name that was told is the same.
    fn rules_of(&self, pod: &PodName) -> Option<&SubjectRules> {
        let subject = self.subjects.get(&(pod.namespace.clone(), pod.name.clone()))?;
        is_same_pod(&subject.pod, pod).then_some(&subject.rules)
    }

    /// The edits that make all of this out of nothing. The sum comes last: whatever is missing before it
    /// shows.
    pub(super) fn edits(&self) -> impl Iterator<Item = Edit> + '_ {
        let groups = self.groups.iter().map(|(group, members)| Edit::Members {
            group: group.clone(),
            leave: Vec::new(),
            join: members.iter().copied().collect(),
        });
        let rule_sets = self.rule_sets.iter();
        let rule_sets =
            rule_sets.map(|(id, set)| Edit::RuleSet { id: id.clone(), set: RuleSet::clone(set) });
        let subjects = self.subjects.values();
        let subjects = subjects.map(|subject| Edit::Subject { subject: subject.clone() });
        let commit = self.committed.map(|sum| Edit::PoliciesAre { sum: Some(sum) });
        groups.chain(rule_sets).chain(subjects).chain(commit)
    }

    /// What a line of the journal with these edits is to end with, once policies were told: the sum, so that
    /// a line that is lost before it is known to have been none of policies.
    pub(crate) fn seal(&self, before: &[Edit], edits: &[Edit]) -> Option<Edit> {
        let last = edits.last().or(before.last())?;
        let is_sealed = matches!(last, Edit::PoliciesAre { .. });
        (self.are_told() && !is_sealed).then_some(Edit::PoliciesAre { sum: Some(self.sum) })
    }

    /// The edits that leave nothing of it, as before the first commit.
    #[must_use]
    pub(crate) fn forgetting(&self) -> Vec<Edit> {
        let groups = self.groups.keys().map(|group| Edit::NoMembers { group: group.clone() });
        let rule_sets = self.rule_sets.keys().map(|id| Edit::NoRuleSet { id: id.clone() });
        let subjects = self.subjects.keys().map(|(namespace, name)| Edit::NoSubject {
            namespace: namespace.clone(),
            name: name.clone(),
        });
        let last = Edit::PoliciesAre { sum: None };
        groups.chain(rule_sets).chain(subjects).chain([last]).collect()
    }

    /// What is different since the last call.
    pub(crate) fn take_changed(&mut self) -> ChangedInputs {
        std::mem::take(&mut self.changed)
    }

    /// Whether something is different since then.
    pub(crate) fn have_changed(&self) -> bool {
        !self.changed.members.is_empty() || !self.changed.rule_sets.is_empty()
    }

    /// Members leave and join; the edit that takes it back.
    pub(super) fn change_members(
        &mut self,
        group: GroupId,
        leave: Vec<IpAddr>,
        join: Vec<IpAddr>,
    ) -> Edit {
        let members = self.groups.entry(group.clone()).or_default();
        let left: Vec<_> = leave.into_iter().filter(|one| members.remove(one)).collect();
        let joined: Vec<_> = join.into_iter().filter(|one| members.insert(*one)).collect();
        if members.is_empty() {
            self.groups.remove(&group);
        }
        self.members = self.members + joined.len() - left.len();
        for member in left.iter().chain(&joined) {
            self.sum ^= sum_of_member(&group, member);
        }
        if !left.is_empty() || !joined.is_empty() {
            let changed = self.changed.members.entry(group.clone()).or_default();
            changed.extend(left.iter().chain(&joined));
        }
        Edit::Members { group, leave: joined, join: left }
    }

    /// All members leave.
    pub(super) fn remove_group(&mut self, group: GroupId) -> Edit {
        let all = self.groups.get(&group).into_iter().flatten().copied().collect();
        self.change_members(group, all, Vec::new())
    }

    /// Sets a rule set, or removes it.
    pub(super) fn set_rules(&mut self, id: RuleSetId, set: Option<Arc<RuleSet>>) -> Edit {
        self.sum ^= set.as_ref().map_or(0, |set| sum_of_rules(&id, set));
        let former = match set {
            Some(set) => self.rule_sets.insert(id.clone(), set),
            None => self.rule_sets.remove(&id),
        };
        self.sum ^= former.as_ref().map_or(0, |former| sum_of_rules(&id, former));
        self.changed.rule_sets.insert(id.clone());
        match former {
            Some(set) => Edit::RuleSet { id, set: Arc::unwrap_or_clone(set) },
            None => Edit::NoRuleSet { id },
        }
    }

    /// Sets the rule sets of a pod.
    pub(super) fn set_subject(&mut self, subject: Subject) -> Edit {
        let key = (subject.pod.namespace.clone(), subject.pod.name.clone());
        self.sum ^= sum_of_subject(&subject);
        let former = self.subjects.insert(key.clone(), subject);
        self.undo_subject(key, former)
    }

    /// Forgets the rule sets of a pod.
    pub(super) fn remove_subject(&mut self, namespace: String, name: String) -> Edit {
        let key = (namespace, name);
        let former = self.subjects.remove(&key);
        self.undo_subject(key, former)
    }

    fn undo_subject(&mut self, key: (String, String), former: Option<Subject>) -> Edit {
        self.sum ^= former.as_ref().map_or(0, sum_of_subject);
        match former {
            Some(subject) => Edit::Subject { subject },
            None => Edit::NoSubject { namespace: key.0, name: key.1 },
        }
    }

    /// Notes the sum of a commit.
    pub(super) fn commit(&mut self, sum: Option<u64>) -> Edit {
        Edit::PoliciesAre { sum: std::mem::replace(&mut self.committed, sum) }
    }
}

impl Model {
    /// What policies that were told make of a pod; `are_kept` if those of a cluster's pods are kept here.
    #[must_use]
    pub fn pod_rules(&self, lease: &Lease, are_kept: bool) -> PodRules<'_> {
        match &lease.pod {
            _ if !are_kept => PodRules::Unconcerned,
            Some(pod) => {
                let rules = self.policies.rules_of(pod).map(Cow::Borrowed);
                rules.map_or(PodRules::Unknown, PodRules::Known)
            }
            None if lease.name_is_lost => PodRules::Unknown,
            None => PodRules::Unconcerned,
        }
    }

    /// The edits that a change comes to, but for the sum.
    #[must_use]
    pub fn sync_policies(&self, sync: PolicySync) -> Vec<Edit> {
        let known = &self.policies;
        let mut edits = member_edits(known, &sync);
        let gone = sync.gone_rule_sets.into_iter().map(|id| (id, None));
        let fresh = sync.rule_sets.into_iter().map(|named| (named.id, Some(named.set)));
        for (id, set) in gone.chain(fresh).collect::<BTreeMap<_, _>>() {
            match (known.rule_sets.get(&id), set) {
                (None, None) => {}
                (Some(known), Some(set)) if **known == set => {}
                (_, Some(set)) => edits.push(Edit::RuleSet { id, set }),
                (Some(_), None) => edits.push(Edit::NoRuleSet { id }),
            }
        }
        let mut subjects: BTreeMap<(String, String), Option<Subject>> = BTreeMap::new();
        for pod in sync.gone_subjects {
            let key = (pod.namespace.clone(), pod.name.clone());
            if known.subjects.get(&key).is_some_and(|known| is_same_pod(&known.pod, &pod)) {
                subjects.insert(key, None);
            }
        }
        for subject in sync.subjects {
            let key = (subject.pod.namespace.clone(), subject.pod.name.clone());
            subjects.insert(key, Some(subject));
        }
        for (key, subject) in subjects {
            match subject {
                Some(subject) if known.subjects.get(&key) == Some(&subject) => {}
                Some(subject) => edits.push(Edit::Subject { subject }),
                None => edits.push(Edit::NoSubject { namespace: key.0, name: key.1 }),
            }
        }
        edits
    }

    /// Forgets policies that may not be as a source committed them, with edits of a journal of which some
    /// were lost behind the first `lost_behind`. Every pod that they concern is denied everything then,
    /// until a source has told all again. True if they were forgotten.
    pub fn forget_doubtful_policies(&mut self, edits: &[Edit], lost_behind: Option<usize>) -> bool {
        let behind = lost_behind.and_then(|at| edits.get(at..)).unwrap_or_default();
        let is_commit = |edit: &Edit| matches!(edit, Edit::PoliciesAre { .. });
        // A sum is over all, whatever was lost before it.
        let may_lack_commits = lost_behind.is_some() && !behind.iter().any(is_commit);
        let known = &self.policies;
        let have_any = known.are_told() || known.sum != 0;
        if !have_any || !may_lack_commits && known.committed == Some(known.sum) {
            return false;
        }
        let none = PolicyInputs::default();
        self.policies = Arc::new(PolicyInputs { committed: Some(none.sum), ..none });
        true
    }
}

/// The edits that bring each group to the members that it is to have.
fn member_edits(known: &PolicyInputs, sync: &PolicySync) -> Vec<Edit> {
    let of = |group: &GroupId| known.groups.get(group);
    let mut touched: BTreeMap<&GroupId, BTreeMap<IpAddr, bool>> = BTreeMap::new();
    for group in &sync.gone_groups {
        let members = of(group).into_iter().flatten();
        touched.entry(group).or_default().extend(members.map(|member| (*member, false)));
    }
    // Rule sets that name such a group are refused; its members would be of no use.
    let changes = sync.groups.iter().filter(|change| change.group.0.len() <= MAX_GROUP_NAME);
    for change in changes {
        let touched = touched.entry(&change.group).or_default();
        touched.extend(change.leave.iter().map(|member| (*member, false)));
        touched.extend(change.join.iter().map(|member| (*member, true)));
    }
    let mut edits = Vec::new();
    for (group, touched) in touched {
        let is_in = |member: &IpAddr| of(group).is_some_and(|members| members.contains(member));
        let changed = touched.into_iter().filter(|(member, joins)| is_in(member) != *joins);
        let (join, leave): (Vec<_>, Vec<_>) = changed.partition(|(_, joins)| *joins);
        let plain =
            |list: Vec<(IpAddr, bool)>| list.into_iter().map(|(member, _)| member).collect();
        let group = group.clone();
        match (leave.len(), join.len()) {
            (0, 0) => {}
            (count, 0) if of(&group).is_some_and(|members| members.len() == count) => {
                edits.push(Edit::NoMembers { group });
            }
            _ => edits.push(Edit::Members { group, leave: plain(leave), join: plain(join) }),
        }
    }
    edits
}

/// Whether two names are the same pod's, as far as both say.
fn is_same_pod(one: &PodName, other: &PodName) -> bool {
    (&one.namespace, &one.name) == (&other.namespace, &other.name)
        && one.uid.as_ref().zip(other.uid.as_ref()).is_none_or(|(one, other)| one == other)
}
