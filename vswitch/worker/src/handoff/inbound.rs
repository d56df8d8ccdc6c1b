//! The rings that a worker empties: packets that others have received, for it to process.
//!
//! Enters: rings, from the control thread; their packets. Leaves: these, in frames of the worker's own, a few of
//! each ring in turn; word to the senders of what has reached its end. `turn` alone calls it.

use std::sync::Arc;

use frame::{Packet, Pool};
use netio::uplink::RxError;

use super::Bell;
use super::ring::{Receiver, Ring};

pub(crate) struct Inbound {
    rings: Vec<Receiver>,
    /// The ring that is emptied first the next time.
    first: usize,
    bell: Arc<Bell>,
}

impl Inbound {
    pub(crate) fn new(bell: Arc<Bell>) -> Self {
        Self { rings: Vec::new(), first: 0, bell }
    }

    pub(crate) fn add(&mut self, ring: Arc<Ring>) {
        self.rings.push(Receiver::new(ring));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rings.iter().all(Receiver::is_empty)
    }

    /// Delivers at most `budget` packets, each in a frame of `pool`, or what became of it; returns how many.
    pub(crate) fn recv(
        &mut self,
        pool: &Pool,
        budget: usize,
        mut deliver: impl FnMut(Result<Packet, RxError>),
    ) -> usize {
        let Self { rings, first, .. } = self;
        let count = rings.len();
        let mut received = 0;
        for at in 0..count {
            let Some(ring) = rings.get_mut((*first + at) % count) else { break };
            while received < budget
                && let Some(packet) = ring.pop(pool)
            {
                deliver(packet);
                received += 1;
            }
            ring.give_back();
        }
        *first = (*first + 1) % count.max(1);
        received
    }

    /// A turn ends. If the worker `holds` packets for the rate of a port, any of what was taken may be among them.
    pub(crate) fn end_turn(&mut self, holds: bool) {
        if !holds {
            self.rings.iter_mut().for_each(Receiver::all_carried_out);
        }
    }

    /// The worker is about to sleep; false if it must not, as there are packets.
    pub(crate) fn may_sleep(&self) -> bool {
        self.rings.is_empty() || self.bell.sleeps(|| !self.is_empty())
    }

    pub(crate) fn awake(&self) {
        if !self.rings.is_empty() {
            self.bell.is_awake();
        }
    }
}
