//! The node's kernel, as far as the daemon changes it or asks it.
//!
//! Enters: desired states, and what others do to it. Leaves: what it has. What goes with a process
//! goes here too: the host port with its addresses and routes, and the program on the NIC.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use controlplane::desired::{HostPortRepair, HostPortState, HostRoute, NftTable, Steering};
use controlplane::kernel::KernelRoute;
use controlplane::next_hop::{NextHop, NextHops, Reach};
use controlplane::plane::UplinkLink;
use dataplane::wire::MacAddr;

/// Below this an interface has no IPv6: RFC 8200 section 5.
const LEAST_IPV6: u32 = 1280;

/// How much of an action is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Half,
    Whole,
}

/// The NIC.
#[derive(Debug, Clone)]
pub(crate) struct Nic {
    pub(crate) link: UplinkLink,
    /// They all last.
    pub(crate) addresses: Vec<IpAddr>,
    /// Something of the link that was announced, and not acted upon yet.
    pub(crate) is_announced: bool,
}

/// What the kernel has.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The host port while there is one, with the routes by it.
    host_port: Option<HostPortState>,
    /// Routes that stay without it.
    unreachable: BTreeSet<HostRoute>,
    pub(crate) nft_table: Option<NftTable>,
    /// What the program on the NIC takes, while there is one.
    pub(crate) steering: Option<Steering>,
    pub(crate) nic: Nic,
    /// The routing table that others write.
    pub(crate) routes: Vec<KernelRoute>,
    /// How it reaches underlay addresses.
    pub(crate) ways: BTreeMap<IpAddr, NextHop>,
    /// As they were looked up last.
    next_hops: NextHops,
}

impl Kernel {
    pub(crate) fn new() -> Self {
        let link =
            UplinkLink { name: "eth0".into(), mac: Some(MacAddr([2, 0, 0, 0, 0, 1])), mtu: 1500 };
        let addresses = vec![[198, 51, 100, 11].into()];
        Self {
            host_port: None,
            unreachable: BTreeSet::new(),
            nft_table: None,
            steering: None,
            nic: Nic { link, addresses, is_announced: false },
            routes: Vec::new(),
            ways: BTreeMap::new(),
            next_hops: NextHops::default(),
        }
    }

    /// A process makes the host port, without addresses and routes.
    pub(crate) fn make_host_port(&mut self) {
        self.host_port = Some(HostPortState { mtu: 1500, ..HostPortState::default() });
    }

    /// The process has ended, however it did.
    pub(crate) fn process_is_gone(&mut self) {
        (self.host_port, self.steering) = (None, None);
        self.next_hops = NextHops::default();
    }

    /// The process has ended in order: it takes along what would stay of a killed one.
    pub(crate) fn process_has_cleared_up(&mut self) {
        self.unreachable.clear();
        self.nft_table = None;
    }

    /// What there is of the host port; nothing without one.
    pub(crate) fn host_port(&self) -> Option<HostPortState> {
        let mut actual = self.host_port.clone()?;
        actual.routes.extend(self.unreachable.iter().cloned());
        Some(actual)
    }

    /// Does what has to be done to have the host port as wanted. What cannot be done stands in the
    /// way of nothing else.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(crate) fn settle(&mut self, wanted: &HostPortState, extent: Extent) -> Result<(), String> {
        let Some(actual) = self.host_port() else { return Ok(()) };
        let repairs = wanted.repairs(&actual);
        let count = match extent {
            Extent::Half => repairs.len() / 2,
            Extent::Whole => repairs.len(),
        };
        let refusals: Vec<_> =
            repairs.iter().take(count).filter_map(|repair| self.repair(repair).err()).collect();
        refusals.into_iter().next().map_or(Ok(()), Err)
    }

    fn repair(&mut self, repair: &HostPortRepair) -> Result<(), String> {
        let Some(port) = &mut self.host_port else { return Ok(()) };
        match repair {
            HostPortRepair::SetUp => port.is_up = true,
            HostPortRepair::SetMtu(mtu) => {
                port.mtu = *mtu;
                if *mtu < LEAST_IPV6 {
                    port.addresses.retain(IpAddr::is_ipv4);
                    port.deprecated.clear();
                    port.neighbors.retain(IpAddr::is_ipv4);
                    port.routes.retain(|route| route.prefix().addr().is_ipv4());
                }
            }
            HostPortRepair::SetRouteLocalnet(routes) => port.routes_localnet = *routes,
            HostPortRepair::AddAddress(address) if address.is_ipv6() && port.mtu < LEAST_IPV6 => {
                return Err(format!("no IPv6 address {address} on a port of {} bytes", port.mtu));
            }
            HostPortRepair::AddAddress(address) => {
                if !port.addresses.contains(address) {
                    port.addresses.push(*address);
                }
            }
            HostPortRepair::MoveBehind(address) => {
                lose_address(port, IpAddr::V4(*address));
                port.addresses.push(IpAddr::V4(*address));
            }
            HostPortRepair::Deprecate(address) | HostPortRepair::Prefer(address)
                if !port.addresses.contains(&IpAddr::V6(*address)) =>
            {
                return Err(format!("no address {address}, whose lifetime could change"));
            }
            HostPortRepair::Deprecate(address) => drop(port.deprecated.insert(*address)),
            HostPortRepair::Prefer(address) => drop(port.deprecated.remove(address)),
            HostPortRepair::SetNeighbor(address) => drop(port.neighbors.insert(*address)),
            HostPortRepair::SetRoute(HostRoute::ByPort { source, .. })
                if !port.is_up || !port.addresses.contains(source) =>
            {
                return Err(format!("no route from {source}, which no port has that is up"));
            }
            HostPortRepair::SetRoute(route) => {
                let routes = match route {
                    HostRoute::ByPort { .. } => &mut port.routes,
                    HostRoute::Unreachable { .. } => &mut self.unreachable,
                };
                routes.retain(|other| other.prefix() != route.prefix());
                routes.insert(route.clone());
            }
            HostPortRepair::DeleteRoute(route) => {
                port.routes.remove(route);
                self.unreachable.remove(route);
            }
            HostPortRepair::DeleteAddress(address) => {
                lose_address(port, *address);
            }
        }
        Ok(())
    }

    /// The ways to these addresses, and whether they are others than at the last look.
    pub(crate) fn look_up(&mut self, ends: &BTreeMap<IpAddr, Reach>) -> (NextHops, bool) {
        let unknown =
            || NextHop { problem: Some("there is no route".into()), ..NextHop::default() };
        let fresh: BTreeMap<_, _> = ends
            .keys()
            .map(|end| (*end, self.ways.get(end).cloned().unwrap_or_else(unknown)))
            .collect();
        let is_different = fresh != *self.next_hops;
        if is_different {
            self.next_hops = Arc::new(fresh);
        }
        (Arc::clone(&self.next_hops), is_different)
    }
}

/// Routes from an address go with it.
fn lose_address(port: &mut HostPortState, address: IpAddr) {
    port.addresses.retain(|one| *one != address);
    port.deprecated.retain(|one| IpAddr::V6(*one) != address);
    let comes_from =
        |route: &HostRoute| matches!(route, HostRoute::ByPort { source, .. } if *source == address);
    port.routes.retain(|route| !comes_from(route));
}
