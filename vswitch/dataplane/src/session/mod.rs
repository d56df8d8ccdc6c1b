//! The session table: what the switch knows of each connection that it lets pass or translates.
//!
//! Enters: the tuple of a packet, left of the verdict, from the doors that need its session; and right
//! of it the one [`SessionEffect`] that they proposed. Leaves: the session, and whether the effect took
//! place. One table for all workers, as the two directions of a session come through two of them: the
//! entry is stored before the packet leaves, so its answer is found on any worker.
//!
//! - **Bounded.** Its memory is given, and never grows. A port has at most a sixteenth of the slots as
//!   embryonic sessions and a fourth in all; a full pair of buckets gives up what has expired, or
//!   what was never answered, and nothing that was established.
//! - **No lock on a look-up**, and none to note that a session was seen. A writer locks a bucket for
//!   some hundred nanoseconds; who waits longer than a batch takes is refused.
//! - **It outlives the process** in a mapped file, and is taken over by the next one.
//! - **What policy revokes stays** until it expires, marked: its packets are known, and none of them can
//!   pass for the first of another session, opened by the other end.
//! - **No clock.** Times are [`Tick`]s of the kernel's time since boot.
//!
//! | file | holds |
//! |---|---|
//! | `tuple`  | [`Tuple`]; the key that both directions share |
//! | `state`  | what packets show, classes, timeouts |
//! | `entry`  | [`Session`], and its words |
//! | `bucket` | seven entries under one sequence word: memory orders are here alone |
//! | `table`  | the look-up, and the change of one entry |
//! | `ahead`  | loads what the look-ups of a batch are going to read |
//! | `create` | how sessions begin, end, and make room |
//! | `counts` | sessions by port; quotas |
//! | `sweep`  | removal of what has expired |
//! | `adopt`  | the header, and what another process left |
//! | `affinity` | which backend a client of a service had last |

mod adopt;
mod affinity;
mod ahead;
mod bucket;
mod counts;
mod create;
mod entry;
mod state;
mod sweep;
mod table;
mod tuple;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;

use core::net::IpAddr;
use core::ops::Range;

use frame::Words;

use crate::tables::PortId;
use crate::tables::port::MAX_PORTS;
use adopt::HEADER_WORDS;
pub use adopt::{Adoption, Header, WhyAnew, WrongSize, note_lost};
use affinity::Affinities;
pub use affinity::{Affinity, AffinityKey};
use bucket::WAYS;
pub(crate) use bucket::Word;
use counts::Removal;
pub use counts::{PortSessions, Quota, Refusal, SessionEvents};
pub use entry::{PolicyStamp, Session};
use entry::{V4, V6};
pub use state::{Class, SEEN, State, Tick, is_opening, timeout_s};
pub use sweep::SweepCursor;
pub use table::{Found, Lookup, Place, Touch};
use table::{Spot, Table};
pub use tuple::{Direction, Endpoint, Tuple};

/// For so many seconds a table is young that took the place of one whose sessions were lost.
const YOUNG_S: u32 = 60;

/// The sessions of both IP versions, and the affinities of their clients.
#[derive(Debug)]
pub struct SessionTable {
    v4: Table<V4, Words>,
    v6: Table<V6, Words>,
    affinities: Affinities<Words>,
}

/// The memory of a table.
#[derive(Debug, Clone)]
pub struct SessionMemory {
    /// Of IPv4 sessions: [`words_v4`] words.
    pub v4: Words,
    /// Of IPv6 sessions: [`words_v6`] words.
    pub v6: Words,
    /// Of affinities: [`words_affinity`] words.
    pub affinity: Words,
}

/// A tuple, and where in the table its session is if it has one.
#[derive(Debug, Clone, Copy)]
pub struct Location {
    spot: Spot,
    is_v6: bool,
}

/// What a packet does to the table, proposed left of the verdict and done right of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEffect {
    /// Begins a session.
    Create(Session),
    /// Notes that a session was seen, and what its packet or policy showed.
    Touch(Touch),
    /// Ends the session whose server's side this is: its endpoint or service is gone.
    Close(Tuple),
}

