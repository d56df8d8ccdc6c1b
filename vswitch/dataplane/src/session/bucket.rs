//! One bucket: a line with a sequence word and seven tags, and the seven entries.
//!
//! Enters: the words of a bucket, which all workers share. Leaves: entries that are whole.
//!
//! **Readers** take no lock. The sequence is odd while the bucket is written: a reader that finds it
//! odd, or changed when it has read, reads again. **Writers** make it odd by compare-and-exchange, and
//! even again when they are done. Both try a bounded number of times, and fail as [`Busy`]: a worker
//! waits for nobody for ever.
//!
//! The orders are those of a sequence lock in the C11 model (H.-J. Boehm, "Can seqlocks get along with
//! programming language memory models?", 2012). All data is read and written by atomics, relaxed.
//! - A writer's fence stands between the odd sequence and its first store, a reader's between its last
//!   load and the second look at the sequence. So a reader that has seen any of the stores sees the
//!   odd sequence too, or a later one.
//! - The even sequence is stored with release, and the reader's first look acquires: a reader that
//!   finds it sees all of the stores.
//!
//! A writer that dies leaves the sequence odd. A thread of this process does not die alone: a panic
//! ends the process. Who adopts the table afterwards voids the bucket, see [`super::adopt`].

use core::sync::atomic::{AtomicU64, Ordering, fence};

use super::entry::{Layout, is_meta_of};
use super::tuple::Key;

/// Entries of a bucket: with the sequence word their tags fill a cache line.
pub(crate) const WAYS: usize = 7;

/// Words of the line that holds the sequence and the tags.
pub(crate) const LINE_WORDS: usize = 1 + WAYS;

/// A bucket was written all the time, or its lock held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// A shared word. Tests put loom's in place of the processor's.
pub(crate) trait Word {
    /// How often a reader or writer looks before it is [`Busy`].
    const TRIES: u32;

    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    /// Whether `current` was there; `new` is then. Acquires if so.
    fn exchange(&self, current: u64, new: u64) -> bool;
    fn fence(order: Ordering);
    /// Waits a moment for another thread.
    fn relax();
}

impl Word for AtomicU64 {
    /// A bucket is written for some 100 ns, and `relax` takes 10 to 40 ns: some 100 us, as long as a
    /// batch takes. More would only wait for a writer that the kernel has put to sleep.
    const TRIES: u32 = 4096;

    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    #[inline]
    fn exchange(&self, current: u64, new: u64) -> bool {
        self.compare_exchange(current, new, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline]
    fn fence(order: Ordering) {
        fence(order);
    }

    #[inline]
    fn relax() {
        core::hint::spin_loop();
    }
}

/// The words of one bucket.
#[derive(Debug)]
pub(crate) struct Bucket<'a, W> {
    sequence: &'a W,
    tags: &'a [W; WAYS],
    entries: &'a [W],
}

/// Words of a bucket of this family.
pub(crate) const fn bucket_words<L: Layout>() -> usize {
    LINE_WORDS + WAYS * L::WORDS
}

impl<'a, W: Word> Bucket<'a, W> {
    #[inline]
    pub(crate) fn of(words: &'a [W]) -> Option<Self> {
        let ([sequence, tags @ ..], entries) = words.split_first_chunk::<LINE_WORDS>()?;
        Some(Self { sequence, tags, entries })
    }

