//! Which source of packets is served next, and with how much.
//!
//! Enters: sources that may have packets, and what serving them took. Leaves: the next to be served in a turn.
//! Pure: no packet, no clock. The turn alone calls it.
//!
//! Sources that send little come before those that always have packets, and these take turns: deficit round
//! robin (Shreedhar and Varghese 1996) with the two lists of FQ-CoDel (RFC 8290, section 4.2). A turn
//! serves every fresh source, and of those that wait one; then the worker asks again which are ready. So a
//! packet of a pod that sends little waits for one share of a pod that floods, however many flood. One that
//! has been alone for long gets more at a time.
//!
//! In a round each source that waits has its place once, and none gets more than a share of it: one that was
//! emptied keeps a place, too, and until that comes has what is left of its share, by which it is fresh when it
//! is ready again. Without that the most would go to who is emptied again and again.

use std::collections::VecDeque;

use dataplane::tables::{MAX_PORTS, PortId};
use frame::CAPACITY_BYTES;

/// What a packet takes beside its bytes. Reading one from a TAP and writing it to another takes a worker
/// 0.12 ns a byte and 0.6 to 1.3 µs more, as system calls go: as much as 4,800 to 11,000 bytes.
const PACKET_COST: i64 = 8192;

/// What a source gets at a time: the longest packet, so that one fits in any case, or nine of the shortest.
pub(super) const SHARE: i64 = cost(CAPACITY_BYTES);

/// What a source gets at a time that has been alone. To look at which are ready after every eight packets takes
/// 5 % of a worker's time, after 17 it takes 1 %.
const LONE_SHARE: i64 = 4 * SHARE;

/// A source is alone after so many turns in which no other had a packet: a millisecond or so. Two that answer one
/// another come more often.
const LONE_TURNS: u32 = 64;

/// What it takes to receive a packet of so many bytes and send it on, in bytes.
pub(super) const fn cost(len: usize) -> i64 {
    PACKET_COST + len as i64
}

/// What so many packets of so many bytes in all take a worker, as the schedule counts it, in bytes.
#[must_use]
pub fn work(packets: u64, bytes: u64) -> u64 {
    packets.saturating_mul(PACKET_COST as u64).saturating_add(bytes)
}

/// A source of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The interface of a pod or of the host.
    Port(PortId),
    /// Packets of the NIC that other workers have handed over, all together.
    Handoff,
    /// A queue of the NIC, by its place among the worker's own.
    Queue(u16),
}

/// Whether a source that was served may have more packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// It may.
    Some,
    /// It had none.
    Nothing,
}

/// What is known of a source. Of one that is neither fresh nor waiting, no packets are known.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// In `fresh`.
    is_fresh: bool,
    /// Served when its place in the round comes.
    is_waiting: bool,
    /// In `round`.
    is_in_round: bool,
    /// What is left of its share in this round; negative where its last packet took more.
    credit: i64,
}

/// The sources of one worker.
pub(super) struct Schedule {
    fresh: VecDeque<Source>,
    round: VecDeque<Source>,
    /// How many wait.
    waiting: usize,
    /// A queue may have packets and is not served in this turn, as it has used up its share.
    overlooks: bool,
    /// The last source that had a packet.
    last: Option<Source>,
    /// Turns since another had one.
    turns_alone: u32,
    /// Others may hand packets over.
    takes_over: bool,
    /// Ports by their number, then what is handed over, then queues.
    places: Vec<Place>,
}

/// What is left of a turn.
pub(super) struct Plan {
    fresh: usize,
    serves_round: bool,
}

/// Where places of queues begin.
const QUEUES: usize = MAX_PORTS + 1;

const IDLE: Place = Place { is_fresh: false, is_waiting: false, is_in_round: false, credit: SHARE };

impl Schedule {
    pub(super) fn new(queues: usize) -> Self {
        let places = QUEUES + queues;
        Self {
            fresh: VecDeque::with_capacity(places),
            round: VecDeque::with_capacity(places),
            waiting: 0,
            overlooks: false,
            last: None,
            turns_alone: 0,
            takes_over: false,
            places: vec![IDLE; places],
        }
    }

    /// Has other queues from now on, so many; nothing is known of them. Between turns alone.
    pub(super) fn set_queues(&mut self, queues: usize) {
        let is_no_queue = |source: &Source| !matches!(source, Source::Queue(_));
        self.fresh.retain(is_no_queue);
        self.round.retain(is_no_queue);
        let waiting = self.places.drain(QUEUES..).filter(|place| place.is_waiting).count();
        self.waiting -= waiting;
        self.places.resize(QUEUES + queues, IDLE);
        (self.overlooks, self.last) = (false, self.last.filter(is_no_queue));
    }

