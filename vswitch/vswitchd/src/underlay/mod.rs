//! How the kernel reaches the other nodes.
//!
//! Enters: underlay addresses of peers, VTEPs and routers; changes that the kernel announces.
//! Leaves: for each the MAC of the next hop and the route's MTU, or why there is none, to `compile`.
//! We never ARP on the NIC: the kernel's routes and neighbours are asked, and the kernel is asked to
//! resolve and to confirm.
//!
//! There may be thousands. An event touches those alone that it concerns; what the kernel does not
//! announce is found by going round, some of them each second. Peers behind one router share its
//! neighbour entry.
//!
//! | file    | does |
//! |---|---|
//! | `known` | what the kernel has of a neighbour |
//! | `ask`   | asks the kernel for routes and neighbours, and to resolve them |
//! | `round` | picks the next few of many |

mod ask;
mod known;
mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use controlplane::next_hop::{self, NextHop, NextHops, Reach};
use ipnet::IpNet;
use netlink::{KernelEvent, Link, Neighbor, Netlink, NudState};

use known::Known;
use round::next;

/// Every address is looked at again within so many seconds, unless there are too many.
const ROUND_SECONDS: usize = 5;
/// Looked at again in a second, at most: two system calls each.
const LOOKS: usize = 128;
/// Every neighbour in use is asked whether it is still there within so many seconds, unless there
/// are too many: a router's MAC may change without notice.
const CONFIRM_SECONDS: usize = 10;
/// Asked in a second, at most: each is an ARP request.
const PROBES: usize = 64;

/// The route to an address.
#[derive(Debug, Clone)]
struct Way {
    reach: Reach,
    /// The neighbour, or why there is none.
    via: Result<IpAddr, String>,
    mtu: Option<u32>,
}

/// What is to be asked anew.
#[derive(Debug, Default)]
struct Doubts {
    all: bool,
    ways: BTreeSet<IpAddr>,
    neighbors: BTreeSet<IpAddr>,
    /// A neighbour has another state, which is known already.
    states: bool,
}

/// Watches the underlay on one interface.
pub struct Underlay {
    netlink: Netlink,
    interface: String,
    ifindex: u32,
    /// The interface can carry packets.
    is_up: bool,
    ways: BTreeMap<IpAddr, Way>,
    neighbors: BTreeMap<IpAddr, Known>,
    hops: NextHops,
    doubts: Doubts,
    /// How far the rounds have come.
    way_cursor: Option<IpAddr>,
    neighbor_cursor: Option<IpAddr>,
    /// Lost addresses that were logged.
    lost: BTreeSet<IpAddr>,
}

impl Underlay {
    /// Nothing looked up yet.
    #[must_use]
    pub fn new(netlink: Netlink, link: &Link) -> Self {
        Self {
            netlink,
            interface: link.name.clone(),
            ifindex: link.index,
            is_up: can_carry(link),
            ways: BTreeMap::new(),
            neighbors: BTreeMap::new(),
            hops: NextHops::default(),
            doubts: Doubts::default(),
            way_cursor: None,
            neighbor_cursor: None,
            lost: BTreeSet::new(),
        }
    }

    /// What was found at the last refresh.
    #[must_use]
    pub fn next_hops(&self) -> &NextHops {
        &self.hops
    }

    /// The uplink has another name now.
    pub fn rename(&mut self, interface: &str) {
        interface.clone_into(&mut self.interface);
    }

    /// Follows what the kernel announces. True if [`Underlay::refresh`] is to be called soon.
    pub fn on_event(&mut self, event: &KernelEvent) -> bool {
        match event {
            KernelEvent::NeighborChanged(neighbor) => {
                self.on_neighbor(neighbor, Known::of(neighbor))
            }
            KernelEvent::NeighborGone(neighbor) => self.on_neighbor(neighbor, Known::default()),
            KernelEvent::RouteChanged(route, _) | KernelEvent::RouteGone(route) => {
                let (network, len) = route.destination;
                let Ok(prefix) = IpNet::new(network, len) else { return false };
                let within = self.ways.range(prefix.network()..=prefix.broadcast());
                let concerned: Vec<_> = within
                    .filter(|(_, way)| way.reach == Reach::Routed)
                    .map(|(address, _)| *address)
                    .collect();
                self.doubts.ways.extend(&concerned);
                !concerned.is_empty()
            }
            KernelEvent::LinkChanged(link) | KernelEvent::LinkGone(link)
                if link.index != self.ifindex =>
            {
                false
            }
            KernelEvent::AddressChanged { ifindex, .. } if *ifindex != self.ifindex => false,
            KernelEvent::LinkChanged(link) => {
                self.is_up = can_carry(link);
                self.doubts.all = true;
                true
            }
            KernelEvent::LinkGone(_)
            | KernelEvent::AddressChanged { .. }
            | KernelEvent::NextHopsChanged
            | KernelEvent::Overrun => {
                self.doubts.all = true;
                true
            }
        }
    }

    fn on_neighbor(&mut self, neighbor: &Neighbor, fresh: Known) -> bool {
        if neighbor.ifindex != self.ifindex {
            return false;
        }
        let Some(known) = self.neighbors.get_mut(&neighbor.ip) else { return false };
        let old = std::mem::replace(known, fresh);
        self.doubts.states |= old != fresh;
        // What is lost is looked for at once; what stays lost, when its turn comes.
        if fresh.state == Some(NudState::Stale) || (old.mac.is_some() && fresh.mac.is_none()) {
            self.resolve(neighbor.ip);
        }
        old.mac != fresh.mac
    }

