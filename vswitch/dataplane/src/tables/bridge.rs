//! L2 segments: their members here, and the VTEPs that stretch them.

use core::net::IpAddr;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{FdbTarget, PortId, Template};
use crate::wire::{MacAddr, Vni};

/// Number of a bridge domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BridgeId(pub u16);

/// Number of a remote VTEP within its bridge domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VtepId(pub u16);

/// One L2 segment.
#[derive(Debug, Clone, Default)]
pub struct Bridge {
    /// Its ports on this node, ascending.
    pub members: Vec<PortId>,
    /// Set if it is stretched over VXLAN.
    pub vni: Option<Vni>,
    /// The other ends, each of which gets a copy of every flooded frame (head-end replication);
    /// by [`VtepId`].
    pub vteps: Vec<RemoteVtep>,
    /// MACs that are known without learning: pods', and entries added by hand.
    pub fdb: HashMap<MacAddr, FdbTarget, RandomState>,
}

/// Another end of a stretched segment.
#[derive(Debug, Clone)]
pub struct RemoteVtep {
    /// Its underlay address.
    pub address: IpAddr,
    /// The port of the NIC.
    pub port: PortId,
    /// Outer headers without inner Ethernet; `None` while the underlay's next hop is unresolved.
    pub template: Option<Template>,
    /// Largest IP packet inside, bytes.
    pub mtu: u16,
}

impl Bridge {
    /// The remote end.
    #[must_use]
    pub fn vtep(&self, id: VtepId) -> Option<&RemoteVtep> {
        self.vteps.get(usize::from(id.0))
    }

    /// The remote end with this underlay address.
    #[must_use]
    pub fn vtep_at(&self, address: IpAddr) -> Option<VtepId> {
        let index = self.vteps.iter().position(|vtep| vtep.address == address)?;
        u16::try_from(index).ok().map(VtepId)
    }
}
