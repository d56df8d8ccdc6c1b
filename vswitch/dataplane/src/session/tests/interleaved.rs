//! Two workers at one bucket, in every order that the C11 memory model allows, by loom.
//!
//! The code is the table's own; the words are loom's. A thread is interrupted twice at most, which
//! loom's authors find enough for most defects; LOOM_MAX_PREEMPTIONS sets another number.
//!
//! Loom compares an access with the last one of the same word alone, and overlooks an order if that was
//! the thread's own. So the thread that only reads is the spawned one: it runs second in the first order.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::*;
use crate::session::Class;
use crate::session::affinity::{Affinities, Affinity};
use crate::session::bucket::{Bucket, Word, bucket_words};
use crate::session::counts::Removal;
use crate::session::entry::{Fields, Layout, V4, encode, key_of};
use crate::session::table::{Memory, Table};

impl Word for AtomicU64 {
    const TRIES: u32 = 12;

    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn exchange(&self, current: u64, new: u64) -> bool {
        self.compare_exchange(current, new, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn fence(order: Ordering) {
        loom::sync::atomic::fence(order);
    }

    fn relax() {
        thread::yield_now();
    }
}

struct Modelled(Vec<AtomicU64>);

impl Memory for Modelled {
    type Word = AtomicU64;

    fn words(&self) -> &[AtomicU64] {
        &self.0
    }

    fn prefetch(&self, _: usize) {}
}

type Shared = Table<V4, Modelled>;

/// Two buckets, which are every tuple's pair.
fn shared() -> Arc<Shared> {
    let words = (0..2 * bucket_words::<V4>()).map(|_| AtomicU64::new(0)).collect();
    let mut table = Table::over(Modelled(words), 2, 0x5eed);
    table.first_word = 0;
    // Quotas are not what is modelled: two buckets would have none.
    table.counts = crate::session::counts::Counts::new(1024);
    Arc::new(table)
}

fn model(run: impl Fn() + Sync + Send + 'static) {
    model_of(100, run);
}

/// A model of more than `least` orders.
fn model_of(least: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&orders);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        run();
    });
    // A model in which the threads never meet shows nothing.
    let orders = orders.load(Ordering::Relaxed);
    assert!(orders > least, "{orders}");
}

/// Runs `one` in a thread and `other` in this one.
fn together<A, B>(
    table: &Arc<Shared>,
    one: impl FnOnce(&Shared) -> A + Send + 'static,
    other: impl FnOnce(&Shared) -> B,
) -> (A, B)
where
    A: Send + 'static,
{
    let shared = Arc::clone(table);
    let thread = thread::spawn(move || one(&shared));
    let other = other(table);
    (thread.join().unwrap(), other)
}

fn find(table: &Shared, tuple: Tuple) -> Option<Session> {
    match table.find(&table.spot(&tuple), Tick(2)) {
        Lookup::Hit(found) => Some(found.session),
        Lookup::Miss => None,
        Lookup::Busy => panic!("a reader waits no longer than a writer writes"),
    }
}

fn session(number: u16) -> Session {
    plain(tcp(v4(1, number), v4(9, 80)), PortId(number), Tick(1))
}

#[test]
fn of_two_creations_of_one_tuple_one_wins_and_both_see_it() {
    model(|| {
        let table = shared();
        let [one, other] = [POD, OTHER_POD].map(|charged| Session { charged, ..session(1) });
        let create = |session: Session| move |table: &Shared| table.create(&session, Tick(1));
        let outcomes = together(&table, create(one), create(other));
        let winner = match outcomes {
            (Outcome::Created, Outcome::Existing(found)) if found.session == one => one,
            (Outcome::Existing(found), Outcome::Created) if found.session == other => other,
            outcomes => panic!("{outcomes:?}"),
        };
        assert_eq!(find(&table, one.client_side), Some(winner));
        assert_eq!(table.page(0..2, Tick(1)).count(), 1);
        let charged = [POD, OTHER_POD].map(|port| table.counts.of_port(port).embryonic);
        assert_eq!(charged.iter().sum::<u32>(), 1);
    });
}

