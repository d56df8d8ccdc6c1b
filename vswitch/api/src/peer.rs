//! The other nodes: how a source names them, and how the daemon reaches them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Mac, Source};

/// How packets reach a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// VXLAN, RFC 7348.
    Vxlan,
    /// IP in IP, RFC 2003; IPv6 inside as protocol 41, RFC 4213.
    Ipip,
    /// None: the underlay routes the pods' addresses.
    Direct,
}

/// Whether packets to a peer are encapsulated at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encapsulate {
    /// Always.
    Always,
    /// Unless the peer is on the uplink's own link: the kernel reaches it without a router.
    CrossSubnet,
    /// Never: the underlay routes the pods' addresses.
    Never,
}

/// A peer as configured or added at run time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSpec {
    /// Name of the peer; unique.
    pub name: String,
    /// Underlay address.
    pub address: IpAddr,
    /// Prefixes of its pods.
    pub prefixes: Vec<IpNet>,
    /// Encapsulation of packets to it; the node's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encapsulation: Option<Encapsulation>,
    /// Whether packets to it are encapsulated; the node's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encapsulate: Option<Encapsulate>,
    /// MAC of its VXLAN device; derived from its address if absent, as our own nodes do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep_mac: Option<Mac>,
}

/// Peers that a source names: all of them, or what changed. The daemon takes what it can;
/// a peer that it refuses does not keep the others out. What it knows already costs nothing.
///
/// A complete list is one request of at most `MAX_REQUEST_BYTES`, some ten thousand peers. A source with
/// more sends parts with `complete` false, and names those that are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSync {
    /// The source; [`Source::Kubernetes`] alone may send this.
    pub source: Source,
    /// Whether peers of this source that are not in `peers` are withdrawn.
    pub complete: bool,
    /// Peers to add, or to replace if they differ.
    pub peers: Vec<PeerSpec>,
    /// Names of the peers to withdraw.
    pub gone: Vec<String>,
}

/// A peer that was not taken. One that had been taken before stays as it was; the refused form is
/// remembered, and taken once nothing stands against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPeer {
    /// Its name.
    pub name: String,
    /// What is wrong with it, in words.
    pub reason: String,
}

/// A peer, as it is reached now, or hidden or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// The peer as configured.
    #[serde(flatten)]
    pub spec: PeerSpec,
    /// Encapsulation in force.
    pub in_force: Encapsulation,
    /// Whether packets are to be encapsulated, as decided for this peer.
    pub policy: Encapsulate,
    /// What decided on `in_force`: `as configured`, `on the uplink's link`, `behind router ADDRESS`,
    /// `the way there is unknown`.
    pub reason: String,
    /// Name of its [`Source`].
    pub source: String,
    /// Why it, or it with these prefixes, is not in force; absent if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<String>,
    /// The underlay's next hop, as the kernel routes.
    pub next_hop: Option<IpAddr>,
    /// Its MAC, as the kernel resolved it.
    pub next_hop_mac: Option<Mac>,
    /// Largest inner packet, bytes.
    pub mtu: u32,
    /// `ready`, what is missing, `hidden` or `refused`.
    pub state: String,
}
