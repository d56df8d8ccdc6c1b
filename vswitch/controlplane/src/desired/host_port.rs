//! The node's own port, as the kernel is to have it.
//!
//! Enters: the configuration, the node's pod prefixes, the pods' MTU. Leaves: a [`HostPortState`],
//! and what has to be done to a kernel that has something else. `vswitchd` reads what the kernel
//! has, and does it.
//!
//! The kernel routes the cluster's prefixes to the port, from an address that the other nodes route
//! back. Beside each of these routes stands an `unreachable` one of a higher metric: it stays when
//! the port goes with its daemon, so that pods' addresses never leave the node by its default route.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Translations;
use crate::kernel::HOST_METRIC;
use crate::model::PodPrefixes;
use crate::own_address::{v4, v6};

/// The next hops of the kernel's routes: link-local, permanent neighbours with the gateway's MAC.
/// Their addresses mean nothing beyond this interface.
pub const NEXT_HOP_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 118, 1);
/// As [`NEXT_HOP_V4`].
pub const NEXT_HOP_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x7673, 1);

/// Metric of the routes that remain without the port: behind whatever else leads there.
pub const UNREACHABLE_METRIC: u32 = 4_000_000_000;

/// What the kernel has, or is to have, of the port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPortState {
    /// The interface is up.
    pub is_up: bool,
    /// MTU of the interface, bytes.
    pub mtu: u32,
    /// Addresses, each with the length of its family: the gateways of the pod prefixes, and before them
    /// those by which the kernel masquerades. Of IPv4 that is the first.
    pub addresses: Vec<IpAddr>,
    /// Addresses of IPv6 that are deprecated (RFC 4862): the kernel masquerades by another.
    pub deprecated: BTreeSet<Ipv6Addr>,
    /// Permanent neighbours with the gateway's MAC.
    pub neighbors: BTreeSet<IpAddr>,
    /// Routes of ours.
    pub routes: BTreeSet<HostRoute>,
    /// Packets from 127.0.0.0/8 may leave by the interface, and their answers come by it: a hostPort
    /// is to be reached by the node's loopback address. No packet of a pod comes from or to such an
    /// address: the datapath drops it.
    pub routes_localnet: bool,
}

/// A route that vswitchd gives the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostRoute {
    /// A route to pods, by the port.
    ByPort {
        /// Destination.
        prefix: IpNet,
        /// The address that the node's own packets have.
        source: IpAddr,
    },
    /// Nowhere, if nothing else leads there.
    Unreachable {
        /// Destination.
        prefix: IpNet,
    },
}

impl fmt::Display for HostPortRepair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetUp => f.write_str("it was down"),
            Self::SetMtu(mtu) => write!(f, "its MTU was not {mtu}"),
            Self::AddAddress(address) => write!(f, "it lacked the address {address}"),
            Self::MoveBehind(address) => {
                write!(f, "the address {address} stood before the one to masquerade by")
            }
            Self::Deprecate(address) => write!(f, "the address {address} was not deprecated"),
            Self::Prefer(address) => write!(f, "the address {address} was deprecated"),
            Self::SetNeighbor(address) => write!(f, "it lacked the neighbour {address}"),
            Self::SetRoute(HostRoute::ByPort { prefix, .. }) => {
                write!(f, "the route to {prefix} was missing or another")
            }
            Self::SetRoute(HostRoute::Unreachable { prefix }) => {
                write!(f, "the unreachable route to {prefix} was missing")
            }
            Self::DeleteRoute(route) => write!(f, "there was a route to {}", route.prefix()),
            Self::DeleteAddress(address) => write!(f, "it had the address {address}"),
            Self::SetRouteLocalnet(true) => f.write_str("its route_localnet was 0"),
            Self::SetRouteLocalnet(false) => f.write_str("its route_localnet was 1"),
        }
    }
}

/// One step from what the kernel has to what it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPortRepair {
    /// The interface is to be up.
    SetUp,
    /// The interface is to have this MTU.
    SetMtu(u32),
    /// An address is missing.
    AddAddress(IpAddr),
    /// An IPv4 address stands before the first one that is wanted. It has to be taken away for a moment,
    /// and the routes that come from it go with it.
    MoveBehind(Ipv4Addr),
    /// An IPv6 address is to be masqueraded by no more.
    Deprecate(Ipv6Addr),
    /// An IPv6 address is to be used like any other.
    Prefer(Ipv6Addr),
    /// A neighbour is missing, or has another MAC.
    SetNeighbor(IpAddr),
    /// A route is missing, or leads elsewhere.
    SetRoute(HostRoute),
    /// A route is too many.
    DeleteRoute(HostRoute),
    /// An address is too many.
    DeleteAddress(IpAddr),
    /// Packets from loopback addresses are to pass, or not to.
    SetRouteLocalnet(bool),
}

