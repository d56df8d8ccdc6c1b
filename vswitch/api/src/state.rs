//! What `status` and `show` answer: the daemon's state, flattened for tables and JSON.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{AttachmentId, Bandwidth, Encapsulate, Encapsulation, Mac, Mode, PodName, PortMapping};

/// Origin of a peer or a route. For the same prefix the earlier one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The configuration file.
    Config,
    /// A request at run time; it survives a restart.
    Runtime,
    /// The kernel's routing table, and the programs that write to it: BIRD, FRR, `ip route`.
    Kernel,
    /// The cluster's API server, by `vswitch-agent`; it survives a restart.
    Kubernetes,
}

impl Source {
    /// Name of the source as it is shown.
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
    /// Version of the daemon.
    pub version: String,
    /// Name of this node.
    pub node: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// Epoch of the published tables.
    pub epoch: u64,
    /// Prefixes of this node's pods.
    pub pod_prefixes: Vec<IpNet>,
    /// Prefixes of all pods of this cluster.
    pub cluster_prefixes: Vec<IpNet>,
    /// MTU of the pods' interfaces, bytes.
    pub pod_mtu: u32,
    /// Attachments with a live port.
    pub pods: usize,
    /// Peers in force.
    pub peers: usize,
    /// Counts of the peers and routes of each source that names any.
    #[serde(default)]
    pub sources: Vec<SourceStatus>,
    /// The NIC; absent on a node without one.
    pub uplink: Option<UplinkStatus>,
    /// The pinned worker threads.
    pub workers: Vec<WorkerStatus>,
    /// Name of the host port's interface.
    pub host_interface: Option<String>,
    /// How pods' traffic to the world outside is masqueraded, if it is.
    pub masquerade: Option<MasqueradeStatus>,
    /// Counts of the kernel's routes, if its routing table is a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_routes: Option<KernelRoutes>,
    /// Parts of the node that others changed and the daemon put right since it started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<RepairStatus>,
    /// Time from publishing tables to every worker's using them, microseconds: p50, p99, max.
    pub publish_latency_us: Option<[u64; 3]>,
    /// What was chosen at start, each with its reason; and what needs the operator's attention.
    pub choices: Vec<String>,
    /// What needs the operator's attention.
    pub warnings: Vec<String>,
    /// Why an ADD would fail, or pods suffer, now; empty if all is well. CNI's STATUS is made of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ServiceProblem>,
    /// Pods that lost their interface; one of `problems` is about them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_pods: Vec<LostPod>,
}

/// A pod whose interface is gone, though its network namespace is there. It stays so until its DEL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostPod {
    /// The attachment of the pod.
    pub attachment: AttachmentId,
    /// Name of the pod, if its runtime gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
}

/// What keeps the node from serving its pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceProblem {
    /// What it does to pods.
    pub kind: ServiceProblemKind,
    /// What is wrong, and what to do about it.
    pub reason: String,
}

/// What a [`ServiceProblem`] does to pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceProblemKind {
    /// No pod can be added; those that are there are well.
    AddsFail,
    /// The daemon has no address for another pod. One whose addresses another IPAM plugin allocates can
    /// be added.
    NoAddress,
    /// Pods that are there lose packets, or reach less than they should.
    PodsSuffer,
}

/// A part of the node that was found changed by others and put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// The part, in words.
    pub part: String,
    /// How often it was put right.
    pub count: u64,
    /// What was wrong the last time.
    pub last: String,
    /// The program that had changed it then, as far as the kernel reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The rules by which pods reach the world outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasqueradeStatus {
    /// Connections that were masqueraded since the rules were set; absent if the rules are gone.
    pub connections: Option<u64>,
    /// Destinations that see pods' own addresses, beside the cluster itself.
    pub exceptions: Vec<IpNet>,
}

/// Counts of the peers and routes of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The source.
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

