//! Which route wins for each prefix.
//!
//! Enters: the same input as `compile`. Leaves: one route a prefix, to `compile` and to `show fib`.
//! Longer prefixes win in the FIB; for the same prefix the order here decides: the node's own
//! pods and gateway, what the operator added, the peers, and last what closes the gaps: an address
//! of the cluster that nobody has is answered as unreachable and never leaves for the host, whose
//! kernel would send it back.

use std::collections::BTreeMap;

use api::{AttachmentId, Mac, PeerSpec, RouteTarget};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Input, PodPort};
use crate::config::Config;
use crate::model::Lease;

/// Where a route leads.
#[derive(Debug, Clone)]
pub enum Target<'a> {
    /// A pod of this node.
    Pod {
        /// Whose.
        attachment: &'a AttachmentId,
        /// What it holds.
        lease: &'a Lease,
        /// Its port.
        port: &'a PodPort,
    },
    /// An address of this node's gateway.
    Gateway,
    /// The node's kernel.
    Host,
    /// Another node.
    Peer(&'a PeerSpec),
    /// A host of a bridge domain.
    Neighbor {
        /// The domain.
        bridge: &'a str,
        /// Its MAC.
        mac: Mac,
    },
    /// Dropped.
    Blackhole,
    /// Dropped, and the sender told.
    Unreachable,
}

/// One route.
#[derive(Debug, Clone)]
pub struct Route<'a> {
    /// Where it leads.
    pub target: Target<'a>,
    /// Where it comes from: `attachment`, `node`, `config`, `runtime`.
    pub source: &'static str,
}

/// Every route that forwards.
#[must_use]
pub fn routes<'a>(input: &Input<'a>) -> BTreeMap<IpNet, Route<'a>> {
    let mut routes = BTreeMap::new();
    let mut add = |prefix: IpNet, target, source| {
        routes.entry(prefix).or_insert(Route { target, source });
    };
    for prefix in &input.config.node.pod_prefixes {
        add(Config::gateway_of(prefix).into(), Target::Gateway, "node");
    }
    for (attachment, port) in input.pods {
        let Some(lease) = input.model.attachments.get(attachment) else { continue };
        for net in &lease.addresses {
            add(net.addr().into(), Target::Pod { attachment, lease, port }, "attachment");
        }
    }
    for ((bridge, address), mac) in &input.model.neighbors {
        add((*address).into(), Target::Neighbor { bridge, mac: *mac }, "runtime");
    }
    for (prefix, (target, source)) in &input.model.routes {
        let target = match target {
            RouteTarget::Peer { name } => match input.model.peers.get(name) {
                Some((peer, _)) => Target::Peer(peer),
                None => Target::Unreachable,
            },
            RouteTarget::Host => Target::Host,
            RouteTarget::Blackhole => Target::Blackhole,
            RouteTarget::Unreachable => Target::Unreachable,
        };
        add(*prefix, target, source.label());
    }
    for (peer, source) in input.model.peers.values() {
        for prefix in &peer.prefixes {
            add(*prefix, Target::Peer(peer), source.label());
        }
    }
    let node = &input.config.node;
    for prefix in node.pod_prefixes.iter().chain(&node.cluster_prefixes) {
        add(*prefix, Target::Unreachable, "node");
    }
    if input.host.is_some() {
        add(Ipv4Net::default().into(), Target::Host, "node");
        add(Ipv6Net::default().into(), Target::Host, "node");
    }
    routes
}
