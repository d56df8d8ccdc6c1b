//! The node's own port: a TAP in the daemon's namespace.
//!
//! Enters: what the control plane wants of it. Leaves: what the kernel has of it, and the changes that
//! lead from one to the other. The TAP outlives the daemon with its addresses, neighbours and routes,
//! however that ends. The `unreachable` routes stay even where it is deleted, so that pods' addresses
//! never leave by the node's default route.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use controlplane::config::{self, Config};
use controlplane::desired::host_port::{self, HostPortRepair, HostPortState, HostRoute};
use controlplane::model::PodPrefixes;
use dataplane::tables::Gateway;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netio::port::{PortFd, QUEUE_PACKETS};
use netlink::{
    FibRouteKind, Link, MAIN_TABLE, Netlink, NudState, ROUTE_PROTOCOL, Route, RouteFilter,
};

use crate::error::{Error, Result, chain};
use crate::sysctl;

/// The TAP's MAC; the same on every node, as it is never seen outside of one.
pub const MAC: [u8; 6] = [0x02, 0x76, 0x73, 0x00, 0x00, 0x02];

/// The interface.
#[derive(Debug)]
pub struct HostInterface {
    /// File descriptor of the TAP.
    pub port: Arc<PortFd>,
    /// Name of the interface.
    pub name: String,
    /// Index of the interface.
    pub ifindex: u32,
    /// A former daemon made it.
    pub is_former: bool,
}

impl HostInterface {
    /// The TAP of a former daemon, with what it has, or a new one without addresses and routes. `left`
    /// is its descriptor, if somebody kept that.
    ///
    /// # Errors
    /// If its name or one of the cluster's prefixes is taken, or the kernel refuses.
    pub fn open(
        netlink: &mut Netlink,
        host: &config::HostSettings,
        config: &Config,
        left: Option<PortFd>,
    ) -> Result<Self> {
        let name = &host.interface;
        let failed = |source| Error::Host { interface: name.clone(), source };
        // Where others' routes are followed, theirs stand beside ours.
        let is_alone = config.kernel_routes.is_none();
        if is_alone && let Some(taken) = taken_prefix(&config.node.cluster_prefixes, name) {
            return Err(Error::HostTaken(taken));
        }
        match netlink.link(name).map_err(failed)? {
            None => Self::make(netlink, name),
            Some(link) if is_ours(&link) => {
                let port = left.map_or_else(|| PortFd::reattach_tap(name), Ok);
                let port =
                    port.map_err(|source| Error::HostTap { interface: name.clone(), source })?;
                let (port, name) = (Arc::new(port), name.clone());
                // An earlier version made it.
                if link.tx_queue_packets != QUEUE_PACKETS {
                    netlink.set_tx_queue(link.index, QUEUE_PACKETS).map_err(failed)?;
                }
                Ok(Self { port, name, ifindex: link.index, is_former: true })
            }
            Some(_) => Err(Error::HostTaken(format!(
                "there is an interface {name} already, which is not ours; give ours another host.interface"
            ))),
        }
    }