/// What came of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The session is in the table.
    Created,
    /// Not created: the tuple had a session already, which another worker may have created a moment
    /// ago. The packet belongs to this one, whose translation may differ.
    Existing(Found),
    /// Done.
    Done,
    /// The session is not there any more: nothing was done.
    Gone,
    /// Nothing was done.
    Refused(Refusal),
}

/// Buckets of each family: room for 32,768 sessions a core and at least 131,072, as kube-proxy gives
/// the kernel's table, four to a bucket of seven.
#[must_use]
pub fn default_buckets(cores: u32) -> u32 {
    const A_CORE: u32 = 32_768;
    const AT_LEAST: u32 = 131_072;
    cores.saturating_mul(A_CORE).max(AT_LEAST) / 4
}

/// Words of memory that the IPv4 sessions of a table with so many buckets need.
#[must_use]
pub fn words_v4(buckets: u32) -> usize {
    Table::<V4, Words>::words_of(buckets)
}

/// Words of memory that its IPv6 sessions need.
#[must_use]
pub fn words_v6(buckets: u32) -> usize {
    Table::<V6, Words>::words_of(buckets)
}

/// Words of memory that the affinities beside so many buckets need.
#[must_use]
pub fn words_affinity(buckets: u32) -> usize {
    affinity::words_of(buckets)
}

impl SessionMemory {
    /// Memory on the heap for a table with so many buckets.
    #[must_use]
    pub fn on_heap(buckets: u32) -> Self {
        Self {
            v4: Words::on_heap(words_v4(buckets)),
            v6: Words::on_heap(words_v6(buckets)),
            affinity: Words::on_heap(words_affinity(buckets)),
        }
    }
}

impl SessionTable {
    /// The table in its memory: taken over from the process that left it, or made anew. Nobody else may
    /// use the memory meanwhile. What became of the content is told: of the IPv4 sessions, of the IPv6
    /// sessions, of the affinities.
    ///
    /// # Errors
    /// If a memory has another size than the header's buckets need, or the buckets are less than two.
    pub fn adopt(
        memory: SessionMemory,
        header: &Header,
        now: Tick,
    ) -> Result<(Self, [Adoption; 3]), WrongSize> {
        let (v4, of_v4) = Table::adopt(memory.v4, header, now)?;
        let (v6, of_v6) = Table::adopt(memory.v6, header, now)?;
        let (affinities, of_affinities) = Affinities::adopt(memory.affinity, header, now)?;
        Ok((Self { v4, v6, affinities }, [of_v4, of_v6, of_affinities]))
    }

    /// An empty table on the heap, which ends with the process.
    ///
    /// # Errors
    /// If the header's buckets are less than two.
    pub fn on_heap(header: &Header) -> Result<Self, WrongSize> {
        Self::adopt(SessionMemory::on_heap(header.buckets), header, Tick(0)).map(|(table, _)| table)
    }

    /// Where the session of a packet with this tuple is. Reads no entry: for many packets at a time,
    /// locate and prefetch all ([`prefetch`](Self::prefetch)), then find each.
    #[inline]
    #[must_use]
    pub fn locate(&self, tuple: &Tuple) -> Location {
        let is_v6 = tuple.is_v6();
        Location { spot: if is_v6 { self.v6.spot(tuple) } else { self.v4.spot(tuple) }, is_v6 }
    }

    /// The session of a packet with this tuple, as it arrived: before any translation. Reads only.
    #[inline]
    #[must_use]
    pub fn find(&self, tuple: &Tuple, now: Tick) -> Lookup {
        self.find_at(&self.locate(tuple), now)
    }

    /// The session at a location.
    #[inline]
    #[must_use]
    pub fn find_at(&self, at: &Location, now: Tick) -> Lookup {
        if at.is_v6 { self.v6.find(&at.spot, now) } else { self.v4.find(&at.spot, now) }
    }

    /// Does what was proposed.
    pub fn commit(&self, effect: &SessionEffect, now: Tick) -> Outcome {
        match effect {
            SessionEffect::Create(session) if session.client_side.is_v6() => {
                self.v6.create(session, now)
            }
            SessionEffect::Create(session) => self.v4.create(session, now),
            SessionEffect::Touch(touch) if touch.is_v6() => self.v6.touch(touch, now),
            SessionEffect::Touch(touch) => self.v4.touch(touch, now),
            SessionEffect::Close(tuple) if tuple.is_v6() => self.v6.end(tuple, Removal::Closed),
            SessionEffect::Close(tuple) => self.v4.end(tuple, Removal::Closed),
        }
    }

