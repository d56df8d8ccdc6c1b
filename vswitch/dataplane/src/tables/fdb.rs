//! The learned half of the forwarding database: behind which VTEP a MAC is. One per worker.
//!
//! Enters: what `bridge` saw as a source from another end of a segment. Leaves: answers to `bridge`.
//! MACs that are known without learning, as those of this node's pods, stand in
//! [`Bridge::fdb`](super::Bridge) and come first.
//!
//! What makes it more than a map:
//! - **Bounded.** All memory is reserved at the start; a full table gives away the entry that was
//!   not seen for the longest time.
//! - **Ageing without a sweep.** An entry that was not seen for the ageing time counts as absent;
//!   `expire` gives its room back when the worker has time.

use core::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{BridgeId, PortId, VtepId};
use crate::Millis;
use crate::wire::MacAddr;

/// Where a frame for a MAC goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdbTarget {
    /// Out of a port here.
    Port(PortId),
    /// Through the overlay.
    Vtep(VtepId),
}

/// A learned MAC, as it is shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnedMac {
    /// The bridge domain.
    pub bridge: BridgeId,
    /// The MAC.
    pub mac: MacAddr,
    /// The other end of the segment that it is behind.
    pub vtep: VtepId,
    /// When it was last seen as a source.
    pub seen: Millis,
}

/// Refreshing more often than this would only write to memory.
const REFRESH_MS: u64 = 1000;

const NIL: u32 = u32::MAX;

/// Learned MACs of one worker.
#[derive(Debug)]
pub struct Fdb {
    index: HashMap<(BridgeId, MacAddr), u32, RandomState>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Ends of the list of all entries, in the order in which they were last seen.
    oldest: u32,
    newest: u32,
    ageing_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    entry: LearnedMac,
    older: u32,
    newer: u32,
}

impl Fdb {
    /// Room for `max` entries, each kept for `ageing_ms` after it was last seen.
    #[must_use]
    pub fn new(max: u32, ageing_ms: u64) -> Self {
        let max = max.clamp(1, NIL - 1);
        Self {
            // Twice as much: a map that is full of tombstones is cleaned in place as long as its
            // entries are no more than half of its capacity, and grows beyond.
            index: HashMap::with_capacity_and_hasher(
                2 * (max as usize + 1),
                RandomState::default(),
            ),
            slots: Vec::with_capacity(max as usize),
            free: (0..max).rev().collect(),
            oldest: NIL,
            newest: NIL,
            ageing_ms,
        }
    }

    /// The VTEP that the MAC is behind, unless its entry is too old.
    #[inline]
    #[must_use]
    pub fn lookup(&self, bridge: BridgeId, mac: MacAddr, now: Millis) -> Option<VtepId> {
        let slot = self.slots.get(*self.index.get(&(bridge, mac))? as usize)?;
        (now.since(slot.entry.seen) <= self.ageing_ms).then_some(slot.entry.vtep)
    }

    /// Notes that `mac` was seen as a source behind `vtep`.
    pub fn learn(&mut self, bridge: BridgeId, mac: MacAddr, vtep: VtepId, now: Millis) {
        let entry = LearnedMac { bridge, mac, vtep, seen: now };
        if let Some(&at) = self.index.get(&(bridge, mac)) {
            let Some(slot) = self.slots.get(at as usize).copied() else { return };
            if slot.entry.vtep == vtep && now.since(slot.entry.seen) < REFRESH_MS {
                return;
            }
            self.unlink(at);
            self.link(at, entry);
            return;
        }
        if self.free.is_empty() {
            self.remove(self.oldest);
        }
        let Some(at) = self.free.pop() else { return };
        self.index.insert((bridge, mac), at);
        self.link(at, entry);
    }

    /// Gives back the room of at most `budget` entries that are too old.
    pub fn expire(&mut self, now: Millis, budget: usize) {
        for _ in 0..budget {
            match self.slots.get(self.oldest as usize) {
                Some(slot) if now.since(slot.entry.seen) > self.ageing_ms => {
                    self.remove(self.oldest);
                }
                _ => return,
            }
        }
    }

