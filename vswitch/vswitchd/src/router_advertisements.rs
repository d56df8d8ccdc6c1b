//! Router advertisements, which the kernel ignores where it forwards.
//!
//! Enters: the kernel's addresses and routes, and its settings. Leaves: interfaces that lose by forwarding what
//! routers have told, and the cure; to the daemon's comparisons, for the log and
//! `status`, and to `--check`.
//!
//! An interface whose `accept_ra` is 1 takes no advertisement while its `forwarding` is 1, and the kernel drops the
//! default routes of such interfaces in the moment in which it begins to forward. With 2 it takes them always. A
//! program that takes them itself, as systemd-networkd and NetworkManager do, has it at 0.

use netlink::Netlink;

use crate::error::chain;
use crate::sysctl;

/// Interfaces that have something of router advertisements, by their names.
#[derive(Debug, Default)]
pub struct Advertised(Vec<String>);

impl Advertised {
    /// Those of the daemon's namespace.
    #[must_use]
    pub fn read(netlink: &mut Netlink) -> Self {
        let names = netlink.advertised_interfaces().and_then(|of| {
            let links = if of.is_empty() { Vec::new() } else { netlink.links()? };
            let links = links.into_iter().filter(|link| of.contains(&link.index));
            Ok(links.map(|link| link.name).collect())
        });
        Self(names.unwrap_or_else(|error| {
            tracing::debug!("what routers have advertised is not known: {}", chain(&error));
            Vec::new()
        }))
    }

    /// What the node loses as the kernel forwards, and the cure.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.at_risk().filter(|interface| forwards(interface)).map(|interface| {
            let cure = cure(interface);
            format!(
                "{interface} takes no router advertisements any more, as the kernel forwards IPv6: the node loses its default route by it, if it has not yet; run `{cure}`, and keep that in /etc/sysctl.d"
            )
        })
    }

    /// What the node would lose if the kernel forwarded, and what is to be done before.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.at_risk().filter(|interface| !forwards(interface)).map(|interface| {
            let cure = cure(interface);
            format!(
                "{interface} takes router advertisements until the kernel forwards IPv6, and loses its default route then; run `{cure}` before, and keep that in /etc/sysctl.d"
            )
        })
    }

    /// What is to be done before the kernel forwards, as commands.
    #[must_use]
    pub fn cures(&self) -> Vec<String> {
        self.at_risk().map(cure).collect()
    }

    /// Has them take advertisements while the kernel forwards.
    ///
    /// # Errors
    /// If a setting may not be written.
    pub fn keep(&self) -> std::io::Result<()> {
        self.at_risk().try_for_each(|interface| sysctl::set(&accept_ra(interface), 2))
    }

    fn at_risk(&self) -> impl Iterator<Item = &str> {
        let names = self.0.iter().map(String::as_str);
        names.filter(|name| conf(name, "accept_ra") == Some(1))
    }
}

fn conf(interface: &str, setting: &str) -> Option<i64> {
    sysctl::read(&sysctl::of_interface("ipv6", interface, setting))
}

fn forwards(interface: &str) -> bool {
    conf(interface, "forwarding").is_some_and(|forwarding| forwarding != 0)
}

fn accept_ra(interface: &str) -> String {
    sysctl::of_interface("ipv6", interface, "accept_ra")
}

fn cure(interface: &str) -> String {
    format!("sysctl -w {}=2", accept_ra(interface))
}
