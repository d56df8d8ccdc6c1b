//! The rules of a subject in one direction, in the order of evaluation.
//!
//! Enters: rules, from the compiler, which works a matrix out of them. Leaves: answers to
//! `Policies::judge` where that would be too large: the rules that match the peer are gone through, one
//! after the other.
//!
//! Three tiers follow one another: that of administrators, that of network policies, the baseline. In
//! each the first rule that matches decides, or passes on to the next tier. What no rule of network
//! policies matches is denied if the subject has any such policy. What gets to the end is allowed.

use core::ops::Range;

use super::index::Index;
use super::{Judgement, PeerSetId, PortKey, PortSpan, RuleNumber};

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is allowed.
    Allow,
    /// It is denied.
    Deny,
    /// The next tier decides.
    Pass,
}

/// Peers that a rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RulePeers {
    /// Every address.
    Any,
    /// Those in any of these sets.
    Sets(Box<[PeerSetId]>),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// Peers that it matches.
    pub peers: RulePeers,
    /// Ports that it matches; none of them overlap, and they ascend.
    pub spans: Box<[PortSpan]>,
}

impl Rule {
    fn has_port(&self, key: PortKey) -> bool {
        let at = self.spans.partition_point(|span| span.last < key);
        self.spans.get(at).is_some_and(|span| span.contains(key))
    }
}

/// The rules of a subject in one direction. A rule's number is its place in all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    all: Vec<Rule>,
    /// Where the network policies' rules begin, and where they end.
    network_policy: Range<usize>,
    /// There is a network policy.
    isolated: bool,
    index: Index,
}

impl Rules {
    /// The rules of the three tiers; `None` in the middle if no network policy selects the subject.
    #[must_use]
    pub fn new(admin: Vec<Rule>, network_policy: Option<Vec<Rule>>, baseline: Vec<Rule>) -> Self {
        let isolated = network_policy.is_some();
        let mut all = admin;
        let start = all.len();
        all.extend(network_policy.unwrap_or_default());
        let end = all.len();
        all.extend(baseline);
        let index = Index::new(&all);
        Self { all, network_policy: start..end, isolated, index }
    }

    /// The rules by their numbers.
    #[must_use]
    pub fn all(&self) -> &[Rule] {
        &self.all
    }

    /// Judges what these sets contain, which ascend.
    #[must_use]
    pub fn judge(&self, sets: &[PeerSetId], key: PortKey) -> Judgement {
        self.decide(|range| {
            let mut first = range.end;
            let lists = self.index.matching(sets).filter(|_| !range.is_empty());
            for list in lists {
                let begin = list.partition_point(|number| usize::from(*number) < range.start);
                let numbers = list.get(begin..).unwrap_or_default().iter().copied();
                let before = numbers.map(usize::from).take_while(|number| *number < first);
                let has_port =
                    |number: &usize| self.all.get(*number).is_some_and(|rule| rule.has_port(key));
                first = before.into_iter().find(has_port).unwrap_or(first);
            }
            (first < range.end).then_some(first)
        })
    }

    /// Comparisons of ports that a judgement of what these sets contain takes at most. One takes a
    /// nanosecond or two.
    #[must_use]
    pub fn comparisons(&self, sets: &[PeerSetId]) -> usize {
        self.index.comparisons(sets)
    }

    /// Judges by the first rule that matches in a range of the numbers: the order of the tiers, and
    /// what holds if none does.
    #[must_use]
    pub fn decide(&self, first_in: impl Fn(Range<usize>) -> Option<usize>) -> Judgement {
        let Range { start, end } = self.network_policy;
        let tiers = [(0..start, false), (start..end, self.isolated), (end..self.all.len(), false)];
        for (tier, is_final) in tiers {
            let found = first_in(tier);
            let rule = found.and_then(|number| Some((number, self.all.get(number)?)));
            match rule.map(|(number, rule)| (number, rule.action)) {
                Some((_, Action::Pass)) => {}
                Some((number, action)) => {
                    let rule = RuleNumber(number as u16);
                    return Judgement { allowed: action == Action::Allow, rule };
                }
                None if is_final => return Judgement::DENIED,
                None => {}
            }
        }
        Judgement::ALLOWED
    }
}
