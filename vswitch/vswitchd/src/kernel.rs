//! Reads the kernel's routing table for the control plane, which follows and judges it.
//!
//! Enters: netlink's routes and events. Leaves: the same as the control plane's plain values, into
//! its [`Follower`].

use controlplane::kernel::{
    Follower, KernelHop, KernelRoute, Placement, ROUTE_PROTOCOL, RouteKind, TableEvent,
};
use dataplane::Millis;
use netlink::{Event, Netlink, RouteFilter};

// The control plane refuses to follow the routes that netlink marks as ours.
const _: () = assert!(ROUTE_PROTOCOL == netlink::ROUTE_PROTOCOL);

/// Hands an event to a follower. True if something of its table may be different.
pub fn on_event(follower: &mut Follower, event: &Event) -> bool {
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
