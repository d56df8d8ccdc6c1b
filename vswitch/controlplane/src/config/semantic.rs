//! What values must be to one another, so that the node can work.
//!
//! Enters: a `Config` as written; routes and pod prefixes that come at run time. Leaves: problems.
//! Peers are judged by `claims`.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;

use api::{IPV6_MIN_MTU, RouteTarget, is_v4, overlap};
use ipnet::IpNet;

use super::claims::Claims;
use super::values::{
    check_canonical, check_interface, check_name, check_prefix, check_underlay, is_unicast_mac,
};
use super::{Config, Problem};

/// `sun_path` of unix(7) has 108 bytes, the last of which is NUL.
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut checks = Checks { config, problems: Vec::new() };
    checks.node();
    checks.uplink();
    checks.overlay();
    checks.bridge();
    checks.workers_and_control();
    checks.peers();
    checks.routes();
    checks.kernel_routes();
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
        if node.cluster_prefixes.is_empty() {
            self.refuse(
                "node.cluster_prefixes",
                "at least one prefix is needed, such as \"198.18.0.0/16\"",
            );
        }
        for (index, prefix) in node.cluster_prefixes.iter().enumerate() {
            let key = format!("node.cluster_prefixes[{index}]");
            if let Err(message) = check_prefix(prefix) {
                self.refuse(&key, message);
            }
            for earlier in &node.cluster_prefixes[..index] {
                if overlap(earlier, prefix) {
                    self.refuse(&key, format!("{prefix} overlaps {earlier}; remove one"));
                }
            }
        }
        for (index, message) in check_pod_prefixes(&node.pod_prefixes, &node.cluster_prefixes) {
            self.refuse(&format!("node.pod_prefixes[{index}]"), message);
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
            && let Err(message) = check_underlay(address.into(), &self.config.node.cluster_prefixes)
        {
            self.refuse("uplink.address", message);
        }
        if let Some(address) = uplink.address6
            && let Err(message) = check_underlay(address.into(), &self.config.node.cluster_prefixes)
        {
            self.refuse("uplink.address6", message);
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
        for (index, prefix) in host.non_masquerade_prefixes.iter().enumerate() {
            let problem = if prefix.prefix_len() == 0 {
                Err(format!("{prefix} is everything; set host.masquerade = false instead"))
            } else {
                check_canonical(prefix)
            };
            if let Err(message) = problem {
                self.refuse(&format!("host.non_masquerade_prefixes[{index}]"), message);
            }
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
        if has_v6 && overlay.pod_mtu.is_some_and(|mtu| mtu < IPV6_MIN_MTU) {
            self.refuse("overlay.pod_mtu", format!("IPv6 needs {IPV6_MIN_MTU} bytes or more, and node.pod_prefixes has an IPv6 prefix"));
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
            if let Err(message) = check_underlay(*vtep, &self.config.node.cluster_prefixes) {
                self.refuse(&key, message);
            } else if self.config.own_addresses().has(*vtep) {
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
        let mut claims = Claims::of_node(config);
        for (index, peer) in config.peers.iter().enumerate() {
            let key = format!("peers[{index}]");
            for (field, message) in claims.judge(peer) {
                // One without an address was refused when it was read.
                if !(field == "address" && peer.address.is_unspecified()) {
                    self.refuse(&format!("{key}.{field}"), message);
                }
            }
            claims.take(peer);
        }
    }

    fn kernel_routes(&mut self) {
        let config = self.config;
        let Some(kernel) = &config.kernel_routes else { return };
        if config.uplink.is_none() {
            self.refuse(
                "routes.kernel",
                "the kernel's routes lead to other nodes by the uplink; add [uplink] with interface",
            );
        }
        for (index, protocol) in kernel.protocols.iter().enumerate() {
            if *protocol == crate::kernel::ROUTE_PROTOCOL {
                self.refuse(
                    &format!("routes.kernel.protocols[{index}]"),
                    format!("{protocol} is that of vswitchd's own routes, which say nothing of other nodes"),
                );
            }
        }
        for (index, prefix) in kernel.prefixes.iter().enumerate() {
            let key = format!("routes.kernel.prefixes[{index}]");
            if let Err(message) = check_prefix(prefix) {
                self.refuse(&key, message);
            } else if !config.node.cluster_prefixes.iter().any(|within| within.contains(prefix)) {
                self.refuse(
                    &key,
                    format!("{prefix} is not within any of node.cluster_prefixes; add it or one that contains it there"),
                );
            }
            for earlier in &kernel.prefixes[..index] {
                if overlap(earlier, prefix) {
                    self.refuse(&key, format!("{prefix} overlaps {earlier}; remove one"));
                }
            }
        }
    }

    fn routes(&mut self) {
        let config = self.config;
        let mut claims = Claims::of_node(config);
        config.peers.iter().for_each(|peer| claims.take(peer));
        let mut seen = HashSet::new();
        for (index, route) in config.routes.iter().enumerate() {
            let key = format!("routes.static[{index}]");
            let prefix = &route.prefix;
            let peer_with = |prefix: &IpNet| claims.owner(prefix).map(str::to_owned);
            if let Err(message) = check_route_prefix(&config.node.pod_prefixes, peer_with, prefix) {
                self.refuse(&format!("{key}.prefix"), message);
            } else if !seen.insert(prefix) {
                self.refuse(
                    &format!("{key}.prefix"),
                    format!("{prefix} has a route already, further up"),
                );
            }
            if let RouteTarget::Peer { name } = &route.target
                && !claims.has_name(name)
            {
                self.refuse(&format!("{key}.name"), format!("no peer has the name \"{name}\""));
            }
        }
    }
}

/// Whether a route may have this prefix, beside what the node and its peers have by themselves.
pub(crate) fn check_route_prefix(
    pods: &[IpNet],
    peer_with: impl Fn(&IpNet) -> Option<String>,
    prefix: &IpNet,
) -> Result<(), String> {
    check_canonical(prefix)?;
    if pods.contains(prefix) {
        return Err(format!("{prefix} is this node's own pod prefix; it cannot be routed away"));
    }
    if pods.iter().any(|own| {
        prefix.addr() == Config::gateway_of(own) && prefix.prefix_len() == prefix.max_prefix_len()
    }) {
        return Err(format!("{} is this node's gateway address", prefix.addr()));
    }
    match peer_with(prefix) {
        Some(peer) => Err(format!("{prefix} is a prefix of peer \"{peer}\" already")),
        None => Ok(()),
    }
}

/// Whether these may be a node's pod prefixes: the place of each that may not, and why.
pub(crate) fn check_pod_prefixes(pods: &[IpNet], cluster: &[IpNet]) -> Vec<(usize, String)> {
    let mut problems = Vec::new();
    for (index, prefix) in pods.iter().enumerate() {
        let mut refuse = |message: String| problems.push((index, message));
        if let Err(message) = check_prefix(prefix) {
            refuse(message);
        }
        for earlier in &pods[..index] {
            if overlap(earlier, prefix) {
                refuse(format!("{prefix} overlaps {earlier}; remove one"));
            } else if is_v4(earlier) == is_v4(prefix) {
                refuse(format!("a second prefix of {earlier}'s family; one a family is allowed"));
            }
        }
        if prefix.max_prefix_len() - prefix.prefix_len() < 2 {
            let longest = prefix.max_prefix_len() - 2;
            refuse(format!(
                "{prefix} has no room for a gateway and a pod; /{longest} or shorter is needed"
            ));
        }
        if !cluster.iter().any(|cluster| cluster.contains(prefix)) {
            refuse(format!(
                "{prefix} is not within any of node.cluster_prefixes; add it or one that contains it there"
            ));
        }
    }
    problems
}
