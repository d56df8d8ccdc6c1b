//! How the kernel reaches the other nodes.
//!
//! Enters: underlay addresses of peers and VTEPs; changes that the kernel announces. Leaves: for
//! each the MAC of the next hop, or why there is none, to `compile`. We never ARP on the NIC: the
//! kernel's routes and neighbours are asked, and the kernel is asked to resolve and to confirm.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane::wire::MacAddr;
use netio::netlink::{Event, Neighbor, NeighborState, Netlink};

/// The kernel's way to one underlay address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NextHop {
    /// The router, or the address itself on the same link.
    pub via: Option<IpAddr>,
    /// Its MAC, once resolved.
    pub mac: Option<MacAddr>,
    /// The state of the kernel's neighbour entry.
    pub neighbor: Option<NeighborState>,
    /// Why packets cannot be sent there now.
    pub problem: Option<String>,
}

impl NextHop {
    /// A next hop that is ready.
    #[must_use]
    pub fn resolved(mac: MacAddr) -> Self {
        Self { mac: Some(mac), ..Self::default() }
    }
}

/// Watches the underlay on one interface.
pub struct Underlay {
    netlink: Netlink,
    interface: String,
    ifindex: u32,
    hops: BTreeMap<IpAddr, NextHop>,
    /// Addresses whose loss was logged.
    lost: BTreeSet<IpAddr>,
}

impl Underlay {
    /// Nothing looked up yet.
    #[must_use]
    pub fn new(netlink: Netlink, interface: &str, ifindex: u32) -> Self {
        Self {
            netlink,
            interface: interface.to_owned(),
            ifindex,
            hops: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }

    /// What was found at the last refresh.
    #[must_use]
    pub fn next_hops(&self) -> &BTreeMap<IpAddr, NextHop> {
        &self.hops
    }

    /// Asks the kernel anew, has it resolve what it does not know and confirm what it has not for
    /// a while. True if forwarding is to change.
    pub fn refresh(&mut self, wanted: &BTreeSet<IpAddr>) -> bool {
        let fresh: BTreeMap<_, _> =
            wanted.iter().map(|address| (*address, self.look_up(*address))).collect();
        let forwarding = |hops: &BTreeMap<IpAddr, NextHop>| {
            hops.iter().map(|(address, hop)| (*address, hop.via, hop.mac)).collect::<Vec<_>>()
        };
        for (address, hop) in &fresh {
            self.log(*address, hop);
        }
        let changed = forwarding(&fresh) != forwarding(&self.hops);
        self.hops = fresh;
        changed
    }

    /// Once when an address is lost, once when it is back: a dead one is asked for every few seconds.
    fn log(&mut self, address: IpAddr, hop: &NextHop) {
        match &hop.problem {
            // Most are resolved in no time; those that are not are lost at the next look.
            Some(_)
                if hop.neighbor.is_none_or(|state| state != NeighborState::Failed)
                    && hop.via.is_some() => {}
            Some(problem) => {
                if self.lost.insert(address) {
                    tracing::warn!(%address, "underlay: {problem}");
                }
            }
            None => {
                if self.lost.remove(&address) || !self.hops.contains_key(&address) {
                    tracing::info!(%address, "underlay: reachable");
                }
            }
        }
    }

    /// Whether what the kernel announces may change a next hop.
    #[must_use]
    pub fn concerns(&self, event: &Event) -> bool {
        let is_hop = |neighbor: &Neighbor| {
            neighbor.ifindex == self.ifindex
                && self.hops.values().any(|hop| hop.via == Some(neighbor.ip))
        };
        match event {
            Event::NeighborChanged(neighbor) | Event::NeighborGone(neighbor) => is_hop(neighbor),
            Event::LinkChanged(link) | Event::LinkGone(link) => link.index == self.ifindex,
            Event::AddressChanged { ifindex, .. } => *ifindex == self.ifindex,
            Event::RouteChanged(..)
            | Event::RouteGone(_)
            | Event::NextHopsChanged
            | Event::Overrun => true,
        }
    }

    /// Whether our interface has this address. If the kernel does not answer, as far as we know.
    pub fn has_address(&mut self, address: IpAddr) -> bool {
        match self.netlink.addresses(self.ifindex) {
            Ok(addresses) => addresses.iter().any(|(has, _)| *has == address),
            Err(error) => {
                tracing::error!("{}", crate::error::chain(&error));
                true
            }
        }
    }

    fn look_up(&mut self, address: IpAddr) -> NextHop {
        match self.ask(address) {
            Ok(hop) => hop,
            Err(error) => NextHop {
                problem: Some(format!(
                    "the kernel did not answer: {}",
                    crate::error::chain(&error)
                )),
                ..NextHop::default()
            },
        }
    }

    fn ask(&mut self, address: IpAddr) -> netio::Result<NextHop> {
        let unreachable =
            |problem: String| NextHop { problem: Some(problem), ..NextHop::default() };
        let Some(route) = self.netlink.route_to(address)? else {
            return Ok(unreachable(format!("the kernel has no route to {address}")));
        };
        if route.local {
            return Ok(unreachable(format!("{address} is this node itself")));
        }
        if route.oif != self.ifindex {
            let other = self.netlink.link_by_index(route.oif)?;
            let other = other.map_or_else(|| format!("interface {}", route.oif), |link| link.name);
            return Ok(unreachable(format!(
                "the kernel routes {address} by {other}, not by the uplink {}",
                self.interface
            )));
        }
        let via = match route.gateway {
            None => address,
            // An IPv6 router may lead to an IPv4 address (RFC 5549): a next hop is its MAC alone.
            Some(gateway) => gateway,
        };
        let neighbor = self.netlink.neighbor(self.ifindex, via)?;
        let state = neighbor.map(|neighbor| neighbor.state);
        let is_settled = matches!(
            state,
            Some(
                NeighborState::Reachable
                    | NeighborState::Permanent
                    | NeighborState::Noarp
                    | NeighborState::Delay
                    | NeighborState::Probe
                    | NeighborState::Incomplete
            )
        );
        if !is_settled {
            self.netlink.resolve(self.ifindex, via)?;
        }
        let mac = neighbor
            .filter(|neighbor| neighbor.state.is_usable())
            .and_then(|neighbor| neighbor.mac)
            .map(MacAddr);
        let problem = match (mac, state) {
            (Some(_), _) => None,
            (None, Some(NeighborState::Failed)) => Some(format!(
                "the next hop {via} does not answer {} on {}",
                resolution(via),
                self.interface
            )),
            (None, _) => Some(format!("the kernel is resolving the next hop {via}")),
        };
        Ok(NextHop { via: Some(via), mac, neighbor: state, problem })
    }
}

/// The protocol by which the kernel asks for a MAC.
fn resolution(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ARP",
        IpAddr::V6(_) => "neighbour discovery",
    }
}
