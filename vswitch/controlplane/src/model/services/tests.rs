#![allow(clippy::unwrap_used)]

use api::{BackendSpec, BackendUse, ServiceProtocol, ServiceSpec, ServiceSync, WithoutBackend};

use super::super::{Edit, Model};
use crate::config::Config;

fn config() -> Config {
    const TEXT: &str = "\
        [node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n\
        [uplink]\ninterface = \"eth0\"\naddress = \"203.0.113.11\"\n\
        [[peers]]\nname = \"b\"\naddress = \"203.0.113.12\"\nprefixes = [\"198.18.2.0/24\"]\n";
    Config::parse("vswitch.toml", TEXT).unwrap()
}

fn service(name: &str, addresses: &[&str]) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        protocol: ServiceProtocol::Tcp,
        port: 80,
        addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
        sources: Vec::new(),
        backends: vec![BackendSpec {
            address: "198.18.2.7".parse().unwrap(),
            port: 8080,
            flows: BackendUse::All,
        }],
        without_backend: WithoutBackend::Refuse,
        affinity_seconds: None,
    }
}

fn sync(services: &[ServiceSpec]) -> ServiceSync {
    ServiceSync { complete: false, services: services.to_vec(), gone: Vec::new() }
}

/// A model with these services, and what it refuses of them.
fn with(services: &[ServiceSpec]) -> (Model, Vec<String>) {
    let mut model = Model::new(&config());
    let (edits, refused) = model.sync_services(sync(services));
    model.apply_all(&edits);
    let whole = refused.into_iter().map(|(name, why)| format!("{name}: {why}"));
    let refusals: Vec<_> = model.served.refusals().collect();
    let parts = refusals.into_iter().map(|one| format!("{}: {}", one.name, one.reason));
    let all = whole.chain(parts).collect();
    (model, all)
}

#[test]
fn an_address_that_is_somebodys_is_not_served() {
    for (address, reason) in [
        ("198.18.1.9", "it is of 198.18.1.0/24, from which pods of this node have their addresses"),
        ("198.18.2.9", "it is of 198.18.2.0/24, from which pods of b have their addresses"),
        ("198.18.1.1", "it is this node's gateway"),
        ("203.0.113.11", "it is this node's own"),
        ("203.0.113.12", "it is the node b's"),
        ("127.0.0.1", "it is a loopback address"),
        ("169.254.1.1", "it is link-local"),
        ("224.0.0.1", "it is a multicast address"),
        ("0.0.0.0", "no host can have it"),
        ("255.255.255.255", "no host can have it"),
    ] {
        let (model, refused) = with(&[service("shop/db", &["198.18.255.1", address])]);
        assert_eq!(refused, [format!("shop/db: {address} is not served: {reason}")]);
        // The rest of it is.
        assert_eq!(model.served.ports.len(), 1);
        assert_eq!(model.served.addresses.len(), 1);
    }
}

#[test]
fn of_two_services_with_one_virtual_port_the_first_by_name_has_it() {
    let (model, refused) =
        with(&[service("shop/web", &["198.18.255.1"]), service("shop/db", &["198.18.255.1"])]);
    let why = "198.18.255.1 is not served: it is that of the service shop/db, with the same port";
    assert_eq!(refused, [format!("shop/web: {why}")]);
    assert_eq!(model.served.ports.values().next().unwrap().name, "shop/db");
    // With another port both have it.
    let other = ServiceSpec { port: 81, ..service("shop/web", &["198.18.255.1"]) };
    let (model, refused) = with(&[other, service("shop/db", &["198.18.255.1"])]);
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!((model.served.ports.len(), model.served.addresses.len()), (2, 1));
}

