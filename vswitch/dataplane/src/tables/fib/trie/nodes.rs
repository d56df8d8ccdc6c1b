//! The nodes of the trie: 256 entries each, direct or packed.
//!
//! Enters: changes of entries, from `Trie`. Leaves: entries. A change of a node returns
//! an entry, which the caller puts in the place of the node's own: a packed node becomes a direct one when it has too
//! many different entries for its lines.

use core::ops::Range;
use std::sync::Arc;

use super::entry::{Entry, NodeId};
use super::line::{LINE, Line};
use crate::tables::pages::Pages;

/// Entries of a node.
const NODE: usize = 256;

/// So many nodes lie in one array: a step in them is one load, in packed ones three. They are copied as a
/// whole, 64 KB at most. Half of them are for the last step, by which pods are found: these come after a
/// million routes, too.
const NEAR: usize = 64;
const NEAR_SECOND: usize = NEAR / 2;

/// Nodes of a page. A page is 32 KB, and those of a million routes are 500.
const FAR_PAGE: usize = 32;
const PACKED_PAGE: usize = 64;

/// All nodes, those that nothing refers to included.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes {
    near: Arc<[Direct]>,
    far: Pages<Direct, FAR_PAGE>,
    packed: Pages<Packed, PACKED_PAGE>,
    /// What nothing refers to.
    free: Free,
}

#[derive(Debug, Clone, Default)]
struct Free {
    near: Vec<usize>,
    far: Vec<usize>,
    packed: Vec<usize>,
}

/// Which of two steps a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Second,
    Third,
}

/// An entry for each place.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Direct([Entry; NODE]);

impl Default for Direct {
    fn default() -> Self {
        Self([Entry::default(); NODE])
    }
}

/// A line for each 32 places.
#[derive(Debug, Clone, Copy, Default)]
struct Packed([Line; NODE / LINE]);

impl Packed {
    #[inline(always)]
    fn get(&self, at: u8) -> Option<Entry> {
        let at = usize::from(at);
        Some(self.0.get(at / LINE)?.get(at % LINE))
    }
}

impl Nodes {
    /// The entry of a place of the node that an entry leads to; nothing, if it leads to none.
    #[inline(always)]
    pub(super) fn step(&self, entry: Entry, at: u8) -> Entry {
        let place = match entry.near() {
            Some(number) => {
                self.near.get(number).and_then(|node| node.0.get(usize::from(at))).copied()
            }
            None => entry.node().and_then(|node| self.get(node, at)),
        };
        place.unwrap_or_default()
    }

    /// The entry of a place of this node.
    #[inline]
    pub(super) fn get(&self, node: NodeId, at: u8) -> Option<Entry> {
        match node {
            NodeId::Near(number) => self.near.get(number)?.0.get(usize::from(at)).copied(),
            NodeId::Far(number) => self.far.get(number)?.0.get(usize::from(at)).copied(),
            NodeId::Packed(number) => self.packed.get(number)?.get(at),
        }
    }

    /// A new node, whose entries are all this one.
    pub(super) fn filled(&mut self, entry: Entry, level: Level) -> NodeId {
        let most = if level == Level::Second { NEAR_SECOND } else { NEAR };
        if self.near.len() - self.free.near.len() < most {
            let node = Direct([entry; NODE]);
            if let Some(number) = self.free.near.pop()
                && let Some(place) = Arc::make_mut(&mut self.near).get_mut(number)
            {
                *place = node;
                return NodeId::Near(number);
            }
            self.near = self.near.iter().copied().chain([node]).collect();
            return NodeId::Near(self.near.len() - 1);
        }
        let node = Packed([Line::filled(entry); NODE / LINE]);
        NodeId::Packed(add(&mut self.packed, &mut self.free.packed, node))
    }

