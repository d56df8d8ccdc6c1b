//! The table's header, and what becomes of a table that another process left.
//!
//! Enters: the words of both families and of the affinities, of which no other process writes any more,
//! and what the header must hold. Leaves: a table whose content is whole, or an empty one and the reason.
//!
//! | word | holds |
//! |---|---|
//! | 0 | [`MAGIC`]; stored last, so that a header is whole or absent. [`LOST`] in memory that has taken the place of another |
//! | 1 | [`LAYOUT`] |
//! | 2 | 4 or 6 for the sessions of a family, 1 for affinities |
//! | 3 | buckets of each family |
//! | 4, 5 | boot id |
//! | 6 | seed, secret |
//! | 7 | a hash by that seed: another version of the hash would find nothing |
//! | 8 | one once there was a session: a table without any is taken over without a look at its buckets |
//! | 9 | the tick at which it took the place of a table whose sessions were lost, plus one; else zero |

use core::fmt;
use core::sync::atomic::Ordering;

use frame::Words;

use super::affinity::{self, Affinities};
use super::bucket::Word;
use super::entry::{Entry, Layout, PolicyStamp, Session, decode, policy_word};
use super::state::Tick;
use super::table::{Memory, Spot, Table};
use super::tuple::{Key, Sorted};
use crate::tables::port::MAX_PORTS;

/// Words before the first bucket: a page, so that buckets begin with one.
pub(crate) const HEADER_WORDS: usize = 512;

/// "vswsess" and a zero.
const MAGIC: u64 = 0x7673_7773_6573_7300;
/// Stands in the place of [`MAGIC`] where a content is lost.
const LOST: u64 = u64::MAX;

/// The word that tells whether there ever was a session.
const USED: usize = 8;

/// The word that holds the tick at which the table was begun in place of one that could not be used, plus
/// one; zero if there was none.
const REPLACED: usize = 9;

/// What is behind a header, as its third word has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Affinities = 1,
    V4 = 4,
    V6 = 6,
}

/// Number of the layout of header, buckets and entries.
pub(crate) const LAYOUT: u64 = 1;

/// What a table must have to be taken over, and what a new one gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kernel's boot id: [`Tick`]s of another boot mean nothing.
    pub boot_id: u128,
    /// Secret and random; used only if the table is made anew, which keeps it.
    pub seed: u64,
    /// Buckets of each family; at least two.
    pub buckets: u32,
}

/// What became of a table's former content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// It was taken over.
    Adopted {
        /// Sessions, or affinities, that it has.
        sessions: u32,
        /// Buckets that were being written when their writer died; their entries are gone.
        voided: u32,
        /// Entries that made no sense, alone or without their other one; they are gone.
        dropped: u32,
    },
    /// The table is empty.
    Anew(WhyAnew),
}

/// Why a table's former content was not taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyAnew {
    /// There was none.
    Fresh,
    /// Its memory is not there any more, or not all of it.
    Lost,
    /// It is no session table.
    Foreign,
    /// It has another layout, whose number this is.
    Layout(u64),
    /// It holds something else: sessions of the other IP version, or affinities.
    Kind,
    /// It has another number of buckets, which this is.
    Buckets(u64),
    /// It is from before the machine was booted.
    Boot,
    /// This version of the switch hashes differently.
    Hash,
}

/// The memory has not as many words as the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongSize {
    /// Words that it needs.
    pub needed: usize,
    /// Words that it has.
    pub given: usize,
}

impl fmt::Display for WhyAnew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("there was none"),
            Self::Lost => f.write_str("the file had another size"),
            Self::Foreign => f.write_str("the file is no session table"),
            Self::Layout(layout) => write!(f, "its layout is {layout}, not {LAYOUT}"),
            Self::Kind => f.write_str("it holds something else"),
            Self::Buckets(buckets) => write!(f, "it has {buckets} buckets"),
            Self::Boot => f.write_str("it is from before the machine was booted"),
            Self::Hash => f.write_str("this version hashes differently"),
        }
    }
}

impl fmt::Display for WrongSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the session table needs {} words, its memory has {}", self.needed, self.given)
    }
}

impl core::error::Error for WrongSize {}

