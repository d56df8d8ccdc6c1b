//! What the kernel's routes mean for pods.
//!
//! Enters: the mirror, and the node's `Scope`. Leaves: a [`LearnedRoutes`]: where each prefix leads, and
//! which routes were refused, with the reason. A pure function.
//!
//! | the kernel has | the vSwitch |
//! |---|---|
//! | `via G` on the uplink | sends to G: as to a peer, if G is one's address; else as it is |
//! | `via G` on the host port | sends through the overlay to the node with the underlay address G |
//! | several of these | shares the flows among them by weight |
//! | another interface, or no gateway | leaves it to the kernel, by the host port |
//! | `blackhole`, `unreachable`, `prohibit` | does the same |
//! | a covering route, such as a default | takes it for all of a prefix, where that is wanted |

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::mirror::Mirror;
use super::route::{KernelHop, KernelRoute, RouteKind};
use super::{HOST_METRIC, Hop, Judgement, LearnedRoutes, Way};

/// What of this node routes are judged by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Prefixes within which routes are taken.
    pub prefixes: Vec<IpNet>,
    /// A route that covers one of them is taken for all of it.
    pub covering: bool,
    /// Prefixes of this node's pods.
    pub own: Vec<IpNet>,
    /// Prefixes of all pods of the cluster; the host port has the kernel's routes to them.
    pub cluster: Vec<IpNet>,
    /// Addresses of this node's pods.
    pub pods: BTreeSet<IpAddr>,
    /// Addresses of the node itself.
    pub node: BTreeSet<IpAddr>,
    /// The interface of the NIC.
    pub uplink: Option<u32>,
    /// The interface of the host port.
    pub host: Option<u32>,
}

/// What becomes of all that the kernel has.
#[must_use]
pub fn judge(mirror: &Mirror, scope: &Scope) -> LearnedRoutes {
    let mut learned = LearnedRoutes::default();
    for (prefix, route) in mirror.best().filter(|(prefix, _)| scope.takes(prefix)) {
        learned.put(prefix, scope.route(prefix, route));
    }
    for own in scope.prefixes.iter().filter(|own| mirror.best_of(own).is_none()) {
        learned.set(*own, judge_one(mirror, scope, own));
    }
    learned
}

/// What becomes of one prefix; `None` if there is no route for it.
#[must_use]
pub fn judge_one(mirror: &Mirror, scope: &Scope, prefix: &IpNet) -> Option<Judgement> {
    if !scope.takes(prefix) {
        return None;
    }
    if let Some(route) = mirror.best_of(prefix) {
        return Some(scope.route(*prefix, route));
    }
    let cover = mirror.cover(prefix).filter(|_| scope.prefixes.contains(prefix))?;
    Some(if scope.covering { scope.covering(*prefix, cover) } else { Judgement::Ignore })
}

impl Scope {
    /// The prefixes that are judged by what the kernel has for this one.
    pub fn concerned(&self, prefix: IpNet) -> impl Iterator<Item = IpNet> {
        let covered = self.prefixes.iter().copied();
        let covered = covered.filter(move |own| *own != prefix && prefix.contains(own));
        self.takes(&prefix).then_some(prefix).into_iter().chain(covered)
    }

    /// Whether this is the same node, whatever pods it has.
    #[must_use]
    pub fn is_same_node(&self, other: &Self) -> bool {
        let Self { prefixes, covering, own, cluster, pods: _, node, uplink, host } = self;
        (prefixes, covering, own, cluster)
            == (&other.prefixes, &other.covering, &other.own, &other.cluster)
            && (node, uplink, host) == (&other.node, &other.uplink, &other.host)
    }

    fn takes(&self, prefix: &IpNet) -> bool {
        self.prefixes.iter().any(|own| own.contains(prefix))
    }

