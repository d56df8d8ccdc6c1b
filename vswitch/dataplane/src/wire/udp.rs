//! UDP (RFC 768).
//!
//! Enters: the payload of an IP packet. Leaves: the ports for the flow hash, the length for decap;
//! on the way out, an outer header patched in place.
//!
//! | bytes | field |
//! |---|---|
//! | 0..2 | source port |
//! | 2..4 | destination port |
//! | 4..6 | length of header and payload |
//! | 6..8 | checksum; zero if the sender made none |

use core::fmt;

use super::checksum::Sum;
use super::{Malformed, field, put};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = 6;

/// A datagram, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Udp<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Reads a datagram; bytes behind its length are not part of it.
    ///
    /// # Errors
    /// `Truncated`, `TotalLength`.
    #[inline(always)]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        let len = usize::from(u16::from_be_bytes(field::<4, 2, _>(header)));
        let payload = bytes.get(HEADER_LEN..len).ok_or(Malformed::TotalLength)?;
        Ok(Self { header, payload })
    }

    /// Reads the header of a datagram that may be cut off, or a superframe: the length is not
    /// looked at, and the payload is all that follows.
    ///
    /// # Errors
    /// `Truncated`.
    #[inline(always)]
    pub fn parse_header(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, payload) = bytes.split_first_chunk().ok_or(Malformed::Truncated)?;
        Ok(Self { header, payload })
    }

    /// The sender's port.
    #[inline]
    #[must_use]
    pub fn source(&self) -> u16 {
        u16::from_be_bytes(field::<0, 2, _>(self.header))
    }

    /// The receiver's port.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> u16 {
        u16::from_be_bytes(field::<2, 2, _>(self.header))
    }

    /// Bytes of header and payload: 8 or more.
    #[inline]
    #[must_use]
    pub fn length(&self) -> u16 {
        u16::from_be_bytes(field::<4, 2, _>(self.header))
    }

    /// The checksum as it is in the packet.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes(field::<6, 2, _>(self.header))
    }

    /// Whether the datagram is as its sender made it, or its sender made no checksum: whether that
    /// is allowed (over IPv6 it mostly is not) is for the caller to decide.
    #[inline]
    #[must_use]
    pub fn checksum_ok(&self, pseudo: Sum) -> bool {
        self.checksum() == 0 || pseudo.bytes(self.header).bytes(self.payload).verifies()
    }

    /// What the datagram carries.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The fields by value.
    #[must_use]
    pub fn repr(&self) -> Repr {
        Repr {
            source: self.source(),
            destination: self.destination(),
            len: self.length(),
            checksum: self.checksum(),
        }
    }
}

/// Sets the sender's port.
#[inline]
pub fn set_source(header: &mut [u8; HEADER_LEN], port: u16) {
    put::<0, 2, _>(header, port.to_be_bytes());
}

/// Sets the receiver's port.
#[inline]
pub fn set_destination(header: &mut [u8; HEADER_LEN], port: u16) {
    put::<2, 2, _>(header, port.to_be_bytes());
}

/// Sets the length of header and payload.
#[inline]
pub fn set_len(header: &mut [u8; HEADER_LEN], len: u16) {
    put::<4, 2, _>(header, len.to_be_bytes());
}

/// Sets the checksum.
#[inline]
pub fn set_checksum(header: &mut [u8; HEADER_LEN], checksum: u16) {
    put::<6, 2, _>(header, checksum.to_be_bytes());
}

/// Sums the datagram, which ends with the bytes, and stores the checksum; false, and unchanged, if
/// they are not even a header.
#[must_use]
pub fn fill_checksum(datagram: &mut [u8], pseudo: Sum) -> bool {
    let Some((header, payload)) = datagram.split_first_chunk_mut() else { return false };
    set_checksum(header, 0);
    set_checksum(header, pseudo.bytes(header).bytes(payload).finish_nonzero());
    true
}

/// The header by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub destination: u16,
    /// Bytes of header and payload.
    pub len: u16,
    /// The checksum, zero for none; [`fill_checksum`] makes one.
    pub checksum: u16,
}

impl Repr {
    /// Writes the header and returns its length; `None` if it does not fit.
    #[must_use]
    pub fn emit(&self, bytes: &mut [u8]) -> Option<usize> {
        let header = bytes.first_chunk_mut()?;
        set_source(header, self.source);
        set_destination(header, self.destination);
        set_len(header, self.len);
        set_checksum(header, self.checksum);
        Some(HEADER_LEN)
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload_len = usize::from(self.len).saturating_sub(HEADER_LEN);
        write!(f, "UDP {} > {}, length {payload_len}", self.source, self.destination)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use etherparse::UdpHeader;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Protocol;
    use crate::wire::testing::{POISON, refuses_truncation};

    const DATAGRAM: [u8; 12] = [0xc0, 0x00, 0x12, 0xb5, 0, 12, 0x9c, 0xf1, 1, 2, 3, 4];
    const REPR: Repr = Repr { source: 49152, destination: 4789, len: 12, checksum: 0x9cf1 };
    const FROM: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
    const TO: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);

    fn pseudo() -> Sum {
        Sum::pseudo_v4(FROM, TO, Protocol::UDP, 12)
    }

