//! What is sent to ports with a rate: passed, held back for a while, or dropped.
//!
//! Enters: packets on their way out, from `exit`; the time, once a turn. Leaves: an [`Admission`]; later
//! the packets that were held, when their port's budget has room for them. The budget is shared by all
//! workers, the queues are this worker's. A queue holds 25 ms of the rate and 64 frames; from half of
//! either on, packets whose transport takes part in ECN are marked (RFC 3168, section 5).

mod queues;
mod wire_len;

use std::sync::Arc;

use frame::{Packet, Pool};

use crate::act::{Egress, Tally, frame_of};
use crate::rate::{Budgets, Limit, Nanos};
use crate::tables::{PortId, Tables};
use crate::verdict::DropReason;
use crate::wire::{Ecn, EtherType, Ethernet, Ipv4, Ipv6, ethernet, header_mut, ipv4, ipv6};
pub(crate) use queues::Held;
use queues::Queues;
pub use wire_len::wire_len;

/// Frames of one port that wait at most.
const MAX_FRAMES: u16 = 64;

/// Frames of packet memory that may wait, as a part of all: the others are for ports without a rate.
const POOL_PART: usize = 4;

/// What may be done with a packet to a port with a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is to be sent: the budget is charged for it.
    Now,
    /// It is to be held.
    Later,
    /// It is to be dropped.
    Never,
}

/// The shaper of one worker.
#[derive(Debug)]
pub(crate) struct Shaper {
    budgets: Arc<Budgets>,
    queues: Queues,
    /// Ports with packets that wait.
    waiting: Vec<PortId>,
    /// When the first of them may be sent; late where other workers have sent meanwhile.
    due: Option<Nanos>,
    now: Nanos,
}

impl Shaper {
    pub(crate) fn new(pool: &Pool, budgets: Arc<Budgets>) -> Self {
        let places = (pool.total() / POOL_PART).clamp(1, usize::from(u16::MAX) - 1) as u16;
        Self {
            budgets,
            queues: Queues::new(places),
            // No more ports wait than packets.
            waiting: Vec::with_capacity(places.into()),
            due: None,
            now: Nanos::default(),
        }
    }

    pub(crate) fn due(&self) -> Option<Nanos> {
        self.due
    }

    /// Judges a frame of so many bytes. What waits already is before it: it was tried at the beginning
    /// of the turn.
    pub(crate) fn admit(&mut self, limit: &Limit, port: PortId, bytes: u32) -> Admission {
        let Some(budget) = self.budgets.of(port) else { return Admission::Now };
        let (frames, waiting_bytes) = self.queues.fill(port);
        if frames == 0 {
            match budget.take(limit, bytes, self.now) {
                Ok(()) => return Admission::Now,
                Err(opens) => self.due = Some(self.due.map_or(opens, |due| due.min(opens))),
            }
        }
        // As many as are free, so that some places are always left for another port.
        let most_frames = MAX_FRAMES.min(self.queues.free_places());
        let is_short = frames == 0 || waiting_bytes.saturating_add(bytes) <= limit.queue_bytes();
        if frames < most_frames && is_short { Admission::Later } else { Admission::Never }
    }

    /// Holds a packet that was admitted for later.
    pub(crate) fn hold(&mut self, limit: &Limit, port: PortId, mut held: Held) -> Option<Held> {
        let (frames, bytes) = self.queues.fill(port);
        let bytes = bytes.saturating_add(held.bytes);
        if bytes >= limit.queue_bytes() / 2 || frames + 1 >= MAX_FRAMES / 2 {
            mark(&mut held.packet);
        }
        let refused = self.queues.push(port, held);
        if refused.is_none() && frames == 0 {
            self.waiting.push(port);
        }
        refused
    }

    /// Begins a turn: sends what the budgets have room for.
    pub(crate) fn turn(
        &mut self,
        tables: &Tables,
        now: Nanos,
        egress: &mut impl Egress,
        tally: &mut impl Tally,
    ) {
        self.now = now;
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        self.due = None;
        let mut at = 0;
        while let Some(&port) = self.waiting.get(at) {
            match self.release(tables, port, egress, tally) {
                Some(opens) => {
                    self.due = Some(self.due.map_or(opens, |due| due.min(opens)));
                    at += 1;
                }
                None => {
                    self.waiting.swap_remove(at);
                }
            }
        }
    }

    /// Sends what waits for a port; when the next may be sent, if some is left.
    fn release(
        &mut self,
        tables: &Tables,
        port: PortId,
        egress: &mut impl Egress,
        tally: &mut impl Tally,
    ) -> Option<Nanos> {
        loop {
            let bytes = self.queues.first(port)?.bytes;
            let to = tables.port(port);
            if let Some(limit) = to.and_then(|to| to.tx_limit.as_ref())
                && let Some(budget) = self.budgets.of(port)
                && let Err(opens) = budget.take(limit, bytes, self.now)
            {
                return Some(opens);
            }
            let Held { packet, ingress, packets, .. } = self.queues.pop(port)?;
            let len = packet.frame.len();
            if to.is_none() {
                tally.dropped(ingress, packets, DropReason::PortGone, &packet.frame);
                continue;
            }
            match egress.send(port, packet) {
                Ok(()) => tally.sent(port, packets, len),
                Err(reason) => {
                    let refused = egress.take_refused();
                    tally.dropped(ingress, packets, reason, frame_of(refused.as_ref()));
                }
            }
        }
    }

    /// Drops what waits for a port that is taken away.
    pub(crate) fn forget(&mut self, port: PortId, tally: &mut impl Tally) {
        while let Some(held) = self.queues.pop(port) {
            tally.dropped(held.ingress, held.packets, DropReason::PortGone, &held.packet.frame);
        }
        self.waiting.retain(|waiting| *waiting != port);
    }
}

/// Marks a packet as one that met congestion, if its transport takes part.
fn mark(packet: &mut Packet) -> Option<()> {
    let l3 = ethernet::HEADER_LEN;
    let frame = Ethernet::parse(&packet.frame).ok()?;
    let takes_part = |ecn| matches!(ecn, Ecn::Ect0 | Ecn::Ect1).then_some(());
    match frame.ethertype() {
        EtherType::IPV4 => {
            takes_part(Ipv4::parse_header(frame.payload()).ok()?.ecn())?;
            ipv4::set_ecn(header_mut(&mut packet.frame, l3)?, Ecn::Ce);
        }
        EtherType::IPV6 => {
            takes_part(Ipv6::parse_header(frame.payload()).ok()?.ecn())?;
            ipv6::set_ecn(header_mut(&mut packet.frame, l3)?, Ecn::Ce);
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
