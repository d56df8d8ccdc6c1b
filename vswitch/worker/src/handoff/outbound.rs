//! Which packets a worker hands over, and to which worker.
//!
//! Enters: the workers that are to share its packets of IPIP, from the control thread; each packet that its queues
//! gave, before it is processed. Leaves: copies of some, in the rings of others; word of when a flow may go another
//! way. `turn` alone calls it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use dataplane::Ipip;
use dataplane::tables::Tables;
use frame::Packet;

use super::Bell;
use super::ring::{Ring, Sender, add};

/// Places that flows have by their hash. A place is with one worker.
pub(super) const BUCKETS: usize = 256;

/// The bits of the hash that decide: others have chosen the way through the underlay.
const HASH_SHIFT: u32 = 42;

/// The way to another worker.
pub(crate) struct Way {
    worker: usize,
    sender: Sender,
    bell: Arc<Bell>,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handed {
    /// It is this worker's to process.
    No,
    /// It is in another's ring.
    Over,
    /// It is another's, whose ring is full.
    NoRoom,
}

/// A place.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    worker: usize,
    /// The last of its packets: the turn in which it was processed here, or the last place of the ring that it took.
    last: u64,
}

/// Packets of IPIP that a worker has received and kept; it alone writes them.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) packets: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

pub(crate) struct Outbound {
    own: usize,
    /// Workers that are to share the packets; empty while nobody wants to know.
    members: Vec<usize>,
    ways: Vec<Way>,
    buckets: Box<[Bucket]>,
    /// Buckets that are with others.
    away: usize,
    /// Turns so far, the present one included.
    turn: u64,
    /// The last turn at whose end nothing waited here.
    settled: u64,
    /// A ring has packets that its receiver does not see yet.
    unpublished: bool,
    kept: Arc<Kept>,
}

impl Way {
    pub(crate) fn new(worker: usize, ring: Arc<Ring>, bell: Arc<Bell>) -> Self {
        Self { worker, sender: Sender::new(ring), bell }
    }
}

impl Outbound {
    pub(crate) fn new(own: usize, kept: Arc<Kept>) -> Self {
        Self {
            own,
            members: Vec::new(),
            ways: Vec::new(),
            buckets: vec![Bucket { worker: own, last: 0 }; BUCKETS].into(),
            away: 0,
            turn: 0,
            settled: 0,
            unpublished: false,
            kept,
        }
    }

    /// Shares packets among these workers from now on, each flow as soon as its order allows. `ways` are those that
    /// are new; one stays as long as the worker does. To be called between two turns.
    pub(crate) fn share(&mut self, members: Vec<usize>, ways: Vec<Way>) {
        self.ways.extend(ways);
        self.members = members;
        let Self { members, ways, own, .. } = self;
        members.retain(|member| member == own || ways.iter().any(|way| way.worker == *member));
        // While nothing is handed over nobody notes when a flow had its last packet.
        for bucket in self.buckets.iter_mut().filter(|bucket| bucket.worker == self.own) {
            bucket.last = self.turn;
        }
    }

    pub(crate) fn begin_turn(&mut self) {
        self.turn += 1;
    }

    /// A turn ends. If the worker `holds` packets for the rate of a port, any of this turn's may be among them.
    pub(crate) fn end_turn(&mut self, holds: bool) {
        if !holds {
            self.settled = self.turn;
        }
        if self.away > 0 && !self.shares() {
            // Flows that have ended come back as well, so that packets are not looked into for ever.
            (0..BUCKETS).for_each(|at| self.settle(at));
        }
    }

    /// Whether packets are to be asked for at all: not with one worker, nor without a wish.
    #[inline]
    pub(crate) fn looks(&self) -> bool {
        !self.members.is_empty() || self.away > 0
    }

    /// Others are to have some of the packets.
    fn shares(&self) -> bool {
        self.members.iter().any(|member| *member != self.own)
    }

    /// Hands a packet of the NIC's over, if it is another's. [`publish`](Self::publish) is to follow.
    pub(crate) fn hand_over(&mut self, tables: &Tables, packet: &Packet) -> Handed {
        let Some(ipip) = Ipip::of(tables, &packet.frame) else { return Handed::No };
        if self.away == 0 && !self.shares() {
            return self.keep(packet);
        }
        let at = (ipip.flow_hash() >> HASH_SHIFT) as usize % BUCKETS;
        self.settle(at);
        let Some(bucket) = self.buckets.get_mut(at) else { return Handed::No };
        let Some(way) = self.ways.iter_mut().find(|way| way.worker == bucket.worker) else {
            bucket.last = self.turn;
            return self.keep(packet);
        };
        if !way.sender.push(packet) {
            return Handed::NoRoom;
        }
        bucket.last = way.sender.filled();
        self.unpublished = true;
        Handed::Over
    }

    fn keep(&self, packet: &Packet) -> Handed {
        add(&self.kept.packets, 1);
        add(&self.kept.bytes, packet.frame.len() as u64);
        Handed::No
    }

    /// Gives a bucket to the worker that is to have it, if the one that has it is done with all of its packets.
    fn settle(&mut self, at: usize) {
        let Self { own, members, ways, settled, away, .. } = self;
        let wished = members.get(at % members.len().max(1)).copied().unwrap_or(*own);
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        if bucket.worker == wished {
            return;
        }
        let carried_out = match ways.iter().find(|way| way.worker == bucket.worker) {
            Some(way) => way.sender.carried_out(),
            None => *settled,
        };
        if carried_out < bucket.last {
            return;
        }
        *away -= usize::from(bucket.worker != *own);
        *away += usize::from(wished != *own);
        // Of the new one it has no packet yet.
        *bucket = Bucket { worker: wished, last: 0 };
    }

    /// Shows others what was handed over to them, and wakes those that sleep. To be called when a queue was served,
    /// and not at the end of the turn: what is left of that may take as long as several batches.
    pub(crate) fn publish(&mut self) {
        if !self.unpublished {
            return;
        }
        self.unpublished = false;
        for way in &mut self.ways {
            if way.sender.publish() {
                way.bell.ring();
            }
        }
    }
}

#[cfg(test)]
mod tests;
