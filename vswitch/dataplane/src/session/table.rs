//! The table of one family: where an entry can be, the look-up, and the change of one entry.
//!
//! Enters: tuples, and touches that were proposed. Leaves: sessions. `create` begins and ends them,
//! `sweep` removes what has expired, `adopt` takes over what another process left.

use core::hash::{BuildHasher, Hasher};
use core::ops::Range;
use core::sync::atomic::Ordering;

use foldhash::quality::FixedState;
use frame::Words;

use super::bucket::{Bucket, Busy, WAYS, Word, bucket_words};
use super::counts::{Counts, Refusal, Removal};
use super::entry::{Entry, Layout, PolicyStamp, Session, decode, local_word, policy_word};
use super::state::{State, Tick, is_opening};
use super::tuple::{Direction, Key, Sorted, Tuple};
use super::{HEADER_WORDS, Outcome};
use crate::wire::TcpFlags;

/// Memory of words that all workers share.
pub(crate) trait Memory {
    type Word: Word;

    fn words(&self) -> &[Self::Word];

    /// Begins to load a word's cache line.
    fn prefetch(&self, at: usize);
}

impl Memory for Words {
    type Word = core::sync::atomic::AtomicU64;

    #[inline]
    fn words(&self) -> &[Self::Word] {
        self
    }

    #[inline]
    fn prefetch(&self, at: usize) {
        Words::prefetch(self, at);
    }
}

/// The sessions of one family.
#[derive(Debug)]
pub(crate) struct Table<L, M> {
    pub(crate) memory: M,
    pub(crate) buckets: u32,
    pub(crate) counts: Counts,
    /// The word with which the first bucket begins.
    pub(crate) first_word: usize,
    hash: FixedState,
    layout: core::marker::PhantomData<fn() -> L>,
}

/// A tuple's key and the two buckets where its entry can be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) key: Key,
    pub(crate) source_is_higher: bool,
    pub(crate) tag: u64,
    pub(crate) buckets: [u32; 2],
}

/// The slot in which a session was found. It may be another's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    bucket: u32,
    slot: u8,
}

/// A session that was found, and how the packet belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The session, as it was then.
    pub session: Session,
    /// The packet's direction.
    pub direction: Direction,
    place: Place,
}

/// What a look-up found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The packet's session. It may be closing: see [`Found::is_reopened_by`].
    Hit(Found),
    /// None, or one that has expired.
    Miss,
    /// Not known: the bucket was being written for longer than a worker waits. Not to be taken for a
    /// miss.
    Busy,
}

/// A change of one session, which [`super::SessionTable::commit`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch {
    server_side: Tuple,
    place: Place,
    direction: Direction,
    flags: TcpFlags,
    policy: Option<PolicyStamp>,
    service_generation: Option<u32>,
}

impl Found {
    /// Whether the packet begins a new session in place of this one: a SYN on one that is closing or
    /// revoked. It is then to be created, and this one not to be touched.
    #[inline]
    #[must_use]
    pub fn is_reopened_by(&self, flags: TcpFlags) -> bool {
        self.session.is_replaceable() && is_opening(self.session.protocol(), flags)
    }

    /// The change that the packet makes; `None` if it makes none, as most do: they show nothing new
    /// in a second in which the session was seen already.
    #[inline]
    #[must_use]
    pub fn touch(&self, flags: TcpFlags, now: Tick) -> Option<Touch> {
        let state = self.session.state;
        let next = state.after(self.session.protocol(), self.direction, flags, now);
        (next != state).then(|| self.touched(flags))
    }

    /// The change that the packet makes, or none: for one that comes of something else.
    #[inline]
    #[must_use]
    pub fn touched(&self, flags: TcpFlags) -> Touch {
        let (server_side, direction) = (self.session.server_side, self.direction);
        let place = self.place;
        Touch { server_side, place, direction, flags, policy: None, service_generation: None }
    }
}

impl Touch {
    /// The same, after policies have decided anew.
    #[must_use]
    pub fn with_policy(self, policy: PolicyStamp) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// The same, after the session's backend was found in this generation of its service.
    #[must_use]
    pub fn with_service_generation(self, generation: u32) -> Self {
        Self { service_generation: Some(generation), ..self }
    }

    pub(crate) fn is_v6(&self) -> bool {
        self.server_side.is_v6()
    }
}

/// An entry that holds a tuple, whichever direction and however old.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) found: Found,
    /// Whether a packet of this tuple and direction can be the session's: the opener's come on the
    /// client's side, the responder's on the server's.
    pub(crate) is_on_its_side: bool,
}

