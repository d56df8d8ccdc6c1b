//! The kernel's routing table as a source of routes, and with it whoever writes there: BIRD, FRR,
//! `ip route`.
//!
//! Enters: the table, once, and every change of it from `netio`'s monitor. Leaves: what the node
//! learns by that, into the [`Tracked`] that the model keeps beside what other sources say. A change
//! of some routes touches those alone.
//!
//! | file | does |
//! |---|---|
//! | `mirror`  | follows the events |
//! | `judge`   | says what each route means for pods |
//! | `learned` | holds what that comes to |
//! | `tracked` | knows which prefixes of it changed lately |

pub mod judge;
pub mod learned;
#[cfg(test)]
pub(crate) mod lines;
pub mod mirror;
#[cfg(test)]
mod tests;
pub mod tracked;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink::{Event, Netlink, RouteFilter};

use crate::config;
pub use judge::Scope;
pub use learned::{Hop, Judgement, Learned, Way};
use mirror::{Mirror, Outcome, prefix_of};
pub use tracked::{Revision, Tracked};

/// Of the routes into the host port that we give the kernel; one of the operator's own with a lower
/// metric wins.
pub const HOST_METRIC: u32 = 50;
/// The table is read anew this often even if nothing asks for it.
const PERIOD: Duration = Duration::from_secs(60);
/// And this soon after it was read while it changed.
const AGAIN: Duration = Duration::from_secs(1);

/// What became of the routes that were judged.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lesson {
    /// Something is different.
    pub is_changed: bool,
    /// Prefixes that are refused and were not before, or for another reason.
    pub refused: Vec<IpNet>,
}

/// Follows the kernel's table.
pub struct KernelSource {
    netlink: Netlink,
    table: u32,
    prefixes: Vec<IpNet>,
    protocols: Vec<u8>,
    mirror: Mirror,
    /// The table has to be read anew.
    unclear: bool,
    /// What is to be judged.
    open: Open,
    /// For whom the rest was.
    scope: Scope,
    read_at: Option<Instant>,
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

impl KernelSource {
    /// Nothing read yet.
    #[must_use]
    pub fn new(netlink: Netlink, settings: &config::KernelRoutes) -> Self {
        let (table, prefixes) = (settings.table, settings.prefixes.clone());
        let mirror = Mirror::new(table, &prefixes).of(&settings.protocols);
        Self {
            netlink,
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

    /// Follows what the kernel announces. True if [`KernelSource::settle`] is to be called soon.
    pub fn on_event(&mut self, event: &Event) -> bool {
        let outcome = match event {
            Event::RouteChanged(route, placement) => self.mirror.changed(route, *placement),
            Event::RouteGone(route) => self.mirror.gone(route),
            // A link that goes takes routes along without a word of them, and one that comes wakes
            // next hops; so does an address that routes name as their source.
            Event::LinkChanged(link) | Event::LinkGone(link) if self.mirror.uses(link.index) => {
                Outcome::Unclear
            }
            Event::AddressChanged { .. } | Event::NextHopsChanged | Event::Overrun => {
                Outcome::Unclear
            }
            _ => Outcome::Same,
        };
        match (outcome, event) {
            (Outcome::Same, _) => {}
            (Outcome::Changed, Event::RouteChanged(route, _) | Event::RouteGone(route)) => {
                self.open.add(prefix_of(route));
            }
            _ => self.unclear = true,
        }
        // It may be in the table already, as that was read.
        self.again |= self.fresh && outcome != Outcome::Same;
        outcome != Outcome::Same
    }

    /// Whether the table is due to be read anew.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let period = if self.again { AGAIN } else { PERIOD };
        self.read_at.is_none_or(|at| now >= at + period)
    }

    /// Reads the table anew if that is needed.
    ///
    /// # Errors
    /// If the kernel does not answer; it is asked again next time.
    pub fn settle(&mut self, now: Instant) -> netlink::Result<()> {
        self.fresh = false;
        if self.unclear || self.is_due(now) {
            let mut mirror = Mirror::new(self.table, &self.prefixes).of(&self.protocols);
            self.netlink
                .kernel_routes(RouteFilter::of_table(self.table), |route| mirror.read(route))?;
            self.open.add(mirror.differing(&self.mirror));
            (self.fresh, self.again) = (mirror.has_several() || self.mirror.has_several(), false);
            (self.mirror, self.unclear, self.read_at) = (mirror, false, Some(now));
        }
        Ok(())
    }

    /// Judges what changed, the routes or the node, into what was learned before.
    pub fn teach(&mut self, scope: Scope, learned: &mut Tracked) -> Lesson {
        self.open.follow(&self.scope, &scope, &self.mirror);
        self.scope = scope;
        judge_open(&self.mirror, &self.scope, &mut self.open, learned)
    }
}

/// Judges what is open; nothing is then.
fn judge_open(mirror: &Mirror, scope: &Scope, open: &mut Open, learned: &mut Tracked) -> Lesson {
    let mut lesson = Lesson::default();
    match std::mem::replace(open, Open::These(BTreeSet::new())) {
        Open::These(prefixes) => {
            for prefix in prefixes.into_iter().flat_map(|prefix| scope.concerned(prefix)) {
                let judgement = judge::judge_one(mirror, scope, &prefix);
                let is_refused = matches!(judgement, Some(Judgement::Refuse(_)));
                if learned.set(prefix, judgement) {
                    lesson.is_changed = true;
                    lesson.refused.extend(is_refused.then_some(prefix));
                }
            }
        }
        Open::All => {
            let fresh = judge::judge(mirror, scope);
            if fresh != **learned {
                let new = fresh.refused.iter();
                let new = new.filter(|(prefix, why)| learned.refused.get(prefix) != Some(why));
                lesson.refused = new.map(|(prefix, _)| *prefix).collect();
                lesson.is_changed = true;
                *learned = fresh.into();
            }
        }
    }
    lesson
}
