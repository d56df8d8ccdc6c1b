//! Packets on their way from one worker to another: a ring of memory that both have, filled by one and emptied by
//! the other.
//!
//! Enters: packets, which are copied; a long one takes several places. Leaves: the same, in frames of the other
//! worker's. Nothing is allocated after the ring was made, and neither side waits: each place is one side's alone,
//! until that side moves its end of the ring past it. So the lock of a place is always free; it is there for the
//! compiler, which knows nothing of the ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use frame::{Offload, Packet, Pool};
use netio::uplink::RxError;

use super::Line;

/// Bytes of a place: a packet of 1,500 bytes in its frame. Others take several.
const PLACE_BYTES: usize = 2048;

/// Places of a ring: some batches of the NIC's queue, for a worker that has to be woken first. Half a megabyte.
pub(super) const PLACES: u64 = 256;

/// A piece of a packet, or all of it.
struct Place {
    len: usize,
    /// The next place has more of the packet.
    continues: bool,
    offload: Offload,
    bytes: Box<[u8]>,
}

/// The memory that two workers share. Places are counted from the first that was ever filled.
pub(crate) struct Ring {
    places: Box<[Mutex<Place>]>,
    /// So many are filled; the sender's to write.
    filled: Line<AtomicU64>,
    /// So many are empty again; the receiver's to write.
    emptied: Line<AtomicU64>,
    /// What was in so many of them has reached its end; the receiver's to write.
    carried_out: Line<AtomicU64>,
    /// Packets and bytes so far; the sender's to write, for the control thread.
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Ring {
    pub(crate) fn new() -> Self {
        let place = || Place {
            len: 0,
            continues: false,
            offload: Offload::default(),
            bytes: vec![0; PLACE_BYTES].into(),
        };
        Self {
            places: (0..PLACES).map(|_| Mutex::new(place())).collect(),
            filled: Line::default(),
            emptied: Line::default(),
            carried_out: Line::default(),
            packets: AtomicU64::default(),
            bytes: AtomicU64::default(),
        }
    }

    /// Packets and their bytes that were handed over so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    fn place(&self, number: u64) -> MutexGuard<'_, Place> {
        // PLACES of them; a panic of either side ends the process.
        self.places[(number % PLACES) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that is filled.
pub(super) struct Sender {
    ring: Arc<Ring>,
    /// Places that are filled, published or not.
    filled: u64,
    published: u64,
    /// Places that were empty again when that was looked at last.
    emptied: u64,
}

impl Sender {
    pub(super) fn new(ring: Arc<Ring>) -> Self {
        Self { ring, filled: 0, published: 0, emptied: 0 }
    }

    /// Copies a packet into the ring; false if there is no room. The receiver sees it after `publish`.
    pub(super) fn push(&mut self, packet: &Packet) -> bool {
        let wanted = packet.frame.len().div_ceil(PLACE_BYTES).max(1) as u64;
        if !self.has_room(wanted) {
            return false;
        }
        let mut rest: &[u8] = &packet.frame;
        for _ in 0..wanted {
            let (piece, behind) = rest.split_at(rest.len().min(PLACE_BYTES));
            let mut place = self.ring.place(self.filled);
            place.bytes[..piece.len()].copy_from_slice(piece);
            place.len = piece.len();
            place.continues = !behind.is_empty();
            place.offload = packet.offload;
            drop(place);
            self.filled += 1;
            rest = behind;
        }
        add(&self.ring.packets, 1);
        add(&self.ring.bytes, packet.frame.len() as u64);
        true
    }

    fn has_room(&mut self, wanted: u64) -> bool {
        let has = |emptied: u64| self.filled + wanted <= emptied + PLACES;
        if has(self.emptied) {
            return true;
        }
        let emptied = self.ring.emptied.0.load(Ordering::Acquire);
        let has = has(emptied);
        self.emptied = emptied;
        has
    }

    /// Shows the receiver what was pushed; true if that was something.
    pub(super) fn publish(&mut self) -> bool {
        let is_more = self.filled > self.published;
        if is_more {
            self.published = self.filled;
            self.ring.filled.0.store(self.filled, Ordering::Release);
        }
        is_more
    }

    /// Places that were filled so far.
    pub(super) fn filled(&self) -> u64 {
        self.filled
    }

    /// Of these, how many have reached their end.
    pub(super) fn carried_out(&self) -> u64 {
        self.ring.carried_out.0.load(Ordering::Acquire)
    }
}

/// The end that is emptied.
pub(super) struct Receiver {
    ring: Arc<Ring>,
    emptied: u64,
    carried_out: u64,
}

impl Receiver {
    pub(super) fn new(ring: Arc<Ring>) -> Self {
        Self { ring, emptied: 0, carried_out: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ring.filled.0.load(Ordering::Acquire) == self.emptied
    }

    /// Takes the next packet, in a frame of the pool, or what became of it.
    pub(super) fn pop(&mut self, pool: &Pool) -> Option<Result<Packet, RxError>> {
        if self.is_empty() {
            return None;
        }
        let mut received = pool.alloc().map(Packet::plain).ok_or(RxError::NoFrame);
        loop {
            let place = self.ring.place(self.emptied);
            self.emptied += 1;
            if let Ok(packet) = &mut received {
                packet.offload = place.offload;
                if packet.frame.extend_from_slice(&place.bytes[..place.len]).is_err() {
                    received = Err(RxError::TooLong);
                }
            }
            // Packets are published whole.
            if !place.continues {
                return Some(received);
            }
        }
    }

    /// Gives the sender the places of what was taken.
    pub(super) fn give_back(&self) {
        self.ring.emptied.0.store(self.emptied, Ordering::Release);
    }

    /// Tells the sender that all that was taken has reached its end.
    pub(super) fn all_carried_out(&mut self) {
        if self.carried_out != self.emptied {
            self.carried_out = self.emptied;
            self.ring.carried_out.0.store(self.emptied, Ordering::Release);
        }
    }
}

/// One thread alone writes it.
pub(crate) fn add(count: &AtomicU64, by: u64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use frame::{CAPACITY_BYTES, Checksum, Offload, Packet, Pool};
    use netio::uplink::RxError;

    use super::{PLACE_BYTES, PLACES, Receiver, Ring, Sender};

    fn ends() -> (Sender, Receiver) {
        let ring = Arc::new(Ring::new());
        (Sender::new(Arc::clone(&ring)), Receiver::new(ring))
    }

    fn packet(pool: &Pool, len: usize, byte: u8) -> Packet {
        let mut frame = pool.alloc().expect("a frame is free");
        frame.extend(len).expect("room").fill(byte);
        Packet::plain(frame)
    }

    #[test]
    fn packets_of_any_length_arrive_whole_and_in_order() {
        let (pool, (mut sender, mut receiver)) = (Pool::new(2), ends());
        let lens = [14, PLACE_BYTES, PLACE_BYTES + 1, 9014, CAPACITY_BYTES, 60];
        for round in 0..20 {
            for (byte, len) in lens.into_iter().enumerate() {
                let mut packet = packet(&pool, len, byte as u8);
                packet.offload.checksum = Checksum::Partial { start: 54, offset: byte as u16 };
                assert!(sender.push(&packet), "round {round}");
            }
            assert!(receiver.is_empty(), "nothing is published");
            assert!(sender.publish() && !sender.publish());
            for (byte, len) in lens.into_iter().enumerate() {
                let received = receiver.pop(&pool).expect("it is there").expect("a frame is free");
                assert_eq!(received.frame.len(), len);
                assert!(received.frame.iter().all(|found| usize::from(*found) == byte));
                let checksum = Checksum::Partial { start: 54, offset: byte as u16 };
                assert_eq!(received.offload, Offload { checksum, gso: None });
            }
            assert!(receiver.pop(&pool).is_none());
            receiver.give_back();
        }
        let bytes = 20 * lens.iter().sum::<usize>() as u64;
        assert_eq!(sender.ring.counts(), (20 * lens.len() as u64, bytes));
    }

    #[test]
    fn a_full_ring_takes_nothing_and_no_half_of_a_packet() {
        let (pool, (mut sender, mut receiver)) = (Pool::new(2), ends());
        for _ in 0..PLACES - 2 {
            assert!(sender.push(&packet(&pool, 60, 1)));
        }
        assert!(!sender.push(&packet(&pool, 3 * PLACE_BYTES, 2)), "two places are left");
        assert!(sender.push(&packet(&pool, 2 * PLACE_BYTES, 3)));
        assert!(!sender.push(&packet(&pool, 60, 4)));
        sender.publish();
        for _ in 0..PLACES - 2 {
            assert!(matches!(receiver.pop(&pool), Some(Ok(packet)) if packet.frame[0] == 1));
        }
        assert!(!sender.push(&packet(&pool, 60, 4)), "the places are not given back");
        receiver.give_back();
        assert!(sender.push(&packet(&pool, 60, 4)));
        assert!(matches!(receiver.pop(&pool), Some(Ok(packet)) if packet.frame[0] == 3));
        assert!(receiver.pop(&pool).is_none());
        assert_eq!(sender.ring.counts().0, PLACES);
    }

    #[test]
    fn without_a_frame_a_packet_is_taken_all_the_same() {
        let (pool, (mut sender, mut receiver)) = (Pool::new(1), ends());
        assert!(sender.push(&packet(&pool, 3 * PLACE_BYTES, 1)));
        assert!(sender.push(&packet(&pool, 60, 2)));
        sender.publish();
        let held = pool.alloc();
        assert!(matches!(receiver.pop(&pool), Some(Err(RxError::NoFrame))));
        drop(held);
        assert!(matches!(receiver.pop(&pool), Some(Ok(packet)) if packet.frame[0] == 2));
    }

    #[test]
    fn what_is_taken_is_carried_out_when_that_is_said() {
        let (pool, (mut sender, mut receiver)) = (Pool::new(1), ends());
        assert!(sender.push(&packet(&pool, 60, 1)));
        sender.publish();
        drop(receiver.pop(&pool));
        receiver.give_back();
        assert_eq!((sender.filled(), sender.carried_out()), (1, 0));
        receiver.all_carried_out();
        assert_eq!(sender.carried_out(), 1);
    }

    #[test]
    fn two_threads_see_the_same_packets() {
        const COUNT: u32 = 20_000;
        let (mut sender, mut receiver) = ends();
        thread::scope(|scope| {
            scope.spawn(move || {
                let pool = Pool::new(1);
                for number in 0..COUNT {
                    let mut packet = packet(&pool, 60 + number as usize % 5000, 0);
                    packet.frame[..4].copy_from_slice(&number.to_be_bytes());
                    while !sender.push(&packet) {
                        sender.publish();
                        thread::yield_now();
                    }
                }
                sender.publish();
            });
            let pool = Pool::new(1);
            for number in 0..COUNT {
                let received = loop {
                    match receiver.pop(&pool) {
                        Some(received) => break received.expect("a frame is free"),
                        None => thread::yield_now(),
                    }
                };
                receiver.give_back();
                assert_eq!(received.frame[..4], number.to_be_bytes());
                assert_eq!(received.frame.len(), 60 + number as usize % 5000);
            }
        });
    }
}
