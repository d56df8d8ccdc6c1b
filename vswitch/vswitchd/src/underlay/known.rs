//! What the kernel has of a neighbour.
//!
//! Enters: an entry of its table. Leaves: the MAC to send to, and whether there is something to ask.

use dataplane::wire::MacAddr;
use netlink::{Neighbor, NudState};

/// What the kernel has of a neighbour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// If packets may be sent there.
    pub(super) mac: Option<MacAddr>,
    pub(super) state: Option<NudState>,
}

impl Known {
    pub(super) fn of(neighbor: &Neighbor) -> Self {
        let mac = neighbor.mac.filter(|_| neighbor.state.is_usable()).map(MacAddr);
        Self { mac, state: Some(neighbor.state) }
    }

    /// The kernel knows it for certain, or is about to.
    pub(super) fn is_settled(&self) -> bool {
        matches!(
            self.state,
            Some(
                NudState::Reachable
                    | NudState::Permanent
                    | NudState::Noarp
                    | NudState::Delay
                    | NudState::Probe
                    | NudState::Incomplete
            )
        )
    }
}
