//! Differences, in messages that a daemon applies.

use std::sync::Arc;

use api::{
    BackendSpec, BackendUse, MAX_REQUEST_BYTES, RefusedAddress, RefusedService, Request,
    ServiceEntry, ServiceProtocol, ServiceSpec, ServiceSync, WithoutBackend, encode_request,
};
use proptest::prelude::*;

use super::HeldServices;
use crate::service::index::Specs;

fn spec(name: &str, last: u8) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        protocol: ServiceProtocol::Tcp,
        port: 80,
        addresses: vec![[10, 96, 0, 1].into()],
        sources: Vec::new(),
        backends: vec![BackendSpec {
            address: [10, 0, 0, last].into(),
            port: 8080,
            flows: BackendUse::All,
        }],
        without_backend: WithoutBackend::Refuse,
        affinity_seconds: None,
    }
}

fn specs(list: &[(&str, u8)]) -> Specs {
    list.iter().map(|(name, last)| ((*name).to_owned(), Arc::new(spec(name, *last)))).collect()
}

fn shown(specs: &Specs) -> HeldServices {
    let entry =
        |spec: &Arc<ServiceSpec>| ServiceEntry { spec: (**spec).clone(), refused: Vec::new() };
    HeldServices::shown(specs.values().map(entry).collect())
}

/// Applies messages as a daemon does that refuses nothing.
fn applied(mut specs: Specs, messages: &[ServiceSync]) -> Specs {
    for ServiceSync { complete, services, gone } in messages {
        assert!(!complete);
        gone.iter().for_each(|name| drop(specs.remove(name)));
        specs.extend(services.iter().map(|spec| (spec.name.clone(), Arc::new(spec.clone()))));
    }
    specs
}

fn refused(name: &str) -> RefusedService {
    RefusedService { name: name.to_owned(), reason: "taken".to_owned() }
}

fn answer(held: &mut HeldServices, wanted: &Specs, refused: &[RefusedService]) {
    for message in held.messages(wanted, false) {
        held.answered(&message, wanted, refused);
    }
}

#[test]
fn what_did_not_change_is_in_no_message() {
    let all = specs(&[("a/b:c", 1), ("a/b:d", 2)]);
    // Not the same objects, at first.
    let mut held = shown(&specs(&[("a/b:c", 1), ("a/b:d", 2)]));
    assert!(held.messages(&all, true).is_empty());
    assert!(held.messages(&all, true).is_empty());
}

#[test]
fn one_message_says_what_changed() {
    let mut held = shown(&specs(&[("a", 1), ("b", 2), ("c", 3)]));
    let messages = held.messages(&specs(&[("a", 1), ("b", 9), ("d", 4)]), false);
    let [ServiceSync { services, gone, .. }] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(services, &[spec("b", 9), spec("d", 4)]);
    assert_eq!(gone, &["c"]);
}

#[test]
fn what_was_refused_is_sent_again_when_it_is_time_and_withdrawn_in_the_end() {
    let wanted = specs(&[("a", 1), ("b", 2)]);
    let mut held = HeldServices::default();
    answer(&mut held, &wanted, &[refused("b")]);
    assert!(held.messages(&wanted, false).is_empty());
    let again = held.messages(&wanted, true);
    assert_eq!(again[0].services, [spec("b", 2)]);
    // In another form it is another one.
    assert_eq!(held.messages(&specs(&[("a", 1), ("b", 3)]), false)[0].services, [spec("b", 3)]);
    assert_eq!(held.messages(&specs(&[("a", 1)]), false)[0].gone, ["b"]);
    held.answered(&again[0], &wanted, &[]);
    assert!(held.messages(&wanted, true).is_empty());
}

#[test]
fn what_the_daemon_remembers_as_refused_of_another_agent_is_withdrawn() {
    let wanted = specs(&[("a", 1)]);
    let mut held = HeldServices::default();
    answer(&mut held, &wanted, &[refused("old")]);
    assert_eq!(held.messages(&wanted, false)[0].gone, ["old"]);
}

#[test]
fn a_service_of_which_the_daemon_serves_a_part_is_tried_again() {
    let address = [10, 96, 0, 1].into();
    let refused = vec![RefusedAddress { address, reason: "taken".to_owned() }];
    let mut held = HeldServices::shown(vec![ServiceEntry { spec: spec("a", 1), refused }]);
    let wanted = specs(&[("a", 1)]);
    assert!(held.messages(&wanted, false).is_empty());
    assert_eq!(held.messages(&wanted, true)[0].services, [spec("a", 1)]);
}

#[test]
fn a_large_cluster_goes_in_messages_that_fit() {
    let name = |index: u32| format!("{index:0>120}");
    let many: Specs =
        (0..40_000).map(|index| (name(index), Arc::new(spec(&name(index), 1)))).collect();
    let mut there = shown(&many);
    for messages in
        [HeldServices::default().messages(&many, false), there.messages(&Specs::new(), false)]
    {
        assert!(messages.len() > 1);
        for message in messages {
            let bytes = encode_request(&Request::SyncServices(message)).expect("it fits");
            assert!(bytes.len() <= MAX_REQUEST_BYTES);
        }
    }
}

fn any_specs() -> impl Strategy<Value = Specs> {
    proptest::collection::btree_map("[a-f]", 0..6_u8, 0..6).prop_map(|map| {
        map.into_iter().map(|(name, last)| (name.clone(), Arc::new(spec(&name, last)))).collect()
    })
}

proptest! {
    #[test]
    fn messages_make_the_one_of_the_other(before in any_specs(), after in any_specs()) {
        let mut held = shown(&before);
        let messages = held.messages(&after, false);
        prop_assert_eq!(applied(before, &messages), after.clone());
        for message in messages {
            held.answered(&message, &after, &[]);
        }
        prop_assert!(held.messages(&after, true).is_empty());
        prop_assert_eq!(held.len(), after.len());
    }
}
