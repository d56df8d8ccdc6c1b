//! The rules of a subject by the peers that they match.
//!
//! Enters: rules. Leaves: to `rules`, the numbers of those that match what some sets contain, so that no
//! others are gone through. It takes no more memory than the rules do, whichever classes of peers there
//! are.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{PeerSetId, Rule, RulePeers};

/// Rules by peers. Numbers ascend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    for_any: Listed,
    /// Numbers of sets are ours: no seed has to be secret.
    by_set: HashMap<PeerSetId, Listed, FixedState>,
    /// The sets that rules name, ascending.
    named: Box<[PeerSetId]>,
}

/// Some rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Listed {
    numbers: Vec<u16>,
    /// Comparisons, if each of them is asked for its ports.
    comparisons: usize,
}

/// What it costs to find the rules of one set, in comparisons of ports.
const FIND: usize = 4;

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (number, rule) in (0u16..).zip(rules) {
            // By halves, and one to see whether it is it.
            let comparisons = 2 + rule.spans.len().checked_ilog2().unwrap_or(0) as usize;
            let list = |listed: &mut Listed| {
                // A set may be named twice.
                if listed.numbers.last() != Some(&number) {
                    listed.numbers.push(number);
                    listed.comparisons += comparisons;
                }
            };
            match &rule.peers {
                RulePeers::Any => list(&mut index.for_any),
                RulePeers::Sets(sets) => {
                    sets.iter().for_each(|set| list(index.by_set.entry(*set).or_default()));
                }
            }
        }
        let mut named: Vec<_> = index.by_set.keys().copied().collect();
        named.sort_unstable();
        index.named = named.into();
        index
    }

    /// The numbers of rules that match what these sets contain, which ascend: in several lists.
    pub(super) fn matching<'a>(&'a self, sets: &'a [PeerSetId]) -> impl Iterator<Item = &'a [u16]> {
        self.listed(sets).map(|listed| &listed.numbers[..])
    }

    /// Comparisons of ports that a judgement of what these sets contain takes at most, by all tiers.
    pub(super) fn comparisons(&self, sets: &[PeerSetId]) -> usize {
        let finds = FIND * sets.len().min(self.named.len());
        finds + self.listed(sets).map(|listed| listed.comparisons).sum::<usize>()
    }

    fn listed<'a>(&'a self, sets: &'a [PeerSetId]) -> impl Iterator<Item = &'a Listed> {
        // By the fewer: those of the peer, or those that rules name.
        let (of_peer, named) = match sets.len() <= self.named.len() {
            true => (sets, &[][..]),
            false => (&[][..], &self.named[..]),
        };
        let named = named.iter().filter(|set| sets.binary_search(set).is_ok());
        let by_sets = of_peer.iter().chain(named).filter_map(|set| self.by_set.get(set));
        by_sets.chain(core::iter::once(&self.for_any))
    }
}