impl HostPortState {
    /// For a node with these prefixes. Where others write routes too (`is_shared`), the halves of the
    /// node's own prefixes are routed besides: a routing daemon drops what no pod of its node has by a
    /// route of its own to the whole of the node's prefix, and the halves are longer. Loopback addresses
    /// pass where a port of the node that leads to a pod includes them.
    #[must_use]
    pub fn of(
        cluster: &[IpNet],
        pods: &PodPrefixes,
        mtu: u32,
        is_shared: bool,
        ports: &Translations,
    ) -> Self {
        let halves = pods.all().filter(|_| is_shared);
        let halves = halves.filter_map(|own| own.subnets(own.prefix_len() + 1).ok()).flatten();
        let mut state = Self { is_up: true, mtu, ..Self::default() };
        for prefix in cluster.iter().copied().chain(halves) {
            let is_v4 = prefix.addr().is_ipv4();
            // Without a pod prefix of its family the node has no address that pods could answer.
            let source = pods.gateways().find(|gateway| gateway.is_ipv4() == is_v4);
            if let Some(source) = source {
                state.routes.insert(HostRoute::ByPort { prefix, source });
                state.routes.insert(HostRoute::Unreachable { prefix });
            }
        }
        state.routes_localnet = ports.keys().any(|port| port.is_v4 && port.includes_loopback());
        state.addresses = pods.own_addresses().collect();
        let has_other = pods.masquerade().iter().any(IpAddr::is_ipv6);
        state.deprecated = pods.gateways().filter(|_| has_other).filter_map(v6).collect();
        state.neighbors = pods.gateways().map(|gateway| next_hop(gateway.is_ipv4())).collect();
        state
    }

    /// What both have, with the MTU and the routes' sources of `wanted`: while a change is under way.
    #[must_use]
    pub fn widened(&self, wanted: &Self) -> Self {
        let mut wide = wanted.clone();
        // Behind those that are there: none is moved for a while.
        wide.addresses = self.addresses.clone();
        wide.addresses.extend(wanted.addresses.iter().filter(|new| !self.addresses.contains(new)));
        wide.deprecated.extend(&self.deprecated);
        wide.neighbors.extend(&self.neighbors);
        wide.routes_localnet |= self.routes_localnet;
        let is_other =
            |route: &&HostRoute| !wanted.routes.iter().any(|new| new.is_in_place_of(route));
        wide.routes.extend(self.routes.iter().filter(is_other).cloned());
        wide
    }

    /// What has to be done to a kernel that has `actual`, in order: nothing is taken away before
    /// what replaces it is there, and an address after the routes that come from it.
    #[must_use]
    pub fn repairs(&self, actual: &Self) -> Vec<HostPortRepair> {
        let mut repairs = Vec::new();
        if self.mtu != actual.mtu {
            repairs.push(HostPortRepair::SetMtu(self.mtu));
        }
        if self.is_up && !actual.is_up {
            repairs.push(HostPortRepair::SetUp);
        }
        if self.routes_localnet != actual.routes_localnet {
            repairs.push(HostPortRepair::SetRouteLocalnet(self.routes_localnet));
        }
        let missing = self.addresses.iter().filter(|one| !actual.addresses.contains(one));
        repairs.extend(missing.copied().map(HostPortRepair::AddAddress));
        let behind = self.to_move_behind(actual);
        repairs.extend(behind.iter().copied().map(HostPortRepair::MoveBehind));
        let missing = self.deprecated.difference(&actual.deprecated);
        repairs.extend(missing.copied().map(HostPortRepair::Deprecate));
        let extra = actual.deprecated.difference(&self.deprecated);
        let extra = extra.filter(|one| self.addresses.contains(&IpAddr::V6(**one)));
        repairs.extend(extra.copied().map(HostPortRepair::Prefer));
        let missing = self.neighbors.difference(&actual.neighbors);
        repairs.extend(missing.copied().map(HostPortRepair::SetNeighbor));
        let goes = |route: &HostRoute| matches!(route, HostRoute::ByPort { source: IpAddr::V4(from), .. } if behind.contains(from));
        let missing = self.routes.iter().filter(|one| !actual.routes.contains(one) || goes(one));
        repairs.extend(missing.cloned().map(HostPortRepair::SetRoute));
        let replaced = |old: &&HostRoute| self.routes.iter().any(|new| new.is_in_place_of(old));
        let extra = actual.routes.difference(&self.routes).filter(|old| !replaced(old));
        repairs.extend(extra.cloned().map(HostPortRepair::DeleteRoute));
        let extra = actual.addresses.iter().filter(|one| !self.addresses.contains(one));
        repairs.extend(extra.copied().map(HostPortRepair::DeleteAddress));
        repairs
    }

    /// The addresses of IPv4 that stay, and stand before the first one that is wanted.
    fn to_move_behind(&self, actual: &Self) -> Vec<Ipv4Addr> {
        let Some(first) = self.addresses.iter().copied().find_map(v4) else { return Vec::new() };
        let stay = actual.addresses.iter().filter(|one| self.addresses.contains(one));
        stay.copied().filter_map(v4).take_while(|address| *address != first).collect()
    }
}

impl HostRoute {
    /// Destination.
    #[must_use]
    pub fn prefix(&self) -> IpNet {
        match self {
            Self::ByPort { prefix, .. } | Self::Unreachable { prefix } => *prefix,
        }
    }

    /// Metric in the kernel's table.
    #[must_use]
    pub fn metric(&self) -> u32 {
        match self {
            Self::ByPort { .. } => HOST_METRIC,
            Self::Unreachable { .. } => UNREACHABLE_METRIC,
        }
    }

    /// Whether the kernel, given this route, puts it in place of the other.
    fn is_in_place_of(&self, other: &Self) -> bool {
        (self.prefix(), self.metric()) == (other.prefix(), other.metric())
    }
}

/// The next hop of the port's routes of a family.
#[must_use]
pub fn next_hop(is_v4: bool) -> IpAddr {
    if is_v4 { NEXT_HOP_V4.into() } else { NEXT_HOP_V6.into() }
}
