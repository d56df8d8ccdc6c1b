//! ICMPv6 (RFC 4443): echo, and the errors that a router sends. Neighbour discovery is in `ndp`.
//!
//! Enters: the payload of an IPv6 packet whose last next header is 58. Leaves: echo requests to
//! answer; messages for what could not be forwarded.
//!
//! | bytes | field |
//! |---|---|
//! | 0    | type; errors are below 128 |
//! | 1    | code |
//! | 2..4 | checksum over pseudo header and message |
//! | 4..8 | rest, by type: identifier and sequence of an echo; MTU |
//! | 8..  | data of an echo; head of the packet that an error is about |

use core::fmt;
use core::net::Ipv6Addr;

use super::checksum::Sum;
use super::icmpv4::{self, Echo};
use super::{Malformed, Protocol, field};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Type: packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Type: echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Type: query for listeners to multicast, of any version (RFC 2710).
pub const LISTENER_QUERY: u8 = 130;
/// Type: report of a listener to multicast (RFC 2710).
pub const LISTENER_REPORT: u8 = 131;
/// Type: the end of one (RFC 2710).
pub const LISTENER_DONE: u8 = 132;
/// Type: router solicitation (RFC 4861).
pub const ROUTER_SOLICITATION: u8 = 133;
/// Type: router advertisement (RFC 4861).
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Type: neighbour solicitation (RFC 4861).
pub const NEIGHBOR_SOLICITATION: u8 = 135;
/// Type: neighbour advertisement (RFC 4861).
pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Type: redirect (RFC 4861).
pub const REDIRECT: u8 = 137;
/// Type: reports of listeners to multicast (RFC 3810).
pub const LISTENER_REPORT_V2: u8 = 143;
/// Type: advertisement of a multicast router (RFC 4286).
pub const MULTICAST_ROUTER_ADVERTISEMENT: u8 = 151;

/// Code of [`UNREACHABLE`]: no route to the destination.
pub const NO_ROUTE: u8 = 0;
/// Code of [`UNREACHABLE`]: forbidden by policy.
pub const ADMIN_PROHIBITED: u8 = 1;
/// Code of [`UNREACHABLE`]: the link is there, the address is not.
pub const ADDRESS_UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: no socket listens on the port.
pub const PORT_UNREACHABLE: u8 = 4;
/// Code of [`TIME_EXCEEDED`]: in transit.
pub const HOP_LIMIT_EXCEEDED: u8 = 0;

/// Whether messages of this type are errors (RFC 4443 section 2.1). About those no error may be
/// sent, nor about a redirect (section 2.4(e)).
#[inline]
#[must_use]
pub const fn is_error(kind: u8) -> bool {
    kind < 128 || kind == REDIRECT
}

/// Whether messages of this type are of neighbour discovery (RFC 4861, section 4).
#[must_use]
pub const fn is_neighbor_discovery(kind: u8) -> bool {
    matches!(kind, ROUTER_SOLICITATION..=REDIRECT)
}

