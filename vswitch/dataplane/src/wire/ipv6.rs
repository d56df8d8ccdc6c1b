//! IPv6 (RFC 8200) and its extension headers.
//!
//! Enters: what follows an Ethernet or IPIP header. Leaves: what the route and the parser of the
//! transport need; on the way out, a header edited in place. There is no header checksum.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4   | version (6), traffic class (8 bits: DSCP, ECN), flow label (20) |
//! | 4..6   | payload length, extension headers included |
//! | 6      | next header |
//! | 7      | hop limit |
//! | 8..24  | source |
//! | 24..40 | destination |

use core::fmt;
use core::net::Ipv6Addr;

use super::{Ecn, Malformed, Protocol, field, put};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// Bytes of a packet that every link carries: RFC 8200, section 5.
pub const MIN_MTU: u16 = 1280;

/// Extension headers that are walked before the packet is refused: more than any honest sender
/// chains, few enough to bound the work that a dishonest one can cause.
const MAX_EXTENSIONS: usize = 8;

/// A packet, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

/// Where the extension headers end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    /// What lies at `offset`, provided [`Upper::has_transport_header`].
    pub protocol: Protocol,
    /// Counted from the IPv6 header's first byte.
    pub offset: usize,
    /// The fragment header, if there is one.
    pub fragment: Option<Fragment>,
    /// A routing header says where the packet is to go behind its destination: it is of type 0, which
    /// RFC 5095 deprecates, or has segments left.
    pub is_source_routed: bool,
}

impl Upper {
    /// Whether the bytes at `offset` are the head of what `protocol` names: not so in any fragment
    /// but the first.
    #[inline]
    #[must_use]
    pub fn has_transport_header(&self) -> bool {
        self.fragment.is_none_or(|fragment| fragment.offset == 0)
    }
}

/// A fragment header (RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Where the payload lies in the fragmentable part: bytes, a multiple of 8.
    pub offset: u16,
    /// A later fragment follows.
    pub more: bool,
    /// Which packet the fragment belongs to.
    pub id: u32,
}

impl<'a> Ipv6<'a> {
    /// Reads a packet; bytes behind its payload length are the frame's padding.
    ///
    /// # Errors
    /// `Truncated`, `Version`, `TotalLength`.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let packet = Self::parse_header(bytes)?;
        let payload_len = usize::from(packet.payload_len());
        let payload = packet.payload.get(..payload_len).ok_or(Malformed::TotalLength)?;
        Ok(Self { payload, ..packet })
    }

    /// Reads the header of a packet that may be cut off, as one that an error quotes: the payload
    /// length is not looked at, and the payload is all that follows.
    ///
    /// # Errors
    /// `Truncated`, `Version`.
    #[inline]
    pub fn parse_header(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, payload) =
            bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        if header[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        Ok(Self { header, payload })
    }

    /// DSCP and ECN.
    #[inline]
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        self.header[0] << 4 | self.header[1] >> 4
    }

    /// The differentiated services code point.
    #[inline]
    #[must_use]
    pub fn dscp(&self) -> u8 {
        self.traffic_class() >> 2
    }

    /// The congestion mark.
    #[inline]
    #[must_use]
    pub fn ecn(&self) -> Ecn {
        Ecn::from_bits(self.traffic_class())
    }

    /// The sender's mark of one flow: 20 bits.
    #[inline]
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        u32::from_be_bytes(field::<0, 4, _>(self.header)) & 0x000f_ffff
    }

    /// Bytes behind the fixed header.
    #[inline]
    #[must_use]
    pub fn payload_len(&self) -> u16 {
        u16::from_be_bytes(field::<4, 2, _>(self.header))
    }

    /// What the payload begins with: an extension header or a transport.
    #[inline]
    #[must_use]
    pub fn next_header(&self) -> Protocol {
        Protocol(self.header[6])
    }

    /// How many more routers may forward the packet.
    #[inline]
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from(field::<8, 16, _>(self.header))
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from(field::<24, 16, _>(self.header))
    }

    /// What follows the fixed header, extension headers included, up to the payload length.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Walks the extension headers. It ends at anything that is not one, at what cannot be looked
    /// into (ESP, AH), and behind the header of a fragment that is not the first.
    ///
    /// # Errors
    /// `Extensions` if they are cut off, more than eight, or hop-by-hop options come late.
    #[inline]
    pub fn upper(&self) -> Result<Upper, Malformed> {
        let protocol = self.next_header();
        match protocol {
            Protocol::TCP | Protocol::UDP | Protocol::ICMPV6 => {
                let (fragment, is_source_routed) = (None, false);
                Ok(Upper { protocol, offset: HEADER_LEN, fragment, is_source_routed })
            }
            _ => self.walk_extensions(),
        }
    }

    fn walk_extensions(&self) -> Result<Upper, Malformed> {
        let mut protocol = self.next_header();
        let mut rest = self.payload;
        let (mut fragment, mut is_source_routed) = (None, false);
        for nth in 0..=MAX_EXTENSIONS {
            let len = match protocol {
                // "restricted to appear immediately after an IPv6 header only" (RFC 8200, 4.1).
                Protocol::HOP_BY_HOP if nth > 0 => return Err(Malformed::Extensions),
                Protocol::HOP_BY_HOP | Protocol::ROUTING | Protocol::DEST_OPTIONS => {
                    // In units of 8, not counting the first 8.
                    let units = rest.get(1).ok_or(Malformed::Extensions)?;
                    8 * (usize::from(*units) + 1)
                }
                Protocol::FRAGMENT => 8,
                _ => {
                    let offset = HEADER_LEN + self.payload.len() - rest.len();
                    return Ok(Upper { protocol, offset, fragment, is_source_routed });
                }
            };
            let (extension, behind) = rest.split_at_checked(len).ok_or(Malformed::Extensions)?;
            let head: &[u8; 8] = extension.first_chunk().ok_or(Malformed::Extensions)?;
            rest = behind;
            let this = core::mem::replace(&mut protocol, Protocol(head[0]));
            if this == Protocol::ROUTING {
                let [_, _, kind, segments_left, ..] = *head;
                is_source_routed |= kind == 0 || segments_left > 0;
            }
            if this == Protocol::FRAGMENT {
                let word = u16::from_be_bytes(field::<2, 2, _>(head));
                let found = Fragment {
                    offset: word & !0b111,
                    more: word & 1 == 1,
                    id: u32::from_be_bytes(field::<4, 4, _>(head)),
                };
                fragment = Some(found);
                if found.offset != 0 {
                    let offset = HEADER_LEN + self.payload.len() - rest.len();
                    return Ok(Upper { protocol, offset, fragment, is_source_routed });
                }
            }
        }
        Err(Malformed::Extensions)
    }

    /// The fields by value.
    #[must_use]
    pub fn repr(&self) -> Repr {
        Repr {
            traffic_class: self.traffic_class(),
            flow_label: self.flow_label(),
            payload_len: self.payload_len(),
            next_header: self.next_header(),
            hop_limit: self.hop_limit(),
            source: self.source(),
            destination: self.destination(),
        }
    }
}

