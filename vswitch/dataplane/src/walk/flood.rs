//! Right of the verdict: one frame to every other member of a segment.
//!
//! Local members get the frame as it is, remote ones a copy through the overlay (head-end
//! replication, RFC 7348, section 4.2, without multicast). A frame that came through the overlay is
//! not sent back into it: every VTEP has served its own side.

use frame::{Packet, Pool};

use crate::tables::{Bridge, PortId, VtepId};

/// Where one copy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    Port(PortId),
    Vtep(VtepId),
}

/// Everyone but the ingress, in the order of the tables.
pub(crate) fn destinations(
    bridge: &Bridge,
    ingress: PortId,
    from_overlay: bool,
) -> impl Iterator<Item = Destination> + '_ {
    let members =
        bridge.members.iter().filter(move |port| **port != ingress).map(|p| Destination::Port(*p));
    let vteps = if from_overlay { 0 } else { bridge.vteps.len() };
    members.chain(
        (0..vteps).filter_map(|id| u16::try_from(id).ok()).map(|id| Destination::Vtep(VtepId(id))),
    )
}

/// A second packet with the same bytes; `None` if no frame is free.
pub(crate) fn duplicate(pool: &Pool, packet: &Packet) -> Option<Packet> {
    let mut frame = pool.alloc()?;
    frame.extend_from_slice(&packet.frame).ok()?;
    Some(Packet { frame, offload: packet.offload })
}
