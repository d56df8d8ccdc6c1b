//! IPv4 routes: a trie whose first step takes 16 bits of the address, and two more steps 8 each.
//!
//! Enters: routes that come and go, from the control thread, by way of `Fib`. Leaves: answers to
//! `Fib::lookup`. Each entry holds the adjacency of the longest prefix over it (leaf pushing), so
//! that a lookup follows at most two references and never turns back: one step for prefixes up to
//! /16, two up to /24, three for a pod's /32.
//!
//! The first table has 2^16 entries of 4 bytes, 256 KB. A node has 256 entries, and is made when the
//! first prefix longer than its own place comes: at most one for each /16 and each /24 that has longer
//! ones. It is used again elsewhere once all of its entries are the same. Of a large table's nodes most
//! are packed ([`line`]) to 512 bytes, half of what the entries take. A full table of 1,000,000 routes
//! fills about 32,000 nodes, 17 bytes a route; a DIR-24-8 table would take 64 MB for ten.
//!
//! A copy shares its memory with the original. A change copies what it writes to, unless it has that alone:
//! the page of a node, and the first table where a node comes or goes.

mod entry;
mod line;
mod nodes;

use core::net::Ipv4Addr;
use core::ops::Range;
use std::sync::Arc;

use super::{AdjacencyId, Routes};
use entry::{Entry, NodeId};
use nodes::{Level, Nodes};

/// Entries of the first table.
const ROOT: usize = 1 << 16;

/// The routes.
#[derive(Debug, Clone, Default)]
pub struct Trie {
    /// By the first 16 bits; none as long as there is no route.
    root: Option<Arc<[Entry; ROOT]>>,
    nodes: Nodes,
}

impl Routes<Ipv4Addr> for Trie {
    fn insert(&mut self, address: Ipv4Addr, len: u8, adjacency: AdjacencyId) {
        let [a, b, c, d] = address.octets();
        let route = Entry::route(len, adjacency);
        // Over everything that no longer prefix has.
        let replace = |entry| if route.covers(entry) { route } else { entry };
        if self.root.is_none() {
            // Never on the stack.
            let root: Result<Box<[Entry; ROOT]>, _> = vec![Entry::default(); ROOT].try_into();
            self.root = root.ok().map(Arc::from);
        }
        let at = usize::from(u16::from_be_bytes([a, b]));
        if len <= 16 {
            return self.change_roots(covered(at, 16 - len), replace);
        }
        let Some(entry) = self.root(at) else { return };
        let second = self.node_under(entry, Level::Second);
        let now = if len <= 24 {
            self.nodes.change_in(second, covered(c.into(), 24 - len), replace)
        } else {
            let third = self.nodes.get(second, c).unwrap_or_default();
            let third = self.node_under(third, Level::Third);
            let third = self.nodes.change_in(third, covered(d.into(), 32 - len), replace);
            Entry::to(self.nodes.put(second, c, third))
        };
        self.put_root(at, now);
    }

    fn remove(&mut self, address: Ipv4Addr, len: u8, cover: Option<(u8, AdjacencyId)>) {
        let [a, b, c, d] = address.octets();
        let cover = cover.map_or(Entry::default(), |(len, adjacency)| Entry::route(len, adjacency));
        // The length identifies the route: no two of one length contain the same address.
        let uncover = |entry: Entry| if entry.has_len(len) { cover } else { entry };
        let at = usize::from(u16::from_be_bytes([a, b]));
        if len <= 16 {
            return self.change_roots(covered(at, 16 - len), uncover);
        }
        let Some(second) = self.root(at).and_then(Entry::node) else { return };
        let now = if len <= 24 {
            self.nodes.change_in(second, covered(c.into(), 24 - len), uncover)
        } else {
            let third = self.nodes.get(second, c).and_then(Entry::node);
            let Some(third) = third else { return };
            let third = self.nodes.change_in(third, covered(d.into(), 32 - len), uncover);
            let third = self.folded(third);
            Entry::to(self.nodes.put(second, c, third))
        };
        let now = self.folded(now);
        self.put_root(at, now);
    }

    #[inline]
    fn lookup(&self, address: Ipv4Addr) -> Option<AdjacencyId> {
        let [a, b, c, d] = address.octets();
        let mut entry = self.root(usize::from(u16::from_be_bytes([a, b])))?;
        if entry.is_node() {
            entry = self.nodes.step(entry, c);
            if entry.is_node() {
                entry = self.nodes.step(entry, d);
            }
        }
        entry.adjacency()
    }

    fn size_bytes(&self) -> usize {
        self.root.as_ref().map_or(0, |root| size_of_val(&**root)) + self.nodes.size_bytes()
    }

    fn unshared_bytes(&self, other: &Self) -> usize {
        let root = match (&self.root, &other.root) {
            (Some(own), Some(other)) if Arc::ptr_eq(own, other) => 0,
            (own, _) => own.as_ref().map_or(0, |root| size_of_val(&**root)),
        };
        root + self.nodes.unshared_bytes(&other.nodes)
    }
}

impl Trie {
    /// Whether a random look-up misses the caches that a core has for itself, 1 to 2 MB today: beyond 1 MB
    /// of packed nodes.
    #[inline]
    pub(super) fn is_large(&self) -> bool {
        self.nodes.packed() >= 2048
    }

    #[inline(always)]
    fn root(&self, at: usize) -> Option<Entry> {
        self.root.as_ref()?.get(at).copied()
    }

    /// The node that an entry leads to; a new one, all of whose entries are as this one, if it is a route
    /// or nothing.
    fn node_under(&mut self, entry: Entry, level: Level) -> NodeId {
        entry.node().unwrap_or_else(|| self.nodes.filled(entry, level))
    }

    /// What stands in a node's place if it is not needed any more, or else the same entry.
    fn folded(&mut self, entry: Entry) -> Entry {
        entry.node().and_then(|node| self.nodes.fold(node)).unwrap_or(entry)
    }

    fn change_roots(&mut self, covered: Range<usize>, change: impl Fn(Entry) -> Entry + Copy) {
        for at in covered {
            if let Some(entry) = self.root(at) {
                let now = self.nodes.change(entry, change);
                self.put_root(at, now);
            }
        }
    }

    /// Touches nothing that has this entry already: the page may be shared.
    fn put_root(&mut self, at: usize, entry: Entry) {
        if self.root(at) != Some(entry)
            && let Some(place) = self.root.as_mut().and_then(|root| Arc::make_mut(root).get_mut(at))
        {
            *place = entry;
        }
    }
}

/// The entries that share all but the last `free` bits with `at`.
fn covered(at: usize, free: u8) -> Range<usize> {
    let count = 1 << free;
    let first = at & !(count - 1);
    first..first + count
}
