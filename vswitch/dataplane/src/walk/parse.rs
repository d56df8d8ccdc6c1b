//! Door 2: where the headers of a packet are.
//!
//! Enters: bytes, and from `decap` where the packet begins. Leaves: [`Headers`], a small `Copy`
//! description that every later door reads instead of parsing again. A malformed IP packet is not
//! dropped here, nor another protocol: a segment carries what comes through the overlay all the same;
//! only `route` minds, and `source`, of a bridged pod.

use super::arrival::Arrival;
use super::flow::FlowKey;
use super::narrator::{Narrator, Network, TraceEvent};
use crate::verdict::DropReason;
use crate::wire::{Ecn, EtherType, Ethernet, Ipv4, Ipv6, MacAddr, Malformed, ethernet, ipv4, ipv6};

/// Where the headers are, in bytes from the frame's first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Headers {
    /// The packet that is forwarded begins here.
    pub(crate) start: usize,
    /// Its network header begins here; equal to `start` if it has no Ethernet header.
    pub(crate) l3: usize,
    /// The packet that is forwarded ends here, its own padding included.
    pub(crate) end: usize,
    /// Bytes above Ethernet, of the longest piece if it is a superframe: what is held against an
    /// MTU. `offload` fills it in.
    pub(crate) piece_len: usize,
    /// Zero if it has no Ethernet header.
    pub(crate) destination_mac: MacAddr,
    /// Zero if it has no Ethernet header.
    pub(crate) source_mac: MacAddr,
    pub(crate) net: Net,
}

impl Headers {
    /// The value before `parse`.
    #[inline(always)]
    pub(crate) fn none() -> Self {
        Self {
            start: 0,
            l3: 0,
            end: 0,
            piece_len: 0,
            destination_mac: MacAddr::ZERO,
            source_mac: MacAddr::ZERO,
            net: Net::Other,
        }
    }
}

/// The network layer. Every door asks, so the tag is a byte of its own.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Net {
    Ip(Ip),
    Arp,
    /// Neither IP nor ARP.
    Other,
    /// IP, but broken.
    Malformed(DropReason),
}

/// An IP packet of either version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ip {
    /// The key of the packet's flow: addresses, protocol and ports.
    pub(crate) flow: FlowKey,
    /// Bytes of the whole IP packet; the frame may be longer by padding.
    pub(crate) len: usize,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    pub(crate) ecn: Ecn,
    /// Where the transport header begins, in bytes from the frame's first.
    pub(crate) l4: usize,
    /// Whether routers may not cut the packet: they never cut IPv6.
    pub(crate) dont_fragment: bool,
    /// Whether it is whole, with neither options nor extension headers.
    pub(crate) is_plain: bool,
}

/// Fills in `headers`, which are [`Headers::none`].
#[inline(always)]
pub(crate) fn parse(
    bytes: &[u8],
    arrival: &Arrival<'_>,
    headers: &mut Headers,
    narrator: &mut impl Narrator,
) -> Result<(), DropReason> {
    let short = DropReason::FrameTooShort;
    let start = arrival.start;
    let packet = bytes.get(start..arrival.end).ok_or(short)?;
    headers.start = start;
    headers.end = arrival.end;
    if arrival.ethernet {
        let Ok(ethernet) = Ethernet::parse(packet) else { return Err(short) };
        headers.l3 = start + ethernet::HEADER_LEN;
        headers.destination_mac = ethernet.destination();
        headers.source_mac = ethernet.source();
        match ethernet.ethertype() {
            EtherType::IPV4 => ipv4(ethernet.payload(), headers.l3, &mut headers.net),
            EtherType::IPV6 => ipv6(ethernet.payload(), headers.l3, &mut headers.net),
            EtherType::ARP => headers.net = Net::Arp,
            _ => {}
        }
    } else {
        headers.l3 = start;
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => ipv4(packet, start, &mut headers.net),
            Some(6) => ipv6(packet, start, &mut headers.net),
            _ => headers.net = Net::Malformed(DropReason::Ipv4Malformed),
        }
    }
    narrator.event(|| headers.event());
    Ok(())
}

#[inline(always)]
fn ipv4(bytes: &[u8], l3: usize, net: &mut Net) {
    let Ok(ip) = Ipv4::parse(bytes) else {
        *net = Net::Malformed(DropReason::Ipv4Malformed);
        return;
    };
    if !ip.checksum_ok() {
        *net = Net::Malformed(DropReason::Ipv4Checksum);
        return;
    }
    *net = Net::Ip(Ip {
        flow: FlowKey::of_whole_v4(&ip),
        len: usize::from(ip.total_len()),
        ttl: ip.ttl(),
        ecn: ip.ecn(),
        l4: l3 + ip.header_len(),
        dont_fragment: ip.dont_fragment(),
        is_plain: ip.header_len() == ipv4::HEADER_LEN,
    });
    if let (true, Net::Ip(found)) = (ip.is_fragment(), net) {
        found.flow.cut(ip.id().into(), ip.fragment_offset());
        found.is_plain = false;
    }
}

#[inline]
fn ipv6(bytes: &[u8], l3: usize, net: &mut Net) {
    let parsed = Ipv6::parse(bytes).and_then(|ip| Ok::<_, Malformed>((ip, ip.upper()?)));
    let Ok((ip, upper)) = parsed else {
        *net = Net::Malformed(DropReason::Ipv6Malformed);
        return;
    };
    *net = Net::Ip(Ip {
        flow: FlowKey::of_whole_v6(&ip, &upper),
        len: ipv6::HEADER_LEN + usize::from(ip.payload_len()),
        ttl: ip.hop_limit(),
        ecn: ip.ecn(),
        l4: l3 + upper.offset,
        dont_fragment: true,
        is_plain: upper.offset == ipv6::HEADER_LEN,
    });
    if let (Some(fragment), Net::Ip(found)) = (upper.fragment, net) {
        found.flow.cut(fragment.id, fragment.offset);
    }
}

impl Headers {
    /// The bytes from the transport header to the end of the IP packet, without the frame's
    /// padding. Empty if the packet ends before.
    #[inline(always)]
    pub(crate) fn transport<'b>(&self, bytes: &'b [u8], ip: &Ip) -> &'b [u8] {
        bytes.get(ip.l4..self.l3 + ip.len).unwrap_or_default()
    }

    fn event(&self) -> TraceEvent {
        let macs = (self.l3 > self.start).then_some((self.source_mac, self.destination_mac));
        let network = match &self.net {
            Net::Ip(ip) => Network::Ip {
                source: ip.flow.source(),
                destination: ip.flow.destination(),
                protocol: ip.flow.protocol,
                len: ip.len,
                ttl: ip.ttl,
            },
            Net::Arp => Network::Arp,
            Net::Other => Network::Other,
            Net::Malformed(reason) => Network::Malformed(*reason),
        };
        TraceEvent::Parsed { macs, network }
    }
}
