//! The node's own port: a TAP in the daemon's namespace.
//!
//! Enters: the configuration, the node's pod prefixes, the pods' MTU. Leaves: an interface with the gateway addresses,
//! and routes of the cluster's prefixes to it, so that the kernel and everything that runs on the
//! node reach pods everywhere, from an address that the other nodes route back. The kernel removes
//! interface, addresses, neighbours and routes when the TAP is closed, however the daemon ends.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane::tables::Gateway;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netio::port::PortFd;
use netlink::{Netlink, Route};

use crate::error::{Error, Result};
use controlplane::config::{self, Config};
use controlplane::kernel::HOST_METRIC;
use controlplane::model::PodPrefixes;

/// The TAP's MAC; the same on every node, as it is never seen outside of one.
const MAC: [u8; 6] = [0x02, 0x76, 0x73, 0x00, 0x00, 0x02];

/// The next hops of the kernel's routes: link-local, permanent neighbours with the gateway's MAC.
/// Their addresses mean nothing beyond this interface.
const NEXT_HOP_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 118, 1);
const NEXT_HOP_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x7673, 1);

/// The interface, set up.
#[derive(Debug)]
pub struct HostInterface {
    /// Its file descriptor.
    pub port: Arc<PortFd>,
    /// Its name.
    pub name: String,
    /// Its number.
    pub ifindex: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Bytes.
    pub mtu: u32,
    /// Whose gateways it has.
    pods: PodPrefixes,
    /// Others write routes too.
    is_shared: bool,
}

impl HostInterface {
    /// Makes the TAP and everything around it.
    ///
    /// # Errors
    /// If its name or one of the cluster's prefixes is taken, or the kernel refuses.
    pub fn create(
        netlink: &mut Netlink,
        host: &config::Host,
        config: &Config,
        pods: &PodPrefixes,
        mtu: u32,
    ) -> Result<Self> {
        let name = &host.interface;
        let failed = |source| Error::Host { interface: name.clone(), source };
        if netlink.link(name).map_err(failed)?.is_some() {
            return Err(Error::HostTaken(format!(
                "there is an interface {name} already; stop the vswitchd that made it, or give this one another host.interface"
            )));
        }
        // Where others' routes are followed, theirs stand beside ours.
        let is_alone = config.kernel_routes.is_none();
        if is_alone && let Some(taken) = taken_prefix(&config.node.cluster_prefixes) {
            return Err(Error::HostTaken(taken));
        }
        let port = PortFd::create_tap(name)
            .map_err(|source| Error::HostTap { interface: name.clone(), source })?;
        let link = netlink.link(name).map_err(failed)?;
        let link = link.ok_or_else(|| {
            Error::HostTaken(format!("the interface {name} was removed while it was set up"))
        })?;
        set_up(netlink, link.index, mtu).map_err(failed)?;
        let mut host = Self {
            port: Arc::new(port),
            name: name.clone(),
            ifindex: link.index,
            mac: MAC,
            mtu,
            pods: PodPrefixes::default(),
            is_shared: config.kernel_routes.is_some(),
        };
        host.assign(netlink, &config.node.cluster_prefixes, pods).map_err(failed)?;
        Ok(host)
    }

    /// Whether the interface has what belongs to these prefixes.
    #[must_use]
    pub fn is_assigned(&self, pods: &PodPrefixes) -> bool {
        self.pods == *pods
    }

    /// Whether others write routes to the cluster too; [`HostInterface::assign`] is needed then.
    pub fn share(&mut self, is_shared: bool) {
        self.is_shared = is_shared;
        self.pods = PodPrefixes::default();
    }

    /// Gives the interface the gateways of these prefixes and routes the cluster by it, from the
    /// gateways of the current ones; gateways of prefixes that are gone go.
    ///
    /// # Errors
    /// If the kernel refuses; calling it again goes on where it stopped.
    pub fn assign(
        &mut self,
        netlink: &mut Netlink,
        cluster: &[IpNet],
        pods: &PodPrefixes,
    ) -> netlink::Result<()> {
        for gateway in pods.gateways() {
            netlink.add_address(self.ifindex, (gateway, host_len(gateway)))?;
            netlink.replace_neighbor(self.ifindex, next_hop(gateway.is_ipv4()), Gateway::MAC.0)?;
        }
        let halves = if self.is_shared { both_halves(pods) } else { Vec::new() };
        for prefix in cluster.iter().chain(&halves) {
            let is_v4 = matches!(prefix, IpNet::V4(_));
            let source = pods.gateways().find(|gateway| gateway.is_ipv4() == is_v4);
            let route = self.route(prefix, source);
            // Without a pod prefix of its family the node has no address that pods could answer.
            if source.is_some() {
                netlink.replace_route(&route)?;
            } else if self.pods.has_family(is_v4) {
                netlink.delete_route(&route)?;
            }
        }
        for gone in both_halves(&self.pods).iter().filter(|old| !halves.contains(old)) {
            netlink.delete_route(&self.route(gone, None))?;
        }
        // Last: the kernel removes the routes that come from an address with it.
        for gone in self.pods.gateways().filter(|old| !pods.gateways().any(|new| new == *old)) {
            netlink.delete_address(self.ifindex, (gone, host_len(gone)))?;
        }
        self.pods.clone_from(pods);
        Ok(())
    }

    fn route(&self, prefix: &IpNet, source: Option<IpAddr>) -> Route {
        Route {
            gateway: Some(next_hop(matches!(prefix, IpNet::V4(_)))),
            source,
            metric: Some(HOST_METRIC),
            ..Route::unicast((prefix.network(), prefix.prefix_len()), self.ifindex)
        }
    }

