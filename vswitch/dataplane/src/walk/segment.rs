//! Right of the verdict: a superframe becomes the packets that a wire carries, for a port without
//! the offload.
//!
//! Enters: the packet as it would leave, outer headers included, and its [`Layers`]. Leaves: one
//! call for each piece, which writes headers and payload straight into the memory that the port
//! offers: one copy in all. What differs from piece to piece: lengths, IPv4 identification, TCP
//! sequence number and flags, checksums; in the outer headers, lengths, the identification if routers
//! may cut them, and the UDP checksum over IPv6.

use frame::{Gso, GsoKind, Packet};

use super::outer_checksum;
use super::rewrite::{Layers, OuterHeaders};
use crate::wire::{Ipv4, Ipv6};
use crate::wire::{
    Protocol, Tcp, TcpFlags, checksum::Sum, header, header_mut, ipv4, ipv6, tcp, udp,
};

/// How to cut one superframe; checked against its bytes once, so that each piece is only written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    layers: Layers,
    kind: GsoKind,
    /// All headers, in front of every piece.
    header_len: usize,
    /// Transport payload of every piece but the last.
    size: usize,
    payload_len: usize,
    /// Sum of the pseudo header without its length.
    pseudo: Sum,
    id: u16,
    sequence: u32,
    flags: TcpFlags,
}

impl Plan {
    /// `None` if the offload contradicts the packet: no such transport header, no payload, a size
    /// of zero or beyond what a packet's length can say.
    pub(crate) fn new(packet: &Packet, gso: Gso, layers: Layers) -> Option<Self> {
        let bytes: &[u8] = &packet.frame;
        let protocol = match gso.kind {
            GsoKind::Tcp4 { .. } if layers.is_v6 => return None,
            GsoKind::Tcp6 { .. } if !layers.is_v6 => return None,
            GsoKind::Tcp4 { .. } | GsoKind::Tcp6 { .. } => Protocol::TCP,
            GsoKind::Udp => Protocol::UDP,
        };
        let (pseudo, id) = if layers.is_v6 {
            let ip = Ipv6::parse(bytes.get(layers.l3..)?).ok()?;
            (ip.upper().ok()?.protocol == protocol).then_some(())?;
            (Sum::pseudo_v6(ip.source(), ip.destination(), protocol, 0), 0)
        } else {
            let ip = Ipv4::parse(bytes.get(layers.l3..)?).ok()?;
            (ip.protocol() == protocol && !ip.is_fragment()).then_some(())?;
            (Sum::pseudo_v4(ip.source(), ip.destination(), protocol, 0), ip.id())
        };
        let transport = bytes.get(layers.l4..)?;
        let (transport_len, sequence, flags) = match gso.kind {
            GsoKind::Tcp4 { .. } | GsoKind::Tcp6 { .. } => {
                let tcp = Tcp::parse(transport).ok()?;
                (tcp.header_len(), tcp.sequence(), tcp.flags())
            }
            GsoKind::Udp => (udp::HEADER_LEN, 0, TcpFlags::NONE),
        };
        let header_len = layers.l4 + transport_len;
        let payload_len = bytes.len().checked_sub(header_len).filter(|len| *len > 0)?;
        let size = usize::from(gso.size);
        // Every length field of every piece can be written, so that `write` never leaves a piece
        // half done in the port's memory.
        let outermost = layers.outer.l3().unwrap_or(layers.l3);
        let longest = (header_len + size.min(payload_len)).checked_sub(outermost)?;
        (size > 0 && longest <= usize::from(u16::MAX)).then_some(Self {
            layers,
            kind: gso.kind,
            header_len,
            size,
            payload_len,
            pseudo,
            id,
            sequence,
            flags,
        })
    }

    /// Number of pieces.
    pub(crate) fn pieces(&self) -> usize {
        self.payload_len.div_ceil(self.size)
    }

    /// Bytes of a piece, headers included.
    pub(crate) fn len(&self, piece: usize) -> usize {
        self.header_len + self.chunk(piece).len()
    }

    /// Where the payload of a piece is in the superframe's.
    fn chunk(&self, piece: usize) -> core::ops::Range<usize> {
        let start = (piece * self.size).min(self.payload_len);
        start..(start + self.size).min(self.payload_len)
    }

