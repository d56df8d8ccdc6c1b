//! What the kernel's routes mean for pods.
//!
//! Enters: the mirror, and who this node is. Leaves: a [`Learned`]: where each prefix leads, and
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

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netio::netlink::{KernelHop, KernelRoute, RouteKind};

use super::mirror::Mirror;
use super::{Hop, Learned, Way};
use crate::host::METRIC;

/// Who this node is.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Routes within these are taken.
    pub prefixes: Vec<IpNet>,
    /// A route that covers one of them is taken for all of it.
    pub covering: bool,
    /// This node's pods come from these.
    pub own: Vec<IpNet>,
    /// Everything that is a pod of the cluster; the host port has the kernel's routes to it.
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

/// What is to be done with all that the kernel has.
#[must_use]
pub fn judge(mirror: &Mirror, scope: &Scope) -> Learned {
    let mut learned = Learned::default();
    // By prefix, what covers it: the last is the longest, as they come in order.
    let mut covers: BTreeMap<IpNet, (IpNet, &KernelRoute)> = BTreeMap::new();
    let mut exact = BTreeSet::new();
    for (prefix, route) in mirror.best() {
        if scope.prefixes.iter().any(|own| own.contains(&prefix)) {
            exact.insert(prefix);
            learned.add(prefix, scope.route(prefix, route));
            continue;
        }
        for own in scope.prefixes.iter().filter(|own| prefix.contains(*own)) {
            let longest = covers.entry(*own).or_insert((prefix, route));
            if longest.0.prefix_len() <= prefix.prefix_len() {
                *longest = (prefix, route);
            }
        }
    }
    for (own, (_, route)) in covers {
        if !scope.covering {
            learned.ignored += 1;
        } else if !exact.contains(&own) {
            learned.add(own, scope.covering(own, route));
        }
    }
    learned
}

/// What becomes of one route.
enum Judgement {
    Take(Way),
    Ignore,
    Refuse(String),
}

impl Learned {
    fn add(&mut self, prefix: IpNet, judgement: Judgement) {
        match judgement {
            Judgement::Take(way) => {
                if let Way::Hops(hops) = &way {
                    for hop in hops {
                        self.behind_hop(hop).push(prefix);
                    }
                }
                self.routes.insert(prefix, way);
            }
            Judgement::Ignore => self.ignored += 1,
            Judgement::Refuse(reason) => drop(self.refused.insert(prefix, reason)),
        }
    }
}

impl Scope {
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
            && self
                .cluster
                .iter()
                .any(|cluster| prefix.contains(cluster) && (prefix != *cluster || metric > METRIC))
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

#[cfg(test)]
mod tests {
    use super::super::lines::{HOST, UPLINK, route};
    use super::super::{Learned, Way};
    use super::{Mirror, Scope, judge};

    fn nets(texts: &[&str]) -> Vec<ipnet::IpNet> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    fn scope() -> Scope {
        let addresses =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
        Scope {
            prefixes: nets(&["198.18.0.0/16", "fd00:18::/32"]),
            covering: true,
            own: nets(&["198.18.1.0/24", "fd00:18:1::/64"]),
            cluster: nets(&["198.18.0.0/16", "fd00:18::/32"]),
            pods: addresses(&["198.18.1.5", "198.18.200.7"]),
            node: addresses(&["198.51.100.11", "198.18.1.1", "198.18.254.11"]),
            uplink: Some(UPLINK),
            host: Some(HOST),
        }
    }

    fn judged(scope: &Scope, lines: &[&str]) -> Learned {
        let mut mirror = Mirror::new(254, &scope.prefixes);
        for line in lines {
            mirror.read(route(line));
        }
        judge(&mirror, scope)
    }

