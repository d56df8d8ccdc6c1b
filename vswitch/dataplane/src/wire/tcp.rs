//! TCP (RFC 9293): as much as a switch that cuts superframes needs.
//!
//! Enters: the payload of an IP packet. Leaves: ports for the flow hash, the header's length and
//! flags for segmentation; the pieces' headers edited in place.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4   | source port, destination port |
//! | 4..8   | sequence number |
//! | 8..12  | acknowledgement number |
//! | 12     | header length in words (4 bits), reserved |
//! | 13     | flags |
//! | 14..16 | window |
//! | 16..20 | checksum, urgent pointer |
//! | 20..   | options, up to 40 |

use core::fmt;

use super::checksum::Sum;
use super::{Malformed, field, put};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = 16;

/// The control bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// None set.
    pub const NONE: Self = Self(0);
    /// The sender has no more data.
    pub const FIN: Self = Self(0x01);
    /// Sequence numbers are to be synchronised.
    pub const SYN: Self = Self(0x02);
    /// The connection is reset.
    pub const RST: Self = Self(0x04);
    /// Data is to be handed up at once.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// Congestion is echoed (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// Whether all of `flags` are set.
    #[inline]
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These and `flags`.
    #[inline]
    #[must_use]
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// These but for `flags`.
    #[inline]
    #[must_use]
    pub const fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("none");
        }
        let letters = [
            (Self::FIN, "F"),
            (Self::SYN, "S"),
            (Self::RST, "R"),
            (Self::PSH, "P"),
            (Self::ACK, "."),
            (Self::URG, "U"),
            (Self::ECE, "E"),
            (Self::CWR, "W"),
        ];
        letters
            .into_iter()
            .filter(|(flag, _)| self.contains(*flag))
            .try_for_each(|(_, letter)| f.write_str(letter))
    }
}

/// A segment, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Tcp<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// Reads a segment, which ends with the bytes: TCP has no length of its own.
    ///
    /// # Errors
    /// `Truncated`, `HeaderLength`.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        let (options, payload) = (usize::from(header[12] >> 4) * 4)
            .checked_sub(HEADER_LEN)
            .and_then(|options_len| rest.split_at_checked(options_len))
            .ok_or(Malformed::HeaderLength)?;
        Ok(Self { header, options, payload })
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

    /// The sequence number of the first payload byte, or of SYN.
    #[inline]
    #[must_use]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes(field::<4, 4, _>(self.header))
    }

    /// The next sequence number that the sender expects.
    #[inline]
    #[must_use]
    pub fn acknowledgement(&self) -> u32 {
        u32::from_be_bytes(field::<8, 4, _>(self.header))
    }

    /// Bytes of the header with its options: 20 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// The control bits.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> TcpFlags {
        TcpFlags(self.header[13])
    }

    /// The receive window, unscaled.
    #[inline]
    #[must_use]
    pub fn window(&self) -> u16 {
        u16::from_be_bytes(field::<14, 2, _>(self.header))
    }

    /// The checksum as it is in the packet.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes(field::<CHECKSUM_OFFSET, 2, _>(self.header))
    }

    /// Whether the segment is as its sender made it.
    #[inline]
    #[must_use]
    pub fn checksum_ok(&self, pseudo: Sum) -> bool {
        pseudo.bytes(self.header).bytes(self.options).bytes(self.payload).verifies()
    }

    /// The urgent pointer.
    #[inline]
    #[must_use]
    pub fn urgent(&self) -> u16 {
        u16::from_be_bytes(field::<18, 2, _>(self.header))
    }

    /// Options, uninterpreted.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// What the segment carries.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The fields by value, without the options.
    #[must_use]
    pub fn repr(&self) -> Repr {
        Repr {
            source: self.source(),
            destination: self.destination(),
            sequence: self.sequence(),
            acknowledgement: self.acknowledgement(),
            flags: self.flags(),
            window: self.window(),
            checksum: self.checksum(),
            urgent: self.urgent(),
        }
    }
}

/// Sets the sequence number.
#[inline]
pub fn set_sequence(header: &mut [u8; HEADER_LEN], sequence: u32) {
    put::<4, 4, _>(header, sequence.to_be_bytes());
}

/// Sets the control bits.
#[inline]
pub fn set_flags(header: &mut [u8; HEADER_LEN], flags: TcpFlags) {
    header[13] = flags.0;
}

