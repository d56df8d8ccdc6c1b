//! Differences, in messages that a daemon applies.

use api::{MAX_REQUEST_BYTES, PeerSpec, PeerSync, RefusedPeer, Request, Source, encode_request};
use proptest::prelude::*;

use super::{Held, REFUSED};
use crate::desired::Peers;

fn peer(name: &str, last: u8) -> PeerSpec {
    PeerSpec {
        name: name.to_owned(),
        address: [203, 0, 113, last].into(),
        prefixes: vec![format!("198.18.{last}.0/24").parse().expect("a prefix")],
        encapsulation: None,
        encapsulate: None,
        vtep_mac: None,
    }
}

fn peers(list: &[(&str, u8)]) -> Peers {
    list.iter().map(|(name, last)| ((*name).to_owned(), peer(name, *last))).collect()
}

/// What a daemon shows: peer, source, state.
fn shown(entries: impl IntoIterator<Item = (PeerSpec, &'static str, &'static str)>) -> Held {
    let mut held = Held::default();
    entries.into_iter().for_each(|(peer, source, state)| held.show(peer, source, state));
    held
}

fn held(peers: &Peers) -> Held {
    shown(peers.values().map(|peer| (peer.clone(), "kubernetes", "ready")))
}

/// Applies messages as a daemon does that refuses nothing.
fn applied(mut peers: Peers, messages: &[PeerSync]) -> Peers {
    for PeerSync { complete, peers: told, gone, source } in messages {
        assert!(!complete && *source == Source::Kubernetes);
        gone.iter().for_each(|name| drop(peers.remove(name)));
        peers.extend(told.iter().map(|peer| (peer.name.clone(), peer.clone())));
    }
    peers
}

#[test]
fn what_did_not_change_is_in_no_message() {
    let all = peers(&[("a", 1), ("b", 2)]);
    assert!(held(&all).messages(&all).is_empty());
}

#[test]
fn one_message_says_what_changed() {
    let messages = held(&peers(&[("a", 1), ("b", 2), ("c", 3)])).messages(&peers(&[
        ("a", 1),
        ("b", 9),
        ("d", 4),
    ]));
    let [PeerSync { peers, gone, .. }] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(peers, &[peer("b", 9), peer("d", 4)]);
    assert_eq!(gone, &["c"]);
}

#[test]
fn other_sources_peers_are_not_ours_to_withdraw() {
    let others = ["config", "runtime", "kernel"].map(|source| (peer(source, 1), source, "ready"));
    assert!(shown(others).messages(&Peers::new()).is_empty());
}

#[test]
fn what_was_refused_is_said_again_and_withdrawn_in_the_end() {
    let wanted = peers(&[("a", 1), ("b", 2)]);
    let mut held = Held::default();
    let refused = [RefusedPeer { name: "b".to_owned(), reason: "taken".to_owned() }];
    for message in held.messages(&wanted) {
        held.answered(message, &refused);
    }
    assert_eq!(held.peers(), &peers(&[("a", 1)]));
    let again = held.messages(&wanted);
    assert_eq!(again[0].peers, [peer("b", 2)]);
    assert_eq!(held.messages(&peers(&[("a", 1)]))[0].gone, ["b"]);
    held.answered(again[0].clone(), &[]);
    assert!(held.messages(&wanted).is_empty());
}

#[test]
fn what_a_daemon_remembers_as_refused_is_said_again() {
    let held =
        shown([(peer("b", 2), "kubernetes", "ready"), (peer("b", 3), "kubernetes", REFUSED)]);
    assert_eq!(held.peers(), &peers(&[("b", 2)]));
    assert_eq!(held.messages(&peers(&[("b", 2)]))[0].peers, [peer("b", 2)]);
}

#[test]
fn a_large_cluster_goes_in_messages_that_fit() {
    let name = |index: u32| format!("{index:0>120}");
    let many: Peers = (0..60_000).map(|index| (name(index), peer(&name(index), 1))).collect();
    let there = held(&many);
    for messages in [Held::default().messages(&many), there.messages(&Peers::new())] {
        assert!(messages.len() > 1);
        for message in messages {
            let bytes = encode_request(&Request::SyncPeers(message)).expect("it fits");
            assert!(bytes.len() <= MAX_REQUEST_BYTES);
        }
    }
}

fn any_peers() -> impl Strategy<Value = Peers> {
    proptest::collection::btree_map("[a-f]", 0..6_u8, 0..6).prop_map(|map| {
        map.into_iter().map(|(name, last)| (name.clone(), peer(&name, last))).collect()
    })
}

proptest! {
    #[test]
    fn messages_make_the_one_of_the_other(before in any_peers(), after in any_peers()) {
        let mut held = held(&before);
        let messages = held.messages(&after);
        prop_assert_eq!(applied(before, &messages), after.clone());
        for message in messages {
            held.answered(message, &[]);
        }
        prop_assert_eq!(held.peers(), &after);
        prop_assert!(held.messages(&after).is_empty());
    }
}
