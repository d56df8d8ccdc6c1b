//! Which of the uplink's addresses is this node's.
//!
//! Enters: the configuration, the addresses that the kernel has, and those that the journal has of this
//! node. Leaves: one of each family at most, what is waited for, or what is wrong; to `machine` at the
//! start, and to `daemon` whenever they may have changed.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::tables::LocalAddresses;

use crate::config::{self, Config, Problem};

/// Addresses that may be chosen from.
#[derive(Debug)]
pub struct Candidates {
    interface: String,
    v4: Family<Ipv4Addr>,
    v6: Family<Ipv6Addr>,
    /// No setting names the family of the underlay.
    silent: bool,
}

/// Addresses that were chosen.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The addresses, one of each family at most.
    pub addresses: LocalAddresses,
    /// What does not stand in the way of that: a family that is still to come, or one of which the
    /// operator must choose.
    pub notes: Vec<String>,
}

/// The key to blame, and what is wrong.
type Wrong = (&'static str, String);

impl Candidates {
    /// Of all addresses of the uplink, and of those that last.
    pub fn of(
        config: &Config,
        uplink: &config::UplinkSettings,
        all: &[IpAddr],
        lasting: &[IpAddr],
    ) -> Self {
        let ends = || config.peers.iter().map(|peer| &peer.address).chain(&config.bridge.vteps);
        let (to_v4, to_v6) = (ends().any(IpAddr::is_ipv4), ends().any(IpAddr::is_ipv6));
        let silent = !to_v4 && !to_v6 && uplink.address.is_none() && uplink.address6.is_none();
        let has_v4 = lasting.iter().any(IpAddr::is_ipv4);
        Self {
            interface: uplink.interface.clone(),
            v4: Family {
                name: "IPv4",
                key: "uplink.address",
                configured: uplink.address,
                all: all.iter().copied().filter_map(v4).collect(),
                lasting: lasting.iter().copied().filter_map(v4).collect(),
                // Without a setting for it, the underlay is IPv4 where there is IPv4.
                is_needed: to_v4 || (silent && has_v4),
            },
            v6: Family {
                name: "IPv6",
                key: "uplink.address6",
                configured: uplink.address6,
                all: all.iter().copied().filter_map(v6).collect(),
                lasting: lasting.iter().copied().filter_map(v6).collect(),
                is_needed: to_v6 || (silent && !has_v4),
            },
            silent,
        }
    }

    /// The configured one of each family, else the only one, else the one that was this node's before: it is
    /// asked for where there are several. A family that no peer needs may have none, or several; one that is
    /// needed may come yet.
    ///
    /// # Errors
    /// If the operator must choose.
    pub fn choose(
        &self,
        config: &Config,
        recorded: impl Fn() -> LocalAddresses,
    ) -> Result<Choice, Problem> {
        let refuse = |(key, message): Wrong| config.origin.problem(key, message);
        let addresses = LocalAddresses {
            v4: self.v4.choose(&self.interface, || recorded().v4).map_err(refuse)?,
            v6: self.v6.choose(&self.interface, || recorded().v6).map_err(refuse)?,
        };
        Ok(Choice { addresses, notes: self.awaited(addresses) })
    }

    /// Of each family the address that was, or the only other that lasts in its place; and of one
    /// that had none, what would be chosen at a start.
    pub fn follow(&self, old: LocalAddresses, recorded: LocalAddresses) -> Choice {
        let mut notes = Vec::new();
        let mut note = |(_, message)| notes.push(format!("uplink {message}"));
        let addresses = LocalAddresses {
            v4: self.v4.follow(old.v4, recorded.v4, &self.interface).unwrap_or_else(|wrong| {
                note(wrong);
                old.v4
            }),
            v6: self.v6.follow(old.v6, recorded.v6, &self.interface).unwrap_or_else(|wrong| {
                note(wrong);
                old.v6
            }),
        };
        notes.extend(self.awaited(addresses));
        Choice { addresses, notes }
    }

    /// What is still to come.
    fn awaited(&self, has: LocalAddresses) -> Vec<String> {
        let interface = &self.interface;
        let say = |family: &str| {
            format!(
                "uplink {interface} has no {family}address yet that lasts, by which other nodes could know this one: neither link-local nor temporary nor still checked for duplicates; the first to come is taken"
            )
        };
        let lacks_v4 = has.v4.is_none() && self.v4.lasting.is_empty();
        let lacks_v6 = has.v6.is_none() && self.v6.lasting.is_empty();
        if self.silent {
            return if lacks_v4 && lacks_v6 { vec![say("")] } else { Vec::new() };
        }
        let v4 = (lacks_v4 && self.v4.is_needed).then(|| say("IPv4 "));
        let v6 = (lacks_v6 && self.v6.is_needed).then(|| say("IPv6 "));
        v4.into_iter().chain(v6).collect()
    }
}

/// An IPv4 address as such.
pub(crate) fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

/// An IPv6 address as such.
pub(crate) fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(v6),
    }
}

