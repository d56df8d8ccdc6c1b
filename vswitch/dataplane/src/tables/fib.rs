//! Longest-prefix match.
//!
//! Enters: routes that come and go, from `compile` on the control thread. Leaves: answers to
//! `walk`, of a copy that does not change any more. The versions of IP differ in what fits: 32 bits
//! are walked in three steps (`trie`), 128 are not (`lengths`).

mod lengths;
mod trie;

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::AdjacencyId;
pub use lengths::Lengths;
pub use trie::Trie;

/// An address that can be matched by prefix.
pub trait Address: Copy {
    /// The structure that holds its routes.
    type Routes: Routes<Self>;

    /// Bits in an address.
    const LEN_BITS: u8;
}

/// Routes of one address family, as [`Fib`] keeps them.
pub trait Routes<A>: Clone + Default {
    /// Adds a route, or replaces the one of the same prefix. `len` is at most the address's; host
    /// bits are ignored.
    fn insert(&mut self, address: A, len: u8, adjacency: AdjacencyId);

    /// Takes the route of this prefix away. `cover` is the longest shorter prefix that contains it,
    /// by its length and adjacency, if there is one.
    fn remove(&mut self, address: A, len: u8, cover: Option<(u8, AdjacencyId)>);

    /// The adjacency of the longest prefix that contains the address.
    fn lookup(&self, address: A) -> Option<AdjacencyId>;

    /// Memory in use, bytes.
    fn size_bytes(&self) -> usize;

    /// Bytes of its memory that it does not share with the other.
    fn unshared_bytes(&self, other: &Self) -> usize;
}

impl Address for Ipv4Addr {
    type Routes = Trie;

    const LEN_BITS: u8 = 32;
}

impl Address for Ipv6Addr {
    type Routes = Lengths;

    const LEN_BITS: u8 = 128;
}

/// Routes of one address family.
#[derive(Clone)]
pub struct Fib<A: Address> {
    routes: A::Routes,
}

impl<A: Address> Default for Fib<A> {
    fn default() -> Self {
        Self { routes: A::Routes::default() }
    }
}

impl<A: Address> fmt::Debug for Fib<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fib {{ {} bytes }}", self.size_bytes())
    }
}

impl<A: Address> Fib<A> {
    /// Adds a route, or replaces the one of the same prefix; host bits are ignored, and a length
    /// beyond the address's counts as a host route.
    pub fn insert(&mut self, address: A, len: u8, adjacency: AdjacencyId) {
        self.routes.insert(address, len.min(A::LEN_BITS), adjacency);
    }

    /// Takes the route of this prefix away, if there is one; host bits are ignored. What it hid is
    /// for the caller to know: `cover` is the longest shorter prefix that contains it, by its length
    /// and adjacency.
    pub fn remove(&mut self, address: A, len: u8, cover: Option<(u8, AdjacencyId)>) {
        self.routes.remove(address, len.min(A::LEN_BITS), cover);
    }

    /// The adjacency of the longest prefix that contains the address.
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: A) -> Option<AdjacencyId> {
        self.routes.lookup(address)
    }

    /// Memory in use, bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.routes.size_bytes()
    }

    /// Bytes of its memory that it does not share with the other: what was copied, if one is a copy of
    /// the other and one of them has changed since.
    #[must_use]
    pub fn unshared_bytes(&self, other: &Self) -> usize {
        self.routes.unshared_bytes(&other.routes)
    }
}

impl Fib<Ipv4Addr> {
    /// Whether it is so large that a random look-up waits for memory, or for a cache that cores share.
    #[inline]
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.routes.is_large()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use core::net::Ipv4Addr;

    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    use super::{AdjacencyId, Fib};

    /// Addresses that share their first bits, so that prefixes lie inside one another: of 32 random
    /// bits they never would.
    fn nested() -> impl Strategy<Value = u32> {
        const BITS: u32 = 0x8081_8181;
        // The last are of 32 addresses in a row: more of them than a packed line has different entries.
        (any::<u32>(), 0..3u8).prop_map(|(bits, kind)| match kind {
            0 => bits,
            1 => bits & BITS,
            _ => 0x8081_0100 | bits & 0x1f,
        })
    }

    /// Routes that are in nobody's way, so many that further nodes are packed ones.
    fn large() -> Fib<Ipv4Addr> {
        let mut fib = Fib::default();
        for bits in (0..100u32).map(|net| 0x0a00_0001 + (net << 16)) {
            fib.insert(Ipv4Addr::from_bits(bits), 32, AdjacencyId(1));
            fib.insert(Ipv4Addr::from_bits(bits + 0x8000), 32, AdjacencyId(2));
        }
        fib
    }