    /// Once a second: some are asked again, some are confirmed, and the lost are looked for.
    pub fn go_round(&mut self) {
        let count = (self.ways.len() / ROUND_SECONDS + 1).min(LOOKS);
        let some = next(&self.ways, &mut self.way_cursor, count);
        self.doubts.ways.extend(some);

        let lost = self.neighbors.iter().filter(|(_, known)| !known.is_settled());
        let lost: Vec<_> = lost.map(|(ip, _)| *ip).take(PROBES).collect();
        lost.into_iter().for_each(|ip| self.resolve(ip));

        let count = (self.neighbors.len() / CONFIRM_SECONDS + 1).min(PROBES);
        for ip in next(&self.neighbors, &mut self.neighbor_cursor, count) {
            self.doubts.neighbors.insert(ip);
            let Some(Known { mac: Some(mac), state: Some(state) }) = self.neighbors.get(&ip) else {
                continue;
            };
            if matches!(state, NudState::Reachable | NudState::Stale) {
                let neighbor =
                    Neighbor { ifindex: self.ifindex, ip, mac: Some(mac.0), state: *state };
                // It has gone a moment ago, and its event is on the way.
                if let Err(error) = self.netlink.probe(&neighbor) {
                    tracing::debug!("{}", crate::error::chain(&error));
                }
            }
        }
    }

    /// Asks the kernel for what is new, in doubt or due, has it resolve what it does not know, and
    /// forgets what is not wanted any more. True if forwarding is to change.
    pub fn refresh(&mut self, wanted: &BTreeMap<IpAddr, Reach>) -> bool {
        let doubts = std::mem::take(&mut self.doubts);
        if doubts.all {
            self.look_at_link();
        }
        self.ways.retain(|address, way| wanted.get(address) == Some(&way.reach));
        let mut is_stale = doubts.states || self.hops.len() != self.ways.len();
        for (address, reach) in wanted {
            let is_known = self.ways.contains_key(address);
            if !is_known || doubts.all || doubts.ways.contains(address) {
                let way = self.look_up(*address, *reach);
                self.ways.insert(*address, way);
                is_stale = true;
            }
        }
        let used: BTreeSet<IpAddr> =
            self.ways.values().filter_map(|way| way.via.as_ref().ok().copied()).collect();
        self.neighbors.retain(|ip, _| used.contains(ip));
        let is_due = |ip: &IpAddr| {
            doubts.all || doubts.neighbors.contains(ip) || !self.neighbors.contains_key(ip)
        };
        let due: Vec<_> = used.into_iter().filter(is_due).collect();
        is_stale |= !due.is_empty();
        self.read(&due);
        is_stale && self.rebuild()
    }

    /// Makes the next hops of ways and neighbours. True if one has another MAC or MTU.
    fn rebuild(&mut self) -> bool {
        let mut fresh = BTreeMap::new();
        for (address, way) in &self.ways {
            fresh.insert(*address, self.next_hop(way));
        }
        for (address, hop) in &fresh {
            self.log(*address, hop);
        }
        let forwarding = |hops: &BTreeMap<IpAddr, NextHop>| {
            let of = |(address, hop): (&IpAddr, &NextHop)| (*address, hop.via, hop.mac, hop.mtu);
            hops.iter().map(of).collect::<Vec<_>>()
        };
        let changed = forwarding(&fresh) != forwarding(&self.hops);
        self.hops = Arc::new(fresh);
        changed
    }

    fn next_hop(&self, way: &Way) -> NextHop {
        let via = match &way.via {
            Ok(via) => *via,
            Err(problem) => {
                return NextHop { problem: Some(problem.clone()), ..NextHop::default() };
            }
        };
        let Known { mac, state } = self.neighbors.get(&via).copied().unwrap_or_default();
        let problem = match (mac, state) {
            (Some(_), _) => None,
            (None, Some(NudState::Failed)) => Some(format!(
                "the next hop {via} does not answer {} on {}",
                resolution(via),
                self.interface
            )),
            (None, _) => Some(format!("the kernel is resolving the next hop {via}")),
        };
        NextHop { via: Some(via), mac, mtu: way.mtu, neighbor: state.map(plain), problem }
    }

    /// Once when an address is lost, once when it is back: a dead one is asked for again and again.
    fn log(&mut self, address: IpAddr, hop: &NextHop) {
        match &hop.problem {
            // Most are resolved in no time; those that are not are lost at the next look.
            Some(_)
                if hop.neighbor.is_none_or(|state| state != next_hop::NeighborState::Failed)
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
}

/// Whether a request that the kernel sends now leaves the node.
fn can_carry(link: &Link) -> bool {
    link.up && link.carrier
}

/// The same state as the control plane names it.
fn plain(state: NudState) -> next_hop::NeighborState {
    match state {
        NudState::None => next_hop::NeighborState::None,
        NudState::Incomplete => next_hop::NeighborState::Incomplete,
        NudState::Reachable => next_hop::NeighborState::Reachable,
        NudState::Stale => next_hop::NeighborState::Stale,
        NudState::Delay => next_hop::NeighborState::Delay,
        NudState::Probe => next_hop::NeighborState::Probe,
        NudState::Failed => next_hop::NeighborState::Failed,
        NudState::Noarp => next_hop::NeighborState::Noarp,
        NudState::Permanent => next_hop::NeighborState::Permanent,
        NudState::Other(_) => next_hop::NeighborState::Other,
    }
}

/// The protocol by which the kernel asks for a MAC.
fn resolution(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ARP",
        IpAddr::V6(_) => "neighbour discovery",
    }
}