/// An entry of four words: loom's orders grow with each.
type Small = [u64; 4];

impl Layout for Small {
    const WORDS: usize = 4;
    const ADDRESS_WORDS: usize = 1;
    const LOCAL: usize = 0;
    const IS_V6: bool = false;
    const ZERO: Self = [0; 4];

    fn fields(&self) -> Fields {
        let [addresses, meta, state, policy] = *self;
        [addresses, meta, state, policy, 0, 0, 0, 0].fields()
    }

    fn of_fields(fields: &Fields) -> Self {
        let [addresses, meta, state, policy, ..] = V4::of_fields(fields);
        [addresses, meta, state, policy]
    }
}

#[test]
fn a_reader_sees_a_whole_entry_or_none() {
    model(|| {
        let words: Vec<_> = (0..bucket_words::<Small>()).map(|_| AtomicU64::new(0)).collect();
        let words = Arc::new(words);
        // Two keys, each under its own tag; the last words of an entry are equal.
        let (old, new) = ([1, 2, 5, 5], [3, 4, 6, 6]);
        let lock = || Bucket::of(&words).unwrap().lock().unwrap();
        lock().insert(11, &old);
        let shared = Arc::clone(&words);
        let reader = thread::spawn(move || {
            let bucket = Bucket::of(&shared).unwrap();
            let find =
                |tag, entry| bucket.read(|bucket| bucket.find::<Small>(tag, &key_of(&entry)));
            [find(11, old), find(13, new)]
        });
        // The new one takes the slot of the old one.
        let locked = lock();
        locked.remove(0);
        locked.insert(13, &new);
        drop(locked);
        let [first, second] = reader.join().unwrap();
        assert!([Ok(None), Ok(Some((0, old)))].contains(&first), "{first:?}");
        assert!([Ok(None), Ok(Some((0, new)))].contains(&second), "{second:?}");
        // Who finds the old one gone finds the new one.
        assert!(first.unwrap().is_some() || second.unwrap().is_some());
    });
}

#[test]
fn a_touch_never_harms_the_session_that_took_the_slot() {
    model(|| {
        let table = shared();
        let (old, new) = (session(1), session(2));
        table.create(&old, Tick(1));
        let Lookup::Hit(found) = table.find(&table.spot(&old.client_side), Tick(1)) else {
            panic!("it is there")
        };
        let (spot, new_spot) = (table.spot(&old.client_side), table.spot(&new.client_side));
        let at =
            *spot.buckets.iter().find(|at| table.bucket(**at).unwrap().occupied() > 0).unwrap();
        // Only a second has passed, or the handshake goes on: with the lock or without.
        let touches = [(SYN, Tick(2)), (SYN.with(ACK), Tick(1))];
        let shared = Arc::clone(&table);
        let toucher = thread::spawn(move || {
            touches.map(|(flags, now)| shared.touch(&found.touch(flags, now).unwrap(), now))
        });
        let locked = table.bucket(at).unwrap().lock().unwrap();
        locked.remove(0);
        locked.insert::<V4>(new_spot.tag, &encode(&new).0);
        drop(locked);
        toucher.join().unwrap();
        let now = find(&table, new.client_side).unwrap();
        let state = State { last_seen: new.state.last_seen, ..now.state };
        assert_eq!(Session { state, ..now }, new);
        assert!(now.state.last_seen <= Tick(2));
    });
}

#[test]
fn two_packets_of_one_session_both_count() {
    model(|| {
        let table = shared();
        let opened = session(1);
        table.create(&opened, Tick(1));
        let packet = |tuple: Tuple, flags| {
            move |table: &Shared| {
                let Lookup::Hit(found) = table.find(&table.spot(&tuple), Tick(1)) else {
                    panic!("it is there")
                };
                table.touch(&found.touch(flags, Tick(1)).unwrap(), Tick(1))
            }
        };
        let done = together(
            &table,
            packet(opened.server_side.reversed(), SYN_ACK),
            packet(opened.client_side, ACK),
        );
        assert_eq!(done, (Outcome::Done, Outcome::Done));
        assert_eq!(find(&table, opened.client_side).unwrap().state.class, Class::Established);
        let counts = table.counts.of_port(opened.charged);
        assert_eq!((counts.embryonic, counts.established), (0, 1));
    });
}

