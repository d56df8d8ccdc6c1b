//! ARP for IPv4 over Ethernet (RFC 826), requests and replies; nothing else is supported.
//!
//! Enters: the payload of a frame of type ARP. Leaves: which address is asked for, and the answer,
//! which the switch gives itself for its gateway addresses.
//!
//! | bytes | field |
//! |---|---|
//! | 0..8   | hardware type 1, protocol type 0x0800, lengths 6 and 4, operation |
//! | 8..14  | sender's MAC |
//! | 14..18 | sender's address |
//! | 18..24 | target's MAC, unset in a request |
//! | 24..28 | target's address |

use core::fmt;
use core::net::Ipv4Addr;

use super::{MacAddr, Malformed, field, put};

/// Bytes of the whole message.
pub const HEADER_LEN: usize = 28;

/// Ethernet, IPv4 and the lengths of their addresses.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// Kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A request for the MAC of the target.
    Request,
    /// The sender tells its own MAC.
    Reply,
}

impl Operation {
    const fn bits(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
        }
    }
}

/// A message, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Arp<'a> {
    header: &'a [u8; HEADER_LEN],
    operation: Operation,
}

impl<'a> Arp<'a> {
    /// Reads a message; bytes behind it are the frame's padding.
    ///
    /// # Errors
    /// `Truncated`; `Unsupported` for other media and operations.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        if field::<0, 6, _>(header) != ETHERNET_IPV4 {
            return Err(Malformed::Unsupported);
        }
        let operation = match u16::from_be_bytes(field::<6, 2, _>(header)) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(Malformed::Unsupported),
        };
        Ok(Self { header, operation })
    }

    /// The message's kind.
    #[inline]
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The sender's MAC.
    #[inline]
    #[must_use]
    pub fn sender_mac(&self) -> MacAddr {
        MacAddr(field::<8, 6, _>(self.header))
    }

    /// The sender's address; unspecified in a probe (RFC 5227 section 2.1.1).
    #[inline]
    #[must_use]
    pub fn sender_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(field::<14, 4, _>(self.header))
    }

    /// The target's MAC.
    #[inline]
    #[must_use]
    pub fn target_mac(&self) -> MacAddr {
        MacAddr(field::<18, 6, _>(self.header))
    }

    /// The target's address.
    #[inline]
    #[must_use]
    pub fn target_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(field::<24, 4, _>(self.header))
    }

    /// The fields by value.
    #[must_use]
    pub fn repr(&self) -> Repr {
        Repr {
            operation: self.operation(),
            sender_mac: self.sender_mac(),
            sender_ip: self.sender_ip(),
            target_mac: self.target_mac(),
            target_ip: self.target_ip(),
        }
    }
}

/// The message by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// The message's kind.
    pub operation: Operation,
    /// The sender's MAC.
    pub sender_mac: MacAddr,
    /// The sender's address.
    pub sender_ip: Ipv4Addr,
    /// The target's MAC.
    pub target_mac: MacAddr,
    /// The target's address.
    pub target_ip: Ipv4Addr,
}

