//! The underlay addresses by which the other nodes know this one.
//!
//! Enters: the uplink's addresses, as the kernel has them. Leaves: the addresses that tunnels end
//! at: of each family the first that came, or the uplink's other in place of one that it lost; else a
//! warning. One that the configuration names is never replaced by another.

use std::net::IpAddr;

use dataplane::tables::LocalAddresses;

use super::Daemon;
use crate::error::chain;
use crate::machine::check_own_addresses;
use controlplane::config;
use controlplane::own_address::{Candidates, Choice};

impl Daemon {
    /// Takes the uplink's addresses for our own where we have none, or where ours are gone. True if
    /// tables are to change.
    pub(super) fn follow_own_addresses(&mut self) -> bool {
        let (Some(uplink), Some(underlay)) = (&mut self.uplink, &mut self.underlay) else {
            return false;
        };
        let Some(settings) = &self.config.uplink else { return false };
        let (name, old) = (uplink.facts.link.name.clone(), uplink.facts.addresses);
        let asked = underlay.own_addresses().and_then(|has| {
            let may_be_ours =
                |address: &IpAddr| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            let mut others = has.iter().filter(|address| may_be_ours(address));
            let is_settled = old.iter().all(|address| has.contains(&address))
                && others.all(|address| old.towards(*address).is_some());
            let lasting = if is_settled { Vec::new() } else { underlay.lasting_addresses()? };
            Ok((has, lasting))
        });
        let (has, lasting) = match asked {
            Ok(found) => found,
            Err(error) => {
                tracing::error!("{}", chain(&error));
                return false;
            }
        };
        let Choice { addresses, notes: mut wrong } =
            Candidates::of(&self.config, settings, &has, &lasting).follow(old);
        let (fresh, refusals) = admitted(&self.config, &name, old, addresses);
        wrong.extend(
            fresh
                .iter()
                .filter(|address| !has.contains(address))
                .map(|address| lost(settings, &name, address)),
        );
        wrong.extend(refusals);
        let is_changed = fresh != old;
        if is_changed {
            let before = uplink.choices();
            uplink.facts.addresses = fresh;
            for (before, after) in before.iter().zip(uplink.choices()) {
                if *before == after {
                    continue;
                }
                self.choices.iter_mut().filter(|choice| *choice == before).for_each(|choice| {
                    tracing::warn!("{after}");
                    choice.clone_from(&after);
                });
            }
            self.model.set_own_addresses(fresh);
        }
        self.warn_of_addresses(wrong);
        is_changed
    }

    /// Says what is wrong, once, and that it is not any more.
    fn warn_of_addresses(&mut self, wrong: Vec<String>) {
        for warning in wrong.iter().filter(|warning| !self.address_notes.contains(warning)) {
            tracing::error!("{warning}");
        }
        if wrong.is_empty() && !self.address_notes.is_empty() {
            tracing::info!("the uplink has the addresses of this node");
        }
        self.address_notes = wrong;
    }
}

fn lost(settings: &config::Uplink, name: &str, address: IpAddr) -> String {
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

/// Of the fresh addresses those that may be this node's; and what stands against the others, in
/// whose place stays what was.
fn admitted(
    config: &config::Config,
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use dataplane::tables::LocalAddresses;

    use super::admitted;
    use controlplane::config::Config;

    fn own(text: &str) -> LocalAddresses {
        let mut own = LocalAddresses::default();
        for address in text.split_whitespace() {
            match address.parse().expect("an address") {
                IpAddr::V4(v4) => own.v4 = Some(v4),
                IpAddr::V6(v6) => own.v6 = Some(v6),
            }
        }
        own
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
            // Whoever was is not judged again.
            ("198.18.9.9", "198.18.9.9", "198.18.9.9", vec![]),
        ] {
            let (found, said) = admitted(&config, "eth0", own(old), own(fresh));
            assert_eq!(
                (found, said),
                (own(expected), refusals.iter().map(ToString::to_string).collect())
            );
        }
    }
}
