//! What `status` and `show` answer: the daemon's state, flattened for tables and JSON.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{AttachmentId, Mac, Mode, PodName};

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

/// Who says that a peer or a route is there. For the same prefix the earlier one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The configuration file.
    Config,
    /// A request at run time; it survives a restart.
    Runtime,
    /// The kernel's routing table, and whoever writes there: BIRD, FRR, `ip route`.
    Kernel,
    /// The cluster's API server, by `vswitch-agent`; it survives a restart.
    Kubernetes,
}

impl Source {
    /// As it is shown.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Runtime => "runtime",
            Self::Kernel => "kernel",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// The daemon as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// Of this node.
    pub node: String,
    /// Since the daemon started.
    pub uptime_seconds: u64,
    /// Of the published tables.
    pub epoch: u64,
    /// This node's pods come from these.
    pub pod_prefixes: Vec<IpNet>,
    /// Everything that is a pod of this cluster.
    pub cluster_prefixes: Vec<IpNet>,
    /// MTU of the pods' interfaces, bytes.
    pub pod_mtu: u32,
    /// Attachments with a live port.
    pub pods: usize,
    /// Peers in force.
    pub peers: usize,
    /// What each source says of peers and routes; those that say something.
    #[serde(default)]
    pub sources: Vec<SourceStatus>,
    /// The NIC; absent on a node without one.
    pub uplink: Option<UplinkStatus>,
    /// Pinned threads.
    pub workers: Vec<WorkerStatus>,
    /// Name of the host port's interface.
    pub host_interface: Option<String>,
    /// How pods' traffic to the world outside is masqueraded, if it is.
    pub masquerade: Option<MasqueradeStatus>,
    /// What is made of the kernel's routing table, if it is a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_routes: Option<KernelRoutes>,
    /// What of the node was found changed by others and put right since the daemon started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<RepairStatus>,
    /// Time from publishing tables to every worker's using them, microseconds: p50, p99, max.
    pub publish_latency_us: Option<[u64; 3]>,
    /// What was chosen at start, each with its reason; and what needs the operator's attention.
    pub choices: Vec<String>,
    /// What needs the operator's attention.
    pub warnings: Vec<String>,
}

/// A part of the node that was found changed by others and put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// What it is, in words.
    pub part: String,
    /// How often it was put right.
    pub count: u64,
    /// What was wrong the last time.
    pub last: String,
    /// The program that had changed it then, as far as the kernel tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The rules by which pods reach the world outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasqueradeStatus {
    /// Connections that were masqueraded since the rules were set; absent if the rules are gone.
    pub connections: Option<u64>,
    /// What sees pods' own addresses beside the cluster itself.
    pub exceptions: Vec<IpNet>,
}

/// What a source says, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Who.
    pub source: Source,
    /// Its peers in force.
    pub peers: usize,
    /// Its routes in force.
    pub routes: usize,
    /// Its peers and routes that another source hides, or a part of them.
    pub hidden: usize,
    /// Its peers that are refused now.
    pub refused: usize,
    /// How often a peer was refused since the daemon started.
    pub refused_total: u64,
}

/// What is made of the kernel's routing table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRoutes {
    /// Prefixes that are routed as the kernel says.
    pub taken: usize,
    /// Routes that mean nothing here, such as those within this node's own prefix.
    pub ignored: usize,
    /// Routes that would do harm.
    pub refused: usize,
    /// The first of those.
    pub refusals: Vec<RefusedRoute>,
}

/// A route that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRoute {
    /// Destination.
    pub prefix: IpNet,
    /// What is wrong with it, for people.
    pub reason: String,
}

/// The NIC that carries the pods' traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Its name.
    pub interface: String,
    /// How packets come from the NIC: `af_xdp`.
    pub kind: String,
    /// Where the XDP program runs: `native` or `generic`, with the reason; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp_mode: Option<String>,
    /// `zero-copy`, or `copy` with the reason; absent for a kind that has no choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_mode: Option<String>,
    /// Queues with a socket.
    pub queues: usize,
    /// Underlay address, once it has one; the IPv4 one if it has one of each family.
    pub address: Option<IpAddr>,
    /// IPv6 underlay address beside an IPv4 one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<Ipv6Addr>,
    /// Bytes.
    pub mtu: u32,
    /// Default encapsulation.
    pub encapsulation: Encapsulation,
    /// Whether it is used, by default.
    pub encapsulate: Encapsulate,
    /// VXLAN network identifier.
    pub vni: u32,
    /// VXLAN UDP port.
    pub vxlan_port: u16,
    /// MAC that peers of `address` put into the inner Ethernet header of VXLAN.
    pub vtep_mac: Option<Mac>,
    /// Likewise those of `address6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep_mac6: Option<Mac>,
}

/// One pinned thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub id: usize,
    /// The core that it is pinned to, unless that was refused.
    pub core: Option<usize>,
    /// Queues of the NIC that it owns.
    pub queues: Vec<u32>,
    /// How it sends by the NIC: `af_xdp`, by its first queue, or `af_packet`, without a queue; absent
    /// without an uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sends_by: Option<String>,
    /// Pods and host port whose packets it receives.
    pub ports: usize,
    /// Epoch of the tables that it uses.
    pub epoch: u64,
    /// Packet frames free, of all.
    pub frames_free: usize,
    /// Packet frames in all.
    pub frames_total: usize,
    /// The longest turn of its loop that had packets, microseconds, since the last `status`.
    #[serde(default)]
    pub longest_turn_us: u64,
}

/// What a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// A pod's TAP.
    Pod,
    /// The node's own.
    Host,
    /// The NIC.
    Uplink,
}

