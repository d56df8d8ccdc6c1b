//! L2 segments: their members here, and the VTEPs that stretch them.

use core::net::IpAddr;
use core::ops::Deref;

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
    pub vteps: Vteps,
    /// MACs that are known without learning: all pods' of this node, and entries added by hand.
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

/// The other ends of a segment, by [`VtepId`]. Sorted by MTU beside that: which of them carry a
/// packet is one number, however many there are.
#[derive(Debug, Clone, Default)]
pub struct Vteps {
    all: Vec<RemoteVtep>,
    /// The largest MTU first.
    widest_first: Vec<VtepId>,
}

impl Vteps {
    /// Adds one, under the next number.
    pub fn push(&mut self, vtep: RemoteVtep) {
        // A VTEP beyond the last number gets no flooded frames.
        let id = u16::try_from(self.all.len()).ok().filter(|id| *id < u16::MAX).map(VtepId);
        if let Some(id) = id {
            let at = self.carrying(vtep.mtu.into());
            self.widest_first.insert(at.into(), id);
        }
        self.all.push(vtep);
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.all.clear();
        self.widest_first.clear();
    }

    /// The number of VTEPs that carry an IP packet of this length. They are the first ones of
    /// [`Vteps::widest_first`].
    #[must_use]
    pub fn carrying(&self, len_bytes: usize) -> u16 {
        let carries = |id: &VtepId| {
            self.all.get(usize::from(id.0)).is_some_and(|vtep| usize::from(vtep.mtu) >= len_bytes)
        };
        self.widest_first.partition_point(carries) as u16
    }

    /// Their numbers, those with the largest MTU first.
    #[must_use]
    pub fn widest_first(&self) -> &[VtepId] {
        &self.widest_first
    }
}

impl Deref for Vteps {
    type Target = [RemoteVtep];

    fn deref(&self) -> &[RemoteVtep] {
        &self.all
    }
}

impl FromIterator<RemoteVtep> for Vteps {
    fn from_iter<I: IntoIterator<Item = RemoteVtep>>(vteps: I) -> Self {
        let mut all = Self::default();
        vteps.into_iter().for_each(|vtep| all.push(vtep));
        all
    }
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

#[cfg(test)]
mod tests {
    use super::{RemoteVtep, VtepId, Vteps};
    use crate::tables::PortId;

    #[test]
    fn those_that_carry_a_packet_come_first_in_the_order_of_their_numbers() {
        let vtep = |mtu| RemoteVtep {
            address: [203, 0, 113, 1].into(),
            port: PortId(1),
            template: None,
            mtu,
        };
        let mut vteps: Vteps = [1450, 1430, 8950, 1450, 0].into_iter().map(vtep).collect();
        assert_eq!(vteps.widest_first(), [2, 0, 3, 1, 4].map(VtepId));
        for (len, expected) in
            [(0, 5), (1, 4), (1430, 4), (1431, 3), (1450, 3), (1451, 1), (8951, 0)]
        {
            assert_eq!(vteps.carrying(len), expected, "{len}");
        }
        assert_eq!(vteps.len(), 5);
        vteps.clear();
        assert_eq!((vteps.len(), vteps.carrying(0)), (0, 0));
    }
}
