//! The class of an address: addresses are of one class if the same peer sets contain them.
//!
//! Enters: prefixes that come and go, from the compiler on the control thread. Leaves: answers to
//! `Policies::judge`, of a copy that does not change any more.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::tables::{AdjacencyId, Fib};

/// Number of a class, reused after the class is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassId(pub u32);

/// Number of a peer set, a group of pods or a block of addresses that rules name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerSetId(pub u32);

/// Prefixes with the classes of the addresses for which they are the longest. They are kept as
/// routes are: the number behind a prefix is a class here, and no adjacency.
#[derive(Debug, Clone, Default)]
pub struct Classes {
    v4: Fib<Ipv4Addr>,
    v6: Fib<Ipv6Addr>,
}

impl Classes {
    /// The class of an address; `None` if no peer set contains it.
    #[inline]
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<ClassId> {
        let number = match address {
            IpAddr::V4(v4) => self.v4.lookup(v4),
            IpAddr::V6(v6) => self.v6.lookup(v6),
        };
        number.map(|number| ClassId(number.0))
    }

    /// Adds a prefix, or replaces its class.
    pub fn insert(&mut self, prefix: IpNet, class: ClassId) {
        let number = AdjacencyId(class.0);
        match prefix {
            IpNet::V4(net) => self.v4.insert(net.network(), net.prefix_len(), number),
            IpNet::V6(net) => self.v6.insert(net.network(), net.prefix_len(), number),
        }
    }

    /// Takes a prefix away. `cover` is the longest shorter one that contains it, by its length and
    /// class.
    pub fn remove(&mut self, prefix: IpNet, cover: Option<(u8, ClassId)>) {
        let cover = cover.map(|(len, class)| (len, AdjacencyId(class.0)));
        match prefix {
            IpNet::V4(net) => self.v4.remove(net.network(), net.prefix_len(), cover),
            IpNet::V6(net) => self.v6.remove(net.network(), net.prefix_len(), cover),
        }
    }

    /// Memory in use, bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.v4.size_bytes() + self.v6.size_bytes()
    }
}

/// The peer sets that contain each class.
#[derive(Debug, Clone, Default)]
pub struct ClassSets {
    /// Where each class's sets begin, and where the last's end.
    starts: Box<[u32]>,
    /// Ascending in each class.
    sets: Box<[PeerSetId]>,
}

impl ClassSets {
    /// The sets of the classes 0, 1, 2…, ascending in each.
    pub fn new<'a>(classes: impl Iterator<Item = &'a [PeerSetId]>) -> Self {
        let (mut starts, mut sets) = (vec![0], Vec::new());
        for class in classes {
            sets.extend_from_slice(class);
            starts.push(sets.len() as u32);
        }
        Self { starts: starts.into(), sets: sets.into() }
    }

    /// The sets that contain a class, ascending.
    #[must_use]
    pub fn of(&self, class: Option<ClassId>) -> &[PeerSetId] {
        let range = class.and_then(|class| {
            let at = class.0 as usize;
            Some(*self.starts.get(at)? as usize..*self.starts.get(at + 1)? as usize)
        });
        range.and_then(|range| self.sets.get(range)).unwrap_or_default()
    }

    /// Memory in use, bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.sets)
    }
}
