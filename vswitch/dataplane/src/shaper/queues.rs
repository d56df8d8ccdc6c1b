//! The queues of all ports in one block of memory: nothing is allocated when a packet waits, and what
//! waits in all has a bound. Called by `shaper` alone.

use frame::Packet;

use crate::tables::{MAX_PORTS, PortId};

/// One packet that waits for its port.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) packet: Packet,
    /// The port that it came from.
    pub(crate) ingress: PortId,
    /// How many packets it stands for.
    pub(crate) packets: u64,
    /// What its port's rate is charged.
    pub(crate) bytes: u32,
}

/// No place.
const NONE: u16 = u16::MAX;

#[derive(Debug)]
pub(super) struct Queues {
    places: Vec<Place>,
    /// The first of the free places.
    first_free: u16,
    free_count: u16,
    ports: Vec<Queue>,
}

#[derive(Debug)]
struct Place {
    held: Option<Held>,
    /// The place behind it, in its queue or among the free.
    next: u16,
}

#[derive(Debug, Clone, Copy)]
struct Queue {
    first: u16,
    last: u16,
    frames: u16,
    bytes: u32,
}

const EMPTY: Queue = Queue { first: NONE, last: NONE, frames: 0, bytes: 0 };

impl Queues {
    /// Queues with so many places in all: fewer than 2^16 - 1.
    pub(super) fn new(places: u16) -> Self {
        let next = |at: u16| if at + 1 < places { at + 1 } else { NONE };
        Self {
            places: (0..places).map(|at| Place { held: None, next: next(at) }).collect(),
            first_free: if places == 0 { NONE } else { 0 },
            free_count: places,
            ports: vec![EMPTY; MAX_PORTS],
        }
    }

    /// Places that are free.
    pub(super) fn free_places(&self) -> u16 {
        self.free_count
    }

    /// Frames that wait for a port, and their bytes.
    pub(super) fn fill(&self, port: PortId) -> (u16, u32) {
        self.ports.get(usize::from(port.0)).map_or((0, 0), |queue| (queue.frames, queue.bytes))
    }

    /// The packet that waits longest.
    pub(super) fn first(&self, port: PortId) -> Option<&Held> {
        let queue = self.ports.get(usize::from(port.0))?;
        self.places.get(usize::from(queue.first))?.held.as_ref()
    }

    /// Puts a packet behind the others, or gives it back if no place is free.
    pub(super) fn push(&mut self, port: PortId, held: Held) -> Option<Held> {
        let Some(queue) = self.ports.get_mut(usize::from(port.0)) else { return Some(held) };
        let at = self.first_free;
        let Some(place) = self.places.get_mut(usize::from(at)) else { return Some(held) };
        self.first_free = place.next;
        self.free_count -= 1;
        queue.frames += 1;
        queue.bytes = queue.bytes.saturating_add(held.bytes);
        *place = Place { held: Some(held), next: NONE };
        let last = core::mem::replace(&mut queue.last, at);
        match self.places.get_mut(usize::from(last)) {
            Some(last) => last.next = at,
            None => queue.first = at,
        }
        None
    }

    /// Takes the packet that waits longest.
    pub(super) fn pop(&mut self, port: PortId) -> Option<Held> {
        let queue = self.ports.get_mut(usize::from(port.0))?;
        let at = queue.first;
        let place = self.places.get_mut(usize::from(at))?;
        let held = place.held.take()?;
        queue.first = place.next;
        queue.frames -= 1;
        queue.bytes = queue.bytes.saturating_sub(held.bytes);
        if queue.first == NONE {
            *queue = EMPTY;
        }
        place.next = self.first_free;
        self.first_free = at;
        self.free_count += 1;
        Some(held)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;

    use frame::{Packet, Pool};
    use proptest::prelude::*;

    use super::{Held, Queues};
    use crate::tables::PortId;

    proptest! {
        /// As queues that allocate, with a bound to all of them.
        #[test]
        fn each_queue_is_first_in_first_out(
            places in 1_u16..6,
            steps in prop::collection::vec((any::<bool>(), 0_u16..3), 0..200),
        ) {
            let pool = Pool::new(8);
            let mut queues = Queues::new(places);
            let mut model = vec![VecDeque::new(); 3];
            for (number, (is_push, port)) in steps.into_iter().enumerate() {
                let (bytes, own) = (number as u32, usize::from(port));
                if is_push {
                    let packet = Packet::plain(pool.alloc().unwrap());
                    let held = Held { packet, ingress: PortId(9), packets: 1, bytes };
                    let refused = queues.push(PortId(port), held);
                    let all: usize = model.iter().map(VecDeque::len).sum();
                    prop_assert_eq!(refused.is_some(), all == usize::from(places));
                    if refused.is_none() {
                        model.get_mut(own).unwrap().push_back(bytes);
                    }
                } else {
                    let expected = model.get_mut(own).unwrap().pop_front();
                    let first = queues.first(PortId(port)).map(|held| held.bytes);
                    prop_assert_eq!(first, expected);
                    prop_assert_eq!(queues.pop(PortId(port)).map(|held| held.bytes), expected);
                }
                for (port, model) in model.iter().enumerate() {
                    let fill = (model.len() as u16, model.iter().sum::<u32>());
                    prop_assert_eq!(queues.fill(PortId(port as u16)), fill);
                }
                let all: usize = model.iter().map(VecDeque::len).sum();
                prop_assert_eq!(usize::from(queues.free_places()), usize::from(places) - all);
                prop_assert_eq!(pool.available(), pool.total() - all);
            }
        }
    }
}