    /// As one line a route.
    fn shown(learned: &Learned) -> Vec<String> {
        let way = |way: &Way| match way {
            Way::Hops(hops) => {
                let hops = hops.iter().map(|hop| {
                    let how = if hop.overlay { "overlay" } else { "direct" };
                    format!("{how} {} {}", hop.gateway, hop.weight)
                });
                hops.collect::<Vec<_>>().join(", ")
            }
            Way::Host => "host".into(),
            Way::Blackhole => "blackhole".into(),
            Way::Unreachable => "unreachable".into(),
        };
        let taken = learned.routes.iter().map(|(prefix, to)| format!("{prefix}: {}", way(to)));
        let refused = learned.refused.iter().map(|(prefix, why)| format!("{prefix}! {why}"));
        taken.chain(refused).collect()
    }

    #[test]
    fn each_kind_of_route_has_its_meaning() {
        for (line, expected) in [
            ("198.18.2.0/24 via 198.51.100.12 dev eth0", "198.18.2.0/24: direct 198.51.100.12 1"),
            (
                "198.18.2.0/24 via 203.0.113.12 dev vsw0 onlink",
                "198.18.2.0/24: overlay 203.0.113.12 1",
            ),
            (
                "198.18.2.0/24 nexthop via 198.51.100.2 dev eth0 weight 3 nexthop via 203.0.113.9 dev vsw0 onlink",
                "198.18.2.0/24: direct 198.51.100.2 3, overlay 203.0.113.9 1",
            ),
            (
                "198.18.2.0/24 nexthop via 198.51.100.2 dev eth0 dead nexthop via 198.51.100.3 dev eth0",
                "198.18.2.0/24: direct 198.51.100.3 1",
            ),
            (
                "198.18.2.0/24 via 198.51.100.2 dev eth0 linkdown",
                "198.18.2.0/24: direct 198.51.100.2 1",
            ),
            (
                "198.18.2.0/24 nexthop via 198.51.100.2 dev eth0 nexthop dev docker0",
                "198.18.2.0/24: direct 198.51.100.2 1",
            ),
            ("198.18.2.0/24 dev docker0", "198.18.2.0/24: host"),
            ("198.18.2.0/24 via 198.51.100.77 dev docker0", "198.18.2.0/24: host"),
            ("198.18.2.0/24 dev eth0", "198.18.2.0/24: host"),
            ("blackhole 198.18.2.0/24", "198.18.2.0/24: blackhole"),
            ("unreachable 198.18.2.0/24", "198.18.2.0/24: unreachable"),
            ("prohibit 198.18.2.0/24", "198.18.2.0/24: unreachable"),
            ("198.18.0.0/16 via 198.51.100.1 dev eth0", "198.18.0.0/16: direct 198.51.100.1 1"),
            ("fd00:18:2::/64 via fe80::1 dev eth0", "fd00:18:2::/64: direct fe80::1 1"),
            (
                "fd00:18:2::/64 via ::ffff:203.0.113.12 dev vsw0 onlink",
                "fd00:18:2::/64: overlay 203.0.113.12 1",
            ),
            ("blackhole 198.18.1.0/24", ""),
            ("198.18.1.5/32 dev docker0", ""),
            ("198.18.254.11/32 dev docker0", ""),
            // Ours has the lower metric: the kernel would send it back.
            ("198.18.0.0/16 dev docker0 metric 51", ""),
            ("198.18.0.0/16 dev docker0 metric 50", "198.18.0.0/16: host"),
        ] {
            assert_eq!(shown(&judged(&scope(), &[line])).join("; "), expected, "{line}");
        }
    }

