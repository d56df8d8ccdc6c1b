//! One change of the model: what the journal holds.
//!
//! Enters: edits that were judged, and those of the journal. Leaves: the changed model, and the
//! edits that undo the change. An edit states the new value of one key, so that applying it twice
//! is applying it once and a replay needs no history.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use api::{
    AttachmentId, GroupId, Mac, PeerSpec, RouteTarget, RuleSet, RuleSetId, ServiceSpec, Subject,
};
use dataplane::tables::LocalAddresses;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Lease, Model, PodPrefixes, Source};

/// The new value of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "most edits are leases")]
#[serde(tag = "edit", rename_all = "kebab-case")]
pub enum Edit {
    /// The attachment holds this.
    Lease {
        /// The attachment that this lease belongs to.
        attachment: AttachmentId,
        /// What it holds.
        lease: Lease,
    },
    /// The attachment holds nothing.
    NoLease {
        /// The attachment that holds nothing.
        attachment: AttachmentId,
    },
    /// A peer that a source named at run time.
    Peer {
        /// The whole peer.
        peer: PeerSpec,
        /// The source that named it.
        #[serde(default = "runtime", skip_serializing_if = "is_runtime")]
        source: Source,
    },
    /// The source names no such peer.
    NoPeer {
        /// Name of the peer.
        name: String,
        /// The source that named it before.
        #[serde(default = "runtime", skip_serializing_if = "is_runtime")]
        source: Source,
    },
    /// A service.
    Service {
        /// The whole service.
        service: ServiceSpec,
    },
    /// There is no such service.
    NoService {
        /// Name of the service.
        name: String,
    },
    /// Members of a group of pods come and go.
    Members {
        /// The group.
        group: GroupId,
        /// Those that leave, before others join.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        leave: Vec<IpAddr>,
        /// Those that join.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        join: Vec<IpAddr>,
    },
    /// The group has no members.
    NoMembers {
        /// The group.
        group: GroupId,
    },
    /// A rule set.
    RuleSet {
        /// Its name.
        id: RuleSetId,
        /// The rules.
        set: RuleSet,
    },
    /// There is no such rule set.
    NoRuleSet {
        /// Its name.
        id: RuleSetId,
    },
    /// The rule sets of a pod.
    Subject {
        /// The pod and its rule sets.
        subject: Subject,
    },
    /// It is not known which rule sets a pod has.
    NoSubject {
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        name: String,
    },
    /// All that is known of policies is as a source committed it, and comes to this number: the last
    /// edit of each commit, and of every line of the journal since the first.
    PoliciesAre {
        /// [`super::PolicyInputs::sum`]; absent before the first commit.
        sum: Option<u64>,
    },
    /// A route that was added at run time.
    Route {
        /// Destination.
        prefix: IpNet,
        /// Where it goes.
        target: RouteTarget,
    },
    /// No route has this prefix.
    NoRoute {
        /// Destination.
        prefix: IpNet,
    },
    /// A static FDB entry.
    Fdb {
        /// Bridge domain.
        bridge: String,
        /// Destination.
        mac: Mac,
        /// Underlay address of its VTEP.
        vtep: IpAddr,
    },
    /// No static FDB entry.
    NoFdb {
        /// Bridge domain.
        bridge: String,
        /// Destination.
        mac: Mac,
    },
    /// A static neighbour.
    Neighbor {
        /// Bridge domain.
        bridge: String,
        /// Address of the neighbour.
        address: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
    /// No static neighbour.
    NoNeighbor {
        /// Bridge domain.
        bridge: String,
        /// Address of the neighbour.
        address: IpAddr,
    },
    /// This node's prefixes for pods.
    PodPrefixes {
        /// All of the prefixes.
        pods: PodPrefixes,
    },
    /// No larger tunnel packet gets through to an underlay address.
    PathMtu {
        /// The address.
        address: IpAddr,
        /// Bytes.
        mtu: u16,
    },
    /// Nothing is known of what gets through to it.
    NoPathMtu {
        /// The address.
        address: IpAddr,
    },
    /// The addresses by which other nodes know this one; of a family without one now, the one that it had last.
    OwnAddresses {
        /// The address of IPv4.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        v4: Option<Ipv4Addr>,
        /// The address of IPv6.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        v6: Option<Ipv6Addr>,
    },
    /// The machine's present life, as the kernel names it.
    Boot {
        /// `/proc/sys/kernel/random/boot_id`.
        id: String,
    },
    /// The allocator gave out this address last, in its prefix.
    Cursor {
        /// The address.
        address: IpAddr,
    },
}

/// The source of an edit that names none in the journal: it was added at run time.
fn runtime() -> Source {
    Source::Runtime
}

fn is_runtime(source: &Source) -> bool {
    *source == Source::Runtime
}

impl Model {
    /// Makes changes and returns the edits that take them back, in the order to do so.
    pub fn apply_all(&mut self, edits: &[Edit]) -> Vec<Edit> {
        let mut undo: Vec<_> = edits.iter().map(|edit| self.apply(edit)).collect();
        undo.reverse();
        // Once for all of them: these look at every lease, and at every peer.
        if edits.iter().any(Edit::concerns_addresses) {
            self.choose_masquerade();
        }
        if edits.iter().any(Edit::concerns_sources) {
            self.resolve();
        } else if edits.iter().any(Edit::concerns_services) {
            self.serve();
        }
        undo
    }

