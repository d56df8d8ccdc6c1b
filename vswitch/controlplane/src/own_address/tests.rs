use std::net::IpAddr;

use dataplane::tables::LocalAddresses;

use super::{Candidates, Choice, admitted, check_own_addresses};
use crate::config::Config;

#[test]
fn several_addresses_are_ambiguous() {
    let only_v4 = "198.51.100.11 198.51.100.12";
    assert_eq!(
        chosen(only_v4, "", "", ""),
        Err("f:6: uplink.interface: eth0 has several IPv4 addresses (198.51.100.11, 198.51.100.12); choose one by uplink.address".into())
    );
    assert_eq!(
        chosen("2001:db8::1 2001:db8::2", "", "", ""),
        Err("f:6: uplink.interface: eth0 has several IPv6 addresses (2001:db8::1, 2001:db8::2); choose one by uplink.address6".into())
    );
    assert_eq!(chosen(only_v4, "", "address = \"198.51.100.12\"", ""), Ok("198.51.100.12".into()));
    assert_eq!(
        chosen(only_v4, "", "address = \"198.51.100.13\"", ""),
        Err("f:7: uplink.address: eth0 does not have 198.51.100.13; it has 198.51.100.11, 198.51.100.12".into())
    );
}

#[test]
fn a_family_that_nobody_needs_may_be_ambiguous_and_any_may_be_missing() {
    let many_v6 = "198.51.100.11 2001:db8::1 2001:db8::2";
    let to_v6 = "address = \"2001:db8:1::9\"";
    for (lasting, passing, uplink, peer, expected) in [
        ("198.51.100.11", "", "", "", Ok("198.51.100.11")),
        ("198.51.100.11 2001:db8::1", "", "", "", Ok("198.51.100.11 2001:db8::1")),
        ("2001:db8::1", "", "", "", Ok("2001:db8::1")),
        (many_v6, "", "", "", Ok("198.51.100.11")),
        (many_v6, "", "address6 = \"2001:db8::2\"", to_v6, Ok("198.51.100.11 2001:db8::2")),
        (many_v6, "", "", to_v6, Err("several IPv6 addresses (2001:db8::1, 2001:db8::2)")),
        ("198.51.100.11", "", "", to_v6, Ok("198.51.100.11")),
        ("198.51.100.11", "", "address6 = \"2001:db8::2\"", to_v6, Err("it has no IPv6 address")),
        // One that passes is never chosen, but taken if it is asked for.
        ("2001:db8::1", "2001:db8::2", "", to_v6, Ok("2001:db8::1")),
        ("2001:db8::1", "2001:db8::2", "address6 = \"2001:db8::2\"", "", Ok("2001:db8::2")),
        ("", "2001:db8::2", "", "", Ok("")),
        ("2001:db8::1", "", "", "address = \"198.51.100.9\"", Ok("2001:db8::1")),
    ] {
        match (chosen(lasting, passing, uplink, peer), expected) {
            (Ok(chosen), Ok(expected)) => assert_eq!(chosen, expected),
            (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{problem}"),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn what_is_needed_and_not_there_is_awaited() {
    let (to_v4, to_v6) = ("address = \"198.51.100.9\"", "address = \"2001:db8:1::9\"");
    for (lasting, passing, peer, expected) in [
        ("198.51.100.11", "", "", vec![]),
        ("198.51.100.11", "", to_v4, vec![]),
        ("2001:db8::1", "", "", vec![]),
        ("", "", "", vec!["uplink eth0 has no address yet"]),
        ("", "2001:db8::2", "", vec!["uplink eth0 has no address yet"]),
        ("", "", to_v4, vec!["uplink eth0 has no IPv4 address yet"]),
        ("2001:db8::1", "", to_v4, vec!["uplink eth0 has no IPv4 address yet"]),
        ("198.51.100.11", "2001:db8::2", to_v6, vec!["uplink eth0 has no IPv6 address yet"]),
    ] {
        let config = config("", peer);
        let choice =
            candidates(&config, lasting, passing).choose(&config, own_unknown).expect("a choice");
        assert_eq!(choice.notes.len(), expected.len(), "{choice:?}");
        assert!(
            choice.notes.iter().zip(expected).all(|(note, expected)| note.starts_with(expected))
        );
    }
}

#[test]
fn what_is_lost_and_not_configured_is_replaced_by_the_only_other() {
    let configured = "address = \"198.51.100.1\"";
    for (uplink, passing, lasting, expected) in [
        ("", "", "198.51.100.1", "198.51.100.1"),
        ("", "", "198.51.100.1 198.51.100.2", "198.51.100.1"),
        ("", "", "198.51.100.2", "198.51.100.2"),
        ("", "198.51.100.3", "198.51.100.2", "198.51.100.2"),
        ("", "", "198.51.100.2 198.51.100.3", "198.51.100.1"),
        ("", "198.51.100.2", "", "198.51.100.1"),
        ("", "", "", "198.51.100.1"),
        (configured, "", "198.51.100.2", "198.51.100.1"),
    ] {
        let config = config(uplink, "");
        let choice = candidates(&config, lasting, passing).follow(own("198.51.100.1"), own(""));
        assert_eq!(choice, Choice { addresses: own(expected), notes: Vec::new() }, "{lasting}");
    }
}

#[test]
fn a_family_that_had_none_gets_its_first() {
    let to_v6 = "address = \"2001:db8:1::9\"";
    let several = "uplink eth0 has several IPv6 addresses (2001:db8::1, 2001:db8::2); choose one by uplink.address6";
    let (v4, both) = ("198.51.100.1", "198.51.100.1 2001:db8::1");
    for (old, lasting, peer, expected, note) in [
        ("", v4, "", v4, None),
        ("", "2001:db8::1", "", "2001:db8::1", None),
        ("", both, "", both, None),
        (v4, both, "", both, None),
        (v4, both, to_v6, both, None),
        ("2001:db8::1", both, "", both, None),
        ("", "", "", "", Some("uplink eth0 has no address yet")),
        (v4, v4, to_v6, v4, Some("uplink eth0 has no IPv6 address yet")),
        // Of two that come at once the operator must choose, if there is a peer to reach by one.
        (v4, "198.51.100.1 2001:db8::1 2001:db8::2", "", v4, None),
        (v4, "198.51.100.1 2001:db8::1 2001:db8::2", to_v6, v4, Some(several)),
        ("", "2001:db8::1 2001:db8::2", "", "", Some(several)),
    ] {
        let choice = candidates(&config("", peer), lasting, "").follow(own(old), own(""));
        assert_eq!(choice.addresses, own(expected), "{lasting}");
        assert_eq!(choice.notes.len(), note.iter().len(), "{choice:?}");
        assert!(choice.notes.iter().zip(note).all(|(found, note)| found.starts_with(note)));
    }
}

#[test]
fn of_several_the_one_that_was_this_nodes_is_kept_while_it_is_there() {
    let (vip, both) = ("198.51.100.1 198.51.100.9", "198.51.100.1 2001:db8::1 2001:db8::9");
    let to_v6 = "address = \"2001:db8:1::9\"";
    for (lasting, uplink, peer, recorded, expected) in [
        (vip, "", "", "198.51.100.1", Ok("198.51.100.1")),
        (vip, "", "", "198.51.100.9", Ok("198.51.100.9")),
        (vip, "address = \"198.51.100.9\"", "", "198.51.100.1", Ok("198.51.100.9")),
        // The only one is taken, whatever was before.
        ("198.51.100.9", "", "", "198.51.100.1", Ok("198.51.100.9")),
        (vip, "", "", "198.51.100.2", Err("(198.51.100.1, 198.51.100.9)")),
        (vip, "", "", "2001:db8::1", Err("(198.51.100.1, 198.51.100.9)")),
        (both, "", to_v6, "198.51.100.1 2001:db8::9", Ok("198.51.100.1 2001:db8::9")),
        (both, "", to_v6, "198.51.100.1", Err("(2001:db8::1, 2001:db8::9)")),
        // Of a family that no peer needs, too.
        (both, "", "", "2001:db8::1", Ok("198.51.100.1 2001:db8::1")),
    ] {
        let config = config(uplink, peer);
        let chosen = candidates(&config, lasting, "").choose(&config, || own(recorded));
        match (chosen, expected) {
            (Ok(Choice { addresses, .. }), Ok(expected)) => {
                assert_eq!(addresses, own(expected))
            }
            (Err(problem), Err(expected)) => {
                assert!(problem.to_string().contains(expected), "{problem}");
            }
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }
    // Also where they come at run time, as after a boot.
    let choice = candidates(&config("", ""), vip, "").follow(own(""), own("198.51.100.9"));
    assert_eq!(choice, Choice { addresses: own("198.51.100.9"), notes: Vec::new() });
}

fn own_unknown() -> LocalAddresses {
    LocalAddresses::default()
}

fn own(text: &str) -> LocalAddresses {
    let mut own = LocalAddresses::default();
    for address in parse(text) {
        match address {
            IpAddr::V4(v4) => own.v4 = Some(v4),
            IpAddr::V6(v6) => own.v6 = Some(v6),
        }
    }
    own
}

fn parse(text: &str) -> Vec<IpAddr> {
    text.split_whitespace().map(|address| address.parse().expect("an address")).collect()
}

/// A configuration with keys of `[uplink]`, and of a peer.
fn config(uplink: &str, peer: &str) -> Config {
    let peer = if peer.is_empty() {
        String::new()
    } else {
        format!("[[peers]]\nname = \"b\"\nprefixes = [\"fd00:18:2::/64\"]\n{peer}\n")
    };
    let text = format!(
        "[node]\nname = \"a\"\npod_prefixes = [\"fd00:18:1::/64\"]\ncluster_prefixes = [\"fd00:18::/32\"]\n[uplink]\ninterface = \"eth0\"\n{uplink}\n{peer}"
    );
    Config::parse("f", &text).expect("valid")
}

fn candidates(config: &Config, lasting: &str, passing: &str) -> Candidates {
    let lasting = parse(lasting);
    let all: Vec<_> = lasting.iter().copied().chain(parse(passing)).collect();
    let uplink = config.uplink.as_ref().expect("configured");
    Candidates::of(config, uplink, &all, &lasting)
}

/// What is chosen of addresses that last and of others, by keys of `[uplink]` and of a peer.
fn chosen(lasting: &str, passing: &str, uplink: &str, peer: &str) -> Result<String, String> {
    let config = config(uplink, peer);
    candidates(&config, lasting, passing)
        .choose(&config, own_unknown)
        .map(|Choice { addresses, .. }| {
            addresses.iter().map(|own| own.to_string()).collect::<Vec<_>>().join(" ")
        })
        .map_err(|problem| problem.to_string())
}

#[test]
fn an_address_that_cannot_be_ours_does_not_stand_in_the_way_of_another_that_can() {
    let text = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n[uplink]\ninterface = \"eth0\"\n[[peers]]\nname = \"b\"\naddress = \"2001:db8::12\"\nprefixes = [\"198.18.2.0/24\"]\n";
    let config = Config::parse("f", text).expect("valid");
    let inside = "uplink eth0: its address 198.18.9.9 lies in the cluster prefix 198.18.0.0/16: tunnels would run through themselves";
    let peer = "uplink eth0: 2001:db8::12 is this node itself";
    for (old, fresh, expected, refusals) in [
        ("", "198.51.100.11", "198.51.100.11", vec![]),
        ("198.51.100.11", "198.51.100.11 2001:db8::11", "198.51.100.11 2001:db8::11", vec![]),
        ("198.51.100.11", "198.51.100.11 2001:db8::12", "198.51.100.11", vec![peer]),
        ("198.51.100.11", "198.18.9.9 2001:db8::11", "198.51.100.11 2001:db8::11", vec![inside]),
        ("", "198.18.9.9 2001:db8::12", "", vec![inside, peer]),
        // An address that was the node's is not judged again.
        ("198.18.9.9", "198.18.9.9", "198.18.9.9", vec![]),
    ] {
        let (found, said) = admitted(&config, "eth0", own(old), own(fresh));
        assert_eq!(
            (found, said),
            (own(expected), refusals.iter().map(ToString::to_string).collect())
        );
    }
}

#[test]
fn a_peer_cannot_be_this_node() {
    let peers =
        "[[peers]]\nname = \"b\"\naddress = \"198.51.100.11\"\nprefixes = [\"fd00:18:2::/64\"]";
    let own = IpAddr::from([198, 51, 100, 11]).into();
    let problems = check_own_addresses(&parsed(peers), own);
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "f:10: peers[0].address: 198.51.100.11 is this node itself"
    );
}

fn parsed(overlay: &str) -> Config {
    let text = format!(
        "[node]\nname = \"a\"\npod_prefixes = [\"fd00:18:1::/64\"]\ncluster_prefixes = [\"fd00:18::/32\"]\n[uplink]\ninterface = \"eth0\"\n[overlay]\n{overlay}\n"
    );
    Config::parse("f", &text).expect("valid")
}
