//! The kernel's routes, as far as they may concern pods.
//!
//! Enters: a whole table, and every change of it in order. Leaves: for each destination the route
//! that the kernel would take, to `judge`. No I/O: the same events give the same mirror, and what
//! cannot be followed by the events alone is reported as unclear, so that the table is read anew.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::iter::successors;
use std::net::IpAddr;

use ipnet::IpNet;

use super::route::{KernelRoute, Placement, ROUTE_PROTOCOL, RouteKind};

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorChange {
    /// Nothing that matters.
    Same,
    /// A destination has another route.
    Changed,
    /// The table must be read anew.
    Unclear,
}

/// The routes of one table that lie in certain prefixes, or cover one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirror {
    table: u32,
    prefixes: Vec<IpNet>,
    /// Routes of these protocols are kept; of all if empty.
    protocols: Vec<u8>,
    /// Routes by destination and metric, in the order in which the kernel looks at them.
    routes: BTreeMap<(IpNet, u32), Vec<KernelRoute>>,
    /// How many next hops leave by each interface.
    leaving: BTreeMap<u32, usize>,
}

impl Mirror {
    /// An empty mirror of a table.
    #[must_use]
    pub fn new(table: u32, prefixes: &[IpNet]) -> Self {
        Self { table, prefixes: prefixes.to_vec(), ..Self::default() }
    }

    /// Only of routes of these protocols; of all if there is none.
    #[must_use]
    pub fn of(self, protocols: &[u8]) -> Self {
        Self { protocols: protocols.to_vec(), ..self }
    }

    /// For each destination the route with the lowest metric: what the kernel uses.
    pub fn best(&self) -> impl Iterator<Item = (IpNet, &KernelRoute)> {
        let mut last = None;
        self.routes.iter().filter_map(move |((prefix, _), routes)| {
            let is_next = last.replace(*prefix) != Some(*prefix);
            is_next.then(|| routes.first().map(|route| (*prefix, route))).flatten()
        })
    }

    /// The route to this destination with the lowest metric.
    #[must_use]
    pub fn best_of(&self, prefix: &IpNet) -> Option<&KernelRoute> {
        let (_, routes) = self.routes.range((*prefix, 0)..=(*prefix, u32::MAX)).next()?;
        routes.first()
    }

    /// Likewise to the longest shorter prefix that contains this one.
    #[must_use]
    pub fn cover(&self, prefix: &IpNet) -> Option<&KernelRoute> {
        let mut covers = successors(prefix.supernet(), IpNet::supernet);
        covers.find_map(|cover| self.best_of(&cover))
    }

    /// The destinations that contain this address.
    pub fn containing(&self, address: IpAddr) -> impl Iterator<Item = IpNet> {
        let nets = successors(Some(IpNet::from(address)), IpNet::supernet);
        nets.filter(|net| self.best_of(net).is_some())
    }

    /// The destinations for which another mirror has something else.
    #[must_use]
    pub fn differing(&self, other: &Self) -> BTreeSet<IpNet> {
        let missing = |one: &Self, other: &Self| -> Vec<IpNet> {
            let differs = |key: &(IpNet, u32), routes| other.routes.get(key) != Some(routes);
            let found = one.routes.iter().filter(|(key, routes)| differs(key, *routes));
            found.map(|((prefix, _), _)| *prefix).collect()
        };
        missing(self, other).into_iter().chain(missing(other, self)).collect()
    }

    /// Whether packets may leave by this interface: what happens to it may change routes in silence.
    #[must_use]
    pub fn uses(&self, ifindex: u32) -> bool {
        self.leaving.contains_key(&ifindex)
    }

    /// Whether some destination has several routes of one metric.
    #[must_use]
    pub fn has_several(&self) -> bool {
        self.routes.values().any(|routes| routes.len() > 1)
    }

    /// Notes a route of a table that is read from its beginning.
    pub fn read(&mut self, route: KernelRoute) {
        if let Some(prefix) = self.concerns(&route)
            && self.takes(route.protocol)
        {
            leaves(&mut self.leaving, &route);
            self.routes.entry((prefix, route.metric)).or_default().push(route);
        }
    }