    /// Others may hand packets over from now on. Between turns alone.
    pub(super) fn take_over(&mut self) {
        self.takes_over = true;
    }

    /// Notes that a port has packets.
    pub(super) fn ready(&mut self, id: PortId) {
        let source = Source::Port(id);
        if let Some(place) = self.freshen(source)
            && !place.is_fresh
            && !place.is_waiting
        {
            debug_assert!(place.is_in_round, "who has used up a share keeps a place");
            place.is_waiting = true;
            self.waiting += 1;
        }
    }

    /// The port is not this worker's to serve any more. To be called between two turns.
    pub(super) fn forget(&mut self, id: PortId) {
        let source = Source::Port(id);
        self.fresh.retain(|other| *other != source);
        self.round.retain(|other| *other != source);
        let share = self.share();
        let Some(place) = self.places.get_mut(index(source)) else { return };
        self.waiting -= usize::from(place.is_waiting);
        *place = Place { is_fresh: false, is_waiting: false, is_in_round: false, credit: share };
    }

    /// Makes a source fresh that is not served otherwise, unless it has used up its share of this round.
    fn freshen(&mut self, source: Source) -> Option<&mut Place> {
        let share = self.share();
        let place = self.places.get_mut(index(source))?;
        if self.waiting == 0 {
            place.renew(share);
        }
        if !place.is_fresh && !place.is_waiting && place.credit > 0 {
            place.is_fresh = true;
            self.fresh.push_back(source);
        }
        Some(place)
    }

    /// Begins a turn. Ports that become ready from now on are served in the next one. Queues, and what is handed
    /// over, are not announced: each that has something left of its share is looked at.
    pub(super) fn begin(&mut self) -> Plan {
        self.overlooks = false;
        self.turns_alone = self.turns_alone.saturating_add(1);
        let handoff = self.takes_over.then_some(Source::Handoff);
        let queues = (0..self.places.len() - QUEUES).map(|queue| Source::Queue(queue as u16));
        for source in handoff.into_iter().chain(queues) {
            let place = self.freshen(source);
            let is_served = place.is_some_and(|place| place.is_fresh || place.is_waiting);
            self.overlooks |= !is_served;
        }
        Plan { fresh: self.fresh.len(), serves_round: true }
    }

    /// The next source of the turn, and what its packets may take, in bytes; the last may take more.
    pub(super) fn next(&mut self, plan: &mut Plan) -> Option<(Source, i64)> {
        if plan.fresh > 0 {
            plan.fresh -= 1;
            let source = self.fresh.pop_front()?;
            let place = self.places.get_mut(index(source))?;
            place.is_fresh = false;
            return Some((source, place.credit));
        }
        let share = self.share();
        while plan.serves_round {
            let source = self.round.pop_front()?;
            let place = self.places.get_mut(index(source))?;
            place.is_in_round = false;
            place.renew(share);
            if place.is_waiting {
                place.is_waiting = false;
                self.waiting -= 1;
                plan.serves_round = false;
                return Some((source, place.credit));
            }
            // Packets that are read together may take more than two shares: it keeps its place until it has
            // paid them off.
            if place.credit <= 0 {
                place.is_in_round = true;
                self.round.push_back(source);
            }
        }
        None
    }

    /// Notes what serving a source took, and whether it has more.
    pub(super) fn served(&mut self, source: Source, took: i64, left: Left) {
        if took > 0 && self.last != Some(source) {
            (self.last, self.turns_alone) = (Some(source), 0);
        }
        let share = self.share();
        let Some(place) = self.places.get_mut(index(source)) else { return };
        place.credit -= took;
        if left == Left::Some {
            place.is_waiting = true;
            self.waiting += 1;
        }
        if place.is_in_round {
            return;
        }
        // While nobody waits there is no round to keep a place in.
        if self.waiting > 0 {
            place.is_in_round = true;
            self.round.push_back(source);
        } else {
            place.renew(share);
            // Nobody had to wait for what it took beyond two shares, and with nothing left it would be neither
            // fresh nor in the round when it is ready again.
            place.credit = place.credit.max(1);
        }
    }

    /// What each source gets at a time now.
    fn share(&self) -> i64 {
        if self.turns_alone < LONE_TURNS { SHARE } else { LONE_SHARE }
    }

    /// Whether no source has packets, after a turn in which every queue was looked at.
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.waiting == 0 && !self.overlooks
    }
}

impl Place {
    /// Gives it another share. What it did not need of the last is nobody's.
    fn renew(&mut self, share: i64) {
        self.credit = self.credit.min(0) + share;
    }
}

fn index(source: Source) -> usize {
    match source {
        Source::Port(id) => usize::from(id.0),
        Source::Handoff => MAX_PORTS,
        Source::Queue(queue) => QUEUES + usize::from(queue),
    }
}

#[cfg(test)]
mod tests;
