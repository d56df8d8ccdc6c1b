//! Right of the verdict: the edits that a routed or tunnelled packet gets.
//!
//! Enters: the packet as it was received, with its [`Headers`]. Leaves: the packet as the next hop
//! wants it, with [`Layers`] for `segment`. Outer headers are copied from the adjacency's template
//! and four fields are patched.

use frame::{Checksum, Packet};

use super::flow::{self, FlowKey};
use super::parse::{Headers, Net};
use crate::tables::{Encap, OuterDf, Template};
use crate::wire::{Ecn, EtherType, Ipv4, Protocol, ethernet, header_mut, ipv4, ipv6, mss, udp};

/// Where the headers of a packet are that is about to leave, in bytes from the frame's first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Layers {
    pub(crate) outer: OuterHeaders,
    /// The innermost network header.
    pub(crate) l3: usize,
    /// The innermost transport header.
    pub(crate) l4: usize,
    pub(crate) is_v6: bool,
    pub(crate) is_tcp: bool,
}

/// What stands behind the frame's Ethernet header, in front of the packet that it carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum OuterHeaders {
    /// Nothing.
    #[default]
    None,
    /// IPv4.
    Ipip,
    /// IPv4, UDP and VXLAN.
    Vxlan4,
    /// IPv6, UDP, which needs a checksum over IPv6, and VXLAN.
    Vxlan6,
}

impl OuterHeaders {
    /// Where the outer IP header begins, if there is one.
    pub(crate) fn l3(self) -> Option<usize> {
        (self != Self::None).then_some(ethernet::HEADER_LEN)
    }

    /// Where the outer UDP header begins, if there is one.
    pub(crate) fn udp(self) -> Option<usize> {
        match self {
            Self::None | Self::Ipip => None,
            Self::Vxlan4 => Some(ethernet::HEADER_LEN + ipv4::HEADER_LEN),
            Self::Vxlan6 => Some(ethernet::HEADER_LEN + ipv6::HEADER_LEN),
        }
    }
}

impl Layers {
    /// Layers of a packet that is sent as it is, from `headers.start` on. `None` if it is not IP:
    /// then there is nothing to cut or to sum.
    #[inline(always)]
    pub(crate) fn of(headers: &Headers) -> Option<Self> {
        let Net::Ip(ip) = &headers.net else { return None };
        Some(Self {
            outer: OuterHeaders::None,
            l3: headers.l3 - headers.start,
            l4: ip.l4 - headers.start,
            is_v6: ip.flow.is_v6(),
            is_tcp: ip.flow.protocol == Protocol::TCP,
        })
    }

    /// Writes the outer headers' lengths for this piece of a packet that was cut, and the
    /// identification by which it differs from the other pieces.
    pub(crate) fn set_outer_lengths(&self, piece_bytes: &mut [u8], piece: usize) -> Option<()> {
        let len = piece_bytes.len();
        if let Some(at) = self.outer.l3() {
            if self.outer == OuterHeaders::Vxlan6 {
                let payload_len = len.checked_sub(at + ipv6::HEADER_LEN)?;
                let payload_len = u16::try_from(payload_len).ok()?;
                ipv6::set_payload_len(header_mut(piece_bytes, at)?, payload_len);
            } else {
                let header = header_mut(piece_bytes, at)?;
                ipv4::set_total_len(header, u16::try_from(len - at).ok()?);
                ipv4::advance_id(header, piece as u16);
            }
        }
        if let Some(at) = self.outer.udp() {
            udp::set_len(header_mut(piece_bytes, at)?, u16::try_from(len - at).ok()?);
        }
        Some(())
    }

    /// Layers of the same packet, as if nothing stood in front of the inner one.
    pub(crate) fn without_outer(self) -> Self {
        Self { outer: OuterHeaders::None, ..self }
    }
}

/// Takes the outer headers and their padding away, and notes congestion on the inner one (RFC 6040,
/// section 4.2).
#[inline(always)]
pub(crate) fn decapsulate(packet: &mut Packet, headers: &Headers, ecn: Option<Ecn>) -> Option<()> {
    if let (Some(ecn), Net::Ip(ip)) = (ecn, &headers.net) {
        set_ecn(packet, headers.l3, ip.flow.is_v6(), ecn)?;
    }
    packet.frame.truncate(headers.end);
    end_with_payload(packet, headers);
    // Most packets have none; their frame is then left untouched, and its fields quick to copy.
    if headers.start == 0 { Some(()) } else { packet.pull(headers.start).then_some(()) }
}

/// Takes a bridged frame's own padding away if there is something to be summed or cut: it is no
/// payload. Else the frame stays as it is.
#[inline(always)]
fn end_with_payload(packet: &mut Packet, headers: &Headers) {
    if let (true, Net::Ip(ip)) = (packet.offload.is_undone(), &headers.net) {
        packet.frame.truncate(headers.l3 + ip.len);
    }
}

