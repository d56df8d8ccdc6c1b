//! One session at a time: look-up, translation, life and end.

use core::sync::atomic::Ordering;

use super::*;
use crate::session::{Affinity, Class, Refusal, SessionMemory, SweepCursor};

#[test]
fn both_directions_find_a_session_and_know_their_own() {
    let table = table(64);
    for tuple in [tcp(v4(1, 40_000), v4(9, 80)), tcp(v6(9, 40_000), v6(1, 80))] {
        let session = plain(tuple, POD, Tick(7));
        assert_eq!(table.hit(tuple, Tick(7)), None);
        assert_eq!(table.create(session, Tick(7)), Outcome::Created);
        let (there, back) = (table.hit(tuple, Tick(7)), table.hit(tuple.reversed(), Tick(7)));
        let (there, back) = (there.unwrap(), back.unwrap());
        assert_eq!((there.session, there.direction), (session, Direction::FromOpener));
        assert_eq!((back.session, back.direction), (session, Direction::FromResponder));
        let elsewhere = Tuple::new(1, Protocol::TCP, tuple.source(), tuple.destination()).unwrap();
        assert_eq!(table.hit(elsewhere, Tick(7)), None);
    }
}

#[test]
fn a_translated_session_is_found_by_what_each_side_sends() {
    let table = table(64);
    for [client, vip, snat, backend] in [
        [v4(1, 40_000), v4(900, 80), v4(1, 40_000), v4(9, 8080)],
        [v4(1, 40_001), v4(900, 80), v4(254, 61_000), v4(1, 8080)],
        [v6(1, 40_000), v6(900, 80), v6(254, 61_000), v6(1, 8080)],
    ] {
        let session = opened(tcp(client, vip), tcp(snat, backend), POD, Tick(0));
        assert_eq!(table.create(session, Tick(0)), Outcome::Created);
        let there = table.hit(tcp(client, vip), Tick(0)).unwrap();
        let back = table.hit(tcp(backend, snat), Tick(0)).unwrap();
        assert_eq!((there.session, there.direction), (session, Direction::FromOpener));
        assert_eq!((back.session, back.direction), (session, Direction::FromResponder));
        // What only the translation makes is no packet of either side.
        assert_eq!(table.hit(tcp(snat, backend), Tick(0)), None);
        assert_eq!(table.hit(tcp(vip, client), Tick(0)), None);

        table.establish(&session, Tick(1));
        let class = |tuple| table.hit(tuple, Tick(1)).unwrap().session.state.class;
        assert_eq!(class(tcp(client, vip)), Class::Established);
        assert_eq!(class(tcp(backend, snat)), Class::Established);
    }
    assert_eq!(table.steered_of(POD), 3);
}

#[test]
fn a_session_may_not_take_what_another_one_has() {
    let table = table(64);
    let (client, backend) = (v4(1, 40_000), v4(9, 8080));
    let one = opened(tcp(client, v4(900, 80)), tcp(client, backend), POD, Tick(0));
    let other = opened(tcp(client, v4(901, 80)), tcp(client, backend), POD, Tick(0));
    assert_eq!(table.create(one, Tick(0)), Outcome::Created);
    // Two virtual addresses with one backend, and one client's port.
    assert_eq!(table.create(other, Tick(0)), Outcome::Refused(Refusal::Taken));
    // The backend itself, past the service.
    let direct = plain(tcp(client, backend), POD, Tick(0));
    assert_eq!(table.create(direct, Tick(0)), Outcome::Refused(Refusal::Taken));
    let shifted = opened(other.client_side, tcp(v4(1, 61_000), backend), POD, Tick(0));
    assert_eq!(table.create(shifted, Tick(0)), Outcome::Created);
    // A tuple and its own reverse would be one key.
    let turned = tcp(v4(3, 1), v4(4, 1));
    let turned = opened(turned, turned.reversed(), POD, Tick(0));
    assert_eq!(table.create(turned, Tick(0)), Outcome::Refused(Refusal::Taken));
    let events = table.events()[0];
    assert_eq!((events.created, events.refused_taken), (2, 3));
}

