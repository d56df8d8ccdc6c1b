//! The tables that no pod of this node changes: other nodes, routes, what sources name.
//!
//! Enters: the same input as `compile`. Leaves: tables, which follow what comes and goes: there may be
//! a hundred thousand routes beside it, which are not to be compiled again for that. A pod changes
//! nothing here; some peers, routes or next hops change what leads to them.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::tables::{AdjacencyId, Tables};
use ipnet::IpNet;

use super::adjacency::{Adjacencies, Known};
use super::bridge::bridge;
use super::candidates::reached_directly;
use super::made_of::{Difference, MadeOf};
use super::ports::ports;
use super::rib;
use super::route::Target;
use super::tunnels::tunnels;
use super::{Input, gateway, services};
use crate::model::services::ServedServices;

/// Adjacencies that nothing leads to any more are kept up to as many as are in use, and so many more.
const SPARE: usize = 1024;

/// Tables without pods.
#[derive(Debug)]
pub struct Base {
    made_of: MadeOf,
    tables: Tables,
    /// The adjacency of each prefix.
    routes: BTreeMap<IpNet, AdjacencyId>,
    known: Known,
    /// Addresses with routes that depend on there being no other.
    gaps: BTreeSet<IpAddr>,
    /// Adjacencies at first. Those that nothing leads to any more stay.
    made: usize,
}

impl Base {
    /// The base of this input, whatever pods it has: the former one, if it suits or can follow.
    #[must_use]
    pub fn renew(former: Option<Self>, input: &Input<'_>) -> Self {
        if let Some(mut base) = former
            && base.follow(input)
        {
            return base;
        }
        Self::of(input)
    }

    /// The base of this input, made anew.
    #[must_use]
    pub fn of(input: &Input<'_>) -> Self {
        let none = BTreeMap::new();
        let input = Input { pods: &none, ..*input };
        let mut tables = Tables { tunnels: Arc::new(tunnels(&input)), ..Tables::default() };
        let mut known = Known::new();
        let made_of = MadeOf::new(&input);
        let mut adjacencies = Adjacencies::new(&input, made_of.pod_mtu, &mut tables, &mut known);
        let routes = rib::routes(&input).routes.into_iter();
        let routes = routes
            .map(|route| (route.prefix, adjacencies.route(route.prefix, &route.target)))
            .collect();
        let made = tables.adjacencies.len();
        services::follow(&mut tables.services, &ServedServices::default(), &input.model.served);
        Self { made_of, tables, routes, known, gaps: gaps(&input), made }
    }

    /// Becomes that of this input, if what is different is not too much.
    fn follow(&mut self, input: &Input<'_>) -> bool {
        let difference = self.made_of.difference(input, self.routes.len());
        let Some(Difference { mut prefixes, ends }) = difference else { return false };
        let (old, new) = (&self.made_of.served, &input.model.served);
        if !Arc::ptr_eq(old, new) {
            services::follow(&mut self.tables.services, old, new);
        }
        if prefixes.is_empty() && ends.is_empty() {
            self.made_of.share(input);
            return true;
        }
        if self.tables.adjacencies.len() > 2 * self.made + SPARE {
            return false;
        }
        let none = BTreeMap::new();
        let input = Input { pods: &none, ..*input };
        let gaps = gaps(&input);
        prefixes.extend(self.gaps.symmetric_difference(&gaps).map(|gap| IpNet::from(*gap)));
        self.tables.tunnels = Arc::new(tunnels(&input));
        let pod_mtu = self.made_of.pod_mtu;
        let mut adjacencies = Adjacencies::new(&input, pod_mtu, &mut self.tables, &mut self.known);
        ends.into_iter().for_each(|end| adjacencies.forget(end));
        for route in rib::routes_for(&input, &prefixes) {
            let id = adjacencies.route(route.prefix, &route.target);
            self.routes.insert(route.prefix, id);
            prefixes.remove(&route.prefix);
        }
        for prefix in prefixes {
            if self.routes.remove(&prefix).is_some() {
                adjacencies.no_route(prefix, &self.routes);
            }
        }
        (self.gaps, self.made_of) = (gaps, MadeOf::new(&input));
        true
    }

    /// The tables of the input that it is of.
    #[must_use]
    pub fn tables(&self, input: &Input<'_>) -> Tables {
        let mut tables = Tables {
            epoch: input.epoch,
            ports: ports(input),
            bridges: vec![bridge(input)],
            gateway: gateway(input.model),
            ..self.tables.clone()
        };
        let mut known = Known::new();
        let pod_mtu = self.made_of.pod_mtu;
        let mut adjacencies = Adjacencies::new(input, pod_mtu, &mut tables, &mut known);
        // The node's own address is no pod's, and the first pod of an address has it.
        let mut taken: HashSet<IpAddr> = input.model.pods.own_addresses().collect();
        for (attachment, port) in input.pods {
            let Some(lease) = input.model.attachments.get(attachment) else { continue };
            for address in lease.addresses.iter().map(IpNet::addr) {
                if !taken.contains(&address) {
                    let target = Target::Pod { attachment, lease, port };
                    adjacencies.route(address.into(), &target);
                }
            }
            taken.extend(lease.addresses.iter().map(IpNet::addr));
        }
        tables
    }
}

fn gaps(input: &Input<'_>) -> BTreeSet<IpAddr> {
    reached_directly(input).into_iter().map(|(address, _)| address).collect()
}
