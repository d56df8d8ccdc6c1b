//! The kernel's routes, as far as they may concern pods.
//!
//! Enters: a whole table, and every change of it in order. Leaves: for each destination the route
//! that the kernel would take, to `judge`. No I/O: the same events give the same mirror, and what
//! cannot be followed by the events alone is said to be unclear, so that the table is read anew.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netio::netlink::{KernelRoute, Placement, ROUTE_PROTOCOL, RouteKind};

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
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
    /// Of these protocols; of all if empty.
    protocols: Vec<u8>,
    /// By destination and metric, in the order in which the kernel looks at them.
    routes: BTreeMap<(IpNet, u32), Vec<KernelRoute>>,
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

    /// Whether packets may leave by this interface: what happens to it may change routes in silence.
    #[must_use]
    pub fn uses(&self, ifindex: u32) -> bool {
        let hops = self.routes.values().flatten().flat_map(|route| &route.next_hops);
        hops.into_iter().any(|hop| hop.oif == ifindex)
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
            self.routes.entry((prefix, route.metric)).or_default().push(route);
        }
    }

    /// Follows an event: a route is new or different.
    pub fn changed(&mut self, route: &KernelRoute, placement: Placement) -> Outcome {
        let Some(prefix) = self.concerns(route) else { return Outcome::Same };
        let key = (prefix, route.metric);
        if !self.takes(route.protocol) {
            // It may have replaced one that is.
            return if self.routes.contains_key(&key) { Outcome::Unclear } else { Outcome::Same };
        }
        let routes = self.routes.entry(key).or_default();
        if let Some(known) = routes.iter_mut().find(|known| known.is_same_as(route)) {
            // Told again, or read a moment ago. If it stood behind others by then, what became of
            // those is not known.
            if placement == Placement::Appended {
                return Outcome::Unclear;
            }
            if known == route {
                return Outcome::Same;
            }
            known.clone_from(route);
            return Outcome::Changed;
        }
        match (placement, routes.as_mut_slice()) {
            (_, []) => routes.push(route.clone()),
            (Placement::Replaces, [known]) if may_replace(known, route) => {
                known.clone_from(route);
            }
            // IPv4 keeps several in an order, IPv6 joins their next hops: both are rare, and read.
            _ => return Outcome::Unclear,
        }
        Outcome::Changed
    }

    /// Follows an event: a route is gone.
    pub fn gone(&mut self, route: &KernelRoute) -> Outcome {
        let Some(prefix) = self.concerns(route) else { return Outcome::Same };
        if !self.takes(route.protocol) {
            return Outcome::Same;
        }
        let key = (prefix, route.metric);
        let Some(routes) = self.routes.get_mut(&key) else { return Outcome::Same };
        match routes.iter().position(|known| known.is_same_as(route)) {
            Some(at) => {
                routes.remove(at);
                if routes.is_empty() {
                    self.routes.remove(&key);
                }
                if at == 0 { Outcome::Changed } else { Outcome::Same }
            }
            // Of an IPv6 route with several next hops each goes by itself.
            None if prefix.addr().is_ipv6() => Outcome::Unclear,
            None => Outcome::Same,
        }
    }

    fn takes(&self, protocol: u8) -> bool {
        self.protocols.is_empty() || self.protocols.contains(&protocol)
    }

    /// Under which prefix a route belongs here, if it does.
    fn concerns(&self, route: &KernelRoute) -> Option<IpNet> {
        let (network, len) = route.destination;
        let prefix = IpNet::new(network, len).ok()?.trunc();
        let is_of_interest = route.table == self.table
            && route.tos == 0
            && route.protocol != ROUTE_PROTOCOL
            && !matches!(route.kind, RouteKind::Local | RouteKind::Other(_))
            && self.prefixes.iter().any(|own| own.contains(&prefix) || prefix.contains(own));
        is_of_interest.then_some(prefix)
    }
}

/// IPv6 replaces a route by one of its own sort: with gateways or without.
fn may_replace(known: &KernelRoute, route: &KernelRoute) -> bool {
    let has_gateways =
        |route: &KernelRoute| route.next_hops.iter().all(|hop| hop.gateway.is_some());
    matches!(route.destination.0, IpAddr::V4(_)) || has_gateways(known) == has_gateways(route)
}

#[cfg(test)]
mod tests {
    use netio::netlink::Placement::{Appended, First, Replaces};
    use proptest::prelude::*;

    use super::super::lines::route;
    use super::{Mirror, Outcome};
    use netio::netlink::{KernelRoute, Placement};

