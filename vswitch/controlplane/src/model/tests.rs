//! The model under requests and their undoing.

use std::net::{IpAddr, Ipv4Addr};

use api::{
    AddressRange, AttachmentId, Bandwidth, Check, Collect, Delegated, ErrorKind, Mac, Mode,
    PeerSpec, PodName, PortMapping, RateLimit, Reserve, Reserved, RouteSpec, RouteTarget, Source,
    TransportProtocol,
};
use dataplane::tables::LocalAddresses;
use proptest::prelude::*;

use super::{Edit, Model};
use crate::config::Config;

const CONFIG: &str = r#"
[node]
name = "a"
pod_prefixes = ["198.18.1.0/24", "fd00:18:1::/64"]
cluster_prefixes = ["198.18.0.0/16", "fd00:18::/32"]
[uplink]
interface = "eth0"
[bridge]
vni = 20
vteps = ["198.51.100.12"]
[[peers]]
name = "b"
address = "203.0.113.12"
prefixes = ["198.18.2.0/24"]
[[routes.static]]
prefix = "198.18.50.0/24"
to = "peer"
name = "b"
"#;

fn config() -> Config {
    Config::parse("f", CONFIG).expect("valid")
}

fn id(container: &str) -> AttachmentId {
    AttachmentId { container_id: container.into(), ifname: "eth0".into() }
}

fn request(container: &str) -> Reserve {
    Reserve {
        attachment: id(container),
        network: None,
        pod: None,
        container_name: None,
        netns: "/run/netns/x".into(),
        mode: None,
        delegated: None,
        requested: Vec::new(),
        ranges: Vec::new(),
        mac: None,
        port_mappings: Vec::new(),
        bandwidth: Bandwidth::default(),
        queues: 1,
    }
}

fn reserve(model: &mut Model, request: &Reserve) -> Result<Reserved, api::ErrorReply> {
    let (edits, reserved) = model.reserve(&config(), request, 1450, false)?;
    model.apply_all(&edits);
    Ok(reserved)
}

fn peer(name: &str, address: &str, prefix: &str) -> PeerSpec {
    PeerSpec {
        name: name.into(),
        address: address.parse().expect("an address"),
        prefixes: vec![prefix.parse().expect("a prefix")],
        encapsulation: None,
        encapsulate: None,
        vtep_mac: None,
    }
}

fn named(network: &str, container: &str) -> Reserve {
    Reserve { network: Some(network.into()), ..request(container) }
}

/// The containers that GC of a network frees, and those that it takes for the network's.
fn collected(model: &Model, network: &str, valid: &[&str]) -> (Vec<String>, Vec<String>) {
    let valid = valid.iter().map(|container| id(container)).collect();
    let (stale, edits) =
        model.collect(&Collect { network: network.into(), valid }).expect("a network's name");
    let named = edits.into_iter().map(|edit| match edit {
        Edit::Lease { attachment, lease } => {
            assert_eq!(lease.network.as_deref(), Some(network));
            attachment.container_id
        }
        other => panic!("{other:?}"),
    });
    (stale.into_iter().map(|id| id.container_id).collect(), named.collect())
}

#[test]
fn a_pod_is_named_by_its_runtime_or_else_by_its_container() {
    let mut model = Model::new(&config());
    let name = |model: &Model| super::pod_name(&id("0a1b"), model.attachments.get(&id("0a1b")));
    reserve(&mut model, &request("0a1b")).expect("free");
    assert_eq!(name(&model), "0a1b");
    let of_podman = Reserve { container_name: Some("db".into()), ..request("0a1b") };
    reserve(&mut model, &of_podman).expect("the same");
    assert_eq!(name(&model), "db");
    reserve(&mut model, &request("0a1b")).expect("the same");
    assert_eq!(name(&model), "db", "an older plugin names none");
    let pod = PodName { namespace: "demo".into(), name: "db".into(), uid: None };
    reserve(&mut model, &Reserve { pod: Some(pod), ..of_podman }).expect("the same");
    assert_eq!(name(&model), "demo/db");
}

