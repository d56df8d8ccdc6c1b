//! What identifies a session: the tuple of a packet, and the key that both directions share.
//!
//! Enters: addresses, protocol and ports, from whichever door read them. Leaves: a [`Tuple`], in the
//! packet's direction, for callers; a [`Key`], without direction, for the table.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::Protocol;

/// One end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port; the identifier of an ICMP echo; zero if the protocol has neither.
    pub port: u16,
}

/// Zone, protocol and both ends of a packet, in the packet's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    zone: u16,
    protocol: Protocol,
    source: Endpoint,
    destination: Endpoint,
}

/// Direction of a packet, as seen from the end that sent the session's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the end that opened the session.
    FromOpener,
    /// From the other one.
    FromResponder,
}

impl Tuple {
    /// The tuple of a packet. `zone` separates networks whose addresses overlap. `None` if the ends
    /// are of two IP versions.
    #[inline]
    #[must_use]
    pub fn new(
        zone: u16,
        protocol: Protocol,
        source: Endpoint,
        destination: Endpoint,
    ) -> Option<Self> {
        (source.address.is_ipv4() == destination.address.is_ipv4()).then_some(Self {
            zone,
            protocol,
            source,
            destination,
        })
    }

    /// The tuple of an ICMP or ICMPv6 echo, or of its reply: the identifier is the port of both ends.
    #[must_use]
    pub fn echo(
        zone: u16,
        protocol: Protocol,
        source: IpAddr,
        destination: IpAddr,
        id: u16,
    ) -> Option<Self> {
        let end = |address| Endpoint { address, port: id };
        Self::new(zone, protocol, end(source), end(destination))
    }

    /// The network that it belongs to.
    #[inline]
    #[must_use]
    pub fn zone(&self) -> u16 {
        self.zone
    }

    /// The transport protocol.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The sender.
    #[inline]
    #[must_use]
    pub fn source(&self) -> Endpoint {
        self.source
    }

    /// The receiver.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Endpoint {
        self.destination
    }

    /// The tuple of a packet in the other direction.
    #[inline]
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }

    /// Whether the ends have IPv6 addresses.
    #[inline]
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.source.address.is_ipv6()
    }
}

/// A tuple with its ends sorted, as words that entries hold: equal for both directions.
///
/// | word | IPv4 | IPv6 |
/// |---|---|---|
/// | `addresses` | lower, higher address in the first word | two words each |
/// | `meta` | ports of the lower and of the higher end, 16 bits each; protocol, 8; flags, 8, zero here; zone, 16 | the same |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) addresses: [u64; 4],
    pub(crate) meta: u64,
}

/// A key, and which of its ends sent the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sorted {
    pub(crate) key: Key,
    pub(crate) source_is_higher: bool,
}

/// Where the flags of an entry are in its word `meta`.
pub(crate) const FLAGS_SHIFT: u32 = 16;

impl Sorted {
    #[inline]
    pub(crate) fn of(tuple: &Tuple) -> Self {
        let (source, destination) = (tuple.source, tuple.destination);
        let (addresses, source_is_higher) = match (source.address, destination.address) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let (from, to) = (from.to_bits(), to.to_bits());
                let is_higher = (from, source.port) > (to, destination.port);
                let (low, high) = if is_higher { (to, from) } else { (from, to) };
                ([u64::from(low) << 32 | u64::from(high), 0, 0, 0], is_higher)
            }
            (from, to) => {
                let (from, to) = (bits(from), bits(to));
                let is_higher = (from, source.port) > (to, destination.port);
                let (low, high) = if is_higher { (to, from) } else { (from, to) };
                ([(low >> 64) as u64, low as u64, (high >> 64) as u64, high as u64], is_higher)
            }
        };
        let (low, high) = if source_is_higher {
            (destination.port, source.port)
        } else {
            (source.port, destination.port)
        };
        let meta = u64::from(low) << 48
            | u64::from(high) << 32
            | u64::from(tuple.protocol.0) << 24
            | u64::from(tuple.zone);
        Self { key: Key { addresses, meta }, source_is_higher }
    }
}

