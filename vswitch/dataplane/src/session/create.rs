//! How sessions begin and end.
//!
//! Enters: a session that a packet opens, or the server's side of one that ends. Leaves: both entries
//! of a translated session, or none of them: their buckets, four at most, are locked together. What
//! is in the way of a new session is found without a lock, removed by itself, and looked for again.

use super::Outcome;
use super::bucket::{Busy, Locked, WAYS, Word};
use super::counts::{Refusal, Removal};
use super::entry::{Entry, Layout, Session, decode, encode};
use super::state::{Class, Tick, is_opening};
use super::table::{Holder, Memory, Spot, Table};
use super::tuple::{Sorted, Tuple};
use crate::tables::PortId;
use crate::wire::TcpFlags;

/// Rounds of a creation: one for each of the two tuples and of the two pairs of buckets in which
/// something has to be removed first, one that succeeds, and as many for what others did meanwhile.
const ROUNDS: u32 = 10;

/// What a round of a creation came to.
enum Placed {
    Yes,
    /// Something holds one of the tuples by now.
    TupleHeld,
    /// Neither bucket of this pair has a free slot.
    NoRoom([u32; 2]),
}

impl<L: Layout, M: Memory> Table<L, M> {
    /// Begins a session, unless its client's side has one.
    pub(crate) fn create(&self, session: &Session, now: Tick) -> Outcome {
        let outcome = self.try_create(session, now).unwrap_or(Outcome::Refused(Refusal::Busy));
        match outcome {
            Outcome::Created => self.counts.created(),
            Outcome::Refused(refusal) => self.counts.refused(refusal),
            Outcome::Existing(_) | Outcome::Done | Outcome::Gone => {}
        }
        outcome
    }

    fn try_create(&self, session: &Session, now: Tick) -> Result<Outcome, Busy> {
        let (client, server) = (self.spot(&session.client_side), self.spot(&session.server_side));
        if session.is_translated() && client.key == server.key {
            return Ok(Outcome::Refused(Refusal::Taken));
        }
        self.note_use();
        for _ in 0..ROUNDS {
            if let Some(outcome) = self.obstacle(session, &client, &server, now)? {
                return Ok(outcome);
            }
            if !self.counts.charge(session) {
                return Ok(Outcome::Refused(Refusal::Quota));
            }
            let placed = self.place(session, &client, &server);
            if !matches!(placed, Ok(Placed::Yes)) {
                self.counts.discharge(session);
            }
            match placed? {
                Placed::Yes => return Ok(Outcome::Created),
                Placed::TupleHeld => {}
                Placed::NoRoom(pair) => {
                    if !self.make_room(pair, session.charged, now)? {
                        return Ok(Outcome::Refused(Refusal::Full));
                    }
                }
            }
        }
        Err(Busy)
    }

    /// Removes what holds the session's tuples but may not stay; what may is the outcome.
    fn obstacle(
        &self,
        session: &Session,
        client: &Spot,
        server: &Spot,
        now: Tick,
    ) -> Result<Option<Outcome>, Busy> {
        let opens = is_opening(session.protocol(), TcpFlags(session.state.opener));
        let may_go = |held: &Session| held.is_expired(now) || opens && held.is_replaceable();
        if let Some(Holder { found, is_on_its_side }) = self.holder(client)? {
            if !may_go(&found.session) {
                return Ok(Some(if is_on_its_side {
                    Outcome::Existing(found)
                } else {
                    Outcome::Refused(Refusal::Taken)
                }));
            }
            self.remove_held(&found.session, may_go, now)?;
        }
        if session.is_translated()
            && let Some(Holder { found, .. }) = self.holder(server)?
        {
            if !may_go(&found.session) {
                return Ok(Some(Outcome::Refused(Refusal::Taken)));
            }
            self.remove_held(&found.session, may_go, now)?;
        }
        Ok(None)
    }

    fn remove_held(
        &self,
        held: &Session,
        may_go: impl Fn(&Session) -> bool,
        now: Tick,
    ) -> Result<bool, Busy> {
        let why = if held.is_expired(now) { Removal::Expired } else { Removal::Reopened };
        self.remove(held, why, may_go)
    }

    /// Stores both entries, if nothing holds their tuples and there is room.
    fn place(&self, session: &Session, client: &Spot, server: &Spot) -> Result<Placed, Busy> {
        let (main, alias) = encode::<L>(session);
        let locks = self.lock(&[server.buckets, client.buckets])?;
        if locks.slot_of::<L>(server).is_some() || locks.slot_of::<L>(client).is_some() {
            return Ok(Placed::TupleHeld);
        }
        let Some(bucket) = locks.emptier(server.buckets) else {
            return Ok(Placed::NoRoom(server.buckets));
        };
        bucket.insert(server.tag, &main);
        if let Some(alias) = alias {
            let Some(bucket) = locks.emptier(client.buckets) else {
                locks.remove::<L>(server);
                return Ok(Placed::NoRoom(client.buckets));
            };
            bucket.insert(client.tag, &alias);
        }
        Ok(Placed::Yes)
    }

    /// Ends a session, if it is the one that was seen and still such that it may go. `false` if it is
    /// not.
    pub(crate) fn remove(
        &self,
        seen: &Session,
        why: Removal,
        may_go: impl Fn(&Session) -> bool,
    ) -> Result<bool, Busy> {
        let (client, server) = (self.spot(&seen.client_side), self.spot(&seen.server_side));
        let locks = self.lock(&[server.buckets, client.buckets])?;
        let Some(session) = locks.main::<L>(&server) else { return Ok(false) };
        let is_seen = session.client_side == seen.client_side && session.created == seen.created;
        if !is_seen || !may_go(&session) {
            return Ok(false);
        }
        locks.remove::<L>(&server);
        if session.is_translated() {
            locks.remove::<L>(&client);
        }
        drop(locks);
        self.counts.discharge(&session);
        self.counts.removed(why);
        Ok(true)
    }

