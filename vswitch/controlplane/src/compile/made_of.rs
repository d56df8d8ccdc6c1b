//! All that a base depends on, and what an input has otherwise.
//!
//! Enters: the input that a base was made of, then another. Leaves: the prefixes that may have other
//! routes, and the ends that may have other adjacencies, to `base`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::{Mac, PeerSpec, RouteTarget, Source};
use dataplane::wire::MacAddr;
use ipnet::IpNet;

use super::{HostPort, Input, UplinkPort};
use crate::config::Config;
use crate::kernel::{Revision, Tracked};
use crate::model::services::ServedServices;
use crate::model::{Model, PodPrefixes};
use crate::next_hop::NextHop;
use crate::path_mtu::PathMtus;

/// So many prefixes are followed whatever there is, and more if they are fewer than half of all: beyond that little
/// is left that need not be made anew.
const FEW: usize = 4096;

/// All that a base depends on. What is large is shared with the model, which replaces it as a whole
/// and never changes what another has.
#[derive(Debug)]
pub(super) struct MadeOf {
    config: Config,
    peers: Arc<Peers>,
    routes: Arc<BTreeMap<IpNet, (RouteTarget, Source)>>,
    pub(super) served: Arc<ServedServices>,
    kernel: Revision,
    neighbors: BTreeMap<(String, IpAddr), Mac>,
    pods: PodPrefixes,
    cluster_prefixes: Vec<IpNet>,
    host: Option<HostPort>,
    uplink: Option<UplinkPort>,
    hops: BTreeMap<IpAddr, Hop>,
    path_mtus: PathMtus,
    /// Of all peers, the kernel's among them: there may be many, so others have it from here.
    pub(super) pod_mtu: u32,
}

type Peers = BTreeMap<String, (Arc<PeerSpec>, Source)>;

/// What forwarding has of the way to an underlay address.
type Hop = (Option<IpAddr>, Option<MacAddr>, Option<u32>);

fn hop(hop: &NextHop) -> Hop {
    // By name: whatever else a next hop will have is judged here.
    let NextHop { via, mac, mtu, neighbor: _, problem: _ } = hop;
    (*via, *mac, *mtu)
}

/// What is different.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Prefixes that may have other routes, or routes that lead to another adjacency.
    pub(super) prefixes: HashSet<IpNet>,
    /// Underlay addresses and neighbours that packets may have to be sent to otherwise.
    pub(super) ends: BTreeSet<IpAddr>,
}

/// What a base depends on, in one input. Taken apart by name: whatever else an input or a model will
/// have does not compile until it is judged here.
struct Parts<'a> {
    config: &'a Config,
    peers: &'a Arc<Peers>,
    routes: &'a Arc<BTreeMap<IpNet, (RouteTarget, Source)>>,
    served: &'a Arc<ServedServices>,
    kernel: &'a Tracked,
    neighbors: &'a BTreeMap<(String, IpAddr), Mac>,
    pods: &'a PodPrefixes,
    cluster_prefixes: &'a [IpNet],
    host: Option<&'a HostPort>,
    uplink: Option<&'a UplinkPort>,
    next_hops: &'a BTreeMap<IpAddr, NextHop>,
    path_mtus: &'a PathMtus,
}

impl<'a> Parts<'a> {
    fn of(input: &Input<'a>) -> Self {
        // Pods, and what is attached to them, are no part of a base; an epoch is each tables' own.
        let Input { config, model, pods: _, host, uplink, next_hops, path_mtus, epoch: _ } = *input;
        let Model {
            // With the pods' ports.
            attachments: _,
            fdb: _,
            ipam: _,
            boot: _,
            // As the control plane knows them, below.
            path_mtus: _,
            peers,
            routes,
            // What is served of them is in `served`.
            services: _,
            served,
            // What is in force of these is in `peers` and `routes`.
            source_rib: _,
            hidden: _,
            refused: _,
            // The plane's compiler follows them.
            policies: _,
            own: _,
            own_is_complete: _,
            recorded_own: _,
            usual: _,
            pods,
            neighbors,
            cluster_prefixes,
            kernel,
        } = model;
        Self {
            config,
            peers,
            routes,
            served,
            kernel,
            neighbors,
            pods,
            cluster_prefixes,
            host,
            uplink,
            next_hops,
            path_mtus,
        }
    }
}

impl MadeOf {
    pub(super) fn new(input: &Input<'_>) -> Self {
        let parts = Parts::of(input);
        Self {
            config: parts.config.clone(),
            peers: Arc::clone(parts.peers),
            routes: Arc::clone(parts.routes),
            served: Arc::clone(parts.served),
            kernel: parts.kernel.revision(),
            neighbors: parts.neighbors.clone(),
            pods: parts.pods.clone(),
            cluster_prefixes: parts.cluster_prefixes.to_vec(),
            host: parts.host.cloned(),
            uplink: parts.uplink.cloned(),
            hops: parts.next_hops.iter().map(|(end, next)| (*end, hop(next))).collect(),
            path_mtus: parts.path_mtus.clone(),
            pod_mtu: input.pod_mtu(),
        }
    }

