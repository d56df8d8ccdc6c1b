//! Messages that attach and detach a pod's interface.
//!
//! The plugin first reserves (addresses, MTU, gateway), then builds the interface, then attaches it
//! by passing its file descriptor. `Detach` undoes both, in whatever state they are.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{AddressRange, Bandwidth, Mac, PortMapping};

/// Queues that a pod's interface has at most.
pub const MAX_QUEUES: u8 = 8;

/// The number of queues where none is named: what older versions have.
#[must_use]
pub fn one_queue() -> u8 {
    1
}

/// Whether it is that number, which is not written.
#[must_use]
pub fn is_one_queue(queues: &u8) -> bool {
    *queues == 1
}

/// Key of a pod's interface in every CNI call. It is never the path of a network namespace, which
/// may be gone or reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentId {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

/// The name by which people know the pod, from CNI_ARGS, where the runtime gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_NAME.
    pub name: String,
    /// K8S_POD_UID, which older runtimes do not give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// How a pod's port is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Mode {
    /// A /32 and /128 with one gateway neighbour; no L2 between pods.
    Routed,
    /// A member of an L2 segment, with the length of the node's prefix.
    Bridged {
        /// Name of the bridge domain; the node's default one if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bridge: Option<String>,
    },
}

/// Asks for addresses and for everything else that the plugin needs to build the interface.
/// Repeated for the same attachment, it gives the same answer; for one that has a live port it is
/// a conflict, as its runtime must delete it first. What is reserved stays so until its `Detach`, or
/// until a [`Collect`] does not list it, whether it was attached or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    /// The attachment to reserve for.
    pub attachment: AttachmentId,
    /// Name of the network whose configuration asks: GC of another network leaves the attachment alone.
    /// Older plugins name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Name of the pod, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Name of the container, where a runtime outside of Kubernetes gives one: for people, and for
    /// `[[policies]]` of the daemon's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Path of the pod's network namespace, for messages only.
    pub netns: String,
    /// How the port is to be attached; the daemon's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Addresses that were allocated by a delegated IPAM plugin; the daemon allocates if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegated: Option<Box<Delegated>>,
    /// Addresses that the pod must get (runtimeConfig `ips`, CNI_ARGS `IP`), from the daemon's own
    /// pool; at most one a family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested: Vec<IpAddr>,
    /// Ranges (runtimeConfig `ipRanges`) of which the addresses of their family are to be, where the daemon
    /// allocates. An older daemon does not heed them: the plugin looks at what it got.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<AddressRange>,
    /// MAC that the pod must get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Ports of the node that lead to the pod once it is attached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// Limits of its traffic.
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub bandwidth: Bandwidth,
    /// Queues that the interface is to have, each read by a worker of its own.
    #[serde(default = "one_queue", skip_serializing_if = "is_one_queue")]
    pub queues: u8,
}

/// Addresses that a delegated IPAM plugin allocated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegated {
    /// Addresses with the length of their subnet.
    pub addresses: Vec<IpNet>,
    /// Their gateways, if it named some.
    pub gateways: Vec<IpAddr>,
}

/// Answer to [`Reserve`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// Addresses to configure, with the length to configure: /32 and /128 when routed, the node
    /// prefix's when bridged.
    pub addresses: Vec<IpNet>,
    /// Next hops of the default routes, one a family.
    pub gateways: Vec<IpAddr>,
    /// The gateway's MAC, to be installed as a permanent neighbour.
    pub gateway_mac: Mac,
    /// The pod's own MAC.
    pub mac: Mac,
    /// MTU of the pod's interface, bytes.
    pub mtu: u32,
    /// The mode that was chosen.
    #[serde(flatten)]
    pub mode: Mode,
    /// The mappings that were asked for. A daemon that knows none answers without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// The limits that are kept: none if the daemon is an older one, which knows of none.
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub bandwidth: Bandwidth,
    /// Queues that the interface is to be made with: as many as were asked for and workers can read. One, of an
    /// older daemon.
    #[serde(default = "one_queue", skip_serializing_if = "is_one_queue")]
    pub queues: u8,
}

/// Hands over the interface; its file descriptor travels with the message, or one for each queue. Answered when
/// every worker forwards for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The attachment; it must have been reserved.
    pub attachment: AttachmentId,
    /// The interface's MAC as the kernel shows it.
    pub mac: Mac,
    /// How many of the descriptors that travel with it are queues of the interface; they come first.
    #[serde(default = "one_queue", skip_serializing_if = "is_one_queue")]
    pub queues: u8,
}

/// Frees what a network's runtime does not know any more: CNI GC. An attachment that is listed and has
/// no network, as an older version reserved it, is this network's from then on; one that is not
/// listed and has no network is left alone, as it may be another network's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// Name of the network.
    pub network: String,
    /// All of the network's attachments that the runtime knows.
    pub valid: BTreeSet<AttachmentId>,
}

/// Asks whether the attachment stands as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The attachment to check.
    pub attachment: AttachmentId,
    /// Addresses that the pod has, without their length.
    pub addresses: Vec<IpAddr>,
    /// MAC that the pod has.
    pub mac: Mac,
    /// Mappings that the runtime asked for, where it repeats them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// Limits that its runtime wants; an older plugin names none, and they are not compared then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// Queues that its configuration wants; not compared if an older plugin names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u8>,
    /// Queues of the interface that the kernel gives packets to; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_queues: Option<u32>,
}

/// Change that a live pod's interface needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    /// The attachment of the pod.
    pub attachment: AttachmentId,
    /// Path of the pod's network namespace, as its runtime gave it. The interface there is the pod's
    /// only if it bears the attachment's mark: the path may lead elsewhere by now.
    pub netns: String,
    /// MTU that the interface is to have, bytes.
    pub mtu: u32,
}

/// Where to look for pods that the journal may have lost: their interfaces tell what they hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// Attachments that are not lost.
    pub known: BTreeSet<AttachmentId>,
    /// Directories of network namespaces.
    pub directories: BTreeSet<PathBuf>,
}

/// What a pod holds that the journal lost, as its interface shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recover {
    /// The attachment, as the interface's mark names it.
    pub attachment: AttachmentId,
    /// Path of the pod's network namespace.
    pub netns: String,
    /// Addresses of the interface with their lengths, without link-local ones.
    pub addresses: Vec<IpNet>,
    /// Neighbours that were set for good: the gateways.
    pub gateways: Vec<IpAddr>,
    /// MAC of the interface.
    pub mac: Mac,
    /// MTU of the interface, bytes.
    pub mtu: u32,
}

/// Pod's interface that is to be opened again: the daemon was started anew, and its descriptor is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reattachment {
    /// The attachment of the pod.
    pub attachment: AttachmentId,
    /// Path of the pod's network namespace, as its runtime gave it. The interface there is the pod's
    /// only if it bears the attachment's mark: the path may lead elsewhere by now.
    pub netns: String,
    /// MAC of the interface.
    pub mac: Mac,
    /// Limits of the pod's traffic.
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub bandwidth: Bandwidth,
    /// Queues to open if the interface was made for several.
    #[serde(default = "one_queue", skip_serializing_if = "is_one_queue")]
    pub queues: u8,
}
