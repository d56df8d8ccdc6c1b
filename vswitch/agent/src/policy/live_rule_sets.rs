//! The rule sets that subjects have, and what they need, as subjects come and go.
//!
//! Enters: from `live`, subjects that get and lose the rule sets of policies. Leaves: rule sets, the groups and
//! named ports that these name, and what of it there is, to the ledger.

use api::{GroupId, RuleSet, RuleSetId, SubjectRules};

use super::Cluster;
use super::live::LiveTranslation;
use super::pod::Pod;
use super::resolve::{NamedPortQuery, Resolved, Side, rule_set, rule_set_id};
use super::rule::{Draft, Policy};
use super::share::{Usage, stand_in};

/// A rule set that subjects have.
#[derive(Debug)]
pub(super) struct LiveRuleSet {
    pub(super) set: RuleSet,
    groups: Vec<GroupId>,
    queries: Vec<NamedPortQuery>,
    /// How many subjects have it.
    users: usize,
    /// The namespace for which it is counted.
    owner: Option<Box<str>>,
    /// Its length in a message.
    bytes: usize,
}

impl LiveTranslation {
    /// One subject more has the rule set of a policy's rules, or the one that stands for it; `None` if that
    /// is among those that it has.
    pub(super) fn acquire(
        &mut self,
        cluster: &Cluster,
        policy: &Policy,
        side: Side,
        drafts: &[Draft],
        pod: &Pod,
        has: &[RuleSetId],
    ) -> Option<RuleSetId> {
        let id = rule_set_id(policy, side, drafts, pod);
        let owner = policy.namespace.as_deref();
        let is_made = !self.shares.refuse(policy)
            && (self.rule_sets.contains_key(&id) && !self.stale.contains(&id)
                || self.make(cluster, policy, side, drafts, pod, &id));
        if let Some(namespace) = owner.filter(|_| !is_made) {
            return self.acquire_stand_in(namespace, side, has);
        }
        self.add_user(&id);
        Some(id)
    }

    /// Makes a rule set, or makes it anew; false if the namespace has no room for it.
    fn make(
        &mut self,
        cluster: &Cluster,
        policy: &Policy,
        side: Side,
        drafts: &[Draft],
        pod: &Pod,
        id: &RuleSetId,
    ) -> bool {
        let owner = policy.namespace.as_deref();
        if self.is_full(owner) {
            return false;
        }
        let mut queries = Vec::new();
        let mut asked = |query: NamedPortQuery| {
            queries.push(query.clone());
            self.named_ports.ask(query, id, cluster)
        };
        let Resolved { set, groups, bytes, problem } =
            rule_set(policy, side, drafts, pod, &mut asked);
        queries.sort_unstable();
        queries.dedup();
        let old = self.rule_sets.get(id);
        let users = old.map_or(0, |old| old.users);
        let owner = owner.map(Box::from);
        let mut live = LiveRuleSet { set, groups: Vec::new(), queries, users, owner, bytes };
        for (group, members) in groups {
            // Each may be a look at all pods, and take as much as they have addresses.
            if self.is_full(live.owner.as_deref()) {
                self.drop_needs(id, &live);
                return false;
            }
            let counted = (&mut self.ledger, &mut self.changes);
            let owner = live.owner.as_deref();
            self.groups.acquire(group.clone(), members, owner, cluster, counted);
            live.groups.push(group);
        }
        match problem {
            Some(problem) => drop(self.problems.insert(id.clone(), problem)),
            None => drop(self.problems.remove(id)),
        }
        self.stale.remove(id);
        self.ledger.add(live.owner.as_deref(), Usage::of_rule_set(id, bytes));
        let old = self.rule_sets.remove(id);
        if old.as_ref().is_none_or(|old| old.set != live.set) {
            self.changes.change_rule_set(id, old.is_some());
        }
        self.rule_sets.insert(id.clone(), live);
        if let Some(old) = old {
            self.ledger.subtract(old.owner.as_deref(), Usage::of_rule_set(id, old.bytes));
            self.drop_needs(id, &old);
        }
        true
    }

    /// One subject more has the rule set that stands for the policies beyond their namespace's share; `None`
    /// if it has it already.
    fn acquire_stand_in(
        &mut self,
        namespace: &str,
        side: Side,
        has: &[RuleSetId],
    ) -> Option<RuleSetId> {
        let (id, set) = stand_in(namespace, side);
        if has.contains(&id) {
            return None;
        }
        if !self.rule_sets.contains_key(&id) {
            self.changes.change_rule_set(&id, false);
            self.ledger.add(None, Usage::of_rule_set(&id, 0));
            let (groups, queries) = (Vec::new(), Vec::new());
            let (users, owner, bytes) = (0, None, 0);
            let live = LiveRuleSet { set, groups, queries, users, owner, bytes };
            self.rule_sets.insert(id.clone(), live);
        }
        self.add_user(&id);
        Some(id)
    }

    fn add_user(&mut self, id: &RuleSetId) {
        let Some(live) = self.rule_sets.get_mut(id) else { return };
        live.users += 1;
        self.ledger.add(live.owner.as_deref(), Usage::of_user(id));
    }

    /// One subject less has a rule set.
    pub(super) fn release_rule_set(&mut self, id: &RuleSetId) {
        let Some(live) = self.rule_sets.get_mut(id) else { return };
        live.users -= 1;
        self.ledger.subtract(live.owner.as_deref(), Usage::of_user(id));
    }

    /// Removes a rule set if no subject has it.
    pub(super) fn remove_if_unused(&mut self, id: &RuleSetId) {
        if self.rule_sets.get(id).is_none_or(|live| live.users > 0) {
            return;
        }
        self.stale.remove(id);
        self.problems.remove(id);
        let Some(old) = self.rule_sets.remove(id) else { return };
        self.changes.change_rule_set(id, true);
        self.ledger.subtract(old.owner.as_deref(), Usage::of_rule_set(id, old.bytes));
        self.drop_needs(id, &old);
    }

    /// Releases what a rule set of this name that is not there any more needs, but for the named ports that
    /// the one that is there needs too.
    fn drop_needs(&mut self, id: &RuleSetId, gone: &LiveRuleSet) {
        for group in &gone.groups {
            let counted = (&mut self.ledger, &mut self.changes);
            self.groups.release(group, gone.owner.as_deref(), counted);
        }
        let needed = self.rule_sets.get(id).map_or(&[][..], |live| &live.queries);
        for query in gone.queries.iter().filter(|query| !needed.contains(query)) {
            self.named_ports.forget(query, id);
        }
    }
}

impl Side {
    /// The rule sets of a subject in this direction.
    pub(super) fn of(self, rules: &mut SubjectRules) -> &mut Vec<RuleSetId> {
        match self {
            Self::Ingress => &mut rules.ingress,
            Self::Egress => &mut rules.egress,
        }
    }
}
