//! From the policies that the daemon has to those that it should have, in messages.
//!
//! Enters: the translation, and what of it has changed, or what the daemon has. Leaves: the parts of a
//! change, each within the codec's bound, the last of which puts all of it in force. What the daemon has is
//! asked of it whenever the connection is new, as numbers: what did not change is in no message.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{
    GroupChange, GroupId, NamedRuleSet, PodName, PolicyDigest, PolicySync, RuleSetId, Subject,
    members_hash, rule_set_hash,
};

use super::changes::{ChangedGroup, PolicyChanges};
use super::live::LiveTranslation;
use super::pod::PodKey;
use crate::sync::{Messages, encoded_bytes};

/// Addresses in one entry of a message, so that a large group fits into several.
const ADDRESSES: usize = 1000;
/// The longest text of an address, with quotes and a comma.
const ADDRESS_BYTES: usize = 42;

/// The parts of a change for what has changed; none if nothing has.
#[must_use]
pub fn changed(live: &LiveTranslation, changes: PolicyChanges) -> Vec<PolicySync> {
    let mut parts = Parts::new();
    let PolicyChanges { groups, rule_sets, subjects } = changes;
    for (id, change) in &groups {
        if matches!(change, ChangedGroup::Remade { was_there: true }) {
            parts.empty_group(id);
        }
    }
    for (id, change) in groups {
        match change {
            ChangedGroup::Remade { .. } => {
                let join: Vec<IpAddr> = live.members(&id).copied().collect();
                parts.group(&id, &[], &join);
            }
            ChangedGroup::Members(members) => {
                let (mut leave, mut join) = (Vec::new(), Vec::new());
                for (address, was_member) in members {
                    match (was_member, live.is_member(&id, address)) {
                        (true, false) => leave.push(address),
                        (false, true) => join.push(address),
                        _ => {}
                    }
                }
                parts.group(&id, &leave, &join);
            }
        }
    }
    for id in rule_sets.keys() {
        if live.rule_set(id).is_some() {
            parts.rule_set(live, id);
        }
    }
    for (id, was_there) in rule_sets {
        if was_there && live.rule_set(&id).is_none() {
            parts.remove_rule_set(id);
        }
    }
    for (key, was) in &subjects {
        let now = live.subjects().get(key).map(|subject| &subject.pod);
        if let Some(was) = was.as_ref().filter(|was| now != Some(was)) {
            parts.remove_subject(was.clone());
        }
    }
    for subject in subjects.keys().filter_map(|key| live.subjects().get(key)) {
        parts.subject(subject.clone());
    }
    parts.finish(false)
}

/// The parts of a change for what the daemon has not, or has and should not have; at least one, as the
/// answer to the last one tells what the daemon refuses.
#[must_use]
pub fn difference(live: &LiveTranslation, digest: PolicyDigest) -> Vec<PolicySync> {
    let mut parts = Parts::new();
    // Where it has other members it is not known which.
    let has = |id: &GroupId| digest.groups.get(id).copied().unwrap_or(members_hash([]));
    let differing: Vec<&GroupId> =
        live.groups().filter(|id| has(id) != members_hash(live.members(id))).collect();
    let wanted: BTreeSet<&GroupId> = live.groups().collect();
    for id in digest.groups.keys() {
        if !wanted.contains(id) || differing.binary_search(&id).is_ok() {
            parts.empty_group(id);
        }
    }
    for id in differing {
        let join: Vec<IpAddr> = live.members(id).copied().collect();
        parts.group(id, &[], &join);
    }
    for (id, set) in live.rule_sets() {
        if digest.rule_sets.get(id) != Some(&rule_set_hash(set)) {
            parts.rule_set(live, id);
        }
    }
    for id in digest.rule_sets.into_keys().filter(|id| live.rule_set(id).is_none()) {
        parts.remove_rule_set(id);
    }
    let mut known = BTreeMap::new();
    for subject in digest.subjects {
        let PodName { namespace, name, .. } = subject.pod.clone();
        let key = PodKey { namespace, name };
        if live.subjects().get(&key).is_some_and(|wanted| wanted.pod == subject.pod) {
            known.insert(key, subject);
        } else {
            parts.remove_subject(subject.pod);
        }
    }
    for (key, subject) in live.subjects() {
        if known.get(key) != Some(subject) {
            parts.subject(subject.clone());
        }
    }
    parts.finish(true)
}

/// Whether a part changes nothing.
#[must_use]
pub fn is_empty(part: &PolicySync) -> bool {
    let PolicySync {
        gone_groups, groups, gone_rule_sets, rule_sets, gone_subjects, subjects, ..
    } = part;
    gone_groups.is_empty()
        && groups.is_empty()
        && gone_rule_sets.is_empty()
        && rule_sets.is_empty()
        && gone_subjects.is_empty()
        && subjects.is_empty()
}

/// The parts of a change as they are filled: first what groups lose and get, then rule sets, then subjects.
struct Parts(Messages<PolicySync>);

impl Parts {
    fn new() -> Self {
        Self(Messages::new(PolicySync::default))
    }

    fn empty_group(&mut self, id: &GroupId) {
        self.0.room_for(encoded_bytes(id)).gone_groups.push(id.clone());
    }

    fn group(&mut self, id: &GroupId, leave: &[IpAddr], join: &[IpAddr]) {
        let change = |leave: &[IpAddr], join: &[IpAddr]| GroupChange {
            group: id.clone(),
            leave: leave.to_vec(),
            join: join.to_vec(),
        };
        let leave = leave.chunks(ADDRESSES).map(|leave| change(leave, &[]));
        let join = join.chunks(ADDRESSES).map(|join| change(&[], join));
        for change in leave.chain(join) {
            let addresses = change.leave.len() + change.join.len();
            let empty = GroupChange { leave: Vec::new(), join: Vec::new(), ..change.clone() };
            let bytes = encoded_bytes(&empty) + 16 + addresses * ADDRESS_BYTES;
            self.0.room_for(bytes).groups.push(change);
        }
    }

    fn rule_set(&mut self, live: &LiveTranslation, id: &RuleSetId) {
        let Some(set) = live.rule_set(id) else { return };
        let set = NamedRuleSet { id: id.clone(), set: set.clone() };
        self.0.room_for(encoded_bytes(&set)).rule_sets.push(set);
    }

    fn remove_rule_set(&mut self, id: RuleSetId) {
        self.0.room_for(encoded_bytes(&id)).gone_rule_sets.push(id);
    }

    fn remove_subject(&mut self, pod: PodName) {
        self.0.room_for(encoded_bytes(&pod)).gone_subjects.push(pod);
    }

    fn subject(&mut self, subject: Subject) {
        self.0.room_for(encoded_bytes(&subject)).subjects.push(subject);
    }

    /// The parts in their order; with `always` there is at least one.
    fn finish(mut self, always: bool) -> Vec<PolicySync> {
        if always {
            self.0.room_for(0);
        }
        let mut all = self.0.all;
        for (part, number) in all.iter_mut().zip(0..) {
            part.part = number;
        }
        if let Some(last) = all.last_mut() {
            last.commit = true;
        }
        all
    }
}
