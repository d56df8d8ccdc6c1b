//! Ethernet II (IEEE 802.3 section 3, RFC 894).
//!
//! Enters: a frame from a port, without preamble and FCS. Leaves: addresses for the bridge, the
//! type for the next parser, and rewritten addresses on the way out.
//!
//! | bytes | field |
//! |---|---|
//! | 0..6   | destination |
//! | 6..12  | source |
//! | 12..14 | EtherType |

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use super::{Malformed, field, put};

/// Bytes of an untagged header.
pub const HEADER_LEN: usize = 14;

/// A 48-bit MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct MacAddr(pub [u8; 6]);

/// As one number: an array would be hashed byte by byte, after its length.
impl core::hash::Hash for MacAddr {
    #[inline]
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        let (first, last) = self.halves();
        state.write_u64(u64::from(last) << 32 | u64::from(first));
    }
}

impl MacAddr {
    /// Every station.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// No station.
    pub const ZERO: Self = Self([0; 6]);

    /// The group bit is set; broadcast is a multicast too.
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.halves().0 & 1 == 1
    }

    /// Whether no bridge forwards frames to it: 01:80:c2:00:00:00 to :0f (IEEE 802.1D section 7.12.6).
    #[inline]
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        self.as_u64() & !0xf == 0x0180_c200_0000
    }

    /// Whether it is all ones.
    #[inline]
    #[must_use]
    pub const fn is_broadcast(self) -> bool {
        self.as_u64() == 0xffff_ffff_ffff
    }

    /// Whether it is all zeros.
    #[inline]
    #[must_use]
    pub const fn is_zero(self) -> bool {
        let (first, last) = self.halves();
        first == 0 && last == 0
    }

    /// In the pieces in which a machine copies six bytes: what was stored so a moment ago can be
    /// read back so, and need not reach the cache first, as it must before single bytes are put
    /// together. Byte 0 is the lowest.
    #[inline(always)]
    const fn halves(self) -> (u32, u16) {
        match (self.0.first_chunk::<4>(), self.0.last_chunk::<2>()) {
            (Some(first), Some(last)) => (u32::from_le_bytes(*first), u16::from_le_bytes(*last)),
            // Six bytes have both, and the compiler drops this arm.
            _ => (0, 0),
        }
    }

    /// One station's address: fit to be a source and to be learned.
    #[inline]
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !self.is_zero()
    }

    /// The address as a number below 2^48: a key for hashing.
    #[inline]
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The link-local IPv6 address that an interface with this MAC makes of it: the modified EUI-64
    /// (RFC 4291 appendix A, RFC 2464 section 5).
    #[must_use]
    pub const fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let bytes = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f];
        Ipv6Addr::from_bits(u128::from_be_bytes(bytes))
    }

    /// The group address that carries an IPv4 multicast group (RFC 1112 section 6.4).
    #[must_use]
    pub const fn for_multicast_v4(group: Ipv4Addr) -> Self {
        let [_, b, c, d] = group.octets();
        Self([0x01, 0x00, 0x5e, b & 0x7f, c, d])
    }

    /// The group address that carries an IPv6 multicast group (RFC 2464 section 7).
    #[must_use]
    pub const fn for_multicast_v6(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacAddrSyntax;

impl fmt::Display for MacAddrSyntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MAC address is six pairs of hexadecimal digits joined by colons")
    }
}

impl core::error::Error for MacAddrSyntax {}

impl FromStr for MacAddr {
    type Err = MacAddrSyntax;

    fn from_str(text: &str) -> Result<Self, MacAddrSyntax> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().ok_or(MacAddrSyntax)?;
            // `from_str_radix` alone would take "+1" as well.
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(MacAddrSyntax);
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| MacAddrSyntax)?;
        }
        if pairs.next().is_some() { Err(MacAddrSyntax) } else { Ok(Self(octets)) }
    }
}

