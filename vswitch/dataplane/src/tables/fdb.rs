//! The learned half of the forwarding database: behind which port a MAC is. One per worker.
//!
//! Enters: what `bridge` saw as a source. Leaves: answers to `bridge`. MACs that are known without
//! learning stand in [`Bridge::fdb`](super::Bridge) and come first.
//!
//! What makes it more than a map:
//! - **Bounded.** All memory is reserved at the start.
//! - **Fair.** A full table takes room from the port that holds most entries, its oldest first. A
//!   pod that floods with random MACs so pushes out its own entries and no other's.
//! - **Ageing without a sweep.** An entry that was not seen for the ageing time counts as absent;
//!   `expire` gives its room back when the worker has time.

use core::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::port::MAX_PORTS;
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
    /// Where it is.
    pub target: FdbTarget,
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
    /// By the port that an entry was learned from, oldest first; a VTEP's count for the uplink.
    queues: Vec<Queue>,
    largest: usize,
    largest_may_have_shrunk: bool,
    ageing_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    entry: LearnedMac,
    port: PortId,
    older: u32,
    newer: u32,
}

#[derive(Debug, Clone, Copy)]
struct Queue {
    oldest: u32,
    newest: u32,
    len: u32,
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
            queues: vec![Queue { oldest: NIL, newest: NIL, len: 0 }; MAX_PORTS],
            largest: 0,
            largest_may_have_shrunk: false,
            ageing_ms,
        }
    }

    /// Where the MAC is, unless its entry is too old.
    #[inline]
    #[must_use]
    pub fn lookup(&self, bridge: BridgeId, mac: MacAddr, now: Millis) -> Option<FdbTarget> {
        let slot = self.slots.get(*self.index.get(&(bridge, mac))? as usize)?;
        (now.since(slot.entry.seen) <= self.ageing_ms).then_some(slot.entry.target)
    }

    /// Notes that `mac` was seen as a source behind `target`, arriving by `port`.
    pub fn learn(
        &mut self,
        bridge: BridgeId,
        mac: MacAddr,
        target: FdbTarget,
        port: PortId,
        now: Millis,
    ) {
        if usize::from(port.0) >= self.queues.len() {
            return;
        }
        let entry = LearnedMac { bridge, mac, target, seen: now };
        if let Some(&at) = self.index.get(&(bridge, mac)) {
            let Some(slot) = self.slots.get(at as usize).copied() else { return };
            if slot.entry.target == target && now.since(slot.entry.seen) < REFRESH_MS {
                return;
            }
            self.unlink(at);
            self.link(at, entry, port);
            return;
        }
        if self.free.is_empty() {
            self.evict_for(port);
        }
        let Some(at) = self.free.pop() else { return };
        self.index.insert((bridge, mac), at);
        self.link(at, entry, port);
    }

    /// Gives back the room of at most `budget` entries that are too old.
    pub fn expire(&mut self, now: Millis, budget: usize) {
        let mut left = budget;
        for port in 0..self.queues.len() {
            while left > 0 {
                let Some(oldest) = self.queues.get(port).map(|queue| queue.oldest) else { break };
                let Some(slot) = self.slots.get(oldest as usize).filter(|_| oldest != NIL) else {
                    break;
                };
                if now.since(slot.entry.seen) <= self.ageing_ms {
                    break;
                }
                self.remove(oldest);
                left -= 1;
            }
        }
    }

    /// Forgets everything that was learned from a port: it is gone, or its number is reused.
    pub fn forget_port(&mut self, port: PortId) {
        while let Some(oldest) = self.queues.get(usize::from(port.0)).map(|queue| queue.oldest)
            && oldest != NIL
        {
            self.remove(oldest);
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

    /// Makes one slot free: the oldest entry of the port that holds most.
    fn evict_for(&mut self, port: PortId) {
        let own = self.queue_len(usize::from(port.0));
        if self.largest_may_have_shrunk {
            self.largest =
                (0..self.queues.len()).max_by_key(|&port| self.queue_len(port)).unwrap_or(0);
            self.largest_may_have_shrunk = false;
        }
        // A tie is the newcomer's own loss.
        let victim = if own > 0 && own >= self.queue_len(self.largest) {
            usize::from(port.0)
        } else {
            self.largest
        };
        if let Some(oldest) = self.queues.get(victim).map(|queue| queue.oldest) {
            self.remove(oldest);
        }
    }

    fn queue_len(&self, port: usize) -> u32 {
        self.queues.get(port).map_or(0, |queue| queue.len)
    }

    fn remove(&mut self, at: u32) {
        let Some(slot) = self.slots.get(at as usize).copied() else { return };
        self.unlink(at);
        self.index.remove(&(slot.entry.bridge, slot.entry.mac));
        self.free.push(at);
    }

    /// Appends a slot, free or just unlinked, as its port's newest.
    fn link(&mut self, at: u32, entry: LearnedMac, port: PortId) {
        let Some(queue) = self.queues.get_mut(usize::from(port.0)) else { return };
        let slot = Slot { entry, port, older: queue.newest, newer: NIL };
        let previous = queue.newest;
        queue.newest = at;
        queue.len += 1;
        if previous == NIL {
            queue.oldest = at;
        }
        let len = queue.len;
        if let Some(previous) = self.slots.get_mut(previous as usize) {
            previous.newer = at;
        }
        // Slots are taken in ascending order the first time, so `at` is at most one past the end.
        match self.slots.get_mut(at as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        if len > self.queue_len(self.largest) {
            self.largest = usize::from(port.0);
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some(slot) = self.slots.get(at as usize).copied() else { return };
        let Some(queue) = self.queues.get_mut(usize::from(slot.port.0)) else { return };
        queue.len = queue.len.saturating_sub(1);
        if queue.oldest == at {
            queue.oldest = slot.newer;
        }
        if queue.newest == at {
            queue.newest = slot.older;
        }
        if let Some(older) = self.slots.get_mut(slot.older as usize) {
            older.newer = slot.newer;
        }
        if let Some(newer) = self.slots.get_mut(slot.newer as usize) {
            newer.older = slot.older;
        }
        self.largest_may_have_shrunk |= usize::from(slot.port.0) == self.largest;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::{Fdb, FdbTarget};
    use crate::Millis;
    use crate::tables::{BridgeId, PortId};
    use crate::wire::MacAddr;

    const BRIDGE: BridgeId = BridgeId(0);
    const AGEING_MS: u64 = 300_000;

    fn mac(number: u32) -> MacAddr {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddr([0x02, 0, a, b, c, d])
    }

    fn learn(fdb: &mut Fdb, number: u32, port: u16, now: u64) {
        let port = PortId(port);
        fdb.learn(BRIDGE, mac(number), FdbTarget::Port(port), port, Millis(now));
    }

    fn lookup(fdb: &Fdb, number: u32, now: u64) -> Option<u16> {
        match fdb.lookup(BRIDGE, mac(number), Millis(now)) {
            Some(FdbTarget::Port(port)) => Some(port.0),
            _ => None,
        }
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
    fn the_same_mac_in_another_domain_is_another_host() {
        let mut fdb = Fdb::new(8, AGEING_MS);
        learn(&mut fdb, 1, 10, 0);
        assert_eq!(fdb.lookup(BridgeId(1), mac(1), Millis(0)), None);
    }

    #[test]
    fn a_flood_of_macs_pushes_out_the_flooders_own() {
        let mut fdb = Fdb::new(64, AGEING_MS);
        for number in 0..8 {
            learn(&mut fdb, number, 10 + number as u16, 0);
        }
        for number in 1_000..100_000 {
            learn(&mut fdb, number, 99, 1);
        }
        assert_eq!(fdb.len(), 64);
        for number in 0..8 {
            assert_eq!(lookup(&fdb, number, 1), Some(10 + number as u16));
        }
        // And a newcomer finds room even now.
        learn(&mut fdb, 500, 42, 2);
        assert_eq!(lookup(&fdb, 500, 2), Some(42));
    }

    #[test]
    fn a_port_that_is_gone_leaves_nothing() {
        let mut fdb = Fdb::new(8, AGEING_MS);
        learn(&mut fdb, 1, 10, 0);
        learn(&mut fdb, 2, 10, 0);
        learn(&mut fdb, 3, 11, 0);
        fdb.forget_port(PortId(10));
        assert_eq!(fdb.len(), 1);
        assert_eq!(lookup(&fdb, 3, 0), Some(11));
    }

    #[test]
    fn pages_have_what_is_held_and_not_too_old() {
        let mut fdb = Fdb::new(8, AGEING_MS);
        for number in 0..6 {
            learn(&mut fdb, number, 10 + (number % 2) as u16, u64::from(number));
        }
        fdb.forget_port(PortId(11));
        learn(&mut fdb, 9, 12, 5);
        let macs = |slots, now| {
            let mut macs: Vec<_> =
                fdb.page(slots, Millis(now)).map(|entry| entry.mac.0[5]).collect();
            macs.sort_unstable();
            macs
        };
        assert_eq!(fdb.slots(), 6);
        assert_eq!(macs(0..100, 5), [0, 2, 4, 9]);
        assert_eq!(macs(0..100, AGEING_MS + 2), [2, 4, 9]);
        let (first, second) = (macs(0..3, 5), macs(3..100, 5));
        assert_eq!(first.len() + second.len(), 4);
        assert!(first.iter().all(|mac| !second.contains(mac)));
        assert_eq!(macs(6..100, 5), [0; 0]);
        assert_eq!(macs(50..60, 5), [0; 0]);
    }

    proptest! {
        #[test]
        fn lists_and_index_agree_after_any_history(
            steps in proptest::collection::vec((0u8..4, 0u32..24, 0u16..5, 0u64..2_000), 1..200)
        ) {
            let mut fdb = Fdb::new(16, 10_000);
            let mut now = 0;
            for (what, number, port, passed) in steps {
                now += passed;
                match what {
                    0 => fdb.expire(Millis(now), 3),
                    1 if number == 0 => fdb.forget_port(PortId(port)),
                    _ => {
                        learn(&mut fdb, number, port, now);
                        prop_assert_eq!(lookup(&fdb, number, now), Some(port));
                    }
                }
                let queued: u32 = fdb.queues.iter().map(|queue| queue.len).sum();
                prop_assert_eq!(queued as usize, fdb.len());
                prop_assert_eq!(fdb.free.len() + fdb.len(), 16);
                for queue in &fdb.queues {
                    let (mut at, mut count) = (queue.oldest, 0);
                    while at != super::NIL {
                        count += 1;
                        at = fdb.slots[at as usize].newer;
                    }
                    prop_assert_eq!(count, queue.len);
                }
            }
        }
    }
}
