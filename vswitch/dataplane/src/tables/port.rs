//! Logical attachments: pods, the node's own TAP, the NIC.

use core::fmt;
use core::net::IpAddr;

use super::BridgeId;
use crate::rate::Limit;
use crate::wire::MacAddr;

/// Ports at most: bounds the counters of each worker. A node runs 110 pods by kubelet's default,
/// 250 where it is raised.
pub const MAX_PORTS: usize = 1024;

/// Number of a port; small, and reused after its port is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// Kind of what is attached to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRole {
    /// A pod's interface: untrusted.
    Pod,
    /// The node's own TAP: the kernel stands behind it.
    Host,
    /// The NIC: its packets are checked by `decap`.
    Uplink,
}

/// How a pod is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// L3 only: everything goes to the gateway.
    Routed,
    /// A member of an L2 segment.
    Bridged(BridgeId),
}

/// Work that may be left undone in a packet that is sent to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// Transport checksums may be partial.
    pub checksum: bool,
    /// TCP superframes are taken.
    pub tso: bool,
    /// UDP superframes are taken.
    pub uso: bool,
    /// So are they inside VXLAN; an unfinished checksum is not.
    pub vxlan: bool,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// What is attached.
    pub kind: PortRole,
    /// How it is attached; a host port and an uplink are routed.
    pub attachment: Attachment,
    /// MAC of the interface on the far side: the pod's, the host TAP's; the NIC's own. A pod sends
    /// from no other. The FDB of a bridged pod's bridge has it behind this port.
    pub mac: MacAddr,
    /// Largest IP packet that it takes, bytes.
    pub mtu: u16,
    /// Work that it takes undone.
    pub offloads: Offloads,
    /// Addresses that a pod may send from; empty for the others, which may send from any.
    pub addresses: Vec<IpAddr>,
    /// Limit of what is received from it.
    pub rx_limit: Option<Limit>,
    /// Limit of what is sent to it. Superframes are passed whole where `offloads` takes them.
    pub tx_limit: Option<Limit>,
}
