//! What the node should be: attachments, peers, routes, static entries.
//!
//! Enters: the configuration, requests from the control socket, the journal's replay. Leaves: what
//! `compile` makes tables of, and what `requests` shows. Pure data: every change is a list of
//! [`Edit`]s that was judged before (`attachments`, `overlay`, `sync`, `prefixes`), is applied by
//! [`Model::apply_all`], and can be taken back by the edits which that returns.
//!
//! Several sources may name the same peer or prefix. What each names is kept (`source_rib`); what is in
//! force is made of that anew with every change, so that nothing is lost while something better
//! hides it.

pub mod attachments;
pub mod edit;
pub mod ipam;
mod overlay;
pub mod policies;
mod port_mappings;
pub mod prefixes;
pub mod services;
pub mod source_rib;
pub mod sync;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::{
    AttachmentId, Bandwidth, ErrorKind, ErrorReply, Mac, Mode, PeerSpec, PodName, PortMapping,
    RouteTarget, ServiceSpec, Source, is_one_queue, one_queue,
};
use dataplane::tables::LocalAddresses;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Usual};
use crate::kernel::Tracked;
pub(crate) use attachments::pod_name;
pub use edit::{Edit, frees};
use ipam::Ipam;
pub use policies::PolicyInputs;
pub use prefixes::PodPrefixes;
use services::{NamedServices, ServedServices};
pub use source_rib::{Hidden, Refused, SourceRib};

/// What an attachment holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Name of the network that the pod was attached to; absent where an older version wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Name of the pod, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Name of the container, of a runtime outside of Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// The pod may have a name that was lost with a line of the journal.
    #[serde(default, skip_serializing_if = "is_false")]
    pub name_is_lost: bool,
    /// Path of the pod's namespace, for messages.
    pub netns: String,
    /// How the port is attached, with the bridge domain named.
    #[serde(flatten)]
    pub mode: Mode,
    /// Addresses as they are configured in the pod.
    pub addresses: Vec<IpNet>,
    /// Gateways, one a family.
    pub gateways: Vec<IpAddr>,
    /// MAC of the pod.
    pub mac: Mac,
    /// MTU of the pod's interface, bytes.
    pub mtu: u32,
    /// Limits of the pod's traffic.
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub bandwidth: Bandwidth,
    /// Queues that the pod's interface was to have; it has as many as there were workers to read them, at most.
    #[serde(default = "one_queue", skip_serializing_if = "is_one_queue")]
    pub queues: u8,
    /// Another IPAM plugin allocated the addresses.
    #[serde(default)]
    pub delegated: bool,
    /// The port was handed over once: the ADD was complete.
    #[serde(default)]
    pub attached: bool,
    /// Number of its port, which sessions name over a restart; absent where an older version wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Ports of the node that lead to the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
}

/// The desired state of a node.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Leases by container and interface.
    pub attachments: BTreeMap<AttachmentId, Lease>,
    /// The peers in force, by name; each with the prefixes that no source above has. Made of
    /// `source_rib`.
    pub peers: Arc<BTreeMap<String, (Arc<PeerSpec>, Source)>>,
    /// The routes in force, by destination. Made of `source_rib`.
    pub routes: Arc<BTreeMap<IpNet, (RouteTarget, Source)>>,
    /// Peers and routes that each source names, in force or not.
    pub source_rib: SourceRib,
    /// Peers and routes of `source_rib` that are not in force.
    pub hidden: Hidden,
    /// Peers that a source named last and could not have at all; judged again at its next message.
    pub refused: Refused,
    /// Services by name.
    pub services: Arc<NamedServices>,
    /// What of them is served. Made of `services`, and of who has which address.
    pub served: Arc<ServedServices>,
    /// What sources told of policies.
    pub policies: Arc<PolicyInputs>,
    /// This node's prefixes for pods.
    pub pods: PodPrefixes,
    /// VTEP by bridge domain and MAC.
    pub fdb: BTreeMap<(String, Mac), IpAddr>,
    /// MAC by bridge domain and address.
    pub neighbors: BTreeMap<(String, IpAddr), Mac>,
    /// The node's own addresses for pods.
    pub ipam: Ipam,
    /// The largest tunnel packet that gets through to an underlay address, bytes, as routers reported it:
    /// what the journal has of [`crate::path_mtu::PathMtus`].
    pub path_mtus: BTreeMap<IpAddr, u16>,
    /// The machine's life in which the leases were given, if a journal had it.
    pub boot: Option<String>,
    /// Prefixes of all pods of the cluster.
    pub cluster_prefixes: Vec<IpNet>,
    /// The node's underlay addresses, once they are known.
    pub(crate) own: LocalAddresses,
    /// They are all known, not just those of the configuration.
    pub(crate) own_is_complete: bool,
    /// The node's underlay addresses as the journal has them: where the uplink has several, they are kept.
    pub recorded_own: LocalAddresses,
    /// How peers are reached that have no settings of their own.
    pub(crate) usual: Option<Usual>,
    /// Routes of the kernel's routing table. No edit makes them, and they are not journalled: at the
    /// next start they are read again.
    pub kernel: Tracked,
}