#[test]
fn gc_frees_what_its_own_network_does_not_list() {
    let mut model = Model::new(&config());
    for request in [named("one", "a"), named("one", "b"), named("two", "c"), request("old")] {
        reserve(&mut model, &request).expect("free");
    }
    let none: Vec<String> = Vec::new();
    assert_eq!(collected(&model, "one", &["a", "unheard-of"]), (vec!["b".into()], none.clone()));
    assert_eq!(collected(&model, "two", &["c"]), (none.clone(), none.clone()));
    assert_eq!(collected(&model, "three", &[]), (none.clone(), none.clone()));
    // One of an older version's: nobody's, until a network lists it.
    assert_eq!(collected(&model, "two", &["c", "old"]), (none.clone(), vec!["old".into()]));
    // A network lists what another has: that has made it, and keeps it.
    assert_eq!(collected(&model, "two", &["a", "c"]), (none.clone(), none));
    for network in ["", "a b", &"n".repeat(257)] {
        let collect = Collect { network: network.into(), valid: Default::default() };
        assert_eq!(model.collect(&collect).expect_err("no name").kind, ErrorKind::Invalid);
        let refused = model.reserve(&config(), &named(network, "x"), 1450, false);
        assert_eq!(refused.expect_err("no name").kind, ErrorKind::Invalid);
    }
}

#[test]
fn a_repeated_reservation_names_the_network_that_an_older_one_left_out() {
    let mut model = Model::new(&config());
    let first = reserve(&mut model, &request("a")).expect("free");
    assert_eq!(reserve(&mut model, &named("one", "a")), Ok(first.clone()));
    assert_eq!(model.attachments[&id("a")].network.as_deref(), Some("one"));
    // An older plugin again: what is known stays.
    assert_eq!(reserve(&mut model, &request("a")), Ok(first));
    assert_eq!(model.attachments[&id("a")].network.as_deref(), Some("one"));
}

fn rate(bits_per_second: u64) -> Option<RateLimit> {
    Some(RateLimit { bits_per_second, burst_bits: None })
}

#[test]
fn limits_are_journalled_with_the_lease_and_follow_a_repeated_reservation() {
    let mut model = Model::new(&config());
    let limits = |egress| Bandwidth { ingress: rate(20_000_000), egress };
    let ask = |egress| Reserve { bandwidth: limits(egress), ..request("a") };
    let first = reserve(&mut model, &ask(rate(1_000_000))).expect("free");
    assert_eq!(first.bandwidth, limits(rate(1_000_000)));
    let line = serde_json::to_string(&model.snapshot()).expect("encodes");
    let edits: Vec<Edit> = serde_json::from_str(&line).expect("edits");
    let restored = Model::restored(&config(), &edits);
    assert_eq!(restored.attachments[&id("a")].bandwidth, limits(rate(1_000_000)));

    // Its runtime tries anew with others: the same addresses, these limits.
    let again = reserve(&mut model, &ask(None)).expect("free");
    assert_eq!(again.addresses, first.addresses);
    assert_eq!(again.bandwidth, limits(None));
    assert_eq!(model.attachments[&id("a")].bandwidth, limits(None));
}

#[test]
fn a_rate_that_cannot_be_is_refused() {
    let model = Model::new(&config());
    let bandwidth = Bandwidth { ingress: None, egress: rate(999) };
    let request = Reserve { bandwidth, ..request("a") };
    let refused = model.reserve(&config(), &request, 1450, false).expect_err("refused");
    assert_eq!(refused.kind, ErrorKind::Invalid);
}

