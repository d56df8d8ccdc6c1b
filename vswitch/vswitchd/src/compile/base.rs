//! What of the tables no pod of this node changes: other nodes, routes, what sources say.
//!
//! Enters: the same input as `compile`. Leaves: tables, for as long as nothing but pods and some of
//! the kernel's routes is different. These come and go more often than anything else, and there may
//! be a hundred thousand routes beside them, which are not to be compiled again for that.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::{Mac, PeerSpec, RouteTarget, Source};
use dataplane::tables::{AdjacencyId, Tables};
use dataplane::wire::MacAddr;
use ipnet::IpNet;

use super::adjacency::{Adjacencies, Known};
use super::bridge::bridge;
use super::candidates::reached_directly;
use super::ports::ports;
use super::rib::{self, Target};
use super::tunnels::tunnels;
use super::{HostPort, Input, UplinkPort, gateway};
use crate::config::Config;
use crate::kernel::Revision;
use crate::model::PodPrefixes;
use crate::path_mtu::PathMtus;
use crate::underlay::NextHop;

/// Adjacencies that nothing leads to are kept up to as many as are in use, and so many more.
const SPARE: usize = 1024;

/// Tables without pods.
#[derive(Debug)]
pub struct Base {
    made_of: MadeOf,
    tables: Tables,
    /// The adjacency of each prefix.
    routes: BTreeMap<IpNet, AdjacencyId>,
    known: Known,
    /// Addresses whose routes depend on there being no other.
    gaps: BTreeSet<IpAddr>,
    /// Adjacencies at first. Those that nothing leads to any more stay.
    made: usize,
}

impl Base {
    /// Of this input, whatever pods it has: the former one, if it suits or can follow.
    #[must_use]
    pub fn renew(former: Option<Self>, input: &Input<'_>) -> Self {
        match former {
            Some(mut base) => {
                if base.follow(input) {
                    base
                } else {
                    Self::of(input)
                }
            }
            None => Self::of(input),
        }
    }

    /// Of this input, made anew.
    #[must_use]
    pub fn of(input: &Input<'_>) -> Self {
        let none = BTreeMap::new();
        let input = Input { pods: &none, ..*input };
        let mut tables = Tables { tunnels: Arc::new(tunnels(&input)), ..Tables::default() };
        let mut known = Known::new();
        let mut adjacencies = Adjacencies::new(&input, &mut tables, &mut known);
        let routes = rib::routes(&input).routes.into_iter();
        let routes = routes
            .map(|route| (route.prefix, adjacencies.route(route.prefix, &route.target)))
            .collect();
        let made = tables.adjacencies.len();
        Self { made_of: MadeOf::new(&input), tables, routes, known, gaps: gaps(&input), made }
    }

    /// Becomes that of this input, if nothing but pods and a few of the kernel's routes is different.
    fn follow(&mut self, input: &Input<'_>) -> bool {
        if !self.made_of.is_of(input) {
            return false;
        }
        let revision = input.model.kernel.revision();
        if self.made_of.kernel == revision {
            return true;
        }
        if self.tables.adjacencies.len() > 2 * self.made + SPARE {
            return false;
        }
        let Some(mut prefixes) = input.model.kernel.since(self.made_of.kernel) else {
            return false;
        };
        let none = BTreeMap::new();
        let input = Input { pods: &none, ..*input };
        let gaps = gaps(&input);
        prefixes.extend(self.gaps.symmetric_difference(&gaps).map(|gap| IpNet::from(*gap)));
        self.tables.tunnels = Arc::new(tunnels(&input));
        let mut adjacencies = Adjacencies::new(&input, &mut self.tables, &mut self.known);
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
        (self.gaps, self.made_of.kernel) = (gaps, revision);
        true
    }

    /// The tables of an input that it suits.
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
        let mut adjacencies = Adjacencies::new(input, &mut tables, &mut known);
        // A gateway's address is no pod's, and the first pod of an address has it.
        let mut taken: HashSet<IpAddr> = input.model.pods.gateways().collect();
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

/// All that a base depends on. What is large is shared with the model, which replaces it as a whole
/// and never changes what another has.
#[derive(Debug)]
struct MadeOf {
    config: Config,
    peers: Arc<BTreeMap<String, (PeerSpec, Source)>>,
    routes: Arc<BTreeMap<IpNet, (RouteTarget, Source)>>,
    kernel: Revision,
    neighbors: BTreeMap<(String, IpAddr), Mac>,
    pods: PodPrefixes,
    cluster_prefixes: Vec<IpNet>,
    host: Option<HostPort>,
    uplink: Option<UplinkPort>,
    hops: Vec<Hop>,
    path_mtus: PathMtus,
    /// Of all peers, the kernel's among them.
    pod_mtu: u32,
}

/// An underlay address, and what forwarding has of the way there.
type Hop = (IpAddr, Option<IpAddr>, Option<MacAddr>, Option<u32>);

fn hop((address, hop): (&IpAddr, &NextHop)) -> Hop {
    // By name: whatever else a next hop will have is judged here.
    let NextHop { via, mac, mtu, neighbor: _, problem: _ } = hop;
    (*address, *via, *mac, *mtu)
}

impl MadeOf {
    fn new(input: &Input<'_>) -> Self {
        let model = input.model;
        Self {
            config: input.config.clone(),
            peers: Arc::clone(&model.peers),
            routes: Arc::clone(&model.routes),
            kernel: model.kernel.revision(),
            neighbors: model.neighbors.clone(),
            pods: model.pods.clone(),
            cluster_prefixes: model.cluster_prefixes.clone(),
            host: input.host.cloned(),
            uplink: input.uplink.cloned(),
            hops: input.next_hops.iter().map(hop).collect(),
            path_mtus: input.path_mtus.clone(),
            pod_mtu: input.pod_mtu(),
        }
    }

    /// Whether this is the input, but for the kernel's routes.
    fn is_of(&self, input: &Input<'_>) -> bool {
        let model = input.model;
        Arc::ptr_eq(&self.peers, &model.peers)
            && Arc::ptr_eq(&self.routes, &model.routes)
            && self.host.as_ref() == input.host
            && self.uplink.as_ref() == input.uplink
            && self.pods == model.pods
            && self.cluster_prefixes == model.cluster_prefixes
            && self.neighbors == model.neighbors
            && self.path_mtus == *input.path_mtus
            && self.config == *input.config
            && self.pod_mtu == input.pod_mtu()
            && self.hops.iter().copied().eq(input.next_hops.iter().map(hop))
    }
}
