//! IPv4 routes: a trie whose first step takes 16 bits of the address, and two more steps 8 each.
//!
//! Enters: routes that come and go, from the control thread, by way of `Fib`. Leaves: answers to
//! `Fib::lookup`. Each entry holds the adjacency of the longest prefix over it (leaf pushing), so
//! that a lookup follows at most two references and never turns back: one load for prefixes up to
//! /16, two up to /24, three for a pod's /32.
//!
//! The first table has 2^16 entries of 4 bytes, 256 KB. A node has 256 of them, 1 KB, and is made
//! when the first prefix longer than its own place comes: at most one for each /16 and each /24
//! that has longer ones. It is used again elsewhere once all of its entries are the same. A full
//! table of 1,000,000 routes fills about 32,000 nodes, 33 bytes a route; a DIR-24-8 table would
//! take 64 MB for ten.

use core::net::Ipv4Addr;
use core::ops::Range;

use super::{AdjacencyId, Routes};

/// Entries of a node.
const NODE: usize = 256;

/// The end or the next step of a look-up: nothing (zero), a route, or a node to look further in.
///
/// A node has the highest bit and its number. A route has its prefix length plus one in the six bits
/// below, and its adjacency in the lowest 25.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Entry(u32);

const IS_NODE: u32 = 1 << 31;
const LEN_SHIFT: u32 = 25;
/// A table of this many adjacencies would take gigabytes. What is beyond leads to this last one,
/// which is not in the table either: such a route leads nowhere.
const ADJACENCY_MAX: u32 = (1 << LEN_SHIFT) - 1;

impl Entry {
    fn route(len: u8, adjacency: AdjacencyId) -> Self {
        Self((u32::from(len) + 1) << LEN_SHIFT | adjacency.0.min(ADJACENCY_MAX))
    }

    #[inline]
    fn node(self) -> Option<usize> {
        (self.0 & IS_NODE != 0).then_some((self.0 & !IS_NODE) as usize)
    }

    #[inline]
    fn adjacency(self) -> Option<AdjacencyId> {
        (self.0 != 0).then_some(AdjacencyId(self.0 & ADJACENCY_MAX))
    }

    /// Whether it is a route of this length.
    fn has_len(self, len: u8) -> bool {
        self.0 >> LEN_SHIFT == u32::from(len) + 1
    }

    /// Whether a route of `self` is at least as long as the other, or there is no other.
    fn covers(self, other: Self) -> bool {
        self.0 >> LEN_SHIFT >= other.0 >> LEN_SHIFT
    }
}

/// The routes.
#[derive(Debug, Clone, Default)]
pub struct Trie {
    /// By the first 16 bits; empty as long as there is no route.
    root: Vec<Entry>,
    nodes: Vec<[Entry; NODE]>,
    /// Nodes that nothing refers to.
    free: Vec<u32>,
}

impl Routes<Ipv4Addr> for Trie {
    fn insert(&mut self, address: Ipv4Addr, len: u8, adjacency: AdjacencyId) {
        let [a, b, c, d] = address.octets();
        let route = Entry::route(len, adjacency);
        // Over everything that no longer prefix has.
        let replaces = |entry| route.covers(entry);
        if self.root.is_empty() {
            self.root = vec![Entry::default(); 1 << 16];
        }
        let at = usize::from(u16::from_be_bytes([a, b]));
        if len <= 16 {
            let covered = covered(at, 16 - len);
            let Self { root, nodes, .. } = self;
            return write(root.get_mut(covered).unwrap_or_default(), nodes, route, replaces);
        }
        let Some(entry) = self.root.get_mut(at) else { return };
        let second = node_under(entry, &mut self.nodes, &mut self.free);
        if len <= 24 {
            let covered = covered(c.into(), 24 - len);
            return write_node(second, covered, &mut self.nodes, route, replaces);
        }
        let Some(node) = self.nodes.get_mut(second) else { return };
        let mut entry = node.get(usize::from(c)).copied().unwrap_or_default();
        let third = node_under(&mut entry, &mut self.nodes, &mut self.free);
        if let Some(place) =
            self.nodes.get_mut(second).and_then(|node| node.get_mut(usize::from(c)))
        {
            *place = entry;
        }
        write_node(third, covered(d.into(), 32 - len), &mut self.nodes, route, replaces);
    }

