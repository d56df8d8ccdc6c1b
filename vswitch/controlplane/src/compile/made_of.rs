//! All that a base depends on, and what an input has otherwise.
//!
//! Enters: the input that a base was made of, then another. Leaves: the prefixes that may have other
//! routes, and the ends that may have other adjacencies, to `base`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::{Mac, PeerSpec, RouteTarget, Source};
use dataplane::wire::MacAddr;
use ipnet::IpNet;

use super::{HostPort, Input, UplinkPort};
use crate::config::Config;
use crate::kernel::Revision;
use crate::model::PodPrefixes;
use crate::next_hop::NextHop;
use crate::path_mtu::PathMtus;

/// To follow more prefixes than these takes longer than to make all anew.
const MOST: usize = 4096;

/// All that a base depends on. What is large is shared with the model, which replaces it as a whole
/// and never changes what another has.
#[derive(Debug)]
pub(super) struct MadeOf {
    config: Config,
    peers: Arc<Peers>,
    routes: Arc<BTreeMap<IpNet, (RouteTarget, Source)>>,
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

type Peers = BTreeMap<String, (PeerSpec, Source)>;

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
    pub(super) prefixes: BTreeSet<IpNet>,
    /// Underlay addresses and neighbours that packets may have to be sent to otherwise.
    pub(super) ends: BTreeSet<IpAddr>,
}

impl MadeOf {
    pub(super) fn new(input: &Input<'_>) -> Self {
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
            hops: input.next_hops.iter().map(|(end, next)| (*end, hop(next))).collect(),
            path_mtus: input.path_mtus.clone(),
            pod_mtu: input.pod_mtu(),
        }
    }

    /// Of an input that is no different: it may have put the same together anew.
    pub(super) fn share(&mut self, input: &Input<'_>) {
        self.peers = Arc::clone(&input.model.peers);
        self.routes = Arc::clone(&input.model.routes);
    }

    /// What this input has otherwise; `None` if that may be anything.
    pub(super) fn difference(&self, input: &Input<'_>) -> Option<Difference> {
        if !self.is_same_node(input) {
            return None;
        }
        let model = input.model;
        let mut difference = Difference {
            prefixes: model.kernel.since(self.kernel)?,
            ends: self.path_mtus.differing(input.path_mtus).collect(),
        };
        difference.ends.extend(self.other_hops(input));
        difference.add_peers(&self.peers, &model.peers);
        if !Arc::ptr_eq(&self.routes, &model.routes) {
            difference.prefixes.extend(differing(&self.routes, &model.routes));
        }
        difference.add_what_leads_to_ends(input);
        (difference.prefixes.len() <= MOST).then_some(difference)
    }

    fn is_same_node(&self, input: &Input<'_>) -> bool {
        let model = input.model;
        self.host.as_ref() == input.host
            && self.uplink.as_ref() == input.uplink
            && self.pods == model.pods
            && self.cluster_prefixes == model.cluster_prefixes
            && self.neighbors == model.neighbors
            && self.pod_mtu == input.pod_mtu()
            && self.config == *input.config
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
