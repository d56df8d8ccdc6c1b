//! The node's own port, as the kernel is to have it.
//!
//! Enters: the configuration, the node's pod prefixes, the pods' MTU. Leaves: a [`HostPortState`],
//! and what has to be done to a kernel that has something else. `vswitchd` reads what the kernel
//! has, and does it.
//!
//! The kernel routes the cluster's prefixes to the port, from an address that the other nodes route
//! back. Beside each of these routes stands an `unreachable` one of a higher metric: it stays when
//! the port goes with its daemon, so that pods' addresses never leave the node by its default route.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Translations;
use crate::kernel::HOST_METRIC;
use crate::model::PodPrefixes;

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
    /// Addresses, each with the length of its family: the gateways of the pod prefixes.
    pub addresses: BTreeSet<IpAddr>,
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
        state.addresses = pods.gateways().collect();
        state.neighbors = pods.gateways().map(|gateway| next_hop(gateway.is_ipv4())).collect();
        state
    }

    /// What both have, with the MTU and the routes' sources of `wanted`: while a change is under way.
    #[must_use]
    pub fn widened(&self, wanted: &Self) -> Self {
        let mut wide = wanted.clone();
        wide.addresses.extend(&self.addresses);
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
        let missing = self.addresses.difference(&actual.addresses);
        repairs.extend(missing.copied().map(HostPortRepair::AddAddress));
        let missing = self.neighbors.difference(&actual.neighbors);
        repairs.extend(missing.copied().map(HostPortRepair::SetNeighbor));
        let missing = self.routes.difference(&actual.routes);
        repairs.extend(missing.cloned().map(HostPortRepair::SetRoute));
        let replaced = |old: &&HostRoute| self.routes.iter().any(|new| new.is_in_place_of(old));
        let extra = actual.routes.difference(&self.routes).filter(|old| !replaced(old));
        repairs.extend(extra.cloned().map(HostPortRepair::DeleteRoute));
        let extra = actual.addresses.difference(&self.addresses);
        repairs.extend(extra.copied().map(HostPortRepair::DeleteAddress));
        repairs
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ipnet::IpNet;

    use super::{HostPortRepair, HostPortState, HostRoute};
    use crate::config::Config;
    use crate::desired::{NodePort, Translations};
    use crate::model::Model;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|net| net.parse().expect("a prefix")).collect()
    }

    fn state_with(pods: &str, is_shared: bool, ports: &Translations) -> HostPortState {
        let text = format!(
            "[node]\nname = \"a\"\npod_prefixes = [{pods}]\ncluster_prefixes = [\"198.18.0.0/16\", \"fd00:18::/32\"]\n"
        );
        let config = Config::parse("f", &text).unwrap_or_else(|problems| panic!("{problems:?}"));
        let model = Model::new(&config);
        HostPortState::of(&config.node.cluster_prefixes, &model.pods, 1450, is_shared, ports)
    }

    fn state(pods: &str, is_shared: bool) -> HostPortState {
        state_with(pods, is_shared, &Translations::new())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_cluster_is_routed_from_the_gateway_and_unreachable_without_the_port() {
        let state = state("\"198.18.1.0/24\"", false);
        let prefix = nets("198.18.0.0/16")[0];
        let source = address("198.18.1.1");
        assert_eq!(
            state.routes.into_iter().collect::<Vec<_>>(),
            [HostRoute::ByPort { prefix, source }, HostRoute::Unreachable { prefix }],
            "a family without pods has no route"
        );
        assert_eq!(state.addresses, [source].into());
        assert_eq!(state.neighbors, [address("169.254.118.1")].into());
    }

    #[test]
    fn where_others_write_routes_the_halves_of_the_own_prefix_are_routed_too() {
        let state = state("\"198.18.1.0/24\"", true);
        let by_port = state.routes.iter().filter(|route| matches!(route, HostRoute::ByPort { .. }));
        let prefixes: Vec<_> = by_port.map(HostRoute::prefix).collect();
        assert_eq!(prefixes, nets("198.18.0.0/16 198.18.1.0/25 198.18.1.128/25"));
    }

    #[test]
    fn loopback_addresses_pass_while_a_port_includes_them() {
        let to = "198.18.1.2:80".parse().expect("an address");
        let none = state("\"198.18.1.0/24\"", false);
        assert!(!none.routes_localnet);
        let table = [
            (true, None, true),
            (true, Some("127.0.0.1"), true),
            (true, Some("198.51.100.11"), false),
            (false, None, false),
        ];
        for (is_v4, at, routes) in table {
            let protocol = api::TransportProtocol::Tcp;
            let from = NodePort { is_v4, address: at.map(address), protocol, port: 8080 };
            let state = state_with("\"198.18.1.0/24\"", false, &[(from, to)].into());
            assert_eq!(state.routes_localnet, routes, "{from:?}");
            let repairs =
                if routes { vec![HostPortRepair::SetRouteLocalnet(true)] } else { vec![] };
            assert_eq!(state.repairs(&none), repairs);
            assert_eq!(state.widened(&none).routes_localnet, routes, "while it goes");
        }
    }

    #[test]
    fn a_kernel_that_has_it_all_is_left_alone() {
        let wanted = state("\"198.18.1.0/24\", \"fd00:18:1::/64\"", true);
        assert_eq!(wanted.repairs(&wanted), []);
    }

    #[test]
    fn what_replaces_comes_before_what_is_taken_away() {
        let (old, new) = (state("\"198.18.1.0/24\"", false), state("\"198.18.2.0/24\"", false));
        let prefix = nets("198.18.0.0/16")[0];
        let source = address("198.18.2.1");
        assert_eq!(
            new.repairs(&old),
            [
                HostPortRepair::AddAddress(source),
                HostPortRepair::SetRoute(HostRoute::ByPort { prefix, source }),
                HostPortRepair::DeleteAddress(address("198.18.1.1")),
            ]
        );
        let wide = old.widened(&new);
        assert_eq!(wide.addresses, [address("198.18.1.1"), source].into());
        assert_eq!(wide.routes, new.routes, "one route to a prefix, from the new address");
        assert_eq!(new.repairs(&wide), [HostPortRepair::DeleteAddress(address("198.18.1.1"))]);
    }

    #[test]
    fn whatever_is_missing_is_set_and_whatever_is_too_much_deleted() {
        let wanted = state("\"198.18.1.0/24\", \"fd00:18:1::/64\"", false);
        let empty = HostPortState::default();
        let repairs = wanted.repairs(&empty);
        assert_eq!(repairs.len(), 2 + 2 + 2 + 4, "{repairs:?}");
        assert_eq!(repairs[..2], [HostPortRepair::SetMtu(1450), HostPortRepair::SetUp]);
        let repairs = empty.repairs(&wanted);
        assert_eq!(repairs.len(), 1 + 4 + 2, "a neighbour too many harms nobody: {repairs:?}");
        assert!(matches!(repairs.last(), Some(HostPortRepair::DeleteAddress(_))));
    }
}