#[test]
fn the_second_creation_gets_the_first_ones_session() {
    let table = table(64);
    let client_side = tcp(v4(1, 40_000), v4(900, 80));
    let first = opened(client_side, tcp(v4(1, 40_000), v4(9, 80)), POD, Tick(0));
    let second = opened(client_side, tcp(v4(1, 40_000), v4(10, 80)), POD, Tick(0));
    assert_eq!(table.create(first, Tick(0)), Outcome::Created);
    let Outcome::Existing(found) = table.create(second, Tick(0)) else { panic!("it exists") };
    assert_eq!((found.session, found.direction), (first, Direction::FromOpener));
    // Both ends open at once.
    let simultaneous = plain(tcp(v4(9, 80), v4(1, 40_000)), OTHER_POD, Tick(0));
    let Outcome::Existing(found) = table.create(simultaneous, Tick(0)) else { panic!("it exists") };
    assert_eq!((found.session, found.direction), (first, Direction::FromResponder));
    assert_eq!(table.of_port(OTHER_POD).embryonic, 0);
}

#[test]
fn a_session_expires_at_once_and_is_removed_by_the_sweep() {
    let table = table(64);
    let client_side = tcp(v4(1, 40_000), v4(900, 80));
    let session = opened(client_side, tcp(v4(1, 40_000), v4(9, 80)), POD, Tick(0));
    table.create(session, Tick(0));
    assert!(table.hit(client_side, Tick(30)).is_some());
    assert_eq!(table.hit(client_side, Tick(31)), None);
    assert_eq!(table.of_port(POD).embryonic, 1);

    // Two workers, a bucket a turn: each has its own half.
    let mut cursors = [SweepCursor::new(0, 2), SweepCursor::new(1, 2)];
    let mut removed = 0;
    for _ in 0..32 {
        removed += cursors.iter_mut().map(|cursor| table.sweep(cursor, 1, Tick(30))).sum::<u32>();
    }
    assert_eq!(removed, 0);
    for _ in 0..32 {
        removed += cursors.iter_mut().map(|cursor| table.sweep(cursor, 1, Tick(31))).sum::<u32>();
    }
    assert_eq!((removed, table.of_port(POD)), (1, Default::default()));
    assert_eq!(table.steered_of(POD), 0);
    assert_eq!(table.events()[0].expired, 1);
    // Its tuples are free.
    assert_eq!(table.create(session, Tick(31)), Outcome::Created);
}

#[test]
fn what_has_expired_is_replaced_without_a_sweep() {
    let table = table(64);
    let tuple = tcp(v4(1, 40_000), v4(9, 80));
    table.create(plain(tuple, POD, Tick(0)), Tick(0));
    assert_eq!(table.create(plain(tuple, OTHER_POD, Tick(40)), Tick(40)), Outcome::Created);
    assert_eq!(table.hit(tuple, Tick(40)).unwrap().session.charged, OTHER_POD);
    assert_eq!((table.of_port(POD).embryonic, table.of_port(OTHER_POD).embryonic), (0, 1));
}