/// Replaces the Ethernet header, if any, by the template, and takes a hop unless the packet is for
/// this node itself. The packet still begins with its outer headers; `flow` is what it leaves with.
#[inline(always)]
pub(crate) fn route(
    packet: &mut Packet,
    headers: &Headers,
    flow: &FlowKey,
    ecn: Option<Ecn>,
    template: &Template,
    takes_a_hop: bool,
) -> Option<Layers> {
    let Net::Ip(ip) = &headers.net else { return None };
    if let Some(ecn) = ecn {
        set_ecn(packet, headers.l3, ip.flow.is_v6(), ecn)?;
    }
    // Padding of a short Ethernet frame must not travel on inside a tunnel.
    packet.frame.truncate(headers.l3 + ip.len);
    if takes_a_hop {
        let done = if ip.flow.is_v6() {
            ipv6::decrement_hop_limit(header_mut(&mut packet.frame, headers.l3)?)
        } else {
            ipv4::decrement_ttl(header_mut(&mut packet.frame, headers.l3)?)
        };
        done.then_some(())?;
    }
    let (l4, is_tcp) = (ip.l4 - headers.l3, ip.flow.protocol == Protocol::TCP);
    let entropy = match template.encap() {
        Encap::None => {
            let layers = replace_ethernet(packet, headers.l3, template, ip.flow.is_v6())?;
            return Some(Layers { l4: layers.l3 + l4, is_tcp, ..layers });
        }
        Encap::VxlanRouted | Encap::VxlanBridged => Flow::of(flow),
        Encap::Ipip => Flow::NONE,
    };
    packet.pull(headers.l3).then_some(())?;
    let layers = encapsulate(packet, template, ecn.unwrap_or(ip.ecn), ip.flow.is_v6(), entropy)?;
    Some(Layers { l4: layers.l3 + l4, is_tcp, ..layers })
}

/// Writes the template's Ethernet header over what stands before the network header: every packet
/// came with one at least as long, so it stays where it is.
#[inline(always)]
fn replace_ethernet(
    packet: &mut Packet,
    l3: usize,
    template: &Template,
    is_v6: bool,
) -> Option<Layers> {
    packet.pull(l3.checked_sub(ethernet::HEADER_LEN)?).then_some(())?;
    let header = packet.frame.first_chunk_mut::<{ ethernet::HEADER_LEN }>()?;
    *header = *template.outermost()?;
    ethernet::set_ethertype(header, ethertype(is_v6));
    let l3 = ethernet::HEADER_LEN;
    Some(Layers { outer: OuterHeaders::None, l3, l4: l3, is_v6, is_tcp: false })
}

#[inline(always)]
fn ethertype(is_v6: bool) -> EtherType {
    if is_v6 { EtherType::IPV6 } else { EtherType::IPV4 }
}

/// Lowers the size of segments that a SYN announces. The packet is as it was received.
#[inline(never)]
pub(crate) fn lower_mss(packet: &mut Packet, headers: &Headers, limit: u16) {
    let Net::Ip(ip) = &headers.net else { return };
    // What is unfinished holds the pseudo header's sum alone, wherever in the segment it begins;
    // `offload` lets none begin between the header's first byte and its last.
    let summed = !matches!(packet.offload.checksum, Checksum::Partial { start, .. }
        if usize::from(start) == ip.l4);
    if let Some(segment) = packet.frame.get_mut(ip.l4..headers.l3 + ip.len) {
        mss::lower(segment, limit, summed);
    }
}

/// Puts the outer headers in front of a frame that keeps its own Ethernet header; it begins at the
/// frame's first byte.
#[inline(always)]
pub(crate) fn tunnel(
    packet: &mut Packet,
    headers: &Headers,
    template: &Template,
) -> Option<Layers> {
    let inner_l3 = headers.l3 - headers.start;
    end_with_payload(packet, headers);
    match &headers.net {
        Net::Ip(ip) => {
            let entropy = Flow::of(&ip.flow);
            let layers = encapsulate(packet, template, ip.ecn, ip.flow.is_v6(), entropy)?;
            let l4 = layers.l3 + (ip.l4 - headers.start);
            let is_tcp = ip.flow.protocol == Protocol::TCP;
            Some(Layers { l3: layers.l3 + inner_l3, l4, is_tcp, ..layers })
        }
        _ => {
            let entropy = Flow(flow::hash_macs(headers.source_mac, headers.destination_mac));
            encapsulate(packet, template, Ecn::NotEct, false, entropy)
        }
    }
}

