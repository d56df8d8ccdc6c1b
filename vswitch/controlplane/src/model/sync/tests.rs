//! What the cluster names, well or ill, beside what other sources name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use api::{AttachmentId, ErrorKind, PeerSpec, PeerSync, Reserve, Source};
use ipnet::IpNet;
use proptest::prelude::*;

use crate::config::Config;
use crate::model::{Edit, Model};

const NODE: &str =
    "[node]\nname = \"a\"\ncluster_prefixes = [\"198.18.0.0/16\", \"fd00:18::/32\"]\n";
const CONFIG: &str = r#"
[uplink]
interface = "eth0"
address = "198.51.100.11"
[[peers]]
name = "b"
address = "203.0.113.12"
prefixes = ["198.18.2.0/24"]
"#;

fn config() -> Config {
    let pods = "pod_prefixes = [\"198.18.1.0/24\"]\n";
    Config::parse("f", &format!("{NODE}{pods}{CONFIG}")).expect("valid")
}

fn prefixes(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

fn peer(name: &str, host: u8, texts: &[&str]) -> PeerSpec {
    PeerSpec {
        name: name.into(),
        address: Ipv4Addr::new(203, 0, 113, host).into(),
        prefixes: prefixes(texts),
        encapsulation: None,
        encapsulate: None,
        vtep_mac: None,
    }
}

/// Takes a sync; what changed and which peers are refused.
fn take(
    model: &mut Model,
    complete: bool,
    peers: &[PeerSpec],
    gone: &[&str],
) -> (usize, Vec<String>) {
    let sync = PeerSync {
        source: Source::Kubernetes,
        complete,
        peers: peers.to_vec(),
        gone: gone.iter().map(ToString::to_string).collect(),
    };
    let synced = model.sync_peers(sync, &|_| None).expect("kubernetes may");
    model.apply_all(&synced.edits);
    model.refused = synced.refused;
    (synced.edits.len(), model.refused.keys().map(|(_, name)| name.clone()).collect())
}

fn prefixes_of(model: &Model, name: &str) -> Vec<String> {
    let peer = model.peers.get(name).map(|(peer, _)| peer);
    peer.into_iter().flat_map(|peer| &peer.prefixes).map(ToString::to_string).collect()
}

#[test]
fn what_is_known_already_changes_nothing() {
    let mut model = Model::new(&config());
    let peers = [peer("c", 13, &["198.18.3.0/24"]), peer("d", 14, &["198.18.4.0/24"])];
    assert_eq!(take(&mut model, true, &peers, &[]), (2, vec![]));
    assert_eq!(take(&mut model, true, &peers, &[]), (0, vec![]));
    assert_eq!(take(&mut model, false, &[], &["c"]), (1, vec![]));
    assert_eq!(take(&mut model, true, &peers[..1], &[]), (2, vec![]));
    assert_eq!(model.peers.keys().map(String::as_str).collect::<Vec<_>>(), ["b", "c"]);
    let of_another =
        PeerSync { source: Source::Config, complete: true, peers: vec![], gone: vec![] };
    assert_eq!(model.sync_peers(of_another, &|_| None).expect_err("no").kind, ErrorKind::Invalid);
}

#[test]
fn the_first_stays_and_the_second_is_taken_once_the_first_is_gone() {
    let mut model = Model::new(&config());
    let first = peer("m", 13, &["198.18.3.0/24"]);
    let second = peer("d", 14, &["198.18.3.0/25"]);
    take(&mut model, false, &[first], &[]);
    let (changes, refused) = take(&mut model, false, &[second], &[]);
    assert_eq!((changes, refused.as_slice()), (0, ["d".to_owned()].as_slice()));
    let (_, reason) = &model.refused[&(Source::Kubernetes, "d".to_owned())];
    assert_eq!(reason, "prefixes: 198.18.3.0/25 overlaps 198.18.3.0/24 of m");
    // A newcomer does not overtake one that waits.
    let third = peer("a", 15, &["198.18.3.0/24"]);
    let (_, refused) = take(&mut model, false, &[third], &["m"]);
    assert_eq!(refused, ["a"]);
    assert_eq!(prefixes_of(&model, "d"), ["198.18.3.0/25"]);
}

#[test]
fn a_refused_change_leaves_the_old_form_and_waits() {
    let mut model = Model::new(&config());
    let (c, d) = (peer("c", 13, &["198.18.3.0/24"]), peer("d", 14, &["198.18.4.0/24"]));
    take(&mut model, true, &[c, d.clone()], &[]);
    // Another's prefix, this node's, everything, and a name of its own that is no name.
    for claimed in ["198.18.4.0/24", "198.18.1.0/25", "0.0.0.0/0"] {
        let (changes, refused) =
            take(&mut model, true, &[peer("c", 13, &[claimed]), d.clone()], &[]);
        assert_eq!((changes, refused), (0, vec!["c".to_owned()]), "{claimed}");
        assert_eq!(prefixes_of(&model, "c"), ["198.18.3.0/24"]);
    }
    take(&mut model, true, &[peer("c", 13, &["198.18.4.0/24"]), d], &[]);
    assert_eq!(take(&mut model, false, &[], &["d"]), (2, vec![]));
    assert_eq!(prefixes_of(&model, "c"), ["198.18.4.0/24"]);
}

#[test]
fn prefixes_change_hands_within_one_sync() {
    let mut model = Model::new(&config());
    let (three, four) = (["198.18.3.0/24"], ["198.18.4.0/24"]);
    take(&mut model, true, &[peer("c", 13, &three), peer("d", 14, &four)], &[]);
    let swapped = [peer("c", 13, &four), peer("d", 14, &three)];
    assert_eq!(take(&mut model, true, &swapped, &[]), (2, vec![]));
    assert_eq!(prefixes_of(&model, "c"), four);
    // And addresses, to a new name.
    let renamed = [peer("e", 13, &four), peer("d", 14, &three)];
    assert_eq!(take(&mut model, true, &renamed, &[]), (2, vec![]));
}

#[test]
fn nobody_gets_what_a_peer_has_that_changes_in_the_same_sync() {
    let mut model = Model::new(&config());
    let c = peer("c", 13, &["198.18.3.0/24"]);
    let m = peer("a", 66, &["198.18.66.0/24"]);
    take(&mut model, true, &[c.clone(), m], &[]);
    // The thief comes first, and its victim changes something else.
    let thief = peer("a", 66, &["198.18.3.0/24"]);
    let changed = PeerSpec { vtep_mac: Some(api::Mac([2; 6])), ..c };
    let (_, refused) = take(&mut model, true, &[thief, changed.clone()], &[]);
    assert_eq!(refused, ["a"]);
    assert_eq!(*model.peers["c"].0, changed);
    assert_eq!(prefixes_of(&model, "a"), ["198.18.66.0/24"]);
}

#[test]
fn sources_above_hide_and_give_back() {
    let config = config();
    let mut model = Model::new(&config);
    let same_name = peer("b", 99, &["198.18.9.0/24"]);
    let same_address = peer("c", 12, &["198.18.3.0/24"]);
    let same_prefix = peer("d", 14, &["198.18.2.128/25", "fd00:18:4::/64"]);
    let (_, refused) = take(&mut model, true, &[same_name, same_address, same_prefix], &[]);
    assert_eq!(refused, Vec::<String>::new());
    let in_force: Vec<_> =
        model.peers.iter().map(|(name, (_, source))| (name.as_str(), *source)).collect();
    assert_eq!(in_force, [("b", Source::Config), ("d", Source::Kubernetes)]);
    assert_eq!(prefixes_of(&model, "d"), ["fd00:18:4::/64"], "what nobody else has it keeps");
    let reasons: Vec<_> = model.hidden.peers.iter().map(|peer| peer.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "config says otherwise, and stands above",
            "address: peer \"b\" has 203.0.113.12 already",
            "prefixes: 198.18.2.128/25 overlaps 198.18.2.0/24 of b",
        ]
    );
    // What an operator types stands above, too; and when it goes all is as it was.
    let typed = model.add_peer(&config, peer("d", 50, &["198.18.4.0/24"])).expect("it may be");
    model.apply_all(&typed);
    assert_eq!(model.peers["d"].1, Source::Runtime);
    model.apply_all(&model.delete_peer(&config, "d").expect("its own"));
    assert_eq!(prefixes_of(&model, "d"), ["fd00:18:4::/64"]);
    let without = config_without_peers();
    model.take_config(&without);
    assert!(model.hidden.peers.is_empty());
    assert_eq!(model.peers["b"].0.prefixes, prefixes(&["198.18.9.0/24"]));
    assert_eq!(prefixes_of(&model, "d"), ["198.18.2.128/25", "fd00:18:4::/64"]);
    let refused = model.delete_peer(&without, "d").expect_err("the cluster's");
    assert_eq!(refused.message, "peer \"d\" comes from kubernetes; withdraw it there");
}