    fn remove(&mut self, address: Ipv4Addr, len: u8, cover: Option<(u8, AdjacencyId)>) {
        let [a, b, c, d] = address.octets();
        let cover = cover.map_or(Entry::default(), |(len, adjacency)| Entry::route(len, adjacency));
        // The length identifies the route: no two of one length contain the same address.
        let is_its = |entry: Entry| entry.has_len(len);
        let at = usize::from(u16::from_be_bytes([a, b]));
        if len <= 16 {
            let Self { root, nodes, .. } = self;
            let covered = covered(at, 16 - len);
            return write(root.get_mut(covered).unwrap_or_default(), nodes, cover, is_its);
        }
        let Some(second) = self.root.get(at).and_then(|entry| entry.node()) else { return };
        if len <= 24 {
            write_node(second, covered(c.into(), 24 - len), &mut self.nodes, cover, is_its);
        } else {
            let place = (second, usize::from(c));
            let Some(third) = self.entry(place).and_then(|entry| entry.node()) else { return };
            write_node(third, covered(d.into(), 32 - len), &mut self.nodes, cover, is_its);
            if let Some(same) = self.fold(third)
                && let Some(entry) =
                    self.nodes.get_mut(place.0).and_then(|node| node.get_mut(place.1))
            {
                *entry = same;
            }
        }
        if let Some(same) = self.fold(second)
            && let Some(entry) = self.root.get_mut(at)
        {
            *entry = same;
        }
    }

    #[inline]
    fn lookup(&self, address: Ipv4Addr) -> Option<AdjacencyId> {
        let [a, b, c, d] = address.octets();
        let mut entry = *self.root.get(usize::from(u16::from_be_bytes([a, b])))?;
        if let Some(node) = entry.node() {
            entry = *self.nodes.get(node)?.get(usize::from(c))?;
            if let Some(node) = entry.node() {
                entry = *self.nodes.get(node)?.get(usize::from(d))?;
            }
        }
        entry.adjacency()
    }

    fn size_bytes(&self) -> usize {
        self.root.capacity() * size_of::<Entry>()
            + self.nodes.capacity() * size_of::<[Entry; NODE]>()
            + self.free.capacity() * size_of::<u32>()
    }
}

impl Trie {
    fn entry(&self, (node, at): (usize, usize)) -> Option<Entry> {
        self.nodes.get(node)?.get(at).copied()
    }

    /// The value of all of a node's entries, if they have the same: the entry that refers to the
    /// node can then have it itself, and the node is free.
    fn fold(&mut self, node: usize) -> Option<Entry> {
        let entries = self.nodes.get(node)?;
        let first = *entries.first()?;
        if first.node().is_some() || entries.iter().any(|entry| *entry != first) {
            return None;
        }
        self.free.push(node as u32);
        Some(first)
    }
}

/// The entries that share all but the last `free` bits with `at`.
fn covered(at: usize, free: u8) -> Range<usize> {
    let count = 1 << free;
    let first = at & !(count - 1);
    first..first + count
}

/// The node that an entry refers to; a new one, all of whose entries are as this one was, if it was
/// a route or nothing.
fn node_under(entry: &mut Entry, nodes: &mut Vec<[Entry; NODE]>, free: &mut Vec<u32>) -> usize {
    entry.node().unwrap_or_else(|| {
        let filled = [*entry; NODE];
        if let Some(index) = free.pop()
            && let Some(node) = nodes.get_mut(index as usize)
        {
            *node = filled;
            *entry = Entry(IS_NODE | index);
            return index as usize;
        }
        let index = nodes.len();
        if index == nodes.capacity() {
            // By an eighth: doubling would leave up to half of a large table unused.
            nodes.reserve_exact(index / 8 + 16);
        }
        nodes.push(filled);
        *entry = Entry(IS_NODE | index as u32);
        index
    })
}

/// Writes an entry over those that it takes the place of, among these and below them.
fn write(
    entries: &mut [Entry],
    nodes: &mut [[Entry; NODE]],
    entry: Entry,
    replaces: impl Fn(Entry) -> bool + Copy,
) {
    for place in entries {
        if let Some(below) = place.node() {
            write_node(below, 0..NODE, nodes, entry, replaces);
        } else if replaces(*place) {
            *place = entry;
        }
    }
}

/// As `write`, for entries of a node. Each is looked up anew, as the nodes below are written too.
fn write_node(
    node: usize,
    covered: Range<usize>,
    nodes: &mut [[Entry; NODE]],
    entry: Entry,
    replaces: impl Fn(Entry) -> bool + Copy,
) {
    for at in covered {
        let Some(place) = nodes.get_mut(node).and_then(|node| node.get_mut(at)) else { return };
        if let Some(below) = place.node() {
            write_node(below, 0..NODE, nodes, entry, replaces);
        } else if replaces(*place) {
            *place = entry;
        }
    }
}
