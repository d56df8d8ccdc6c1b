//! The parts of a change of policies that have come so far.
//!
//! Enters: parts, in order. Leaves: the whole, with the last. Nothing of a change is in force before.

use api::{ErrorKind, ErrorReply, PolicyPeers, PolicySync, RuleSet};

use crate::model::refuse;

/// What a change may take until it is committed, as [`weight`] counts it, bytes: that all groups, rule sets
/// and pods which the agent may tell go, and as many others come with four million members.
const MAX_WEIGHT: usize = 256 << 20;

/// The parts that have come.
#[derive(Debug, Default)]
pub(super) struct Staged {
    whole: PolicySync,
    /// Number of the part that is to come; the first is always taken.
    next: u32,
    weight: usize,
}

impl Staged {
    /// Takes a part; all of them, if it is the last.
    ///
    /// # Errors
    /// If another part was to come, or there is no room; what was staged is discarded then.
    pub(super) fn take(&mut self, part: PolicySync) -> Result<Option<PolicySync>, ErrorReply> {
        let before = std::mem::take(self);
        let (mut whole, next, weight) = match part.part {
            0 => (PolicySync::default(), 0, 0),
            _ => (before.whole, before.next, before.weight),
        };
        if part.part != next {
            let message = format!(
                "policies: part {} came, and part {next} was to come; begin again with part 0",
                part.part
            );
            return Err(refuse(ErrorKind::Invalid, message));
        }
        let weight = weight.saturating_add(self::weight(&part));
        if weight > MAX_WEIGHT {
            let message = format!(
                "policies: a change of {weight} bytes and more; {MAX_WEIGHT} are possible: commit it in several"
            );
            return Err(refuse(ErrorKind::Exhausted, message));
        }
        let is_last = part.commit;
        append(&mut whole, part);
        if is_last {
            return Ok(Some(whole));
        }
        *self = Self { whole, next: next + 1, weight };
        Ok(None)
    }
}

fn append(whole: &mut PolicySync, part: PolicySync) {
    // By name: whatever else a part will have is not forgotten here.
    let PolicySync {
        part: _,
        commit: _,
        gone_groups,
        groups,
        gone_rule_sets,
        rule_sets,
        gone_subjects,
        subjects,
    } = part;
    whole.gone_groups.extend(gone_groups);
    whole.groups.extend(groups);
    whole.gone_rule_sets.extend(gone_rule_sets);
    whole.rule_sets.extend(rule_sets);
    whole.gone_subjects.extend(gone_subjects);
    whole.subjects.extend(subjects);
}

/// About the memory that a part takes: its names, and the size of each of its members, rules, blocks and
/// ports.
fn weight(part: &PolicySync) -> usize {
    const ENTRY: usize = 64;
    let names = |lens: &mut dyn Iterator<Item = usize>| lens.map(|len| len + ENTRY).sum::<usize>();
    let mut total = names(&mut part.gone_groups.iter().map(|id| id.0.len()));
    total += names(&mut part.gone_rule_sets.iter().map(|id| id.0.len()));
    total += names(&mut part.gone_subjects.iter().map(|pod| pod.name.len() + pod.namespace.len()));
    for change in &part.groups {
        let members = change.leave.len() + change.join.len();
        total += change.group.0.len() + ENTRY + members * size_of::<std::net::IpAddr>();
    }
    for named in &part.rule_sets {
        total += named.id.0.len() + weight_of_rules(&named.set);
    }
    for subject in &part.subjects {
        let ids = subject.rules.ingress.iter().chain(&subject.rules.egress);
        total += ENTRY + names(&mut ids.map(|id| id.0.len()));
    }
    total
}

fn weight_of_rules(set: &RuleSet) -> usize {
    let mut total = set.policy.len() + size_of::<RuleSet>();
    for rule in &set.rules {
        total += size_of_val(rule);
        total += rule.ports.iter().flatten().map(size_of_val).sum::<usize>();
        if let PolicyPeers::Of { groups, blocks } = &rule.peers {
            total += groups.iter().map(|id| id.0.len() + size_of_val(id)).sum::<usize>();
            let blocks = blocks.iter();
            total +=
                blocks.map(|block| size_of_val(block) + size_of_val(&*block.except)).sum::<usize>();
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use api::{ErrorKind, GroupId, PolicySync};

    use super::{MAX_WEIGHT, Staged};

    fn part(part: u32, commit: bool, group: &str) -> PolicySync {
        let gone_groups = vec![GroupId(group.into())];
        PolicySync { part, commit, gone_groups, ..PolicySync::default() }
    }

    #[test]
    fn parts_are_one_change_in_their_order() {
        let mut staged = Staged::default();
        assert_eq!(staged.take(part(0, false, "never committed")), Ok(None));
        assert_eq!(staged.take(part(0, false, "a")), Ok(None));
        assert_eq!(staged.take(part(1, false, "b")), Ok(None));
        let whole = staged.take(part(2, true, "c")).expect("it was to come").expect("the last");
        assert_eq!(whole.gone_groups, ["a", "b", "c"].map(|name| GroupId(name.into())));
        let refused = staged.take(part(3, true, "d")).expect_err("nothing was begun");
        assert_eq!(refused.kind, ErrorKind::Invalid);
    }

    #[test]
    fn a_wrong_part_discards_all_before_it() {
        let mut staged = Staged::default();
        for wrong in [2, u32::MAX] {
            assert_eq!(staged.take(part(0, false, "a")), Ok(None));
            let refused = staged.take(part(wrong, true, "b")).expect_err("part 1 was to come");
            assert!(refused.message.contains("begin again with part 0"), "{refused}");
            assert!(staged.take(part(1, true, "b")).is_err(), "it is discarded");
        }
    }

    #[test]
    fn what_is_staged_is_bounded() {
        let mut staged = Staged::default();
        let large = "a".repeat(MAX_WEIGHT / 4);
        for number in 0..3 {
            assert_eq!(staged.take(part(number, false, &large)), Ok(None));
        }
        let refused = staged.take(part(3, true, &large)).expect_err("too much");
        assert_eq!(refused.kind, ErrorKind::Exhausted);
        assert_eq!(staged.weight, 0, "nothing of it is kept");
    }
}
