//! A hash table in parts that copies share, and that grow one at a time.
//!
//! Enters: prefixes of one length. Leaves: their adjacencies. It is a linear hash table: the number of
//! its parts grows by one whenever they have too many entries on average, and only the part whose turn it
//! is is divided then. A change copies one part at most, and no change waits for all of them.

use core::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::tables::AdjacencyId;

/// Entries of a part on average, at most. Those that are still to be divided have up to twice as many,
/// which a hash table with 1,024 places takes: seven eighths of them.
const PART: usize = 400;

/// Prefixes of so many words, and their adjacencies.
#[derive(Debug, Clone)]
pub(super) struct Shards<const WORDS: usize> {
    /// At least one.
    parts: Vec<Arc<Part<WORDS>>>,
    /// The least power of two that is no less than the number of parts, less one.
    mask: usize,
    /// Entries of all parts.
    len: usize,
    hasher: RandomState,
}

impl<const WORDS: usize> Default for Shards<WORDS> {
    fn default() -> Self {
        Self { parts: vec![Arc::default()], mask: 0, len: 0, hasher: RandomState::default() }
    }
}

type Part<const WORDS: usize> = HashTable<([u32; WORDS], u32)>;

impl<const WORDS: usize> Shards<WORDS> {
    pub(super) fn insert(&mut self, prefix: [u32; WORDS], adjacency: AdjacencyId) {
        let hash = self.hash(prefix);
        let at = self.part_of(hash);
        let Self { parts, len, hasher, .. } = self;
        let Some(part) = parts.get_mut(at) else { return };
        let part = Arc::make_mut(part);
        match part.find_mut(hash, |(other, _)| *other == prefix) {
            Some((_, known)) => *known = adjacency.0,
            None => {
                part.insert_unique(hash, (prefix, adjacency.0), |(other, _)| {
                    hash_of(hasher, *other)
                });
                *len += 1;
            }
        }
        if self.len > self.parts.len() * PART {
            self.divide();
        }
    }

    pub(super) fn remove(&mut self, prefix: [u32; WORDS]) {
        let hash = self.hash(prefix);
        let at = self.part_of(hash);
        if let Some(part) = self.parts.get_mut(at)
            && part.find(hash, |(other, _)| *other == prefix).is_some()
            && let Ok(entry) = Arc::make_mut(part).find_entry(hash, |(other, _)| *other == prefix)
        {
            entry.remove();
            self.len -= 1;
        }
    }

    #[inline]
    pub(super) fn get(&self, prefix: [u32; WORDS]) -> Option<AdjacencyId> {
        let hash = self.hash(prefix);
        let part = self.parts.get(self.part_of(hash))?;
        let (_, adjacency) = part.find(hash, |(other, _)| *other == prefix)?;
        Some(AdjacencyId(*adjacency))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.parts.capacity() * size_of::<Arc<Part<WORDS>>>()
            + self.parts.iter().map(|part| size(part)).sum::<usize>()
    }

    pub(super) fn unshared_bytes(&self, other: &Self) -> usize {
        let is_shared =
            |at: usize, part| other.parts.get(at).is_some_and(|other| Arc::ptr_eq(part, other));
        let own = self.parts.iter().enumerate().filter(|(at, part)| !is_shared(*at, part));
        own.map(|(_, part)| size(part)).sum()
    }

    /// Adds a part, which gets what belongs to it of the one that it is divided from.
    fn divide(&mut self) {
        let count = self.parts.len();
        let from = count - (1 << count.ilog2());
        let Some(old) = self.parts.get(from) else { return };
        let hash = |(prefix, _): &([u32; WORDS], u32)| hash_of(&self.hasher, *prefix);
        let (mut stay, mut go) = (Part::default(), Part::default());
        let mask = (count + 1).next_power_of_two() - 1;
        for entry in old.iter() {
            let part = if at_part(hash(entry), mask) == from { &mut stay } else { &mut go };
            part.insert_unique(hash(entry), *entry, hash);
        }
        if let Some(place) = self.parts.get_mut(from) {
            *place = Arc::new(stay);
        }
        self.parts.push(Arc::new(go));
        self.mask = mask;
    }

    /// The part of a hash: by its last bits, one more of them in the parts that have been divided.
    #[inline]
    fn part_of(&self, hash: u64) -> usize {
        let at = at_part(hash, self.mask);
        if at < self.parts.len() { at } else { at & self.mask >> 1 }
    }

    #[inline]
    fn hash(&self, prefix: [u32; WORDS]) -> u64 {
        hash_of(&self.hasher, prefix)
    }
}

fn size<const WORDS: usize>(part: &Part<WORDS>) -> usize {
    size_of::<Part<WORDS>>() + part.allocation_size()
}

#[inline]
fn hash_of<const WORDS: usize>(hasher: &RandomState, prefix: [u32; WORDS]) -> u64 {
    let mut wide = 0u128;
    for word in prefix {
        wide = wide << 32 | u128::from(word);
    }
    if WORDS <= 2 { hasher.hash_one(wide as u64) } else { hasher.hash_one(wide) }
}

/// Of the hash's upper half: hash tables take the last bits and the first seven.
#[inline]
fn at_part(hash: u64, mask: usize) -> usize {
    (hash >> 32) as usize & mask
}
