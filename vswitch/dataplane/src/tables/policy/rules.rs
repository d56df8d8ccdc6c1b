//! The rules of a subject in one direction, in the order of evaluation.
//!
//! Enters: rules, from the compiler, which works a matrix out of them. Leaves: answers to
//! `Policies::judge` where that would be too large: the rules are gone through, one after the other.
//!
//! Three tiers follow one another: that of administrators, that of network policies, the baseline. In
//! each the first rule that matches decides, or passes on to the next tier. What no rule of network
//! policies matches is denied if the subject has any such policy. What gets to the end is allowed.

use core::ops::Range;

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
    fn matches(&self, sets: &[PeerSetId], key: PortKey) -> bool {
        let is_peer = match &self.peers {
            RulePeers::Any => true,
            RulePeers::Sets(own) => own.iter().any(|set| sets.binary_search(set).is_ok()),
        };
        is_peer && self.spans.iter().any(|span| span.contains(key))
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
        Self { all, network_policy: start..end, isolated }
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
            let rules = self.all.get(range.clone()).unwrap_or_default();
            let found = rules.iter().position(|rule| rule.matches(sets, key))?;
            Some(range.start + found)
        })
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
