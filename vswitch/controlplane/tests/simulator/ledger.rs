//! What clients were told: the witness against which the model is held.
//!
//! Enters: requests, with what became of each. Leaves: for each key the last thing that was promised
//! of it. Of a request that nobody answered anything may have become: nothing is promised of its keys.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{
    Attach, AttachmentId, Collect, Mac, PeerSpec, PolicySync, Reply, Request, Reserved,
    RouteTarget, Source,
};
use controlplane::model::Model;
use ipnet::IpNet;

use crate::policies::Committed;

/// What was promised of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promised {
    pub(crate) reserved: Reserved,
    /// The network that its last reservation named; unknown if that named none.
    network: Option<String>,
    /// Unknown if nothing was promised before, as a request that nobody answered may have done it.
    pub(crate) is_attached: Option<bool>,
}

/// The last promise by key: it is there so, or it is not there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) leases: BTreeMap<AttachmentId, Option<Promised>>,
    peers: BTreeMap<(Source, String), Option<PeerSpec>>,
    routes: BTreeMap<IpNet, Option<RouteTarget>>,
    fdb: BTreeMap<(String, Mac), Option<IpAddr>>,
    neighbors: BTreeMap<(String, IpAddr), Option<Mac>>,
    pods: Option<Vec<IpNet>>,
    policies: Policies,
}

/// What was committed of policies.
#[derive(Debug, Clone, Default)]
struct Policies {
    /// It is one of these, of which there are several after a commit that nobody answered; unknown if
    /// there is none.
    may_be: Vec<Committed>,
    /// Parts of a change that is not committed.
    staged: Vec<PolicySync>,
}

impl Policies {
    /// A part was taken.
    fn take(&mut self, part: &PolicySync) {
        if part.part == 0 {
            self.staged.clear();
        }
        self.staged.push(part.clone());
        if part.commit {
            let parts = std::mem::take(&mut self.staged);
            self.may_be.iter_mut().for_each(|one| *one = one.after(&parts));
        }
    }

    /// A part was taken, or it was not.
    fn may_take(&mut self, part: &PolicySync) {
        let without = self.may_be.clone();
        self.take(part);
        self.may_be.extend(without);
        self.may_be.dedup();
    }
}

fn is_renewal(before: &Reserved, now: &Reserved) -> bool {
    *before == Reserved { bandwidth: before.bandwidth, queues: before.queues, ..now.clone() }
}

