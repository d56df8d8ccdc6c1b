//! IPv6 routes: a hash table per prefix length, longest first.
//!
//! Enters: routes that come and go, from the control thread, by way of `Fib`. Leaves: answers to `Fib::lookup`. Only
//! lengths that occur are asked, and a cluster has few: its own pods are /128 and found at the first
//! question, the other nodes' at the second or third.
//!
//! Of prefixes up to /64 the upper half alone is kept, 12 bytes with the adjacency: 15 to 30 bytes a route.
//! Those of longer ones have 20: 25 to 48 bytes a route.

mod shards;

use core::net::Ipv6Addr;

use super::{Address, AdjacencyId, Routes};
use shards::Shards;

/// The routes.
#[derive(Debug, Clone, Default)]
pub struct Lengths {
    /// Descending by length; none is empty.
    lengths: Vec<(u8, Length)>,
}

/// The prefixes of one length.
#[derive(Debug, Clone)]
enum Length {
    /// Up to /64, by their upper half.
    Short(Shards<2>),
    Long(Shards<4>),
}

impl Length {
    fn new(len: u8) -> Self {
        if len <= 64 { Self::Short(Shards::default()) } else { Self::Long(Shards::default()) }
    }

    fn insert(&mut self, prefix: u128, adjacency: AdjacencyId) {
        match self {
            Self::Short(routes) => routes.insert(upper(prefix), adjacency),
            Self::Long(routes) => routes.insert(words(prefix), adjacency),
        }
    }

    fn remove(&mut self, prefix: u128) {
        match self {
            Self::Short(routes) => routes.remove(upper(prefix)),
            Self::Long(routes) => routes.remove(words(prefix)),
        }
    }

    #[inline]
    fn get(&self, prefix: u128) -> Option<AdjacencyId> {
        match self {
            Self::Short(routes) => routes.get(upper(prefix)),
            Self::Long(routes) => routes.get(words(prefix)),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Short(routes) => routes.is_empty(),
            Self::Long(routes) => routes.is_empty(),
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::Short(routes) => routes.size_bytes(),
            Self::Long(routes) => routes.size_bytes(),
        }
    }

    fn unshared_bytes(&self, other: &Self) -> usize {
        match (self, other) {
            (Self::Short(own), Self::Short(other)) => own.unshared_bytes(other),
            (Self::Long(own), Self::Long(other)) => own.unshared_bytes(other),
            _ => self.size_bytes(),
        }
    }
}

impl Routes<Ipv6Addr> for Lengths {
    fn insert(&mut self, address: Ipv6Addr, len: u8, adjacency: AdjacencyId) {
        let at = self.lengths.partition_point(|(other, _)| *other > len);
        if self.lengths.get(at).is_none_or(|(other, _)| *other != len) {
            self.lengths.insert(at, (len, Length::new(len)));
        }
        if let Some((_, routes)) = self.lengths.get_mut(at) {
            routes.insert(prefix(address, len), adjacency);
        }
    }

    fn remove(&mut self, address: Ipv6Addr, len: u8, _cover: Option<(u8, AdjacencyId)>) {
        let Some(at) = self.lengths.iter().position(|(other, _)| *other == len) else { return };
        if let Some((_, routes)) = self.lengths.get_mut(at) {
            routes.remove(prefix(address, len));
            if routes.is_empty() {
                self.lengths.remove(at);
            }
        }
    }

    #[inline]
    fn lookup(&self, address: Ipv6Addr) -> Option<AdjacencyId> {
        self.lengths.iter().find_map(|(len, routes)| routes.get(prefix(address, *len)))
    }

    fn size_bytes(&self) -> usize {
        self.lengths.iter().map(|(_, routes)| routes.size_bytes()).sum()
    }

    fn unshared_bytes(&self, other: &Self) -> usize {
        let unshared = |(len, own): &(u8, Length)| {
            let other = other.lengths.iter().find(|(other, _)| other == len);
            other.map_or_else(|| own.size_bytes(), |(_, other)| own.unshared_bytes(other))
        };
        self.lengths.iter().map(unshared).sum()
    }
}

/// The first `len` bits, the others zero.
#[inline]
fn prefix(address: Ipv6Addr, len: u8) -> u128 {
    let free = u32::from(Ipv6Addr::LEN_BITS.saturating_sub(len));
    address.to_bits() & u128::MAX.checked_shl(free).unwrap_or(0)
}

#[inline]
fn upper(prefix: u128) -> [u32; 2] {
    [(prefix >> 96) as u32, (prefix >> 64) as u32]
}

#[inline]
fn words(prefix: u128) -> [u32; 4] {
    let [a, b] = upper(prefix);
    [a, b, (prefix >> 32) as u32, prefix as u32]
}