#[test]
fn a_syn_on_a_closing_session_makes_a_new_one() {
    let table = table(64);
    let client_side = tcp(v4(1, 40_000), v4(900, 80));
    let old = opened(client_side, tcp(v4(1, 40_000), v4(9, 80)), POD, Tick(0));
    let new = opened(client_side, tcp(v4(1, 40_000), v4(10, 80)), POD, Tick(5));
    table.create(old, Tick(0));
    table.establish(&old, Tick(0));
    assert!(!table.hit(client_side, Tick(0)).unwrap().is_reopened_by(SYN));
    let Outcome::Existing(_) = table.create(new, Tick(5)) else { panic!("it lives") };

    table.packet(client_side, FIN_ACK, Tick(4));
    table.packet(old.server_side.reversed(), FIN_ACK, Tick(4));
    let found = table.hit(client_side, Tick(5)).unwrap();
    assert_eq!(found.session.state.class, Class::Finished);
    assert!(found.is_reopened_by(SYN) && !found.is_reopened_by(ACK));
    // Only a SYN does.
    let late = Session { state: State::opened(Protocol::TCP, ACK, Tick(5)), ..new };
    let Outcome::Existing(_) = table.create(late, Tick(5)) else { panic!("it lives") };
    assert_eq!(table.create(new, Tick(5)), Outcome::Created);
    assert_eq!(table.hit(client_side, Tick(5)).unwrap().session, new);
    assert_eq!(table.hit(old.server_side.reversed(), Tick(5)), None);
    assert_eq!(table.events()[0].reopened, 1);
    let counts = table.of_port(POD);
    assert_eq!((counts.embryonic, counts.established, counts.closing), (1, 0, 0));
}

#[test]
fn a_session_is_written_once_a_second_at_most() {
    let table = table(64);
    let tuple = tcp(v4(1, 40_000), v4(9, 80));
    let session = plain(tuple, POD, Tick(0));
    table.create(session, Tick(0));
    table.establish(&session, Tick(0));
    let found = table.hit(tuple, Tick(0)).unwrap();
    assert_eq!(found.touch(ACK, Tick(0)), None);
    let touch = found.touch(ACK, Tick(1)).unwrap();
    assert_eq!(table.commit(&SessionEffect::Touch(touch), Tick(1)), Outcome::Done);
    let seen = table.hit(tuple, Tick(1)).unwrap();
    assert_eq!(seen.session.state, State { last_seen: Tick(1), ..found.session.state });
    assert_eq!(seen.touch(ACK, Tick(1)), None);
}

#[test]
fn policy_that_decided_anew_is_noted() {
    let table = table(64);
    let tuple = tcp(v6(1, 40_000), v6(9, 80));
    table.create(plain(tuple, POD, Tick(0)), Tick(0));
    let policy = PolicyStamp { generation: 77, rule_in: 1, rule_out: 65_535, is_revoked: false };
    let found = table.hit(tuple, Tick(0)).unwrap();
    let touch = found.touched(SYN).with_policy(policy);
    assert_eq!(table.commit(&SessionEffect::Touch(touch), Tick(0)), Outcome::Done);
    let session = table.hit(tuple, Tick(0)).unwrap().session;
    assert_eq!(session, Session { policy, ..found.session });
}

#[test]
fn a_backend_that_was_found_anew_is_noted() {
    for end in [v4, v6] {
        let table = table(64);
        let client_side = tcp(end(1, 40_000), end(900, 80));
        let session = opened(client_side, tcp(end(1, 40_000), end(9, 80)), POD, Tick(0));
        let session = Session { local_out: Some(OTHER_POD), ..session };
        table.create(session, Tick(0));
        let found = table.hit(client_side, Tick(0)).unwrap();
        let touch = found.touched(SYN).with_service_generation(78);
        assert_eq!(table.commit(&SessionEffect::Touch(touch), Tick(0)), Outcome::Done);
        let noted = table.hit(client_side, Tick(0)).unwrap().session;
        assert_eq!(noted, Session { service_generation: 78, ..session });
    }
}

