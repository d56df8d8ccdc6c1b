//! The configuration file.
//!
//! Enters: the text of a file. Leaves: a [`Config`] in which everything that can be
//! judged without looking at the machine is right, or every [`Problem`] with its line.
//!
//! | file | does |
//! |---|---|
//! | `read`     | typed values out of TOML, with the place of each |
//! | `sections` | each section and its defaults |
//! | `policies` | the sections `[[policies]]` |
//! | `semantic` | what values must be to one another |
//! | `values`   | what each must be by itself |
//! | `claims`   | what each peer may have, of whatever source |
//! | `metrics`  | where counters are read from |
//! | `former`   | what a reload replaced and peers may still send to |

mod claims;
mod former;
mod metrics;
mod policies;
mod read;
mod sections;
mod semantic;
#[cfg(test)]
mod tests;
mod values;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use api::{Encapsulate, Encapsulation, Mac, Mode, PeerSpec, RouteSpec};
use dataplane::tables::LocalAddresses;
use dataplane::tables::OuterDf;
use ipnet::IpNet;

pub(crate) use claims::{Claims, THIS_NODE, Usual};
pub use former::Former;
pub use metrics::MetricsAddress;
pub use policies::{PodPattern, PolicyPeer, PolicyRuleSettings, PolicySettings};
pub use read::{KeyLines, Problem};
pub(crate) use semantic::{check_pod_prefixes, check_route_prefix};

/// All settings of the operator's.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The node's name and its pods' prefixes.
    pub node: NodeSettings,
    /// The NIC; a node without one reaches only its own pods.
    pub uplink: Option<UplinkSettings>,
    /// How other nodes are reached.
    pub overlay: OverlaySettings,
    /// The node's own port, if it has one.
    pub host: Option<HostSettings>,
    /// How a pod is attached unless its request names another mode.
    pub attachment: Mode,
    /// The default bridge domain.
    pub bridge: BridgeSettings,
    /// The pinned threads.
    pub workers: WorkerSettings,
    /// Control socket and state directory.
    pub control: ControlSettings,
    /// Where counters are read from, by Prometheus or the like.
    pub metrics: MetricsSettings,
    /// What the daemon takes from itself.
    pub sandbox: SandboxSettings,
    /// What a cluster's pods have beside others.
    pub kubernetes: KubernetesSettings,
    /// What is allowed between pods, beside what sources tell.
    pub policies: Vec<PolicySettings>,
    /// The other nodes.
    pub peers: Vec<PeerSpec>,
    /// Further routes.
    pub routes: Vec<RouteSpec>,
    /// The kernel's routing table as a source of routes, if it is one.
    pub kernel_routes: Option<KernelRouteSettings>,
    /// Where each key stood.
    pub origin: KeyLines,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// Name of the node, for status, logs and peers.
    pub name: String,
    /// Prefixes of this node's pods, one a family; empty if the cluster assigns them at run time.
    pub pod_prefixes: Vec<IpNet>,
    /// Prefixes of all pods of this cluster.
    pub cluster_prefixes: Vec<IpNet>,
}

/// `[uplink]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkSettings {
    /// The NIC's name.
    pub interface: String,
    /// IPv4 underlay address; the interface's only one if absent.
    pub address: Option<Ipv4Addr>,
    /// IPv6 underlay address; likewise, apart from link-local ones and those that do not last.
    pub address6: Option<Ipv6Addr>,
    /// Answer requests on the underlay's link for addresses of this node's pods.
    pub proxy_neighbors: bool,
    /// How packets get from the NIC and to it.
    pub kind: UplinkChoice,
    /// Where the XDP program runs.
    pub xdp: Xdp,
    /// Ask the driver for zero-copy.
    pub zero_copy: bool,
    /// What an AF_XDP uplink sends by.
    pub send_by: SendByChoice,
}

/// What an AF_XDP uplink sends by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendByChoice {
    /// Its AF_XDP sockets if the driver has zero-copy, else packet sockets.
    Auto,
    /// Its AF_XDP sockets.
    AfXdp,
    /// Packet sockets.
    AfPacket,
}

/// How packets get from the NIC and to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UplinkChoice {
    /// AF_XDP sockets.
    AfXdp,
    /// A TAP beside the NIC, by which superframes pass whole.
    Offload,
    /// Packet sockets, which any driver and kernel has.
    AfPacket,
    /// AF_XDP if the driver has zero-copy, else the TAP if the kernel has what it takes, else AF_XDP, else packet
    /// sockets; and the next of these when one cannot be had any more.
    Auto,
}

/// Where the XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xdp {
    /// Native, else generic.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's stack.
    Generic,
}