/// What an Ethernet frame carries; below 0x0600 it is a length (IEEE 802.3 section 3.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// An 802.1Q tag.
    pub const VLAN: Self = Self(0x8100);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// An 802.1ad service tag.
    pub const QINQ: Self = Self(0x88a8);
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match *self {
            Self::IPV4 => "IPv4",
            Self::ARP => "ARP",
            Self::VLAN => "802.1Q",
            Self::IPV6 => "IPv6",
            Self::QINQ => "802.1ad",
            Self(other) => return write!(f, "ethertype {other:#06x}"),
        })
    }
}

/// A frame, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Ethernet<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    /// Reads a frame from its first byte to its last.
    ///
    /// # Errors
    /// `Truncated`.
    #[inline(always)]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, payload) = bytes.split_first_chunk().ok_or(Malformed::Truncated)?;
        Ok(Self { header, payload })
    }

    /// Destination MAC.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> MacAddr {
        MacAddr(field::<0, 6, _>(self.header))
    }

    /// Source MAC.
    #[inline]
    #[must_use]
    pub fn source(&self) -> MacAddr {
        MacAddr(field::<6, 6, _>(self.header))
    }

    /// What the frame carries.
    #[inline]
    #[must_use]
    pub fn ethertype(&self) -> EtherType {
        EtherType(u16::from_be_bytes(field::<12, 2, _>(self.header)))
    }

    /// Everything behind the header, padding included.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The fields by value.
    #[must_use]
    pub fn repr(&self) -> Repr {
        Repr { destination: self.destination(), source: self.source(), ethertype: self.ethertype() }
    }
}

/// Sets the destination MAC.
#[inline]
pub fn set_destination(header: &mut [u8; HEADER_LEN], destination: MacAddr) {
    put::<0, 6, _>(header, destination.0);
}

/// Sets the source MAC.
#[inline]
pub fn set_source(header: &mut [u8; HEADER_LEN], source: MacAddr) {
    put::<6, 6, _>(header, source.0);
}

/// Sets both addresses.
#[inline]
pub fn set_addresses(header: &mut [u8; HEADER_LEN], destination: MacAddr, source: MacAddr) {
    set_destination(header, destination);
    set_source(header, source);
}

/// Sets what the frame carries.
#[inline]
pub fn set_ethertype(header: &mut [u8; HEADER_LEN], ethertype: EtherType) {
    put::<12, 2, _>(header, ethertype.0.to_be_bytes());
}

/// The header by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Destination MAC.
    pub destination: MacAddr,
    /// Source MAC.
    pub source: MacAddr,
    /// What the frame carries.
    pub ethertype: EtherType,
}

impl Repr {
    /// Writes the header and returns its length; `None` if it does not fit.
    #[must_use]
    pub fn emit(&self, bytes: &mut [u8]) -> Option<usize> {
        let header = bytes.first_chunk_mut::<HEADER_LEN>()?;
        set_addresses(header, self.destination, self.source);
        set_ethertype(header, self.ethertype);
        Some(HEADER_LEN)
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}, {}", self.source, self.destination, self.ethertype)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::testing::{POISON, refuses_truncation};