impl<L: Layout, M: Memory> Table<L, M> {
    /// Takes over what is in the memory, or empties it.
    pub(crate) fn adopt(
        memory: M,
        header: &Header,
        now: Tick,
    ) -> Result<(Self, Adoption), WrongSize> {
        let (needed, given) = (Self::words_of(header.buckets.max(2)), memory.words().len());
        if given != needed || header.buckets < 2 {
            return Err(WrongSize { needed, given });
        }
        let kind = if L::IS_V6 { Kind::V6 } else { Kind::V4 };
        match seed_of(memory.words(), kind, header) {
            Ok(seed) => {
                let table = Self::over(memory, header.buckets, seed);
                let adoption = table.take_over(now);
                Ok((table, adoption))
            }
            Err(why) => {
                begin(memory.words(), kind, header, why, now);
                let table = Self::over(memory, header.buckets, header.seed);
                Ok((table, Adoption::Anew(why)))
            }
        }
    }

    /// When the table took the place of one whose sessions were lost, by this process or a former one.
    pub(crate) fn replaced(&self) -> Option<Tick> {
        let word = self.header().get(REPLACED)?.load(Ordering::Relaxed);
        word.checked_sub(1).map(|tick| Tick(tick as u32))
    }

    /// Notes that there is a session, before its entry is stored.
    #[inline]
    pub(crate) fn note_use(&self) {
        if let Some(word) = self.header().get(USED)
            && word.load(Ordering::Relaxed) == 0
        {
            word.store(1, Ordering::Release);
        }
    }

    fn is_used(&self) -> bool {
        self.header().get(USED).is_none_or(|word| word.load(Ordering::Acquire) != 0)
    }

    /// The words before the first bucket.
    fn header(&self) -> &[M::Word] {
        self.memory.words().get(..self.first_word).unwrap_or_default()
    }

    fn take_over(&self, now: Tick) -> Adoption {
        if !self.is_used() {
            return Adoption::Adopted { sessions: 0, voided: 0, dropped: 0 };
        }
        let buckets = (0..self.buckets).filter_map(|index| self.bucket(index));
        let voided = buckets.filter(|bucket| bucket.void()).count() as u32;
        let mut dropped = 0;
        loop {
            let more = self.drop_senseless(now);
            dropped += more;
            if more == 0 {
                break;
            }
            // Another entry may have lost its other one.
        }
        let mut sessions = 0;
        for index in 0..self.buckets {
            self.forget_generations(index);
            for session in self.mains(index) {
                self.counts.adopt(&session);
                sessions += 1;
            }
        }
        Adoption::Adopted { sessions, voided, dropped }
    }

    /// Has policies judge each session anew: another process counts their generations from the start.
    fn forget_generations(&self, index: u32) {
        let Some(bucket) = self.bucket(index) else { return };
        for (slot, _) in bucket.slots().filter(|(_, tag)| *tag != 0) {
            if let Some(Entry::Main(session)) = decode(&bucket.entry::<L>(slot))
                && let Some(word) = bucket.word::<L>(slot, L::STATE + 1)
            {
                let stamp = PolicyStamp { generation: 0, ..session.policy };
                word.store(policy_word(stamp), Ordering::Release);
            }
        }
    }

    /// Frees the slots of entries that make no sense. Returns how many they were.
    fn drop_senseless(&self, now: Tick) -> u32 {
        let mut dropped = 0;
        for index in 0..self.buckets {
            let Some(bucket) = self.bucket(index) else { continue };
            for (slot, tag) in bucket.slots().filter(|(_, tag)| *tag != 0) {
                if !self.makes_sense(index, tag, &bucket.entry(slot), now) {
                    bucket.free(slot);
                    dropped += 1;
                }
            }
        }
        dropped
    }

    /// Whether the entry is found where it is, is no older or newer than a session can be, and its
    /// other one is there if it has one.
    fn makes_sense(&self, index: u32, tag: u64, words: &L, now: Tick) -> bool {
        let spot = self.spot_of(sorted(super::entry::key_of(words)));
        if spot.tag != tag || !spot.buckets.contains(&index) {
            return false;
        }
        match decode(words) {
            Some(Entry::Main(session)) => {
                session.state.last_seen <= now
                    && usize::from(session.charged.0) < MAX_PORTS
                    && (!session.is_translated() || self.has_alias(&session, spot.key))
            }
            Some(Entry::Alias { main, .. }) => {
                let main = self.spot_of(sorted(main));
                self.main_at(&main).is_some_and(|session| {
                    session.is_translated() && Sorted::of(&session.client_side).key == spot.key
                })
            }
            None => false,
        }
    }