#[test]
fn check_compares_limits_unless_the_plugin_is_an_older_one() {
    let mut model = Model::new(&config());
    let limits = Bandwidth { ingress: rate(20_000_000), egress: None };
    let reserved = reserve(&mut model, &Reserve { bandwidth: limits, ..request("c1") });
    let reserved = reserved.expect("free");
    let check = |bandwidth| Check {
        port_mappings: Vec::new(),
        attachment: id("c1"),
        addresses: reserved.addresses.iter().map(|net| net.addr()).collect(),
        mac: reserved.mac,
        bandwidth,
        queues: None,
        attached_queues: None,
    };
    assert!(model.check(&check(None)).is_ok());
    assert!(model.check(&check(Some(limits))).is_ok());
    let refused = model.check(&check(Some(Bandwidth::default()))).expect_err("differs");
    assert_eq!(
        refused.message,
        "eth0 of container c1 is to be limited to no rate in and no rate out but is limited to \
         20M bit/s in and no rate out here; delete it and add it anew"
    );
}

#[test]
fn a_lease_of_an_older_journal_has_no_network_and_no_limits() {
    let line = r#"{"edit":"lease","attachment":{"container_id":"a","ifname":"eth0"},"lease":{
        "netns":"/run/netns/x","mode":"routed","addresses":["198.18.1.2/32"],
        "gateways":["198.18.1.1"],"mac":"02:70:c6:12:01:02","mtu":1450,"delegated":false,
        "attached":true}}"#;
    let edit: Edit = serde_json::from_str(line).expect("an edit");
    let model = Model::restored(&config(), &[edit]);
    assert_eq!(model.attachments[&id("a")].network, None);
    assert!(model.attachments[&id("a")].bandwidth.is_unlimited());
    // And what is written of it is what that version wrote.
    let lease = model.snapshot().into_iter().find(|edit| matches!(edit, Edit::Lease { .. }));
    let text = serde_json::to_value(lease.expect("there")).expect("encodes");
    assert_eq!(text, serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
}

#[test]
fn a_routed_pod_gets_host_prefixes_and_a_mac_of_its_address() {
    let mut model = Model::new(&config());
    let reserved = reserve(&mut model, &request("c1")).expect("free");
    let text: Vec<_> = reserved.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["198.18.1.2/32", "fd00:18:1::2/128"]);
    assert_eq!(reserved.mac.to_string(), "02:70:c6:12:01:02");
    assert_eq!(reserved.gateways.len(), 2);
    assert_eq!(reserve(&mut model, &request("c1")), Ok(reserved));
    assert_eq!(model.attachments.len(), 1);
    let refused = model.reserve(&config(), &request("c1"), 1450, true).expect_err("it has a port");
    assert_eq!(refused.kind, ErrorKind::Conflict);
}

#[test]
fn a_pod_gets_addresses_of_the_ranges_that_it_asks_for_and_keeps_them_while_they_suit() {
    let mut model = Model::new(&config());
    let range = |first: &str, last: &str| AddressRange {
        first: first.parse().expect("an address"),
        last: last.parse().expect("an address"),
    };
    let ask = |ranges: &[AddressRange]| Reserve { ranges: ranges.to_vec(), ..request("c1") };
    let shown = |reserved: Reserved| reserved.addresses[0].to_string();
    let plain = reserve(&mut model, &request("c1")).expect("free");
    assert_eq!(shown(plain), "198.18.1.2/32");
    // Its runtime tries anew, with ranges that its lease is not of.
    let ranges = [range("198.18.1.40", "198.18.1.49"), range("fd00:18:1::", "fd00:18:1::ff")];
    assert_eq!(reserve(&mut model, &ask(&ranges)).map(shown), Ok("198.18.1.40/32".into()));
    assert_eq!(reserve(&mut model, &ask(&ranges)).map(shown), Ok("198.18.1.40/32".into()));
    assert_eq!(reserve(&mut model, &request("c1")).map(shown), Ok("198.18.1.40/32".into()));
    let foreign = ask(&[range("198.18.2.0", "198.18.2.255")]);
    assert_eq!(reserve(&mut model, &foreign).map_err(|error| error.kind), Err(ErrorKind::Invalid));
    let few = Reserve { ranges: vec![range("198.18.1.40", "198.18.1.40")], ..request("c2") };
    assert_eq!(reserve(&mut model, &few).map_err(|error| error.kind), Err(ErrorKind::Exhausted));
}