    /// A route to this prefix, which is within those that are taken.
    fn route(&self, prefix: IpNet, route: &KernelRoute) -> Judgement {
        // A routing daemon drops there what no pod of its node has, and some name each pod. One that
        // another node would take from it is a mistake, or worse.
        let leads_away = route.kind == RouteKind::Unicast
            && route.next_hops.iter().any(|hop| hop.gateway.is_some());
        if let Some(own) = self.own.iter().find(|own| own.contains(&prefix)) {
            return if leads_away {
                Judgement::Refuse(format!("it leads away from this node, whose pods have {own}"))
            } else {
                Judgement::Ignore
            };
        }
        let is_host = prefix.prefix_len() == prefix.max_prefix_len();
        if is_host && self.node.contains(&prefix.addr()) {
            return if leads_away {
                Judgement::Refuse("it is an address of this node itself".into())
            } else {
                Judgement::Ignore
            };
        }
        let is_aggregate = self.own.iter().any(|own| prefix.contains(own));
        if let Some(pod) = self.pods.range(prefix.network()..=prefix.broadcast()).next()
            && !is_aggregate
        {
            return Judgement::Refuse(format!("it covers {pod}, which a pod of this node has"));
        }
        self.way(route, |scope| scope.kernel_returns(prefix, route.metric))
    }

    /// A route that covers this prefix. By its own it would not reach the kernel's other links: the
    /// host port's route is longer.
    fn covering(&self, prefix: IpNet, route: &KernelRoute) -> Judgement {
        self.way(route, |scope| scope.kernel_returns(prefix, u32::MAX))
    }

    /// Whether the kernel would send packets to this prefix back to us: our route is longer, or
    /// has the lower metric.
    fn kernel_returns(&self, prefix: IpNet, metric: u32) -> bool {
        self.host.is_some()
            && self.cluster.iter().any(|cluster| {
                prefix.contains(cluster) && (prefix != *cluster || metric > HOST_METRIC)
            })
    }

    fn way(&self, route: &KernelRoute, kernel_returns: impl Fn(&Self) -> bool) -> Judgement {
        match route.kind {
            RouteKind::Blackhole => return Judgement::Take(Way::Blackhole),
            RouteKind::Unreachable | RouteKind::Prohibit => {
                return Judgement::Take(Way::Unreachable);
            }
            RouteKind::Unicast => {}
            RouteKind::Local | RouteKind::Other(_) => return Judgement::Ignore,
        }
        let any_usable = route.next_hops.iter().any(|hop| hop.usable);
        let (mut hops, mut elsewhere, mut refusal) = (Vec::new(), false, None);
        for hop in route.next_hops.iter().filter(|hop| hop.usable || !any_usable) {
            match self.hop(hop) {
                Ok(Some(hop)) => hops.push(hop),
                Ok(None) => elsewhere = true,
                Err(reason) => refusal = Some(reason),
            }
        }
        match refusal {
            _ if !hops.is_empty() => Judgement::Take(Way::Hops(hops)),
            Some(reason) => Judgement::Refuse(reason),
            None if !elsewhere => Judgement::Ignore,
            None if self.host.is_none() => {
                Judgement::Refuse("the kernel would forward it, but there is no host port".into())
            }
            // What we would give the kernel, it would give back.
            None if kernel_returns(self) => Judgement::Ignore,
            None => Judgement::Take(Way::Host),
        }
    }

    /// A next hop of ours; `None` if the kernel has to forward.
    fn hop(&self, hop: &KernelHop) -> Result<Option<Hop>, String> {
        let is_overlay = Some(hop.oif) == self.host;
        if !is_overlay && Some(hop.oif) != self.uplink {
            return Ok(None);
        }
        let Some(gateway) = hop.gateway.map(|gateway| gateway.to_canonical()) else {
            return if is_overlay {
                Err("it leads into the host port and names no node; add `via ADDRESS onlink`"
                    .into())
            } else {
                Ok(None)
            };
        };
        if self.node.contains(&gateway) {
            return Err(format!("its next hop {gateway} is this node itself"));
        }
        if is_overlay {
            if is_special(gateway) {
                return Err(format!("{gateway} cannot be another node's underlay address"));
            }
            if let Some(cluster) = self.cluster.iter().find(|cluster| cluster.contains(&gateway)) {
                return Err(format!(
                    "the underlay address {gateway} lies in the cluster prefix {cluster}: a tunnel would run through itself"
                ));
            }
        }
        Ok(Some(Hop { gateway, weight: hop.weight.max(1), overlay: is_overlay }))
    }
}

/// No node's underlay address, whatever its network.
fn is_special(address: IpAddr) -> bool {
    address.is_loopback()
        || address.is_multicast()
        || address.is_unspecified()
        || match address {
            IpAddr::V4(v4) => {
                v4.is_link_local() || v4 == Ipv4Addr::BROADCAST || v4.octets()[0] == 0
            }
            IpAddr::V6(v6) => Ipv6Addr::is_unicast_link_local(&v6),
        }
}