    /// Makes the TAP where nothing stands in its way, or where it was removed.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn make(netlink: &mut Netlink, name: &str) -> Result<Self> {
        let failed = |source| Error::Host { interface: name.to_owned(), source };
        let port = PortFd::create_tap(name)
            .map_err(|source| Error::HostTap { interface: name.to_owned(), source })?;
        let link = netlink.link(name).map_err(failed)?;
        let link = link.ok_or_else(|| {
            Error::HostTaken(format!("the interface {name} was removed while it was set up"))
        })?;
        netlink.set_tx_queue(link.index, QUEUE_PACKETS).map_err(failed)?;
        netlink.set_mac(link.index, MAC).map_err(failed)?;
        let (port, name) = (Arc::new(port), name.to_owned());
        Ok(Self { port, name, ifindex: link.index, is_former: false })
    }

    /// Has the interface outlive the daemon.
    ///
    /// # Errors
    /// If it was removed meanwhile.
    pub fn keep(&self) -> Result<()> {
        let failed = |source| Error::HostTap { interface: self.name.clone(), source };
        self.port.set_persistent(true).map_err(failed)
    }

    /// Whether the kernel still has the interface.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn exists(&self, netlink: &mut Netlink) -> netlink::Result<bool> {
        Ok(netlink.link_by_index(self.ifindex)?.is_some())
    }

    /// What the kernel has of it. Addresses outside of the cluster belong to others.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn actual(
        &self,
        netlink: &mut Netlink,
        cluster: &[IpNet],
    ) -> netlink::Result<HostPortState> {
        let link = netlink.link_by_index(self.ifindex)?;
        let is_ours = |address: &IpAddr| cluster.iter().any(|prefix| prefix.contains(address));
        let addresses = netlink.addresses(self.ifindex)?.into_iter();
        let deprecated = netlink.deprecated_addresses(self.ifindex)?;
        let neighbors = netlink.neighbors(self.ifindex)?.into_iter().filter(|neighbor| {
            neighbor.mac == Some(Gateway::MAC.0) && neighbor.state == NudState::Permanent
        });
        let ours = RouteFilter { table: Some(MAIN_TABLE), protocol: Some(ROUTE_PROTOCOL) };
        let routes = netlink.routes(ours)?;
        let routes_localnet = link.as_ref().is_some_and(|link| link.routes_localnet);
        Ok(HostPortState {
            is_up: link.as_ref().is_some_and(|link| link.up),
            mtu: link.map_or(0, |link| link.mtu),
            addresses: addresses.map(|(address, _)| address).filter(is_ours).collect(),
            deprecated: deprecated.into_iter().filter(|one| is_ours(&IpAddr::V6(*one))).collect(),
            neighbors: neighbors.map(|neighbor| neighbor.ip).collect(),
            routes: routes.iter().filter_map(|route| self.plain(route)).collect(),
            routes_localnet,
        })
    }

    /// Leads the kernel from what it has to what it is to have; what had to be done for that. What
    /// cannot be done stands in the way of nothing else.
    ///
    /// # Errors
    /// If the kernel does not answer, or refuses: the first refusal.
    pub fn settle(
        &self,
        netlink: &mut Netlink,
        wanted: &HostPortState,
        cluster: &[IpNet],
    ) -> netlink::Result<Vec<HostPortRepair>> {
        let repairs = wanted.repairs(&self.actual(netlink, cluster)?);
        let mut refusal = None;
        let mut done = Vec::new();
        for repair in repairs {
            match self.repair(netlink, &repair) {
                Ok(()) => done.push(repair),
                Err(error) => {
                    tracing::debug!("host port {}: {}", self.name, chain(&error));
                    refusal.get_or_insert(error);
                }
            }
        }
        refusal.map_or(Ok(done), Err)
    }

    fn repair(&self, netlink: &mut Netlink, repair: &HostPortRepair) -> netlink::Result<()> {
        match repair {
            HostPortRepair::SetUp => netlink.set_up(self.ifindex),
            HostPortRepair::SetMtu(mtu) => netlink.set_mtu(self.ifindex, *mtu),
            HostPortRepair::SetRouteLocalnet(routes) => {
                netlink.set_route_localnet(self.ifindex, *routes)
            }
            HostPortRepair::AddAddress(address) => {
                netlink.add_address(self.ifindex, (*address, host_len(*address)))
            }
            HostPortRepair::MoveBehind(address) => {
                let address = (IpAddr::V4(*address), host_len(IpAddr::V4(*address)));
                netlink.delete_address(self.ifindex, address)?;
                netlink.add_address(self.ifindex, address)
            }
            HostPortRepair::Deprecate(address) => {
                netlink.deprecate_address(self.ifindex, (*address, host_len(IpAddr::V6(*address))))
            }
            HostPortRepair::Prefer(address) => {
                let address = IpAddr::V6(*address);
                netlink.add_address(self.ifindex, (address, host_len(address)))
            }
            HostPortRepair::SetNeighbor(address) => {
                netlink.replace_neighbor(self.ifindex, *address, Gateway::MAC.0)
            }
            HostPortRepair::SetRoute(route) => netlink.replace_route(&self.route(route)),
            HostPortRepair::DeleteRoute(route) => {
                netlink.delete_route(&self.route(route)).map(drop)
            }
            HostPortRepair::DeleteAddress(address) => {
                netlink.delete_address(self.ifindex, (*address, host_len(*address))).map(drop)
            }
        }
    }

    fn route(&self, route: &HostRoute) -> Route {
        let prefix = route.prefix();
        let destination = (prefix.network(), prefix.prefix_len());
        match route {
            HostRoute::ByPort { source, .. } => Route {
                gateway: Some(host_port::next_hop(prefix.addr().is_ipv4())),
                source: Some(*source),
                metric: Some(route.metric()),
                ..Route::unicast(destination, self.ifindex)
            },
            HostRoute::Unreachable { .. } => {
                Route { metric: Some(route.metric()), ..Route::unreachable(destination) }
            }
        }
    }

    /// A route of ours as the control plane has it; `None` if it is not one that it would make.
    fn plain(&self, route: &Route) -> Option<HostRoute> {
        let (network, len) = route.destination;
        let prefix = IpNet::new(network, len).ok()?;
        let plain = match route.kind {
            FibRouteKind::Unicast => HostRoute::ByPort { prefix, source: route.source? },
            FibRouteKind::Unreachable => HostRoute::Unreachable { prefix },
            _ => return None,
        };
        (route.metric == Some(plain.metric()) && (route.gateway, route.oif) == self.way(&plain))
            .then_some(plain)
    }

    fn way(&self, route: &HostRoute) -> (Option<IpAddr>, Option<u32>) {
        let Route { gateway, oif, .. } = self.route(route);
        (gateway, oif)
    }
}