/// `[overlay]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlaySettings {
    /// Encapsulation for peers that name none.
    pub encapsulation: Encapsulation,
    /// Whether packets are encapsulated, for peers that do not name it.
    pub encapsulate: Encapsulate,
    /// Encapsulations that are accepted from peers beside the one sent to them.
    pub accept: Vec<Encapsulation>,
    /// Further UDP ports on which VXLAN is taken.
    pub accept_vxlan_ports: Vec<u16>,
    /// Further identifiers of the routed overlay that are taken.
    pub accept_vnis: Vec<u32>,
    /// VXLAN network identifier of the routed overlay.
    pub vni: u32,
    /// VXLAN UDP port.
    pub vxlan_port: u16,
    /// Take VXLAN over IPv6 without a UDP checksum.
    pub udp6_zero_checksum_rx: bool,
    /// MAC of this node's VTEP; derived from the underlay address if absent.
    pub vtep_mac: Option<Mac>,
    /// MTU of the pods' interfaces, bytes; computed if absent.
    pub pod_mtu: Option<u32>,
    /// Lower what a SYN announces to the segments that the way to a peer takes.
    pub clamp_mss: bool,
    /// Whether routers of an IPv4 underlay may cut tunnel packets.
    pub outer_df: OuterDf,
}

/// `[host]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// Name of the TAP.
    pub interface: String,
    /// Masquerade what pods send to the world outside the cluster, and what the kernel translates from
    /// pod to pod.
    pub masquerade: bool,
    /// Further destinations to which nothing is masqueraded.
    pub non_masquerade_prefixes: Vec<IpNet>,
}

/// `[bridge]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSettings {
    /// Name of the domain.
    pub name: String,
    /// Learned MACs at most, of each worker.
    pub fdb_max: u32,
    /// How long a learned MAC is kept, seconds.
    pub ageing_seconds: u64,
    /// Set if the segment is stretched over VXLAN.
    pub vni: Option<u32>,
    /// The other ends of a stretched segment.
    pub vteps: Vec<IpAddr>,
}

/// `[workers]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSettings {
    /// One thread a core; one on the last core if absent.
    pub cores: Option<Vec<usize>>,
    /// After so many microseconds without a packet a worker sleeps; `None` spins for ever.
    pub idle_after_us: Option<u64>,
    /// Packet frames of each worker.
    pub frames: u32,
    /// A pod of a busy worker may move to an idle one.
    pub rebalance: bool,
    /// Whether a worker hands packets of IPIP over to others.
    pub handoff: HandoffSetting,
    /// How ports are read and written.
    pub port_io: PortIoSetting,
}

/// When a worker leaves packets of IPIP to others, by their inner flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoffSetting {
    /// While it is busy and others are idle.
    Auto,
    /// Always: to all others.
    Always,
    /// It does not.
    Never,
}

/// How a worker reads and writes its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortIoSetting {
    /// By what costs less on this machine.
    Auto,
    /// Many packets at a time, by io_uring, unless the kernel refuses that.
    IoUring,
    /// A packet at a time, by read and write.
    ReadWrite,
}

/// `[control]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlSettings {
    /// Path of the control socket.
    pub socket: PathBuf,
    /// Directory of the journal.
    pub state_dir: PathBuf,
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricsSettings {
    /// Where to listen; nowhere if absent.
    pub listen: Option<MetricsAddress>,
    /// Tells the connections of each service, too.
    pub services: bool,
}

/// `[sandbox]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxSettings {
    /// What a system call meets that the filter of its thread does not allow.
    pub seccomp: SeccompSetting,
}

/// What a system call meets that the filter of its thread does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeccompSetting {
    /// It ends the daemon.
    Kill,
    /// It is done, and the kernel's log names it.
    Log,
    /// There is no filter.
    Off,
}

/// `[kubernetes]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KubernetesSettings {
    /// Pods with a name are denied everything until a source has told their policies.
    pub policies: bool,
}

/// `[routes.kernel]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRouteSettings {
    /// Routes within these are taken.
    pub prefixes: Vec<IpNet>,
    /// Number of the kernel's table.
    pub table: u32,
    /// Routes of these protocols are taken, by number; of all if empty.
    pub protocols: Vec<u8>,
    /// A route that covers one of the prefixes, such as a default route, is taken for all of it.
    pub covering: bool,
}

impl Config {
    /// Reads and checks a text; `file` is its name in messages.
    ///
    /// # Errors
    /// Every problem that was found in it, by line.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let (config, mut problems) = sections::read(file, text);
        if let Some(config) = &config {
            problems.extend(semantic::check(config));
        }
        problems.sort();
        problems.dedup();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }

    /// The underlay addresses, as far as they are configured.
    #[must_use]
    pub(crate) fn own_addresses(&self) -> LocalAddresses {
        self.uplink.as_ref().map_or_else(LocalAddresses::default, |uplink| LocalAddresses {
            v4: uplink.address,
            v6: uplink.address6,
        })
    }

    /// The gateway of a pod prefix: its first usable address.
    #[must_use]
    pub fn gateway_of(prefix: &IpNet) -> IpAddr {
        match prefix {
            IpNet::V4(net) => Ipv4Addr::from_bits(net.network().to_bits() | 1).into(),
            IpNet::V6(net) => Ipv6Addr::from_bits(net.network().to_bits() | 1).into(),
        }
    }
}

impl OverlaySettings {
    /// Encapsulation of a peer without settings of its own.
    #[must_use]
    pub fn usual(&self) -> Encapsulation {
        match self.encapsulate {
            Encapsulate::Never => Encapsulation::Direct,
            Encapsulate::Always | Encapsulate::CrossSubnet => self.encapsulation,
        }
    }
}