fn config_without_peers() -> Config {
    let pods = "pod_prefixes = [\"198.18.1.0/24\"]\n";
    let uplink = &CONFIG[..CONFIG.find("[[peers]]").expect("there")];
    Config::parse("f", &format!("{NODE}{pods}{uplink}")).expect("valid")
}

#[test]
fn the_journal_knows_the_source() {
    let mut model = Model::new(&config());
    take(&mut model, true, &[peer("c", 13, &["198.18.3.0/24"])], &[]);
    let typed = model.add_peer(&config(), peer("d", 14, &["198.18.4.0/24"])).expect("it may be");
    model.apply_all(&typed);
    let lines: Vec<_> =
        model.snapshot().iter().map(|edit| serde_json::to_string(edit).expect("plain")).collect();
    let of = |name: &str| {
        let name = format!("\"name\":\"{name}\"");
        lines.iter().find(|line| line.contains(&name)).expect("written").as_str()
    };
    assert!(of("c").contains("\"source\":\"kubernetes\""), "{}", of("c"));
    // As it was always written, and as older journals have it.
    assert!(!of("d").contains("source"), "{}", of("d"));
    let mut again = Model::new(&config());
    let edits: Vec<Edit> =
        lines.iter().map(|line| serde_json::from_str(line).expect("ours")).collect();
    again.apply_all(&edits);
    assert_eq!((again.peers, again.pods), (model.peers, model.pods));
}

