//! A train: segments of one TCP flow that are becoming one superframe.
//!
//! Enters: segments, from [`Coalescer`](super::Coalescer). Leaves: the superframe, to `exit`.

use frame::{Checksum, Gso, GsoKind, Offload, Packet};

use super::segment::Segment;
use crate::tables::PortId;
use crate::walk::rewrite::Layers;
use crate::wire::{TcpFlags, header_mut, ipv4, ipv6, tcp};

/// IPv4's total length, and for IPv6 a payload length, are 16 bits.
const MAX_LEN: usize = 65_535;

/// One superframe in the making: the first segment, to which the others' payload is appended.
#[derive(Debug)]
pub(crate) struct Train {
    pub(crate) ingress: PortId,
    pub(crate) port: PortId,
    packet: Packet,
    segment: Segment,
    packets: u64,
}

impl Train {
    /// A train of one segment.
    pub(super) fn new(ingress: PortId, port: PortId, packet: Packet, segment: Segment) -> Self {
        Self { ingress, port, packet, segment, packets: 1 }
    }

    /// The packet to send, and how many it stands for.
    pub(crate) fn into_packet(self) -> (Packet, u64) {
        let Self { mut packet, segment, packets, .. } = self;
        if packets > 1 {
            // Every offset was checked when the segment was read.
            let _ = finish(&mut packet, &segment);
        }
        (packet, packets)
    }

    pub(super) fn has_several(&self) -> bool {
        self.packets > 1
    }

    /// Adds the payload if the segment continues the train.
    pub(super) fn append(&mut self, packet: &Packet, segment: &Segment) -> bool {
        let own = self.segment;
        let merged = self.packet.frame.len() - own.header_len;
        let payload = packet.frame.get(segment.header_len..).unwrap_or_default();
        let continues = segment.header_len == own.header_len
            && segment.sequence == own.sequence.wrapping_add(merged as u32)
            && (1..=own.payload_len).contains(&payload.len())
            && self.packet.frame.len() - own.layers.l3 + payload.len() <= MAX_LEN
            && segment.is_plain_data()
            && same_headers(&self.packet, packet, &own)
            && segment.checksum_holds(packet);
        if !continues || self.packet.frame.extend_from_slice(payload).is_err() {
            return false;
        }
        self.packets += 1;
        if segment.flags.contains(TcpFlags::PSH) {
            self.segment.flags = own.flags.with(TcpFlags::PSH);
        }
        true
    }

    /// A short segment, or one to be delivered at once, is the last: behind it the train could not
    /// be cut into what it was made of.
    pub(super) fn is_complete(&self) -> bool {
        let merged = self.packet.frame.len() - self.segment.header_len;
        self.segment.flags.contains(TcpFlags::PSH)
            || !merged.is_multiple_of(self.segment.payload_len)
    }
}

/// Everything in front of the payload but lengths, identification, sequence, flags and checksums.
fn same_headers(a: &Packet, b: &Packet, segment: &Segment) -> bool {
    let Layers { l3, l4, is_v6, .. } = segment.layers;
    let same = |range: core::ops::Range<usize>| a.frame.get(range.clone()) == b.frame.get(range);
    let network = if is_v6 {
        // Traffic class and flow label; next header and hop limit.
        same(l3..l3 + 4) && same(l3 + 6..l3 + 8)
    } else {
        // Header length and type of service; DF and offset, TTL and protocol.
        same(l3..l3 + 2) && same(l3 + 6..l3 + 10)
    };
    // Acknowledgement and data offset; window; options.
    same(0..l3)
        && network
        && same(l4 + 8..l4 + 13)
        && same(l4 + 14..l4 + 16)
        && same(l4 + tcp::HEADER_LEN..segment.header_len)
}

/// Makes the headers those of the superframe. The sum over its payload is left undone, for the port
/// that cuts it or the pod that reads it.
fn finish(packet: &mut Packet, segment: &Segment) -> Option<()> {
    let Layers { l3, l4, is_v6, .. } = segment.layers;
    let (network_len, transport_len) = (packet.frame.len() - l3, packet.frame.len() - l4);
    if is_v6 {
        let payload_len = u16::try_from(network_len - ipv6::HEADER_LEN).ok()?;
        ipv6::set_payload_len(header_mut(&mut packet.frame, l3)?, payload_len);
    } else {
        let total_len = u16::try_from(network_len).ok()?;
        ipv4::set_total_len(header_mut(&mut packet.frame, l3)?, total_len);
    }
    let pseudo = segment.pseudo(packet, transport_len)?.fold();
    let header = header_mut(&mut packet.frame, l4)?;
    tcp::set_flags(header, segment.flags);
    tcp::set_checksum(header, pseudo);
    let ecn = false;
    packet.offload = Offload {
        checksum: Checksum::Partial { start: l4 as u16, offset: tcp::CHECKSUM_OFFSET as u16 },
        gso: Some(Gso {
            kind: if is_v6 { GsoKind::Tcp6 { ecn } } else { GsoKind::Tcp4 { ecn } },
            size: u16::try_from(segment.payload_len).ok()?,
            header_len: segment.header_len as u16,
            vxlan: None,
        }),
    };
    Some(())
}
