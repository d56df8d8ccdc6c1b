//! The ring: what is written is read, whole or not at all.

use std::sync::Arc;
use std::thread;

use super::{BEGINNING_BYTES, DropRing, DropSnapshot, SLOTS, Slot};
use crate::Millis;
use crate::tables::PortId;
use crate::verdict::DropReason;

/// A snapshot all of whose words follow from its number.
fn numbered(number: u64) -> DropSnapshot {
    let frame = [number as u8; BEGINNING_BYTES];
    let packets = number as u32;
    DropSnapshot::new(Millis(number), DropReason::NoRoute, PortId(number as u16), packets, &frame)
}

fn all_of(ring: &DropRing, from: u64) -> Vec<DropSnapshot> {
    let mut all = Vec::new();
    ring.since(from, |snapshot| all.push(*snapshot));
    all
}

#[test]
fn a_snapshot_is_read_as_it_was_written() {
    let ring = DropRing::new();
    let at = Millis(u64::MAX - 1);
    for (len, kept) in [(0, 0), (60, 60), (160, 160), (65_000, 160)] {
        let frame: Vec<u8> = (0..len).map(|at| at as u8).collect();
        for reason in [DropReason::FrameTooShort, *DropReason::ALL.last().unwrap()] {
            let from = ring.written();
            ring.put(&DropSnapshot::new(at, reason, PortId(u16::MAX), u32::MAX, &frame));
            let [read] = all_of(&ring, from)[..] else { panic!("{len} bytes") };
            assert_eq!((read.at, read.reason, read.ingress), (at, reason, PortId(u16::MAX)));
            assert_eq!((read.packets, read.len as usize), (u32::MAX, len));
            assert_eq!(read.beginning(), &frame[..kept]);
        }
    }
}

#[test]
fn the_oldest_are_overwritten_and_a_reader_goes_on_where_it_was() {
    let ring = DropRing::new();
    for number in 0..SLOTS + 7 {
        ring.put(&numbered(number));
    }
    let all = all_of(&ring, 0);
    assert_eq!(all.len() as u64, SLOTS);
    assert_eq!((all[0], all[255]), (numbered(7), numbered(SLOTS + 6)));
    let end = ring.since(SLOTS + 5, |snapshot| assert!(snapshot.at.0 >= SLOTS + 5));
    assert_eq!(all_of(&ring, end), []);
    ring.put(&numbered(9));
    assert_eq!(all_of(&ring, end), [numbered(9)]);
    assert_eq!(all_of(&ring, end + 100).len() as u64, SLOTS, "a number of another ring");
}

#[test]
fn a_reader_that_races_the_writer_sees_whole_snapshots_in_order() {
    const WRITTEN: u64 = 200_000;
    let ring = Arc::new(DropRing::new());
    let writer = {
        let ring = Arc::clone(&ring);
        thread::spawn(move || (0..WRITTEN).for_each(|number| ring.put(&numbered(number))))
    };
    let (mut next, mut last, mut seen) = (0, None, 0_u64);
    while next < WRITTEN {
        next = ring.since(next, |snapshot| {
            assert_eq!(*snapshot, numbered(snapshot.at.0), "its words belong together");
            assert!(last < Some(snapshot.at.0), "no snapshot comes twice");
            last = Some(snapshot.at.0);
            seen += 1;
        });
    }
    writer.join().unwrap();
    assert!(seen > 0);
}

/// In every order that the memory model allows, by loom; of a slot of two words.
#[test]
fn a_slot_is_read_whole_or_not_at_all_in_every_order() {
    use loom::sync::atomic::AtomicU64;

    loom::model(|| {
        let slot = loom::sync::Arc::new(Slot::<_, 2>::of(|| AtomicU64::new(0)));
        let read = loom::sync::Arc::clone(&slot);
        let reader = loom::thread::spawn(move || [0, 1].map(|number| read.read(number)));
        slot.write(0, &[10, 20]);
        slot.write(1, &[11, 21]);
        let [first, second] = reader.join().unwrap();
        assert!(first.is_none_or(|content| content == [10, 20]), "{first:?}");
        assert!(second.is_none_or(|content| content == [11, 21]), "{second:?}");
        assert_eq!(slot.read(0), None);
        assert_eq!(slot.read(1), Some([11, 21]));
    });
}