    /// Follows an event: a route is new or different.
    pub fn changed(&mut self, route: &KernelRoute, placement: Placement) -> MirrorChange {
        let Some(prefix) = self.concerns(route) else { return MirrorChange::Same };
        let key = (prefix, route.metric);
        if !self.takes(route.protocol) {
            // It may have replaced one that is.
            return if self.routes.contains_key(&key) {
                MirrorChange::Unclear
            } else {
                MirrorChange::Same
            };
        }
        let routes = self.routes.entry(key).or_default();
        if let Some(known) = routes.iter_mut().find(|known| known.is_same_as(route)) {
            // Announced again, or read a moment ago. If it stood behind others by then, what became of
            // those is not known.
            if placement == Placement::Appended {
                return MirrorChange::Unclear;
            }
            if known == route {
                return MirrorChange::Same;
            }
            leaves_no_more(&mut self.leaving, known);
            known.clone_from(route);
            leaves(&mut self.leaving, route);
            return MirrorChange::Changed;
        }
        match (placement, routes.as_mut_slice()) {
            (_, []) => routes.push(route.clone()),
            (Placement::Replaces, [known]) if may_replace(known, route) => {
                leaves_no_more(&mut self.leaving, known);
                known.clone_from(route);
            }
            // IPv4 keeps several in an order, IPv6 joins their next hops: both are rare, and read.
            _ => return MirrorChange::Unclear,
        }
        leaves(&mut self.leaving, route);
        MirrorChange::Changed
    }

    /// Follows an event: a route is gone.
    pub fn gone(&mut self, route: &KernelRoute) -> MirrorChange {
        let Some(prefix) = self.concerns(route) else { return MirrorChange::Same };
        if !self.takes(route.protocol) {
            return MirrorChange::Same;
        }
        let key = (prefix, route.metric);
        let Some(routes) = self.routes.get_mut(&key) else { return MirrorChange::Same };
        match routes.iter().position(|known| known.is_same_as(route)) {
            Some(at) => {
                leaves_no_more(&mut self.leaving, &routes.remove(at));
                if routes.is_empty() {
                    self.routes.remove(&key);
                }
                if at == 0 { MirrorChange::Changed } else { MirrorChange::Same }
            }
            // Of an IPv6 route with several next hops each goes by itself.
            None if prefix.addr().is_ipv6() => MirrorChange::Unclear,
            None => MirrorChange::Same,
        }
    }

    fn takes(&self, protocol: u8) -> bool {
        self.protocols.is_empty() || self.protocols.contains(&protocol)
    }

    /// Under which prefix a route belongs here, if it does.
    fn concerns(&self, route: &KernelRoute) -> Option<IpNet> {
        let prefix = prefix_of(route)?;
        let is_of_interest = route.table == self.table
            && route.tos == 0
            && route.protocol != ROUTE_PROTOCOL
            && !matches!(route.kind, RouteKind::Local | RouteKind::Other(_))
            && self.prefixes.iter().any(|own| api::overlap(own, &prefix));
        is_of_interest.then_some(prefix)
    }
}

/// Under which prefix a route is kept.
#[must_use]
pub fn prefix_of(route: &KernelRoute) -> Option<IpNet> {
    let (network, len) = route.destination;
    Some(IpNet::new(network, len).ok()?.trunc())
}

fn leaves(leaving: &mut BTreeMap<u32, usize>, route: &KernelRoute) {
    for hop in &route.next_hops {
        *leaving.entry(hop.oif).or_default() += 1;
    }
}

fn leaves_no_more(leaving: &mut BTreeMap<u32, usize>, route: &KernelRoute) {
    for hop in &route.next_hops {
        if let Some(count) = leaving.get_mut(&hop.oif) {
            *count -= 1;
            if *count == 0 {
                leaving.remove(&hop.oif);
            }
        }
    }
}

/// IPv6 replaces a route by one of its own sort: with gateways or without.
fn may_replace(known: &KernelRoute, route: &KernelRoute) -> bool {
    let has_gateways =
        |route: &KernelRoute| route.next_hops.iter().all(|hop| hop.gateway.is_some());
    matches!(route.destination.0, IpAddr::V4(_)) || has_gateways(known) == has_gateways(route)
}