    /// Ends the session whose responder sees this tuple.
    pub(crate) fn end(&self, server_side: &Tuple, why: Removal) -> Outcome {
        let ended = self.holder(&self.spot(server_side)).and_then(|holder| match holder {
            Some(Holder { found, .. }) => self.remove(&found.session, why, |_| true),
            None => Ok(false),
        });
        match ended {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::Gone,
            Err(Busy) => {
                self.counts.refused(Refusal::Busy);
                Outcome::Refused(Refusal::Busy)
            }
        }
    }

    /// Removes one session of a full pair of buckets: one that has expired, else one that is revoked,
    /// else one that both ends have finished, else an embryonic one of the newcomer's port, else one of a
    /// port that is at its quota of these, else one that was reset; of several the oldest. `false` if there
    /// is none; `true` also if somebody else was faster.
    fn make_room(&self, pair: [u32; 2], charged: PortId, now: Tick) -> Result<bool, Busy> {
        let rank = |session: &Session| match session.state.class {
            _ if session.is_expired(now) => Some(0),
            _ if session.policy.is_revoked => Some(1),
            Class::Finished => Some(2),
            Class::Embryonic if session.charged == charged => Some(3),
            Class::Embryonic if self.counts.is_at_embryonic_quota(session.charged) => Some(4),
            Class::Reset => Some(5),
            Class::Embryonic | Class::Established => None,
        };
        let mut victim: Option<(u8, Tick, Session)> = None;
        for index in pair {
            for slot in 0..WAYS as u8 {
                let Some(session) = self.session_in(index, slot)? else { continue };
                let Some(rank) = rank(&session) else { continue };
                let age = (rank, session.created);
                if victim.is_none_or(|(rank, created, _)| age < (rank, created)) {
                    victim = Some((rank, session.created, session));
                }
            }
        }
        let Some((rank, _, session)) = victim else { return Ok(false) };
        let (why, may_go): (_, fn(&Session, Tick) -> bool) = if rank == 0 {
            (Removal::Expired, |session, now| session.is_expired(now))
        } else {
            (Removal::Evicted, |session, _| {
                session.policy.is_revoked || session.state.class != Class::Established
            })
        };
        self.remove(&session, why, |session| may_go(session, now))?;
        Ok(true)
    }

    /// The session that has an entry in this slot: its main one, or its alias.
    fn session_in(&self, index: u32, slot: u8) -> Result<Option<Session>, Busy> {
        let Some(bucket) = self.bucket(index) else { return Ok(None) };
        let (tag, words) = bucket.read(|bucket| (bucket.tag(slot), bucket.entry::<L>(slot)))?;
        match decode(&words).filter(|_| tag != 0) {
            Some(Entry::Main(session)) => Ok(Some(session)),
            Some(Entry::Alias { main, .. }) => {
                let spot = self.spot_of(Sorted { key: main, source_is_higher: false });
                Ok(self.holder(&spot)?.map(|holder| holder.found.session))
            }
            None => Ok(None),
        }
    }

    /// Locks these buckets, each once, in the order of their numbers: two writers never wait for each
    /// other.
    fn lock(&self, pairs: &[[u32; 2]; 2]) -> Result<Locks<'_, M::Word>, Busy> {
        let [[a, b], [c, d]] = *pairs;
        let mut order = [a, b, c, d];
        order.sort_unstable();
        let mut locks = Locks { held: [const { None }; 4] };
        let mut previous = None;
        for (held, index) in locks.held.iter_mut().zip(order) {
            if previous == Some(index) {
                continue;
            }
            previous = Some(index);
            let Some(bucket) = self.bucket(index) else { continue };
            *held = Some((index, bucket.lock()?));
        }
        Ok(locks)
    }
}

/// Buckets that this thread writes, until it is dropped.
struct Locks<'a, W: Word> {
    held: [Option<(u32, Locked<'a, W>)>; 4],
}

impl<W: Word> Locks<'_, W> {
    fn bucket(&self, index: u32) -> Option<&Locked<'_, W>> {
        self.held.iter().flatten().find(|(held, _)| *held == index).map(|(_, locked)| locked)
    }

    /// Where the entry of this key is, and its words.
    fn slot_of<L: Layout>(&self, spot: &Spot) -> Option<(&Locked<'_, W>, u8, L)> {
        spot.buckets.iter().find_map(|index| {
            let locked = self.bucket(*index)?;
            let (slot, words) = locked.bucket.find(spot.tag, &spot.key)?;
            Some((locked, slot, words))
        })
    }

    fn main<L: Layout>(&self, spot: &Spot) -> Option<Session> {
        match decode(&self.slot_of::<L>(spot)?.2) {
            Some(Entry::Main(session)) => Some(session),
            _ => None,
        }
    }

    fn remove<L: Layout>(&self, spot: &Spot) {
        if let Some((locked, slot, _)) = self.slot_of::<L>(spot) {
            locked.remove(slot);
        }
    }

    /// The one of the two that has more room, if it has any.
    fn emptier(&self, pair: [u32; 2]) -> Option<&Locked<'_, W>> {
        pair.iter()
            .filter_map(|index| self.bucket(*index))
            .min_by_key(|locked| locked.bucket.occupied())
            .filter(|locked| locked.bucket.occupied() < WAYS)
    }
}
