//! Numbers of the peer sets, the groups and blocks that rules name.
//!
//! Enters: the rule sets that come and go. Leaves: a small number of each set, as long as a rule set
//! names it, and word of the sets that are named for the first time or no more.

use std::collections::BTreeMap;

use api::{GroupId, PeerBlock};
use dataplane::tables::policy::PeerSetId;

/// A group or block.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PeerSet {
    /// A group of pods.
    Group(GroupId),
    /// A block of addresses.
    Block(PeerBlock),
}

/// The sets that rules name.
#[derive(Debug, Default)]
pub(super) struct PeerSets {
    sets: BTreeMap<PeerSet, Named>,
    free: Vec<PeerSetId>,
    made: u32,
}

#[derive(Debug)]
struct Named {
    id: PeerSetId,
    /// How often rules name it.
    times: usize,
}

impl PeerSets {
    /// The number of a set that a rule names once more, and whether it is the first to.
    pub(super) fn name(&mut self, set: PeerSet) -> (PeerSetId, bool) {
        let Self { sets, free, made } = self;
        let named = sets.entry(set).or_insert_with(|| {
            let id = free.pop().unwrap_or_else(|| {
                *made += 1;
                PeerSetId(*made - 1)
            });
            Named { id, times: 0 }
        });
        named.times += 1;
        (named.id, named.times == 1)
    }

    /// The number that a set had, if the rule that names it no more was the last to.
    pub(super) fn release(&mut self, set: &PeerSet) -> Option<PeerSetId> {
        let named = self.sets.get_mut(set)?;
        named.times -= 1;
        if named.times > 0 {
            return None;
        }
        let Named { id, .. } = self.sets.remove(set)?;
        self.free.push(id);
        Some(id)
    }

    /// The number of a group that rules name.
    pub(super) fn group(&self, group: &GroupId) -> Option<PeerSetId> {
        self.sets.get(&PeerSet::Group(group.clone())).map(|named| named.id)
    }
}