/// Counts of the kernel's routes by what became of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRoutes {
    /// Prefixes that are routed as in the kernel's table.
    pub taken: usize,
    /// Routes that mean nothing here, such as those within this node's own prefix.
    pub ignored: usize,
    /// Routes that would do harm.
    pub refused: usize,
    /// The first of the refused routes.
    pub refusals: Vec<RefusedRoute>,
}

/// A route that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRoute {
    /// Destination.
    pub prefix: IpNet,
    /// What is wrong with it, in words.
    pub reason: String,
}

/// The NIC that carries the pods' traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Name of its interface.
    pub interface: String,
    /// How packets come from the NIC: `af_xdp`, `offload` or `af_packet`.
    pub kind: String,
    /// Why it is of this kind; absent if the configuration says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind_reason: Option<String>,
    /// Where the XDP program runs: `native` or `generic`, with the reason; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp_mode: Option<String>,
    /// `zero-copy`, or `copy` with the reason; absent for a kind that has no choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_mode: Option<String>,
    /// Queues that are read: the NIC's with a socket, those of the TAP beside it, or packet sockets.
    pub queues: usize,
    /// Underlay address, once it has one; the IPv4 one if it has one of each family.
    pub address: Option<IpAddr>,
    /// IPv6 underlay address beside an IPv4 one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<Ipv6Addr>,
    /// MTU of the NIC, bytes.
    pub mtu: u32,
    /// Default encapsulation.
    pub encapsulation: Encapsulation,
    /// Whether packets to a peer are encapsulated, by default.
    pub encapsulate: Encapsulate,
    /// VXLAN network identifier.
    pub vni: u32,
    /// VXLAN UDP port.
    pub vxlan_port: u16,
    /// MAC that peers of `address` put into the inner Ethernet header of VXLAN.
    pub vtep_mac: Option<Mac>,
    /// MAC that peers of `address6` put there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep_mac6: Option<Mac>,
}

/// One pinned thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Number of the worker.
    pub id: usize,
    /// The core that it is pinned to, unless that was refused.
    pub core: Option<usize>,
    /// How it shares its core with others; absent in the first second, and where the kernel does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_share: Option<WorkerCoreShare>,
    /// Queues of the NIC that it owns.
    pub queues: Vec<u32>,
    /// How it sends by the NIC: `af_xdp`, by its first queue, or `af_packet`, by a packet socket; absent
    /// without an uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sends_by: Option<String>,
    /// How it reads and writes pods' ports and the host port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_io: Option<WorkerPortIo>,
    /// Pods' ports and host port that it receives from.
    pub ports: usize,
    /// Epoch of the tables that it uses.
    pub epoch: u64,
    /// Packet frames that are free.
    pub frames_free: usize,
    /// Packet frames in all, free or not.
    pub frames_total: usize,
    /// The longest turn of its loop that had packets, microseconds, since the last `status`.
    #[serde(default)]
    pub longest_turn_us: u64,
    /// Other workers to which it leaves packets of IPIP, by their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hands_over_to: Vec<usize>,
    /// Packets that it has left to others since the start.
    #[serde(default)]
    pub handed_over: u64,
}

/// How a worker reads and writes its ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPortIo {
    /// `io_uring`, many packets by one system call, or `read_write`, one.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Shares of the core of a worker in the time since an earlier `status`, or since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCoreShare {
    /// Length of that time.
    pub seconds: u64,
    /// Of that time the worker had work and another thread had its core.
    pub waited_percent: u8,
    /// Of that time other threads, or the kernel for them, ran on the core; absent for a worker that is not
    /// pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others_percent: Option<u8>,
}

/// Kind of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// A pod's TAP.
    Pod,
    /// The host port, to the node's own kernel.
    Host,
    /// The NIC.
    Uplink,
}

