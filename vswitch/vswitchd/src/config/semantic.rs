//! What values must be to one another, so that the node can work.
//!
//! Enters: a `Config` as written; peers and routes that are added at run time. Leaves: problems.

use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;

use api::{PeerSpec, RouteTarget};
use ipnet::IpNet;

use super::{Config, Node, Problem};
use crate::compile::encapsulation::contradiction;

/// `sun_path` of unix(7) has 108 bytes, the last of which is NUL.
const MAX_SOCKET_PATH: usize = 107;
/// RFC 8200 section 5.
const MIN_IPV6_MTU: u32 = 1280;
/// RFC 1035 section 2.3.4, as Kubernetes names its nodes.
const MAX_NAME: usize = 253;

pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut checks = Checks { config, problems: Vec::new() };
    checks.node();
    checks.uplink();
    checks.overlay();
    checks.bridge();
    checks.workers_and_control();
    checks.peers();
    checks.routes();
    checks.problems
}

struct Checks<'c> {
    config: &'c Config,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    fn refuse(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(self.config.origin.problem(key, message));
    }

    fn node(&mut self) {
        let node = &self.config.node;
        if let Err(message) = check_name(&node.name) {
            self.refuse("node.name", message);
        }
        for (key, prefixes) in [
            ("node.pod_prefixes", &node.pod_prefixes),
            ("node.cluster_prefixes", &node.cluster_prefixes),
        ] {
            if prefixes.is_empty() {
                self.refuse(key, "at least one prefix is needed, such as \"198.18.1.0/24\"");
            }
            for (index, prefix) in prefixes.iter().enumerate() {
                let key = format!("{key}[{index}]");
                if let Err(message) = check_prefix(prefix) {
                    self.refuse(&key, message);
                }
                for earlier in &prefixes[..index] {
                    if overlap(earlier, prefix) {
                        self.refuse(&key, format!("{prefix} overlaps {earlier}; remove one"));
                    } else if key.contains("pod") && is_v4(earlier) == is_v4(prefix) {
                        self.refuse(
                            &key,
                            format!(
                                "a second prefix of {earlier}'s family; one a family is allowed"
                            ),
                        );
                    }
                }
            }
        }
        for (index, prefix) in node.pod_prefixes.iter().enumerate() {
            let key = format!("node.pod_prefixes[{index}]");
            if prefix.max_prefix_len() - prefix.prefix_len() < 2 {
                let longest = prefix.max_prefix_len() - 2;
                self.refuse(&key, format!("{prefix} has no room for a gateway and a pod; /{longest} or shorter is needed"));
            }
            if !node.cluster_prefixes.iter().any(|cluster| cluster.contains(prefix)) {
                self.refuse(&key, format!("{prefix} is not within any of node.cluster_prefixes; add it or one that contains it there"));
            }
        }
    }

    fn uplink(&mut self) {
        let Some(uplink) = &self.config.uplink else {
            if !self.config.peers.is_empty() {
                self.refuse(
                    "peers[0]",
                    "a peer needs an uplink to be reached by; add [uplink] with interface",
                );
            }
            if self.config.bridge.vni.is_some() {
                self.refuse(
                    "bridge.vni",
                    "a stretched bridge needs an uplink; add [uplink] with interface",
                );
            }
            return self.host("");
        };
        if let Err(message) = check_interface(&uplink.interface) {
            self.refuse("uplink.interface", message);
        }
        if let Some(address) = uplink.address
            && let Err(message) = check_underlay(address.into(), &self.config.node)
        {
            self.refuse("uplink.address", message);
        }
        self.host(&uplink.interface.clone());
    }

    fn host(&mut self, uplink: &str) {
        let Some(host) = &self.config.host else { return };
        if let Err(message) = check_interface(&host.interface) {
            self.refuse("host.interface", message);
        } else if host.interface == uplink {
            self.refuse(
                "host.interface",
                "the uplink has this name; the host port is a TAP that the daemon makes",
            );
        }
    }

    fn overlay(&mut self) {
        let overlay = &self.config.overlay;
        if let Some(index) =
            overlay.accept_vnis.iter().position(|vni| Some(*vni) == self.config.bridge.vni)
        {
            self.refuse(
                &format!("overlay.accept_vnis[{index}]"),
                "bridge.vni is the same; a stretched bridge needs its own",
            );
        }
        if overlay.vtep_mac.is_some_and(|mac| !is_unicast_mac(mac)) {
            self.refuse("overlay.vtep_mac", "a group or zero address cannot be a VTEP's MAC");
        }
        let has_v6 = self.config.node.pod_prefixes.iter().any(|prefix| !is_v4(prefix));
        if has_v6 && overlay.pod_mtu.is_some_and(|mtu| mtu < MIN_IPV6_MTU) {
            self.refuse("overlay.pod_mtu", format!("IPv6 needs {MIN_IPV6_MTU} bytes or more, and node.pod_prefixes has an IPv6 prefix"));
        }
    }

    fn bridge(&mut self) {
        let bridge = &self.config.bridge;
        if let Err(message) = check_name(&bridge.name) {
            self.refuse("bridge.name", message);
        }
        if bridge.vni == Some(self.config.overlay.vni) {
            self.refuse("bridge.vni", "overlay.vni is the same; a stretched bridge needs its own");
        }
        if bridge.vni.is_none() && !bridge.vteps.is_empty() {
            self.refuse(
                "bridge.vteps",
                "VTEPs without bridge.vni; set it to the segment's identifier",
            );
        }
        for (index, vtep) in bridge.vteps.iter().enumerate() {
            let key = format!("bridge.vteps[{index}]");
            if let Err(message) = check_underlay(*vtep, &self.config.node) {
                self.refuse(&key, message);
            } else if self.config.is_own(*vtep) {
                self.refuse(&key, "this is uplink.address, this node itself");
            } else if bridge.vteps[..index].contains(vtep) {
                self.refuse(&key, format!("{vtep} is listed twice"));
            }
        }
    }

    fn workers_and_control(&mut self) {
        if let Some(cores) = &self.config.workers.cores {
            if cores.is_empty() {
                self.refuse("workers.cores", "at least one core is needed, or no such key");
            }
            for (index, core) in cores.iter().enumerate() {
                if cores[..index].contains(core) {
                    self.refuse(
                        &format!("workers.cores[{index}]"),
                        format!("core {core} is listed twice; a worker needs its own"),
                    );
                }
            }
        }
        let control = &self.config.control;
        for (key, path) in
            [("control.socket", &control.socket), ("control.state_dir", &control.state_dir)]
        {
            if !path.is_absolute() {
                self.refuse(
                    key,
                    format!("expected an absolute path, found \"{}\"", path.display()),
                );
            }
        }
        if control.socket.as_os_str().as_bytes().len() > MAX_SOCKET_PATH {
            self.refuse(
                "control.socket",
                format!("a unix socket's path has at most {MAX_SOCKET_PATH} bytes"),
            );
        }
    }

    fn peers(&mut self) {
        let config = self.config;
        for (index, peer) in config.peers.iter().enumerate() {
            let key = format!("peers[{index}]");
            if let Err(message) = check_name(&peer.name) {
                self.refuse(&format!("{key}.name"), message);
            }
            for (field, message) in check_peer(config, peer, &config.peers[..index]) {
                self.refuse(&format!("{key}.{field}"), message);
            }
        }
    }

    fn routes(&mut self) {
        let config = self.config;
        for (index, route) in config.routes.iter().enumerate() {
            let key = format!("routes[{index}]");
            let prefix = &route.prefix;
            if let Err(message) = check_route_prefix(config, &config.peers, prefix) {
                self.refuse(&format!("{key}.prefix"), message);
            } else if config.routes[..index].iter().any(|earlier| earlier.prefix == *prefix) {
                self.refuse(
                    &format!("{key}.prefix"),
                    format!("{prefix} has a route already, further up"),
                );
            }
            if let RouteTarget::Peer { name } = &route.target
                && !config.peers.iter().any(|peer| peer.name == *name)
            {
                self.refuse(&format!("{key}.name"), format!("no peer has the name \"{name}\""));
            }
        }
    }
}