#[test]
fn a_pod_that_lost_its_name_has_it_again_from_its_runtime() {
    let (config, mut model) = (config(), Model::new(&config()));
    let attachment = AttachmentId { container_id: "c".into(), ifname: "eth0".into() };
    let request = api::Recover {
        attachment: attachment.clone(),
        netns: String::new(),
        addresses: prefixes(&["198.18.1.9/32"]),
        gateways: Vec::new(),
        mac: api::Mac([2; 6]),
        mtu: 1450,
    };
    let (edits, _) = model.recover(&config, &request).expect("it is free");
    model.apply_all(&edits);
    assert!(model.attachments[&attachment].name_is_lost);
    let line = serde_json::to_string(&edits).expect("plain");
    assert!(line.contains("\"name_is_lost\":true"), "{line}");
    let pod = api::PodName { namespace: "shop".into(), name: "web".into(), uid: Some("u".into()) };
    let reserve = Reserve { pod: Some(pod.clone()), ..plain_reserve(attachment.clone()) };
    let tried_anew = model.reserve(&config, &reserve, 1450, false);
    let (edits, _) = tried_anew.expect("it has a lease");
    model.apply_all(&edits);
    let lease = &model.attachments[&attachment];
    assert_eq!((lease.pod.as_ref(), lease.name_is_lost), (Some(&pod), false));
}

fn unnamed() -> Model {
    Model::new(&Config::parse("f", &format!("{NODE}{CONFIG}")).expect("valid"))
}

fn reserve(model: &mut Model, container: &str) -> Result<Vec<String>, api::ErrorReply> {
    let request =
        plain_reserve(AttachmentId { container_id: container.into(), ifname: "eth0".into() });
    let (edits, reserved) = model.reserve(&config_unnamed(), &request, 1450, false)?;
    model.apply_all(&edits);
    Ok(reserved.addresses.iter().map(|net| net.addr().to_string()).collect())
}

