//! What of the tables no pod of this node changes: other nodes, routes, what sources say.
//!
//! Enters: the same input as `compile`. Leaves: tables, for as long as nothing but pods is
//! different. A pod comes or goes more often than anything else, and there may be a hundred
//! thousand routes beside it, which are not to be compiled again for that.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::{Mac, PeerSpec, RouteTarget, Source};
use dataplane::tables::Tables;
use dataplane::wire::MacAddr;
use ipnet::IpNet;

use super::rib::Target;
use super::{Adjacencies, HostPort, Input, UplinkPort, bridge, gateway, ports, tunnels};
use crate::config::Config;
use crate::kernel::Revision;
use crate::model::PodPrefixes;
use crate::path_mtu::PathMtus;
use crate::underlay::NextHop;

/// Tables without pods.
#[derive(Debug)]
pub struct Base {
    made_of: MadeOf,
    tables: Tables,
}

impl Base {
    /// Of this input, whatever pods it has.
    #[must_use]
    pub fn of(input: &Input<'_>) -> Self {
        let none = BTreeMap::new();
        let input = Input { pods: &none, ..*input };
        let mut tables = Tables { tunnels: Arc::new(tunnels(&input)), ..Tables::default() };
        let mut adjacencies = Adjacencies::new(&input, &mut tables);
        for route in super::rib::routes(&input).routes {
            adjacencies.route(route.prefix, &route.target);
        }
        Self { made_of: MadeOf::new(&input), tables }
    }

    /// Whether it is that of this input too.
    #[must_use]
    pub fn suits(&self, input: &Input<'_>) -> bool {
        self.made_of.is_of(input)
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
        let mut adjacencies = Adjacencies::new(input, &mut tables);
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
        }
    }

    fn is_of(&self, input: &Input<'_>) -> bool {
        let model = input.model;
        Arc::ptr_eq(&self.peers, &model.peers)
            && Arc::ptr_eq(&self.routes, &model.routes)
            && self.kernel == model.kernel.revision()
            && self.host.as_ref() == input.host
            && self.uplink.as_ref() == input.uplink
            && self.pods == model.pods
            && self.cluster_prefixes == model.cluster_prefixes
            && self.neighbors == model.neighbors
            && self.path_mtus == *input.path_mtus
            && self.config == *input.config
            && self.hops.iter().copied().eq(input.next_hops.iter().map(hop))
    }
}