/// What is wrong with a peer beside the `others`: field and message. One whose address was missing
/// altogether has 0.0.0.0 and was refused before.
pub(crate) fn check_peer(
    config: &Config,
    peer: &PeerSpec,
    others: &[PeerSpec],
) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    let mut refuse = |field, message: String| problems.push((field, message));
    if peer.address.is_unspecified() {
        // Nothing to add.
    } else if let Err(message) = check_underlay(peer.address, &config.node) {
        refuse("address", message);
    } else if config.is_own(peer.address) {
        refuse("address", "this is uplink.address, this node itself".into());
    }
    if let Some(message) = contradiction(config, peer) {
        refuse("encapsulate", message);
    }
    if peer.vtep_mac.is_some_and(|mac| !is_unicast_mac(mac)) {
        refuse("vtep_mac", "a group or zero address cannot be a VTEP's MAC".into());
    }
    if peer.prefixes.is_empty() {
        refuse("prefixes", "a peer needs at least one prefix, that of its pods".into());
    }
    for other in others {
        if other.name == peer.name {
            refuse("name", format!("another peer has the name \"{}\" already", peer.name));
        }
        if other.address == peer.address && !peer.address.is_unspecified() {
            refuse("address", format!("peer \"{}\" has {} already", other.name, peer.address));
        }
    }
    let own = config.node.pod_prefixes.iter().map(|prefix| (prefix, "this node"));
    let theirs = others
        .iter()
        .flat_map(|other| other.prefixes.iter().map(|prefix| (prefix, other.name.as_str())));
    let taken: Vec<_> = own.chain(theirs).collect();
    for (index, prefix) in peer.prefixes.iter().enumerate() {
        if let Err(message) = check_prefix(prefix) {
            refuse("prefixes", message);
        } else if !config.node.cluster_prefixes.iter().any(|cluster| cluster.contains(prefix)) {
            refuse(
                "prefixes",
                format!(
                    "{prefix} is not within any of node.cluster_prefixes; add it or one that contains it there"
                ),
            );
        }
        for (other, whose) in &taken {
            if overlap(other, prefix) {
                refuse("prefixes", format!("{prefix} overlaps {other} of {whose}"));
            }
        }
        for earlier in &peer.prefixes[..index] {
            if overlap(earlier, prefix) {
                refuse("prefixes", format!("{prefix} overlaps {earlier} of the same peer"));
            }
        }
    }
    problems
}

