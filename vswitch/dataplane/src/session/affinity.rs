//! Affinities: which backend a client of a service had last, and when.
//!
//! Enters: left of the verdict, a client and its service; right of it, the backend that a new flow got.
//! Leaves: the backend of the client's last new flow, which the door `session` keeps while that is
//! usable. It belongs to the session table, which all workers share.
//!
//! A slot is two words: a check, and the backend's identity with the [`Tick`] of the last new flow. The
//! check is the client's key combined with the backend's identity. So a reader that sees one word of one
//! store and one of another finds nothing, and needs no lock: neither the other client's backend, nor
//! one that is made of two. What two workers store in one slot at once can be lost; its client then gets
//! the backend that it would have without affinity.
//!
//! A key can be in one set of [`WAYS`] slots. The oldest of a full set makes room.

use core::hash::{BuildHasher, Hasher};
use core::net::IpAddr;
use core::sync::atomic::Ordering;

use foldhash::quality::FixedState;

use super::HEADER_WORDS;
use super::bucket::Word;
use super::state::Tick;
use super::table::Memory;

/// Slots of a set: two cache lines.
const WAYS: usize = 8;

/// Words of a set.
const SET_WORDS: usize = 2 * WAYS;

/// So often a slot is chosen anew that another worker has just written.
const TRIES: u32 = 4;

/// The affinities of all clients.
#[derive(Debug)]
pub(super) struct Affinities<M> {
    memory: M,
    sets: u32,
    /// The word with which the first set begins.
    pub(super) first_word: usize,
    hash: FixedState,
}

/// A client of a service, in this table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AffinityKey(u64);

/// A client's affinity to a backend of a service, as a new flow brings it about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affinity {
    /// The client and the service.
    pub key: AffinityKey,
    /// The backend's identity among those of its service.
    pub backend: u32,
}

/// Words of memory for the affinities beside so many buckets of sessions: two slots a bucket.
pub(super) fn words_of(buckets: u32) -> usize {
    HEADER_WORDS + sets_of(buckets) as usize * SET_WORDS
}

fn sets_of(buckets: u32) -> u32 {
    (buckets / 4).max(1)
}

impl<M: Memory> Affinities<M> {
    /// Affinities over memory of [`words_of`] words. `seed` is secret: nobody can choose clients that
    /// meet in one set.
    pub(super) fn over(memory: M, buckets: u32, seed: u64) -> Self {
        let hash = FixedState::with_seed(seed);
        Self { memory, sets: sets_of(buckets), first_word: HEADER_WORDS, hash }
    }

    pub(super) fn key(&self, client: IpAddr, service: u64) -> AffinityKey {
        let bits = match client {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let mut hasher = self.hash.build_hasher();
        hasher.write_u64((bits >> 64) as u64);
        hasher.write_u64(bits as u64);
        hasher.write_u64(service);
        AffinityKey(hasher.finish())
    }

    /// The backend that the client's last new flow got, if that is no longer ago than `timeout_s`.
    pub(super) fn find(&self, key: AffinityKey, timeout_s: u32, now: Tick) -> Option<u32> {
        let mut slots = self.set(key).map(Slot::read);
        let slot = slots.find(|slot| slot.key() == Some(key))?;
        (now.since(slot.last) <= timeout_s).then_some(slot.backend)
    }

    /// Notes what a new flow brings about.
    pub(super) fn note(&self, affinity: Affinity, now: Tick) {
        for _ in 0..TRIES {
            if self.try_note(affinity, now) {
                return;
            }
        }
    }

    /// `false` if another worker was quicker.
    fn try_note(&self, Affinity { key, backend }: Affinity, now: Tick) -> bool {
        let new = Content { backend, last: now, check: key.0 ^ mixed(backend) };
        let mut victim: Option<(Slot<'_, M::Word>, Content)> = None;
        for slot in self.set(key) {
            let found = slot.read();
            if found.key() == Some(key) {
                if found.backend == backend {
                    // One word changes, and only its time.
                    return found.last >= now || slot.exchange(&found, &new);
                }
                victim = Some((slot, found));
                break;
            }
            // A slot that is free is the oldest of all.
            if victim.as_ref().is_none_or(|(_, oldest)| found.last < oldest.last) {
                victim = Some((slot, found));
            }
        }
        let Some((slot, former)) = victim else { return true };
        let is_ours = slot.exchange(&former, &new);
        if is_ours {
            slot.check.store(new.check, Ordering::Relaxed);
        }
        is_ours
    }

    fn set(&self, AffinityKey(key): AffinityKey) -> impl Iterator<Item = Slot<'_, M::Word>> {
        let set = ((key >> 32) * u64::from(self.sets)) >> 32;
        let begin = self.first_word + set as usize * SET_WORDS;
        let words = self.memory.words().get(begin..).unwrap_or_default();
        let (slots, _) = words.get(..SET_WORDS).unwrap_or(words).as_chunks::<2>();
        slots.iter().map(|[check, value]| Slot { check, value })
    }

    /// Frees slots of a time that is still to come, which no process of this boot has written. Returns
    /// how many are in use, and how many these were. Only while nobody else uses the table.
    pub(super) fn take_over(&self, now: Tick) -> [u32; 2] {
        let words = self.memory.words().get(self.first_word..).unwrap_or_default();
        let (mut used, mut dropped) = (0, 0);
        for [check, value] in words.as_chunks::<2>().0 {
            match (Slot { check, value }).read() {
                found if found.is_free() => {}
                found if found.last <= now => used += 1,
                _ => {
                    value.store(0, Ordering::Relaxed);
                    check.store(0, Ordering::Relaxed);
                    dropped += 1;
                }
            }
        }
        [used, dropped]
    }
}

/// The words of one slot.
struct Slot<'a, W> {
    check: &'a W,
    value: &'a W,
}

/// What is in them: perhaps of two stores.
#[derive(Debug, Clone, Copy)]
struct Content {
    check: u64,
    backend: u32,
    last: Tick,
}

impl<W: Word> Slot<'_, W> {
    fn read(self) -> Content {
        let (check, value) =
            (self.check.load(Ordering::Relaxed), self.value.load(Ordering::Relaxed));
        Content { check, backend: (value >> 32) as u32, last: Tick(value as u32) }
    }

    fn exchange(self, former: &Content, new: &Content) -> bool {
        self.value.exchange(former.value(), new.value())
    }
}

impl<W> Clone for Slot<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for Slot<'_, W> {}

impl Content {
    fn value(&self) -> u64 {
        u64::from(self.backend) << 32 | u64::from(self.last.0)
    }

    fn is_free(&self) -> bool {
        self.value() == 0
    }

    /// Whose it is, if both words are of one store.
    fn key(&self) -> Option<AffinityKey> {
        (!self.is_free()).then_some(AffinityKey(self.check ^ mixed(self.backend)))
    }
}

/// A backend's identity spread over a word, so that two differ in many bits.
fn mixed(backend: u32) -> u64 {
    // An odd number near 2^64 divided by the golden ratio: no two identities meet.
    (u64::from(backend) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
