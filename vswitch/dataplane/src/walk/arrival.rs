//! Where a packet came in, which node sent it, and which of its bytes are to be forwarded.
//!
//! Made at the first door: by `walk`, then by `decap` for packets that came by the NIC. Read by
//! every door that checks what a sender may do.

use crate::tables::{Domain, Peer, Port, PortId, VtepId};
use crate::wire::Ecn;

/// How a packet arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'t> {
    pub(crate) ingress: PortId,
    pub(crate) port: &'t Port,
    pub(crate) from: ArrivedFrom<'t>,
    /// Where the packet that is forwarded begins.
    pub(crate) start: usize,
    /// It ends here at the latest: what the outer headers do not count is the outer frame's padding.
    pub(crate) end: usize,
    /// It begins with an Ethernet header.
    pub(crate) ethernet: bool,
    /// Congestion mark of the outer header.
    pub(crate) outer_ecn: Option<Ecn>,
}

/// Sender of a packet, as far as its port or tunnel tells. Every door asks, so the tag is a byte of
/// its own.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum ArrivedFrom<'t> {
    /// A pod of this node.
    Pod,
    /// This node's kernel.
    Host,
    /// The underlay, without encapsulation.
    Direct,
    /// Another node, through the overlay.
    Peer { peer: &'t Peer, domain: Domain, vtep: Option<VtepId> },
}

impl<'t> Arrival<'t> {
    /// A whole frame of `len` bytes.
    #[inline(always)]
    pub(crate) fn plain(
        ingress: PortId,
        port: &'t Port,
        from: ArrivedFrom<'t>,
        len: usize,
    ) -> Self {
        Self { ingress, port, from, start: 0, end: len, ethernet: true, outer_ecn: None }
    }

    /// It came by the NIC.
    #[inline(always)]
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.from, ArrivedFrom::Direct | ArrivedFrom::Peer { .. })
    }
}