/// Removes the port, and the `unreachable` routes that stay when it goes: the operator drains the node.
///
/// # Errors
/// If the kernel does not answer, or refuses.
pub fn remove(netlink: &mut Netlink, host: &HostInterface) -> netlink::Result<()> {
    netlink.delete_link(host.ifindex)?;
    failpoint::pass("drain-host-link");
    let ours = RouteFilter { table: Some(MAIN_TABLE), protocol: Some(ROUTE_PROTOCOL) };
    for route in netlink.routes(ours)? {
        if route.kind == FibRouteKind::Unreachable {
            netlink.delete_route(&route)?;
        }
    }
    Ok(())
}

fn host_len(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether a daemon made the interface for its node: a TAP with the MAC that no other has.
fn is_ours(link: &Link) -> bool {
    link.kind.as_deref() == Some("tun") && link.mac == Some(MAC)
}

/// Removes host ports of another name than the one that is wanted: a former configuration's.
///
/// # Errors
/// If the kernel does not answer, or refuses.
pub fn remove_others(netlink: &mut Netlink, wanted: Option<&str>) -> netlink::Result<()> {
    for link in netlink.links()? {
        if is_ours(&link) && Some(link.name.as_str()) != wanted {
            tracing::info!("removing the former host port {}", link.name);
            netlink.delete_link(link.index)?;
        }
    }
    Ok(())
}

/// A kernel route of one of the prefixes by another interface than ours: two routes of equal length
/// would hide one another.
fn taken_prefix(prefixes: &[IpNet], ours: &str) -> Option<String> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let routes = v4.lines().filter_map(ipv4_route).chain(v6.lines().filter_map(ipv6_route));
    let taken: Vec<_> = routes
        .filter(|(prefix, interface)| prefixes.contains(prefix) && interface != ours)
        .collect();
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
    let interface = *fields.first()?;
    // It leads nowhere: ours, which stays when a daemon ends.
    (interface != "*").then(|| (net.into(), interface.to_owned()))
}