#[test]
fn a_bridged_pod_gets_the_length_of_the_prefix() {
    let mut model = Model::new(&config());
    let mut bridged = request("c1");
    bridged.mode = Some(Mode::Bridged { bridge: None });
    let reserved = reserve(&mut model, &bridged).expect("free");
    assert_eq!(reserved.addresses[0].to_string(), "198.18.1.2/24");
    assert_eq!(reserved.mode, Mode::Bridged { bridge: Some("default".into()) });
    bridged.attachment = id("c2");
    bridged.mode = Some(Mode::Bridged { bridge: Some("other".into()) });
    assert_eq!(reserve(&mut model, &bridged).map_err(|error| error.kind), Err(ErrorKind::Unknown));
}

#[test]
fn delegated_addresses_are_checked_and_replace_an_unfinished_lease() {
    let mut model = Model::new(&config());
    let mut delegated = request("c1");
    let give = |address: &str| {
        let addresses = vec![address.parse().expect("an address")];
        Some(Box::new(Delegated { addresses, gateways: Vec::new() }))
    };
    delegated.delegated = give("198.18.1.77/24");
    let reserved = reserve(&mut model, &delegated).expect("free");
    assert_eq!(reserved.addresses[0].to_string(), "198.18.1.77/32");
    assert_eq!(reserved.gateways, ["198.18.1.1".parse::<IpAddr>().expect("an address")]);
    // The runtime tries anew under the same id, its plugin gave another address.
    delegated.delegated = give("198.18.1.78/24");
    reserve(&mut model, &delegated).expect("free");
    assert_eq!(model.attachments[&id("c1")].addresses[0].to_string(), "198.18.1.78/32");
    delegated.attachment = id("c2");
    reserve(&mut model, &{
        delegated.delegated = give("198.18.1.77/24");
        delegated.clone()
    })
    .expect("free again");
    for (address, kind) in [
        ("198.18.1.78/24", ErrorKind::Conflict),
        ("198.18.2.5/24", ErrorKind::Conflict),
        ("198.18.1.1/24", ErrorKind::Invalid),
        ("127.0.0.1/8", ErrorKind::Invalid),
    ] {
        delegated.attachment = id("c3");
        delegated.delegated = give(address);
        let refused = reserve(&mut model, &delegated).expect_err(address);
        assert_eq!(refused.kind, kind, "{address}: {refused}");
    }
}

#[test]
fn a_mac_belongs_to_one_pod() {
    let mut model = Model::new(&config());
    let mut first = request("c1");
    first.mac = Some(Mac([2, 0, 0, 0, 0, 9]));
    reserve(&mut model, &first).expect("free");
    let mut second = request("c2");
    second.mac = first.mac;
    assert_eq!(reserve(&mut model, &second).map_err(|error| error.kind), Err(ErrorKind::Conflict));
    reserve(&mut model, &request("c2")).expect("free");
    let stolen = model.attach(&id("c2"), Mac([2, 0, 0, 0, 0, 9])).expect_err("another's");
    assert_eq!(stolen.kind, ErrorKind::Conflict);
    assert_eq!(
        model.attach(&id("c9"), Mac([2; 6])).map_err(|error| error.kind),
        Err(ErrorKind::Unknown)
    );
}

#[test]
fn handing_over_is_noted_once() {
    let mut model = Model::new(&config());
    let mac = reserve(&mut model, &request("c1")).expect("free").mac;
    let edits = model.attach(&id("c1"), mac).expect("reserved");
    assert_eq!(edits.len(), 1);
    model.apply_all(&edits);
    // Its interface is opened again after a restart.
    assert_eq!(model.attach(&id("c1"), mac), Ok(Vec::new()));
    assert_eq!(model.attach(&id("c1"), Mac([2, 0, 0, 0, 0, 9])).map(|edits| edits.len()), Ok(1));
}