/// Whether a route may have this prefix, beside what the node and its peers have by themselves.
pub(crate) fn check_route_prefix(
    config: &Config,
    peers: &[PeerSpec],
    prefix: &IpNet,
) -> Result<(), String> {
    check_canonical(prefix)?;
    if config.node.pod_prefixes.contains(prefix) {
        return Err(format!("{prefix} is this node's own pod prefix; it cannot be routed away"));
    }
    if config.node.pod_prefixes.iter().any(|own| {
        prefix.addr() == Config::gateway_of(own) && prefix.prefix_len() == prefix.max_prefix_len()
    }) {
        return Err(format!("{} is this node's gateway address", prefix.addr()));
    }
    match peers.iter().find(|peer| peer.prefixes.contains(prefix)) {
        Some(peer) => Err(format!("{prefix} is a prefix of peer \"{}\" already", peer.name)),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_well_formed = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.chars().all(|char| !char.is_whitespace() && !char.is_control());
    if is_well_formed {
        Ok(())
    } else {
        Err(format!("a name has 1 to {MAX_NAME} bytes and no spaces"))
    }
}

fn check_interface(name: &str) -> Result<(), String> {
    let is_well_formed = !name.is_empty()
        && name.len() <= 15
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    if is_well_formed {
        Ok(())
    } else {
        Err(format!(
            "\"{name}\" cannot be an interface: 1 to 15 characters, no space, no slash, no colon"
        ))
    }
}

fn check_canonical(prefix: &IpNet) -> Result<(), String> {
    let canonical = prefix.trunc();
    if *prefix == canonical {
        Ok(())
    } else {
        Err(format!("{prefix} has bits beyond its length; did you mean {canonical}?"))
    }
}

/// A prefix that pods may have addresses from.
fn check_prefix(prefix: &IpNet) -> Result<(), String> {
    check_canonical(prefix)?;
    if prefix.prefix_len() == 0 {
        return Err(format!("{prefix} is everything; pods need a prefix of their own"));
    }
    let is_special = match prefix.addr() {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_multicast() || v4.is_link_local() || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
        }
    };
    if is_special {
        return Err(format!(
            "{prefix} is no prefix that pods may have: it is loopback, multicast, link-local or unspecified"
        ));
    }
    Ok(())
}

fn check_underlay(address: IpAddr, node: &Node) -> Result<(), String> {
    let is_special = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(_) => return Err(format!("{address} is no IPv4 address")),
    };
    if is_special || address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        return Err(format!("{address} cannot be a node's underlay address"));
    }
    match node.cluster_prefixes.iter().find(|prefix| prefix.contains(&address)) {
        Some(prefix) => Err(format!(
            "{address} lies in the cluster prefix {prefix}: tunnels would run through themselves"
        )),
        None => Ok(()),
    }
}

fn is_unicast_mac(mac: api::Mac) -> bool {
    mac.0[0] & 1 == 0 && mac.0 != [0; 6]
}

fn is_v4(prefix: &IpNet) -> bool {
    matches!(prefix, IpNet::V4(_))
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}
