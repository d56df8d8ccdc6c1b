//! A writer that dies: wherever it does, what is adopted is whole.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::session::Adoption;
use crate::session::bucket::Word;
use crate::session::entry::V4;
use crate::session::table::{Memory, Table};
use crate::session::{Refusal, counts::Removal};

thread_local! {
    /// Stores that the process still makes.
    static STORES: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// A word of memory that outlives the process, whose stores end when the process does.
struct Mortal(AtomicU64);

fn is_alive() -> bool {
    STORES.with(|stores| {
        let left = stores.get();
        stores.set(left.saturating_sub(1));
        left > 0
    })
}

impl Word for Mortal {
    const TRIES: u32 = 4;

    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        if is_alive() {
            self.0.store(value, order);
        }
    }

    fn exchange(&self, current: u64, new: u64) -> bool {
        self.0.load(Ordering::Relaxed) == current && {
            self.store(new, Ordering::Relaxed);
            true
        }
    }

    fn fence(_: Ordering) {}

    fn relax() {}
}

impl Memory for &[Mortal] {
    type Word = Mortal;

    fn words(&self) -> &[Mortal] {
        self
    }

    fn prefetch(&self, _: usize) {}
}

type Dying<'a> = Table<V4, &'a [Mortal]>;

const BUCKETS: u32 = 4;

fn memory() -> Vec<Mortal> {
    (0..Dying::words_of(BUCKETS)).map(|_| Mortal(AtomicU64::new(0))).collect()
}

fn adopt(words: &[Mortal], buckets: u32) -> (Dying<'_>, Adoption) {
    STORES.set(u32::MAX);
    Table::adopt(words, &header(buckets), Tick(5)).unwrap()
}

/// Each is charged to a port of its own: the quota of so small a table is one. It was not judged yet, as
/// an adopted one counts.
fn service(number: u16) -> Session {
    let (client, backend) = (v4(1, 40_000 + number), v4(9, 8080));
    let session = opened(tcp(client, v4(900, 80)), tcp(client, backend), PortId(number), Tick(1));
    Session { policy: PolicyStamp { generation: 0, ..session.policy }, ..session }
}

fn sessions(table: &Dying<'_>) -> Vec<Session> {
    table.page(0..BUCKETS, Tick(5)).collect()
}

/// Whether each side of the session is found.
fn sides(table: &Dying<'_>, session: &Session) -> [bool; 2] {
    [session.client_side, session.server_side.reversed()]
        .map(|tuple| matches!(table.find(&table.spot(&tuple), Tick(5)), Lookup::Hit(_)))
}

/// Lets the process die after each number of stores of `act`, and looks at what is adopted.
fn dies_anywhere(act: impl Fn(&Dying<'_>)) {
    let mut whole = [0, 0];
    for stores in 0.. {
        let words = memory();
        let (table, _) = adopt(&words, BUCKETS);
        for number in 0..4 {
            assert_eq!(table.create(&service(number), Tick(1)), Outcome::Created);
        }
        STORES.set(stores);
        act(&table);
        let died = STORES.get() == 0;
        drop(table);

        let (table, adoption) = adopt(&words, BUCKETS);
        let Adoption::Adopted { sessions: counted, voided, dropped } = adoption else {
            panic!("{adoption:?}")
        };
        let found = sessions(&table);
        assert_eq!(counted as usize, found.len());
        for number in 0..6 {
            let session = service(number);
            let is_there = found.contains(&session);
            assert_eq!(sides(&table, &session), [is_there; 2], "{number} after {stores} stores");
            let counts = table.counts.of_port(session.charged);
            assert_eq!([counts.embryonic, counts.steered], [is_there.into(); 2]);
            whole[usize::from(is_there)] += 1;
            // And the table works: what is absent can be created.
            if !is_there {
                assert_eq!(table.create(&session, Tick(5)), Outcome::Created);
                assert_eq!(sides(&table, &session), [true; 2]);
            }
        }
        if !died {
            assert_eq!((voided, dropped), (0, 0));
            break;
        }
    }
    assert!(whole.iter().all(|count| *count > 0), "{whole:?}");
}

#[test]
fn a_creation_that_is_cut_off_leaves_a_session_or_none() {
    dies_anywhere(|table| {
        let _ = table.create(&service(4), Tick(2));
    });
}

#[test]
fn an_end_that_is_cut_off_leaves_a_session_or_none() {
    dies_anywhere(|table| {
        let _ = table.end(&service(2).server_side, Removal::Closed);
    });
}

#[test]
fn a_bucket_that_its_writer_left_holds_nobody_up_and_is_void_in_the_next_process() {
    let words = memory();
    let (table, _) = adopt(&words, BUCKETS);
    let (held, other) = (service(0), service(1));
    assert_eq!(table.create(&held, Tick(1)), Outcome::Created);
    let Lookup::Hit(found) = table.find(&table.spot(&held.client_side), Tick(1)) else {
        panic!("it is there")
    };
    let touch = found.touch(SYN_ACK, Tick(1)).unwrap();
    STORES.set(1); // The sequence becomes odd, and nothing else happens.
    let _ = table.end(&held.server_side, Removal::Closed);
    STORES.set(u32::MAX);

    // In this process: refused, not waited for.
    let busy = Outcome::Refused(Refusal::Busy);
    let outcomes = [
        table.end(&held.server_side, Removal::Closed),
        table.create(&held, Tick(1)),
        table.touch(&touch, Tick(1)),
    ];
    assert!(outcomes.contains(&busy), "{outcomes:?}");
    drop(table);
    // In the next one: void.
    let (table, adoption) = adopt(&words, BUCKETS);
    assert!(matches!(adoption, Adoption::Adopted { voided: 1, .. }), "{adoption:?}");
    assert_eq!(table.create(&other, Tick(5)), Outcome::Created);
    assert!(table.end(&other.server_side, Removal::Closed) == Outcome::Done);
}
