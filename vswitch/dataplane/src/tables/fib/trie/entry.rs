//! The end or the next step of a look-up in the trie.

use crate::tables::AdjacencyId;

/// Nothing (zero), a route, or a node to look further in.
///
/// A node has the highest bit, its kind in the two bits below, and its number in the lowest 29. A route has
/// its prefix length plus one in the six bits below the highest, and its adjacency in the lowest 25.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Entry(u32);

const IS_NODE: u32 = 1 << 31;
const IS_FAR: u32 = 1 << 30;
const IS_PACKED: u32 = 1 << 29;
const NUMBER: u32 = IS_PACKED - 1;
const LEN_SHIFT: u32 = 25;
/// A table of this many adjacencies would take gigabytes. What is beyond leads to this last one,
/// which is not in the table either: such a route leads nowhere.
const ADJACENCY_MAX: u32 = (1 << LEN_SHIFT) - 1;

/// A node, by the number that it has among those of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeId {
    /// An entry for each of its places, with few other such nodes in one array.
    Near(usize),
    /// The same, in one of many pages.
    Far(usize),
    /// Few different entries, and for each place which of them it has.
    Packed(usize),
}

impl Entry {
    pub(super) fn route(len: u8, adjacency: AdjacencyId) -> Self {
        Self((u32::from(len) + 1) << LEN_SHIFT | adjacency.0.min(ADJACENCY_MAX))
    }

    /// To this node.
    pub(super) fn to(node: NodeId) -> Self {
        match node {
            NodeId::Near(number) => Self(IS_NODE | number as u32 & NUMBER),
            NodeId::Far(number) => Self(IS_NODE | IS_FAR | number as u32 & NUMBER),
            NodeId::Packed(number) => Self(IS_NODE | IS_PACKED | number as u32 & NUMBER),
        }
    }

    #[inline]
    pub(super) fn is_node(self) -> bool {
        self.0 & IS_NODE != 0
    }

    /// The number of a near node, if this is a node and near.
    #[inline]
    pub(super) fn near(self) -> Option<usize> {
        let number = self.0 ^ IS_NODE;
        (number <= NUMBER).then_some(number as usize)
    }

    #[inline]
    pub(super) fn node(self) -> Option<NodeId> {
        if !self.is_node() {
            return None;
        }
        let number = (self.0 & NUMBER) as usize;
        Some(if self.0 & (IS_FAR | IS_PACKED) == 0 {
            NodeId::Near(number)
        } else if self.0 & IS_PACKED != 0 {
            NodeId::Packed(number)
        } else {
            NodeId::Far(number)
        })
    }

    #[inline]
    pub(super) fn adjacency(self) -> Option<AdjacencyId> {
        (self.0 != 0).then_some(AdjacencyId(self.0 & ADJACENCY_MAX))
    }

    /// Whether it is a route of this length.
    pub(super) fn has_len(self, len: u8) -> bool {
        self.0 >> LEN_SHIFT == u32::from(len) + 1
    }

    /// Whether a route of `self` is at least as long as the other, or there is no other.
    pub(super) fn covers(self, other: Self) -> bool {
        self.0 >> LEN_SHIFT >= other.0 >> LEN_SHIFT
    }

    #[inline]
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    #[inline]
    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}
