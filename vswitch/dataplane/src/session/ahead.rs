//! Loads what a look-up is going to read, for many tuples at a time.
//!
//! Enters: locations, of the packets of a batch. Leaves: nothing, but the lines of their entries are in
//! the cache then. A look-up waits for the tags, then for the entry, and of a translated session for
//! those of its main entry too; taken one step for all packets before the next one, each is waited for
//! but once. Words are read without the bucket's sequence, and nothing is decided by them: what is
//! overwritten meanwhile costs a load.

use core::sync::atomic::Ordering;

use super::bucket::{LINE_WORDS, Word};
use super::entry::{Entry, Layout, decode};
use super::table::{Memory, Spot, Table};
use super::tuple::Sorted;
use super::{Location, SessionTable};

/// Sessions of more than a core's own cache: a megabyte of them, at two lines each.
const LARGE: u32 = 8192;

impl SessionTable {
    /// Whether its IPv4 sessions are so many that a look-up waits for memory, or for a cache that cores
    /// share.
    #[inline]
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.v4.counts.all() > LARGE
    }

    /// The first step: begins to load what `find_at` reads first.
    #[inline]
    pub fn prefetch(&self, at: &Location) {
        if at.is_v6 { self.v6.prefetch(&at.spot) } else { self.v4.prefetch(&at.spot) }
    }

    /// The second: begins to load the entry, whose tag is there.
    #[inline]
    pub fn prefetch_entry(&self, at: &Location) {
        if at.is_v6 { self.v6.prefetch_entry(&at.spot) } else { self.v4.prefetch_entry(&at.spot) }
    }

    /// The third: where the main entry is, if the one that was loaded is another's alias. The two steps
    /// that were taken with this location are to be taken with that.
    #[inline]
    #[must_use]
    pub fn behind_alias(&self, at: &Location) -> Option<Location> {
        let Location { spot, is_v6 } = at;
        let spot = if *is_v6 { self.v6.behind_alias(spot) } else { self.v4.behind_alias(spot) };
        Some(Location { spot: spot?, is_v6: *is_v6 })
    }
}

impl<L: Layout, M: Memory> Table<L, M> {
    /// Begins to load the tags of both buckets.
    #[inline]
    fn prefetch(&self, spot: &Spot) {
        for bucket in spot.buckets {
            self.memory.prefetch(self.begin_of(bucket));
        }
    }

    #[inline]
    fn prefetch_entry(&self, spot: &Spot) {
        if let Some(entry) = self.likely_entry(spot) {
            self.memory.prefetch(entry);
        }
    }

    #[inline]
    fn behind_alias(&self, spot: &Spot) -> Option<Spot> {
        let begin = self.likely_entry(spot)?;
        let words = self.memory.words().get(begin..begin + L::WORDS)?;
        let mut entry = L::ZERO;
        for (to, from) in entry.as_mut().iter_mut().zip(words) {
            *to = from.load(Ordering::Relaxed);
        }
        match decode(&entry)? {
            Entry::Main(_) => None,
            Entry::Alias { main, .. } => {
                Some(self.spot_of(Sorted { key: main, source_is_higher: false }))
            }
        }
    }

    /// The first word of the entry with the tag; its key is not looked at.
    #[inline]
    pub(super) fn likely_entry(&self, spot: &Spot) -> Option<usize> {
        spot.buckets.into_iter().find_map(|index| {
            let (slot, _) = self.bucket(index)?.slots().find(|(_, tag)| *tag == spot.tag)?;
            Some(self.begin_of(index) + LINE_WORDS + usize::from(slot) * L::WORDS)
        })
    }
}
