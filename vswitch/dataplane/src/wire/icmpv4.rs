//! ICMP for IPv4 (RFC 792; too-big of RFC 1191): echo, and the errors that a router sends.
//!
//! Enters: the payload of an IPv4 packet of protocol 1. Leaves: echo requests to answer; messages
//! for what could not be forwarded.
//!
//! | bytes | field |
//! |---|---|
//! | 0    | type |
//! | 1    | code |
//! | 2..4 | checksum over the whole message |
//! | 4..8 | rest, by type: identifier and sequence of an echo; next hop's MTU in the last two |
//! | 8..  | data of an echo; head of the packet that an error is about |

use core::fmt;

use super::checksum::{Sum, updated_u16};
use super::{Malformed, field, put};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Where the checksum lies, as in ICMPv6.
pub const CHECKSUM_OFFSET: usize = 2;

/// Type: echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Type: source quench, deprecated by RFC 6633.
pub const SOURCE_QUENCH: u8 = 4;
/// Type: redirect.
pub const REDIRECT: u8 = 5;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;

/// Code of [`UNREACHABLE`]: no route to the network.
pub const NET_UNREACHABLE: u8 = 0;
/// Code of [`UNREACHABLE`]: the network is there, the host is not.
pub const HOST_UNREACHABLE: u8 = 1;
/// Code of [`UNREACHABLE`]: the host does not have the protocol.
pub const PROTOCOL_UNREACHABLE: u8 = 2;
/// Code of [`UNREACHABLE`]: no socket listens on the port.
pub const PORT_UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: too big, and may not be cut.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// Code of [`UNREACHABLE`]: forbidden by policy (RFC 1812 section 5.2.7.1).
pub const ADMIN_PROHIBITED: u8 = 13;
/// Code of [`TIME_EXCEEDED`]: in transit.
pub const TTL_EXCEEDED: u8 = 0;

/// Whether messages of this type are errors, about which no error may be sent (RFC 1122 section
/// 3.2.2).
#[inline]
#[must_use]
pub const fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// Identifier and sequence number of an echo; the same in ICMPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// One process's series.
    pub ident: u16,
    /// Place in the series.
    pub sequence: u16,
}

impl Echo {
    pub(super) const fn from_rest(rest: [u8; 4]) -> Self {
        let [a, b, c, d] = rest;
        Self { ident: u16::from_be_bytes([a, b]), sequence: u16::from_be_bytes([c, d]) }
    }

    pub(super) const fn rest(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.ident.to_be_bytes(), self.sequence.to_be_bytes());
        [a, b, c, d]
    }
}

impl fmt::Display for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id {}, seq {}", self.ident, self.sequence)
    }
}

/// A message, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Icmpv4<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Icmpv4<'a> {
    /// Reads a message, which ends with the bytes.
    ///
    /// # Errors
    /// `Truncated`.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, payload) = bytes.split_first_chunk().ok_or(Malformed::Truncated)?;
        Ok(Self { header, payload })
    }

    /// The type.
    #[inline]
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.header[0]
    }

    /// The code, whose meaning depends on the type.
    #[inline]
    #[must_use]
    pub fn code(&self) -> u8 {
        self.header[1]
    }

    /// The checksum as it is in the packet.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes(field::<2, 2, _>(self.header))
    }

    /// Whether the message is as its sender made it.
    #[inline]
    #[must_use]
    pub fn checksum_ok(&self) -> bool {
        Sum::new().bytes(self.header).bytes(self.payload).verifies()
    }

    /// The four bytes whose meaning depends on the type.
    #[inline]
    #[must_use]
    pub fn rest(&self) -> [u8; 4] {
        field::<4, 4, _>(self.header)
    }

    /// Identifier and sequence, if this is an echo request or reply.
    #[inline]
    #[must_use]
    pub fn echo(&self) -> Option<Echo> {
        matches!(self.kind(), ECHO_REQUEST | ECHO_REPLY).then(|| Echo::from_rest(self.rest()))
    }

    /// What follows the header.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The fields by value.
    #[must_use]
    pub fn repr(&self) -> Repr {
        Repr { kind: self.kind(), code: self.code(), rest: self.rest() }
    }
}

/// Makes an echo request its own reply, checksum included; false, and unchanged, if it is none.
#[must_use]
pub fn turn_echo_into_reply(message: &mut [u8]) -> bool {
    turn(message, ECHO_REQUEST, ECHO_REPLY)
}