impl<L: Layout, M: Memory> Table<L, M> {
    /// A table over memory that has a header and at least two buckets behind it.
    pub(crate) fn over(memory: M, buckets: u32, seed: u64) -> Self {
        Self {
            memory,
            buckets,
            counts: Counts::new(buckets.saturating_mul(WAYS as u32)),
            first_word: HEADER_WORDS,
            hash: FixedState::with_seed(seed),
            layout: core::marker::PhantomData,
        }
    }

    /// Words that a table of this many buckets has.
    pub(crate) fn words_of(buckets: u32) -> usize {
        HEADER_WORDS + buckets as usize * bucket_words::<L>()
    }

    #[inline]
    pub(crate) fn spot(&self, tuple: &Tuple) -> Spot {
        self.spot_of(Sorted::of(tuple))
    }

    /// The hash is keyed by the table's secret seed, so that no pod can choose tuples that meet in one
    /// pair of buckets. It is no cryptographic one, and need not be: a pod sees no hash, and all that
    /// it could learn is whether one of its own sessions was refused.
    #[inline]
    pub(crate) fn spot_of(&self, Sorted { key, source_is_higher }: Sorted) -> Spot {
        let mut hasher = self.hash.build_hasher();
        for word in key.addresses.iter().take(L::ADDRESS_WORDS) {
            hasher.write_u64(*word);
        }
        hasher.write_u64(key.meta);
        let hash = hasher.finish();
        // Each half of the hash chooses among the buckets by multiplication; the second never the first's.
        let scale = |half: u32, range: u32| ((u64::from(half) * u64::from(range)) >> 32) as u32;
        let first = scale((hash >> 32) as u32, self.buckets);
        let step = 1 + scale(hash as u32, self.buckets.saturating_sub(1));
        let second = match first.checked_add(step) {
            Some(sum) if sum < self.buckets => sum,
            _ => first.wrapping_add(step).wrapping_sub(self.buckets),
        };
        Spot { key, source_is_higher, tag: hash | 1, buckets: [first, second] }
    }

    #[inline]
    pub(crate) fn begin_of(&self, bucket: u32) -> usize {
        self.first_word + bucket as usize * bucket_words::<L>()
    }

