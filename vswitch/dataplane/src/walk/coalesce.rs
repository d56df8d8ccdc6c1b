//! Right of the verdict: TCP segments that came from the NIC become one superframe again, for a port
//! that takes superframes.
//!
//! Enters: packets that are ready to leave, in the order of their arrival. Leaves: the same, those of
//! one flow that follow one another merged into trains. A train ends when a segment does not
//! continue it, when the sender asks for delivery, or with the batch: nothing waits for a clock.
//!
//! A merged train must cut into exactly the segments that it was made of, so whatever is not in the
//! sequence must be equal: Ethernet, TTL, DSCP, ECN, DF, acknowledgement, window, options. Checksums
//! are verified here, as the merged packet's is made anew: a corrupted segment leaves as it came, for
//! its receiver to refuse.

use frame::{Checksum, Gso, GsoKind, Offload, Packet};

use super::flow::FlowKey;
use super::rewrite::{Layers, OuterHeaders};
use crate::tables::PortId;
use crate::wire::{
    Ipv4, Ipv6, Protocol, Tcp, TcpFlags, checksum::Sum, header_mut, ipv4, ipv6, tcp,
};

/// Flows that are merged at once: VPP's figure, and about what a batch of 32 can mix with profit.
const TRAINS: usize = 16;

/// IPv4's total length, and for IPv6 a payload length, are 16 bits.
const MAX_LEN: usize = 65_535;

/// The open trains of one worker.
#[derive(Debug, Default)]
pub(crate) struct Coalescer {
    trains: [Option<Train>; TRAINS],
    /// The train that ends next, when all places are taken.
    next: usize,
}

/// One superframe in the making: the first segment, to which the others' payload is appended.
#[derive(Debug)]
pub(crate) struct Train {
    pub(crate) ingress: PortId,
    pub(crate) port: PortId,
    flow: FlowKey,
    packet: Packet,
    segment: Segment,
    packets: u64,
}

/// The fields of a segment that decide whether it can be merged.
#[derive(Debug, Clone, Copy)]
struct Segment {
    layers: Layers,
    /// Bytes of all headers.
    header_len: usize,
    payload_len: usize,
    sequence: u32,
    flags: TcpFlags,
}

impl Coalescer {
    /// Takes a packet in, or gives it back to be sent alone. `emit` gets every train that ended
    /// thereby; it is to be sent first.
    pub(crate) fn offer(
        &mut self,
        ingress: PortId,
        port: PortId,
        packet: Packet,
        layers: Layers,
        key: &FlowKey,
        emit: &mut impl FnMut(Train),
    ) -> Option<Packet> {
        let Some(segment) = Segment::of(&packet, layers) else { return Some(packet) };
        let flow = |train: &Train| train.port == port && train.same_flow(key, &segment);
        let open = self.trains.iter_mut().find(|train| train.as_ref().is_some_and(flow));
        if let Some(slot) = open {
            let taken = slot.as_mut().is_some_and(|train| train.append(&packet, &segment));
            if !taken || slot.as_ref().is_some_and(Train::is_complete) {
                slot.take().into_iter().for_each(&mut *emit);
            }
            if taken {
                return None;
            }
        }
        if !segment.begins_a_train(&packet) {
            return Some(packet);
        }
        let train = Train { ingress, port, flow: *key, packet, segment, packets: 1 };
        self.place().replace(train).into_iter().for_each(emit);
        None
    }

    /// Ends all trains: the batch is over.
    pub(crate) fn flush(&mut self, emit: &mut impl FnMut(Train)) {
        self.trains.iter_mut().filter_map(Option::take).for_each(emit);
    }

    /// A free place, or the next in turn.
    fn place(&mut self) -> &mut Option<Train> {
        let free = self.trains.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.next = (self.next + 1) % TRAINS;
            self.next
        });
        // `at` is below TRAINS either way; the first place satisfies the compiler.
        let [first, rest @ ..] = &mut self.trains;
        match at.checked_sub(1) {
            Some(at) => rest.get_mut(at).unwrap_or(first),
            None => first,
        }
    }
}

impl Train {
    /// The packet to send, and how many it stands for.
    pub(crate) fn into_packet(self) -> (Packet, u64) {
        let Self { mut packet, segment, packets, .. } = self;
        if packets > 1 {
            // Every offset was checked when the segment was read.
            let _ = finish(&mut packet, &segment);
        }
        (packet, packets)
    }

    fn same_flow(&self, key: &FlowKey, segment: &Segment) -> bool {
        let (own, other) = (self.segment.layers, segment.layers);
        (own.l3, own.l4) == (other.l3, other.l4) && self.flow == *key
    }

    /// Adds the payload if the segment continues the train.
    fn append(&mut self, packet: &Packet, segment: &Segment) -> bool {
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
    fn is_complete(&self) -> bool {
        let merged = self.packet.frame.len() - self.segment.header_len;
        self.segment.flags.contains(TcpFlags::PSH)
            || !merged.is_multiple_of(self.segment.payload_len)
    }
}

impl Segment {
    /// `None` if the packet is none: not TCP, with IPv4 options or IPv6 extensions, a fragment, or
    /// inside outer headers.
    fn of(packet: &Packet, layers: Layers) -> Option<Self> {
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
    fn is_plain_data(&self) -> bool {
        self.payload_len > 0 && self.flags.without(TcpFlags::PSH) == TcpFlags::ACK
    }

    fn begins_a_train(&self, packet: &Packet) -> bool {
        self.is_plain_data()
            && !self.flags.contains(TcpFlags::PSH)
            && packet.offload == Offload::default()
            && self.checksum_holds(packet)
    }

    fn pseudo(&self, packet: &Packet, len: usize) -> Option<Sum> {
        let network = packet.frame.get(self.layers.l3..)?;
        Some(if self.layers.is_v6 {
            let ip = Ipv6::parse_header(network).ok()?;
            Sum::pseudo_v6(ip.source(), ip.destination(), Protocol::TCP, len as u32)
        } else {
            let ip = Ipv4::parse_header(network).ok()?;
            Sum::pseudo_v4(ip.source(), ip.destination(), Protocol::TCP, len as u16)
        })
    }

    fn checksum_holds(&self, packet: &Packet) -> bool {
        let segment = packet.frame.get(self.layers.l4..).unwrap_or_default();
        self.pseudo(packet, segment.len()).is_some_and(|sum| sum.bytes(segment).verifies())
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