    /// What a client's affinity to a backend of a service is found by. `service` is the same at all of
    /// the service's addresses.
    #[must_use]
    pub fn affinity_key(&self, client: IpAddr, service: u64) -> AffinityKey {
        self.affinities.key(client, service)
    }

    /// The identity of the backend that the client's last new flow got, if that is no longer ago than
    /// `timeout_s` seconds. Reads only.
    #[must_use]
    pub fn affine_backend(&self, key: AffinityKey, timeout_s: u32, now: Tick) -> Option<u32> {
        self.affinities.find(key, timeout_s, now)
    }

    /// Notes the backend that a client's new flow gets.
    pub fn note_affinity(&self, affinity: Affinity, now: Tick) {
        self.affinities.note(affinity, now);
    }

    /// Removes what has expired from `budget` buckets of each family, and returns how many sessions
    /// that were: one bucket a turn of a busy worker, 4,096 when it naps. Sessions that have expired
    /// are not found in any case.
    pub fn sweep(&self, cursor: &mut SweepCursor, budget: u32, now: Tick) -> u32 {
        let (mut v4, mut v6) = (cursor.v4, cursor.v6);
        let removed = self.v4.sweep(cursor, &mut v4, budget, now)
            + self.v6.sweep(cursor, &mut v6, budget, now);
        (cursor.v4, cursor.v6) = (v4, v6);
        removed
    }

    /// Ends all sessions that are charged to a port or carried by it, and returns how many: before its
    /// number is given to another. Reads the whole table.
    pub fn forget_port(&self, port: PortId) -> u32 {
        self.v4.forget_port(port) + self.v6.forget_port(port)
    }

    /// Sessions in some of the buckets of both families: pages of a table that changes meanwhile.
    pub fn page(&self, buckets: Range<u32>, now: Tick) -> impl Iterator<Item = Session> {
        self.v4.page(buckets.clone(), now).chain(self.v6.page(buckets, now))
    }

    /// Whether the table of this IP version took the place of one that could not be used a short time ago:
    /// packets of sessions that were in that may still come.
    #[must_use]
    pub fn is_young(&self, v6: bool, now: Tick) -> bool {
        let replaced = if v6 { self.v6.replaced() } else { self.v4.replaced() };
        replaced.is_some_and(|replaced| now.since(replaced) <= YOUNG_S)
    }

    /// Buckets of each family.
    #[must_use]
    pub fn buckets(&self) -> u32 {
        self.v4.buckets
    }

    /// Entries that each family has room for; a translated session takes two.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.v4.buckets.saturating_mul(WAYS as u32)
    }

    /// What one port may have in each family.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.v4.counts.quota()
    }

    /// The sessions of a port, of both families.
    #[must_use]
    pub fn of_port(&self, port: PortId) -> PortSessions {
        let mut sessions = self.v4.counts.of_port(port);
        sessions += self.v6.counts.of_port(port);
        sessions
    }

    /// Steered sessions that a port carries: while both ports of a packet have none, it is looked up for
    /// no session's sake but policy's.
    #[inline]
    #[must_use]
    pub fn steered_of(&self, port: PortId) -> u32 {
        self.v4.counts.steered_of(port) + self.v6.counts.steered_of(port)
    }

    /// Whether any session is steered.
    #[inline]
    #[must_use]
    pub fn has_steered(&self) -> bool {
        self.v4.counts.has_steered() || self.v6.counts.has_steered()
    }

    /// All sessions of IPv4, then all of IPv6. `steered` counts a session once for each port that
    /// carries it.
    #[must_use]
    pub fn totals(&self) -> [PortSessions; 2] {
        let total = |counts: &counts::Counts| {
            (0..MAX_PORTS as u16).fold(PortSessions::default(), |mut total, port| {
                total += counts.of_port(PortId(port));
                total
            })
        };
        [total(&self.v4.counts), total(&self.v6.counts)]
    }

    /// What became of sessions of IPv4, then of IPv6.
    #[must_use]
    pub fn events(&self) -> [SessionEvents; 2] {
        [self.v4.counts.events(), self.v6.counts.events()]
    }
}