impl Model {
    /// The model of a node on which nothing happened yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut model = Self::default();
        model.take_config(config);
        model
    }

    /// The model that a journal's edits and the configuration make.
    #[must_use]
    pub fn restored(config: &Config, edits: &[Edit]) -> Self {
        let mut model = Self::new(config);
        model.apply_all(edits);
        // What was configured last time may have been replaced by what the cluster assigned then.
        model.take_config(config);
        model
    }

    /// Replaces what came from the configuration by what it has now. What other sources name stays,
    /// in force or hidden by that.
    pub fn take_config(&mut self, config: &Config) {
        self.cluster_prefixes.clone_from(&config.node.cluster_prefixes);
        if self.own == LocalAddresses::default() {
            self.own = config.own_addresses();
        }
        self.usual = Some(Usual::of(config));
        self.source_rib.take_config(config);
        let configured = &config.node.pod_prefixes;
        if !configured.is_empty() && !self.pods.is_same(configured) {
            let pods = self.pods.followed_by(configured, &self.attachments);
            self.set_pods(pods);
        }
        self.choose_masquerade();
        self.resolve();
    }

    /// Sets the addresses by which other nodes know this one; no peer has them. While there is none at all,
    /// no peer is judged by that: each is of a family that may come.
    pub fn set_own_addresses(&mut self, own: LocalAddresses) {
        self.own_is_complete = own != LocalAddresses::default();
        if std::mem::replace(&mut self.own, own) != own {
            self.resolve();
        }
    }

    /// What has the journal know these as the node's underlay addresses, if it does not: a family that has none
    /// now keeps the one that it had.
    #[must_use]
    pub fn recording_own_addresses(&self, own: LocalAddresses) -> Option<Edit> {
        let former = self.recorded_own;
        let fresh = LocalAddresses { v4: own.v4.or(former.v4), v6: own.v6.or(former.v6) };
        (fresh != former).then_some(Edit::OwnAddresses { v4: fresh.v4, v6: fresh.v6 })
    }

    /// The edits that make this model's run-time part out of a new one: a snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Edit> {
        let leases = self.attachments.iter().map(|(attachment, lease)| Edit::Lease {
            attachment: attachment.clone(),
            lease: lease.clone(),
        });
        let pods = (!self.pods.is_empty()).then(|| Edit::PodPrefixes { pods: self.pods.clone() });
        let boot = self.boot.iter().map(|id| Edit::Boot { id: id.clone() });
        let LocalAddresses { v4, v6 } = self.recorded_own;
        let own = (v4.is_some() || v6.is_some()).then_some(Edit::OwnAddresses { v4, v6 });
        // Before the leases, which are taken from them.
        pods.into_iter()
            .chain(boot)
            .chain(own)
            .chain(leases)
            .chain(self.source_rib.edits())
            .chain(self.fdb.iter().map(|((bridge, mac), vtep)| Edit::Fdb {
                bridge: bridge.clone(),
                mac: *mac,
                vtep: *vtep,
            }))
            .chain(self.neighbors.iter().map(|((bridge, address), mac)| Edit::Neighbor {
                bridge: bridge.clone(),
                address: *address,
                mac: *mac,
            }))
            .chain(
                self.path_mtus
                    .iter()
                    .map(|(address, mtu)| Edit::PathMtu { address: *address, mtu: *mtu }),
            )
            .chain(
                self.services
                    .values()
                    .map(|service| Edit::Service { service: ServiceSpec::clone(service) }),
            )
            .chain(self.policies.edits())
            .chain(self.ipam.cursors().map(|address| Edit::Cursor { address }))
            .collect()
    }

    /// Notes the machine's present life. No pod outlives a reboot, whatever its runtime remembers: leases of
    /// a former life are freed; how many.
    pub fn begin_boot(&mut self, id: &str) -> usize {
        let is_another = self.boot.as_ref().is_some_and(|former| former != id);
        let stale: Vec<_> =
            if is_another { self.attachments.keys().cloned().collect() } else { Vec::new() };
        for attachment in &stale {
            let edits = self.detach(attachment);
            self.apply_all(&edits);
        }
        self.boot = Some(id.to_owned());
        stale.len()
    }

    /// Every other node: those that were named, and those that the kernel's routes lead to.
    pub fn all_peers(&self) -> impl Iterator<Item = &PeerSpec> {
        self.peers.values().map(|(peer, _)| peer.as_ref()).chain(self.kernel.peers.values())
    }

    /// Addresses that two attachments hold, which only a damaged journal can bring about.
    #[must_use]
    pub fn shared_addresses(&self) -> Vec<String> {
        let mut holders: BTreeMap<IpAddr, &AttachmentId> = BTreeMap::new();
        let mut warnings = Vec::new();
        for (attachment, lease) in &self.attachments {
            for net in &lease.addresses {
                if let Some(other) = holders.insert(net.addr(), attachment) {
                    warnings.push(format!(
                        "{} is held by {} and by {}: delete one of these pods",
                        net.addr(),
                        attachments::name(other),
                        attachments::name(attachment)
                    ));
                }
            }
        }
        warnings
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A refusal for the client.
pub fn refuse(kind: ErrorKind, message: impl Into<String>) -> ErrorReply {
    ErrorReply { kind, message: message.into() }
}
