//! How the kernel reaches an underlay address.
//!
//! Enters: routes and neighbours of the kernel, from `vswitchd`, which asks it. Leaves: a
//! [`NextHop`] for each address, to `compile` and `show neighbors`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::wire::MacAddr;

/// The next hops of all underlay addresses that tables name; shared, as there may be thousands.
pub type NextHops = Arc<BTreeMap<IpAddr, NextHop>>;

/// How an address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It is reached as the kernel routes.
    Routed,
    /// It is a neighbour on the uplink, as a kernel route with a gateway there shows.
    OnLink,
}

/// The kernel's way to one underlay address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NextHop {
    /// The router, or the address itself on the same link.
    pub via: Option<IpAddr>,
    /// Its MAC, once resolved.
    pub mac: Option<MacAddr>,
    /// The largest packet that passes, bytes, as far as the kernel's route shows.
    pub mtu: Option<u32>,
    /// The state of the kernel's neighbour entry.
    pub neighbor: Option<NeighborState>,
    /// Why packets cannot be sent there now.
    pub problem: Option<String>,
}

impl NextHop {
    /// A next hop that is ready.
    #[must_use]
    pub fn resolved(mac: MacAddr) -> Self {
        Self { mac: Some(mac), ..Self::default() }
    }
}

/// How sure the kernel is of a neighbour: the NUD states of include/uapi/linux/neighbour.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighborState {
    /// Not looked for yet.
    None,
    /// Asked for, no answer yet.
    Incomplete,
    /// Confirmed a moment ago.
    Reachable,
    /// Known, and not confirmed for a while.
    Stale,
    /// Stale, used, about to be probed.
    Delay,
    /// Being probed.
    Probe,
    /// Did not answer.
    Failed,
    /// Needs no resolution.
    Noarp,
    /// Set by hand.
    Permanent,
    /// A state that this program does not know.
    Other,
}

impl NeighborState {
    /// Name of the state, as `ip neighbour` prints it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Stale => "stale",
            Self::Delay => "delay",
            Self::Probe => "probe",
            Self::Failed => "failed",
            Self::Noarp => "noarp",
            Self::Permanent => "permanent",
            Self::Other => "other",
        }
    }
}
