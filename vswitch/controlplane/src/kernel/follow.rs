//! Follows the kernel's table, and judges what changes.
//!
//! Enters: the table as it was read, every change of it, and the node's `Scope`. Leaves: judgements,
//! into a [`Tracked`]; and when the table is to be read anew, because the events alone do not show
//! what it has. No I/O: `vswitchd` reads the table and hands it over.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use dataplane::Millis;
use ipnet::IpNet;

use super::judge::{self, Scope};
use super::mirror::{Mirror, MirrorChange, prefix_of};
use super::route::{KernelRoute, Placement};
use super::tracked::{self, Tracked};
use super::{Judgement, LearnedRoutes};
use crate::config;

/// The table is read anew this often even if nothing asks for it.
const PERIOD_MS: u64 = 60_000;
/// The table is read again this soon after it was read while it changed.
const AGAIN_MS: u64 = 1_000;

/// What the kernel announced, as far as its routes are concerned.
#[derive(Debug, Clone, Copy)]
pub enum TableEvent<'a> {
    /// A route is new or different.
    Changed(&'a KernelRoute, Placement),
    /// A route is gone.
    Gone(&'a KernelRoute),
    /// An interface, by its number, is different or gone.
    Link(u32),
    /// Something changed that may change any route: an address, a next-hop object, or more than the
    /// kernel could announce.
    Any,
}

/// What became of the routes that were judged.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// A judgement is different.
    pub any: bool,
    /// Prefixes that are refused and were not before, or for another reason.
    pub refused: Vec<IpNet>,
}

/// Follows one of the kernel's tables.
#[derive(Debug)]
pub struct Follower {
    table: u32,
    prefixes: Vec<IpNet>,
    protocols: Vec<u8>,
    mirror: Mirror,
    /// The table has to be read anew.
    unclear: bool,
    /// Destinations that are to be judged.
    open: Open,
    /// The node as it was when the others were judged.
    scope: Scope,
    read_at: Option<Millis>,
    /// Since the table was read nothing has been acted upon, so that an event may be of the time
    /// before; and there are or were several routes of one metric, of which it would not be clear
    /// which it means.
    fresh: bool,
    /// The table is to be read once more.
    again: bool,
}

/// Destinations that the kernel has other routes for than were judged.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Open {
    All,
    These(BTreeSet<IpNet>),
}

impl Open {
    /// The node has changed.
    fn follow(&mut self, old: &Scope, new: &Scope, mirror: &Mirror) {
        if !new.is_same_node(old) {
            *self = Self::All;
            return;
        }
        let moved = new.pods.symmetric_difference(&old.pods);
        self.add(moved.flat_map(|pod| mirror.containing(*pod)));
    }

    fn add(&mut self, prefixes: impl IntoIterator<Item = IpNet>) {
        if let Self::These(open) = self {
            open.extend(prefixes);
            if open.len() > tracked::REMEMBERED {
                *self = Self::All;
            }
        }
    }
}

impl Follower {
    /// Nothing read yet.
    #[must_use]
    pub fn new(settings: &config::KernelRouteSettings) -> Self {
        let (table, prefixes) = (settings.table, settings.prefixes.clone());
        let mirror = Mirror::new(table, &prefixes).of(&settings.protocols);
        Self {
            table,
            prefixes,
            protocols: settings.protocols.clone(),
            mirror,
            unclear: true,
            open: Open::All,
            scope: Scope::default(),
            read_at: None,
            fresh: false,
            again: false,
        }
    }

    /// Number of the table.
    #[must_use]
    pub fn table(&self) -> u32 {
        self.table
    }

    /// Follows what the kernel announces. True if something of the table may be different.
    pub fn on_event(&mut self, event: TableEvent<'_>) -> bool {
        let outcome = match event {
            TableEvent::Changed(route, placement) => self.mirror.changed(route, placement),
            TableEvent::Gone(route) => self.mirror.gone(route),
            // A link that goes takes routes along without announcing them, and one that comes wakes
            // next hops; so does an address that routes name as their source.
            TableEvent::Link(index) if self.mirror.uses(index) => MirrorChange::Unclear,
            TableEvent::Link(_) => MirrorChange::Same,
            TableEvent::Any => MirrorChange::Unclear,
        };
        match (outcome, event) {
            (MirrorChange::Same, _) => {}
            (MirrorChange::Changed, TableEvent::Changed(route, _) | TableEvent::Gone(route)) => {
                self.open.add(prefix_of(route));
            }
            _ => self.unclear = true,
        }
        // It may be in the table already, as that was read.
        self.again |= self.fresh && outcome != MirrorChange::Same;
        outcome != MirrorChange::Same
    }

    /// What is acted upon from now on is newer than the last reading. True if the table is to be
    /// read anew first, into [`Follower::empty`], for [`Follower::take`].
    pub fn wants_reading(&mut self, now: Millis) -> bool {
        self.fresh = false;
        let period = if self.again { AGAIN_MS } else { PERIOD_MS };
        self.unclear || self.read_at.is_none_or(|at| now.since(at) >= period)
    }

    /// A mirror to read the table into.
    #[must_use]
    pub fn empty(&self) -> Mirror {
        Mirror::new(self.table, &self.prefixes).of(&self.protocols)
    }

    /// Takes over a table that was read whole.
    pub fn take(&mut self, mirror: Mirror, now: Millis) {
        self.open.add(mirror.differing(&self.mirror));
        (self.fresh, self.again) = (mirror.has_several() || self.mirror.has_several(), false);
        (self.mirror, self.unclear, self.read_at) = (mirror, false, Some(now));
    }

    /// Judges what changed, the routes or the node, into what was learned before.
    pub fn apply_to(&mut self, learned: &mut Tracked, scope: Scope) -> Changes {
        self.open.follow(&self.scope, &scope, &self.mirror);
        self.scope = scope;
        judge_open(&self.mirror, &self.scope, &mut self.open, learned)
    }
}

/// Judges what is open; nothing is then.
fn judge_open(mirror: &Mirror, scope: &Scope, open: &mut Open, learned: &mut Tracked) -> Changes {
    let mut changes = Changes::default();
    match std::mem::replace(open, Open::These(BTreeSet::new())) {
        Open::These(prefixes) => {
            for prefix in prefixes.into_iter().flat_map(|prefix| scope.concerned(prefix)) {
                let judgement = judge::judge_one(mirror, scope, &prefix);
                let is_refused = matches!(judgement, Some(Judgement::Refuse(_)));
                if learned.set(prefix, judgement) {
                    changes.any = true;
                    changes.refused.extend(is_refused.then_some(prefix));
                }
            }
        }
        Open::All => {
            let fresh: LearnedRoutes = judge::judge(mirror, scope);
            if fresh != **learned {
                let new = fresh.refused.iter();
                let new = new.filter(|(prefix, why)| learned.refused.get(prefix) != Some(why));
                changes.refused = new.map(|(prefix, _)| *prefix).collect();
                changes.any = true;
                *learned = fresh.into();
            }
        }
    }
    changes
}