#[test]
fn a_service_that_makes_no_sense_is_refused_whole() {
    let good = service("shop/db", &["198.18.255.1"]);
    let backend = |address: &str, port| BackendSpec {
        address: address.parse().unwrap(),
        port,
        flows: BackendUse::All,
    };
    for (bad, reason) in [
        (ServiceSpec { port: 0, ..good.clone() }, "its port is 0"),
        (ServiceSpec { addresses: vec![], ..good.clone() }, "it has 0 addresses"),
        (ServiceSpec { affinity_seconds: Some(0), ..good.clone() }, "its affinity lasts 0 seconds"),
        (
            ServiceSpec { backends: vec![backend("127.0.0.1", 80)], ..good.clone() },
            "backend 127.0.0.1 port 80: it is a loopback address",
        ),
        (
            ServiceSpec { backends: vec![backend("198.18.2.7", 0)], ..good.clone() },
            "backend 198.18.2.7 port 0: its port is 0",
        ),
    ] {
        let (model, refused) = with(&[bad]);
        assert!(refused.len() == 1 && refused[0].contains(reason), "{refused:?}");
        assert!(model.services.is_empty());
    }
}

#[test]
fn a_sync_edits_what_differs_and_withdraws_what_is_gone() {
    let (web, db) = (service("web", &["198.18.255.1"]), service("db", &["198.18.255.2"]));
    let (mut model, _) = with(&[web.clone(), db.clone()]);
    assert!(model.sync_services(sync(&[web.clone(), db.clone()])).0.is_empty());

    let other = ServiceSpec { backends: Vec::new(), ..web.clone() };
    let gone = ServiceSync {
        gone: vec!["db".into(), "none".into()],
        ..sync(std::slice::from_ref(&other))
    };
    let (edits, _) = model.sync_services(gone);
    let expected =
        [Edit::NoService { name: "db".into() }, Edit::Service { service: other.clone() }];
    assert_eq!(edits, expected);
    let undo = model.apply_all(&edits);
    assert_eq!(model.services.len(), 1);
    model.apply_all(&undo);
    assert_eq!((&*model.services["web"], &*model.services["db"]), (&web, &db));

    let complete = ServiceSync { complete: true, ..sync(&[web]) };
    let (edits, _) = model.sync_services(complete);
    assert_eq!(edits, [Edit::NoService { name: "db".into() }]);
}

#[test]
fn a_service_comes_back_from_a_snapshot() {
    let (model, _) = with(&[service("web", &["198.18.255.1"])]);
    let restored = Model::restored(&config(), &model.snapshot());
    assert_eq!(restored.services, model.services);
    assert_eq!(restored.served.ports, model.served.ports);
    assert_eq!(restored.served.addresses, model.served.addresses);
}

#[test]
fn what_a_peer_takes_is_not_served_any_more_and_what_it_gives_up_is() {
    let (mut model, _) = with(&[service("web", &["198.18.9.1"])]);
    let peer: api::PeerSpec = serde_json::from_str(
        r#"{"name": "c", "address": "203.0.113.13", "prefixes": ["198.18.9.0/24"]}"#,
    )
    .unwrap();
    let undo = model.apply_all(&[Edit::Peer { peer, source: api::Source::Kubernetes }]);
    assert!(model.served.ports.is_empty() && model.served.addresses.is_empty());
    assert_eq!(model.served.refusals().count(), 1);
    model.apply_all(&undo);
    assert_eq!(model.served.ports.len(), 1);
}

#[test]
fn a_service_has_one_count_of_connections_for_as_long_as_it_is_there() {
    let web = service("shop/web:http", &["198.18.255.1"]);
    let outside = service("shop/web:http external", &["192.0.2.1"]);
    let (mut model, _) = with(&[web.clone(), outside, service("shop/db:sql", &["198.18.255.2"])]);
    let counts = model.served.connections.clone();
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["shop/db:sql", "shop/web:http"]);

    let moved = ServiceSpec { addresses: vec!["198.18.255.9".parse().unwrap()], ..web.clone() };
    let (edits, _) = model.sync_services(sync(&[moved]));
    model.apply_all(&edits);
    assert_eq!(model.served.connections, counts, "it has other addresses");

    let complete = ServiceSync { complete: true, ..sync(&[web]) };
    let (edits, _) = model.sync_services(complete);
    model.apply_all(&edits);
    assert_eq!(model.served.connections.keys().collect::<Vec<_>>(), ["shop/web:http"]);
    assert_eq!(model.served.connections["shop/web:http"], counts["shop/web:http"]);
}
