//! The underlay addresses by which the other nodes know this one.
//!
//! Enters: the uplink's addresses, as the kernel has them. Leaves: the address that tunnels end at,
//! where the uplink has another in place of the one that it lost; else a warning. One that the
//! configuration names is never replaced by another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::tables::LocalAddresses;

use super::Daemon;
use crate::config;
use crate::error::chain;
use crate::machine::check_own_addresses;

impl Daemon {
    /// Takes the uplink's address for our own when ours is gone. True if tables are to change.
    pub(super) fn follow_own_addresses(&mut self) -> bool {
        let (Some(uplink), Some(underlay)) = (&mut self.uplink, &mut self.underlay) else {
            return false;
        };
        let Some(settings) = &self.config.uplink else { return false };
        let (name, old) = (uplink.facts.link.name.clone(), uplink.facts.addresses);
        let asked = underlay.own_addresses().and_then(|has| {
            let is_lost = old.iter().any(|address| !has.contains(&address));
            let lasting = if is_lost { underlay.lasting_addresses()? } else { Vec::new() };
            Ok((has, lasting))
        });
        let (has, lasting) = match asked {
            Ok(found) => found,
            Err(error) => {
                tracing::error!("{}", chain(&error));
                return false;
            }
        };
        let mut fresh = followed(settings, old, &has, &lasting);
        let mut refusals = Vec::new();
        check_own_addresses(&self.config, fresh, &mut refusals);
        if fresh != old && !refusals.is_empty() {
            fresh = old;
        }
        let mut wrong: Vec<_> = fresh
            .iter()
            .filter(|address| !has.contains(address))
            .map(|address| lost(settings, &name, address))
            .collect();
        if !wrong.is_empty() {
            wrong.extend(
                refusals.iter().map(|problem| format!("uplink {name}: {}", problem.message)),
            );
        }
        let is_changed = fresh != old;
        if is_changed {
            let before = uplink.choices();
            uplink.facts.addresses = fresh;
            for (before, after) in before.iter().zip(uplink.choices()) {
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

/// Of each family the address that was, or the only other that lasts in its place.
fn followed(
    settings: &config::Uplink,
    old: LocalAddresses,
    has: &[IpAddr],
    lasting: &[IpAddr],
) -> LocalAddresses {
    let v4 = |all: &[IpAddr]| -> Vec<Ipv4Addr> {
        all.iter()
            .filter_map(|address| match address {
                IpAddr::V4(v4) => Some(*v4),
                IpAddr::V6(_) => None,
            })
            .collect()
    };
    let v6 = |all: &[IpAddr]| -> Vec<Ipv6Addr> {
        all.iter()
            .filter_map(|address| match address {
                IpAddr::V4(_) => None,
                IpAddr::V6(v6) => Some(*v6),
            })
            .collect()
    };
    LocalAddresses {
        v4: follow(settings.address, old.v4, &v4(has), &v4(lasting)),
        v6: follow(settings.address6, old.v6, &v6(has), &v6(lasting)),
    }
}

fn follow<T: Copy + PartialEq>(
    configured: Option<T>,
    old: Option<T>,
    has: &[T],
    lasting: &[T],
) -> Option<T> {
    let old = old?;
    match lasting {
        [only] if configured.is_none() && !has.contains(&old) => Some(*only),
        _ => Some(old),
    }
}

#[cfg(test)]
mod tests {
    use super::follow;

    #[test]
    fn only_what_is_lost_and_not_configured_is_replaced_by_the_only_other() {
        for (configured, has, lasting, expected) in [
            (None, vec![1], vec![1], 1),
            (None, vec![1, 2], vec![1, 2], 1),
            (None, vec![2], vec![2], 2),
            (None, vec![2, 3], vec![2], 2),
            (None, vec![2, 3], vec![2, 3], 1),
            (None, vec![2], vec![], 1),
            (None, vec![], vec![], 1),
            (Some(1), vec![2], vec![2], 1),
        ] {
            assert_eq!(follow(configured, Some(1), &has, &lasting), Some(expected), "{has:?}");
        }
        assert_eq!(follow(None, None, &[2], &[2]), None);
    }
}
