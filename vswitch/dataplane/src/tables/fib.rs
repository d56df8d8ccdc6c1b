//! Longest-prefix match: a hash table per prefix length, longest first.
//!
//! Only lengths that occur are asked. A node's own pods are /32 and /128 and found at the first
//! question, the other nodes' at the second or third. Insertion belongs to the control thread.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::AdjacencyId;

/// An address that can be matched by prefix.
pub trait Address: Copy {
    /// Its bits, most significant first.
    type Bits: Copy + Eq + core::hash::Hash;

    /// Bits in an address.
    const LEN_BITS: u8;

    /// The first `len` bits, the others zero.
    fn prefix(self, len: u8) -> Self::Bits;
}

impl Address for Ipv4Addr {
    type Bits = u32;

    const LEN_BITS: u8 = 32;

    #[inline]
    fn prefix(self, len: u8) -> u32 {
        self.to_bits()
            & u32::MAX.checked_shl(u32::from(Self::LEN_BITS.saturating_sub(len))).unwrap_or(0)
    }
}

impl Address for Ipv6Addr {
    type Bits = u128;

    const LEN_BITS: u8 = 128;

    #[inline]
    fn prefix(self, len: u8) -> u128 {
        self.to_bits()
            & u128::MAX.checked_shl(u32::from(Self::LEN_BITS.saturating_sub(len))).unwrap_or(0)
    }
}

/// Routes of one address family.
#[derive(Clone)]
pub struct Fib<A: Address> {
    /// Descending by length; none is empty.
    lengths: Vec<(u8, Routes<A>)>,
}

type Routes<A> = HashMap<<A as Address>::Bits, AdjacencyId, RandomState>;

impl<A: Address> Default for Fib<A> {
    fn default() -> Self {
        Self { lengths: Vec::new() }
    }
}

impl<A: Address> fmt::Debug for Fib<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fib {{ {} routes }}", self.len())
    }
}

impl<A: Address> Fib<A> {
    /// Adds a route, or replaces the one of the same prefix; host bits are ignored, and a length
    /// beyond the address's counts as a host route.
    pub fn insert(&mut self, address: A, len: u8, adjacency: AdjacencyId) {
        let len = len.min(A::LEN_BITS);
        let at = self.lengths.partition_point(|(other, _)| *other > len);
        if self.lengths.get(at).is_none_or(|(other, _)| *other != len) {
            self.lengths.insert(at, (len, HashMap::default()));
        }
        if let Some((_, routes)) = self.lengths.get_mut(at) {
            routes.insert(address.prefix(len), adjacency);
        }
    }

    /// The adjacency of the longest prefix that contains the address.
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: A) -> Option<AdjacencyId> {
        self.lengths.iter().find_map(|(len, routes)| routes.get(&address.prefix(*len)).copied())
    }

    /// Routes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lengths.iter().map(|(_, routes)| routes.len()).sum()
    }

    /// No route at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use core::net::Ipv4Addr;

    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    use super::{AdjacencyId, Fib};

    fn fib(routes: &[(&str, u32)]) -> Fib<Ipv4Addr> {
        let mut fib = Fib::default();
        for (prefix, adjacency) in routes {
            let net: Ipv4Net = prefix.parse().unwrap();
            fib.insert(net.addr(), net.prefix_len(), AdjacencyId(*adjacency));
        }
        fib
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        let fib = fib(&[
            ("198.18.0.0/16", 1),
            ("0.0.0.0/0", 0),
            ("198.18.1.7/32", 3),
            ("198.18.1.0/24", 2),
        ]);
        for (address, adjacency) in
            [("198.18.1.7", 3), ("198.18.1.8", 2), ("198.18.9.9", 1), ("203.0.113.1", 0)]
        {
            assert_eq!(
                fib.lookup(address.parse().unwrap()),
                Some(AdjacencyId(adjacency)),
                "{address}"
            );
        }
    }

    #[test]
    fn without_a_default_route_there_may_be_none() {
        assert_eq!(fib(&[("198.18.0.0/16", 1)]).lookup("198.19.0.1".parse().unwrap()), None);
    }

    #[test]
    fn ipv6_matches_alike() {
        let mut fib = Fib::default();
        fib.insert("fd00:18:2::".parse::<core::net::Ipv6Addr>().unwrap(), 64, AdjacencyId(1));
        fib.insert("fd00:18:2::7".parse().unwrap(), 128, AdjacencyId(2));
        assert_eq!(fib.lookup("fd00:18:2::7".parse().unwrap()), Some(AdjacencyId(2)));
        assert_eq!(fib.lookup("fd00:18:2::8".parse().unwrap()), Some(AdjacencyId(1)));
        assert_eq!(fib.lookup("fd00:18:3::8".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_linear_search(
            routes in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            address in any::<u32>(),
            near in any::<proptest::sample::Index>(),
        ) {
            let mut fib = Fib::default();
            let mut linear: Vec<(Ipv4Net, AdjacencyId)> = Vec::new();
            for (index, (bits, len)) in routes.iter().enumerate() {
                let net = Ipv4Net::new(Ipv4Addr::from_bits(*bits), *len).unwrap().trunc();
                fib.insert(net.addr(), *len, AdjacencyId(index as u32));
                linear.retain(|(other, _)| *other != net);
                linear.push((net, AdjacencyId(index as u32)));
            }
            // A random address seldom hits a long prefix: try one next to a route as well.
            let beside = if routes.is_empty() { address } else { routes[near.index(routes.len())].0 ^ 1 };
            for bits in [address, beside] {
                let address = Ipv4Addr::from_bits(bits);
                let expected = linear
                    .iter()
                    .filter(|(net, _)| net.contains(&address))
                    .max_by_key(|(net, _)| net.prefix_len())
                    .map(|(_, adjacency)| *adjacency);
                prop_assert_eq!(fib.lookup(address), expected);
            }
        }
    }
}
