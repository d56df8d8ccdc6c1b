//! A full table, and ports that flood it.

use super::*;
use crate::session::{Class, Refusal, SweepCursor, default_buckets};

/// A table that is filled by established sessions of all but two ports, until one finds no room.
fn crowded(buckets: u32) -> (SessionTable, Vec<Session>) {
    let table = table(buckets);
    let mut all = Vec::new();
    for number in 0..u32::MAX {
        let port = PortId(10 + (number % 8) as u16);
        let client = v4((number >> 12) as u16, (number & 0xfff) as u16 + 1);
        let session = plain(tcp(client, v4(60_000, 80)), port, Tick(0));
        match table.create(session, Tick(0)) {
            Outcome::Created => table.establish(&session, Tick(0)),
            outcome => {
                assert_eq!(outcome, Outcome::Refused(Refusal::Full));
                break;
            }
        }
        all.push(session);
    }
    (table, all)
}

#[test]
fn the_default_size_is_that_of_131072_sessions_or_more() {
    assert_eq!(default_buckets(1), 1 << 15);
    assert_eq!(default_buckets(4), 1 << 15);
    assert_eq!(default_buckets(8), 1 << 16);
    assert_eq!(table(1 << 15).capacity(), 229_376);
    assert_eq!(table(1 << 15).quota().embryonic, 14_336);
}

#[test]
fn two_buckets_to_choose_from_fill_most_of_the_table() {
    let (table, all) = crowded(1 << 12);
    let share = all.len() as f64 / f64::from(table.capacity());
    assert!(share > 0.6, "refused at {share}");
}

#[test]
fn established_sessions_are_never_evicted() {
    let (table, all) = crowded(256);
    let mut refused = 0;
    for number in 0..5_000 {
        let session = plain(tcp(v4(7, number), v4(61_000, 80)), POD, Tick(1));
        refused += u32::from(table.create(session, Tick(1)) != Outcome::Created);
    }
    assert!(refused > 4_000);
    for session in all {
        let found = table.hit(session.client_side, Tick(1)).unwrap();
        assert_eq!(found.session.state.class, Class::Established);
    }
}

#[test]
fn a_port_that_floods_evicts_its_own_and_others_when_it_is_at_its_quota() {
    let (table, _) = crowded(256);
    let create = |host, number, charged| {
        table.create(plain(tcp(v4(host, number), v4(61_000, 80)), charged, Tick(1)), Tick(1))
    };
    // What is created where there is room is evicted for the same port, not refused as full.
    let full_before = table.events()[0].refused_full;
    let flood = |host, charged| {
        (0..5_000).filter(|number| create(host, *number, charged) == Outcome::Created).count()
    };
    let held = flood(7, POD);
    assert!(
        table.events()[0].evicted > 0 || table.of_port(POD).embryonic == table.quota().embryonic
    );
    assert!(held >= table.of_port(POD).embryonic as usize);
    let of_flooder = table.of_port(POD).embryonic;

    // A flooder below its quota loses nothing to others, one at its quota does.
    let is_at_quota = of_flooder == table.quota().embryonic;
    flood(8, OTHER_POD);
    let left = table.of_port(POD).embryonic;
    assert_eq!(left < of_flooder, is_at_quota && table.of_port(OTHER_POD).embryonic > 0);
    assert!(table.events()[0].refused_full >= full_before);
}

#[test]
fn an_expired_session_makes_room_first() {
    let (table, all) = crowded(64);
    let capacity_before = table.totals()[0];
    let later = Tick(8_000);
    let mut created = 0;
    for number in 0..table.quota().embryonic as u16 {
        let session = plain(tcp(v4(7, number), v4(61_000, 80)), POD, later);
        created += u32::from(table.create(session, later) == Outcome::Created);
    }
    assert_eq!(created, table.quota().embryonic);
    let events = table.events()[0];
    assert_eq!(events.evicted, 0);
    assert!(all.len() as u64 >= events.expired);
    assert_eq!(
        u64::from(table.totals()[0].established),
        u64::from(capacity_before.established) - events.expired
    );
}