fn mapping(host_ip: &str, host_port: u16) -> PortMapping {
    let host_ip = (!host_ip.is_empty()).then(|| host_ip.parse().expect("an address"));
    PortMapping { protocol: TransportProtocol::Tcp, host_ip, host_port, container_port: 80 }
}

#[test]
fn queues_are_kept_as_they_were_asked_for_and_renewed() {
    let mut model = Model::new(&config());
    let ask = |queues| Reserve { queues, ..request("a") };
    assert_eq!(reserve(&mut model, &ask(2)).expect("two").queues, 2);
    let restored = Model::restored(&config(), &model.snapshot());
    assert_eq!(restored.attachments[&id("a")].queues, 2);
    assert_eq!(reserve(&mut model, &ask(1)).expect("the lease is renewed").queues, 1);
    let lease = serde_json::to_string(&model.attachments[&id("a")]).expect("JSON");
    assert!(!lease.contains("queues"), "older versions know none: {lease}");
    for queues in [0, 9] {
        assert!(reserve(&mut model, &ask(queues)).is_err(), "{queues}");
    }
}

fn mapped(container: &str, mappings: &[PortMapping]) -> Reserve {
    Reserve { port_mappings: mappings.to_vec(), ..request(container) }
}

#[test]
fn a_port_of_the_node_leads_to_one_pod() {
    let mut model = Model::new(&config());
    let first = Reserve {
        pod: Some(PodName { namespace: "demo".into(), name: "web".into(), uid: None }),
        ..mapped("c1", &[mapping("", 8080), mapping("198.51.100.11", 8081)])
    };
    let reserved = reserve(&mut model, &first).expect("free");
    assert_eq!(reserved.port_mappings, first.port_mappings, "as older daemons do not answer");
    for taken in [mapping("", 8080), mapping("198.51.100.11", 8080), mapping("", 8081)] {
        let refused = reserve(&mut model, &mapped("c2", &[taken])).expect_err("taken");
        assert_eq!(refused.kind, ErrorKind::Conflict);
        let holder = "pod demo/web (eth0 of container c1) has tcp";
        assert!(refused.message.contains(holder), "{}", refused.message);
    }
    let free = [mapping("198.51.100.12", 8081), mapping("", 8082)];
    reserve(&mut model, &mapped("c2", &free)).expect("free");
    // A runtime gives a pod's mappings to each of its networks.
    let mut second = first.clone();
    second.attachment.ifname = "net1".into();
    reserve(&mut model, &second).expect("the same container's");
    let edits = model.detach(&id("c1"));
    model.apply_all(&edits);
    let edits = model.detach(&second.attachment);
    model.apply_all(&edits);
    reserve(&mut model, &mapped("c3", &[mapping("", 8080)])).expect("free again");
}

#[test]
fn another_attempt_with_other_port_mappings_gets_those() {
    let mut model = Model::new(&config());
    let reserved = reserve(&mut model, &mapped("c1", &[mapping("", 8080)])).expect("free");
    let again = reserve(&mut model, &mapped("c1", &[mapping("", 8081)])).expect("replaced");
    assert_ne!(reserved.port_mappings, again.port_mappings);
    reserve(&mut model, &mapped("c2", &[mapping("", 8080)])).expect("free again");
}