fn plain_reserve(attachment: AttachmentId) -> Reserve {
    Reserve {
        attachment,
        network: None,
        pod: None,
        container_name: None,
        netns: String::new(),
        mode: None,
        delegated: None,
        requested: Vec::new(),
        ranges: Vec::new(),
        mac: None,
        port_mappings: Vec::new(),
        bandwidth: api::Bandwidth::default(),
        queues: 1,
    }
}

fn config_unnamed() -> Config {
    Config::parse("f", &format!("{NODE}{CONFIG}")).expect("valid")
}

#[test]
fn pods_keep_addresses_of_a_prefix_that_was_replaced_until_the_last_is_gone() {
    let (config, mut model) = (config_unnamed(), unnamed());
    let early = reserve(&mut model, "c1").expect_err("no prefix yet");
    assert_eq!(early.kind, ErrorKind::NotReady);
    assert!(early.message.contains("vswitch-agent"), "{early}");

    let set = |model: &mut Model, texts: &[&str]| {
        let edits = model.set_pod_prefixes(&config, &prefixes(texts))?;
        model.apply_all(&edits);
        Ok::<_, api::ErrorReply>(edits.len())
    };
    assert_eq!(set(&mut model, &["198.18.1.0/24"]), Ok(1));
    assert_eq!(set(&mut model, &["198.18.1.0/24"]), Ok(0));
    assert_eq!(reserve(&mut model, "c1"), Ok(vec!["198.18.1.2".to_owned()]));
    assert_eq!(reserve(&mut model, "c2"), Ok(vec!["198.18.1.3".to_owned()]));
    assert_eq!(set(&mut model, &["198.18.7.0/24", "fd00:18:7::/64"]), Ok(1));
    assert_eq!(
        reserve(&mut model, "c3"),
        Ok(vec!["198.18.7.2".to_owned(), "fd00:18:7::2".to_owned()])
    );
    let all = |model: &Model| model.pods.all().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(all(&model), ["198.18.7.0/24", "fd00:18:7::/64", "198.18.1.0/24"]);
    // It is still this node's: no peer's, and not to be given out in part.
    assert_eq!(take(&mut model, false, &[peer("c", 13, &["198.18.1.0/25"])], &[]).1, ["c"]);
    let partly = set(&mut model, &["198.18.0.0/23"]).expect_err("pods have addresses of it");
    assert_eq!(partly.kind, ErrorKind::Conflict);
    // A restart in between changes nothing.
    let mut again = unnamed();
    again.apply_all(&model.snapshot());
    assert_eq!((&again.pods, again.snapshot()), (&model.pods, model.snapshot()));

    for container in ["c1", "c2"] {
        assert_eq!(all(&model).len(), 3);
        let id = AttachmentId { container_id: container.into(), ifname: "eth0".into() };
        model.apply_all(&model.detach(&id));
    }
    assert_eq!(all(&model), ["198.18.7.0/24", "fd00:18:7::/64"]);
    let synced = model.retry_refused(Source::Kubernetes, &|_| None);
    assert_eq!(synced.edits.len(), 1, "what waited for it can be taken");
}

#[test]
fn pod_prefixes_that_cannot_be_are_refused_and_named() {
    let (config, mut model) = (config_unnamed(), unnamed());
    model.apply_all(&model.set_pod_prefixes(&config, &prefixes(&["198.18.1.0/24"])).expect("free"));
    for (asked, expected) in [
        (&[][..], "at least one"),
        (&["198.18.2.128/25"], "overlaps 198.18.2.0/24 of peer \"b\" (config)"),
        (&["198.18.0.0/16"], "overlaps 198.18.2.0/24 of peer \"b\""),
        (&["10.0.0.0/24"], "not within any of node.cluster_prefixes"),
        (&["198.18.7.0/31"], "no room"),
        (&["0.0.0.0/0"], "everything"),
        (&["224.0.0.0/24"], "multicast"),
        (&["198.18.7.1/24"], "did you mean"),
        (&["198.18.7.0/24", "198.18.8.0/24"], "one a family"),
    ] {
        let refused = model.set_pod_prefixes(&config, &prefixes(asked)).expect_err(expected);
        assert!(refused.message.contains(expected), "{refused}");
    }
    let configured = self::config();
    let model = Model::new(&configured);
    assert_eq!(model.set_pod_prefixes(&configured, &prefixes(&["198.18.1.0/24"])), Ok(vec![]));
    let refused = model.set_pod_prefixes(&configured, &prefixes(&["198.18.7.0/24"]));
    let refused = refused.expect_err("the file says otherwise");
    assert!(refused.message.starts_with("f configures 198.18.1.0/24"), "{refused}");
}

