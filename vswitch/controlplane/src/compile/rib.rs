//! Which route wins for each prefix.
//!
//! Enters: the same input as `compile`. Leaves: one route a prefix, to `compile` and to `show fib`.
//! Longer prefixes win in the FIB; for the same prefix the order here decides: the node's own
//! pods and gateways, then the sources in the order of `api::Source`, each one's routes before the
//! prefixes of its peers, and last what closes the gaps: an address of the cluster that no pod has
//! is answered as unreachable and never leaves for the host's kernel, which would send it back.

use std::collections::HashSet;

use ipnet::IpNet;

use super::Input;
use super::candidates::{Among, candidates};
use super::route::{RibRoute, RouteOrigin};

/// Every route that is to be had.
#[derive(Debug)]
pub struct Rib<'a> {
    /// Routes that forward, by prefix; one a prefix.
    pub routes: Vec<RibRoute<'a>>,
    /// Routes that do not forward, and what has their prefix.
    pub hidden: Vec<(RibRoute<'a>, RouteOrigin)>,
}

/// What wins for each prefix, and what does not.
#[must_use]
pub fn routes<'a>(input: &Input<'a>) -> Rib<'a> {
    select(candidates(input, Among::All))
}

/// The routes that win for these prefixes; none for those that have no route.
#[must_use]
pub fn routes_for<'a>(input: &Input<'a>, prefixes: &HashSet<IpNet>) -> Vec<RibRoute<'a>> {
    select(candidates(input, Among::These(prefixes))).routes
}

fn select(mut candidates: Vec<RibRoute<'_>>) -> Rib<'_> {
    // By family, address and length, as numbers: a hundred thousand are sorted here.
    candidates.sort_by_cached_key(|route| (sort_key(&route.prefix), route.origin.rank()));
    let mut rib = Rib { routes: Vec::with_capacity(candidates.len()), hidden: Vec::new() };
    for route in candidates {
        match rib.routes.last() {
            Some(winner) if winner.prefix == route.prefix => {
                rib.hidden.push((route, winner.origin));
            }
            _ => rib.routes.push(route),
        }
    }
    rib
}

fn sort_key(prefix: &IpNet) -> (bool, u128, u8) {
    match prefix {
        IpNet::V4(net) => (false, net.network().to_bits().into(), net.prefix_len()),
        IpNet::V6(net) => (true, net.network().to_bits(), net.prefix_len()),
    }
}