/// Takes one from the hop limit; false, and unchanged, if there is none left to take.
#[inline]
#[must_use]
pub fn decrement_hop_limit(header: &mut [u8; HEADER_LEN]) -> bool {
    let Some(hop_limit) = header[7].checked_sub(1) else { return false };
    header[7] = hop_limit;
    true
}

/// Sets sender and receiver.
#[inline]
pub fn set_addresses(header: &mut [u8; HEADER_LEN], source: Ipv6Addr, destination: Ipv6Addr) {
    put::<8, 16, _>(header, source.octets());
    put::<24, 16, _>(header, destination.octets());
}

/// Sets the congestion mark.
#[inline]
pub fn set_ecn(header: &mut [u8; HEADER_LEN], ecn: Ecn) {
    header[1] = header[1] & !0x30 | ecn.bits() << 4;
}

/// Sets DSCP and ECN together.
#[inline]
pub fn set_traffic_class(header: &mut [u8; HEADER_LEN], traffic_class: u8) {
    header[0] = header[0] & 0xf0 | traffic_class >> 4;
    header[1] = header[1] & 0x0f | traffic_class << 4;
}

/// Sets the mark of one flow; bits above the twentieth are not sent.
#[inline]
pub fn set_flow_label(header: &mut [u8; HEADER_LEN], label: u32) {
    let [_, high, middle, low] = label.to_be_bytes();
    header[1] = header[1] & 0xf0 | high & 0x0f;
    put::<2, 2, _>(header, [middle, low]);
}

/// Sets how many bytes are behind the fixed header.
#[inline]
pub fn set_payload_len(header: &mut [u8; HEADER_LEN], payload_len: u16) {
    put::<4, 2, _>(header, payload_len.to_be_bytes());
}

/// The fixed header by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// The mark of one flow; bits above the twentieth are not sent.
    pub flow_label: u32,
    /// Bytes behind the fixed header.
    pub payload_len: u16,
    /// What the payload begins with.
    pub next_header: Protocol,
    /// How many more routers may forward the packet.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
}

impl Repr {
    /// Writes the header and returns its length; `None` if it does not fit.
    #[must_use]
    pub fn emit(&self, bytes: &mut [u8]) -> Option<usize> {
        let header = bytes.first_chunk_mut::<HEADER_LEN>()?;
        let word = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000f_ffff;
        put::<0, 4, _>(header, word.to_be_bytes());
        put::<4, 2, _>(header, self.payload_len.to_be_bytes());
        header[6] = self.next_header.0;
        header[7] = self.hop_limit;
        put::<8, 16, _>(header, self.source.octets());
        put::<24, 16, _>(header, self.destination.octets());
        Some(HEADER_LEN)
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IP6 {} > {}: {}", self.source, self.destination, self.next_header)?;
        write!(f, ", class {:#x}, flowlabel {:#07x}", self.traffic_class, self.flow_label)?;
        write!(f, ", hlim {}, payload length {}", self.hop_limit, self.payload_len)
    }
}

#[cfg(test)]
#[path = "ipv6/tests.rs"]
mod tests;