/// Changes the type of a message of type `from` and code 0, and updates the checksum for it.
pub(super) fn turn(message: &mut [u8], from: u8, to: u8) -> bool {
    let Some(header) = message.first_chunk_mut::<HEADER_LEN>() else { return false };
    if field::<0, 2, _>(header) != [from, 0] {
        return false;
    }
    let checksum = u16::from_be_bytes(field::<2, 2, _>(header));
    let checksum = match updated_u16(checksum, u16::from(from) << 8, u16::from(to) << 8) {
        // A reply may be all zeros, which sum to zero: only all ones verify then. Where they do
        // not, all ones verify as well.
        0 => u16::MAX,
        checksum => checksum,
    };
    header[0] = to;
    put::<2, 2, _>(header, checksum.to_be_bytes());
    true
}

/// The header by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// The type.
    pub kind: u8,
    /// The code, whose meaning depends on the type.
    pub code: u8,
    /// The four bytes whose meaning depends on the type.
    pub rest: [u8; 4],
}

impl Repr {
    /// An echo request.
    #[must_use]
    pub const fn echo_request(echo: Echo) -> Self {
        Self { kind: ECHO_REQUEST, code: 0, rest: echo.rest() }
    }

    /// An echo reply.
    #[must_use]
    pub const fn echo_reply(echo: Echo) -> Self {
        Self { kind: ECHO_REPLY, code: 0, rest: echo.rest() }
    }

    /// The packet could not be delivered, for the reason in `code`.
    #[must_use]
    pub const fn unreachable(code: u8) -> Self {
        Self { kind: UNREACHABLE, code, rest: [0; 4] }
    }

    /// The packet is larger than the next link's `mtu` and may not be cut (RFC 1191 section 4).
    #[must_use]
    pub const fn fragmentation_needed(mtu: u16) -> Self {
        let [high, low] = mtu.to_be_bytes();
        Self { kind: UNREACHABLE, code: FRAGMENTATION_NEEDED, rest: [0, 0, high, low] }
    }

    /// The packet has been forwarded too often.
    #[must_use]
    pub const fn time_exceeded() -> Self {
        Self { kind: TIME_EXCEEDED, code: TTL_EXCEEDED, rest: [0; 4] }
    }

    /// Writes the header before the payload, which is already in its place and ends with the
    /// bytes, with the checksum over both. Returns the header's length; `None` if it does not fit.
    #[must_use]
    pub fn emit(&self, message: &mut [u8]) -> Option<usize> {
        self.emit_with(message, Sum::new())
    }

