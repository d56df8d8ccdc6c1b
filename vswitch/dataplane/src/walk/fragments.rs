//! Where the later fragments of a packet go that belongs to a session: they have no ports to be found by.
//!
//! Enters: the first fragment's translation and way, right of the verdict. Leaves: to `session`, those of the
//! other fragments. Each worker has its own: a packet's fragments come the same way. It is
//! bounded: a packet more takes the place of another that shares its bucket.

use core::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::RandomState;

use super::flow::{Addresses, FlowKey, Fragment};
use crate::Millis;

/// Packets at once.
const ENTRIES: usize = 1024;
/// A fragment that comes later is not of the packet any more.
const PATIENCE_MS: u64 = 5000;

/// Packets whose first fragment had a session.
#[derive(Debug)]
pub(crate) struct Fragments {
    entries: Vec<Option<Entry>>,
    hash: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    first: FirstFragment,
    seen: Millis,
}

/// What all fragments of a packet share.
#[derive(Debug, Clone, Copy, PartialEq)]
struct FragmentedPacket {
    addresses: Addresses,
    protocol: u8,
    id: u32,
}

/// A packet's first fragment, its translation, and whether it goes back through a tunnel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstFragment {
    packet: FragmentedPacket,
    to: Addresses,
    goes_back: bool,
}

impl FirstFragment {
    /// `None` of any other packet.
    pub(crate) fn of(flow: &FlowKey, to: &FlowKey) -> Option<Self> {
        let Fragment::First { .. } = flow.fragment else { return None };
        Some(Self { packet: FragmentedPacket::of(flow)?, to: to.addresses, goes_back: false })
    }

    /// The same, and the others follow it through a tunnel whatever their destination's route is.
    pub(crate) fn going_back(self) -> Self {
        Self { goes_back: true, ..self }
    }
}

impl FragmentedPacket {
    fn of(flow: &FlowKey) -> Option<Self> {
        let (Fragment::First { id } | Fragment::Later { id }) = flow.fragment else { return None };
        Some(Self { addresses: flow.addresses, protocol: flow.protocol.0, id })
    }

    fn bucket(&self, hash: &RandomState) -> usize {
        let mut hasher = hash.build_hasher();
        match self.addresses {
            Addresses::V4 { source, destination } => (source, destination).hash(&mut hasher),
            Addresses::V6 { source, destination } => (source, destination).hash(&mut hasher),
        }
        (self.protocol, self.id).hash(&mut hasher);
        hasher.finish() as usize % ENTRIES
    }
}

impl Fragments {
    pub(crate) fn new() -> Self {
        Self { entries: vec![None; ENTRIES], hash: RandomState::default() }
    }

    /// Other addresses for a later fragment.
    pub(crate) fn find(&self, flow: &FlowKey, now: Millis) -> Option<Addresses> {
        self.first(flow, now).map(|first| first.to)
    }

    /// Whether the first of its packet went back through a tunnel.
    pub(crate) fn goes_back(&self, flow: &FlowKey, now: Millis) -> bool {
        self.first(flow, now).is_some_and(|first| first.goes_back)
    }

    fn first(&self, flow: &FlowKey, now: Millis) -> Option<&FirstFragment> {
        let packet = FragmentedPacket::of(flow)?;
        let Entry { first, seen } = self.entries.get(packet.bucket(&self.hash))?.as_ref()?;
        (first.packet == packet && now.since(*seen) <= PATIENCE_MS).then_some(first)
    }

    /// Notes where the first fragment of a packet goes.
    pub(crate) fn note(&mut self, first: FirstFragment, now: Millis) {
        let bucket = first.packet.bucket(&self.hash);
        if let Some(entry) = self.entries.get_mut(bucket) {
            *entry = Some(Entry { first, seen: now });
        }
    }
}
