//! Reads the kernel's routing table for the control plane, which follows and judges it.
//!
//! Enters: netlink's routes and events. Leaves: the same as the control plane's plain values, into
//! its [`Follower`].

use controlplane::kernel::{
    Follower, KernelHop, KernelRoute, Placement, ROUTE_PROTOCOL, RouteKind, TableEvent,
};
use dataplane::Millis;
use netlink::{KernelEvent, Netlink, RouteFilter};

// The control plane refuses to follow the routes that netlink marks as ours.
const _: () = assert!(ROUTE_PROTOCOL == netlink::ROUTE_PROTOCOL);

/// Hands an event to a follower. True if something of its table may be different.
pub fn on_event(follower: &mut Follower, event: &KernelEvent) -> bool {
    match event {
        KernelEvent::RouteChanged(route, placement) => {
            follower.on_event(TableEvent::Changed(&plain(route), plain_placement(*placement)))
        }
        KernelEvent::RouteGone(route) => follower.on_event(TableEvent::Gone(&plain(route))),
        KernelEvent::LinkChanged(link) | KernelEvent::LinkGone(link) => {
            follower.on_event(TableEvent::Link(link.index))
        }
        KernelEvent::AddressChanged { .. }
        | KernelEvent::NextHopsChanged
        | KernelEvent::Overrun => follower.on_event(TableEvent::Any),
        KernelEvent::NeighborChanged(_) | KernelEvent::NeighborGone(_) => false,
    }
}

/// Reads a follower's table anew if that is needed.
///
/// # Errors
/// If the kernel does not answer; it is asked again next time.
pub fn settle(follower: &mut Follower, netlink: &mut Netlink, now: Millis) -> netlink::Result<()> {
    if follower.wants_reading(now) {
        let mut mirror = follower.empty();
        let table = RouteFilter::of_table(follower.table());
        netlink.kernel_routes(table, |route| mirror.read(plain(&route)))?;
        follower.take(mirror, now);
    }
    Ok(())
}

fn plain(route: &netlink::FibRoute) -> KernelRoute {
    let netlink::FibRoute { destination, table, tos, metric, protocol, kind, next_hops } = route;
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

fn plain_hop(hop: &netlink::FibHop) -> KernelHop {
    let netlink::FibHop { oif, gateway, weight, onlink, usable } = *hop;
    KernelHop { oif, gateway, weight, onlink, usable }
}

fn plain_kind(kind: netlink::FibRouteKind) -> RouteKind {
    match kind {
        netlink::FibRouteKind::Unicast => RouteKind::Unicast,
        netlink::FibRouteKind::Local => RouteKind::Local,
        netlink::FibRouteKind::Blackhole => RouteKind::Blackhole,
        netlink::FibRouteKind::Unreachable => RouteKind::Unreachable,
        netlink::FibRouteKind::Prohibit => RouteKind::Prohibit,
        netlink::FibRouteKind::Other(number) => RouteKind::Other(number),
    }
}

fn plain_placement(placement: netlink::RoutePlacement) -> Placement {
    match placement {
        netlink::RoutePlacement::First => Placement::First,
        netlink::RoutePlacement::Replaces => Placement::Replaces,
        netlink::RoutePlacement::Appended => Placement::Appended,
    }
}
