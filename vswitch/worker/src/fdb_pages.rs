//! A worker's learned MACs, copied out while it forwards.
//!
//! Enters: a request of the control thread, with the memory for its answer. Leaves: the entries,
//! with their ages. The worker neither allocates nor frees for it: the control thread makes the
//! memory, touches it so that the kernel has given it, and gets it back. The worker copies one page
//! a turn, so that packets wait for no more than that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use dataplane::Millis;
use dataplane::tables::{BridgeId, Fdb, LearnedMac, VtepId};
use dataplane::wire::MacAddr;

/// Learned MACs, each with its age in milliseconds.
pub(crate) type FdbEntries = Vec<(LearnedMac, u64)>;

/// Slots of the table that are looked at in one turn: as long as a few packets take.
const PAGE: usize = 256;

/// The control thread's end: at most one request to the worker is under way.
pub(super) struct FdbReader {
    max: usize,
    is_requested: AtomicBool,
    answers: Receiver<FdbEntries>,
}

impl FdbReader {
    /// A reader of a worker that holds at most `max` entries, and the sender by which the worker
    /// answers.
    pub(super) fn new(max: u32) -> (Self, Sender<FdbEntries>) {
        let (answer, answers) = bounded(1);
        (Self { max: max as usize, is_requested: AtomicBool::new(false), answers }, answer)
    }

    /// Memory for the entries, to be sent to the worker. `None` while an earlier request is under
    /// way: its answer will do.
    pub(super) fn memory(&self) -> Option<FdbEntries> {
        // Came too late for the request that it answers, and may be old.
        if self.answers.try_recv().is_ok() {
            self.is_requested.store(false, Ordering::Relaxed);
        }
        if self.is_requested.swap(true, Ordering::Relaxed) {
            return None;
        }
        let filler = LearnedMac {
            bridge: BridgeId(u16::MAX),
            mac: MacAddr([u8::MAX; 6]),
            vtep: VtepId(u16::MAX),
            seen: Millis(u64::MAX),
        };
        let mut memory = vec![(filler, u64::MAX); self.max];
        memory.clear();
        Some(memory)
    }

    /// The entries, if the worker has copied them by the deadline.
    pub(super) fn entries(&self, deadline: Instant) -> Option<FdbEntries> {
        let answer = self.answers.recv_deadline(deadline).ok()?;
        self.is_requested.store(false, Ordering::Relaxed);
        Some(answer)
    }
}

/// The worker's end: copies its FDB into memory that the control thread sent.
pub(super) struct FdbCopier {
    answer: Sender<FdbEntries>,
    /// The memory that is being filled, and the next slot of the FDB to copy.
    under_way: Option<(FdbEntries, usize)>,
}

impl FdbCopier {
    pub(super) fn new(answer: Sender<FdbEntries>) -> Self {
        Self { answer, under_way: None }
    }

    pub(super) fn begin(&mut self, memory: FdbEntries) {
        self.under_way = Some((memory, 0));
    }

    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Copies one more page. An entry that comes, goes or moves meanwhile may be in the answer, missing, or
    /// there twice.
    #[inline]
    pub(super) fn copy(&mut self, fdb: &Fdb, now: Millis) {
        if self.is_busy() {
            self.page(fdb, now);
        }
    }

    #[cold]
    fn page(&mut self, fdb: &Fdb, now: Millis) {
        let Some((into, at)) = &mut self.under_way else { return };
        let room = into.capacity() - into.len();
        let page = fdb.page(*at..*at + PAGE, now).take(room);
        into.extend(page.map(|entry| (entry, now.since(entry.seen))));
        *at += PAGE;
        if *at >= fdb.slots()
            && let Some((filled, _)) = self.under_way.take()
        {
            // There is room for it, as one request is under way at most; if the reader is gone, so
            // are we in a moment.
            let _ = self.answer.try_send(filled);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use dataplane::Millis;
    use dataplane::tables::{BridgeId, Fdb, VtepId};
    use dataplane::wire::MacAddr;

    use super::{FdbCopier, FdbReader, PAGE};

    const NOW: Millis = Millis(50);

    fn table(entries: u16) -> Fdb {
        let mut fdb = Fdb::new(u32::from(entries), 1_000);
        for number in 0..entries {
            let [a, b] = number.to_be_bytes();
            fdb.learn(BridgeId(0), MacAddr([2, 0, 0, 0, a, b]), VtepId(1), Millis(20));
        }
        fdb
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    #[test]
    fn a_full_table_comes_page_by_page_in_the_memory_that_was_given() {
        let entries = 3 * PAGE + 5;
        let fdb = table(entries as u16);
        let (reader, answer) = FdbReader::new(entries as u32);
        let mut copier = FdbCopier::new(answer);
        copier.copy(&fdb, NOW);
        let memory = reader.memory().expect("no request is under way");
        let (place, room) = (memory.as_ptr(), memory.capacity());
        copier.begin(memory);
        for page in 1..=4 {
            assert!(copier.is_busy(), "page {page}");
            copier.copy(&fdb, NOW);
        }
        assert!(!copier.is_busy());
        let answer = reader.entries(soon()).expect("it is there");
        assert_eq!((answer.as_ptr(), answer.capacity()), (place, room));
        assert!(answer.iter().all(|(_, age_ms)| *age_ms == 30));
        let mut macs: Vec<_> = answer.iter().map(|(entry, _)| entry.mac.0).collect();
        macs.sort_unstable();
        macs.dedup();
        assert_eq!(macs.len(), entries);
    }

    #[test]
    fn what_grows_meanwhile_does_not_grow_the_memory() {
        let (reader, answer) = FdbReader::new(4);
        let mut copier = FdbCopier::new(answer);
        let memory = reader.memory().expect("no request is under way");
        let room = memory.capacity();
        copier.begin(memory);
        copier.copy(&table(100), NOW);
        let answer = reader.entries(soon()).expect("it is there");
        assert_eq!((answer.len(), answer.capacity()), (room, room));
    }

    #[test]
    fn an_empty_table_is_an_answer_too() {
        let (reader, answer) = FdbReader::new(4);
        let mut copier = FdbCopier::new(answer);
        copier.begin(reader.memory().expect("no request is under way"));
        copier.copy(&table(0), NOW);
        assert_eq!(reader.entries(soon()).map(|answer| answer.len()), Some(0));
    }

    #[test]
    fn a_late_answer_is_dropped_and_not_taken_for_the_next_one() {
        let (reader, answer) = FdbReader::new(4);
        let mut copier = FdbCopier::new(answer);
        copier.begin(reader.memory().expect("no request is under way"));
        assert!(reader.entries(soon()).is_none());
        assert!(reader.memory().is_none(), "the first request is still under way");
        copier.copy(&table(1), NOW);
        // It came after its deadline: the next request is a new one.
        copier.begin(reader.memory().expect("the first one is over"));
        copier.copy(&table(3), NOW);
        assert_eq!(reader.entries(soon()).map(|answer| answer.len()), Some(3));
    }
}
