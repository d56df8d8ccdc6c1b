//! What can be checked of a configuration only on the machine itself.
//!
//! Enters: a configuration and the kernel's interfaces. Leaves: the facts about the uplink, or
//! problems with their lines, as `config` gives them. `--check` and the start share it.

use dataplane::tables::LocalAddresses;
use dataplane::wire::ethernet;
use netio::ethtool;
use netio::xsk::MAX_FRAME_BYTES;
use netlink::{Link, Netlink};

use crate::config_file::Refusal;
use crate::error::Error;
use controlplane::config::{Config, Problem, UplinkChoice};
use controlplane::model::Model;
use controlplane::mtu;
use controlplane::own_address::{Candidates, Choice, check_own_addresses};
use worker::cores::given;

/// The NIC as it is.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The interface as the kernel has it.
    pub link: Link,
    /// MAC of the NIC.
    pub mac: [u8; 6],
    /// The underlay addresses.
    pub addresses: LocalAddresses,
    /// Largest IP packet that we can receive and send by it, bytes; if the kind of uplink is still to be
    /// chosen, by whichever it will be.
    pub mtu: u32,
    /// Queues that receive.
    pub queues: u32,
    /// Name of its driver; empty if the driver does not report it.
    pub driver: String,
    /// Sentences that need the operator's attention.
    pub warnings: Vec<String>,
    /// The underlay addresses that are still to come.
    pub awaited: Vec<String>,
}

impl Facts {
    /// What needs the operator's attention if AF_XDP takes its packets.
    #[must_use]
    pub fn warnings_of_af_xdp(&self) -> Vec<String> {
        let Self { link, driver, .. } = self;
        let (name, largest) = (&link.name, largest_mtu(UplinkChoice::AfXdp));
        let mut warnings = Vec::new();
        if driver == "veth" {
            warnings.push(format!(
                "{name} is a veth, which gives us packets with unfinished checksums: run `ethtool -K PEER tx off` on its other end"
            ));
        }
        if link.mtu > largest {
            warnings.push(format!(
                "the MTU of {name} is {}, but AF_XDP takes frames of at most {MAX_FRAME_BYTES} bytes: {largest} is used, and longer packets from the underlay are lost; set it to {largest} or less on every node",
                link.mtu
            ));
        }
        warnings
    }
}

/// The largest IP packet that an uplink takes whatever its NIC does, bytes. Where the kind is chosen by
/// itself it is that of AF_XDP: pods keep their MTU if another is chosen at the next start.
#[must_use]
pub fn largest_mtu(kind: UplinkChoice) -> u32 {
    match kind {
        UplinkChoice::Offload | UplinkChoice::AfPacket => u16::MAX.into(),
        UplinkChoice::AfXdp | UplinkChoice::Auto => (MAX_FRAME_BYTES - ethernet::HEADER_LEN) as u32,
    }
}

/// Validates a configuration against this machine. Where the uplink has several addresses, `recorded` tells which
/// were this node's before.
///
/// # Errors
/// Every problem, or why the machine cannot be asked.
pub fn examine(
    config: &Config,
    recorded: impl Fn() -> LocalAddresses,
) -> Result<Option<Facts>, Error> {
    let mut netlink = Netlink::open().map_err(Error::Netlink)?;
    check(config, recorded, &mut netlink)
        .map_err(|problems| Error::Config(Refusal::Problems(problems)))
}

/// Checks a configuration against the machine; the facts are of the uplink, if there is to be one.
///
/// # Errors
/// What is wrong with the configuration on this machine.
pub fn check(
    config: &Config,
    recorded: impl Fn() -> LocalAddresses,
    netlink: &mut Netlink,
) -> Result<Option<Facts>, Vec<Problem>> {
    let mut problems = Vec::new();
    check_cores(config, &mut problems);
    let facts = match &config.uplink {
        None => None,
        Some(uplink) => match facts(config, uplink, recorded, netlink) {
            Ok(facts) => {
                check_mtu(config, &facts, &mut problems);
                problems.extend(check_own_addresses(config, facts.addresses));
                Some(facts)
            }
            Err(problem) => {
                problems.push(problem);
                None
            }
        },
    };
    if problems.is_empty() { Ok(facts) } else { Err(problems) }
}