impl Key {
    /// The tuple from one end to the other; `v6` says what the address words hold.
    #[inline]
    pub(crate) fn tuple(&self, v6: bool, source_is_higher: bool) -> Tuple {
        let [a, b, c, d] = self.addresses;
        let (low, high): (IpAddr, IpAddr) = if v6 {
            let address = |high: u64, low: u64| {
                Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
            };
            (address(a, b), address(c, d))
        } else {
            (Ipv4Addr::from_bits((a >> 32) as u32).into(), Ipv4Addr::from_bits(a as u32).into())
        };
        let low = Endpoint { address: low, port: (self.meta >> 48) as u16 };
        let high = Endpoint { address: high, port: (self.meta >> 32) as u16 };
        let (source, destination) = if source_is_higher { (high, low) } else { (low, high) };
        Tuple { zone: self.meta as u16, protocol: self.protocol(), source, destination }
    }

    #[inline]
    pub(crate) fn protocol(&self) -> Protocol {
        Protocol((self.meta >> 24) as u8)
    }
}

/// An address as a number; one of IPv4 is below 2^32.
#[inline]
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Endpoint, Sorted, Tuple};
    use crate::wire::Protocol;

    fn end(address: &str, port: u16) -> Endpoint {
        Endpoint { address: address.parse().unwrap(), port }
    }

    #[test]
    fn both_directions_have_one_key() {
        for (one, other) in [("198.18.1.2", "198.18.2.9"), ("fd00::9", "fd00:0:0:1::2")] {
            for ports in [(40_112, 80), (80, 40_112), (7, 7)] {
                let (one, other) = (end(one, ports.0), end(other, ports.1));
                let tuple = Tuple::new(3, Protocol::TCP, one, other).unwrap();
                let (there, back) = (Sorted::of(&tuple), Sorted::of(&tuple.reversed()));
                assert_eq!(there.key, back.key);
                assert_ne!(there.source_is_higher, back.source_is_higher);
                let v6 = tuple.is_v6();
                assert_eq!(there.key.tuple(v6, there.source_is_higher), tuple);
                assert_eq!(back.key.tuple(v6, back.source_is_higher), tuple.reversed());
            }
        }
    }

    #[test]
    fn ports_sort_the_ends_of_a_pod_that_speaks_to_itself() {
        let (one, other) = (end("198.18.1.2", 40_112), end("198.18.1.2", 80));
        let tuple = Tuple::new(0, Protocol::TCP, one, other).unwrap();
        assert!(Sorted::of(&tuple).source_is_higher);
        assert!(!Sorted::of(&tuple.reversed()).source_is_higher);
    }

    #[test]
    fn everything_in_a_tuple_is_in_its_key() {
        let (one, other) = (end("198.18.1.2", 1), end("198.18.1.3", 2));
        let key = |zone, protocol, from, to| {
            Sorted::of(&Tuple::new(zone, protocol, from, to).unwrap()).key
        };
        let first = key(0, Protocol::UDP, one, other);
        assert_ne!(first, key(1, Protocol::UDP, one, other));
        assert_ne!(first, key(0, Protocol::TCP, one, other));
        assert_ne!(first, key(0, Protocol::UDP, end("198.18.1.2", 2), end("198.18.1.3", 1)));
        assert_ne!(first, key(0, Protocol::UDP, one, end("198.18.1.4", 2)));
    }

    #[test]
    fn an_echo_and_its_reply_have_one_key_and_two_ip_versions_none() {
        let (one, other) = ("198.18.1.2".parse().unwrap(), "198.18.1.3".parse().unwrap());
        let request = Tuple::echo(0, Protocol::ICMP, one, other, 77).unwrap();
        let reply = Tuple::echo(0, Protocol::ICMP, other, one, 77).unwrap();
        assert_eq!(Sorted::of(&request).key, Sorted::of(&reply).key);
        assert_eq!(reply, request.reversed());
        let v6 = "fd00::1".parse().unwrap();
        assert_eq!(Tuple::echo(0, Protocol::ICMP, one, v6, 77), None);
    }
}
