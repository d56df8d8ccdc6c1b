//! Affinities: against a list that is searched from end to end, and where a set of slots is full.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::session::{Affinity, AffinityKey};

const TIMEOUT_S: u32 = 60;

impl SessionTable {
    fn key_of(&self, client: u16) -> AffinityKey {
        self.affinity_key(v4(client, 0).address, 7)
    }

    fn chosen(&self, client: u16, backend: u32, now: Tick) {
        self.note_affinity(Affinity { key: self.key_of(client), backend }, now);
    }

    fn kept(&self, client: u16, now: Tick) -> Option<u32> {
        self.affine_backend(self.key_of(client), TIMEOUT_S, now)
    }
}

#[test]
fn clients_services_and_families_are_told_apart() {
    let table = table(64);
    let (client, other) = (v4(1, 0).address, v6(1, 0).address);
    let keys = [(client, 7), (client, 8), (other, 7), (v4(2, 0).address, 7)];
    for (backend, (client, service)) in (1..).zip(keys) {
        table
            .note_affinity(Affinity { key: table.affinity_key(client, service), backend }, Tick(1));
    }
    for (backend, (client, service)) in (1..).zip(keys) {
        let key = table.affinity_key(client, service);
        assert_eq!(table.affine_backend(key, TIMEOUT_S, Tick(1)), Some(backend));
    }
}

#[test]
fn an_affinity_ends_after_its_silence_and_is_renewed_by_each_flow() {
    let table = table(64);
    table.chosen(1, 5, Tick(100));
    assert_eq!(table.kept(1, Tick(100 + TIMEOUT_S)), Some(5));
    assert_eq!(table.kept(1, Tick(101 + TIMEOUT_S)), None);
    table.chosen(1, 5, Tick(130));
    assert_eq!(table.kept(1, Tick(130 + TIMEOUT_S)), Some(5));
    // A worker whose time is a little behind takes nothing away.
    table.chosen(1, 5, Tick(129));
    assert_eq!(table.kept(1, Tick(130 + TIMEOUT_S)), Some(5));
    table.chosen(1, 6, Tick(140));
    assert_eq!(table.kept(1, Tick(140)), Some(6));
}

/// Four buckets have one set of eight slots.
#[test]
fn the_oldest_of_a_full_set_makes_room() {
    let table = table(4);
    for client in 0..8 {
        table.chosen(client, u32::from(client), Tick(10 + u32::from(client)));
    }
    table.chosen(0, 0, Tick(20));
    table.chosen(8, 8, Tick(21));
    let kept: Vec<_> = (0..9).map(|client| table.kept(client, Tick(21))).collect();
    let all = |client: u32| (client != 1).then_some(client);
    assert_eq!(kept, (0..9).map(all).collect::<Vec<_>>());
}

proptest! {
    /// With room for all of them.
    #[test]
    fn a_client_keeps_what_it_had_last(
        flows in proptest::collection::vec((0u16..40, any::<u32>(), 0u32..40), 1..300)
    ) {
        let table = table(256);
        let mut last: BTreeMap<u16, (u32, Tick)> = BTreeMap::new();
        let mut now = Tick(1);
        for (client, backend, seconds) in flows {
            now.0 += seconds;
            let known = last.get(&client).filter(|(_, at)| now.since(*at) <= TIMEOUT_S);
            prop_assert_eq!(table.kept(client, now), known.map(|(backend, _)| *backend));
            table.chosen(client, backend, now);
            last.insert(client, (backend, now));
        }
    }
}
