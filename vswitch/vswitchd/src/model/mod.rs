//! What the node should be: attachments, peers, routes, static entries.
//!
//! Enters: the configuration, requests from the control socket, the journal's replay. Leaves: what
//! `compile` makes tables of, and what `requests` shows. Pure data: every change is a list of
//! [`Edit`]s that was judged before (`attachments`, `overlay`), is applied by [`Model::apply`], and
//! can be taken back by the edits which that returns.

pub(crate) mod attachments;
pub mod edit;
pub mod ipam;
mod overlay;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{AttachmentId, ErrorKind, ErrorReply, Mac, Mode, PeerSpec, PodName, RouteTarget, Source};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::Config;
pub use edit::Edit;
use ipam::Ipam;

/// What an attachment holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Path of the pod's namespace, for messages.
    pub netns: String,
    /// With the bridge domain named.
    #[serde(flatten)]
    pub mode: Mode,
    /// As they are configured in the pod.
    pub addresses: Vec<IpNet>,
    /// One a family.
    pub gateways: Vec<IpAddr>,
    /// The pod's.
    pub mac: Mac,
    /// Of the pod's interface, bytes.
    pub mtu: u32,
    /// Another IPAM plugin allocated the addresses.
    #[serde(default)]
    pub delegated: bool,
    /// The port was handed over once: the ADD was complete.
    #[serde(default)]
    pub attached: bool,
}

/// The desired state of a node.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// By container and interface.
    pub attachments: BTreeMap<AttachmentId, Lease>,
    /// By name.
    pub peers: BTreeMap<String, (PeerSpec, Source)>,
    /// By destination.
    pub routes: BTreeMap<IpNet, (RouteTarget, Source)>,
    /// VTEP by bridge domain and MAC.
    pub fdb: BTreeMap<(String, Mac), IpAddr>,
    /// MAC by bridge domain and address.
    pub neighbors: BTreeMap<(String, IpAddr), Mac>,
    /// The node's own addresses for pods.
    pub ipam: Ipam,
}

impl Model {
    /// The model of a node on which nothing happened yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut model = Self { ipam: Ipam::new(&config.node.pod_prefixes), ..Self::default() };
        model.take_config(config);
        model
    }

    /// Replaces what came from the configuration by what it says now. Entries that were added at
    /// run time stay, unless the configuration has the same; those are returned as the edits that
    /// remove them, with a sentence each.
    pub fn take_config(&mut self, config: &Config) -> Vec<(Edit, String)> {
        self.peers.retain(|_, (_, source)| *source == Source::Runtime);
        self.routes.retain(|_, (_, source)| *source == Source::Runtime);
        let mut displaced = Vec::new();
        for (name, (peer, _)) in &self.peers {
            let problems = crate::config::check_peer(config, peer, &config.peers);
            if let Some((_, problem)) = problems.first() {
                let why = format!("peer \"{name}\", added at run time, is dropped: {problem}");
                displaced.push((Edit::NoPeer { name: name.clone() }, why));
            }
        }
        for prefix in self.routes.keys() {
            if config.routes.iter().any(|route| route.prefix == *prefix) {
                let why = format!(
                    "the route to {prefix}, added at run time, is dropped: the configuration has one"
                );
                displaced.push((Edit::NoRoute { prefix: *prefix }, why));
            }
        }
        for (edit, _) in &displaced {
            self.apply(edit);
        }
        for peer in &config.peers {
            self.peers.insert(peer.name.clone(), (peer.clone(), Source::Config));
        }
        for route in &config.routes {
            self.routes.insert(route.prefix, (route.target.clone(), Source::Config));
        }
        self.drop_dangling_routes(&mut displaced);
        displaced
    }

    fn drop_dangling_routes(&mut self, displaced: &mut Vec<(Edit, String)>) {
        let dangling: Vec<_> = self
            .routes
            .iter()
            .filter_map(|(prefix, (target, _))| match target {
                RouteTarget::Peer { name } if !self.peers.contains_key(name) => {
                    Some((*prefix, name.clone()))
                }
                _ => None,
            })
            .collect();
        for (prefix, name) in dangling {
            let edit = Edit::NoRoute { prefix };
            self.apply(&edit);
            let why = format!("the route to {prefix} is dropped: its peer \"{name}\" is gone");
            displaced.push((edit, why));
        }
    }

    /// The edits that make this model's run-time part out of a new one: a snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Edit> {
        let leases = self.attachments.iter().map(|(attachment, lease)| Edit::Lease {
            attachment: attachment.clone(),
            lease: lease.clone(),
        });
        let peers = self.peers.values().filter(|(_, source)| *source == Source::Runtime);
        let routes = self.routes.iter().filter(|(_, (_, source))| *source == Source::Runtime);
        leases
            .chain(peers.map(|(peer, _)| Edit::Peer { peer: peer.clone() }))
            .chain(routes.map(|(prefix, (target, _))| Edit::Route {
                prefix: *prefix,
                target: target.clone(),
            }))
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
            .chain(self.ipam.cursors().map(|address| Edit::Cursor { address }))
            .collect()
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

    /// The peers without who decided.
    #[must_use]
    pub fn peer_specs(&self) -> Vec<PeerSpec> {
        self.peers.values().map(|(peer, _)| peer.clone()).collect()
    }
}

/// A refusal for the client.
pub(crate) fn refuse(kind: ErrorKind, message: impl Into<String>) -> ErrorReply {
    ErrorReply { kind, message: message.into() }
}