    /// What `change` makes of an entry; of a node's, of all that it leads to.
    pub(super) fn change(&mut self, entry: Entry, change: impl Fn(Entry) -> Entry + Copy) -> Entry {
        match entry.node() {
            Some(node) => self.change_in(node, 0..NODE, change),
            None => change(entry),
        }
    }

    /// As `change`, for some of a node's entries. The entry that leads to the node is now this one.
    pub(super) fn change_in(
        &mut self,
        mut node: NodeId,
        covered: Range<usize>,
        change: impl Fn(Entry) -> Entry + Copy,
    ) -> Entry {
        for at in covered {
            let at = at as u8;
            if let Some(old) = self.get(node, at) {
                let new = self.change(old, change);
                node = self.put(node, at, new);
            }
        }
        Entry::to(node)
    }

    /// Puts an entry in its place, and returns the node that has it then. A node that has it already is
    /// not touched: others may share its page.
    pub(super) fn put(&mut self, node: NodeId, at: u8, entry: Entry) -> NodeId {
        if self.get(node, at) == Some(entry) {
            return node;
        }
        let direct = match node {
            NodeId::Near(number) => Arc::make_mut(&mut self.near).get_mut(number),
            NodeId::Far(number) => self.far.get_mut(number),
            NodeId::Packed(number) => {
                let line = self.packed.get_mut(number);
                let line = line.and_then(|node| node.0.get_mut(usize::from(at) / LINE));
                if line.is_none_or(|line| line.set(usize::from(at) % LINE, entry)) {
                    return node;
                }
                let unpacked = self.unpack(number);
                return self.put(unpacked, at, entry);
            }
        };
        if let Some(place) = direct.and_then(|node| node.0.get_mut(usize::from(at))) {
            *place = entry;
        }
        node
    }

    /// Frees a node all of whose entries are the same, which is returned: the entry that led to the node
    /// can have it itself.
    pub(super) fn fold(&mut self, node: NodeId) -> Option<Entry> {
        let first = self.get(node, 0)?;
        let all_same = || (0..=u8::MAX).all(|at| self.get(node, at) == Some(first));
        if first.node().is_some() || !all_same() {
            return None;
        }
        match node {
            NodeId::Near(number) => self.free.near.push(number),
            NodeId::Far(number) => self.free.far.push(number),
            NodeId::Packed(number) => self.free.packed.push(number),
        }
        Some(first)
    }

    /// How many nodes are packed: all but the first ones of a table.
    #[inline]
    pub(super) fn packed(&self) -> usize {
        self.packed.len() - self.free.packed.len()
    }

    pub(super) fn size_bytes(&self) -> usize {
        let Free { near, far, packed } = &self.free;
        let free = near.capacity() + far.capacity() + packed.capacity();
        size_of_val(&*self.near)
            + self.far.size_bytes()
            + self.packed.size_bytes()
            + free * size_of::<usize>()
    }

    pub(super) fn unshared_bytes(&self, other: &Self) -> usize {
        let near = if Arc::ptr_eq(&self.near, &other.near) { 0 } else { size_of_val(&*self.near) };
        near + self.far.unshared_bytes(&other.far) + self.packed.unshared_bytes(&other.packed)
    }

    /// A direct node with the entries of this packed one, which is free then.
    fn unpack(&mut self, number: usize) -> NodeId {
        let mut direct = Direct::default();
        for (place, at) in direct.0.iter_mut().zip(0..=u8::MAX) {
            *place = self.get(NodeId::Packed(number), at).unwrap_or_default();
        }
        self.free.packed.push(number);
        NodeId::Far(add(&mut self.far, &mut self.free.far, direct))
    }
}

/// The number of a node that is added.
fn add<N: Clone + Default, const PAGE: usize>(
    nodes: &mut Pages<N, PAGE>,
    free: &mut Vec<usize>,
    node: N,
) -> usize {
    if let Some(number) = free.pop()
        && let Some(place) = nodes.get_mut(number)
    {
        *place = node;
        return number;
    }
    nodes.push(node);
    nodes.len() - 1
}