    #[test]
    fn deconstruct() {
        let datagram = Udp::parse(&DATAGRAM).unwrap();
        assert_eq!(datagram.source(), 49152);
        assert_eq!(datagram.destination(), 4789);
        assert_eq!(datagram.length(), 12);
        assert!(!datagram.checksum_ok(Sum::new()));
        assert_eq!(datagram.payload(), [1, 2, 3, 4]);
        assert!(datagram.checksum_ok(pseudo()));
    }

    #[test]
    fn construct() {
        let mut bytes = [POISON; 12];
        bytes[8..].copy_from_slice(&[1, 2, 3, 4]);
        let header = bytes.first_chunk_mut().unwrap();
        set_source(header, 49152);
        set_destination(header, 4789);
        set_len(header, 12);
        assert!(fill_checksum(&mut bytes, pseudo()));
        assert_eq!(bytes, DATAGRAM);
        assert!(!fill_checksum(&mut bytes[..7], pseudo()));
    }

    #[test]
    fn parse() {
        assert_eq!(Udp::parse(&DATAGRAM).unwrap().repr(), REPR);
        refuses_truncation(&DATAGRAM, Udp::parse);
        for len in [0, 7, 13, 255] {
            let mut bytes = DATAGRAM;
            bytes[5] = len;
            assert_eq!(Udp::parse(&bytes).err(), Some(Malformed::TotalLength), "length {len}");
        }
        let cut = Udp::parse_header(&DATAGRAM[..9]).unwrap();
        assert_eq!((cut.repr(), cut.payload()), (REPR, &[1][..]));
        refuses_truncation(&DATAGRAM[..HEADER_LEN], Udp::parse_header);
        let longer = [&DATAGRAM[..], &[9; 3]].concat();
        assert_eq!(Udp::parse(&longer).unwrap().payload(), [1, 2, 3, 4]);
    }

    #[test]
    fn emit() {
        let mut bytes = [POISON; 10];
        assert_eq!(REPR.emit(&mut bytes), Some(HEADER_LEN));
        assert_eq!(bytes[..8], DATAGRAM[..8]);
        assert_eq!(bytes[8..], [POISON; 2]);
        assert_eq!(REPR.emit(&mut bytes[..7]), None);
        assert_eq!(REPR.to_string(), "UDP 49152 > 4789, length 4");
    }

    #[test]
    fn no_checksum_is_sent_as_zero_and_never_computed_as_zero() {
        let mut bytes = DATAGRAM;
        set_checksum(bytes.first_chunk_mut().unwrap(), 0);
        assert!(Udp::parse(&bytes).unwrap().checksum_ok(pseudo()));
        // A payload word that makes the sum all ones.
        bytes[8..].copy_from_slice(&[0; 4]);
        let missing = pseudo().bytes(&bytes).finish();
        bytes[8..10].copy_from_slice(&missing.to_be_bytes());
        assert!(fill_checksum(&mut bytes, pseudo()));
        assert_eq!(Udp::parse(&bytes).unwrap().checksum(), 0xffff);
        assert!(Udp::parse(&bytes).unwrap().checksum_ok(pseudo()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn emit_then_parse(source: u16, destination: u16, len in 8u16..100, checksum: u16) {
            let repr = Repr { source, destination, len, checksum };
            let mut bytes = [POISON; 100];
            repr.emit(&mut bytes).unwrap();
            prop_assert_eq!(Udp::parse(&bytes).unwrap().repr(), repr);
        }

        #[test]
        fn the_judge_agrees(
            ports: (u16, u16), payload in prop::collection::vec(any::<u8>(), 0..100), from: u128, to: u128,
        ) {
            let len = u16::try_from(HEADER_LEN + payload.len()).unwrap();
            let repr = Repr { source: ports.0, destination: ports.1, len, checksum: 0 };
            let mut bytes = [&[POISON; HEADER_LEN][..], &payload].concat();
            repr.emit(&mut bytes).unwrap();

            let (from4, to4) = (Ipv4Addr::from_bits(from as u32), Ipv4Addr::from_bits(to as u32));
            assert!(fill_checksum(&mut bytes, Sum::pseudo_v4(from4, to4, Protocol::UDP, len)));
            let mut judge = UdpHeader::without_ipv4_checksum(ports.0, ports.1, payload.len()).unwrap();
            judge.checksum = judge.calc_checksum_ipv4_raw(from4.octets(), to4.octets(), &payload).unwrap();
            prop_assert_eq!(&judge.to_bytes()[..], &bytes[..8]);

            let (from, to) = (Ipv6Addr::from_bits(from), Ipv6Addr::from_bits(to));
            let pseudo = Sum::pseudo_v6(from, to, Protocol::UDP, u32::from(len));
            assert!(fill_checksum(&mut bytes, pseudo));
            judge.checksum = judge.calc_checksum_ipv6_raw(from.octets(), to.octets(), &payload).unwrap();
            prop_assert_eq!(&judge.to_bytes()[..], &bytes[..8]);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), len in 0u16..70) {
            let mut bytes = bytes;
            if let Some(header) = bytes.first_chunk_mut() {
                set_len(header, len);
            }
            if let Ok(datagram) = Udp::parse(&bytes) {
                let _ = (datagram.repr().to_string(), datagram.checksum_ok(Sum::new()));
                prop_assert_eq!(datagram.payload().len() + HEADER_LEN, usize::from(len));
            }
        }
    }
}
