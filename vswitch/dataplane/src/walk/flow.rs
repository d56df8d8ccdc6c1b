//! The key of the flow that a packet belongs to, and its hash.
//!
//! Enters: a parsed IP header, from `parse`, and one that an ICMP error quotes, from `path_mtu`.
//! Leaves: a [`FlowKey`]. Ports and ICMP's type, code and identifier are read here and nowhere
//! else: doors and edits ask the key. (An outer UDP header is no part of the packet that is
//! forwarded:
//! `decap` reads it.) The hash chooses among the members of a next-hop group, for `route`, and is
//! VXLAN's source port, for `rewrite`; both are of the inner packet, so that a flow takes one way out
//! of the node and one through the underlay.

use core::hash::{BuildHasher, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::FixedState;

use crate::wire::ipv6::Upper;
use crate::wire::{Ipv4, Ipv6, MacAddr, Protocol, icmpv4, icmpv6, ipv6};

/// The flow of an IP packet, in the packet's own direction: what its headers say before any
/// translation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlowKey {
    pub(crate) addresses: Addresses,
    /// The transport protocol, behind all IPv6 extension headers.
    pub(crate) protocol: Protocol,
    pub(crate) fragment: Fragment,
    head: Head,
}

/// Source and destination of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Addresses {
    V4 { source: Ipv4Addr, destination: Ipv4Addr },
    V6 { source: Ipv6Addr, destination: Ipv6Addr },
}

/// Which part of its packet a fragment is. `id` is the identification that all fragments of one
/// packet share, together with addresses and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fragment {
    /// No fragment: the packet is whole.
    Whole,
    /// The first fragment, which has the transport header.
    First { id: u32 },
    /// A later fragment: there is no transport header, and so no ports without the first.
    Later { id: u32 },
}

/// The first bytes of the transport header. Every packet's are read; what they mean is worked out
/// for the few doors that ask.
#[derive(Debug, Clone, Copy)]
struct Head {
    /// Zero behind `len`.
    bytes: [u8; HEAD_LEN],
    /// None of a later fragment.
    len: u8,
}

/// Ports, or ICMP's type, code and identifier, are within these; no header of theirs is shorter.
const HEAD_LEN: usize = 8;

/// Source and destination port, which TCP, UDP and SCTP have in one place (RFC 9293, RFC 768,
/// RFC 9260).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports(u32);

/// The fields that identify an ICMP or ICMPv6 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Icmp {
    /// RFC 792's and RFC 4443's type.
    pub(crate) kind: u8,
    /// Zero if the message ends before.
    pub(crate) code: u8,
    /// Tells the echoes of one ping from those of others. `None` of other messages, and of an echo
    /// that ends before its header does.
    pub(crate) echo_id: Option<u16>,
}

impl FlowKey {
    /// The key of an IPv4 packet; of a quoted one that ends early, as far as it goes.
    pub(crate) fn of_v4(ip: &Ipv4<'_>) -> Self {
        let mut key = Self::of_whole_v4(ip);
        if ip.is_fragment() {
            key.cut(ip.id().into(), ip.fragment_offset());
        }
        key
    }

    /// The key of an IPv6 packet, likewise; its extension headers end at `upper`.
    pub(crate) fn of_v6(ip: &Ipv6<'_>, upper: &Upper) -> Self {
        let mut key = Self::of_whole_v6(ip, upper);
        if let Some(fragment) = upper.fragment {
            key.cut(fragment.id, fragment.offset);
        }
        key
    }

    /// The key of an IPv4 packet that is no fragment.
    #[inline(always)]
    pub(crate) fn of_whole_v4(ip: &Ipv4<'_>) -> Self {
        Self {
            addresses: Addresses::V4 { source: ip.source(), destination: ip.destination() },
            protocol: ip.protocol(),
            fragment: Fragment::Whole,
            head: Head::of(ip.payload()),
        }
    }

    /// The key of an IPv6 packet that is no fragment and whose extension headers end at `upper`.
    #[inline(always)]
    pub(crate) fn of_whole_v6(ip: &Ipv6<'_>, upper: &Upper) -> Self {
        // Most packets have no extension headers: nothing is to be cut off.
        let transport = match upper.offset - ipv6::HEADER_LEN {
            0 => ip.payload(),
            extensions_len => ip.payload().get(extensions_len..).unwrap_or_default(),
        };
        Self {
            addresses: Addresses::V6 { source: ip.source(), destination: ip.destination() },
            protocol: upper.protocol,
            fragment: Fragment::Whole,
            head: Head::of(transport),
        }
    }