/// One port, summed over workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortEntry {
    /// Its number in the datapath.
    pub id: u16,
    /// `namespace/pod` or container id for a pod, else the interface.
    pub name: String,
    /// What it is.
    pub kind: PortKind,
    /// False for a pod that was reserved and not attached yet, and once its namespace is gone and its
    /// DEL has not come.
    pub up: bool,
    /// Of the pod's interface, or ours towards it.
    pub mac: Option<Mac>,
    /// The pod's.
    pub addresses: Vec<IpAddr>,
    /// Bytes.
    pub mtu: u32,
    /// Offloads in words: `csum tso uso`.
    pub offloads: String,
    /// For a pod.
    pub attachment: Option<AttachmentId>,
    /// For a pod whose runtime named it.
    pub pod: Option<PodName>,
    /// For a pod.
    pub mode: Option<Mode>,
    /// The worker that receives from it; none for the uplink, whose queues are spread.
    pub worker: Option<usize>,
    /// Packets and bytes.
    pub counters: PortCounters,
}

/// Packets and bytes of one port; rx and tx as seen from the switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    /// From the port.
    pub rx_packets: u64,
    /// From the port.
    pub rx_bytes: u64,
    /// To the port.
    pub tx_packets: u64,
    /// To the port.
    pub tx_bytes: u64,
    /// Packets from this port that were dropped.
    pub dropped: u64,
}

/// One MAC of a bridge domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// Bridge domain.
    pub bridge: String,
    /// Destination MAC.
    pub mac: Mac,
    /// Name of the port behind which it is.
    pub port: Option<String>,
    /// Underlay address of the VTEP behind which it is.
    pub vtep: Option<IpAddr>,
    /// `static`, `runtime` or `learned`.
    pub source: String,
    /// For a learned one: since it was last seen.
    pub age_seconds: Option<u64>,
    /// For a learned one: who learned it.
    pub worker: Option<usize>,
}

/// A route that is added at run time or configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Destination.
    pub prefix: IpNet,
    /// Where it goes.
    #[serde(flatten)]
    pub target: RouteTarget,
}

/// Where a route goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "kebab-case")]
pub enum RouteTarget {
    /// To the peer of this name.
    Peer {
        /// Its name.
        name: String,
    },
    /// To the node's kernel.
    Host,
    /// Nowhere, silently (counted).
    Blackhole,
    /// Nowhere, answered by ICMP unreachable.
    Unreachable,
}

/// One route, as it forwards now or waits for another's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FibEntry {
    /// Destination.
    pub prefix: IpNet,
    /// In words: `pod default/web`, `peer node-b vxlan via 198.51.100.1`, `host`, `gateway`.
    pub target: String,
    /// Where it comes from: `attachment`, `node`, or a [`Source`].
    pub source: String,
    /// Largest packet that passes, bytes.
    pub mtu: Option<u32>,
    /// Why it does not forward; absent if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<String>,
}

/// One IP to MAC mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborEntry {
    /// Address.
    pub address: IpAddr,
    /// MAC, once resolved.
    pub mac: Option<Mac>,
    /// `pod NAME`, `bridge NAME` or `underlay IFNAME`.
    pub on: String,
    /// `attachment`, `runtime`, `config` or `kernel`.
    pub source: String,
    /// The kernel's state for an underlay neighbour: `reachable`, `stale`, `failed`, and so on.
    pub state: String,
}

/// A peer as configured or added at run time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSpec {
    /// Unique.
    pub name: String,
    /// Underlay address.
    pub address: IpAddr,
    /// Its pods.
    pub prefixes: Vec<IpNet>,
    /// The node's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encapsulation: Option<Encapsulation>,
    /// The node's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encapsulate: Option<Encapsulate>,
    /// MAC of its VXLAN device; derived from its address if absent, as our own nodes do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep_mac: Option<Mac>,
}

/// What a source says of the other nodes: all of it, or what changed. The daemon takes what it can;
/// a peer that it refuses does not keep the others out. What it knows already costs nothing.
///
/// All of it is one request of at most `MAX_REQUEST_BYTES`, some ten thousand peers. A source with
/// more sends parts with `complete` false, and names those that are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSync {
    /// Who says so; [`Source::Kubernetes`] alone may.
    pub source: Source,
    /// Peers of this source that are not in `peers` are withdrawn.
    pub complete: bool,
    /// Added, or replaced if they differ.
    pub peers: Vec<PeerSpec>,
    /// Withdrawn, by name.
    pub gone: Vec<String>,
}

/// A peer that was not taken. One that had been taken before stays as it was; the refused form is
/// remembered, and taken once nothing stands against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPeer {
    /// Its name.
    pub name: String,
    /// What is wrong with it, for people.
    pub reason: String,
}

/// A peer, as it is reached now, or hidden or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// As configured.
    #[serde(flatten)]
    pub spec: PeerSpec,
    /// In force.
    pub in_force: Encapsulation,
    /// Whether packets are to be encapsulated, as decided for this peer.
    pub policy: Encapsulate,
    /// What decided on `in_force`: `as configured`, `on the uplink's link`, `behind router ADDRESS`,
    /// `the way there is unknown`.
    pub reason: String,
    /// A [`Source`].
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

/// Drops and the accounting that closes over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Packets from all ports.
    pub received: u64,
    /// Copies, replies, ICMP errors and segments that the switch made.
    pub made: u64,
    /// Packets to all ports.
    pub sent: u64,
    /// Sum of `reasons`.
    pub dropped: u64,
    /// Every reason with a count, by port.
    pub reasons: Vec<DropCount>,
}

/// One reason at one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// Name of the port that the packet came from.
    pub port: String,
    /// Name of the reason.
    pub reason: String,
    /// The reason in words.
    pub explanation: String,
    /// Packets.
    pub packets: u64,
}