fn any_peer() -> impl Strategy<Value = PeerSpec> {
    let prefix = prop_oneof![
        // Near to one another, so that they collide.
        4 => (0u32..12, 20u8..=32).prop_map(|(block, len)| (0xc612_0000 + (block << 7), len)),
        1 => (any::<u32>(), 0u8..=32),
    ];
    let net = |(bits, len): (u32, u8)| {
        IpNet::new(Ipv4Addr::from_bits(bits).into(), len).expect("a length of IPv4")
    };
    let name = prop_oneof![8 => "[a-h]", 1 => "\\PC{0,3}", 1 => any::<String>()];
    let address = prop_oneof![
        6 => (0u32..16).prop_map(|host| 0xcb00_7108 + host),
        1 => any::<u32>(),
        1 => Just(0xc633_640b),
    ];
    (name, address, prop::collection::vec(prefix, 0..4)).prop_map(move |(name, address, nets)| {
        PeerSpec {
            name,
            address: Ipv4Addr::from_bits(address).into(),
            prefixes: nets.into_iter().map(net).collect(),
            encapsulation: None,
            encapsulate: None,
            vtep_mac: None,
        }
    })
}

proptest! {
    #[test]
    fn every_peer_is_taken_or_refused_and_nobody_loses_what_he_has(
        syncs in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(any_peer(), 0..10), prop::collection::vec("[a-h]", 0..3)),
            1..6,
        ),
    ) {
        let config = config();
        let mut model = Model::new(&config);
        for (complete, peers, gone) in syncs {
            let before = model.source_rib.peers.get(&Source::Kubernetes).cloned().unwrap_or_default();
            let gone: Vec<_> = gone.iter().map(String::as_str).collect();
            take(&mut model, complete, &peers, &gone);
            let said = &model.source_rib.peers.get(&Source::Kubernetes).cloned().unwrap_or_default();
            let last: BTreeMap<_, _> = peers.iter().map(|peer| (&peer.name, peer)).collect();
            for (name, peer) in &last {
                let is_refused = model.refused.get(&(Source::Kubernetes, name.to_string()));
                let is_taken = said.get(*name).map(AsRef::as_ref) == Some(*peer);
                prop_assert!(is_taken != is_refused.is_some(), "{name:?}: {is_refused:?}");
            }
            // A peer that was known and is still named is still known, in one form or the other.
            for name in before.keys().filter(|name| last.contains_key(name)) {
                prop_assert!(said.contains_key(name), "{name:?} is lost");
            }
            // What is in force can be together: nothing overlaps, and all of it is a peer's.
            let mut claimed: BTreeSet<IpNet> = BTreeSet::new();
            let own: IpNet = "198.18.1.0/24".parse().expect("a prefix");
            let mut addresses = BTreeSet::new();
            for (peer, _) in model.peers.values() {
                prop_assert!(addresses.insert(peer.address));
                for prefix in &peer.prefixes {
                    let overlaps = |other: &IpNet| api::overlap(other, prefix);
                    prop_assert!(!overlaps(&own) && !claimed.iter().any(overlaps), "{prefix}");
                    prop_assert!(config.node.cluster_prefixes.iter().any(|net| net.contains(prefix)));
                    claimed.insert(*prefix);
                }
            }
            prop_assert_eq!(model.peers["b"].0.as_ref(), &config.peers[0]);
        }
    }
}