fn facts(
    config: &Config,
    uplink: &controlplane::config::UplinkSettings,
    recorded: impl Fn() -> LocalAddresses,
    netlink: &mut Netlink,
) -> Result<Facts, Problem> {
    let name = &uplink.interface;
    let refuse = |key: &str, message: String| config.origin.problem(key, message);
    let unusable = |error: &dyn std::error::Error| {
        refuse("uplink.interface", format!("{name}: {}", crate::error::chain(error)))
    };
    let link = netlink.link(name).map_err(|error| unusable(&error))?;
    let Some(link) = link else {
        let others = netlink.links().map_err(|error| unusable(&error))?;
        let others: Vec<_> =
            others.into_iter().map(|link| link.name).filter(|name| name != "lo").collect();
        return Err(refuse(
            "uplink.interface",
            format!(
                "there is no interface {name} in this network namespace; it has {}",
                if others.is_empty() { "none".into() } else { others.join(", ") }
            ),
        ));
    };
    let mac = link.mac.ok_or_else(|| {
        refuse("uplink.interface", format!("{name} is no Ethernet interface: it has no MAC"))
    })?;
    let all = netlink.addresses(link.index).map_err(|error| unusable(&error))?;
    let all: Vec<_> = all.into_iter().map(|(address, _)| address).collect();
    let lasting = netlink.lasting_addresses(link.index).map_err(|error| unusable(&error))?;
    let Choice { addresses, notes: awaited } =
        Candidates::of(config, uplink, &all, &lasting).choose(config, recorded)?;
    let queues = ethtool::rx_queues(name)
        .map_err(|error| unusable(&error))?
        .unwrap_or(link.rx_queues)
        .max(1);
    let driver = ethtool::driver(name).map(|driver| driver.name).unwrap_or_default();
    let mut warnings = Vec::new();
    if !link.up || !link.carrier {
        warnings.push(format!("{name} is down; pods do not reach other nodes until it is up"));
    }
    let mtu = link.mtu.min(largest_mtu(uplink.kind));
    Ok(Facts { mac, addresses, mtu, queues, driver, warnings, awaited, link })
}

/// The pods' MTU must fit into the underlay with the overhead of every encapsulation in use.
fn check_mtu(config: &Config, facts: &Facts, problems: &mut Vec<Problem>) {
    let found = mtu::problem(config, &Model::new(config), &facts.link.name, facts.mtu);
    problems.extend(found.map(|(key, message)| config.origin.problem(key, message)));
}

fn check_cores(config: &Config, problems: &mut Vec<Problem>) {
    let have = given();
    if have.is_empty() {
        return;
    }
    for (index, core) in config.workers.cores.iter().flatten().enumerate() {
        if !have.contains(core) {
            let have: Vec<_> = have.iter().map(ToString::to_string).collect();
            problems.push(config.origin.problem(
                &format!("workers.cores[{index}]"),
                format!("this process may not run on core {core}; it has {}", have.join(", ")),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use netlink::Link;

    use super::{Facts, check_mtu};
    use controlplane::config::Config;

    fn config(overlay: &str) -> Config {
        let text = format!(
            "[node]\nname = \"a\"\npod_prefixes = [\"fd00:18:1::/64\"]\ncluster_prefixes = [\"fd00:18::/32\"]\n[uplink]\ninterface = \"eth0\"\n[overlay]\n{overlay}\n"
        );
        Config::parse("f", &text).expect("valid")
    }

    fn facts(mtu: u32) -> Facts {
        Facts {
            link: Link { name: "eth0".into(), ..Link::default() },
            mac: [2; 6],
            addresses: IpAddr::from([198, 51, 100, 11]).into(),
            mtu,
            queues: 1,
            driver: String::new(),
            warnings: Vec::new(),
            awaited: Vec::new(),
        }
    }

    #[test]
    fn an_mtu_that_the_underlay_cannot_carry_is_refused() {
        for (overlay, mtu, expected) in [
            (
                "pod_mtu = 1451",
                1500,
                "f:8: overlay.pod_mtu: eth0 carries 1500 bytes, of which encapsulation takes 50: 1450 is the most, not 1451",
            ),
            (
                "",
                1320,
                "f:6: uplink.interface: eth0 carries 1320 bytes, of which encapsulation takes 50: the 1270 left are less than the 1280 that pods need; raise its MTU",
            ),
        ] {
            let mut problems = Vec::new();
            check_mtu(&config(overlay), &facts(mtu), &mut problems);
            assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        }
        let mut problems = Vec::new();
        check_mtu(&config("pod_mtu = 1450"), &facts(1500), &mut problems);
        assert_eq!(problems, []);
    }
}