    /// Of an input that is no different: it may have put the same together anew.
    pub(super) fn share(&mut self, input: &Input<'_>) {
        self.peers = Arc::clone(&input.model.peers);
        self.routes = Arc::clone(&input.model.routes);
        self.served = Arc::clone(&input.model.served);
    }

    /// What this input has otherwise, beside so many routes; `None` if that may be anything, or is too much.
    pub(super) fn difference(&self, input: &Input<'_>, known: usize) -> Option<Difference> {
        // By name here, too: a part that is kept and not compared does not compile.
        let Parts {
            config,
            peers,
            routes,
            served,
            kernel,
            neighbors,
            pods,
            cluster_prefixes,
            host,
            uplink,
            next_hops: _,
            path_mtus,
        } = Parts::of(input);
        let is_same_node = self.host.as_ref() == host
            && self.uplink.as_ref() == uplink
            && self.pods == *pods
            && self.cluster_prefixes == cluster_prefixes
            && self.neighbors == *neighbors
            && self.pod_mtu == input.pod_mtu()
            && self.config == *config;
        if !is_same_node {
            return None;
        }
        let mut difference = Difference {
            prefixes: kernel.since(self.kernel)?.into_iter().collect(),
            ends: self.path_mtus.differing(path_mtus).collect(),
        };
        difference.ends.extend(self.other_hops(input));
        difference.add_peers(&self.peers, peers);
        if !Arc::ptr_eq(&self.routes, routes) {
            difference.prefixes.extend(differing(&self.routes, routes));
        }
        if !Arc::ptr_eq(&self.served, served) {
            let (old, new) = (&self.served.addresses, &served.addresses);
            difference.prefixes.extend(old.symmetric_difference(new).map(|one| IpNet::from(*one)));
        }
        difference.add_what_leads_to_ends(input);
        (difference.prefixes.len() <= FEW.max(known / 2)).then_some(difference)
    }

    fn other_hops(&self, input: &Input<'_>) -> Vec<IpAddr> {
        let fresh = input.next_hops.iter().map(|(end, next)| (end, hop(next)));
        if fresh.clone().eq(self.hops.iter().map(|(end, hop)| (end, *hop))) {
            return Vec::new();
        }
        let gone = self.hops.keys().filter(|end| !input.next_hops.contains_key(*end));
        let other = fresh.filter(|(end, hop)| self.hops.get(*end) != Some(hop));
        gone.chain(other.map(|(end, _)| end)).copied().collect()
    }
}

impl Difference {
    fn add_peers(&mut self, old: &Arc<Peers>, new: &Arc<Peers>) {
        if Arc::ptr_eq(old, new) {
            return;
        }
        for name in differing(old, new) {
            for (peer, _) in old.get(&name).into_iter().chain(new.get(&name)) {
                self.prefixes.extend(&peer.prefixes);
                self.ends.insert(peer.address);
            }
        }
    }

    /// Whatever route leads to one of the ends is looked at: those of peers, those that name a peer,
    /// the kernel's, and the end's own.
    fn add_what_leads_to_ends(&mut self, input: &Input<'_>) {
        if self.ends.is_empty() {
            return;
        }
        let model = input.model;
        let is_concerned = |peer: &PeerSpec| self.ends.contains(&peer.address);
        let concerned = || model.peers.values().filter(|(peer, _)| is_concerned(peer));
        self.prefixes.extend(concerned().flat_map(|(peer, _)| &peer.prefixes));
        self.prefixes.extend(model.routes.iter().filter_map(
            |(prefix, (target, _))| match target {
                RouteTarget::Peer { name } => {
                    // One that has gone was named by a route of before, or is named in vain.
                    model
                        .peers
                        .get(name)
                        .is_none_or(|(peer, _)| is_concerned(peer))
                        .then_some(*prefix)
                }
                _ => None,
            },
        ));
        for end in &self.ends {
            self.prefixes.extend(model.kernel.behind(end));
            self.prefixes.insert((*end).into());
        }
    }
}

/// The keys for which two maps have something else.
fn differing<K: Ord + Clone, V: PartialEq>(a: &BTreeMap<K, V>, b: &BTreeMap<K, V>) -> BTreeSet<K> {
    let missing = |a: &BTreeMap<K, V>, b: &BTreeMap<K, V>| -> Vec<K> {
        a.iter()
            .filter(|(key, value)| b.get(*key) != Some(*value))
            .map(|(key, _)| key.clone())
            .collect()
    };
    missing(a, b).into_iter().chain(missing(b, a)).collect()
}