    pub(super) fn emit_with(&self, message: &mut [u8], pseudo: Sum) -> Option<usize> {
        let (header, payload) = message.split_first_chunk_mut::<HEADER_LEN>()?;
        put::<0, 4, _>(header, [self.kind, self.code, 0, 0]);
        put::<4, 4, _>(header, self.rest);
        let checksum = pseudo.bytes(header).bytes(payload).finish();
        put::<2, 2, _>(header, checksum.to_be_bytes());
        Some(HEADER_LEN)
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [.., high, low] = self.rest;
        match (self.kind, self.code) {
            (ECHO_REQUEST, _) => write!(f, "ICMP echo request, {}", Echo::from_rest(self.rest)),
            (ECHO_REPLY, _) => write!(f, "ICMP echo reply, {}", Echo::from_rest(self.rest)),
            (UNREACHABLE, FRAGMENTATION_NEEDED) => {
                let mtu = u16::from_be_bytes([high, low]);
                write!(f, "ICMP unreachable - need to frag (mtu {mtu})")
            }
            (UNREACHABLE, NET_UNREACHABLE) => f.write_str("ICMP net unreachable"),
            (UNREACHABLE, HOST_UNREACHABLE) => f.write_str("ICMP host unreachable"),
            (UNREACHABLE, PROTOCOL_UNREACHABLE) => f.write_str("ICMP protocol unreachable"),
            (UNREACHABLE, PORT_UNREACHABLE) => f.write_str("ICMP port unreachable"),
            (UNREACHABLE, ADMIN_PROHIBITED) => f.write_str("ICMP unreachable - admin prohibited"),
            (TIME_EXCEEDED, TTL_EXCEEDED) => f.write_str("ICMP time exceeded in-transit"),
            (kind, code) => write!(f, "ICMP type {kind}, code {code}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, icmpv4::DestUnreachableHeader};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::testing::{POISON, refuses_truncation};

    const MESSAGE: [u8; 10] = [8, 0, 0x7d, 0x5b, 0x12, 0x34, 0, 7, b'h', b'i'];
    const ECHO: Echo = Echo { ident: 0x1234, sequence: 7 };
    const REPR: Repr = Repr::echo_request(ECHO);

    #[test]
    fn deconstruct() {
        let message = Icmpv4::parse(&MESSAGE).unwrap();
        assert_eq!(message.kind(), ECHO_REQUEST);
        assert_eq!(message.code(), 0);
        assert_eq!(message.rest(), [0x12, 0x34, 0, 7]);
        assert_eq!(message.echo(), Some(ECHO));
        assert_eq!(message.payload(), b"hi");
        assert!(message.checksum_ok());
    }

    #[test]
    fn construct() {
        let mut bytes = MESSAGE;
        assert!(turn_echo_into_reply(&mut bytes));
        let reply = Icmpv4::parse(&bytes).unwrap();
        assert!(reply.checksum_ok());
        assert_eq!(reply.repr(), Repr::echo_reply(ECHO));
        assert_eq!(reply.payload(), b"hi");
        assert!(!turn_echo_into_reply(&mut bytes), "a reply is not answered");
        assert!(!turn_echo_into_reply(&mut { MESSAGE }[..7]));
    }

    #[test]
    fn a_reply_of_zeros_verifies() {
        let mut bytes = [0; 20];
        Repr::echo_request(Echo { ident: 0, sequence: 0 }).emit(&mut bytes).unwrap();
        assert!(turn_echo_into_reply(&mut bytes));
        assert_eq!(bytes[..4], [0, 0, 0xff, 0xff]);
        assert!(Icmpv4::parse(&bytes).unwrap().checksum_ok());
    }

    #[test]
    fn parse() {
        assert_eq!(Icmpv4::parse(&MESSAGE).unwrap().repr(), REPR);
        refuses_truncation(&MESSAGE[..HEADER_LEN], Icmpv4::parse);
    }

    #[test]
    fn emit() {
        let mut bytes = [POISON; 10];
        bytes[8..].copy_from_slice(b"hi");
        assert_eq!(REPR.emit(&mut bytes), Some(HEADER_LEN));
        assert_eq!(bytes, MESSAGE);
        assert_eq!(REPR.emit(&mut bytes[..7]), None);
        assert_eq!(REPR.to_string(), "ICMP echo request, id 4660, seq 7");
        assert_eq!(
            Repr::fragmentation_needed(1450).to_string(),
            "ICMP unreachable - need to frag (mtu 1450)"
        );
    }

    #[test]
    fn the_judge_agrees() {
        let payload = b"the head of a packet";
        let judged = [
            (
                Repr::echo_request(ECHO),
                Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 0x1234, seq: 7 }),
            ),
            (Repr::echo_reply(ECHO), Icmpv4Type::EchoReply(IcmpEchoHeader { id: 0x1234, seq: 7 })),
            (
                Repr::unreachable(NET_UNREACHABLE),
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Network),
            ),
            (
                Repr::unreachable(HOST_UNREACHABLE),
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host),
            ),
            (
                Repr::unreachable(PORT_UNREACHABLE),
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port),
            ),
            (
                Repr::fragmentation_needed(1450),
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu: 1450,
                }),
            ),
            (
                Repr::time_exceeded(),
                Icmpv4Type::TimeExceeded(
                    etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit,
                ),
            ),
        ];
        for (ours, judge) in judged {
            let mut bytes = [&[POISON; HEADER_LEN][..], payload].concat();
            ours.emit(&mut bytes).unwrap();
            let judge = Icmpv4Header::with_checksum(judge, payload);
            assert_eq!(judge.to_bytes()[..], bytes[..8], "{ours}");
        }
    }

    #[test]
    fn errors_are_told_from_questions() {
        let errors: Vec<u8> = (0..=255).filter(|kind| is_error(*kind)).collect();
        assert_eq!(errors, [3, 4, 5, 11, 12]);
        let mut bytes = MESSAGE;
        bytes[0] = UNREACHABLE;
        assert_eq!(Icmpv4::parse(&bytes).unwrap().echo(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn emit_then_parse(
            kind: u8, code: u8, rest: [u8; 4], payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let repr = Repr { kind, code, rest };
            let mut bytes = [&[POISON; HEADER_LEN][..], &payload].concat();
            repr.emit(&mut bytes).unwrap();
            let message = Icmpv4::parse(&bytes).unwrap();
            prop_assert!(message.checksum_ok());
            prop_assert_eq!(message.repr(), repr);
            prop_assert_eq!(message.payload(), &payload[..]);
            let _ = repr.to_string();
        }

        #[test]
        fn a_reply_in_place_verifies(
            ident: u16, sequence: u16, payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let echo = Echo { ident, sequence };
            let mut bytes = [&[POISON; HEADER_LEN][..], &payload].concat();
            Repr::echo_request(echo).emit(&mut bytes).unwrap();
            prop_assert!(turn_echo_into_reply(&mut bytes));
            prop_assert!(Icmpv4::parse(&bytes).unwrap().checksum_ok());
            prop_assert_eq!(Icmpv4::parse(&bytes).unwrap().repr(), Repr::echo_reply(echo));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = Icmpv4::parse(&bytes) {
                let _ = (message.repr().to_string(), message.checksum_ok(), message.echo());
            }
            let _ = turn_echo_into_reply(&mut bytes.clone());
        }
    }
}