    #[test]
    fn what_would_do_harm_is_refused() {
        for (line, expected) in [
            (
                "198.18.200.0/24 via 198.51.100.2 dev eth0",
                "198.18.200.0/24! it covers 198.18.200.7, which a pod of this node has",
            ),
            (
                "198.18.1.64/26 via 198.51.100.2 dev eth0",
                "198.18.1.64/26! it leads away from this node, whose pods have 198.18.1.0/24",
            ),
            (
                "fd00:18:1::5/128 via fe80::1 dev eth0",
                "fd00:18:1::5/128! it leads away from this node, whose pods have fd00:18:1::/64",
            ),
            (
                "198.18.254.11/32 via 198.51.100.2 dev eth0",
                "198.18.254.11/32! it is an address of this node itself",
            ),
            (
                "198.18.2.0/24 dev vsw0",
                "198.18.2.0/24! it leads into the host port and names no node; add `via ADDRESS onlink`",
            ),
            (
                "198.18.2.0/24 via 198.51.100.11 dev vsw0 onlink",
                "198.18.2.0/24! its next hop 198.51.100.11 is this node itself",
            ),
            (
                "198.18.2.0/24 via 198.51.100.11 dev eth0 onlink",
                "198.18.2.0/24! its next hop 198.51.100.11 is this node itself",
            ),
            (
                "198.18.2.0/24 via 169.254.118.1 dev vsw0 onlink",
                "198.18.2.0/24! 169.254.118.1 cannot be another node's underlay address",
            ),
            (
                "198.18.2.0/24 via 198.18.9.9 dev vsw0 onlink",
                "198.18.2.0/24! the underlay address 198.18.9.9 lies in the cluster prefix 198.18.0.0/16: a tunnel would run through itself",
            ),
        ] {
            assert_eq!(shown(&judged(&scope(), &[line])).join("; "), expected, "{line}");
        }
        let mut without_host = scope();
        without_host.host = None;
        assert_eq!(
            shown(&judged(&without_host, &["198.18.2.0/24 dev docker0"])),
            ["198.18.2.0/24! the kernel would forward it, but there is no host port"]
        );
    }

    #[test]
    fn a_covering_route_is_taken_for_the_whole_prefix_and_no_more() {
        let lines = [
            "0.0.0.0/0 via 198.51.100.1 dev eth0",
            "0.0.0.0/0 via 198.51.100.9 dev eth0 metric 9",
            "198.18.2.0/24 via 198.51.100.2 dev eth0",
        ];
        let learned = judged(&scope(), &lines);
        assert_eq!(
            shown(&learned),
            ["198.18.0.0/16: direct 198.51.100.1 1", "198.18.2.0/24: direct 198.51.100.2 1"]
        );
        let mut narrow = scope();
        narrow.covering = false;
        let learned = judged(&narrow, &lines);
        assert_eq!(shown(&learned), ["198.18.2.0/24: direct 198.51.100.2 1"]);
        assert_eq!(learned.ignored, 1);
    }

    #[test]
    fn the_longest_of_covering_routes_counts_and_a_route_of_its_own_more() {
        let covering =
            ["0.0.0.0/0 via 198.51.100.1 dev eth0", "198.18.0.0/15 via 198.51.100.2 dev eth0"];
        assert_eq!(shown(&judged(&scope(), &covering)), ["198.18.0.0/16: direct 198.51.100.2 1"]);
        let own = [&covering[..], &["198.18.0.0/16 via 198.51.100.3 dev eth0"]].concat();
        assert_eq!(shown(&judged(&scope(), &own)), ["198.18.0.0/16: direct 198.51.100.3 1"]);
        // The kernel's way to other links is closed by the host port's own route.
        assert_eq!(shown(&judged(&scope(), &["0.0.0.0/0 dev docker0"])), [""; 0]);
    }

    #[test]
    fn who_is_behind_whom_is_known() {
        let learned = judged(
            &scope(),
            &[
                "198.18.2.0/24 via 203.0.113.12 dev vsw0 onlink",
                "198.18.3.0/24 via 203.0.113.12 dev vsw0 onlink",
                "198.18.4.0/24 via 198.51.100.2 dev eth0",
            ],
        );
        let behind = |address: &str| -> Vec<_> {
            learned.behind(&address.parse().expect("an address")).collect()
        };
        assert_eq!(behind("203.0.113.12"), nets(&["198.18.2.0/24", "198.18.3.0/24"]));
        assert_eq!(behind("198.51.100.2"), nets(&["198.18.4.0/24"]));
        assert_eq!(learned.peers.len(), 1);
        assert!(learned.is_direct(|_| false) && !learned.is_direct(|_| true));
    }
}
