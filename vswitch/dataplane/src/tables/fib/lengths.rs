//! IPv6 routes: a hash table per prefix length, longest first.
//!
//! Enters: routes that come and go, from the control thread, by way of `Fib`. Leaves: answers to `Fib::lookup`. Only
//! lengths that occur are asked, and a cluster has few: its own pods are /128 and found at the first
//! question, the other nodes' at the second or third.

use core::net::Ipv6Addr;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{Address, AdjacencyId, Routes};

/// The routes.
#[derive(Debug, Clone, Default)]
pub struct Lengths {
    /// Descending by length; none is empty.
    lengths: Vec<(u8, HashMap<u128, AdjacencyId, RandomState>)>,
}

impl Routes<Ipv6Addr> for Lengths {
    fn insert(&mut self, address: Ipv6Addr, len: u8, adjacency: AdjacencyId) {
        let at = self.lengths.partition_point(|(other, _)| *other > len);
        if self.lengths.get(at).is_none_or(|(other, _)| *other != len) {
            self.lengths.insert(at, (len, HashMap::default()));
        }
        if let Some((_, routes)) = self.lengths.get_mut(at) {
            routes.insert(prefix(address, len), adjacency);
        }
    }

    fn remove(&mut self, address: Ipv6Addr, len: u8, _cover: Option<(u8, AdjacencyId)>) {
        let Some(at) = self.lengths.iter().position(|(other, _)| *other == len) else { return };
        if let Some((_, routes)) = self.lengths.get_mut(at) {
            routes.remove(&prefix(address, len));
            if routes.is_empty() {
                self.lengths.remove(at);
            }
        }
    }

    #[inline]
    fn lookup(&self, address: Ipv6Addr) -> Option<AdjacencyId> {
        self.lengths.iter().find_map(|(len, routes)| routes.get(&prefix(address, *len)).copied())
    }

    fn size_bytes(&self) -> usize {
        self.lengths.iter().map(|(_, routes)| routes.allocation_size()).sum()
    }
}

/// The first `len` bits, the others zero.
#[inline]
fn prefix(address: Ipv6Addr, len: u8) -> u128 {
    let free = u32::from(Ipv6Addr::LEN_BITS.saturating_sub(len));
    address.to_bits() & u128::MAX.checked_shl(free).unwrap_or(0)
}