/// A message, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Icmpv6<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Icmpv6<'a> {
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

    /// Whether the message is as its sender made it, and meant for this destination.
    #[inline]
    #[must_use]
    pub fn checksum_ok(&self, source: Ipv6Addr, destination: Ipv6Addr) -> bool {
        pseudo(source, destination, HEADER_LEN + self.payload.len())
            .bytes(self.header)
            .bytes(self.payload)
            .verifies()
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

/// The pseudo header of a message of `len` bytes; a length that no IPv6 packet can have fails the
/// check that it is used for.
#[inline]
pub(super) fn pseudo(source: Ipv6Addr, destination: Ipv6Addr, len: usize) -> Sum {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    Sum::pseudo_v6(source, destination, Protocol::ICMPV6, len)
}

/// Makes an echo request its own reply, checksum included; false, and unchanged, if it is none.
///
/// The checksum stays true only if the reply's addresses are the request's, exchanged: a request
/// to a group needs [`Repr::emit`].
#[must_use]
pub fn turn_echo_into_reply(message: &mut [u8]) -> bool {
    icmpv4::turn(message, ECHO_REQUEST, ECHO_REPLY)
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

    /// The packet is larger than the next link's `mtu`.
    #[must_use]
    pub const fn packet_too_big(mtu: u32) -> Self {
        Self { kind: PACKET_TOO_BIG, code: 0, rest: mtu.to_be_bytes() }
    }

    /// The packet has been forwarded too often.
    #[must_use]
    pub const fn time_exceeded() -> Self {
        Self { kind: TIME_EXCEEDED, code: HOP_LIMIT_EXCEEDED, rest: [0; 4] }
    }

    /// Writes the header before the payload, which is already in its place and ends with the
    /// bytes, with the checksum over both and the addresses. Returns the header's length; `None`
    /// if it does not fit.
    #[must_use]
    pub fn emit(
        &self,
        message: &mut [u8],
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Option<usize> {
        let pseudo = pseudo(source, destination, message.len());
        let header = icmpv4::Repr { kind: self.kind, code: self.code, rest: self.rest };
        header.emit_with(message, pseudo)
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.code) {
            (ECHO_REQUEST, _) => write!(f, "ICMP6 echo request, {}", Echo::from_rest(self.rest)),
            (ECHO_REPLY, _) => write!(f, "ICMP6 echo reply, {}", Echo::from_rest(self.rest)),
            (PACKET_TOO_BIG, _) => {
                write!(f, "ICMP6 packet too big, mtu {}", u32::from_be_bytes(self.rest))
            }
            (UNREACHABLE, NO_ROUTE) => f.write_str("ICMP6 unreachable route"),
            (UNREACHABLE, ADMIN_PROHIBITED) => f.write_str("ICMP6 unreachable prohibited"),
            (UNREACHABLE, ADDRESS_UNREACHABLE) => f.write_str("ICMP6 unreachable address"),
            (UNREACHABLE, PORT_UNREACHABLE) => f.write_str("ICMP6 unreachable port"),
            (TIME_EXCEEDED, HOP_LIMIT_EXCEEDED) => f.write_str("ICMP6 time exceeded in-transit"),
            (kind, code) => write!(f, "ICMP6 type {kind}, code {code}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use etherparse::icmpv6::{DestUnreachableCode, TimeExceededCode};
    use etherparse::{IcmpEchoHeader, Icmpv6Header, Icmpv6Type};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::testing::{POISON, refuses_truncation};

    const MESSAGE: [u8; 10] = [128, 0, 0xda, 0x59, 0x12, 0x34, 0, 7, b'h', b'i'];
    const ECHO: Echo = Echo { ident: 0x1234, sequence: 7 };
    const REPR: Repr = Repr::echo_request(ECHO);
    const FROM: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const TO: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

    #[test]
    fn deconstruct() {
        let message = Icmpv6::parse(&MESSAGE).unwrap();
        assert_eq!(message.kind(), ECHO_REQUEST);
        assert_eq!(message.code(), 0);
        assert_eq!(message.rest(), [0x12, 0x34, 0, 7]);
        assert_eq!(message.echo(), Some(ECHO));
        assert_eq!(message.payload(), b"hi");
        assert!(message.checksum_ok(FROM, TO));
        assert!(!message.checksum_ok(FROM, FROM));
    }

    #[test]
    fn construct() {
        let mut bytes = MESSAGE;
        assert!(turn_echo_into_reply(&mut bytes));
        let reply = Icmpv6::parse(&bytes).unwrap();
        assert!(reply.checksum_ok(TO, FROM));
        assert_eq!(reply.repr(), Repr::echo_reply(ECHO));
        assert!(!turn_echo_into_reply(&mut bytes), "a reply is not answered");
    }

    #[test]
    fn parse() {
        assert_eq!(Icmpv6::parse(&MESSAGE).unwrap().repr(), REPR);
        refuses_truncation(&MESSAGE[..HEADER_LEN], Icmpv6::parse);
    }

    #[test]
    fn emit() {
        let mut bytes = [POISON; 10];
        bytes[8..].copy_from_slice(b"hi");
        assert_eq!(REPR.emit(&mut bytes, FROM, TO), Some(HEADER_LEN));
        assert_eq!(bytes, MESSAGE);
        assert_eq!(REPR.emit(&mut bytes[..7], FROM, TO), None);
        assert_eq!(REPR.to_string(), "ICMP6 echo request, id 4660, seq 7");
        assert_eq!(Repr::packet_too_big(1430).to_string(), "ICMP6 packet too big, mtu 1430");
    }

    #[test]
    fn the_judge_agrees() {
        let payload = b"the head of a packet";
        let judged = [
            (
                Repr::echo_request(ECHO),
                Icmpv6Type::EchoRequest(IcmpEchoHeader { id: 0x1234, seq: 7 }),
            ),
            (Repr::echo_reply(ECHO), Icmpv6Type::EchoReply(IcmpEchoHeader { id: 0x1234, seq: 7 })),
            (Repr::packet_too_big(1430), Icmpv6Type::PacketTooBig { mtu: 1430 }),
            (Repr::time_exceeded(), Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded)),
            (
                Repr::unreachable(NO_ROUTE),
                Icmpv6Type::DestinationUnreachable(DestUnreachableCode::NoRoute),
            ),
            (
                Repr::unreachable(ADDRESS_UNREACHABLE),
                Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Address),
            ),
            (
                Repr::unreachable(PORT_UNREACHABLE),
                Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Port),
            ),
        ];
        for (ours, judge) in judged {
            let mut bytes = [&[POISON; HEADER_LEN][..], payload].concat();
            ours.emit(&mut bytes, FROM, TO).unwrap();
            let judge =
                Icmpv6Header::with_checksum(judge, FROM.octets(), TO.octets(), payload).unwrap();
            assert_eq!(judge.to_bytes()[..], bytes[..8], "{ours}");
        }
    }

    #[test]
    fn errors_are_told_from_questions() {
        for kind in [UNREACHABLE, PACKET_TOO_BIG, TIME_EXCEEDED, PARAMETER_PROBLEM, 127, REDIRECT] {
            assert!(is_error(kind), "{kind}");
        }
        for kind in [ECHO_REQUEST, ECHO_REPLY, NEIGHBOR_SOLICITATION, 255] {
            assert!(!is_error(kind), "{kind}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn emit_then_parse(
            kind: u8, code: u8, rest: [u8; 4], from: u128, to: u128,
            payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let (from, to) = (Ipv6Addr::from_bits(from), Ipv6Addr::from_bits(to));
            let repr = Repr { kind, code, rest };
            let mut bytes = [&[POISON; HEADER_LEN][..], &payload].concat();
            repr.emit(&mut bytes, from, to).unwrap();
            let message = Icmpv6::parse(&bytes).unwrap();
            prop_assert!(message.checksum_ok(from, to));
            prop_assert_eq!(message.repr(), repr);
            let _ = repr.to_string();
            let turned = turn_echo_into_reply(&mut bytes);
            prop_assert_eq!(turned, kind == ECHO_REQUEST && code == 0);
            prop_assert!(Icmpv6::parse(&bytes).unwrap().checksum_ok(to, from));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = Icmpv6::parse(&bytes) {
                let _ = (message.repr().to_string(), message.checksum_ok(FROM, TO), message.echo());
            }
        }
    }
}