    /// Writes a piece. `into` is exactly `len(piece)` bytes long; `None` if it is not.
    pub(crate) fn write(&self, packet: &Packet, piece: usize, into: &mut [u8]) -> Option<()> {
        let chunk = self.chunk(piece);
        let (headers, payload) = packet.frame.split_at_checked(self.header_len)?;
        let payload = payload.get(chunk.clone())?;
        let (own_headers, own_payload) = into.split_at_mut_checked(self.header_len)?;
        own_headers.copy_from_slice(headers);
        (own_payload.len() == payload.len()).then(|| own_payload.copy_from_slice(payload))?;
        self.lengths(into, piece)?;
        let last = piece + 1 == self.pieces();
        match self.kind {
            GsoKind::Tcp4 { ecn } | GsoKind::Tcp6 { ecn } => {
                let header: &mut [u8; tcp::HEADER_LEN] = header_mut(into, self.layers.l4)?;
                tcp::set_sequence(header, self.sequence.wrapping_add(chunk.start as u32));
                tcp::set_flags(header, self.flags_of(piece, last, ecn));
                tcp::set_checksum(header, 0);
                let sum = self.sum(into)?.finish();
                tcp::set_checksum(header_mut(into, self.layers.l4)?, sum);
            }
            GsoKind::Udp => {
                let len = (udp::HEADER_LEN + payload.len()) as u16;
                let header: &mut [u8; udp::HEADER_LEN] = header_mut(into, self.layers.l4)?;
                udp::set_len(header, len);
                udp::set_checksum(header, 0);
                let sum = self.sum(into)?.finish_nonzero();
                udp::set_checksum(header_mut(into, self.layers.l4)?, sum);
            }
        }
        if self.layers.outer == OuterHeaders::Vxlan6 {
            // The transport's own checksum makes it sum to the complement of its pseudo header.
            let len = into.len() - self.layers.l4;
            let transport = !self.pseudo.u32(len as u32).fold();
            outer_checksum::finish(into, &self.layers, Some((self.layers.l4, transport)))?;
        }
        Some(())
    }

    /// Only the last piece ends what the sender pushed or closed; only the first reports a reduced
    /// congestion window (RFC 3168, section 6.1.2).
    fn flags_of(&self, piece: usize, last: bool, ecn: bool) -> TcpFlags {
        let mut flags = self.flags;
        if !last {
            flags = flags.without(TcpFlags::FIN).without(TcpFlags::PSH);
        }
        if piece > 0 && (ecn || flags.contains(TcpFlags::CWR)) {
            flags = flags.without(TcpFlags::CWR);
        }
        flags
    }

    fn lengths(&self, piece_bytes: &mut [u8], piece: usize) -> Option<()> {
        let Layers { l3, is_v6, .. } = self.layers;
        let len = piece_bytes.len();
        self.layers.set_outer_lengths(piece_bytes, piece)?;
        if is_v6 {
            let payload_len = u16::try_from(len - l3 - ipv6::HEADER_LEN).ok()?;
            ipv6::set_payload_len(header_mut(piece_bytes, l3)?, payload_len);
        } else {
            let header = header_mut(piece_bytes, l3)?;
            ipv4::set_total_len(header, u16::try_from(len - l3).ok()?);
            ipv4::set_id(header, self.id.wrapping_add(piece as u16));
        }
        Some(())
    }

    fn sum(&self, piece_bytes: &[u8]) -> Option<Sum> {
        let segment = piece_bytes.get(self.layers.l4..)?;
        header::<8>(piece_bytes, self.layers.l4)?;
        Some(self.pseudo.u32(segment.len() as u32).bytes(segment))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use frame::{Gso, GsoKind, Packet, Pool};

    use super::Plan;
    use crate::walk::rewrite::{Layers, OuterHeaders};
    use crate::wire::{Protocol, ipv4, udp};

    /// A UDP superframe of 65,500 bytes behind `outer` bytes of outer headers.
    fn superframe(pool: &Pool, outer: usize) -> (Packet, Layers) {
        const LEN: u16 = 65_500;
        let mut packet = Packet::plain(pool.alloc().unwrap());
        packet.frame.extend(outer + usize::from(LEN)).unwrap().fill(0);
        let ip = ipv4::Repr {
            tos: 0,
            total_len: LEN,
            id: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: Protocol::UDP,
            source: [198, 18, 1, 2].into(),
            destination: [198, 18, 2, 7].into(),
        };
        let l4 = ip.emit(packet.frame.get_mut(outer..).unwrap()).unwrap() + outer;
        let header = udp::Repr { source: 1, destination: 2, len: LEN - 20, checksum: 0 };
        header.emit(packet.frame.get_mut(l4..).unwrap()).unwrap();
        let layers =
            Layers { outer: OuterHeaders::Vxlan4, l3: outer, l4, is_v6: false, is_tcp: true };
        (packet, layers)
    }

    #[test]
    fn a_piece_that_no_length_field_can_count_is_refused_before_anything_is_written() {
        let pool = Pool::new(1);
        let (packet, layers) = superframe(&pool, 64);
        let gso = |size| Gso { kind: GsoKind::Udp, size, header_len: 0, vxlan: None };
        // The outer packet is 50 bytes longer than the inner: 65,485 bytes fit, one more does not.
        let plan = Plan::new(&packet, gso(65_485 - 28), layers).unwrap();
        let mut piece = vec![0; plan.len(0)];
        assert_eq!(plan.write(&packet, 0, &mut piece), Some(()));
        assert!(Plan::new(&packet, gso(65_486 - 28), layers).is_none());
    }
}
