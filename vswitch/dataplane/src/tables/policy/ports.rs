//! The order of protocols and ports, in which each interval of ports is one of keys.
//!
//! Enters: a packet's protocol and destination port, those that rules name. Leaves: keys to
//! `matrix` and `rules`.

use core::ops::RangeInclusive;

use crate::wire::Protocol;

/// Place of a protocol and port: the protocols one after the other, in each first what has no port,
/// then the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey(u32);

/// 65,536 ports and one place more.
const PROTOCOL_SHIFT: u32 = 17;

impl PortKey {
    /// The first of all.
    pub const FIRST: Self = Self(0);

    /// The key of a packet.
    #[inline]
    #[must_use]
    pub fn new(protocol: Protocol, port: Option<u16>) -> Self {
        let place = port.map_or(0, |port| u32::from(port) + 1);
        Self(u32::from(protocol.0) << PROTOCOL_SHIFT | place)
    }

    /// The key behind this one; there is none behind the last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        (self < PortSpan::ANY.last).then_some(Self(self.0 + 1))
    }
}

/// Keys from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortSpan {
    /// The first.
    pub first: PortKey,
    /// The last, which is not before the first in a span that contains anything.
    pub last: PortKey,
}

impl PortSpan {
    /// Every protocol, with ports or without.
    pub const ANY: Self =
        Self { first: PortKey::FIRST, last: PortKey((1 << (8 + PROTOCOL_SHIFT)) - 1) };

    /// All of a protocol.
    #[must_use]
    pub fn protocol(protocol: Protocol) -> Self {
        let first = PortKey::new(protocol, None);
        Self { first, last: PortKey(first.0 | ((1 << PROTOCOL_SHIFT) - 1)) }
    }

    /// Some ports of a protocol; packets that show no port are not among them.
    #[must_use]
    pub fn ports(protocol: Protocol, ports: RangeInclusive<u16>) -> Self {
        let key = |port: u16| PortKey::new(protocol, Some(port));
        Self { first: key(*ports.start()), last: key(*ports.end()) }
    }

    /// Whether it contains the key.
    #[inline]
    #[must_use]
    pub fn contains(self, key: PortKey) -> bool {
        self.first <= key && key <= self.last
    }
}