    fn mirror(prefixes: &[&str]) -> Mirror {
        let prefixes: Vec<_> = prefixes.iter().map(|p| p.parse().expect("a prefix")).collect();
        Mirror::new(254, &prefixes)
    }

    fn shown(mirror: &Mirror) -> Vec<String> {
        let hop = |route: &KernelRoute| {
            route.next_hops.first().and_then(|hop| hop.gateway).map(|ip| ip.to_string())
        };
        mirror
            .best()
            .map(|(prefix, route)| format!("{prefix} {}", hop(route).unwrap_or_default()))
            .collect()
    }

    #[test]
    fn what_lies_elsewhere_is_not_kept() {
        for line in [
            "203.0.113.0/24 via 198.51.100.1 dev eth0",
            "198.20.0.0/16 via 198.51.100.1 dev eth0",
            "198.18.2.0/24 via 198.51.100.1 dev eth0 table 100",
            "198.18.2.0/24 via 198.51.100.1 dev eth0 tos 8",
            "198.18.2.0/24 via 198.51.100.1 dev eth0 proto 86",
            "local 198.18.2.1/32 dev lo",
            "fd00:19::/32 via fd77::1 dev eth0",
        ] {
            let mut mirror = mirror(&["198.18.0.0/16", "fd00:18::/32"]);
            assert_eq!(mirror.changed(&route(line), First), Outcome::Same, "{line}");
            mirror.read(route(line));
            assert_eq!(mirror.best().count(), 0, "{line}");
        }
    }

    #[test]
    fn of_chosen_protocols_alone() {
        let mut mirror = mirror(&["198.18.0.0/16"]).of(&[12, 186]);
        let by = |protocol, via| {
            route(&format!("198.18.2.0/24 via 198.51.100.{via} dev eth0 proto {protocol}"))
        };
        assert_eq!(mirror.changed(&by(4, 4), First), Outcome::Same);
        mirror.read(by(3, 3));
        assert_eq!(shown(&mirror), [""; 0]);
        assert_eq!(mirror.changed(&by(12, 1), First), Outcome::Changed);
        assert_eq!(mirror.gone(&by(4, 4)), Outcome::Same);
        assert_eq!(mirror.changed(&by(186, 2), Replaces), Outcome::Changed);
        assert_eq!(shown(&mirror), ["198.18.2.0/24 198.51.100.2"]);
        // Somebody else's takes its place: the kernel has no word for the one that went.
        assert_eq!(mirror.changed(&by(4, 4), Replaces), Outcome::Unclear);
    }

    #[test]
    fn the_lowest_metric_is_what_the_kernel_uses() {
        let mut mirror = mirror(&["198.18.0.0/16"]);
        for (metric, via) in [(50, 5), (20, 2), (100, 10)] {
            let line = format!("198.18.2.0/24 via 198.51.100.{via} dev eth0 metric {metric}");
            mirror.changed(&route(&line), First);
        }
        assert_eq!(shown(&mirror), ["198.18.2.0/24 198.51.100.2"]);
        let gone = route("198.18.2.0/24 via 198.51.100.2 dev eth0 metric 20");
        assert_eq!(mirror.gone(&gone), Outcome::Changed);
        assert_eq!(shown(&mirror), ["198.18.2.0/24 198.51.100.5"]);
        assert_eq!(mirror.gone(&gone), Outcome::Same);
    }

    #[test]
    fn several_of_one_metric_are_read_in_the_kernels_order() {
        let mut mirror = mirror(&["198.18.0.0/16"]);
        let [a, b] = [1, 2].map(|n| route(&format!("198.18.2.0/24 via 198.51.100.{n} dev eth0")));
        assert_eq!(mirror.changed(&a, First), Outcome::Changed);
        assert_eq!(mirror.changed(&b, Appended), Outcome::Unclear);
        assert_eq!(mirror.changed(&b, First), Outcome::Unclear);
        mirror.read(b);
        assert_eq!(shown(&mirror), ["198.18.2.0/24 198.51.100.1"]);
        assert_eq!(mirror.gone(&a), Outcome::Changed);
        assert_eq!(shown(&mirror), ["198.18.2.0/24 198.51.100.2"]);
        assert_eq!(mirror.changed(&a, Replaces), Outcome::Changed);
        assert_eq!(shown(&mirror), ["198.18.2.0/24 198.51.100.1"]);
    }

    #[test]
    fn a_next_hop_of_several_that_goes_by_itself_is_unclear() {
        let mut mirror = mirror(&["fd00:18::/32"]);
        let both = "fd00:18:2::/64 nexthop via fd77::1 dev eth0 nexthop via fd77::2 dev eth0";
        mirror.changed(&route(both), First);
        let one = route("fd00:18:2::/64 via fd77::1 dev eth0");
        assert_eq!(mirror.gone(&one), Outcome::Unclear);
        assert_eq!(mirror.changed(&one, Appended), Outcome::Unclear);
    }

