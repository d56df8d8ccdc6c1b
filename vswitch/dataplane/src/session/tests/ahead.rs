//! What is loaded before look-ups is what they read.

use super::*;
use crate::session::SessionMemory;
use crate::session::table::{Memory, Spot};

/// Tag and buckets.
fn place(spot: Spot) -> (u64, [u32; 2]) {
    (spot.tag, spot.buckets)
}

#[test]
fn an_alias_leads_to_the_main_entry_and_a_main_entry_nowhere() {
    let table = table(64);
    for [client, vip, snat, backend] in [
        [v4(1, 40_000), v4(900, 80), v4(1, 40_000), v4(9, 8080)],
        [v4(1, 40_001), v4(900, 80), v4(254, 61_000), v4(1, 8080)],
        [v6(1, 40_000), v6(900, 80), v6(254, 61_000), v6(1, 8080)],
    ] {
        let (client_side, server_side) = (tcp(client, vip), tcp(snat, backend));
        let at = table.locate(&client_side);
        assert!(table.behind_alias(&at).is_none(), "nothing is there");
        assert_eq!(
            table.create(opened(client_side, server_side, POD, Tick(0)), Tick(0)),
            Outcome::Created
        );
        table.prefetch(&at);
        table.prefetch_entry(&at);
        let main = table.behind_alias(&at).map(|main| place(main.spot));
        assert_eq!(main, Some(place(table.locate(&server_side).spot)));
        assert!(table.behind_alias(&table.locate(&server_side.reversed())).is_none());
    }
}

#[test]
fn the_entry_that_is_loaded_is_the_one_that_is_found() {
    let table = table(64);
    for host in 1..200 {
        let tuple = tcp(v4(host, 40_000), v4(900, 80));
        table.create(plain(tuple, PortId(host), Tick(0)), Tick(0));
        let spot = table.locate(&tuple).spot;
        let begin = table.v4.likely_entry(&spot).unwrap();
        let (_, found) = table.v4.entry(&spot).unwrap().unwrap();
        let loaded: Vec<_> = table.v4.memory.words()[begin..][..found.len()]
            .iter()
            .map(|word| word.load(core::sync::atomic::Ordering::Relaxed))
            .collect();
        assert_eq!(loaded, found);
    }
}

#[test]
fn a_table_is_large_by_the_sessions_that_are_in_it_whoever_began_them() {
    let memory = SessionMemory::on_heap(64);
    let open = || SessionTable::adopt(memory.clone(), &header(64), Tick(0)).unwrap().0;
    let (first, tuple) = (open(), |host| tcp(v4(host, 40_000), v4(900, 80)));
    for host in 1..=3 {
        first.create(plain(tuple(host), POD, Tick(0)), Tick(0));
    }
    first.commit(&SessionEffect::Close(tuple(2)), Tick(0));
    assert_eq!((first.v4.counts.all(), first.is_large()), (2, false));
    drop(first);
    let next = open();
    assert_eq!(next.v4.counts.all(), 2);
    assert_eq!(next.forget_port(POD), 2);
    assert_eq!(next.v4.counts.all(), 0);
}
