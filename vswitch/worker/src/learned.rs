//! What workers have learned, copied out while they forward.
//!
//! Enters: a question of the control thread, with the memory for its answer. Leaves: the entries,
//! with their ages. The worker neither allocates for it nor frees: the memory is made, and touched
//! so that the kernel has given it, by who asks, goes back to him, and is never in the way of a
//! second question. It copies a page a turn, so that packets wait for no more than that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use dataplane::Millis;
use dataplane::tables::{BridgeId, Fdb, FdbTarget, Learned, PortId};
use dataplane::wire::MacAddr;

/// Entries, each with its age in milliseconds.
pub(crate) type Ages = Vec<(Learned, u64)>;

/// Slots of the table that are looked at in one turn: as long as a few packets take.
const PAGE: usize = 256;

/// The control thread's end: at most one question is under way.
pub(super) struct Asker {
    max: usize,
    is_asked: AtomicBool,
    answers: Receiver<Ages>,
}

impl Asker {
    /// Of a worker that holds at most `max` entries; and where that answers.
    pub(super) fn new(max: u32) -> (Self, Sender<Ages>) {
        let (answer, answers) = bounded(1);
        (Self { max: max as usize, is_asked: AtomicBool::new(false), answers }, answer)
    }

    /// Memory to ask with; none as long as an earlier question waits for its answer, which will be
    /// as good.
    pub(super) fn memory(&self) -> Option<Ages> {
        // Nobody waited for this one; it may be old.
        if self.answers.try_recv().is_ok() {
            self.is_asked.store(false, Ordering::Relaxed);
        }
        if self.is_asked.swap(true, Ordering::Relaxed) {
            return None;
        }
        let filler = Learned {
            bridge: BridgeId(u16::MAX),
            mac: MacAddr([u8::MAX; 6]),
            target: FdbTarget::Port(PortId(u16::MAX)),
            seen: Millis(u64::MAX),
        };
        let mut memory = vec![(filler, u64::MAX); self.max];
        memory.clear();
        Some(memory)
    }

    /// The answer, if it comes in time.
    pub(super) fn answer(&self, deadline: Instant) -> Option<Ages> {
        let answer = self.answers.recv_deadline(deadline).ok()?;
        self.is_asked.store(false, Ordering::Relaxed);
        Some(answer)
    }
}

/// The worker's end.
pub(super) struct Copier {
    answer: Sender<Ages>,
    /// What is being filled, and the next slot.
    under_way: Option<(Ages, usize)>,
}

impl Copier {
    pub(super) fn new(answer: Sender<Ages>) -> Self {
        Self { answer, under_way: None }
    }

    pub(super) fn begin(&mut self, memory: Ages) {
        self.under_way = Some((memory, 0));
    }

    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// One more page. An entry that comes, goes or moves meanwhile may be in the answer, missing, or
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
            // There is room for it, as nothing else is asked meanwhile; if he who asked is gone, so
            // are we in a moment.
            let _ = self.answer.try_send(filled);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use dataplane::Millis;
    use dataplane::tables::{BridgeId, Fdb, FdbTarget, PortId};
    use dataplane::wire::MacAddr;

    use super::{Asker, Copier, PAGE};

    const NOW: Millis = Millis(50);

    fn table(entries: u16) -> Fdb {
        let mut fdb = Fdb::new(u32::from(entries), 1_000);
        for number in 0..entries {
            let [a, b] = number.to_be_bytes();
            let (mac, port) = (MacAddr([2, 0, 0, 0, a, b]), PortId(1));
            fdb.learn(BridgeId(0), mac, FdbTarget::Port(port), port, Millis(20));
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
        let (asker, answer) = Asker::new(entries as u32);
        let mut copier = Copier::new(answer);
        copier.copy(&fdb, NOW);
        let memory = asker.memory().expect("nothing is asked");
        let (place, room) = (memory.as_ptr(), memory.capacity());
        copier.begin(memory);
        for page in 1..=4 {
            assert!(copier.is_busy(), "page {page}");
            copier.copy(&fdb, NOW);
        }
        assert!(!copier.is_busy());
        let answer = asker.answer(soon()).expect("it is there");
        assert_eq!((answer.as_ptr(), answer.capacity()), (place, room));
        assert!(answer.iter().all(|(_, age_ms)| *age_ms == 30));
        let mut macs: Vec<_> = answer.iter().map(|(entry, _)| entry.mac.0).collect();
        macs.sort_unstable();
        macs.dedup();
        assert_eq!(macs.len(), entries);
    }

    #[test]
    fn what_grows_meanwhile_does_not_grow_the_memory() {
        let (asker, answer) = Asker::new(4);
        let mut copier = Copier::new(answer);
        let memory = asker.memory().expect("nothing is asked");
        let room = memory.capacity();
        copier.begin(memory);
        copier.copy(&table(100), NOW);
        let answer = asker.answer(soon()).expect("it is there");
        assert_eq!((answer.len(), answer.capacity()), (room, room));
    }

    #[test]
    fn an_empty_table_is_an_answer_too() {
        let (asker, answer) = Asker::new(4);
        let mut copier = Copier::new(answer);
        copier.begin(asker.memory().expect("nothing is asked"));
        copier.copy(&table(0), NOW);
        assert_eq!(asker.answer(soon()).map(|answer| answer.len()), Some(0));
    }

    #[test]
    fn a_late_answer_stands_in_nobodys_way_and_is_not_taken_for_another() {
        let (asker, answer) = Asker::new(4);
        let mut copier = Copier::new(answer);
        copier.begin(asker.memory().expect("nothing is asked"));
        assert!(asker.answer(soon()).is_none());
        assert!(asker.memory().is_none(), "the first question is still under way");
        copier.copy(&table(1), NOW);
        // It came when nobody waited: whoever asks next asks anew.
        copier.begin(asker.memory().expect("the first one is over"));
        copier.copy(&table(3), NOW);
        assert_eq!(asker.answer(soon()).map(|answer| answer.len()), Some(3));
    }
}