    /// Gives it another MTU.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn resize(&mut self, mtu: u32) -> Result<()> {
        let failed = |source| Error::Host { interface: self.name.clone(), source };
        let mut netlink = Netlink::open().map_err(failed)?;
        netlink.set_mtu(self.ifindex, mtu).map_err(failed)?;
        self.mtu = mtu;
        Ok(())
    }
}

fn set_up(netlink: &mut Netlink, ifindex: u32, mtu: u32) -> netlink::Result<()> {
    netlink.set_mac(ifindex, MAC)?;
    netlink.set_mtu(ifindex, mtu)?;
    netlink.set_up(ifindex)
}

/// A routing daemon drops what no pod of its node has by a route of its own to the whole of the
/// node's prefix. The halves of that are longer, so that the node reaches its pods all the same.
fn both_halves(pods: &PodPrefixes) -> Vec<IpNet> {
    pods.all().filter_map(|own| own.subnets(own.prefix_len() + 1).ok()).flatten().collect()
}

fn host_len(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn next_hop(is_v4: bool) -> IpAddr {
    if is_v4 { NEXT_HOP_V4.into() } else { NEXT_HOP_V6.into() }
}

/// A kernel route of one of the prefixes: two routes of equal length would hide one another.
fn taken_prefix(prefixes: &[IpNet]) -> Option<String> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let routes = v4.lines().filter_map(ipv4_route).chain(v6.lines().filter_map(ipv6_route));
    let taken: Vec<_> = routes.filter(|(prefix, _)| prefixes.contains(prefix)).collect();
    taken.first().map(|(prefix, interface)| {
        format!(
            "the kernel routes the cluster prefix {prefix} by {interface} already; remove that route, or correct node.cluster_prefixes"
        )
    })
}

/// A line of /proc/net/route: interface, destination, gateway, flags, three counts, mask; numbers
/// as they lie in memory, in hexadecimal.
fn ipv4_route(line: &str) -> Option<(IpNet, String)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let number = |at: usize| {
        let raw = u32::from_str_radix(fields.get(at)?, 16).ok()?;
        Some(Ipv4Addr::from(raw.to_ne_bytes()))
    };
    let len = number(7)?.to_bits().leading_ones() as u8;
    let net = Ipv4Net::new(number(1)?, len).ok()?;
    Some((net.into(), (*fields.first()?).to_owned()))
}

/// A line of /proc/net/ipv6_route: destination, its length, ..., interface last.
fn ipv6_route(line: &str) -> Option<(IpNet, String)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let address = Ipv6Addr::from_bits(u128::from_str_radix(fields.first()?, 16).ok()?);
    let len = u8::from_str_radix(fields.get(1)?, 16).ok()?;
    let interface = *fields.last()?;
    // The kernel's own entries that say "nobody" are no routes.
    if interface == "lo" {
        return None;
    }
    Some((Ipv6Net::new(address, len).ok()?.into(), interface.to_owned()))
}

/// What the kernel needs beside the interface, as warnings with the cure.
#[must_use]
pub fn sysctl_warnings(pods: &PodPrefixes, interface: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let has = |is_v4: bool| pods.has_family(is_v4);
    for (is_v4, name) in [(true, "net.ipv4.ip_forward"), (false, "net.ipv6.conf.all.forwarding")] {
        if has(is_v4) && sysctl(name).is_some_and(|value| value == 0) {
            warnings.push(format!(
                "pods do not reach the world outside: {name} is 0; run `sysctl -w {name}=1`"
            ));
        }
    }
    if has(true) && is_strict(interface) {
        warnings.push(format!(
            "the kernel checks strictly who may come by {interface} (rp_filter is 1): pods with an address outside of the cluster prefixes, which only a delegated IPAM gives, do not reach the node; run `sysctl -w net.ipv4.conf.{interface}.rp_filter=2` if there are any"
        ));
    }
    warnings
}

/// Why the kernel drops what peers' pods send to this node's own address, where that comes without
/// encapsulation: it routes them by the host port, and looks strictly at where they come from.
#[must_use]
pub fn strict_uplink_warning(uplink: &str) -> Option<String> {
    is_strict(uplink).then(|| format!(
        "the kernel checks strictly who may come by {uplink} (rp_filter is 1): pods of peers that are reached without encapsulation do not reach this node's own address; run `sysctl -w net.ipv4.conf.{uplink}.rp_filter=2`"
    ))
}

/// The larger of the two settings is in force.
fn is_strict(interface: &str) -> bool {
    let conf = |name| sysctl(&format!("net.ipv4.conf.{name}.rp_filter"));
    conf("all").max(conf(interface)) == Some(1)
}

/// Dots become slashes; an interface's name with a dot in it is none of ours.
fn sysctl(name: &str) -> Option<i64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{ipv4_route, ipv6_route};

    #[test]
    fn the_kernels_tables_are_read() {
        let line = "eth0\t000012C6\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0";
        let (prefix, interface) = ipv4_route(line).expect("a route");
        assert_eq!((prefix.to_string().as_str(), interface.as_str()), ("198.18.0.0/16", "eth0"));
        assert!(ipv4_route("Iface\tDestination\tGateway \tFlags").is_none());

        let zero = "00000000000000000000000000000000";
        let line = format!(
            "fd000018000000000000000000000000 20 {zero} 00 {zero} 00000400 00000001 00000000 00000001     eth0"
        );
        let (prefix, interface) = ipv6_route(&line).expect("a route");
        assert_eq!((prefix.to_string().as_str(), interface.as_str()), ("fd00:18::/32", "eth0"));
    }
}
