//! Which of the uplink's addresses is this node's.
//!
//! Enters: the configuration, and the addresses that the kernel has. Leaves: one of each family at
//! most, or what is wrong, to `machine`.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::tables::LocalAddresses;

use crate::config::{Config, Problem};

/// One of each family at most: the configured one, else the only one. A family that nobody needs
/// may have none, or several.
pub(super) fn choose_addresses(
    config: &Config,
    uplink: &crate::config::Uplink,
    all: &[(IpAddr, u8)],
    lasting: &[IpAddr],
) -> Result<LocalAddresses, Problem> {
    let ends = || config.peers.iter().map(|peer| &peer.address).chain(&config.bridge.vteps);
    let (to_v4, to_v6) = (ends().any(IpAddr::is_ipv4), ends().any(IpAddr::is_ipv6));
    let silent = !to_v4 && !to_v6 && uplink.address.is_none() && uplink.address6.is_none();
    let has_v4 = lasting.iter().any(IpAddr::is_ipv4);
    let v4 = |address: &IpAddr| match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    };
    let v6 = |address: &IpAddr| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(*v6),
    };
    let v4 = Family::<Ipv4Addr> {
        name: "IPv4",
        key: "uplink.address",
        configured: uplink.address,
        all: all.iter().filter_map(|(address, _)| v4(address)).collect(),
        lasting: lasting.iter().filter_map(v4).collect(),
        // Without a word about it, the underlay is IPv4 where there is IPv4.
        is_needed: to_v4 || (silent && has_v4),
    };
    let v6 = Family::<Ipv6Addr> {
        name: "IPv6",
        key: "uplink.address6",
        configured: uplink.address6,
        all: all.iter().filter_map(|(address, _)| v6(address)).collect(),
        lasting: lasting.iter().filter_map(v6).collect(),
        is_needed: to_v6 || (silent && !has_v4),
    };
    let refuse = |(key, message): (&str, String)| config.origin.problem(key, message);
    let name = &uplink.interface;
    Ok(LocalAddresses {
        v4: v4.choose(name).map_err(refuse)?,
        v6: v6.choose(name).map_err(refuse)?,
    })
}

/// What is known of the uplink's addresses of one family.
struct Family<T> {
    name: &'static str,
    key: &'static str,
    configured: Option<T>,
    all: Vec<T>,
    lasting: Vec<T>,
    is_needed: bool,
}

impl<T: Copy + PartialEq + Display> Family<T> {
    /// Or the key to blame and what is wrong.
    fn choose(&self, interface: &str) -> Result<Option<T>, (&'static str, String)> {
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
            (None, _) if !self.is_needed => Ok(None),
            (None, []) => Err((
                "uplink.interface",
                format!(
                    "{interface} has no {name} address that lasts; tunnels need one, neither link-local nor temporary nor still checked for duplicates"
                ),
            )),
            (None, several) => Err((
                "uplink.interface",
                format!(
                    "{interface} has several {name} addresses ({}); choose one by {key}",
                    list(several)
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::choose_addresses;
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
    fn a_family_that_nobody_needs_may_be_ambiguous_or_missing() {
        let many_v6 = "198.51.100.11 2001:db8::1 2001:db8::2";
        let to_v6 = "address = \"2001:db8:1::9\"";
        for (lasting, passing, uplink, peer, expected) in [
            ("198.51.100.11", "", "", "", Ok("198.51.100.11")),
            ("198.51.100.11 2001:db8::1", "", "", "", Ok("198.51.100.11 2001:db8::1")),
            ("2001:db8::1", "", "", "", Ok("2001:db8::1")),
            (many_v6, "", "", "", Ok("198.51.100.11")),
            (many_v6, "", "address6 = \"2001:db8::2\"", to_v6, Ok("198.51.100.11 2001:db8::2")),
            (many_v6, "", "", to_v6, Err("several IPv6 addresses (2001:db8::1, 2001:db8::2)")),
            ("198.51.100.11", "", "", to_v6, Err("eth0 has no IPv6 address that lasts")),
            // One that passes is never chosen, but taken if it is asked for.
            ("2001:db8::1", "2001:db8::2", "", to_v6, Ok("2001:db8::1")),
            ("2001:db8::1", "2001:db8::2", "address6 = \"2001:db8::2\"", "", Ok("2001:db8::2")),
            ("", "2001:db8::2", "", "", Err("eth0 has no IPv6 address that lasts")),
            (
                "2001:db8::1",
                "",
                "",
                "address = \"198.51.100.9\"",
                Err("eth0 has no IPv4 address that lasts"),
            ),
        ] {
            match (chosen(lasting, passing, uplink, peer), expected) {
                (Ok(chosen), Ok(expected)) => assert_eq!(chosen, expected),
                (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{problem}"),
                (found, expected) => panic!("{found:?}, expected {expected:?}"),
            }
        }
    }

    /// What is chosen of addresses that last and of others, by keys of `[uplink]` and of a peer.
    fn chosen(lasting: &str, passing: &str, uplink: &str, peer: &str) -> Result<String, String> {
        let peer = if peer.is_empty() {
            String::new()
        } else {
            format!("[[peers]]\nname = \"b\"\nprefixes = [\"fd00:18:2::/64\"]\n{peer}\n")
        };
        let text = format!(
            "[node]\nname = \"a\"\npod_prefixes = [\"fd00:18:1::/64\"]\ncluster_prefixes = [\"fd00:18::/32\"]\n[uplink]\ninterface = \"eth0\"\n{uplink}\n{peer}"
        );
        let config = Config::parse("f", &text).expect("valid");
        let parse = |text: &str| {
            text.split_whitespace()
                .map(|address| address.parse::<IpAddr>().expect("an address"))
                .collect::<Vec<_>>()
        };
        let lasting = parse(lasting);
        let all: Vec<_> =
            lasting.iter().copied().chain(parse(passing)).map(|address| (address, 64)).collect();
        let uplink = config.uplink.as_ref().expect("configured");
        choose_addresses(&config, uplink, &all, &lasting)
            .map(|own| own.iter().map(|own| own.to_string()).collect::<Vec<_>>().join(" "))
            .map_err(|problem| problem.to_string())
    }
}