#[test]
fn a_revoked_session_stays_until_it_expires_or_a_new_connection_takes_its_place() {
    let table = table(64);
    let tuple = tcp(v4(1, 40_000), v4(9, 80));
    let session = plain(tuple, POD, Tick(0));
    table.create(session, Tick(0));
    table.establish(&session, Tick(0));
    let found = table.hit(tuple, Tick(5)).unwrap();
    let policy = PolicyStamp { generation: 4, is_revoked: true, ..session.policy };
    // What its packet shows is nothing of the session: it does not get through.
    let revoke = SessionEffect::Touch(found.touched(RST).with_policy(policy));
    for _ in 0..2 {
        assert_eq!(table.commit(&revoke, Tick(5)), Outcome::Done);
    }
    assert_eq!(table.events()[0].revoked, 1);
    for packet in [tuple, tuple.reversed()] {
        let revoked = table.hit(packet, Tick(5)).unwrap();
        let state = State { last_seen: Tick(5), ..found.session.state };
        assert_eq!(revoked.session, Session { policy, state, ..found.session });
        assert!(revoked.is_reopened_by(SYN) && !revoked.is_reopened_by(ACK));
    }
    assert_eq!(table.create(plain(tuple, POD, Tick(6)), Tick(6)), Outcome::Created);
    let anew = table.hit(tuple, Tick(6)).unwrap().session;
    assert_eq!(anew, plain(tuple, POD, Tick(6)));
    assert_eq!(table.of_port(POD).embryonic, 1);
}

#[test]
fn an_end_takes_both_entries() {
    let table = table(64);
    let client_side = tcp(v4(1, 40_000), v4(900, 80));
    let session = opened(client_side, tcp(v4(1, 40_000), v4(9, 80)), POD, Tick(0));
    let close = SessionEffect::Close(session.server_side);
    table.create(session, Tick(0));
    let found = table.hit(client_side, Tick(0)).unwrap();
    assert_eq!(table.commit(&close, Tick(0)), Outcome::Done);
    assert_eq!(table.hit(client_side, Tick(0)), None);
    assert_eq!(table.hit(session.server_side.reversed(), Tick(0)), None);
    assert_eq!(table.commit(&close, Tick(0)), Outcome::Gone);
    // A touch that was proposed before comes too late.
    let touch = SessionEffect::Touch(found.touch(ACK, Tick(1)).unwrap());
    assert_eq!(table.commit(&touch, Tick(1)), Outcome::Gone);
    let events = table.events()[0];
    assert_eq!((events.closed, events.revoked), (1, 0));
}

#[test]
fn a_port_that_is_gone_leaves_none() {
    let table = table(64);
    let from = |host, charged| plain(tcp(v4(host, 1), v4(9, 80)), charged, Tick(0));
    table.create(from(1, POD), Tick(0));
    table.create(from(2, OTHER_POD), Tick(0));
    let through = Session { local_out: Some(POD), ..from(3, OTHER_POD) };
    table.create(through, Tick(0));
    table.create(plain(tcp(v6(1, 1), v6(2, 2)), POD, Tick(0)), Tick(0));
    assert_eq!(table.forget_port(POD), 3);
    assert_eq!(table.all(Tick(0)), [from(2, OTHER_POD)]);
    assert_eq!(table.events()[0].closed, 2);
}

#[test]
fn looking_leaves_every_bit_as_it_was() {
    let memory = SessionMemory::on_heap(64);
    let (table, _) = SessionTable::adopt(memory.clone(), &header(64), Tick(0)).unwrap();
    let key = table.affinity_key(v4(1, 0).address, 7);
    table.note_affinity(Affinity { key, backend: 5 }, Tick(0));
    let client_side = tcp(v4(1, 40_000), v4(900, 80));
    table.create(opened(client_side, tcp(v4(1, 2), v4(9, 80)), POD, Tick(0)), Tick(0));
    let bits = || -> Vec<u64> {
        [&memory.v4, &memory.v6, &memory.affinity]
            .into_iter()
            .flat_map(|words| words.iter().map(|word| word.load(Ordering::Relaxed)))
            .collect()
    };
    let before = (bits(), table.events());
    for tuple in [client_side, tcp(v4(9, 80), v4(1, 2)), tcp(v6(1, 1), v6(2, 2))] {
        for now in [Tick(1), Tick(100)] {
            let _ = table.affine_backend(key, 60, now);
            let at = table.locate(&tuple);
            table.prefetch(&at);
            if let Lookup::Hit(found) = table.find_at(&at, now) {
                let _ = (found.touch(ACK, now), found.is_reopened_by(SYN));
            }
        }
    }
    table.all(Tick(1));
    assert_eq!((bits(), table.events()), before);
}
