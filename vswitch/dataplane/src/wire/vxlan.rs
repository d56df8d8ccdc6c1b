//! VXLAN (RFC 7348).
//!
//! Enters: the payload of a UDP datagram to the tunnel port. Leaves: the network identifier and the
//! inner Ethernet frame; on the way out, eight bytes before it.
//!
//! | bytes | field |
//! |---|---|
//! | 0    | flags: I (0x08) is set if the identifier counts |
//! | 1..4 | reserved |
//! | 4..7 | VXLAN network identifier |
//! | 7    | reserved |

use core::fmt;

use super::{Malformed, field, put};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// The UDP port that IANA gave to VXLAN.
pub const PORT: u16 = 4789;

const FLAG_I: u8 = 0x08;

/// A VXLAN network identifier: 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// The largest.
    pub const MAX: Self = Self(0x00ff_ffff);

    /// `None` beyond 24 bits.
    #[inline]
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value <= Self::MAX.0 { Some(Self(value)) } else { None }
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A header with the frame behind it, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Vxlan<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Vxlan<'a> {
    /// Reads a header. Reserved bits "MUST be ignored on receipt" (RFC 7348 section 5).
    ///
    /// # Errors
    /// `Truncated`; `Flags` if the I flag is not set.
    #[inline(always)]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, payload) =
            bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        if header[0] & FLAG_I == 0 {
            return Err(Malformed::Flags);
        }
        Ok(Self { header, payload })
    }

    /// Which network the inner frame belongs to.
    #[inline]
    #[must_use]
    pub fn vni(&self) -> Vni {
        Vni(u32::from_be_bytes(field::<4, 4, _>(self.header)) >> 8)
    }

    /// The inner Ethernet frame.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The fields by value.
    #[must_use]
    pub fn repr(&self) -> Repr {
        Repr { vni: self.vni() }
    }
}

/// Sets which network the inner frame belongs to.
#[inline]
pub fn set_vni(header: &mut [u8; HEADER_LEN], vni: Vni) {
    put::<4, 4, _>(header, (vni.0 << 8).to_be_bytes());
}

/// The header by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Which network the inner frame belongs to.
    pub vni: Vni,
}

impl Repr {
    /// Writes the header and returns its length; `None` if it does not fit.
    #[must_use]
    pub fn emit(&self, bytes: &mut [u8]) -> Option<usize> {
        let header = bytes.first_chunk_mut()?;
        put::<0, 4, _>(header, [FLAG_I, 0, 0, 0]);
        set_vni(header, self.vni);
        Some(HEADER_LEN)
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VXLAN, flags [I] (0x08), vni {}", self.vni)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::testing::{POISON, refuses_truncation};

    const PACKET: [u8; 10] = [8, 0, 0, 0, 0x12, 0x34, 0x56, 0, b'h', b'i'];
    const REPR: Repr = Repr { vni: Vni(0x12_3456) };

    #[test]
    fn deconstruct() {
        let packet = Vxlan::parse(&PACKET).unwrap();
        assert_eq!(packet.vni().value(), 0x12_3456);
        assert_eq!(packet.payload(), b"hi");
    }

    #[test]
    fn construct() {
        let mut bytes = PACKET;
        set_vni(bytes.first_chunk_mut().unwrap(), Vni::MAX);
        assert_eq!(bytes, [8, 0, 0, 0, 0xff, 0xff, 0xff, 0, b'h', b'i']);
    }

    #[test]
    fn parse() {
        assert_eq!(Vxlan::parse(&PACKET).unwrap().repr(), REPR);
        refuses_truncation(&PACKET[..HEADER_LEN], Vxlan::parse);
        let mut bytes = PACKET;
        for reserved in [1, 2, 3, 7] {
            bytes[reserved] = 0xff;
        }
        bytes[0] = 0xff;
        assert_eq!(Vxlan::parse(&bytes).unwrap().repr(), REPR);
        bytes[0] = 0xf7;
        assert_eq!(Vxlan::parse(&bytes).err(), Some(Malformed::Flags));
    }

    #[test]
    fn emit() {
        let mut bytes = [POISON; 10];
        assert_eq!(REPR.emit(&mut bytes), Some(HEADER_LEN));
        assert_eq!(bytes[..8], PACKET[..8]);
        assert_eq!(bytes[8..], [POISON; 2]);
        assert_eq!(REPR.emit(&mut bytes[..7]), None);
        assert_eq!(REPR.to_string(), "VXLAN, flags [I] (0x08), vni 1193046");
    }

    #[test]
    fn an_identifier_has_24_bits() {
        assert_eq!(Vni::new(0xff_ffff), Some(Vni::MAX));
        assert_eq!(Vni::new(0x100_0000), None);
        assert_eq!(Vni::new(u32::MAX), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn emit_then_parse(vni in 0u32..1 << 24) {
            let repr = Repr { vni: Vni::new(vni).unwrap() };
            let mut bytes = [POISON; HEADER_LEN];
            repr.emit(&mut bytes).unwrap();
            prop_assert_eq!(Vxlan::parse(&bytes).unwrap().repr(), repr);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
            if let Ok(packet) = Vxlan::parse(&bytes) {
                prop_assert!(Vni::new(packet.vni().value()).is_some());
                prop_assert_eq!(packet.payload().len() + HEADER_LEN, bytes.len());
            }
        }
    }
}