/// Sets the checksum.
#[inline]
pub fn set_checksum(header: &mut [u8; HEADER_LEN], checksum: u16) {
    put::<CHECKSUM_OFFSET, 2, _>(header, checksum.to_be_bytes());
}

/// Sums the segment, which ends with the bytes, and stores the checksum; false, and unchanged, if
/// they are not even a header.
#[must_use]
pub fn fill_checksum(segment: &mut [u8], pseudo: Sum) -> bool {
    let Some((header, rest)) = segment.split_first_chunk_mut() else { return false };
    set_checksum(header, 0);
    set_checksum(header, pseudo.bytes(header).bytes(rest).finish());
    true
}

/// A header without options, by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub destination: u16,
    /// The sequence number of the first payload byte, or of SYN.
    pub sequence: u32,
    /// The next sequence number that the sender expects.
    pub acknowledgement: u32,
    /// The control bits.
    pub flags: TcpFlags,
    /// The receive window, unscaled.
    pub window: u16,
    /// The checksum; [`fill_checksum`] makes one.
    pub checksum: u16,
    /// The urgent pointer.
    pub urgent: u16,
}

impl Repr {
    /// Writes the header and returns its length; `None` if it does not fit.
    #[must_use]
    pub fn emit(&self, bytes: &mut [u8]) -> Option<usize> {
        let header = bytes.first_chunk_mut::<HEADER_LEN>()?;
        put::<0, 2, _>(header, self.source.to_be_bytes());
        put::<2, 2, _>(header, self.destination.to_be_bytes());
        set_sequence(header, self.sequence);
        put::<8, 4, _>(header, self.acknowledgement.to_be_bytes());
        header[12] = 0x50;
        set_flags(header, self.flags);
        put::<14, 2, _>(header, self.window.to_be_bytes());
        set_checksum(header, self.checksum);
        put::<18, 2, _>(header, self.urgent.to_be_bytes());
        Some(HEADER_LEN)
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TCP {} > {}: Flags [{}]", self.source, self.destination, self.flags)?;
        write!(f, ", seq {}", self.sequence)?;
        if self.flags.contains(TcpFlags::ACK) {
            write!(f, ", ack {}", self.acknowledgement)?;
        }
        write!(f, ", win {}", self.window)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use etherparse::TcpHeader;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Protocol;
    use crate::wire::testing::{POISON, refuses_truncation};

    /// A SYN with its maximum segment size, and two bytes of data.
    const SEGMENT: [u8; 26] = [
        0xc0, 0x00, 0x00, 0x50, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 7, 0x60, 0x12, 0xfa, 0xf0, 0x12,
        0x34, 0, 1, 2, 4, 5, 0xb4, b'h', b'i',
    ];
    const REPR: Repr = Repr {
        source: 49152,
        destination: 80,
        sequence: 0xdead_beef,
        acknowledgement: 7,
        flags: TcpFlags::SYN.with(TcpFlags::ACK),
        window: 64240,
        checksum: 0x1234,
        urgent: 1,
    };

    #[test]
    fn deconstruct() {
        let segment = Tcp::parse(&SEGMENT).unwrap();
        assert_eq!(segment.source(), 49152);
        assert_eq!(segment.destination(), 80);
        assert_eq!(segment.sequence(), 0xdead_beef);
        assert_eq!(segment.acknowledgement(), 7);
        assert_eq!(segment.header_len(), 24);
        assert!(segment.flags().contains(TcpFlags::SYN));
        assert!(!segment.flags().contains(TcpFlags::SYN.with(TcpFlags::FIN)));
        assert_eq!(segment.window(), 64240);
        assert_eq!(segment.checksum(), 0x1234);
        assert_eq!(segment.urgent(), 1);
        assert_eq!(segment.options(), [2, 4, 5, 0xb4]);
        assert_eq!(segment.payload(), b"hi");
    }

    #[test]
    fn construct() {
        let mut bytes = SEGMENT;
        let header = bytes.first_chunk_mut().unwrap();
        set_sequence(header, 1);
        set_flags(header, TcpFlags(0xff).without(TcpFlags::CWR));
        assert!(fill_checksum(&mut bytes, Sum::new().u16(9)));
        let segment = Tcp::parse(&bytes).unwrap();
        assert!(segment.checksum_ok(Sum::new().u16(9)));
        assert!(!segment.checksum_ok(Sum::new()));
        let flags = TcpFlags(0x7f);
        let expected = Repr { sequence: 1, flags, checksum: segment.checksum(), ..REPR };
        assert_eq!(segment.repr(), expected);
        assert!(!fill_checksum(&mut bytes[..19], Sum::new()));
    }

    #[test]
    fn parse() {
        assert_eq!(Tcp::parse(&SEGMENT).unwrap().repr(), REPR);
        refuses_truncation(&SEGMENT[..24], Tcp::parse);
        for words in [0x00, 0x40, 0x70, 0xf0] {
            let mut bytes = SEGMENT;
            bytes[12] = words;
            assert_eq!(Tcp::parse(&bytes).err(), Some(Malformed::HeaderLength), "{words:#x}");
        }
    }

    #[test]
    fn emit() {
        let mut bytes = [POISON; 22];
        assert_eq!(REPR.emit(&mut bytes), Some(HEADER_LEN));
        let mut expected = SEGMENT;
        expected[12] = 0x50;
        assert_eq!(bytes[..20], expected[..20]);
        assert_eq!(bytes[20..], [POISON; 2]);
        assert_eq!(REPR.emit(&mut bytes[..19]), None);
        assert_eq!(
            REPR.to_string(),
            "TCP 49152 > 80: Flags [S.], seq 3735928559, ack 7, win 64240"
        );
        assert_eq!(TcpFlags::NONE.to_string(), "none");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn emit_then_parse(fields: (u16, u16, u32, u32, u8, u16, u16, u16)) {
            let (source, destination, sequence, acknowledgement, flags, window, checksum, urgent) = fields;
            let flags = TcpFlags(flags);
            let repr = Repr { source, destination, sequence, acknowledgement, flags, window, checksum, urgent };
            let mut bytes = [POISON; 24];
            repr.emit(&mut bytes).unwrap();
            let segment = Tcp::parse(&bytes).unwrap();
            prop_assert_eq!(segment.repr(), repr);
            prop_assert_eq!(segment.payload(), [POISON; 4]);
        }

        #[test]
        fn the_judge_agrees(
            fields: (u16, u16, u32, u32, u8, u16, u16), from: u128, to: u128,
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let (source, destination, sequence, acknowledgement, bits, window, urgent) = fields;
            let flags = TcpFlags(bits);
            let repr = Repr { source, destination, sequence, acknowledgement, flags, window, checksum: 0, urgent };
            let mut bytes = [&[POISON; HEADER_LEN][..], &payload].concat();
            repr.emit(&mut bytes).unwrap();

            let mut judge = TcpHeader::new(source, destination, sequence, window);
            judge.acknowledgment_number = acknowledgement;
            judge.urgent_pointer = urgent;
            judge.fin = flags.contains(TcpFlags::FIN);
            judge.syn = flags.contains(TcpFlags::SYN);
            judge.rst = flags.contains(TcpFlags::RST);
            judge.psh = flags.contains(TcpFlags::PSH);
            judge.ack = flags.contains(TcpFlags::ACK);
            judge.urg = flags.contains(TcpFlags::URG);
            judge.ece = flags.contains(TcpFlags::ECE);
            judge.cwr = flags.contains(TcpFlags::CWR);

            let len = u16::try_from(bytes.len()).unwrap();
            let (from4, to4) = (Ipv4Addr::from_bits(from as u32), Ipv4Addr::from_bits(to as u32));
            assert!(fill_checksum(&mut bytes, Sum::pseudo_v4(from4, to4, Protocol::TCP, len)));
            judge.checksum = judge.calc_checksum_ipv4_raw(from4.octets(), to4.octets(), &payload).unwrap();
            prop_assert_eq!(&judge.to_bytes()[..], &bytes[..20]);

            let (from, to) = (Ipv6Addr::from_bits(from), Ipv6Addr::from_bits(to));
            let pseudo = Sum::pseudo_v6(from, to, Protocol::TCP, u32::from(len));
            assert!(fill_checksum(&mut bytes, pseudo));
            judge.checksum = judge.calc_checksum_ipv6_raw(from.octets(), to.octets(), &payload).unwrap();
            prop_assert_eq!(&judge.to_bytes()[..], &bytes[..20]);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(segment) = Tcp::parse(&bytes) {
                let _ = (segment.repr().to_string(), segment.checksum_ok(Sum::new()));
                prop_assert_eq!(segment.header_len() + segment.payload().len(), bytes.len());
                prop_assert!(etherparse::TcpHeaderSlice::from_slice(&bytes).is_ok());
            }
        }
    }
}
