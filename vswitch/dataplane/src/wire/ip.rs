//! What both versions of IP share: protocol numbers and congestion marks.
//!
//! `ipv4` and `ipv6` hand these out; the walk compares them.

use core::fmt;

/// A number from IANA's protocol registry: IPv4's Protocol, IPv6's Next Header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: Self = Self(0);
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// IGMP.
    pub const IGMP: Self = Self(2);
    /// IPv4 inside IP (RFC 2003).
    pub const IPIP: Self = Self(4);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// IPv6 inside IP (RFC 4213).
    pub const IPV6: Self = Self(41);
    /// IPv6 routing header.
    pub const ROUTING: Self = Self(43);
    /// IPv6 fragment header.
    pub const FRAGMENT: Self = Self(44);
    /// Generic routing encapsulation (RFC 2784).
    pub const GRE: Self = Self(47);
    /// Encapsulating security payload.
    pub const ESP: Self = Self(50);
    /// Authentication header.
    pub const AH: Self = Self(51);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// Nothing follows (IPv6).
    pub const NO_NEXT: Self = Self(59);
    /// IPv6 destination options.
    pub const DEST_OPTIONS: Self = Self(60);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    /// Whether it carries packets of others and nothing that proves who sent them.
    #[inline]
    #[must_use]
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::IPIP | Self::IPV6 | Self::GRE)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match *self {
            Self::HOP_BY_HOP => "HOPOPT",
            Self::ICMP => "ICMP",
            Self::IGMP => "IGMP",
            Self::IPIP => "IPIP",
            Self::TCP => "TCP",
            Self::UDP => "UDP",
            Self::IPV6 => "IPv6",
            Self::ROUTING => "Routing",
            Self::FRAGMENT => "Fragment",
            Self::GRE => "GRE",
            Self::ESP => "ESP",
            Self::AH => "AH",
            Self::ICMPV6 => "ICMPv6",
            Self::NO_NEXT => "none",
            Self::DEST_OPTIONS => "DSTOPT",
            Self::SCTP => "SCTP",
            Self(other) => return write!(f, "protocol {other}"),
        })
    }
}

/// Explicit congestion notification: the low two bits of the TOS or traffic class (RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// 00: the transport does not take part.
    NotEct,
    /// 01: it does, ECT(1).
    Ect1,
    /// 10: it does, ECT(0).
    Ect0,
    /// 11: congestion was met on the way.
    Ce,
}

impl Ecn {
    /// From a TOS or traffic class, whose upper bits are not looked at.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The two bits.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0b00,
            Self::Ect1 => 0b01,
            Self::Ect0 => 0b10,
            Self::Ce => 0b11,
        }
    }

    /// The inner mark when a tunnel ends here, by figure 4 of RFC 6040 section 4.2. `None` drops
    /// the packet: congestion was met, and its transport could not be told otherwise.
    #[inline]
    #[must_use]
    pub const fn decapsulated(inner: Self, outer: Self) -> Option<Self> {
        match (inner, outer) {
            (Self::NotEct, Self::Ce) => None,
            (Self::NotEct, _) => Some(Self::NotEct),
            (_, Self::Ce) => Some(Self::Ce),
            (Self::Ect0, Self::Ect1) => Some(Self::Ect1),
            (inner, _) => Some(inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ecn, Protocol};

    #[test]
    fn ecn_bits_and_back() {
        for bits in 0..4 {
            assert_eq!(Ecn::from_bits(0xfc | bits).bits(), bits);
        }
    }

    #[test]
    fn the_table_of_rfc_6040() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        // One row per inner mark; columns are the outer marks Not-ECT, ECT(0), ECT(1), CE.
        let table = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce); 4]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [NotEct, Ect0, Ect1, Ce].into_iter().zip(row) {
                assert_eq!(Ecn::decapsulated(inner, outer), expected, "{inner:?} in {outer:?}");
            }
        }
    }

    #[test]
    fn display_names_what_is_known() {
        assert_eq!(Protocol::TCP.to_string(), "TCP");
        assert_eq!(Protocol(99).to_string(), "protocol 99");
    }
}
