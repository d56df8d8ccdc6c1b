//! The class of each prefix.
//!
//! Enters: members of groups and blocks that come and go. Leaves: prefixes with their classes, for the
//! workers' tables, and which classes are new or gone, for `table`.
//!
//! A prefix is there for each member, each block and each exception. The longest that contains an address
//! is in the same sets as the address: whatever distinguishes the two would be a longer prefix. So its
//! sets are those that the member is in, and the blocks that contain all of it without an exception.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::{PeerBlock, is_v4};
use dataplane::tables::policy::{ClassId, ClassSets, Classes, PeerSetId};
use ipnet::IpNet;

/// The classes, and all that they are made of.
#[derive(Debug, Default)]
pub(super) struct ClassTable {
    /// Groups by member, ascending.
    groups: BTreeMap<IpAddr, Vec<PeerSetId>>,
    /// Blocks by their prefix, with their exceptions.
    blocks: BTreeMap<IpNet, Vec<(PeerSetId, Vec<IpNet>)>>,
    /// How many blocks and exceptions have the prefix.
    edges: BTreeMap<IpNet, usize>,
    block_lengths: Lengths,
    /// What the workers' tables have.
    placed: BTreeMap<IpNet, ClassId>,
    placed_lengths: Lengths,
    /// Prefixes whose sets may be others.
    dirty: BTreeSet<IpNet>,
    numbers: BTreeMap<Arc<[PeerSetId]>, ClassId>,
    classes: Vec<Class>,
    free: Vec<ClassId>,
    prefixes: Arc<Classes>,
}

#[derive(Debug)]
struct Class {
    sets: Arc<[PeerSetId]>,
    /// Prefixes that have it.
    uses: usize,
}

/// What changed of the classes.
#[derive(Debug, Default)]
pub(super) struct ClassChanges {
    /// Those that are gone, before those that came took their numbers.
    pub(super) gone: Vec<ClassId>,
    /// Those that came.
    pub(super) new: Vec<ClassId>,
    /// Some prefix has another class, came or went.
    pub(super) any: bool,
}

impl ClassTable {
    /// An address is in a group from now on.
    pub(super) fn join(&mut self, address: IpAddr, group: PeerSetId) {
        let groups = self.groups.entry(address).or_default();
        if let Err(at) = groups.binary_search(&group) {
            groups.insert(at, group);
            self.dirty.insert(address.into());
        }
    }

    /// An address is no more in a group.
    pub(super) fn leave(&mut self, address: IpAddr, group: PeerSetId) {
        let Some(groups) = self.groups.get_mut(&address) else { return };
        if let Ok(at) = groups.binary_search(&group) {
            groups.remove(at);
            if groups.is_empty() {
                self.groups.remove(&address);
            }
            self.dirty.insert(address.into());
        }
    }

    /// There is a block.
    pub(super) fn add_block(&mut self, block: &PeerBlock, id: PeerSetId) {
        let (cidr, except) = trimmed(block);
        for edge in except.iter().chain([&cidr]) {
            *self.edges.entry(*edge).or_default() += 1;
        }
        self.touch(cidr, &except);
        self.block_lengths.add(&cidr);
        self.blocks.entry(cidr).or_default().push((id, except));
    }

    /// There is a block no more.
    pub(super) fn remove_block(&mut self, block: &PeerBlock, id: PeerSetId) {
        let (cidr, except) = trimmed(block);
        for edge in except.iter().chain([&cidr]) {
            if let Some(count) = self.edges.get_mut(edge) {
                *count -= 1;
                if *count == 0 {
                    self.edges.remove(edge);
                }
            }
        }
        self.touch(cidr, &except);
        self.block_lengths.take(&cidr);
        if let Some(blocks) = self.blocks.get_mut(&cidr) {
            blocks.retain(|(other, _)| *other != id);
            if blocks.is_empty() {
                self.blocks.remove(&cidr);
            }
        }
    }

    /// Every prefix in a block, and those that it may bring or take away.
    fn touch(&mut self, cidr: IpNet, except: &[IpNet]) {
        let inside = self.placed.range(cidr..).map(|(prefix, _)| *prefix);
        self.dirty.extend(inside.take_while(|prefix| is_within(prefix, &cidr)));
        self.dirty.extend(except.iter().copied().chain([cidr]));
    }