#[test]
fn a_port_has_no_more_than_its_quota_of_live_ones() {
    let table = table(256);
    let quota = table.quota();
    assert_eq!((quota.embryonic, quota.live), (112, 448));
    let mut established = 0;
    for number in 0..2_000 {
        let session = plain(tcp(v4(1, number), v4(9, 80)), POD, Tick(0));
        if table.create(session, Tick(0)) == Outcome::Created {
            table.establish(&session, Tick(0));
            established += 1;
        }
    }
    assert_eq!(established, quota.live);
    let session = plain(tcp(v4(1, 5_000), v4(9, 80)), POD, Tick(0));
    assert_eq!(table.create(session, Tick(0)), Outcome::Refused(Refusal::Quota));
    // Ports have their own, and a port that no port can be has none.
    let of = |charged| Session { charged, ..session };
    assert_eq!(table.create(of(PortId(5_000)), Tick(0)), Outcome::Refused(Refusal::Quota));
    assert_eq!(table.create(of(OTHER_POD), Tick(0)), Outcome::Created);
}

#[test]
fn a_flood_of_syns_from_one_port_leaves_another_ones_sessions_and_quota() {
    let table = table(1 << 12);
    let of_b = |number| plain(tcp(v4(2, number), v4(9, 80)), OTHER_POD, Tick(0));
    for number in 0..2_000 {
        assert_eq!(table.create(of_b(number), Tick(0)), Outcome::Created);
        table.establish(&of_b(number), Tick(0));
    }
    let mut cursor = SweepCursor::new(0, 1);
    for number in 0..100_000u32 {
        let now = Tick(number / 10_000);
        let client = v4(1_000 + (number >> 15) as u16, number as u16);
        let outcome = table.create(plain(tcp(client, v4(9, 80)), POD, now), now);
        assert!(matches!(outcome, Outcome::Created | Outcome::Refused(Refusal::Quota)));
        table.sweep(&mut cursor, 1, now);
    }
    assert_eq!(table.of_port(POD).embryonic, table.quota().embryonic);
    for number in 0..2_000 {
        assert!(table.hit(of_b(number).client_side, Tick(10)).is_some());
    }
    let b = table.of_port(OTHER_POD);
    assert_eq!((b.embryonic, b.established), (0, 2_000));
    // And B opens as many as it may.
    for number in 2_000..2_000 + table.quota().embryonic as u16 {
        assert_eq!(table.create(of_b(number), Tick(0)), Outcome::Created);
    }
    assert_eq!(table.events()[0].evicted, 0);
}

#[test]
fn connections_that_are_over_are_no_limit_to_new_ones() {
    let table = table(256);
    let finish = |session: &Session| {
        table.establish(session, Tick(0));
        for tuple in [session.client_side, session.server_side.reversed()] {
            table.packet(tuple, FIN_ACK, Tick(0));
        }
    };
    // Many times what the table holds, within the second.
    for number in 0..10 * table.capacity() {
        let client = v4((number >> 12) as u16, (number & 0xfff) as u16 + 1);
        let session = plain(tcp(client, v4(9, 80)), POD, Tick(0));
        assert_eq!(table.create(session, Tick(0)), Outcome::Created, "{number}");
        finish(&session);
    }
    let of_port = table.of_port(POD);
    assert_eq!((of_port.embryonic, of_port.established), (0, 0));
    assert!(of_port.closing > table.capacity() / 2);
    // What another port needs it has.
    for number in 0..table.quota().live {
        let session = plain(tcp(v4(5_000, number as u16), v4(9, 80)), OTHER_POD, Tick(0));
        assert_eq!(table.create(session, Tick(0)), Outcome::Created, "{number}");
        table.establish(&session, Tick(0));
    }
    assert_eq!(table.events()[0].refused_full, 0);
}
