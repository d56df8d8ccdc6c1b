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
mod tests;