/// One port, summed over workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortEntry {
    /// Number of the port in the datapath.
    pub id: u16,
    /// `namespace/pod` or container id for a pod, else the interface.
    pub name: String,
    /// Kind of the port.
    pub kind: PortKind,
    /// False for a pod that was reserved and not attached yet, and once its namespace is gone and its
    /// DEL has not come.
    pub up: bool,
    /// MAC of the pod's interface; of any other port, its own.
    pub mac: Option<Mac>,
    /// Addresses of the pod.
    pub addresses: Vec<IpAddr>,
    /// MTU, bytes.
    pub mtu: u32,
    /// Offloads in words: `csum tso uso vxlan`.
    pub offloads: String,
    /// Attachment, if it is a pod's port.
    pub attachment: Option<AttachmentId>,
    /// Name of the network that the pod was attached to, if its plugin gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Name of the pod, if its runtime gave one.
    pub pod: Option<PodName>,
    /// How the port is attached, if it is a pod's.
    pub mode: Option<Mode>,
    /// Ports of the node that lead to the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// Limits of the pod's traffic.
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub bandwidth: Bandwidth,
    /// The worker that receives from it, or from its first queue; none for the uplink, as its queues are spread.
    pub worker: Option<usize>,
    /// The queues of a pod's interface, in their order; none are named where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<PortQueue>,
    /// Packets and bytes.
    pub counters: PortCounters,
}

/// One of several queues of a pod's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortQueue {
    /// The worker that receives from it.
    pub worker: usize,
    /// Packets received by it.
    pub rx_packets: u64,
}

/// Packets and bytes of one port; rx and tx as seen from the switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    /// Packets received from the port.
    pub rx_packets: u64,
    /// Bytes received from the port.
    pub rx_bytes: u64,
    /// Packets sent to the port.
    pub tx_packets: u64,
    /// Bytes sent to the port.
    pub tx_bytes: u64,
    /// Packets from this port that were dropped.
    pub dropped: u64,
    /// How often reading from the port was put off, as the limit of what it sends was used up.
    #[serde(default)]
    pub rx_delayed: u64,
    /// Packets to the port that waited, as the limit of what it receives was used up.
    #[serde(default)]
    pub tx_delayed: u64,
    /// Packets that the kernel dropped as the queue of the port's interface to the switch was full, since
    /// the interface was made; in no other counter. Absent where the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_full: Option<u64>,
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
    /// Seconds since a learned MAC was last seen; absent for others.
    pub age_seconds: Option<u64>,
    /// The worker that learned a learned MAC; absent for others.
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
    /// The peer of this name.
    Peer {
        /// Name of the peer.
        name: String,
    },
    /// The node's kernel.
    Host,
    /// Dropped silently (counted).
    Blackhole,
    /// Dropped, and answered by ICMP unreachable.
    Unreachable,
}

/// One route, as it forwards now or waits for another's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FibEntry {
    /// Destination.
    pub prefix: IpNet,
    /// Where it leads: `pod default/web`, `peer node-b vxlan via 198.51.100.1`, `host`, `gateway`.
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
    /// What the kernel dropped before the switch received it, or after the switch had sent it; in none of
    /// the sums.
    #[serde(default)]
    pub kernel: Vec<DropCount>,
    /// What the kernel counts of the NIC's queues that have a socket.
    #[serde(default)]
    pub nic_queues: Vec<NicQueue>,
}

/// The kernel's counters of one queue of the NIC, or rather of its AF_XDP socket, since the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicQueue {
    /// Number of the queue.
    pub queue: u32,
    /// The worker that owns it.
    pub worker: Option<usize>,
    /// Frames that were dropped for want of memory to receive into, or as they were too long.
    pub rx_dropped: u64,
    /// Frames that were dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Times that a frame came and the fill ring, the memory to receive into, was empty.
    pub fill_ring_empty: u64,
    /// Descriptors in the fill ring that the kernel refused.
    pub rx_invalid_descriptors: u64,
    /// Descriptors in the transmit ring that the kernel refused.
    pub tx_invalid_descriptors: u64,
    /// Times that the kernel looked for frames to send and there were none; no loss.
    pub tx_ring_empty: u64,
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