/// Copies the template in front and patches it. `l3` of the result is the template's end; `l4` and
/// `is_tcp` are the caller's to set.
#[inline(always)]
pub(crate) fn encapsulate(
    packet: &mut Packet,
    template: &Template,
    ecn: Ecn,
    is_v6: bool,
    flow: Flow,
) -> Option<Layers> {
    let prebuilt = template.bytes();
    let bytes = packet.push(prebuilt.len()).ok()?;
    bytes.copy_from_slice(prebuilt);
    let l3 = prebuilt.len();
    let mut layers = Layers { outer: OuterHeaders::None, l3, l4: l3, is_v6, is_tcp: false };

    let bytes: &mut [u8] = &mut packet.frame;
    if matches!(template.encap(), Encap::None | Encap::VxlanRouted) {
        bytes.get_mut(l3 - 2..l3)?.copy_from_slice(&ethertype(is_v6).0.to_be_bytes());
    }
    if template.encap() == Encap::None {
        return Some(layers);
    }

    if template.is_over_v6() {
        layers.outer = OuterHeaders::Vxlan6;
        over_v6(bytes, ecn, flow)?;
        return Some(layers);
    }
    let outer_at = ethernet::HEADER_LEN;
    let outer_len = bytes.len() - outer_at;
    let outer = header_mut(bytes, outer_at)?;
    // A superframe's length does not fit when the outer headers come on top of 64 KB: `segment`
    // writes each piece's own.
    ipv4::set_total_len(outer, u16::try_from(outer_len).unwrap_or(u16::MAX));
    // RFC 6040, section 4.1: normal mode copies the inner mark. A template has none.
    if ecn != Ecn::NotEct {
        ipv4::set_ecn(outer, ecn);
    }
    if template.encap() == Encap::Ipip && is_v6 {
        ipv4::set_protocol(outer, Protocol::IPV6);
    }
    if template.outer_df() != OuterDf::Set {
        let inner_at = match template.encap() {
            Encap::VxlanBridged => l3 + ethernet::HEADER_LEN,
            _ => l3,
        };
        allow_fragments(bytes, outer_at, inner_at, template.outer_df())?;
    }
    layers.outer = OuterHeaders::Ipip;
    if template.encap() != Encap::Ipip {
        let udp_at = outer_at + ipv4::HEADER_LEN;
        let udp_len = outer_len - ipv4::HEADER_LEN;
        let header = header_mut(bytes, udp_at)?;
        udp::set_source(header, flow.source_port());
        udp::set_len(header, u16::try_from(udp_len).unwrap_or(u16::MAX));
        layers.outer = OuterHeaders::Vxlan4;
    }
    Some(layers)
}

/// Lets routers cut the outer packet, if that is the policy for this inner one.
///
/// Its fragments then need an identification that the packets around it do not have (RFC 6864,
/// section 4.3). There is no counter: workers would have to share it, and a trace would change it.
/// Packets of one flow differ within the bytes that are hashed, by their own identification,
/// sequence number or checksum. Two alike within a receiver's patience, one of which lost a
/// fragment, are as rare as with a counter of 16 bits at full speed, and the inner checksum finds
/// what was put together wrongly.
#[inline(never)]
fn allow_fragments(
    bytes: &mut [u8],
    outer_at: usize,
    inner_at: usize,
    policy: OuterDf,
) -> Option<()> {
    /// IPv6 and TCP headers.
    const HASHED_LEN: usize = 60;
    let inner = bytes.get(inner_at..)?;
    if policy == OuterDf::Inherit
        && !Ipv4::parse_header(inner).is_ok_and(|inner| !inner.dont_fragment())
    {
        return Some(());
    }
    let hash = flow::hash_bytes(inner.get(..HASHED_LEN).unwrap_or(inner));
    let outer = header_mut(bytes, outer_at)?;
    ipv4::set_dont_fragment(outer, false);
    ipv4::set_id(outer, hash as u16);
    Some(())
}

/// The fields of VXLAN over IPv6 but for the UDP checksum, which covers bytes that are not final
/// yet. Out of the way of IPv4.
#[inline(never)]
fn over_v6(bytes: &mut [u8], ecn: Ecn, flow: Flow) -> Option<()> {
    let outer_at = ethernet::HEADER_LEN;
    let udp_at = outer_at + ipv6::HEADER_LEN;
    let udp_len = u16::try_from(bytes.len().checked_sub(udp_at)?).unwrap_or(u16::MAX);
    let outer = header_mut(bytes, outer_at)?;
    ipv6::set_payload_len(outer, udp_len);
    ipv6::set_flow_label(outer, flow.label());
    if ecn != Ecn::NotEct {
        ipv6::set_ecn(outer, ecn);
    }
    let header = header_mut(bytes, udp_at)?;
    udp::set_source(header, flow.source_port());
    udp::set_len(header, udp_len);
    Some(())
}

/// A hash of the inner flow, by which routers of the underlay choose among equal paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow(u64);

impl Flow {
    /// ICMP errors of our own belong to no flow that could be reordered.
    pub(crate) const NONE: Self = Self(0);

    #[inline(always)]
    fn of(key: &FlowKey) -> Self {
        Self(key.hash())
    }

    /// RFC 7348, section 5: a hash of the inner flow, in 49152 to 65535.
    #[inline(always)]
    fn source_port(self) -> u16 {
        0xc000 | (self.0 >> 50) as u16
    }

    /// RFC 6438, section 3: 20 bits of the same, never zero, which means that there is no label.
    fn label(self) -> u32 {
        (self.0 as u32 & 0x000f_ffff).max(1)
    }
}

#[inline(always)]
fn set_ecn(packet: &mut Packet, l3: usize, is_v6: bool, ecn: Ecn) -> Option<()> {
    if is_v6 {
        ipv6::set_ecn(header_mut(&mut packet.frame, l3)?, ecn);
    } else {
        ipv4::set_ecn(header_mut(&mut packet.frame, l3)?, ecn);
    }
    Some(())
}