#[test]
fn port_mappings_that_cannot_be_served_are_refused_with_the_reason() {
    let many: Vec<_> = (1..=1025).map(|port| mapping("", port)).collect();
    let table = [
        (vec![mapping("", 0)], "there is no port 0"),
        (vec![PortMapping { container_port: 0, ..mapping("", 80) }], "there is no port 0"),
        (vec![mapping("", 80), mapping("198.51.100.11", 80)], "the pod asks for tcp 80 -> 80"),
        (vec![mapping("224.0.0.1", 80)], "is no node's address"),
        (vec![mapping("::1", 80)], "what comes from ::1 reaches no pod"),
        (many, "1025 port mappings are asked for; a pod can have 1024"),
    ];
    let model = Model::new(&config());
    for (mappings, why) in table {
        let refused = model
            .reserve(&config(), &mapped("c1", &mappings), 1450, false)
            .expect_err("not to be served");
        assert_eq!(refused.kind, ErrorKind::Invalid);
        assert!(refused.message.contains(why), "{}", refused.message);
    }
    let text = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n";
    let v4_alone = Config::parse("f", &format!("{text}[host]\n")).expect("valid");
    let no_host = Config::parse("f", &format!("{text}[host]\nmasquerade = false\n"));
    let table = [
        (v4_alone, mapping("2001:db8::1", 80), "the pod has no IPv6 address"),
        (no_host.expect("valid"), mapping("", 80), "host.masquerade is false"),
    ];
    for (config, mapping, why) in table {
        let refused = Model::new(&config)
            .reserve(&config, &mapped("c1", &[mapping]), 1450, false)
            .expect_err("not to be served");
        assert!(refused.message.contains(why), "{}", refused.message);
    }
}

#[test]
fn a_lease_of_an_older_version_has_no_port_mappings() {
    let line = r#"{"edit":"lease","attachment":{"container_id":"c1","ifname":"eth0"},"lease":{"netns":"/run/netns/c1","mode":"routed","addresses":["198.18.1.2/32"],"gateways":["198.18.1.1"],"mac":"02:70:c6:12:01:02","mtu":1450}}"#;
    let edit: Edit = serde_json::from_str(line).expect("of an older version");
    let Edit::Lease { lease, .. } = &edit else { panic!("no lease") };
    assert_eq!(lease.port_mappings, []);
    assert!(!serde_json::to_string(&edit).expect("an edit").contains("port_mappings"));
}

#[test]
fn check_tells_the_difference() {
    let mut model = Model::new(&config());
    let reserved = reserve(&mut model, &request("c1")).expect("free");
    let good = Check {
        attachment: id("c1"),
        addresses: reserved.addresses.iter().map(|net| net.addr()).collect(),
        mac: reserved.mac,
        port_mappings: Vec::new(),
        bandwidth: None,
        queues: None,
        attached_queues: None,
    };
    assert!(model.check(&good).is_ok());
    for bad in [
        Check { mac: Mac([2, 0, 0, 0, 0, 1]), ..good.clone() },
        Check { addresses: Vec::new(), ..good.clone() },
        Check {
            addresses: [good.addresses.clone(), vec!["198.18.1.3".parse().expect("an address")]]
                .concat(),
            ..good.clone()
        },
        Check { attachment: id("c2"), ..good.clone() },
        Check { port_mappings: vec![mapping("", 8080)], ..good.clone() },
    ] {
        assert!(model.check(&bad).is_err(), "{bad:?}");
    }
    let changed =
        model.check(&Check { mac: Mac([2, 0, 0, 0, 0, 1]), ..good }).expect_err("differs");
    assert_eq!(
        changed.message,
        "eth0 of container c1 has the MAC 02:00:00:00:00:01 but was attached with 02:70:c6:12:01:02, and what its pod sends is dropped; have vswitch-cni set the MAC (capability `mac`, or MAC in CNI_ARGS) instead of a plugin behind it, such as tuning; delete it and add it anew"
    );
}

#[test]
fn what_the_configuration_says_is_changed_there() {
    let (config, model) = (config(), Model::new(&config()));
    let refused = model.delete_peer(&config, "b").expect_err("configured");
    assert_eq!(
        refused.message,
        "peer \"b\" is configured in f; change it there and send the daemon SIGHUP"
    );
    assert!(model.delete_route(&config, "198.18.50.0/24".parse().expect("a prefix")).is_err());
    assert!(model.add_peer(&config, peer("b", "203.0.113.13", "198.18.3.0/24")).is_err());
}