#[test]
fn translated_sessions_are_stored_and_removed_with_both_entries() {
    model(|| {
        let table = shared();
        let service = |number| {
            let client = v4(1, number);
            opened(tcp(client, v4(900, 80)), tcp(client, v4(9, 80)), PortId(number), Tick(1))
        };
        let (old, new) = (service(1), service(2));
        table.create(&old, Tick(1));
        let (ended, created) = together(
            &table,
            move |table| table.end(&old.server_side, Removal::Closed),
            |table| table.create(&new, Tick(1)),
        );
        assert_eq!((ended, created), (Outcome::Done, Outcome::Created));
        for (session, is_there) in [(old, false), (new, true)] {
            assert_eq!(find(&table, session.client_side).is_some(), is_there);
            assert_eq!(find(&table, session.server_side.reversed()).is_some(), is_there);
        }
        let entries = (0..2).filter_map(|at| table.bucket(at)).map(|bucket| bucket.occupied());
        assert_eq!(entries.sum::<usize>(), 2);
    });
}

/// Affinities with one set of eight slots, all of them used at this tick by clients from 1 on, whose
/// backends have their numbers.
fn affinities(last: Tick) -> Arc<Affinities<Modelled>> {
    let words = (0..16).map(|_| AtomicU64::new(0)).collect();
    let mut table = Affinities::over(Modelled(words), 4, 0x5eed);
    table.first_word = 0;
    for client in 1..=8 {
        table.note(affinity(&table, client), last);
    }
    Arc::new(table)
}

fn affinity(table: &Affinities<Modelled>, client: u16) -> Affinity {
    Affinity { key: table.key(v4(client, 0).address, 7), backend: client.into() }
}

fn backend(table: &Affinities<Modelled>, client: u16) -> Option<u32> {
    table.find(affinity(table, client).key, 60, Tick(3))
}

#[test]
fn an_affinity_that_two_workers_renew_is_found_all_the_time() {
    /// A flow that begins: the door looks, and `process` notes.
    fn flow(table: &Affinities<Modelled>, now: Tick) -> [Option<u32>; 2] {
        let before = backend(table, 8);
        table.note(affinity(table, 8), now);
        [before, backend(table, 8)]
    }
    // They meet at one word alone.
    model_of(10, || {
        let table = affinities(Tick(1));
        let shared = Arc::clone(&table);
        let other = thread::spawn(move || [flow(&shared, Tick(2)), flow(&shared, Tick(3))]);
        assert_eq!(flow(&table, Tick(3)), [Some(8); 2]);
        assert_eq!(other.join().unwrap(), [[Some(8); 2]; 2]);
    });
}

/// Lost it may be, if the other one takes the slot; but no client gets another's backend.
#[test]
fn of_two_affinities_stored_in_one_set_neither_is_taken_for_another() {
    model(|| {
        let table = affinities(Tick(1));
        let shared = Arc::clone(&table);
        let reader = thread::spawn(move || {
            shared.note(affinity(&shared, 11), Tick(3));
            [1, 11, 12].map(|client| backend(&shared, client))
        });
        table.note(affinity(&table, 12), Tick(3));
        let seen = [1, 11, 12].map(|client| backend(&table, client));
        for seen in [seen, reader.join().unwrap()] {
            for (client, seen) in [1, 11, 12].into_iter().zip(seen) {
                assert!(seen.is_none_or(|backend| backend == client), "{client}: {seen:?}");
            }
        }
        let kept = (1..=12).filter(|client| backend(&table, *client).is_some()).count();
        assert!(kept >= 6, "{kept}");
    });
}