    /// Brings the prefixes up to date.
    pub(super) fn settle(&mut self) -> ClassChanges {
        let mut changes = ClassChanges::default();
        if self.dirty.is_empty() {
            return changes;
        }
        let mut prefixes = std::mem::take(&mut self.prefixes);
        let table = Arc::make_mut(&mut prefixes);
        let (mut born, mut idle) = (BTreeSet::new(), BTreeSet::new());
        for prefix in std::mem::take(&mut self.dirty) {
            let sets = self.sets_of(&prefix);
            let former = self.placed.get(&prefix).copied();
            let class = sets.map(|sets| self.number(sets, &mut born));
            if former == class {
                continue;
            }
            changes.any = true;
            if let Some(class) = class {
                self.class_mut(class).uses += 1;
                table.insert(prefix, class);
                if self.placed.insert(prefix, class).is_none() {
                    self.placed_lengths.add(&prefix);
                }
            } else {
                self.placed.remove(&prefix);
                self.placed_lengths.take(&prefix);
                table.remove(prefix, self.cover(&prefix));
            }
            if let Some(former) = former {
                let class = self.class_mut(former);
                class.uses -= 1;
                if class.uses == 0 {
                    idle.insert(former);
                }
            }
        }
        self.prefixes = prefixes;
        for class in idle.into_iter().chain(born.iter().copied()).collect::<BTreeSet<_>>() {
            if self.class_mut(class).uses == 0 {
                let sets = std::mem::take(&mut self.class_mut(class).sets);
                self.numbers.remove(&sets);
                self.free.push(class);
                if !born.remove(&class) {
                    changes.gone.push(class);
                }
            }
        }
        changes.new = born.into_iter().collect();
        changes
    }

    /// The sets that contain a prefix, ascending; `None` if nothing has this prefix.
    fn sets_of(&self, prefix: &IpNet) -> Option<Vec<PeerSetId>> {
        let is_host = prefix.prefix_len() == prefix.max_prefix_len();
        let groups = self.groups.get(&prefix.addr()).filter(|_| is_host);
        if groups.is_none() && !self.edges.contains_key(prefix) {
            return None;
        }
        let mut sets = groups.cloned().unwrap_or_default();
        for len in self.block_lengths.up_to(prefix, prefix.prefix_len()) {
            for (id, except) in self.blocks.get(&shortened(prefix, len)).into_iter().flatten() {
                if !except.iter().any(|except| is_within(prefix, except)) {
                    sets.push(*id);
                }
            }
        }
        sets.sort_unstable();
        Some(sets)
    }

    /// The longest prefix that contains another one.
    fn cover(&self, prefix: &IpNet) -> Option<(u8, ClassId)> {
        let shorter = prefix.prefix_len().checked_sub(1)?;
        self.placed_lengths
            .up_to(prefix, shorter)
            .find_map(|len| Some((len, *self.placed.get(&shortened(prefix, len))?)))
    }

    fn number(&mut self, sets: Vec<PeerSetId>, born: &mut BTreeSet<ClassId>) -> ClassId {
        if let Some(class) = self.numbers.get(&sets[..]) {
            return *class;
        }
        let sets: Arc<[_]> = sets.into();
        let class = self.free.pop().unwrap_or_else(|| {
            self.classes.push(Class { sets: Arc::default(), uses: 0 });
            ClassId(self.classes.len() as u32 - 1)
        });
        self.class_mut(class).sets = Arc::clone(&sets);
        self.numbers.insert(sets, class);
        born.insert(class);
        class
    }

    fn class_mut(&mut self, class: ClassId) -> &mut Class {
        &mut self.classes[class.0 as usize]
    }

    /// The sets that contain a class, ascending.
    pub(super) fn sets(&self, class: ClassId) -> &[PeerSetId] {
        &self.classes[class.0 as usize].sets
    }

    /// The classes that there are.
    pub(super) fn all(&self) -> impl Iterator<Item = (ClassId, &[PeerSetId])> {
        self.numbers.iter().map(|(sets, class)| (*class, &**sets))
    }

    /// The prefixes as the workers have them.
    pub(super) fn prefixes(&self) -> &Arc<Classes> {
        &self.prefixes
    }

    /// The sets of all classes as the workers have them.
    pub(super) fn class_sets(&self) -> ClassSets {
        ClassSets::new(self.classes.iter().map(|class| &*class.sets))
    }
}

/// How many prefixes have each length, by family.
#[derive(Debug, Default)]
struct Lengths(BTreeMap<(bool, u8), usize>);

impl Lengths {
    fn add(&mut self, prefix: &IpNet) {
        *self.0.entry((is_v4(prefix), prefix.prefix_len())).or_default() += 1;
    }

    fn take(&mut self, prefix: &IpNet) {
        let key = (is_v4(prefix), prefix.prefix_len());
        if let Some(count) = self.0.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }

    /// The lengths of a prefix's family up to this one, the longest first.
    fn up_to(&self, prefix: &IpNet, len: u8) -> impl Iterator<Item = u8> {
        let family = is_v4(prefix);
        self.0.range((family, 0)..=(family, len)).rev().map(|((_, len), _)| *len)
    }
}

/// A block without host bits.
fn trimmed(block: &PeerBlock) -> (IpNet, Vec<IpNet>) {
    (block.cidr.trunc(), block.except.iter().map(IpNet::trunc).collect())
}

fn shortened(prefix: &IpNet, len: u8) -> IpNet {
    IpNet::new(prefix.addr(), len).expect("no longer than the prefix").trunc()
}

fn is_within(inner: &IpNet, outer: &IpNet) -> bool {
    outer.contains(inner)
}