#[test]
fn a_peer_goes_with_its_routes() {
    let (config, mut model) = (config(), Model::new(&config()));
    model.apply_all(
        &model.add_peer(&config, peer("c", "203.0.113.13", "198.18.3.0/24")).expect("new"),
    );
    let target = RouteTarget::Peer { name: "c".into() };
    let route = RouteSpec { prefix: "198.18.60.0/24".parse().expect("a prefix"), target };
    model.apply_all(&model.add_route(&config, route.clone()).expect("new"));
    model.apply_all(&model.delete_peer(&config, "c").expect("there"));
    assert_eq!((model.peers.len(), model.routes.len()), (1, 1));
    assert_eq!(
        model.add_route(&config, route).map_err(|error| error.kind),
        Err(ErrorKind::Unknown)
    );
}

#[test]
fn peers_of_a_family_wait_for_an_address_of_it() {
    let text = CONFIG.replace("203.0.113.12", "2001:db8::12");
    let config = Config::parse("f", &text).expect("valid");
    let mut model = Model::new(&config);
    let (v4, v6) = ([198, 51, 100, 11].into(), "2001:db8::11".parse().expect("an address"));
    for (own, hidden) in [
        (LocalAddresses::default(), None),
        (
            LocalAddresses { v4: Some(v4), v6: None },
            Some("address: this node's uplink has no IPv6 address to reach 2001:db8::12 from"),
        ),
        (LocalAddresses { v4: Some(v4), v6: Some(v6) }, None),
    ] {
        model.set_own_addresses(own);
        let reasons: Vec<_> = model.hidden.peers.iter().map(|peer| peer.reason.as_str()).collect();
        assert_eq!(reasons, hidden.into_iter().collect::<Vec<_>>(), "{own:?}");
        assert_eq!(model.peers.len(), usize::from(hidden.is_none()));
    }
}

#[test]
fn underlay_addresses_are_recorded_once_and_kept_while_a_family_has_none() {
    let mut model = Model::new(&config());
    let (v4, other): (Ipv4Addr, _) = ([198, 51, 100, 11].into(), [198, 51, 100, 12].into());
    let v6 = "2001:db8::11".parse().expect("an address");
    for (own, recorded) in [
        (LocalAddresses::default(), None),
        (LocalAddresses { v4: Some(v4), v6: None }, Some((Some(v4), None))),
        (LocalAddresses { v4: Some(v4), v6: None }, None),
        (LocalAddresses { v4: None, v6: Some(v6) }, Some((Some(v4), Some(v6)))),
        (LocalAddresses { v4: Some(other), v6: None }, Some((Some(other), Some(v6)))),
    ] {
        let edit = model.recording_own_addresses(own);
        let expected = recorded.map(|(v4, v6)| Edit::OwnAddresses { v4, v6 });
        assert_eq!(edit, expected, "{own:?}");
        model.apply_all(edit.as_slice());
        let again = Model::restored(&config(), &model.snapshot());
        assert_eq!(again.recorded_own, model.recorded_own);
    }
}

#[test]
fn peers_that_contradict_are_refused() {
    let (config, mut model) = (config(), Model::new(&config()));
    model.set_own_addresses(IpAddr::from([198, 51, 100, 11]).into());
    reserve(&mut model, &request("c1")).expect("free");
    for (peer, expected) in [
        (
            peer("c", "203.0.113.12", "198.18.3.0/24"),
            "peer \"c\", address: peer \"b\" has 203.0.113.12 already",
        ),
        (
            peer("c", "203.0.113.13", "198.18.2.0/25"),
            "peer \"c\", prefixes: 198.18.2.0/25 overlaps 198.18.2.0/24 of b",
        ),
        (
            peer("c", "198.51.100.11", "198.18.3.0/24"),
            "peer \"c\", address: 198.51.100.11 is this node itself",
        ),
        (
            peer("c", "203.0.113.13", "198.18.50.0/24"),
            "there is a route to 198.18.50.0/24 already; delete it first",
        ),
        (
            peer("c", "2001:db8::9", "198.18.3.0/24"),
            "peer \"c\", address: this node's uplink has no IPv6 address to reach 2001:db8::9 from",
        ),
        (
            peer("c", "0.0.0.0", "198.18.3.0/24"),
            "peer \"c\", address: 0.0.0.0 cannot be a node's underlay address",
        ),
    ] {
        let refused = model.add_peer(&config, peer).expect_err(expected);
        assert_eq!(refused.message, expected);
    }
}