    const FRAME: [u8; 16] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xfe, 0x86, 0xdd, b'h', b'i'];
    const REPR: Repr = Repr {
        destination: MacAddr([2, 0, 0, 0, 0, 1]),
        source: MacAddr([2, 0, 0, 0, 0, 0xfe]),
        ethertype: EtherType::IPV6,
    };

    #[test]
    fn deconstruct() {
        let frame = Ethernet::parse(&FRAME).unwrap();
        assert_eq!(frame.destination(), MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(frame.source(), MacAddr([2, 0, 0, 0, 0, 0xfe]));
        assert_eq!(frame.ethertype(), EtherType::IPV6);
        assert_eq!(frame.payload(), b"hi");
    }

    #[test]
    fn construct() {
        let mut bytes = [POISON; 14];
        set_destination(&mut bytes, REPR.destination);
        set_source(&mut bytes, REPR.source);
        assert_eq!(bytes[..12], FRAME[..12]);
        assert_eq!(bytes[12..], [POISON; 2]);
    }

    #[test]
    fn parse() {
        assert_eq!(Ethernet::parse(&FRAME).unwrap().repr(), REPR);
        refuses_truncation(&FRAME[..HEADER_LEN], Ethernet::parse);
    }

    #[test]
    fn emit() {
        let mut bytes = [POISON; 16];
        assert_eq!(REPR.emit(&mut bytes), Some(HEADER_LEN));
        assert_eq!(bytes[..14], FRAME[..14]);
        assert_eq!(bytes[14..], [POISON; 2]);
        assert_eq!(REPR.emit(&mut bytes[..13]), None);
        assert_eq!(REPR.to_string(), "02:00:00:00:00:fe > 02:00:00:00:00:01, IPv6");
    }

    #[test]
    fn the_judge_agrees() {
        let judge = etherparse::Ethernet2Header {
            destination: REPR.destination.0,
            source: REPR.source.0,
            ether_type: etherparse::EtherType::IPV6,
        };
        assert_eq!(judge.to_bytes(), FRAME[..14]);
    }

    #[test]
    fn addresses_say_what_they_are() {
        assert!(MacAddr::BROADCAST.is_broadcast() && MacAddr::BROADCAST.is_multicast());
        assert!(MacAddr::ZERO.is_zero() && !MacAddr::ZERO.is_unicast());
        assert!(MacAddr([1, 0, 0x5e, 0, 0, 1]).is_multicast());
        let [reserved, beyond] = [0x0f, 0x10].map(|last| MacAddr([1, 0x80, 0xc2, 0, 0, last]));
        assert!(reserved.is_reserved() && !beyond.is_reserved());
        assert!(REPR.source.is_unicast() && !REPR.source.is_broadcast());
        assert_eq!(REPR.source.as_u64(), 0x0200_0000_00fe);
        let group = MacAddr::for_multicast_v4(Ipv4Addr::new(224, 129, 0, 251));
        assert_eq!(group.to_string(), "01:00:5e:01:00:fb");
        let group = MacAddr::for_multicast_v6("ff02::1:ff28:9c5a".parse().unwrap());
        assert_eq!(group.to_string(), "33:33:ff:28:9c:5a");
        // RFC 2464, sections 4 and 5.
        let mac = MacAddr([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
        assert_eq!(mac.link_local().to_string(), "fe80::3656:78ff:fe9a:bcde");
        let mac = MacAddr([0x02, 0x70, 0xc6, 0x12, 0x01, 0x02]);
        assert_eq!(mac.link_local().to_string(), "fe80::70:c6ff:fe12:102");
    }

    #[test]
    fn text_that_is_no_address_is_refused() {
        for text in
            ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "02:00:00:00:00:+1", "2:0:0:0:0:1"]
        {
            assert_eq!(text.parse::<MacAddr>(), Err(MacAddrSyntax), "{text:?}");
        }
        assert_eq!("02:AB:cd:00:00:01".parse(), Ok(MacAddr([2, 0xab, 0xcd, 0, 0, 1])));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn emit_then_parse(destination: [u8; 6], source: [u8; 6], ethertype: u16) {
            let repr = Repr {
                destination: MacAddr(destination),
                source: MacAddr(source),
                ethertype: EtherType(ethertype),
            };
            let mut bytes = [POISON; HEADER_LEN];
            repr.emit(&mut bytes).unwrap();
            prop_assert_eq!(Ethernet::parse(&bytes).unwrap().repr(), repr);
        }

        #[test]
        fn text_and_back(octets: [u8; 6]) {
            prop_assert_eq!(MacAddr(octets).to_string().parse(), Ok(MacAddr(octets)));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(Ethernet::parse(&bytes).is_ok(), bytes.len() >= HEADER_LEN);
        }
    }
}