    /// Forgets everything: the numbers of VTEPs are going to mean others.
    pub fn forget_all(&mut self) {
        while self.oldest != NIL {
            self.remove(self.oldest);
        }
    }

    /// The entries in some of the slots that are not too old: pages of a table that is copied while
    /// it changes.
    pub fn page(&self, slots: Range<usize>, now: Millis) -> impl Iterator<Item = LearnedMac> + '_ {
        let end = slots.end.min(self.slots.len());
        let page = self.slots.get(slots.start.min(end)..end).unwrap_or_default();
        (slots.start..).zip(page).map(|(at, slot)| (at, slot.entry)).filter_map(
            move |(at, entry)| {
                // A slot that is free keeps what it had.
                let holder = self.index.get(&(entry.bridge, entry.mac));
                let is_held = holder.is_some_and(|holder| *holder as usize == at);
                (is_held && now.since(entry.seen) <= self.ageing_ms).then_some(entry)
            },
        )
    }

    /// Slots that were ever used.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Entries held, old ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn remove(&mut self, at: u32) {
        let Some(slot) = self.slots.get(at as usize).copied() else { return };
        self.unlink(at);
        self.index.remove(&(slot.entry.bridge, slot.entry.mac));
        self.free.push(at);
    }

    /// Appends a slot, free or just unlinked, as the newest.
    fn link(&mut self, at: u32, entry: LearnedMac) {
        let slot = Slot { entry, older: self.newest, newer: NIL };
        match self.slots.get_mut(self.newest as usize) {
            Some(previous) => previous.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
        // Slots are taken in ascending order the first time, so `at` is at most one past the end.
        match self.slots.get_mut(at as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some(slot) = self.slots.get(at as usize).copied() else { return };
        match self.slots.get_mut(slot.older as usize) {
            Some(older) => older.newer = slot.newer,
            None => self.oldest = slot.newer,
        }
        match self.slots.get_mut(slot.newer as usize) {
            Some(newer) => newer.older = slot.older,
            None => self.newest = slot.older,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::Fdb;
    use crate::Millis;
    use crate::tables::{BridgeId, VtepId};
    use crate::wire::MacAddr;

    const BRIDGE: BridgeId = BridgeId(0);
    const AGEING_MS: u64 = 300_000;

    fn mac(number: u32) -> MacAddr {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddr([0x02, 0, a, b, c, d])
    }

    fn learn(fdb: &mut Fdb, number: u32, vtep: u16, now: u64) {
        fdb.learn(BRIDGE, mac(number), VtepId(vtep), Millis(now));
    }

    fn lookup(fdb: &Fdb, number: u32, now: u64) -> Option<u16> {
        fdb.lookup(BRIDGE, mac(number), Millis(now)).map(|vtep| vtep.0)
    }

    #[test]
    fn a_mac_moves_with_its_last_frame() {
        let mut fdb = Fdb::new(8, AGEING_MS);
        learn(&mut fdb, 1, 10, 0);
        learn(&mut fdb, 1, 11, 1);
        assert_eq!(lookup(&fdb, 1, 1), Some(11));
        assert_eq!(fdb.len(), 1);
    }

    #[test]
    fn an_entry_ages_unless_it_is_seen() {
        let mut fdb = Fdb::new(8, AGEING_MS);
        learn(&mut fdb, 1, 10, 0);
        learn(&mut fdb, 2, 10, 0);
        learn(&mut fdb, 1, 10, 5_000);
        assert_eq!(lookup(&fdb, 1, AGEING_MS + 1), Some(10));
        assert_eq!(lookup(&fdb, 2, AGEING_MS + 1), None);
        fdb.expire(Millis(AGEING_MS + 1), 100);
        assert_eq!(fdb.len(), 1);
    }

    #[test]
    fn no_more_entries_expire_at_once_than_the_worker_has_time_for() {
        let mut fdb = Fdb::new(8, AGEING_MS);
        for number in 0..5 {
            learn(&mut fdb, number, 10, 0);
        }
        fdb.expire(Millis(AGEING_MS + 1), 3);
        assert_eq!(fdb.len(), 2);
    }

    #[test]
    fn the_same_mac_in_another_domain_is_another_host() {
        let mut fdb = Fdb::new(8, AGEING_MS);
        learn(&mut fdb, 1, 10, 0);
        assert_eq!(fdb.lookup(BridgeId(1), mac(1), Millis(0)), None);
    }

    #[test]
    fn a_full_table_gives_away_what_was_not_seen_for_the_longest_time() {
        let mut fdb = Fdb::new(4, AGEING_MS);
        for number in 0..4 {
            learn(&mut fdb, number, 10, u64::from(number));
        }
        learn(&mut fdb, 0, 10, 2_000);
        learn(&mut fdb, 4, 11, 2_001);
        assert_eq!(fdb.len(), 4);
        assert_eq!(lookup(&fdb, 1, 2_001), None);
        assert_eq!(
            [0, 2, 3, 4].map(|number| lookup(&fdb, number, 2_001)),
            [10, 10, 10, 11].map(Some)
        );
    }

    #[test]
    fn what_is_forgotten_leaves_all_room() {
        let mut fdb = Fdb::new(3, AGEING_MS);
        for number in 0..3 {
            learn(&mut fdb, number, 10, 0);
        }
        fdb.forget_all();
        assert!(fdb.is_empty());
        for number in 3..6 {
            learn(&mut fdb, number, 10, 0);
        }
        assert_eq!((fdb.len(), fdb.slots()), (3, 3));
    }

    #[test]
    fn pages_have_what_is_held_and_not_too_old() {
        let mut fdb = Fdb::new(6, AGEING_MS);
        for number in 0..6 {
            learn(&mut fdb, number, 10, u64::from(number));
        }
        // They take the room of two.
        learn(&mut fdb, 8, 12, 6);
        learn(&mut fdb, 9, 12, 6);
        let macs = |slots, now| {
            let mut macs: Vec<_> =
                fdb.page(slots, Millis(now)).map(|entry| entry.mac.0[5]).collect();
            macs.sort_unstable();
            macs
        };
        assert_eq!(fdb.slots(), 6);
        assert_eq!(macs(0..100, 6), [2, 3, 4, 5, 8, 9]);
        assert_eq!(macs(0..100, AGEING_MS + 4), [4, 5, 8, 9]);
        let (first, second) = (macs(0..3, 6), macs(3..100, 6));
        assert_eq!(first.len() + second.len(), 6);
        assert!(first.iter().all(|mac| !second.contains(mac)));
        assert_eq!(macs(6..100, 6), [0; 0]);
        assert_eq!(macs(50..60, 6), [0; 0]);
    }

    proptest! {
        #[test]
        fn list_and_index_agree_after_any_history(
            steps in proptest::collection::vec((0u8..4, 0u32..24, 0u16..5, 0u64..2_000), 1..200)
        ) {
            let mut fdb = Fdb::new(16, 10_000);
            let mut now = 0;
            for (what, number, vtep, passed) in steps {
                now += passed;
                match what {
                    0 => fdb.expire(Millis(now), 3),
                    1 if number == 0 => fdb.forget_all(),
                    _ => {
                        learn(&mut fdb, number, vtep, now);
                        prop_assert_eq!(lookup(&fdb, number, now), Some(vtep));
                    }
                }
                prop_assert_eq!(fdb.free.len() + fdb.len(), 16);
                let (mut at, mut previous, mut count) = (fdb.oldest, super::NIL, 0);
                let mut seen = Millis(0);
                while at != super::NIL {
                    let slot = fdb.slots[at as usize];
                    prop_assert_eq!(slot.older, previous);
                    prop_assert!(slot.entry.seen >= seen);
                    prop_assert_eq!(fdb.index.get(&(BRIDGE, slot.entry.mac)), Some(&at));
                    (seen, previous, at, count) = (slot.entry.seen, at, slot.newer, count + 1);
                }
                prop_assert_eq!((fdb.newest, count), (previous, fdb.len()));
            }
        }
    }
}
