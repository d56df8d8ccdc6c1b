//! The latest dropped packets of one worker, for `drops --follow`.
//!
//! Enters: why a packet was dropped, and its beginning, from `drop_sampler`. Leaves: [`DropSnapshot`]s, to
//! a reader on another thread. The memory is given at the start. The one writer overwrites what is oldest
//! and waits for nobody; a reader that meets it leaves that snapshot out.
//!
//! Each slot is a sequence lock, with the orders that the session table's buckets have, and explain. Its
//! sequence is twice the number of the snapshot, plus one while that is written and two once it is there: a
//! reader knows by it that the slot still has the snapshot that it looks for.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::Millis;
use crate::session::Word;
use crate::tables::PortId;
use crate::verdict::DropReason;

/// Snapshots that are kept.
pub const SLOTS: u64 = 256;

/// Words of a packet's beginning. The headers of TCP over IPv6 behind those of VXLAN over IPv6 are 144 bytes.
const BEGINNING_WORDS: usize = 20;

/// Bytes of a packet that are kept at most.
pub const BEGINNING_BYTES: usize = BEGINNING_WORDS * 8;

/// Time, what was dropped and why, length; the beginning. With the sequence these are three cache lines.
const CONTENT_WORDS: usize = 3 + BEGINNING_WORDS;

type Content = [u64; CONTENT_WORDS];

/// The ring of one worker.
#[derive(Debug)]
pub struct DropRing {
    is_armed: AtomicBool,
    /// Snapshots so far: the number of the next one.
    written: AtomicU64,
    slots: Box<[Slot<AtomicU64>]>,
}

/// A dropped packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropSnapshot {
    /// When it was dropped.
    pub at: Millis,
    /// Why.
    pub reason: DropReason,
    /// The port that it came from.
    pub ingress: PortId,
    /// Packets that it stands for: itself, and those of its reason that were dropped since the snapshot
    /// before and have none.
    pub packets: u32,
    /// Bytes of the whole frame; zero if it was not there any more.
    pub len: u32,
    beginning: [u8; BEGINNING_BYTES],
}

#[derive(Debug)]
#[repr(align(64))]
struct Slot<W, const WORDS: usize = CONTENT_WORDS> {
    sequence: W,
    content: [W; WORDS],
}

impl Default for DropRing {
    fn default() -> Self {
        Self::new()
    }
}

impl DropRing {
    /// An empty ring, which nobody follows.
    #[must_use]
    pub fn new() -> Self {
        Self {
            is_armed: AtomicBool::new(false),
            written: AtomicU64::new(0),
            slots: (0..SLOTS).map(|_| Slot::of(|| AtomicU64::new(0))).collect(),
        }
    }

    /// Whether somebody follows: otherwise nothing is written.
    #[inline]
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.is_armed.load(Ordering::Relaxed)
    }

    /// Has the worker take snapshots from now on, or none any more.
    pub fn arm(&self, is_followed: bool) {
        self.is_armed.store(is_followed, Ordering::Relaxed);
    }

    /// Snapshots so far: where a reader begins that wants none of them.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Calls with each snapshot from this number on that is still there, and returns the number of the next.
    /// A number that is not reached yet is another ring's: all that there is follows.
    pub fn since(&self, number: u64, mut call: impl FnMut(&DropSnapshot)) -> u64 {
        let end = self.written();
        let oldest = end.saturating_sub(SLOTS);
        let begin = if number > end { oldest } else { number.max(oldest) };
        for number in begin..end {
            let content = self.slot(number).and_then(|slot| slot.read(number));
            if let Some(snapshot) = content.as_ref().and_then(DropSnapshot::decode) {
                call(&snapshot);
            }
        }
        end
    }

    /// Writes a snapshot over the oldest one. The worker's to call.
    pub(crate) fn put(&self, snapshot: &DropSnapshot) {
        let number = self.written.load(Ordering::Relaxed);
        if let Some(slot) = self.slot(number) {
            slot.write(number, &snapshot.encode());
        }
        self.written.store(number.wrapping_add(1), Ordering::Release);
    }

    fn slot(&self, number: u64) -> Option<&Slot<AtomicU64>> {
        self.slots.get((number % SLOTS) as usize)
    }
}

impl DropSnapshot {
    /// Of a frame whose bytes are these; none if it is gone.
    pub(crate) fn new(
        at: Millis,
        reason: DropReason,
        ingress: PortId,
        packets: u32,
        frame: &[u8],
    ) -> Self {
        let mut beginning = [0; BEGINNING_BYTES];
        for (to, from) in beginning.iter_mut().zip(frame) {
            *to = *from;
        }
        Self { at, reason, ingress, packets, len: frame.len() as u32, beginning }
    }

    /// The beginning of the frame, headers first.
    #[must_use]
    pub fn beginning(&self) -> &[u8] {
        self.beginning.get(..self.len as usize).unwrap_or(&self.beginning)
    }

    fn encode(&self) -> Content {
        let what =
            self.reason as u64 | u64::from(self.ingress.0) << 8 | u64::from(self.packets) << 32;
        let mut content = [0; CONTENT_WORDS];
        let [at, of, len, beginning @ ..] = &mut content;
        (*at, *of, *len) = (self.at.0, what, self.len.into());
        for (word, bytes) in beginning.iter_mut().zip(self.beginning.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        content
    }

    /// `None` for what no snapshot is.
    fn decode(content: &Content) -> Option<Self> {
        let [at, what, len, words @ ..] = content;
        let mut beginning = [0; BEGINNING_BYTES];
        for (bytes, word) in beginning.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        Some(Self {
            at: Millis(*at),
            reason: *DropReason::ALL.get(usize::from(*what as u8))?,
            ingress: PortId((what >> 8) as u16),
            packets: (what >> 32) as u32,
            len: *len as u32,
            beginning,
        })
    }
}

impl<W: Word, const WORDS: usize> Slot<W, WORDS> {
    fn of(word: impl Fn() -> W) -> Self {
        Self { sequence: word(), content: core::array::from_fn(|_| word()) }
    }

    fn write(&self, number: u64, content: &[u64; WORDS]) {
        let before = number.wrapping_mul(2);
        self.sequence.store(before.wrapping_add(1), Ordering::Relaxed);
        W::fence(Ordering::Release);
        for (word, value) in self.content.iter().zip(content) {
            word.store(*value, Ordering::Relaxed);
        }
        self.sequence.store(before.wrapping_add(2), Ordering::Release);
    }

    /// `None` if the slot has another snapshot, or gets one meanwhile.
    fn read(&self, number: u64) -> Option<[u64; WORDS]> {
        let wanted = number.wrapping_mul(2).wrapping_add(2);
        if self.sequence.load(Ordering::Acquire) != wanted {
            return None;
        }
        let mut content = [0; WORDS];
        for (value, word) in content.iter_mut().zip(&self.content) {
            *value = word.load(Ordering::Relaxed);
        }
        W::fence(Ordering::Acquire);
        (self.sequence.load(Ordering::Relaxed) == wanted).then_some(content)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
