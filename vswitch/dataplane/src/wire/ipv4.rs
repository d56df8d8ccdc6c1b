//! IPv4 (RFC 791), with the differentiated services field of RFC 2474 and ECN of RFC 3168.
//!
//! Enters: what follows an Ethernet or IPIP header. Leaves: what the route and the parser of the
//! transport need; on the way out, a header edited in place with its checksum kept true.
//!
//! | bytes | field |
//! |---|---|
//! | 0      | version (4), header length in words |
//! | 1      | type of service: DSCP (6 bits), ECN (2) |
//! | 2..4   | total length |
//! | 4..6   | identification |
//! | 6..8   | flags: 0, DF, MF; fragment offset in units of 8 |
//! | 8      | time to live |
//! | 9      | protocol |
//! | 10..12 | header checksum |
//! | 12..16 | source |
//! | 16..20 | destination |
//! | 20..   | options, up to 40 |

use core::fmt;
use core::net::Ipv4Addr;

use super::checksum::{Sum, updated_u16};
use super::{Ecn, Malformed, Protocol, field, put};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// Bytes of a packet that every host can receive: RFC 791, section 3.1.
pub const MIN_RECEIVED: u16 = 576;

/// The first byte of nearly every packet: version 4, five words.
const WITHOUT_OPTIONS: u8 = 0x45;

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// A packet, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// Reads a packet; bytes behind its total length are the frame's padding. The checksum is left
    /// to [`Ipv4::checksum_ok`].
    ///
    /// # Errors
    /// `Truncated`, `Version`, `HeaderLength`, `TotalLength`.
    #[inline(always)]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let packet = Self::parse_header(bytes)?;
        let total_len = usize::from(packet.total_len());
        let payload = bytes.get(packet.header_len()..total_len).ok_or(Malformed::TotalLength)?;
        Ok(Self { payload, ..packet })
    }

    /// Reads the header of a packet that may be cut off, as one that an error quotes: the total
    /// length is not looked at, and the payload is all that follows.
    ///
    /// # Errors
    /// `Truncated`, `Version`, `HeaderLength`.
    #[inline(always)]
    pub fn parse_header(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        if header[0] == WITHOUT_OPTIONS {
            return Ok(Self { header, options: &[], payload: rest });
        }
        if header[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let (options, payload) = (usize::from(header[0] & 0x0f) * 4)
            .checked_sub(HEADER_LEN)
            .and_then(|options_len| rest.split_at_checked(options_len))
            .ok_or(Malformed::HeaderLength)?;
        Ok(Self { header, options, payload })
    }

    /// Bytes of the header with its options: 20 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// The whole type of service byte: DSCP and ECN.
    #[inline]
    #[must_use]
    pub fn tos(&self) -> u8 {
        self.header[1]
    }

    /// The differentiated services code point.
    #[inline]
    #[must_use]
    pub fn dscp(&self) -> u8 {
        self.tos() >> 2
    }

    /// The congestion mark.
    #[inline]
    #[must_use]
    pub fn ecn(&self) -> Ecn {
        Ecn::from_bits(self.tos())
    }

    /// Bytes of header and payload.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> u16 {
        u16::from_be_bytes(field::<2, 2, _>(self.header))
    }

    /// Which datagram a fragment belongs to.
    #[inline]
    #[must_use]
    pub fn id(&self) -> u16 {
        u16::from_be_bytes(field::<4, 2, _>(self.header))
    }

    /// Whether routers may not cut the packet.
    #[inline]
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.fragment_word() & DONT_FRAGMENT != 0
    }

    /// Whether a later fragment follows.
    #[inline]
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.fragment_word() & MORE_FRAGMENTS != 0
    }

    /// Where the payload lies in that of the whole datagram, in bytes.
    #[inline]
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        (self.fragment_word() & OFFSET_MASK) << 3
    }

    /// Whether the packet is but a part of a datagram, the first one included.
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.fragment_word() & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    #[inline]
    fn fragment_word(&self) -> u16 {
        u16::from_be_bytes(field::<6, 2, _>(self.header))
    }

    /// How many more routers may forward the packet.
    #[inline]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.header[8]
    }

    /// What the payload is.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        Protocol(self.header[9])
    }

    /// The header checksum as it is in the packet.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes(field::<10, 2, _>(self.header))
    }

    /// Whether the header, options included, is as its sender made it.
    #[inline(always)]
    #[must_use]
    pub fn checksum_ok(&self) -> bool {
        let sum = Sum::new().bytes(self.header);
        let sum = if self.options.is_empty() { sum } else { sum.bytes(self.options) };
        sum.verifies()
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from(field::<12, 4, _>(self.header))
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from(field::<16, 4, _>(self.header))
    }

    /// Options, uninterpreted.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// Whether the options name hosts that the packet is to pass, loosely or strictly.
    ///
    /// # Errors
    /// `Options` if one is shorter than its own length says, or ends beyond the header.
    pub fn is_source_routed(&self) -> Result<bool, Malformed> {
        let mut options = self.options;
        while let [kind, rest @ ..] = options {
            options = match *kind {
                END_OF_OPTIONS => break,
                NO_OPERATION => rest,
                LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Ok(true),
                _ => {
                    // The length counts the option's kind and itself.
                    let len = rest.first().map(|len| usize::from(*len)).filter(|len| *len >= 2);
                    len.and_then(|len| options.get(len..)).ok_or(Malformed::Options)?
                }
            };
        }
        Ok(false)
    }

    /// What follows the header, up to the total length.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The fields by value; `total_len` still counts options that the value does not have.
    #[must_use]
    pub fn repr(&self) -> Repr {
        Repr {
            tos: self.tos(),
            total_len: self.total_len(),
            id: self.id(),
            dont_fragment: self.dont_fragment(),
            more_fragments: self.more_fragments(),
            fragment_offset: self.fragment_offset(),
            ttl: self.ttl(),
            protocol: self.protocol(),
            source: self.source(),
            destination: self.destination(),
        }
    }
}

