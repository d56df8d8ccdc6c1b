//! What the next process makes of a table.

use core::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::session::{
    Adoption, Affinity, Header, SessionMemory, WhyAnew, WrongSize, note_lost, words_v4,
};

fn adopt(memory: &SessionMemory, header: &Header, now: Tick) -> (SessionTable, [Adoption; 3]) {
    SessionTable::adopt(memory.clone(), header, now).unwrap()
}

fn all(why: WhyAnew) -> [Adoption; 3] {
    [Adoption::Anew(why); 3]
}

const SERVICE: u64 = 7;

/// A table with a session of each kind, and an affinity.
fn left_by_another(buckets: u32) -> (SessionMemory, Vec<Session>) {
    let memory = SessionMemory::on_heap(buckets);
    let (table, adoption) = adopt(&memory, &header(buckets), Tick(0));
    assert_eq!(adoption, all(WhyAnew::Fresh));
    table.note_affinity(
        Affinity { key: table.affinity_key(v4(1, 0).address, SERVICE), backend: 5 },
        Tick(3),
    );
    let sessions = vec![
        plain(tcp(v4(1, 1), v4(2, 2)), POD, Tick(3)),
        opened(tcp(v4(1, 5), v4(900, 2)), tcp(v4(254, 7), v4(3, 3)), OTHER_POD, Tick(3)),
        opened(tcp(v6(1, 5), v6(900, 2)), tcp(v6(1, 5), v6(3, 3)), POD, Tick(3)),
    ];
    for session in &sessions {
        assert_eq!(table.create(*session, Tick(3)), Outcome::Created);
    }
    (memory, sessions)
}

/// The backend of the affinity that [`left_by_another`] left.
fn affine(table: &SessionTable, now: Tick) -> Option<u32> {
    table.affine_backend(table.affinity_key(v4(1, 0).address, SERVICE), 60, now)
}

#[test]
fn sessions_outlive_their_process() {
    let (words, sessions) = left_by_another(64);
    // Another seed is proposed; the table keeps its own.
    let (table, adoption) = adopt(&words, &Header { seed: 99, ..header(64) }, Tick(5));
    let of = |sessions| Adoption::Adopted { sessions, voided: 0, dropped: 0 };
    assert_eq!(adoption, [of(2), of(1), of(1)]);
    assert_eq!(affine(&table, Tick(63)), Some(5));
    assert_eq!(affine(&table, Tick(64)), None);
    for session in sessions {
        // Generations of policies are counted anew.
        let policy = PolicyStamp { generation: 0, ..session.policy };
        let adopted = table.hit(session.client_side, Tick(5)).unwrap().session;
        assert_eq!(adopted, Session { policy, ..session });
        assert!(table.hit(session.server_side.reversed(), Tick(5)).is_some());
    }
    assert_eq!((table.of_port(POD).embryonic, table.of_port(OTHER_POD).embryonic), (2, 1));
    assert_eq!((table.steered_of(POD), table.steered_of(OTHER_POD)), (1, 1));
}

#[test]
fn memory_in_place_of_a_lost_one_is_that_of_a_table_that_had_sessions() {
    let memory = SessionMemory::on_heap(64);
    for words in [&memory.v4, &memory.v6, &memory.affinity] {
        note_lost(words);
    }
    let (table, adoption) = adopt(&memory, &header(64), Tick(5));
    assert_eq!(adoption, all(WhyAnew::Lost));
    assert!(table.is_young(false, Tick(65)) && !table.is_young(false, Tick(66)));
}

