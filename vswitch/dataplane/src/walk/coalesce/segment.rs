//! A TCP segment, as far as it matters for merging.

use frame::{Offload, Packet};

use crate::walk::rewrite::{Layers, OuterHeaders};
use crate::wire::checksum::Sum;
use crate::wire::{Ipv4, Ipv6, Protocol, Tcp, TcpFlags, ipv4, ipv6};

/// The fields of a segment that decide whether it can be merged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) layers: Layers,
    /// Bytes of all headers.
    pub(super) header_len: usize,
    pub(super) payload_len: usize,
    pub(super) sequence: u32,
    pub(super) flags: TcpFlags,
}

impl Segment {
    /// `None` if the packet is none: not TCP, with IPv4 options or IPv6 extensions, a fragment, or
    /// inside outer headers.
    pub(super) fn of(packet: &Packet, layers: Layers) -> Option<Self> {
        (layers.outer == OuterHeaders::None).then_some(())?;
        let bytes: &[u8] = &packet.frame;
        let network = bytes.get(layers.l3..)?;
        let network_len = layers.l4.checked_sub(layers.l3)?;
        let whole = if layers.is_v6 {
            let ip = Ipv6::parse(network).ok()?;
            network_len == ipv6::HEADER_LEN && ip.next_header() == Protocol::TCP
        } else {
            let ip = Ipv4::parse(network).ok()?;
            network_len == ipv4::HEADER_LEN && ip.protocol() == Protocol::TCP && !ip.is_fragment()
        };
        let tcp = Tcp::parse(bytes.get(layers.l4..)?).ok().filter(|_| whole)?;
        let header_len = layers.l4 + tcp.header_len();
        Some(Self {
            layers,
            header_len,
            payload_len: bytes.len().checked_sub(header_len)?,
            sequence: tcp.sequence(),
            flags: tcp.flags(),
        })
    }

    /// Whether the segment is nothing but data: every other flag means something at its own place
    /// in the sequence.
    pub(super) fn is_plain_data(&self) -> bool {
        self.payload_len > 0 && self.flags.without(TcpFlags::PSH) == TcpFlags::ACK
    }

    pub(super) fn begins_a_train(&self, packet: &Packet) -> bool {
        self.is_plain_data()
            && !self.flags.contains(TcpFlags::PSH)
            && packet.offload == Offload::default()
            && self.checksum_holds(packet)
    }

    /// The sequence number behind its payload.
    pub(super) fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.payload_len as u32)
    }

    pub(super) fn pseudo(&self, packet: &Packet, len: usize) -> Option<Sum> {
        let network = packet.frame.get(self.layers.l3..)?;
        Some(if self.layers.is_v6 {
            let ip = Ipv6::parse_header(network).ok()?;
            Sum::pseudo_v6(ip.source(), ip.destination(), Protocol::TCP, len as u32)
        } else {
            let ip = Ipv4::parse_header(network).ok()?;
            Sum::pseudo_v4(ip.source(), ip.destination(), Protocol::TCP, len as u16)
        })
    }

    pub(super) fn checksum_holds(&self, packet: &Packet) -> bool {
        let segment = packet.frame.get(self.layers.l4..).unwrap_or_default();
        self.pseudo(packet, segment.len()).is_some_and(|sum| sum.bytes(segment).verifies())
    }
}