    /// In the proportions of a full table: most are /24, an eighth each /22 and /23, some shorter.
    fn full_table(count: usize) -> impl Iterator<Item = (u32, u8)> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        core::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len =
                [24, 24, 24, 24, 24, 23, 22, 24 - (state >> 60) as u8][(state >> 40) as usize % 8];
            // An eighth of the unicast addresses: 130,000 routes are there as a million are in all.
            (((state >> 32) as u32 % (16 << 24)) & (u32::MAX << (32 - len)), len)
        })
        .take(count)
    }

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
        fib.remove("fd00:18:2::7".parse().unwrap(), 128, Some((64, AdjacencyId(1))));
        assert_eq!(fib.lookup("fd00:18:2::7".parse().unwrap()), Some(AdjacencyId(1)));
        fib.remove("fd00:18:2::".parse().unwrap(), 64, None);
        assert_eq!(fib.lookup("fd00:18:2::7".parse().unwrap()), None);
    }

    #[test]
    fn a_route_takes_the_place_of_one_of_the_same_prefix_and_of_no_other() {
        let fib = fib(&[
            ("198.18.1.0/24", 1),
            ("198.18.1.128/25", 2),
            ("0.0.0.0/0", 3),
            ("198.18.1.0/24", 4),
            ("198.18.0.0/15", 5),
        ]);
        for (address, adjacency) in
            [("198.18.1.1", 4), ("198.18.1.129", 2), ("198.19.0.1", 5), ("203.0.113.1", 3)]
        {
            assert_eq!(
                fib.lookup(address.parse().unwrap()),
                Some(AdjacencyId(adjacency)),
                "{address}"
            );
        }
    }

    #[test]
    fn an_adjacency_that_no_table_holds_stays_out_of_it() {
        let mut fib = Fib::default();
        fib.insert(Ipv4Addr::LOCALHOST, 32, AdjacencyId(u32::MAX));
        fib.insert(Ipv4Addr::LOCALHOST, 8, AdjacencyId(7));
        assert!(fib.lookup(Ipv4Addr::LOCALHOST) > Some(AdjacencyId(1 << 24)));
        assert_eq!(fib.lookup(Ipv4Addr::new(127, 0, 0, 2)), Some(AdjacencyId(7)));
    }

    #[test]
    fn what_a_route_hid_is_there_again_when_it_goes() {
        let mut fib = fib(&[("198.18.0.0/16", 1), ("198.18.1.0/24", 2), ("198.18.1.7/32", 3)]);
        let leads = |fib: &Fib<Ipv4Addr>, address: &str| fib.lookup(address.parse().unwrap());
        fib.remove("198.18.1.0".parse().unwrap(), 24, Some((16, AdjacencyId(1))));
        assert_eq!(leads(&fib, "198.18.1.8"), Some(AdjacencyId(1)));
        assert_eq!(leads(&fib, "198.18.1.7"), Some(AdjacencyId(3)));
        fib.remove("198.18.1.7".parse().unwrap(), 32, Some((16, AdjacencyId(1))));
        assert_eq!(leads(&fib, "198.18.1.7"), Some(AdjacencyId(1)));
        fib.remove("198.18.0.0".parse().unwrap(), 16, None);
        assert_eq!(leads(&fib, "198.18.1.7"), None);
    }

    #[test]
    fn routes_that_come_and_go_leave_no_memory_behind() {
        let mut fib = Fib::<Ipv4Addr>::default();
        fib.insert(Ipv4Addr::UNSPECIFIED, 0, AdjacencyId(0));
        let mut after_one = 0;
        for bits in (0..2000u32).map(|net| 0xc612_0001 + (net << 8)) {
            fib.insert(Ipv4Addr::from_bits(bits), 32, AdjacencyId(1));
            fib.remove(Ipv4Addr::from_bits(bits), 32, Some((0, AdjacencyId(0))));
            after_one = if after_one == 0 { fib.size_bytes() } else { after_one };
        }
        assert_eq!(fib.size_bytes(), after_one);
    }

    #[test]
    fn a_route_takes_32_bytes_at_most_where_they_lie_as_in_a_full_table() {
        let mut fib = Fib::<Ipv4Addr>::default();
        let mut distinct = std::collections::HashSet::new();
        for (nth, (bits, len)) in full_table(140_000).enumerate() {
            fib.insert(Ipv4Addr::from_bits(bits), len, AdjacencyId(nth as u32 % 1000));
            distinct.insert((bits, len));
        }
        let bytes = fib.size_bytes() / distinct.len();
        assert!(
            distinct.len() > 120_000 && bytes <= 32,
            "{bytes} bytes each of {}",
            distinct.len()
        );
    }

    #[test]
    fn an_ipv6_route_takes_32_bytes_at_most_whatever_their_number() {
        let mut fib = Fib::<core::net::Ipv6Addr>::default();
        for nth in 0..200_000u32 {
            let bits = 0x2001_0db8 << 96 | u128::from(nth.wrapping_mul(0x9e37_79b1)) << 64;
            fib.insert(bits.into(), 64, AdjacencyId(nth % 1000));
            let bytes = fib.size_bytes() / (nth as usize + 1);
            assert!(nth < 2000 || bytes <= 32, "{bytes} bytes each of {}", nth + 1);
        }
    }

    #[test]
    fn a_copy_shares_what_does_not_change() {
        let mut fib = large();
        for (bits, len) in full_table(50_000) {
            fib.insert(Ipv4Addr::from_bits(bits), len, AdjacencyId(3));
        }
        let published = fib.clone();
        assert_eq!(fib.unshared_bytes(&published), 0);
        fib.insert(Ipv4Addr::new(10, 7, 1, 9), 32, AdjacencyId(4));
        assert_eq!(
            published.lookup(Ipv4Addr::new(10, 7, 1, 9)),
            fib.lookup(Ipv4Addr::new(10, 7, 1, 8))
        );
        // The pages of one node in each step, and the array of near nodes, but not the first table.
        let copied = fib.unshared_bytes(&published);
        assert!((1..200 << 10).contains(&copied), "{copied} of {} bytes", fib.size_bytes());
        // A page has been copied once, whatever else changes in it.
        fib.insert(Ipv4Addr::new(10, 7, 1, 9), 32, AdjacencyId(5));
        assert_eq!(fib.unshared_bytes(&published), copied);

        let mut fib = Fib::<core::net::Ipv6Addr>::default();
        for nth in 0..50_000u32 {
            fib.insert((0xfd00 << 112 | u128::from(nth)).into(), 128, AdjacencyId(nth));
        }
        let published = fib.clone();
        assert_eq!(fib.unshared_bytes(&published), 0);
        fib.insert((0xfd00 << 112 | 7u128).into(), 128, AdjacencyId(1));
        fib.remove((0xfd00 << 112 | 8u128).into(), 128, None);
        fib.insert((0xfd00 << 112 | 9u128).into(), 64, AdjacencyId(2));
        for (nth, then) in [(7, 1), (8, 2)] {
            let address = (0xfd00 << 112 | nth as u128).into();
            assert_eq!(published.lookup(address), Some(AdjacencyId(nth)));
            assert_eq!(fib.lookup(address), Some(AdjacencyId(then)));
        }
        let copied = fib.unshared_bytes(&published);
        assert!((1..100 << 10).contains(&copied), "{copied} of {} bytes", fib.size_bytes());
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_linear_search(
            is_large in any::<bool>(),
            routes in proptest::collection::vec((nested(), 0u8..=32), 0..80),
            gone in proptest::collection::vec(any::<proptest::sample::Index>(), 0..30),
            address in any::<u32>(),
            near in any::<proptest::sample::Index>(),
        ) {
            let mut fib = if is_large { large() } else { Fib::default() };
            let mut linear: Vec<(Ipv4Net, AdjacencyId)> = Vec::new();
            let leads = |linear: &[(Ipv4Net, AdjacencyId)], address: Ipv4Addr| {
                let over = linear.iter().filter(|(net, _)| net.contains(&address));
                over.max_by_key(|(net, _)| net.prefix_len()).map(|(_, adjacency)| *adjacency)
            };
            for (index, (bits, len)) in routes.iter().enumerate() {
                let net = Ipv4Net::new(Ipv4Addr::from_bits(*bits), *len).unwrap().trunc();
                fib.insert(net.addr(), *len, AdjacencyId(index as u32));
                linear.retain(|(other, _)| *other != net);
                linear.push((net, AdjacencyId(index as u32)));
            }
            let (published, linear_then) = (fib.clone(), linear.clone());
            for index in gone {
                let Some(at) = index.index(linear.len() + 1).checked_sub(1) else { continue };
                let (net, _) = linear.swap_remove(at);
                let cover = linear
                    .iter()
                    .filter(|(other, _)| other.contains(&net))
                    .max_by_key(|(other, _)| other.prefix_len())
                    .map(|(other, adjacency)| (other.prefix_len(), *adjacency));
                fib.remove(net.addr(), net.prefix_len(), cover);
            }
            // A random address seldom hits a long prefix: try one next to a route as well.
            let beside = if routes.is_empty() { address } else { routes[near.index(routes.len())].0 ^ 1 };
            let in_a_row = 0x8081_0100..0x8081_0120;
            for bits in [address, beside].into_iter().chain(in_a_row) {
                let address = Ipv4Addr::from_bits(bits);
                if is_large && bits >> 24 == 10 {
                    continue;
                }
                prop_assert_eq!(fib.lookup(address), leads(&linear, address), "{}", address);
                prop_assert_eq!(published.lookup(address), leads(&linear_then, address), "{}", address);
            }
        }
    }
}