    /// Makes a whole packet's key that of a fragment which begins `offset` bytes into the packet.
    #[cold]
    #[inline(never)]
    pub(crate) fn cut(&mut self, id: u32, offset: u16) {
        if offset == 0 {
            self.fragment = Fragment::First { id };
        } else {
            self.fragment = Fragment::Later { id };
            self.head = Head::NONE;
        }
    }

    /// The key of the same packet with other endpoints; without ports if it had none.
    pub(crate) fn translated(&self, addresses: Addresses, ports: Option<Ports>) -> Self {
        let mut key = Self { addresses, ..*self };
        if let (Some(_), Some(ports)) = (self.ports(), ports) {
            let [a, b, c, d] = ports.to_be_bytes();
            let [.., w, x, y, z] = self.head.bytes;
            key.head.bytes = [a, b, c, d, w, x, y, z];
        }
        key
    }

    #[inline(always)]
    pub(crate) fn is_v6(&self) -> bool {
        matches!(self.addresses, Addresses::V6 { .. })
    }

    #[inline]
    pub(crate) fn source(&self) -> IpAddr {
        match self.addresses {
            Addresses::V4 { source, .. } => source.into(),
            Addresses::V6 { source, .. } => source.into(),
        }
    }

    #[inline]
    pub(crate) fn destination(&self) -> IpAddr {
        match self.addresses {
            Addresses::V4 { destination, .. } => destination.into(),
            Addresses::V6 { destination, .. } => destination.into(),
        }
    }

    /// Whether the packet is part of one that was cut, the first fragment included.
    #[inline(always)]
    pub(crate) fn is_fragment(&self) -> bool {
        !matches!(self.fragment, Fragment::Whole)
    }

    /// Whether it is a fragment without transport header.
    #[inline(always)]
    pub(crate) fn is_later_fragment(&self) -> bool {
        matches!(self.fragment, Fragment::Later { .. })
    }

    /// The ports, if the protocol has some and the packet their bytes.
    #[inline(always)]
    pub(crate) fn ports(&self) -> Option<Ports> {
        let [a, b, c, d, ..] = self.head.bytes;
        (matches!(self.protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP)
            && self.head.len >= 4)
            .then_some(Ports(u32::from_be_bytes([a, b, c, d])))
    }

    /// The message's type, code and identifier, if the protocol is ICMP or ICMPv6. An error's flow
    /// is that of the packet it quotes, reversed.
    #[inline]
    pub(crate) fn icmp(&self) -> Option<Icmp> {
        let [kind, code, _, _, high, low, ..] = self.head.bytes;
        let is_echo = match self.protocol {
            Protocol::ICMP => matches!(kind, icmpv4::ECHO_REQUEST | icmpv4::ECHO_REPLY),
            Protocol::ICMPV6 => matches!(kind, icmpv6::ECHO_REQUEST | icmpv6::ECHO_REPLY),
            _ => return None,
        };
        let is_whole = usize::from(self.head.len) == HEAD_LEN;
        let echo_id = (is_echo && is_whole).then_some(u16::from_be_bytes([high, low]));
        (self.head.len > 0).then_some(Icmp { kind, code, echo_id })
    }

    /// A hash of addresses, protocol and ports. All fragments of a packet have the same one, as
    /// none of them is asked for its ports.
    #[inline(always)]
    pub(crate) fn hash(&self) -> u64 {
        let ports = self.ports().filter(|_| !self.is_fragment()).map_or(0, |ports| ports.0);
        let mut hasher = FLOW_HASH.build_hasher();
        match self.addresses {
            Addresses::V4 { source, destination } => {
                hasher.write_u64(
                    u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits()),
                );
            }
            Addresses::V6 { source, destination } => {
                hasher.write_u128(source.to_bits());
                hasher.write_u128(destination.to_bits());
            }
        }
        hasher.write_u64(u64::from(self.protocol.0) << 32 | u64::from(ports));
        hasher.finish()
    }
}

impl PartialEq for FlowKey {
    fn eq(&self, other: &Self) -> bool {
        let but_addresses = |key: &Self| (key.protocol, key.fragment, key.ports(), key.icmp());
        self.addresses == other.addresses && but_addresses(self) == but_addresses(other)
    }
}

impl Head {
    const NONE: Self = Self { bytes: [0; HEAD_LEN], len: 0 };

