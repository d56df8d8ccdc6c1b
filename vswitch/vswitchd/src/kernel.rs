//! Reads the kernel's routing table for the control plane, which follows and judges it.
//!
//! Enters: netlink's routes and events. Leaves: the same as the control plane's plain values, into
//! its [`Follower`].

use controlplane::config::KernelRoutes;
use controlplane::kernel::{
    Changes, Follower, KernelHop, KernelRoute, Placement, ROUTE_PROTOCOL, RouteKind, Scope,
    TableEvent, Tracked,
};
use dataplane::Millis;
use netlink::{Event, Netlink, RouteFilter};

// The control plane refuses to follow the routes that netlink marks as ours.
const _: () = assert!(ROUTE_PROTOCOL == netlink::ROUTE_PROTOCOL);

/// One of the kernel's tables, and what follows it.
#[derive(Debug)]
pub struct KernelTable {
    netlink: Netlink,
    follower: Follower,
}

impl KernelTable {
    /// Nothing read yet.
    #[must_use]
    pub fn new(netlink: Netlink, settings: &KernelRoutes) -> Self {
        Self { netlink, follower: Follower::new(settings) }
    }

    /// Hands over an event. True if something of the table may be different.
    pub fn on_event(&mut self, event: &Event) -> bool {
        let follower = &mut self.follower;
        match event {
            Event::RouteChanged(route, placement) => {
                follower.on_event(TableEvent::Changed(&plain(route), plain_placement(*placement)))
            }
            Event::RouteGone(route) => follower.on_event(TableEvent::Gone(&plain(route))),
            Event::LinkChanged(link) | Event::LinkGone(link) => {
                follower.on_event(TableEvent::Link(link.index))
            }
            Event::AddressChanged { .. } | Event::NextHopsChanged | Event::Overrun => {
                follower.on_event(TableEvent::Any)
            }
            Event::NeighborChanged(_) | Event::NeighborGone(_) => false,
        }
    }

    /// Reads the table anew if that is needed.
    ///
    /// # Errors
    /// If the kernel does not answer; it is asked again next time.
    pub fn settle(&mut self, now: Millis) -> netlink::Result<()> {
        if self.follower.wants_reading(now) {
            let mut mirror = self.follower.empty();
            self.netlink.kernel_routes(RouteFilter::of_table(self.follower.table()), |route| {
                mirror.read(plain(&route))
            })?;
            self.follower.take(mirror, now);
        }
        Ok(())
    }

    /// Judges what changed, the routes or the node, into what was learned before.
    pub fn apply_to(&mut self, learned: &mut Tracked, scope: Scope) -> Changes {
        self.follower.apply_to(learned, scope)
    }
}

fn plain(route: &netlink::KernelRoute) -> KernelRoute {
    let netlink::KernelRoute { destination, table, tos, metric, protocol, kind, next_hops } = route;
    KernelRoute {
        destination: *destination,
        table: *table,
        tos: *tos,
        metric: *metric,
        protocol: *protocol,
        kind: plain_kind(*kind),
        next_hops: next_hops.iter().map(plain_hop).collect(),
    }
}

fn plain_hop(hop: &netlink::KernelHop) -> KernelHop {
    let netlink::KernelHop { oif, gateway, weight, onlink, usable } = *hop;
    KernelHop { oif, gateway, weight, onlink, usable }
}

fn plain_kind(kind: netlink::RouteKind) -> RouteKind {
    match kind {
        netlink::RouteKind::Unicast => RouteKind::Unicast,
        netlink::RouteKind::Local => RouteKind::Local,
        netlink::RouteKind::Blackhole => RouteKind::Blackhole,
        netlink::RouteKind::Unreachable => RouteKind::Unreachable,
        netlink::RouteKind::Prohibit => RouteKind::Prohibit,
        netlink::RouteKind::Other(number) => RouteKind::Other(number),
    }
}

fn plain_placement(placement: netlink::Placement) -> Placement {
    match placement {
        netlink::Placement::First => Placement::First,
        netlink::Placement::Replaces => Placement::Replaces,
        netlink::Placement::Appended => Placement::Appended,
    }
}
