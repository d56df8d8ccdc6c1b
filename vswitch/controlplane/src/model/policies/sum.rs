//! The sum over all that is known of policies: of each member, rule set and pod, put together by XOR, so that
//! a change costs what it touches.

use std::hash::Hasher;
use std::net::IpAddr;

use api::{Fnv, GroupId, PodName, RuleSet, RuleSetId, Subject, members_hash, rule_set_hash};

pub(super) fn sum_of_member(group: &GroupId, member: &IpAddr) -> u64 {
    let mut sum = Sum::new(1);
    sum.text(&group.0);
    sum.number(members_hash([member]));
    sum.0.finish()
}

pub(super) fn sum_of_rules(id: &RuleSetId, set: &RuleSet) -> u64 {
    let mut sum = Sum::new(2);
    sum.text(&id.0);
    sum.number(rule_set_hash(set));
    sum.0.finish()
}

pub(super) fn sum_of_subject(subject: &Subject) -> u64 {
    let Subject { pod: PodName { namespace, name, uid }, rules } = subject;
    let mut sum = Sum::new(3);
    sum.text(namespace);
    sum.text(name);
    sum.text(uid.as_deref().unwrap_or_default());
    for ids in [&rules.ingress, &rules.egress] {
        sum.number(ids.len() as u64);
        ids.iter().for_each(|id| sum.text(&id.0));
    }
    sum.0.finish()
}

/// A hash of parts, of which each is told from the next.
struct Sum(Fnv);

impl Sum {
    fn new(kind: u64) -> Self {
        let mut sum = Self(Fnv::default());
        sum.number(kind);
        sum
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.write(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }
}