    fn apply(&mut self, edit: &Edit) -> Edit {
        match edit.clone() {
            Edit::Lease { attachment, lease } => {
                let old = self.attachments.insert(attachment.clone(), lease.clone());
                for address in old.iter().flat_map(|old| &old.addresses) {
                    self.ipam.release(address.addr());
                }
                for address in &lease.addresses {
                    self.ipam.take(address.addr());
                }
                undo_lease(attachment, old)
            }
            Edit::NoLease { attachment } => {
                let old = self.attachments.remove(&attachment);
                for address in old.iter().flat_map(|old| &old.addresses) {
                    self.ipam.release(address.addr());
                }
                undo_lease(attachment, old)
            }
            Edit::Peer { peer, source } => {
                let name = peer.name.clone();
                let said = self.source_rib.peers.entry(source).or_default();
                match said.insert(name.clone(), Arc::new(peer)) {
                    Some(peer) => Edit::Peer { peer: Arc::unwrap_or_clone(peer), source },
                    None => Edit::NoPeer { name, source },
                }
            }
            Edit::NoPeer { name, source } => {
                match self.source_rib.peers.entry(source).or_default().remove(&name) {
                    Some(peer) => Edit::Peer { peer: Arc::unwrap_or_clone(peer), source },
                    None => Edit::NoPeer { name, source },
                }
            }
            Edit::Service { service } => {
                let name = service.name.clone();
                let services = Arc::make_mut(&mut self.services);
                undo_service(name.clone(), services.insert(name, Arc::new(service)))
            }
            Edit::NoService { name } => {
                let old = Arc::make_mut(&mut self.services).remove(&name);
                undo_service(name, old)
            }
            Edit::Members { group, leave, join } => {
                Arc::make_mut(&mut self.policies).change_members(group, leave, join)
            }
            Edit::NoMembers { group } => Arc::make_mut(&mut self.policies).remove_group(group),
            Edit::RuleSet { id, set } => {
                Arc::make_mut(&mut self.policies).set_rules(id, Some(set.into()))
            }
            Edit::NoRuleSet { id } => Arc::make_mut(&mut self.policies).set_rules(id, None),
            Edit::Subject { subject } => Arc::make_mut(&mut self.policies).set_subject(subject),
            Edit::NoSubject { namespace, name } => {
                Arc::make_mut(&mut self.policies).remove_subject(namespace, name)
            }
            Edit::PoliciesAre { sum } => Arc::make_mut(&mut self.policies).commit(sum),
            Edit::Route { prefix, target } => {
                match self.source_rib.runtime_routes().insert(prefix, target) {
                    Some(target) => Edit::Route { prefix, target },
                    None => Edit::NoRoute { prefix },
                }
            }
            Edit::NoRoute { prefix } => match self.source_rib.runtime_routes().remove(&prefix) {
                Some(target) => Edit::Route { prefix, target },
                None => Edit::NoRoute { prefix },
            },
            Edit::PodPrefixes { pods } => Edit::PodPrefixes { pods: self.set_pods(pods) },
            Edit::Fdb { bridge, mac, vtep } => match self.fdb.insert((bridge.clone(), mac), vtep) {
                Some(vtep) => Edit::Fdb { bridge, mac, vtep },
                None => Edit::NoFdb { bridge, mac },
            },
            Edit::NoFdb { bridge, mac } => match self.fdb.remove(&(bridge.clone(), mac)) {
                Some(vtep) => Edit::Fdb { bridge, mac, vtep },
                None => Edit::NoFdb { bridge, mac },
            },
            Edit::Neighbor { bridge, address, mac } => {
                match self.neighbors.insert((bridge.clone(), address), mac) {
                    Some(mac) => Edit::Neighbor { bridge, address, mac },
                    None => Edit::NoNeighbor { bridge, address },
                }
            }
            Edit::NoNeighbor { bridge, address } => {
                match self.neighbors.remove(&(bridge.clone(), address)) {
                    Some(mac) => Edit::Neighbor { bridge, address, mac },
                    None => Edit::NoNeighbor { bridge, address },
                }
            }
            Edit::PathMtu { address, mtu } => {
                undo_path_mtu(address, self.path_mtus.insert(address, mtu))
            }
            Edit::NoPathMtu { address } => undo_path_mtu(address, self.path_mtus.remove(&address)),
            Edit::OwnAddresses { v4, v6 } => {
                let LocalAddresses { v4, v6 } =
                    std::mem::replace(&mut self.recorded_own, LocalAddresses { v4, v6 });
                Edit::OwnAddresses { v4, v6 }
            }
            Edit::Boot { id } => {
                let old = self.boot.replace(id.clone());
                Edit::Boot { id: old.unwrap_or(id) }
            }
            Edit::Cursor { address } => {
                let old = self.ipam.set_cursor(address);
                Edit::Cursor { address: old.unwrap_or(address) }
            }
        }
    }
}

impl Edit {
    /// Whether it may change which addresses pods have, or may have.
    fn concerns_addresses(&self) -> bool {
        matches!(self, Self::Lease { .. } | Self::NoLease { .. } | Self::PodPrefixes { .. })
    }