    #[test]
    fn links_of_routes_are_used() {
        let mut mirror = mirror(&["198.18.0.0/16"]);
        mirror.changed(
            &route(
                "198.18.2.0/24 nexthop via 198.51.100.1 dev eth0 nexthop via 198.51.100.2 dev vsw0",
            ),
            First,
        );
        assert!(mirror.uses(2) && mirror.uses(3) && !mirror.uses(4));
    }

    /// The kernel's table of IPv4, as net/ipv4/fib_trie.c keeps it: a list for each destination and
    /// metric.
    #[derive(Default, Clone)]
    struct Kernel(Vec<KernelRoute>);

    impl Kernel {
        fn matching(&self, route: &KernelRoute) -> Option<usize> {
            let key = |route: &KernelRoute| (route.destination, route.metric);
            self.0.iter().position(|known| key(known) == key(route))
        }

        /// `ip route prepend`, `append` and `replace`; the event that is sent, if the kernel agrees.
        fn add(&mut self, route: KernelRoute, placement: Placement) -> Option<Event> {
            if self.0.contains(&route) {
                return None;
            }
            let first = self.matching(&route);
            match (placement, first) {
                (Replaces, Some(at)) => self.0[at] = route.clone(),
                (Appended, _) => self.0.push(route.clone()),
                (First, Some(at)) => self.0.insert(at, route.clone()),
                (Replaces | First, None) => {
                    self.0.push(route.clone());
                    return Some((route, Some(First)));
                }
            }
            Some((route, Some(placement)))
        }

        fn delete(&mut self, route: &KernelRoute) -> Option<Event> {
            let at = self.matching(route)?;
            Some((self.0.remove(at), None))
        }

        fn has_several(&self) -> bool {
            self.dump().has_several()
        }

        fn dump(&self) -> Mirror {
            let mut dump = mirror(&["198.18.0.0/16"]);
            self.0.iter().for_each(|route| dump.read(route.clone()));
            dump
        }
    }

    /// A route, and where it was put; `None` if it is gone.
    type Event = (KernelRoute, Option<Placement>);

    fn follow(mirror: &mut Mirror, (route, placement): &Event) -> Outcome {
        match placement {
            Some(placement) => mirror.changed(route, *placement),
            None => mirror.gone(route),
        }
    }

    fn commands() -> impl Strategy<Value = Vec<(u8, u8, u8, u8)>> {
        prop::collection::vec((0..5u8, 0..3u8, 0..2u8, 0..4u8), 0..60)
    }

    fn run(kernel: &mut Kernel, (what, network, metric, via): (u8, u8, u8, u8)) -> Option<Event> {
        let line = format!("198.18.{network}.0/24 via 198.51.100.{via} dev eth0 metric {metric}");
        let route = route(&line);
        match what {
            0 => kernel.add(route, First),
            1 => kernel.add(route, Appended),
            2 => kernel.add(route, Replaces),
            _ => kernel.delete(&route),
        }
    }

    proptest! {
        #[test]
        fn after_any_events_the_mirror_is_that_of_a_fresh_dump(commands in commands()) {
            let (mut kernel, mut mirror) = (Kernel::default(), mirror(&["198.18.0.0/16"]));
            for command in commands {
                if let Some(event) = run(&mut kernel, command)
                    && follow(&mut mirror, &event) == Outcome::Unclear
                {
                    mirror = kernel.dump();
                }
                prop_assert_eq!(&mirror, &kernel.dump());
            }
        }

        /// What happens while the table is read may be in it already, and is told afterwards. Where
        /// there never were several of one metric, that does no harm.
        #[test]
        fn events_that_a_dump_has_in_it_already_do_no_harm(
            before in commands(), during in commands(),
        ) {
            let mut kernel = Kernel::default();
            before.into_iter().for_each(|command| drop(run(&mut kernel, command)));
            let mut several = kernel.has_several();
            let mut told = Vec::new();
            for command in during {
                told.extend(run(&mut kernel, command));
                several |= kernel.has_several();
            }
            let mut mirror = kernel.dump();
            let outcomes: Vec<_> = told.iter().map(|event| follow(&mut mirror, event)).collect();
            if !outcomes.contains(&Outcome::Unclear) && !several {
                prop_assert_eq!(&mirror, &kernel.dump());
            }
        }
    }
}
