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

/// The members but the ingress and those that are spared, in the order of the tables, and so many VTEPs.
pub(crate) fn destinations<'a>(
    bridge: &'a Bridge,
    ingress: PortId,
    vteps: u16,
    is_spared: impl Fn(PortId) -> bool + 'a,
) -> impl Iterator<Item = Destination> + 'a {
    let members = bridge.members.iter().copied();
    let members = members.filter(move |port| *port != ingress && !is_spared(*port));
    let members = members.map(Destination::Port);
    let vteps = bridge.vteps.widest_first().iter().take(vteps.into());
    members.chain(vteps.map(|id| Destination::Vtep(*id)))
}

/// A second packet with the same bytes; `None` if no frame is free.
pub(crate) fn duplicate(pool: &Pool, packet: &Packet) -> Option<Packet> {
    let mut frame = pool.alloc()?;
    frame.extend_from_slice(&packet.frame).ok()?;
    Some(Packet { frame, offload: packet.offload })
}