    fn has_alias(&self, session: &Session, key: Key) -> bool {
        let alias = self.entry(&self.spot(&session.client_side));
        alias.is_ok_and(|found| {
            found.is_some_and(|(_, words)| {
                matches!(decode(&words), Some(Entry::Alias { main, .. }) if main == key)
            })
        })
    }

    fn main_at(&self, spot: &Spot) -> Option<Session> {
        match decode(&self.entry(spot).ok()??.1) {
            Some(Entry::Main(session)) => Some(session),
            _ => None,
        }
    }
}

impl<M: Memory> Affinities<M> {
    /// As [`Table::adopt`].
    pub(super) fn adopt(
        memory: M,
        header: &Header,
        now: Tick,
    ) -> Result<(Self, Adoption), WrongSize> {
        let (needed, given) = (affinity::words_of(header.buckets), memory.words().len());
        if given != needed {
            return Err(WrongSize { needed, given });
        }
        match seed_of(memory.words(), Kind::Affinities, header) {
            Ok(seed) => {
                let table = Self::over(memory, header.buckets, seed);
                let [sessions, dropped] = table.take_over(now);
                Ok((table, Adoption::Adopted { sessions, voided: 0, dropped }))
            }
            Err(why) => {
                begin(memory.words(), Kind::Affinities, header, why, now);
                Ok((Self::over(memory, header.buckets, header.seed), Adoption::Anew(why)))
            }
        }
    }
}

fn sorted(key: Key) -> Sorted {
    Sorted { key, source_is_higher: false }
}

/// The words of a header behind the first.
fn content(kind: Kind, header: &Header) -> [u64; 7] {
    let Header { boot_id, seed, buckets } = *header;
    [
        LAYOUT,
        kind as u64,
        buckets.into(),
        (boot_id >> 64) as u64,
        boot_id as u64,
        seed,
        hash_of(seed),
    ]
}

/// Has the table that adopts these words know that it had sessions, and has lost them. To be called for
/// memory that is used in place of a former one.
pub fn note_lost(words: &Words) {
    if let Some(first) = words.first() {
        first.store(LOST, Ordering::Release);
    }
}

/// The seed of a table that can be taken over.
fn seed_of<W: Word>(words: &[W], kind: Kind, header: &Header) -> Result<u64, WhyAnew> {
    let mut words = words.iter().map(|word| word.load(Ordering::Acquire));
    let mut next = || words.next().unwrap_or(0);
    match next() {
        MAGIC => {}
        0 => return Err(WhyAnew::Fresh),
        LOST => return Err(WhyAnew::Lost),
        _ => return Err(WhyAnew::Foreign),
    }
    let found = [next(), next(), next(), next(), next(), next(), next()];
    let [layout, found_kind, buckets, boot_high, boot_low, seed, hash] = found;
    let [_, own_kind, own_buckets, own_high, own_low, ..] = content(kind, header);
    if layout != LAYOUT {
        Err(WhyAnew::Layout(layout))
    } else if found_kind != own_kind {
        Err(WhyAnew::Kind)
    } else if buckets != own_buckets {
        Err(WhyAnew::Buckets(buckets))
    } else if (boot_high, boot_low) != (own_high, own_low) {
        Err(WhyAnew::Boot)
    } else if hash != hash_of(seed) {
        Err(WhyAnew::Hash)
    } else {
        Ok(seed)
    }
}

/// Empties the memory, unless it is zeros already, and writes the header.
fn begin<W: Word>(words: &[W], kind: Kind, header: &Header, why: WhyAnew, now: Tick) {
    let store = |at: usize, value| {
        if let Some(word) = words.get(at) {
            word.store(value, Ordering::Release);
        }
    };
    store(0, 0);
    if why != WhyAnew::Fresh {
        // Zeros that are there already are not stored again: pages without any stay absent.
        for word in words.iter().filter(|word| word.load(Ordering::Relaxed) != 0) {
            word.store(0, Ordering::Relaxed);
        }
    }
    for (at, value) in (1..).zip(content(kind, header)) {
        store(at, value);
    }
    // Nobody had a session then: a machine's connections end with its boot.
    let had_none = matches!(why, WhyAnew::Fresh | WhyAnew::Boot);
    store(REPLACED, if had_none { 0 } else { u64::from(now.0) + 1 });
    store(0, MAGIC);
}

fn hash_of(seed: u64) -> u64 {
    use core::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::quality::FixedState::with_seed(seed).build_hasher();
    hasher.write_u64(MAGIC);
    hasher.write_u64(LAYOUT);
    hasher.finish()
}