/// A line of /proc/net/ipv6_route: destination, its length, ..., interface last.
fn ipv6_route(line: &str) -> Option<(IpNet, String)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let address = Ipv6Addr::from_bits(u128::from_str_radix(fields.first()?, 16).ok()?);
    let len = u8::from_str_radix(fields.get(1)?, 16).ok()?;
    let interface = *fields.last()?;
    // The kernel's own unreachable entries are no routes.
    if interface == "lo" {
        return None;
    }
    Some((Ipv6Net::new(address, len).ok()?.into(), interface.to_owned()))
}

/// The setting by which the kernel forwards IPv6.
pub const FORWARDING_IPV6: &str = "net.ipv6.conf.all.forwarding";

/// The settings by which the kernel forwards what these pods exchange with the world, one a family.
pub fn forwarding(pods: &PodPrefixes) -> impl Iterator<Item = &'static str> {
    let of = |is_v4: bool, name| pods.has_family(is_v4).then_some(name);
    let v4 = of(true, "net.ipv4.ip_forward");
    v4.into_iter().chain(of(false, FORWARDING_IPV6))
}

/// What pods lack while a setting of [`forwarding`] is 0, and the cure: other commands, and the one for it.
#[must_use]
pub fn not_forwarding(name: &str, before: &[String]) -> String {
    let last = format!("sysctl -w {name}=1");
    let commands: Vec<_> = before.iter().chain([&last]).map(|one| format!("`{one}`")).collect();
    let commands = commands.join(" and then ");
    format!("pods do not reach the world outside: {name} is 0; run {commands}")
}

/// Why the interface takes no IPv6 address, if that is by a setting, and the cure.
#[must_use]
pub fn without_ipv6(interface: &str) -> Option<String> {
    let own = no_ipv6(interface);
    let names = [no_ipv6("all"), no_ipv6("default"), own.clone()];
    let set: Vec<_> = names.iter().filter(|name| sysctl::read(name) == Some(1)).collect();
    if !set.contains(&&own) {
        return None;
    }
    let are: Vec<_> = set.iter().map(|name| format!("{name} is 1")).collect();
    let cures: Vec<_> = set.iter().map(|name| format!("{name}=0")).collect();
    Some(format!(
        "IPv6 is switched off on {interface} ({}); run `sysctl -ew {}` and keep that in /etc/sysctl.d, or give the node no IPv6 prefixes for pods",
        are.join(", "),
        cures.join(" ")
    ))
}

/// The setting by which an interface has no IPv6.
#[must_use]
pub fn no_ipv6(interface: &str) -> String {
    sysctl::of_interface("ipv6", interface, "disable_ipv6")
}

/// Why the node does not hear some pods, and the cure.
#[must_use]
pub fn strict_host_warning(pods: &PodPrefixes, interface: &str) -> Option<String> {
    (pods.has_family(true) && is_strict(interface)).then(|| format!(
        "the kernel checks strictly who may come by {interface} (rp_filter is 1): pods with an address outside of the cluster prefixes, which only a delegated IPAM gives, do not reach the node; run `sysctl -w {}=2` if there are any",
        rp_filter(interface)
    ))
}

/// Why the kernel drops what peers' pods send to this node's own address, where that comes without
/// encapsulation: it routes them by the host port, and looks strictly at where they come from.
#[must_use]
pub fn strict_uplink_warning(uplink: &str) -> Option<String> {
    is_strict(uplink).then(|| format!(
        "the kernel checks strictly who may come by {uplink} (rp_filter is 1): pods of peers that are reached without encapsulation do not reach this node's own address; run `sysctl -w {}=2`",
        rp_filter(uplink)
    ))
}

/// The larger of the two settings is in force.
fn is_strict(interface: &str) -> bool {
    let conf = |name| sysctl::read(&rp_filter(name));
    conf("all").max(conf(interface)) == Some(1)
}

fn rp_filter(interface: &str) -> String {
    sysctl::of_interface("ipv4", interface, "rp_filter")
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