    /// Whether it may change which services are served.
    fn concerns_services(&self) -> bool {
        matches!(self, Self::Service { .. } | Self::NoService { .. })
    }

    /// Whether it may change which peers and routes are in force.
    fn concerns_sources(&self) -> bool {
        matches!(
            self,
            Self::Peer { .. }
                | Self::NoPeer { .. }
                | Self::Route { .. }
                | Self::NoRoute { .. }
                | Self::PodPrefixes { .. }
        )
    }
}

fn undo_service(name: String, old: Option<Arc<ServiceSpec>>) -> Edit {
    match old {
        Some(service) => Edit::Service { service: Arc::unwrap_or_clone(service) },
        None => Edit::NoService { name },
    }
}

fn undo_path_mtu(address: IpAddr, old: Option<u16>) -> Edit {
    match old {
        Some(mtu) => Edit::PathMtu { address, mtu },
        None => Edit::NoPathMtu { address },
    }
}

/// Whether edits free what an attachment held, and lease nothing: a DEL's. It is carried out whether or
/// not it can be written.
#[must_use]
pub fn frees(edits: &[Edit]) -> bool {
    edits.iter().any(|edit| matches!(edit, Edit::NoLease { .. }))
        && !edits.iter().any(|edit| matches!(edit, Edit::Lease { .. }))
}

fn undo_lease(attachment: AttachmentId, old: Option<Lease>) -> Edit {
    match old {
        Some(lease) => Edit::Lease { attachment, lease },
        None => Edit::NoLease { attachment },
    }
}