/// Takes one from the time to live; false, and unchanged, if there is none left to take.
#[inline]
#[must_use]
pub fn decrement_ttl(header: &mut [u8; HEADER_LEN]) -> bool {
    let Some(ttl) = header[8].checked_sub(1) else { return false };
    replace::<8>(header, [ttl, header[9]]);
    true
}

/// Sets the congestion mark.
#[inline]
pub fn set_ecn(header: &mut [u8; HEADER_LEN], ecn: Ecn) {
    set_tos(header, header[1] & !0b11 | ecn.bits());
}

/// Sets DSCP and ECN together.
#[inline]
pub fn set_tos(header: &mut [u8; HEADER_LEN], tos: u8) {
    replace::<0>(header, [header[0], tos]);
}

/// Sets the total length.
#[inline]
pub fn set_total_len(header: &mut [u8; HEADER_LEN], total_len: u16) {
    replace::<2>(header, total_len.to_be_bytes());
}

/// Sets the identification.
#[inline]
pub fn set_id(header: &mut [u8; HEADER_LEN], id: u16) {
    replace::<4>(header, id.to_be_bytes());
}

/// Adds to the identification of a header that may be cut; that of others means nothing (RFC 6864,
/// section 4.1).
#[inline]
pub fn advance_id(header: &mut [u8; HEADER_LEN], by: u16) {
    let [high, _] = field::<6, 2, _>(header);
    if by > 0 && u16::from_be_bytes([high, 0]) & DONT_FRAGMENT == 0 {
        let id = u16::from_be_bytes(field::<4, 2, _>(header));
        set_id(header, id.wrapping_add(by));
    }
}

/// Sets where the payload lies in the whole datagram's, in bytes (a multiple of 8), and whether a
/// later fragment follows.
#[inline]
pub fn set_fragment(header: &mut [u8; HEADER_LEN], offset: u16, more: bool) {
    let flags = u16::from_be_bytes(field::<6, 2, _>(header)) & !(MORE_FRAGMENTS | OFFSET_MASK);
    let more = if more { MORE_FRAGMENTS } else { 0 };
    replace::<6>(header, (flags | more | offset >> 3).to_be_bytes());
}

/// Sets whether routers may cut the packet.
#[inline]
pub fn set_dont_fragment(header: &mut [u8; HEADER_LEN], dont_fragment: bool) {
    let word = u16::from_be_bytes(field::<6, 2, _>(header)) & !DONT_FRAGMENT;
    let flag = if dont_fragment { DONT_FRAGMENT } else { 0 };
    replace::<6>(header, (word | flag).to_be_bytes());
}

/// Sets what the payload is.
#[inline]
pub fn set_protocol(header: &mut [u8; HEADER_LEN], protocol: Protocol) {
    replace::<8>(header, [header[8], protocol.0]);
}

