//! What of the translation has changed since it was last sent.
//!
//! Enters: from `live`, each group, member, rule set and subject that changes, at its first change with
//! what it was before. Leaves: to `held`, which compares with what it is now: what came and went again in
//! between is no change.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{GroupId, PodName, RuleSetId};

use super::pod::PodKey;

/// The changes.
#[derive(Debug, Default)]
pub struct PolicyChanges {
    pub(super) groups: BTreeMap<GroupId, ChangedGroup>,
    /// Rule sets, and whether they were there before.
    pub(super) rule_sets: BTreeMap<RuleSetId, bool>,
    /// Subjects, and as which pods they were there before.
    pub(super) subjects: BTreeMap<PodKey, Option<PodName>>,
}

/// A group that has changed.
#[derive(Debug)]
pub(super) enum ChangedGroup {
    /// It was made, or removed, or both.
    Remade {
        /// Whether it was there before.
        was_there: bool,
    },
    /// Addresses that may be other members than before, and whether they were members.
    Members(BTreeMap<IpAddr, bool>),
}

impl PolicyChanges {
    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.rule_sets.is_empty() && self.subjects.is_empty()
    }

    pub(super) fn make_group(&mut self, id: &GroupId) {
        if !self.groups.contains_key(id) {
            self.groups.insert(id.clone(), ChangedGroup::Remade { was_there: false });
        }
    }

    pub(super) fn remove_group(&mut self, id: &GroupId) {
        match self.groups.get(id) {
            Some(ChangedGroup::Remade { .. }) => {}
            _ => {
                self.groups.insert(id.clone(), ChangedGroup::Remade { was_there: true });
            }
        }
    }

    pub(super) fn change_member(&mut self, id: &GroupId, address: IpAddr, was_member: bool) {
        match self.groups.get_mut(id) {
            Some(ChangedGroup::Remade { .. }) => {}
            Some(ChangedGroup::Members(members)) => {
                members.entry(address).or_insert(was_member);
            }
            None => {
                let members = BTreeMap::from([(address, was_member)]);
                self.groups.insert(id.clone(), ChangedGroup::Members(members));
            }
        }
    }

    pub(super) fn change_rule_set(&mut self, id: &RuleSetId, was_there: bool) {
        if !self.rule_sets.contains_key(id) {
            self.rule_sets.insert(id.clone(), was_there);
        }
    }

    pub(super) fn change_subject(&mut self, key: &PodKey, was: Option<&PodName>) {
        if !self.subjects.contains_key(key) {
            self.subjects.insert(key.clone(), was.cloned());
        }
    }
}