impl Ledger {
    /// A request was answered.
    pub(crate) fn answered(&mut self, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::Reserve(reserve), Reply::Reserved(reserved)) => {
                let before = self.leases.get(&reserve.attachment);
                let is_attached = match before {
                    None => None,
                    // The same answer again, but for the limits, for one whose port is gone.
                    Some(Some(before)) if is_renewal(&before.reserved, reserved) => {
                        before.is_attached
                    }
                    Some(_) => Some(false),
                };
                let network = reserve.network.clone();
                let promised = Promised { reserved: reserved.clone(), network, is_attached };
                self.leases.insert(reserve.attachment.clone(), Some(promised));
            }
            (Request::Attach(Attach { attachment, mac, .. }), _) => {
                if let Some(Some(promised)) = self.leases.get_mut(attachment) {
                    (promised.reserved.mac, promised.is_attached) = (*mac, Some(true));
                }
            }
            (Request::Detach(attachment), _) => {
                self.leases.insert(attachment.clone(), None);
            }
            (Request::Collect(Collect { network, valid }), _) => {
                self.leases.retain(|attachment, promised| match promised {
                    Some(Promised { network: None, .. }) => valid.contains(attachment),
                    _ => true,
                });
                for (attachment, promised) in &mut self.leases {
                    let of = promised.as_ref().and_then(|promised| promised.network.as_ref());
                    if of == Some(network) && !valid.contains(attachment) {
                        *promised = None;
                    }
                }
            }
            (Request::Adjusted { attachment, mtu }, _) => {
                if let Some(Some(promised)) = self.leases.get_mut(attachment) {
                    promised.reserved.mtu = *mtu;
                }
            }
            (Request::AddRoute(route), _) => {
                self.routes.insert(route.prefix, Some(route.target.clone()));
            }
            (Request::DeleteRoute(prefix), _) => drop(self.routes.insert(*prefix, None)),
            (Request::AddPeer(peer), _) => {
                self.peers.insert((Source::Runtime, peer.name.clone()), Some(peer.clone()));
            }
            (Request::DeletePeer(name), _) => {
                self.peers.insert((Source::Runtime, name.clone()), None);
                // A peer goes with its routes.
                let is_there = |target: &Option<RouteTarget>| matches!(target, Some(RouteTarget::Peer { name: of }) if of == name);
                self.routes.retain(|_, target| !is_there(target));
            }
            (Request::SyncPeers(sync), Reply::Synced(refused)) => {
                let source = sync.source;
                if sync.complete {
                    let ours = self.peers.iter_mut().filter(|((of, _), _)| *of == source);
                    ours.for_each(|(_, promised)| *promised = None);
                }
                for name in &sync.gone {
                    self.peers.insert((source, name.clone()), None);
                }
                for peer in &sync.peers {
                    self.peers.insert((source, peer.name.clone()), Some(peer.clone()));
                }
                // One that is refused may be as it was, and may be taken later.
                for refused in refused {
                    self.peers.remove(&(source, refused.name.clone()));
                }
            }
            (Request::SyncPolicies(part), _) => self.policies.take(part),
            (Request::ForgetPolicies, _) => {
                self.policies =
                    Policies { may_be: vec![Committed::default()], ..Policies::default() };
            }
            (Request::SetPodPrefixes(prefixes), _) => self.pods = Some(prefixes.clone()),
            (Request::AddFdb { bridge, mac, vtep }, _) => {
                self.fdb.insert((bridge.clone(), *mac), Some(*vtep));
            }
            (Request::DeleteFdb { bridge, mac }, _) => {
                self.fdb.insert((bridge.clone(), *mac), None);
            }
            (Request::AddNeighbor { bridge, address, mac }, _) => {
                self.neighbors.insert((bridge.clone(), *address), Some(*mac));
            }
            (Request::DeleteNeighbor { bridge, address }, _) => {
                self.neighbors.insert((bridge.clone(), *address), None);
            }
            _ => {}
        }
    }

    /// The process died before it answered.
    pub(crate) fn unanswered(&mut self, request: &Request) {
        match request {
            Request::Reserve(reserve) => drop(self.leases.remove(&reserve.attachment)),
            Request::Attach(Attach { attachment, .. })
            | Request::Detach(attachment)
            | Request::Adjusted { attachment, .. } => drop(self.leases.remove(attachment)),
            Request::Collect(Collect { network, valid }) => {
                let of = |promised: &Option<Promised>| promised.as_ref()?.network.clone();
                self.leases.retain(|attachment, promised| {
                    valid.contains(attachment) || of(promised).is_some_and(|of| of != *network)
                });
            }
            Request::AddRoute(route) => drop(self.routes.remove(&route.prefix)),
            Request::DeleteRoute(prefix) => drop(self.routes.remove(prefix)),
            Request::AddPeer(peer) => {
                self.peers.remove(&(Source::Runtime, peer.name.clone()));
            }
            Request::DeletePeer(name) => {
                self.peers.remove(&(Source::Runtime, name.clone()));
                self.routes.clear();
            }
            Request::SyncPeers(sync) => self.peers.retain(|(of, _), _| *of != sync.source),
            Request::SyncPolicies(part) => self.policies.may_take(part),
            Request::ForgetPolicies => self.policies.may_be.push(Committed::default()),
            Request::SetPodPrefixes(_) => self.pods = None,
            Request::AddFdb { bridge, mac, .. } | Request::DeleteFdb { bridge, mac } => {
                self.fdb.remove(&(bridge.clone(), *mac));
            }
            Request::AddNeighbor { bridge, address, .. }
            | Request::DeleteNeighbor { bridge, address } => {
                self.neighbors.remove(&(bridge.clone(), *address));
            }
            _ => {}
        }
    }

    /// A request was refused.
    pub(crate) fn refused(&mut self, request: &Request) {
        if matches!(request, Request::SyncPolicies(_)) {
            self.policies.staged.clear();
        }
    }

    /// A process begins: nothing is staged, and what is unknown of policies is what its model has.
    pub(crate) fn begins(&mut self, model: &Model) {
        self.policies.staged.clear();
        if self.policies.may_be.is_empty() {
            self.policies.may_be.push(Committed::of(&model.policies));
        }
    }

    /// Of what a pod holds nothing is promised any more.
    pub(crate) fn forget_lease(&mut self, pod: &AttachmentId) {
        self.leases.remove(pod);
    }

    /// Likewise of what all pods hold.
    pub(crate) fn forget_leases(&mut self) {
        self.leases.clear();
    }

    /// Whether a pod was promised something.
    pub(crate) fn is_promised(&self, pod: &AttachmentId) -> bool {
        matches!(self.leases.get(pod), Some(Some(_)))
    }

    /// A pod that has ended holds nothing.
    pub(crate) fn is_freed(&mut self, pod: &AttachmentId) {
        self.leases.insert(pod.clone(), None);
    }

    /// The node may have been told other prefixes by its configuration.
    pub(crate) fn forget_pod_prefixes(&mut self) {
        self.pods = None;
    }

    /// The first promise that a model breaks.
    pub(crate) fn broken_by(&self, model: &Model) -> Option<String> {
        self.leases
            .iter()
            .find_map(|(attachment, promised)| {
                let lease = model.attachments.get(attachment);
                let is_kept = match (promised, lease) {
                    (None, None) => true,
                    (Some(Promised { reserved, network, is_attached }), Some(lease)) => {
                        reserved.addresses == lease.addresses
                            && (network.is_none() || *network == lease.network)
                            && reserved.gateways == lease.gateways
                            && (reserved.mac, reserved.mtu) == (lease.mac, lease.mtu)
                            && is_attached.is_none_or(|is_attached| is_attached == lease.attached)
                    }
                    _ => false,
                };
                broken(is_kept, attachment, promised, &lease)
            })
            .or_else(|| {
                self.peers.iter().find_map(|(key, promised)| {
                    let peer = model.source_rib.peer(key.0, &key.1);
                    broken(promised.as_ref() == peer, key, promised, &peer)
                })
            })
            .or_else(|| {
                self.routes.iter().find_map(|(prefix, promised)| {
                    let route = model.source_rib.route(Source::Runtime, prefix);
                    broken(promised.as_ref() == route, prefix, promised, &route)
                })
            })
            .or_else(|| {
                self.fdb.iter().find_map(|(key, promised)| {
                    let vtep = model.fdb.get(key);
                    broken(promised.as_ref() == vtep, key, promised, &vtep)
                })
            })
            .or_else(|| {
                self.neighbors.iter().find_map(|(key, promised)| {
                    let mac = model.neighbors.get(key);
                    broken(promised.as_ref() == mac, key, promised, &mac)
                })
            })
            .or_else(|| {
                let promised = self.pods.as_ref()?;
                let current = model.pods.current();
                broken(model.pods.is_same(promised), &"pod prefixes", promised, &current)
            })
            .or_else(|| {
                let may_be = &self.policies.may_be;
                let current = Committed::of(&model.policies);
                let is_kept = may_be.is_empty() || may_be.contains(&current);
                broken(is_kept, &"policies", may_be, &current)
            })
    }
}

fn broken(
    is_kept: bool,
    key: &impl std::fmt::Debug,
    promised: &impl std::fmt::Debug,
    actual: &impl std::fmt::Debug,
) -> Option<String> {
    (!is_kept).then(|| format!("{key:?}: {promised:?} was answered, and it is {actual:?}"))
}