#[test]
fn a_table_of_another_kind_is_made_anew_and_says_why() {
    for (at, value, why) in [
        (0, 7, WhyAnew::Foreign),
        (0, u64::MAX, WhyAnew::Lost),
        (1, 2, WhyAnew::Layout(2)),
        (2, 9, WhyAnew::Kind),
        (3, 63, WhyAnew::Buckets(63)),
        (4, 1, WhyAnew::Boot),
        (5, 1, WhyAnew::Boot),
        (7, 1, WhyAnew::Hash),
        // Another seed than that of which the hash is.
        (6, 1, WhyAnew::Hash),
    ] {
        let (words, sessions) = left_by_another(64);
        for words in [&words.v4, &words.v6, &words.affinity] {
            words[at].store(value, Ordering::Relaxed);
        }
        let (table, adoption) = adopt(&words, &header(64), Tick(5));
        assert_eq!(adoption, all(why));
        assert_eq!(affine(&table, Tick(3)), None);
        assert_eq!(table.all(Tick(0)), []);
        assert_eq!(table.of_port(POD).embryonic, 0);
        assert_eq!(table.create(sessions[1], Tick(5)), Outcome::Created);
        // And is one of ours from now on.
        let (table, adoption) = adopt(&words, &header(64), Tick(5));
        assert!(matches!(adoption[0], Adoption::Adopted { sessions: 1, .. }), "{adoption:?}");
        let policy = PolicyStamp { generation: 0, ..sessions[1].policy };
        assert_eq!(table.all(Tick(5)), [Session { policy, ..sessions[1] }]);
        // It was young for its first process, and still is for the next one; but not where nobody can
        // have had a session.
        let had_some = why != WhyAnew::Boot;
        for (now, is_young) in [(5, had_some), (65, had_some), (66, false)] {
            assert_eq!(table.is_young(false, Tick(now)), is_young, "{now}");
            assert_eq!(table.is_young(true, Tick(now)), is_young, "{now}");
        }
    }
}

#[test]
fn memory_of_another_size_is_refused() {
    let memory = SessionMemory::on_heap(64);
    let error = SessionTable::adopt(memory, &header(65), Tick(0)).unwrap_err();
    assert_eq!(error, WrongSize { needed: words_v4(65), given: words_v4(64) });
    for buckets in [0, 1] {
        assert!(SessionTable::on_heap(&header(buckets)).is_err());
    }
}

#[test]
fn a_session_from_the_future_is_dropped() {
    let (words, sessions) = left_by_another(64);
    let (table, _) = adopt(&words, &header(64), Tick(5));
    table.establish(&sessions[1], Tick(3));
    table.packet(sessions[1].client_side, ACK, Tick(6));
    let (table, adoption) = adopt(&words, &header(64), Tick(5));
    // The session itself, and its alias.
    assert_eq!(adoption[0], Adoption::Adopted { sessions: 1, voided: 0, dropped: 2 });
    assert_eq!(table.hit(sessions[1].client_side, Tick(5)), None);
}

#[test]
fn an_affinity_from_the_future_is_dropped() {
    let (words, _) = left_by_another(64);
    let (table, adoption) = adopt(&words, &header(64), Tick(2));
    assert_eq!(adoption[2], Adoption::Adopted { sessions: 0, voided: 0, dropped: 1 });
    assert_eq!(affine(&table, Tick(3)), None);
}

proptest! {
    #[test]
    fn any_content_is_adopted_to_a_table_that_works(
        damage in proptest::collection::vec((512usize..768, any::<u64>()), 1..40)
    ) {
        let (words, _) = left_by_another(4);
        for (at, value) in damage {
            words.v4[at].store(value, Ordering::Relaxed);
        }
        let (table, _) = adopt(&words, &header(4), Tick(5));
        for session in table.all(Tick(5)) {
            let found = table.hit(session.client_side, Tick(5)).unwrap();
            prop_assert_eq!(found.session, session);
        }
        let new = plain(tcp(v4(77, 1), v4(78, 2)), PortId(7), Tick(5));
        let outcome = table.create(new, Tick(5));
        // A quota of 4 buckets is one embryonic session; this port has none.
        prop_assert_eq!(outcome, Outcome::Created);
        prop_assert_eq!(table.hit(new.client_side, Tick(5)).unwrap().session, new);
    }
}