/// Sets sender and receiver.
#[inline]
pub fn set_addresses(header: &mut [u8; HEADER_LEN], source: Ipv4Addr, destination: Ipv4Addr) {
    let [a, b, c, d] = source.octets();
    replace::<12>(header, [a, b]);
    replace::<14>(header, [c, d]);
    let [a, b, c, d] = destination.octets();
    replace::<16>(header, [a, b]);
    replace::<18>(header, [c, d]);
}

/// Sets total length and identification of a piece that was cut from a larger packet, and sums the
/// header anew, options included: a sender that asks for cutting need not have filled in either.
/// False, and unchanged, if the bytes are not a whole header.
#[must_use]
pub fn set_total_len_and_id(bytes: &mut [u8], total_len: u16, id: u16) -> bool {
    let Some(header_len) = bytes.first().map(|first| usize::from(first & 0x0f) * 4) else {
        return false;
    };
    let Some(whole) = bytes.get_mut(..header_len) else { return false };
    let Some((header, options)) = whole.split_first_chunk_mut::<HEADER_LEN>() else { return false };
    put::<2, 2, _>(header, total_len.to_be_bytes());
    put::<4, 2, _>(header, id.to_be_bytes());
    fill_checksum(header, options);
    true
}

/// Changes one word of the header and updates the checksum for it.
#[inline]
fn replace<const AT: usize>(header: &mut [u8; HEADER_LEN], word: [u8; 2]) {
    // RFC 1071, section 2(B): a sum of swapped words is the swapped sum, so none is swapped.
    let old = u16::from_ne_bytes(field::<AT, 2, _>(header));
    let checksum = u16::from_ne_bytes(field::<10, 2, _>(header));
    let checksum = updated_u16(checksum, old, u16::from_ne_bytes(word));
    put::<AT, 2, _>(header, word);
    put::<10, 2, _>(header, checksum.to_ne_bytes());
}

#[inline]
fn fill_checksum(header: &mut [u8; HEADER_LEN], options: &[u8]) {
    put::<10, 2, _>(header, [0; 2]);
    let checksum = Sum::new().bytes(header).bytes(options).finish();
    put::<10, 2, _>(header, checksum.to_be_bytes());
}

/// A header without options, by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// DSCP and ECN.
    pub tos: u8,
    /// Bytes of header and payload.
    pub total_len: u16,
    /// Which datagram a fragment belongs to.
    pub id: u16,
    /// Routers may not cut the packet.
    pub dont_fragment: bool,
    /// A later fragment follows.
    pub more_fragments: bool,
    /// Where the payload lies in the whole datagram's: bytes, a multiple of 8.
    pub fragment_offset: u16,
    /// How many more routers may forward the packet.
    pub ttl: u8,
    /// What the payload is.
    pub protocol: Protocol,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
}

impl Repr {
    /// Writes the header with its checksum and returns its length; `None` if it does not fit.
    #[must_use]
    pub fn emit(&self, bytes: &mut [u8]) -> Option<usize> {
        let header = bytes.first_chunk_mut::<HEADER_LEN>()?;
        let mut fragment = self.fragment_offset >> 3;
        if self.dont_fragment {
            fragment |= DONT_FRAGMENT;
        }
        if self.more_fragments {
            fragment |= MORE_FRAGMENTS;
        }
        header[0] = 0x45;
        header[1] = self.tos;
        put::<2, 2, _>(header, self.total_len.to_be_bytes());
        put::<4, 2, _>(header, self.id.to_be_bytes());
        put::<6, 2, _>(header, fragment.to_be_bytes());
        header[8] = self.ttl;
        header[9] = self.protocol.0;
        put::<12, 4, _>(header, self.source.octets());
        put::<16, 4, _>(header, self.destination.octets());
        fill_checksum(header, &[]);
        Some(HEADER_LEN)
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IP {} > {}: {}", self.source, self.destination, self.protocol)?;
        write!(f, ", tos {:#x}, ttl {}, id {}", self.tos, self.ttl, self.id)?;
        write!(f, ", offset {}", self.fragment_offset)?;
        match (self.dont_fragment, self.more_fragments) {
            (false, false) => f.write_str(", flags [none]")?,
            (true, false) => f.write_str(", flags [DF]")?,
            (false, true) => f.write_str(", flags [+]")?,
            (true, true) => f.write_str(", flags [+, DF]")?,
        }
        write!(f, ", length {}", self.total_len)
    }
}

#[cfg(test)]
#[path = "ipv4/tests.rs"]
mod tests;