#[test]
fn a_new_configuration_hides_what_contradicts_it_until_it_goes() {
    let mut model = Model::new(&config());
    model.apply_all(&[
        Edit::Peer { peer: peer("c", "203.0.113.13", "198.18.3.0/24"), source: Source::Runtime },
        Edit::Route {
            prefix: "198.18.60.0/24".parse().expect("a prefix"),
            target: RouteTarget::Peer { name: "c".into() },
        },
    ]);
    let before = (model.peers.clone(), model.routes.clone());
    let text = format!(
        "{CONFIG}[[peers]]\nname = \"d\"\naddress = \"203.0.113.14\"\nprefixes = [\"198.18.3.0/25\"]\n"
    );
    model.take_config(&Config::parse("f", &text).expect("valid"));
    assert!(model.peers.contains_key("d") && !model.peers.contains_key("c"));
    assert_eq!(model.routes.len(), 1);
    let [hidden] = model.hidden.peers.as_slice() else { panic!("{:?}", model.hidden) };
    assert_eq!(hidden.reason, "prefixes: 198.18.3.0/24 overlaps 198.18.3.0/25 of d");
    assert_eq!(model.hidden.routes[0].reason, "there is no peer \"c\"");
    model.take_config(&config());
    assert_eq!((model.peers, model.routes), before);
}

fn edits() -> impl Strategy<Value = Edit> {
    let container = prop::sample::select(vec!["c1", "c2", "c3"]);
    prop_oneof![
        (container.clone(), 2u8..8).prop_map(|(container, host)| {
            let mut model = Model::new(&config());
            let mut wanted = request(container);
            wanted.requested = vec![Ipv4Addr::new(198, 18, 1, host).into()];
            let (edits, _) = model.reserve(&config(), &wanted, 1450, false).expect("free");
            model.apply_all(&edits);
            edits[0].clone()
        }),
        container.prop_map(|container| Edit::NoLease { attachment: id(container) }),
        Just(Edit::Peer {
            peer: peer("c", "203.0.113.13", "198.18.3.0/24"),
            source: Source::Runtime,
        }),
        Just(Edit::NoPeer { name: "c".into(), source: Source::Runtime }),
        Just(Edit::Peer {
            peer: peer("k", "203.0.113.13", "198.18.4.0/24"),
            source: Source::Kubernetes,
        }),
        Just(Edit::NoPeer { name: "k".into(), source: Source::Kubernetes }),
        Just(Edit::Neighbor {
            bridge: "default".into(),
            address: "198.18.1.200".parse().expect("an address"),
            mac: Mac([2; 6]),
        }),
    ]
}

proptest! {
    #[test]
    fn every_change_can_be_taken_back(
        before in prop::collection::vec(edits(), 0..6),
        change in prop::collection::vec(edits(), 1..6),
    ) {
        let mut model = Model::new(&config());
        model.apply_all(&before);
        let without_cursors = |model: &Model| {
            let mut edits = model.snapshot();
            edits.retain(|edit| !matches!(edit, Edit::Cursor { .. }));
            edits
        };
        let snapshot = without_cursors(&model);
        let in_force = (model.peers.clone(), model.routes.clone());
        let undo = model.apply_all(&change);
        model.apply_all(&undo);
        prop_assert_eq!((model.peers.clone(), model.routes.clone()), in_force);
        prop_assert_eq!(without_cursors(&model), snapshot);
        // And a snapshot makes the same model.
        let mut again = Model::new(&config());
        again.apply_all(&model.snapshot());
        prop_assert_eq!(again.snapshot(), model.snapshot());
    }
}
