//! Right of the verdict: an IPv4 packet that is larger than the next hop's MTU, and may be cut,
//! becomes fragments (RFC 791, section 3.2; RFC 1812, section 5.2.7).
//!
//! Enters: the packet as it would leave, outer headers included, and its [`Layers`]. Leaves: one
//! call for each fragment, which writes it straight into the memory that the port offers, as
//! `segment` does. It is the inner packet that is cut: every fragment has outer headers of its own,
//! and the packet's destination puts them together, not the other end of the tunnel.

use super::outer_checksum::finish;
use super::rewrite::{Layers, OuterHeaders};
use crate::wire::{Ipv4, header_mut, ipv4};

/// Unit of a fragment's offset, in bytes.
const UNIT: usize = 8;

/// The payload of every fragment but the last, for packets of at most `mtu` bytes without options.
/// `None` if nothing would fit.
pub(crate) fn payload_size(mtu: u16) -> Option<usize> {
    let size = usize::from(mtu).checked_sub(ipv4::HEADER_LEN)? / UNIT * UNIT;
    (size > 0).then_some(size)
}

/// How to cut one packet; checked against its bytes once, so that each fragment is only written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    layers: Layers,
    /// All headers, in front of every fragment.
    header_len: usize,
    size: usize,
    payload_len: usize,
    /// Where the packet's own payload lies in the whole datagram's, in bytes: it may be a fragment.
    offset: usize,
    /// Of the packet itself: it is not the last fragment.
    more: bool,
}

impl Plan {
    /// `None` if the packet is not one that may be cut: IPv4 without options, and no fragment that
    /// ends beyond what an offset can say.
    pub(crate) fn new(bytes: &[u8], layers: Layers, mtu: u16) -> Option<Self> {
        let ip = Ipv4::parse(bytes.get(layers.l3..)?).ok()?;
        if ip.dont_fragment() || ip.header_len() != ipv4::HEADER_LEN {
            return None;
        }
        // A fragment may claim a place behind the last byte that a datagram can have.
        let (offset, payload_len) = (usize::from(ip.fragment_offset()), ip.payload().len());
        (offset + payload_len <= usize::from(u16::MAX)).then_some(())?;
        Some(Self {
            layers,
            header_len: layers.l3 + ipv4::HEADER_LEN,
            size: payload_size(mtu)?,
            payload_len,
            offset,
            more: ip.more_fragments(),
        })
    }

    /// Number of fragments.
    pub(crate) fn pieces(&self) -> usize {
        self.payload_len.div_ceil(self.size).max(1)
    }

    /// Bytes of a fragment, all headers included.
    pub(crate) fn len(&self, piece: usize) -> usize {
        self.header_len + self.chunk(piece).len()
    }

    fn chunk(&self, piece: usize) -> core::ops::Range<usize> {
        let start = (piece * self.size).min(self.payload_len);
        start..(start + self.size).min(self.payload_len)
    }

    /// Writes a fragment, the `number`th in all that is made of what was received. `into` is exactly
    /// `len(piece)` bytes long; `None` if it is not.
    pub(crate) fn write(
        &self,
        bytes: &[u8],
        piece: usize,
        number: usize,
        into: &mut [u8],
    ) -> Option<()> {
        let chunk = self.chunk(piece);
        let (headers, payload) = bytes.split_at_checked(self.header_len)?;
        let payload = payload.get(chunk.clone())?;
        let (own_headers, own_payload) = into.split_at_mut_checked(self.header_len)?;
        own_headers.copy_from_slice(headers);
        (own_payload.len() == payload.len()).then(|| own_payload.copy_from_slice(payload))?;
        let last = piece + 1 == self.pieces();
        let len = into.len();
        let header = header_mut(into, self.layers.l3)?;
        ipv4::set_total_len(header, u16::try_from(len - self.layers.l3).ok()?);
        let offset = u16::try_from(self.offset + chunk.start).ok()?;
        ipv4::set_fragment(header, offset, self.more || !last);
        self.layers.set_outer_lengths(into, number)?;
        if self.layers.outer == OuterHeaders::Vxlan6 {
            finish(into, &self.layers, None)
        } else {
            Some(())
        }
    }
}