    #[inline]
    pub(crate) fn bucket(&self, index: u32) -> Option<Bucket<'_, M::Word>> {
        let begin = self.begin_of(index);
        Bucket::of(self.memory.words().get(begin..begin + bucket_words::<L>())?)
    }

    /// The packet's session.
    #[inline]
    pub(crate) fn find(&self, spot: &Spot, now: Tick) -> Lookup {
        match self.holder(spot) {
            Ok(Some(Holder { found, is_on_its_side: true })) if !found.session.is_expired(now) => {
                Lookup::Hit(found)
            }
            Ok(_) => Lookup::Miss,
            Err(Busy) => Lookup::Busy,
        }
    }

    /// The session that holds the tuple, directly or by its alias.
    #[inline]
    pub(crate) fn holder(&self, spot: &Spot) -> Result<Option<Holder>, Busy> {
        let Some((place, words)) = self.entry(spot)? else { return Ok(None) };
        match decode(&words) {
            Some(Entry::Main(session)) => {
                let server = Sorted::of(&session.server_side);
                Ok(Some(holder(
                    session,
                    place,
                    server.source_is_higher,
                    spot,
                    !session.is_translated(),
                )))
            }
            Some(Entry::Alias { opener_is_higher, main }) => {
                self.through_alias(spot, opener_is_higher, main)
            }
            None => Ok(None),
        }
    }

    fn through_alias(
        &self,
        spot: &Spot,
        opener_is_higher: bool,
        main: Key,
    ) -> Result<Option<Holder>, Busy> {
        let at = self.spot_of(Sorted { key: main, source_is_higher: false });
        let Some((place, words)) = self.entry(&at)? else { return Ok(None) };
        Ok(match decode(&words) {
            Some(Entry::Main(session)) if Sorted::of(&session.client_side).key == spot.key => {
                Some(holder(session, place, opener_is_higher, spot, true))
            }
            _ => None,
        })
    }

    /// The entry at this key.
    #[inline]
    pub(crate) fn entry(&self, spot: &Spot) -> Result<Option<(Place, L)>, Busy> {
        for index in spot.buckets {
            let Some(bucket) = self.bucket(index) else { continue };
            if let Some((slot, words)) = bucket.read(|bucket| bucket.find(spot.tag, &spot.key))? {
                return Ok(Some((Place { bucket: index, slot }, words)));
            }
        }
        Ok(None)
    }

    /// Makes a change that was proposed, if the session is still where it was found.
    pub(crate) fn touch(&self, touch: &Touch, now: Tick) -> Outcome {
        let Place { bucket, slot } = touch.place;
        let Some(bucket) = self.bucket(bucket) else { return Outcome::Gone };
        let key = Sorted::of(&touch.server_side).key;
        let changes_state_alone = touch.policy.is_none() && touch.service_generation.is_none();
        if changes_state_alone && bucket.holds::<L>(slot, &key) {
            // One word changes, and only its time: no lock. If another session comes in between, the
            // exchange fails, or finds the same word and makes it as new as it is.
            let Some(word) = bucket.word::<L>(slot, L::STATE) else { return Outcome::Gone };
            let current = word.load(Ordering::Relaxed);
            let Some(state) = State::of_word(current) else { return Outcome::Gone };
            let next = touch.after(state, now);
            if (State { last_seen: state.last_seen, ..next }) == state {
                if next != state {
                    word.exchange(current, next.to_word());
                }
                return Outcome::Done;
            }
        }
        let Ok(locked) = bucket.lock() else {
            self.counts.refused(Refusal::Busy);
            return Outcome::Refused(Refusal::Busy);
        };
        if !locked.bucket.holds::<L>(slot, &key) {
            return Outcome::Gone;
        }
        let Some(Entry::Main(session)) = decode(&locked.bucket.entry::<L>(slot)) else {
            return Outcome::Gone;
        };
        let next = touch.after(session.state, now);
        locked.write::<L>(slot, L::STATE, next.to_word());
        if let Some(policy) = touch.policy {
            locked.write::<L>(slot, L::STATE + 1, policy_word(policy));
            if policy.is_revoked && !session.policy.is_revoked {
                self.counts.removed(Removal::Revoked);
            }
        }
        if let Some(service_generation) = touch.service_generation {
            let local = local_word(&Session { service_generation, ..session });
            locked.write::<L>(slot, L::LOCAL, local);
        }
        self.counts.moved(session.charged, session.state.class, next.class);
        Outcome::Done
    }

    /// Sessions in some of the buckets that have not expired. A bucket that is being written is left
    /// out.
    pub(crate) fn page(&self, buckets: Range<u32>, now: Tick) -> impl Iterator<Item = Session> {
        (buckets.start..buckets.end.min(self.buckets))
            .flat_map(|index| self.mains(index))
            .filter(move |session| !session.is_expired(now))
    }

    /// The main entries of a bucket.
    pub(crate) fn mains(&self, index: u32) -> impl Iterator<Item = Session> {
        let read = |bucket: Bucket<'_, M::Word>| bucket.read(|bucket| bucket.mains::<L>()).ok();
        let mains = self.bucket(index).and_then(read).unwrap_or([None; WAYS]);
        mains.into_iter().flatten()
    }
}

impl<W: Word> Bucket<'_, W> {
    fn mains<L: Layout>(&self) -> [Option<Session>; WAYS] {
        let mut mains = [None; WAYS];
        for (main, (slot, tag)) in mains.iter_mut().zip(self.slots()) {
            if tag != 0
                && let Some(Entry::Main(session)) = decode(&self.entry::<L>(slot))
            {
                *main = Some(session);
            }
        }
        mains
    }
}

impl Touch {
    /// The packet of a session that is revoked is dropped, and changes nothing of it.
    fn after(&self, state: State, now: Tick) -> State {
        if self.policy.is_some_and(|policy| policy.is_revoked) {
            return State { last_seen: state.last_seen.max(now), ..state };
        }
        state.after(self.server_side.protocol(), self.direction, self.flags, now)
    }
}

/// `is_clients_side`: whether the entry stands at the tuple that the opener sends.
#[inline]
fn holder(
    session: Session,
    place: Place,
    opener_is_higher: bool,
    spot: &Spot,
    is_clients_side: bool,
) -> Holder {
    let direction = if opener_is_higher == spot.source_is_higher {
        Direction::FromOpener
    } else {
        Direction::FromResponder
    };
    let is_on_its_side =
        !session.is_translated() || is_clients_side == (direction == Direction::FromOpener);
    Holder { found: Found { session, direction, place }, is_on_its_side }
}