impl Repr {
    /// A request for the MAC of `target_ip`, from `mac` and `ip`.
    #[must_use]
    pub const fn request(mac: MacAddr, ip: Ipv4Addr, target_ip: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender_ip: ip,
            target_mac: MacAddr::ZERO,
            target_ip,
        }
    }

    /// The answer to this message: the address asked for is at `mac`.
    #[must_use]
    pub const fn reply_from(&self, mac: MacAddr) -> Self {
        Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// Writes the message and returns its length; `None` if it does not fit.
    #[must_use]
    pub fn emit(&self, bytes: &mut [u8]) -> Option<usize> {
        let header = bytes.first_chunk_mut::<HEADER_LEN>()?;
        put::<0, 6, _>(header, ETHERNET_IPV4);
        put::<6, 2, _>(header, self.operation.bits().to_be_bytes());
        put::<8, 6, _>(header, self.sender_mac.0);
        put::<14, 4, _>(header, self.sender_ip.octets());
        put::<18, 6, _>(header, self.target_mac.0);
        put::<24, 4, _>(header, self.target_ip.octets());
        Some(HEADER_LEN)
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Operation::Request => {
                write!(f, "ARP, Request who-has {} tell {}", self.target_ip, self.sender_ip)
            }
            Operation::Reply => {
                write!(f, "ARP, Reply {} is-at {}", self.sender_ip, self.sender_mac)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::testing::{POISON, refuses_truncation};

    const MESSAGE: [u8; 28] =
        [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 198, 18, 0, 5, 0, 0, 0, 0, 0, 0, 198, 18, 0, 1];
    const REPR: Repr = Repr::request(
        MacAddr([2, 0, 0, 0, 0, 1]),
        Ipv4Addr::new(198, 18, 0, 5),
        Ipv4Addr::new(198, 18, 0, 1),
    );

    #[test]
    fn deconstruct() {
        let message = Arp::parse(&MESSAGE).unwrap();
        assert_eq!(message.operation(), Operation::Request);
        assert_eq!(message.sender_mac(), MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(message.sender_ip(), Ipv4Addr::new(198, 18, 0, 5));
        assert_eq!(message.target_mac(), MacAddr::ZERO);
        assert_eq!(message.target_ip(), Ipv4Addr::new(198, 18, 0, 1));
    }

    #[test]
    fn construct() {
        let reply = Arp::parse(&MESSAGE).unwrap().repr().reply_from(MacAddr([2, 0, 0, 0, 0, 9]));
        let mut bytes = [POISON; 28];
        reply.emit(&mut bytes).unwrap();
        assert_eq!(
            bytes,
            [
                0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 9, 198, 18, 0, 1, 2, 0, 0, 0, 0, 1, 198, 18,
                0, 5
            ]
        );
        assert_eq!(reply.to_string(), "ARP, Reply 198.18.0.1 is-at 02:00:00:00:00:09");
    }

    #[test]
    fn parse() {
        assert_eq!(Arp::parse(&MESSAGE).unwrap().repr(), REPR);
        refuses_truncation(&MESSAGE, Arp::parse);
        // Another medium, another protocol, other lengths, an operation of reverse ARP.
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 3), (7, 0), (6, 1)] {
            let mut bytes = MESSAGE;
            bytes[at] = value;
            assert_eq!(Arp::parse(&bytes).err(), Some(Malformed::Unsupported), "byte {at}");
        }
    }

    #[test]
    fn emit() {
        let mut bytes = [POISON; 30];
        assert_eq!(REPR.emit(&mut bytes), Some(HEADER_LEN));
        assert_eq!(bytes[..28], MESSAGE);
        assert_eq!(bytes[28..], [POISON; 2]);
        assert_eq!(REPR.emit(&mut bytes[..27]), None);
        assert_eq!(REPR.to_string(), "ARP, Request who-has 198.18.0.1 tell 198.18.0.5");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn emit_then_parse(asks: bool, macs: ([u8; 6], [u8; 6]), ips: (u32, u32)) {
            let repr = Repr {
                operation: if asks { Operation::Request } else { Operation::Reply },
                sender_mac: MacAddr(macs.0),
                sender_ip: Ipv4Addr::from_bits(ips.0),
                target_mac: MacAddr(macs.1),
                target_ip: Ipv4Addr::from_bits(ips.1),
            };
            let mut bytes = [POISON; HEADER_LEN];
            repr.emit(&mut bytes).unwrap();
            prop_assert_eq!(Arp::parse(&bytes).unwrap().repr(), repr);

            let judge = etherparse::ArpPacket::new(
                etherparse::ArpHardwareId::ETHERNET,
                etherparse::EtherType::IPV4,
                etherparse::ArpOperation(repr.operation.bits()),
                &macs.0,
                &repr.sender_ip.octets(),
                &macs.1,
                &repr.target_ip.octets(),
            ).unwrap();
            prop_assert_eq!(&judge.to_bytes()[..], &bytes[..]);
        }

        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..40), likely: bool) {
            if likely && bytes.len() > 7 {
                bytes[..6].copy_from_slice(&ETHERNET_IPV4);
                bytes[6] = 0;
            }
            if let Ok(message) = Arp::parse(&bytes) {
                let _ = message.repr().to_string();
            }
        }
    }
}