    /// The head of these bytes, which begin with the transport header.
    #[inline(always)]
    fn of(transport: &[u8]) -> Self {
        match transport.first_chunk() {
            Some(bytes) => Self { bytes: *bytes, len: HEAD_LEN as u8 },
            None => Self::short(transport),
        }
    }

    #[cold]
    fn short(transport: &[u8]) -> Self {
        let mut head = Self { len: transport.len() as u8, ..Self::NONE };
        for (to, from) in head.bytes.iter_mut().zip(transport) {
            *to = *from;
        }
        head
    }
}

impl Ports {
    #[inline(always)]
    pub(crate) const fn new(source: u16, destination: u16) -> Self {
        Self((source as u32) << 16 | destination as u32)
    }

    #[inline(always)]
    pub(crate) const fn source(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    pub(crate) const fn destination(self) -> u16 {
        self.0 as u16
    }

    /// As both stand in the header.
    pub(crate) const fn to_be_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

/// Seeded alike on every node and at every start: a flow keeps its path through the underlay when
/// the daemon restarts. Nothing is stored by this hash, so it needs no secret.
const FLOW_HASH: FixedState = FixedState::with_seed(0x7673_7769_7463_6800);

/// The flow hash of a frame that is not IP.
pub(crate) fn hash_macs(source: MacAddr, destination: MacAddr) -> u64 {
    FLOW_HASH.hash_one((source, destination))
}

/// A hash of a packet's first bytes, by which packets of one flow differ.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    FLOW_HASH.hash_one(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::{Addresses, FlowKey, Fragment, Head, Icmp, Ports};
    use crate::tables::{Adjacency, AdjacencyId, Member, Multipath, PortId, Template};
    use crate::wire::{Ipv4, Ipv6, MacAddr, Protocol, icmpv4, icmpv6, ipv4, ipv6};

    fn key(host: u8, v6: bool, source: u16) -> FlowKey {
        let addresses = if v6 {
            let address = |host: u8| Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, 0, host.into()]);
            Addresses::V6 { source: address(host), destination: address(0) }
        } else {
            let address = |host: u8| Ipv4Addr::from([198, 18, 9, host]);
            Addresses::V4 { source: address(host), destination: address(0) }
        };
        let [high, low] = source.to_be_bytes();
        let head = Head::of(&[high, low, 0, 80]);
        FlowKey { addresses, protocol: Protocol::UDP, fragment: Fragment::Whole, head }
    }

    /// As clients make them: ports and addresses in a row.
    #[test]
    fn neighbouring_flows_are_shared_evenly() {
        let template = Template::ethernet(MacAddr::ZERO, MacAddr::ZERO);
        let hop = Adjacency::Port { port: PortId(0), template, mtu: 1500 };
        let member = |number| Member {
            identity: [203, 0, 113, number].into(),
            adjacency: AdjacencyId(0),
            weight: 1,
        };
        let members = [member(12), member(13), member(14), member(15)];
        let group = Multipath::of(&members, &[hop].into_iter().collect()).unwrap();
        for v6 in [false, true] {
            let flows = (0..=255).flat_map(|host| (0..64u16).map(move |port| (host, port)));
            let mut shares = [0u32; 4];
            for (host, port) in flows {
                let member = group.member(key(host, v6, 40_000 + port).hash()).unwrap();
                let at = members.iter().position(|one| one == member).unwrap();
                *shares.get_mut(at).unwrap() += 1;
            }
            let even = 256 * 64 / 4;
            let bounds = even * 8 / 10..even * 12 / 10;
            assert!(shares.iter().all(|share| bounds.contains(share)), "{shares:?}");
        }
    }

    const SOURCE: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 7);

    /// The key of an IPv4 packet with this payload, which is cut as the offset and flag say.
    fn of_v4(protocol: Protocol, offset: u16, more: bool, payload: &[u8]) -> FlowKey {
        let header = ipv4::Repr {
            tos: 0,
            total_len: 20 + payload.len() as u16,
            id: 0x1234,
            dont_fragment: false,
            more_fragments: more,
            fragment_offset: offset,
            ttl: 64,
            protocol,
            source: SOURCE,
            destination: DESTINATION,
        };
        let mut bytes = vec![0; 20];
        header.emit(&mut bytes).unwrap();
        bytes.extend(payload);
        FlowKey::of_v4(&Ipv4::parse(&bytes).unwrap())
    }

    #[test]
    fn ports_are_those_of_the_header_if_there_is_one() {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
            let key = of_v4(protocol, 0, false, &[1, 2, 3, 4, 5]);
            let ports = Some(Ports::new(0x0102, 0x0304));
            assert_eq!((key.ports(), key.icmp(), key.fragment), (ports, None, Fragment::Whole));
            assert_eq!(of_v4(protocol, 0, false, &[1, 2, 3]).ports(), None);
        }
        assert_eq!(of_v4(Protocol::ESP, 0, false, &[1, 2, 3, 4]).ports(), None);
    }

    #[test]
    fn fragments_share_identification_and_hash() {
        let first = of_v4(Protocol::UDP, 0, true, &[1, 2, 3, 4, 0, 0, 0, 0]);
        let later = of_v4(Protocol::UDP, 8, false, &[1, 2, 3, 4, 0, 0, 0, 0]);
        assert_eq!(first.fragment, Fragment::First { id: 0x1234 });
        assert_eq!(later.fragment, Fragment::Later { id: 0x1234 });
        assert_eq!(first.ports(), Some(Ports::new(0x0102, 0x0304)));
        assert_eq!(later.ports(), None);
        assert_eq!(of_v4(Protocol::ICMP, 8, false, &[8, 0]).icmp(), None);
        assert_eq!(first.hash(), later.hash());
        let whole = of_v4(Protocol::UDP, 0, false, &[1, 2, 3, 4, 0, 0, 0, 0]);
        assert_ne!(first.hash(), whole.hash());
    }

    #[test]
    fn an_echo_has_its_identifier_and_an_error_none() {
        for (protocol, echo, error) in [
            (Protocol::ICMP, icmpv4::ECHO_REPLY, icmpv4::TIME_EXCEEDED),
            (Protocol::ICMPV6, icmpv6::ECHO_REQUEST, icmpv6::TIME_EXCEEDED),
        ] {
            let message = |kind| [kind, 9, 0, 0, 0x56, 0x78, 0, 1];
            let icmp = |kind, code, echo_id| Some(Icmp { kind, code, echo_id });
            let of = |bytes: &[u8]| of_v4(protocol, 0, false, bytes).icmp();
            assert_eq!(of(&message(echo)), icmp(echo, 9, Some(0x5678)));
            assert_eq!(of(&message(error)), icmp(error, 9, None));
            // Too short to be one, but its type is what it says.
            assert_eq!(of(&message(echo)[..7]), icmp(echo, 9, None));
            assert_eq!(of(&[echo]), icmp(echo, 0, None));
            assert_eq!(of(&[]), None);
        }
    }

    #[test]
    fn packets_of_one_flow_are_equal_whatever_follows_the_key() {
        let tcp = |ports: [u8; 4], sequence| {
            of_v4(Protocol::TCP, 0, false, &[&ports[..], &[0, 0, 0, sequence]].concat())
        };
        assert_eq!(tcp([1, 2, 3, 4], 5), tcp([1, 2, 3, 4], 6));
        assert_ne!(tcp([1, 2, 3, 4], 5), tcp([1, 2, 3, 5], 5));
        let echo =
            |id, sequence| of_v4(Protocol::ICMP, 0, false, &[8, 0, 0, 0, 0, id, 0, sequence]);
        assert_eq!(echo(1, 1), echo(1, 2));
        assert_ne!(echo(1, 1), echo(2, 1));
        assert_ne!(echo(1, 1), of_v4(Protocol::UDP, 0, false, &[8, 0, 0, 0, 0, 1, 0, 1]));
    }

    #[test]
    fn a_quoted_packet_has_its_key_as_far_as_it_is_quoted() {
        let header = ipv6::Repr {
            traffic_class: 0,
            flow_label: 0,
            payload_len: 1400,
            next_header: Protocol::FRAGMENT,
            hop_limit: 64,
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::UNSPECIFIED,
        };
        let mut bytes = vec![0; 40];
        header.emit(&mut bytes).unwrap();
        bytes.extend([17, 0, 0, 1, 0, 0, 0x12, 0x34, 1, 2, 3, 4]);
        let of = |bytes: &[u8]| {
            let ip = Ipv6::parse_header(bytes).unwrap();
            FlowKey::of_v6(&ip, &ip.upper().unwrap())
        };
        let key = of(&bytes);
        assert_eq!(key.source(), Ipv6Addr::LOCALHOST);
        assert_eq!(key.destination(), Ipv6Addr::UNSPECIFIED);
        assert_eq!((key.protocol, key.fragment), (Protocol::UDP, Fragment::First { id: 0x1234 }));
        assert_eq!(key.ports(), Some(Ports::new(0x0102, 0x0304)));
        bytes.truncate(51);
        assert_eq!(of(&bytes).ports(), None);
    }
}