/// What is known of the uplink's addresses of one family.
#[derive(Debug)]
struct Family<T> {
    name: &'static str,
    key: &'static str,
    configured: Option<T>,
    all: Vec<T>,
    lasting: Vec<T>,
    is_needed: bool,
}

impl<T: Copy + PartialEq + Display> Family<T> {
    /// The address of this family, if there is one yet.
    fn choose(
        &self,
        interface: &str,
        recorded: impl FnOnce() -> Option<T>,
    ) -> Result<Option<T>, Wrong> {
        let Self { name, key, .. } = self;
        let list = |addresses: &[T]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        match (self.configured, self.lasting.as_slice()) {
            // Even one that passes, if it is asked for.
            (Some(wanted), _) if self.all.contains(&wanted) => Ok(Some(wanted)),
            (Some(wanted), _) => {
                let has = match list(&self.all) {
                    none if none.is_empty() => format!("no {name} address"),
                    some => some,
                };
                Err((key, format!("{interface} does not have {wanted}; it has {has}")))
            }
            (None, [only]) => Ok(Some(*only)),
            (None, []) => Ok(None),
            (None, several) => match recorded().filter(|known| several.contains(known)) {
                Some(known) => Ok(Some(known)),
                None if self.is_needed => Err((
                    "uplink.interface",
                    format!(
                        "{interface} has several {name} addresses ({}); choose one by {key}",
                        list(several)
                    ),
                )),
                None => Ok(None),
            },
        }
    }

    fn follow(
        &self,
        old: Option<T>,
        recorded: Option<T>,
        interface: &str,
    ) -> Result<Option<T>, Wrong> {
        let Some(old) = old else { return self.choose(interface, || recorded) };
        match self.lasting.as_slice() {
            [only] if self.configured.is_none() && !self.all.contains(&old) => Ok(Some(*only)),
            _ => Ok(Some(old)),
        }
    }
}

/// That an address is lost by which the other nodes know this one, and what to do.
pub(crate) fn lost(settings: &config::UplinkSettings, name: &str, address: IpAddr) -> String {
    let is_configured = match address {
        IpAddr::V4(_) => settings.address.is_some(),
        IpAddr::V6(_) => settings.address6.is_some(),
    };
    let cure = if is_configured {
        "give it back, or configure another and restart the daemon"
    } else {
        "give it back, or give it one other"
    };
    format!(
        "uplink {name} does not have {address} any more, by which the other nodes know this one; {cure}"
    )
}

/// Of the fresh addresses those that may be this node's, with the former ones in place of the others;
/// and what stands against those.
pub(crate) fn admitted(
    config: &Config,
    name: &str,
    old: LocalAddresses,
    fresh: LocalAddresses,
) -> (LocalAddresses, Vec<String>) {
    let mut refusals = Vec::new();
    let mut is_refused = |address: Option<IpAddr>| {
        let Some(address) = address.filter(|address| !old.has(*address)) else { return false };
        let problems = check_own_addresses(config, address.into());
        refusals
            .extend(problems.iter().map(|problem| format!("uplink {name}: {}", problem.message)));
        !problems.is_empty()
    };
    let v4 = if is_refused(fresh.v4.map(IpAddr::V4)) { old.v4 } else { fresh.v4 };
    let v6 = if is_refused(fresh.v6.map(IpAddr::V6)) { old.v6 } else { fresh.v6 };
    (LocalAddresses { v4, v6 }, refusals)
}

/// What stands against these as this node's addresses: another node has one of them, or one lies in the
/// cluster.
#[must_use]
pub fn check_own_addresses(config: &Config, own: LocalAddresses) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut check = |key: String, address| {
        if own.has(address) {
            let message = format!("{address} is this node itself");
            problems.push(config.origin.problem(&key, message));
        }
    };
    for (index, peer) in config.peers.iter().enumerate() {
        check(format!("peers[{index}].address"), peer.address);
    }
    for (index, vtep) in config.bridge.vteps.iter().enumerate() {
        check(format!("bridge.vteps[{index}]"), *vtep);
    }
    for own in own.iter() {
        let inside = config.node.cluster_prefixes.iter().find(|prefix| prefix.contains(&own));
        if let Some(prefix) = inside {
            problems.push(config.origin.problem(
                "uplink.interface",
                format!("its address {own} lies in the cluster prefix {prefix}: tunnels would run through themselves"),
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            chosen(only_v4, "", "address = \"198.51.100.12\"", ""),
            Ok("198.51.100.12".into())
        );
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
            (
                "198.51.100.11",
                "",
                "address6 = \"2001:db8::2\"",
                to_v6,
                Err("it has no IPv6 address"),
            ),
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
            let choice = candidates(&config, lasting, passing)
                .choose(&config, own_unknown)
                .expect("a choice");
            assert_eq!(choice.notes.len(), expected.len(), "{choice:?}");
            assert!(
                choice
                    .notes
                    .iter()
                    .zip(expected)
                    .all(|(note, expected)| note.starts_with(expected))
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
            (
                "198.51.100.11",
                "198.18.9.9 2001:db8::11",
                "198.51.100.11 2001:db8::11",
                vec![inside],
            ),
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
}