    /// What `read` makes of the bucket while nothing is written. `read` may see words that do not
    /// belong together, and is called again then.
    #[inline]
    pub(crate) fn read<T>(&self, read: impl Fn(&Self) -> T) -> Result<T, Busy> {
        for _ in 0..W::TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let found = read(self);
                W::fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return Ok(found);
                }
            }
            W::relax();
        }
        Err(Busy)
    }

    /// The lock of this bucket.
    pub(crate) fn lock(self) -> Result<Locked<'a, W>, Busy> {
        for _ in 0..W::TRIES {
            let sequence = self.sequence.load(Ordering::Relaxed);
            if sequence.is_multiple_of(2) && self.sequence.exchange(sequence, sequence + 1) {
                W::fence(Ordering::Release);
                return Ok(Locked { bucket: self, sequence });
            }
            W::relax();
        }
        Err(Busy)
    }

    /// The slot and the words of the entry with this key.
    #[inline]
    pub(crate) fn find<L: Layout>(&self, tag: u64, key: &Key) -> Option<(u8, L)> {
        self.slots()
            .filter(|(_, found)| *found == tag)
            .map(|(slot, _)| (slot, self.entry::<L>(slot)))
            .find(|(_, entry)| super::entry::key_of(entry) == *key)
    }

    /// Each slot and its tag, which is zero if the slot is free.
    #[inline]
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u8, u64)> + use<'a, W> {
        (0..).zip(self.tags.iter().map(|tag| tag.load(Ordering::Relaxed)))
    }

    /// The tag of a slot; zero if there is no such slot.
    pub(crate) fn tag(&self, slot: u8) -> u64 {
        self.tags.get(usize::from(slot)).map_or(0, |tag| tag.load(Ordering::Relaxed))
    }

    pub(crate) fn occupied(&self) -> usize {
        self.slots().filter(|(_, tag)| *tag != 0).count()
    }

    /// The words in a slot, free or not; zeros if there is no such slot.
    #[inline]
    pub(crate) fn entry<L: Layout>(&self, slot: u8) -> L {
        let mut entry = L::ZERO;
        let begin = usize::from(slot) * L::WORDS;
        let words = self.entries.get(begin..begin + L::WORDS).unwrap_or_default();
        for (to, from) in entry.as_mut().iter_mut().zip(words) {
            *to = from.load(Ordering::Relaxed);
        }
        entry
    }

    /// Whether the slot is occupied by an entry of this key, as far as one look tells.
    #[inline]
    pub(crate) fn holds<L: Layout>(&self, slot: u8, key: &Key) -> bool {
        let begin = usize::from(slot) * L::WORDS;
        let words = self.entries.get(begin..begin + L::ADDRESS_WORDS + 1).unwrap_or_default();
        let mut words = words.iter().map(|word| word.load(Ordering::Relaxed));
        self.tag(slot) != 0
            && key.addresses.iter().take(L::ADDRESS_WORDS).all(|part| words.next() == Some(*part))
            && words.next().is_some_and(|meta| is_meta_of(meta, key))
    }

    /// One word of an entry.
    #[inline]
    pub(crate) fn word<L: Layout>(&self, slot: u8, at: usize) -> Option<&'a W> {
        self.entries.get(usize::from(slot) * L::WORDS + at)
    }

    /// Empties a bucket whose writer died, and makes its sequence even. Whether it did. Only while
    /// nobody else uses it.
    pub(crate) fn void(&self) -> bool {
        let sequence = self.sequence.load(Ordering::Relaxed);
        let was_left = !sequence.is_multiple_of(2);
        if was_left {
            self.clear();
            self.sequence.store(sequence.wrapping_add(1), Ordering::Release);
        }
        was_left
    }

    fn clear(&self) {
        for tag in self.tags {
            tag.store(0, Ordering::Relaxed);
        }
    }

    /// Makes a slot free. Only while nobody else uses the bucket.
    pub(crate) fn free(&self, slot: u8) {
        if let Some(tag) = self.tags.get(usize::from(slot)) {
            tag.store(0, Ordering::Relaxed);
        }
    }
}

/// A bucket that this thread writes.
#[derive(Debug)]
pub(crate) struct Locked<'a, W: Word> {
    pub(crate) bucket: Bucket<'a, W>,
    sequence: u64,
}

impl<W: Word> Locked<'_, W> {
    /// Stores an entry in a free slot. `false` if there is none.
    pub(crate) fn insert<L: Layout>(&self, tag: u64, entry: &L) -> bool {
        let Some((slot, _)) = self.bucket.slots().find(|(_, tag)| *tag == 0) else { return false };
        for (at, value) in entry.as_ref().iter().enumerate() {
            self.write::<L>(slot, at, *value);
        }
        if let Some(word) = self.bucket.tags.get(usize::from(slot)) {
            word.store(tag, Ordering::Relaxed);
        }
        true
    }

    /// Makes the slot free.
    pub(crate) fn remove(&self, slot: u8) {
        self.bucket.free(slot);
    }

    /// Stores one word of an entry.
    pub(crate) fn write<L: Layout>(&self, slot: u8, at: usize, value: u64) {
        if let Some(word) = self.bucket.word::<L>(slot, at) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

impl<W: Word> Drop for Locked<'_, W> {
    fn drop(&mut self) {
        self.bucket.sequence.store(self.sequence.wrapping_add(2), Ordering::Release);
    }
}
