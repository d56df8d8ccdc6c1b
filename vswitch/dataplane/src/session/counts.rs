//! How many sessions each port has, what it may have, and what became of sessions.
//!
//! Enters: each session that begins, changes class or ends, from `create` and `table`. Leaves: whether
//! one more may begin, and figures. Counted are sessions, not entries, each until its entry is
//! removed: an expired one until the sweep or an eviction comes by.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::entry::Session;
use super::state::Class;
use crate::tables::PortId;
use crate::tables::port::MAX_PORTS;

/// Sessions of one port in one family, or of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortSessions {
    /// Charged to it, not answered yet.
    pub embryonic: u32,
    /// Charged to it, answered.
    pub established: u32,
    /// Charged to it, finished or reset.
    pub closing: u32,
    /// Steered ([`Session::is_steered`]), and charged to it or carried by it.
    pub steered: u32,
}

/// What became of sessions since the table was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionEvents {
    /// Begun.
    pub created: u64,
    /// Removed after they had expired.
    pub expired: u64,
    /// Removed to make room, while embryonic, revoked or closing.
    pub evicted: u64,
    /// Removed for a new one: a SYN came on one that was closing.
    pub reopened: u64,
    /// Removed by `Close`, or with their port.
    pub closed: u64,
    /// Not allowed any more by policy, and marked so.
    pub revoked: u64,
    /// Not begun: no room.
    pub refused_full: u64,
    /// Not begun: over a port's quota.
    pub refused_quota: u64,
    /// Not begun: another session has the responder's side.
    pub refused_taken: u64,
    /// Not begun or not changed: a bucket was being written for too long.
    pub refused_busy: u64,
}

/// Why a session was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    Expired,
    Evicted,
    Reopened,
    Closed,
    Revoked,
}

/// Why a session was not begun or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No room in the buckets where it could be, and nothing in them may be evicted.
    Full,
    /// Its port has as many sessions, or as many embryonic ones, as one port may have.
    Quota,
    /// The tuple that its responder would see is another session's.
    Taken,
    /// Its buckets were being written for longer than a worker waits.
    Busy,
}

/// What one port may have. Sessions that are closing count for nothing: they live on for late packets
/// alone, and a new session may have their room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Embryonic sessions.
    pub embryonic: u32,
    /// Embryonic and established sessions.
    pub live: u32,
}

#[derive(Debug, Default)]
struct Port {
    /// Embryonic and established ones.
    live: AtomicU32,
    embryonic: AtomicU32,
    closing: AtomicU32,
    steered: AtomicU32,
}

/// A count that every packet reads, away from those that every new session changes.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Steered(AtomicU32);

#[derive(Debug)]
pub(crate) struct Counts {
    quota: Quota,
    steered: Steered,
    ports: Box<[Port]>,
    /// All that are counted.
    all: AtomicU32,
    created: AtomicU64,
    removed: [AtomicU64; 5],
    refused: [AtomicU64; 4],
}

impl Counts {
    /// For a table with this many slots.
    pub(crate) fn new(slots: u32) -> Self {
        Self {
            quota: Quota { embryonic: slots / 16, live: slots / 4 },
            steered: Steered::default(),
            ports: (0..MAX_PORTS).map(|_| Port::default()).collect(),
            all: AtomicU32::default(),
            created: AtomicU64::default(),
            removed: Default::default(),
            refused: Default::default(),
        }
    }

    pub(crate) fn quota(&self) -> Quota {
        self.quota
    }

    /// Counts a session that is to begin. `false`, and nothing is counted, if it is over the quota or
    /// its port has no number that a port can have.
    pub(crate) fn charge(&self, session: &Session) -> bool {
        let Some(port) = self.port(session.charged) else { return false };
        let class = session.state.class;
        if !class.is_closing() && !increment_below(&port.live, self.quota.live) {
            return false;
        }
        match class {
            Class::Embryonic if !increment_below(&port.embryonic, self.quota.embryonic) => {
                port.live.fetch_sub(1, Ordering::Relaxed);
                return false;
            }
            Class::Finished | Class::Reset => {
                port.closing.fetch_add(1, Ordering::Relaxed);
            }
            Class::Embryonic | Class::Established => {}
        }
        self.all.fetch_add(1, Ordering::Relaxed);
        self.steered(session, |count| count.fetch_add(1, Ordering::Relaxed));
        true
    }

    /// Counts a session that is there already, over the quota or not.
    pub(crate) fn adopt(&self, session: &Session) {
        if let Some(port) = self.port(session.charged) {
            for count in port.of_class(session.state.class).into_iter().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
            }
            self.all.fetch_add(1, Ordering::Relaxed);
            self.steered(session, |count| count.fetch_add(1, Ordering::Relaxed));
        }
    }

    /// The reverse of `charge`.
    pub(crate) fn discharge(&self, session: &Session) {
        if let Some(port) = self.port(session.charged) {
            for count in port.of_class(session.state.class).into_iter().flatten() {
                count.fetch_sub(1, Ordering::Relaxed);
            }
            self.all.fetch_sub(1, Ordering::Relaxed);
            self.steered(session, |count| count.fetch_sub(1, Ordering::Relaxed));
        }
    }

    /// Counts a session's change of class.
    pub(crate) fn moved(&self, port: PortId, from: Class, to: Class) {
        let Some(port) = self.port(port).filter(|_| from != to) else { return };
        for count in port.of_class(to).into_iter().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        for count in port.of_class(from).into_iter().flatten() {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn steered(&self, session: &Session, count: impl Fn(&AtomicU32) -> u32) {
        if session.is_steered() {
            count(&self.steered.0);
            for port in session.carriers().filter_map(|port| self.port(port)) {
                count(&port.steered);
            }
        }
    }

    pub(crate) fn created(&self) {
        self.created.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn removed(&self, why: Removal) {
        if let Some(count) = self.removed.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn refused(&self, why: Refusal) {
        if let Some(count) = self.refused.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_at_embryonic_quota(&self, port: PortId) -> bool {
        self.port(port)
            .is_some_and(|port| port.embryonic.load(Ordering::Relaxed) >= self.quota.embryonic)
    }

    pub(crate) fn of_port(&self, port: PortId) -> PortSessions {
        let Some(port) = self.port(port) else { return PortSessions::default() };
        let count = |count: &AtomicU32| count.load(Ordering::Relaxed);
        let embryonic = count(&port.embryonic);
        PortSessions {
            embryonic,
            established: count(&port.live).saturating_sub(embryonic),
            closing: count(&port.closing),
            steered: count(&port.steered),
        }
    }

    pub(crate) fn steered_of(&self, port: PortId) -> u32 {
        self.port(port).map_or(0, |port| port.steered.load(Ordering::Relaxed))
    }

    /// Sessions of all ports.
    #[inline]
    pub(crate) fn all(&self) -> u32 {
        self.all.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn has_steered(&self) -> bool {
        self.steered.0.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn events(&self) -> SessionEvents {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let [expired, evicted, reopened, closed, revoked] = self.removed.each_ref().map(count);
        let [refused_full, refused_quota, refused_taken, refused_busy] =
            self.refused.each_ref().map(count);
        SessionEvents {
            created: count(&self.created),
            expired,
            evicted,
            reopened,
            closed,
            revoked,
            refused_full,
            refused_quota,
            refused_taken,
            refused_busy,
        }
    }

    fn port(&self, port: PortId) -> Option<&Port> {
        self.ports.get(usize::from(port.0))
    }
}

impl Port {
    /// Where a session of the class is counted.
    fn of_class(&self, class: Class) -> [Option<&AtomicU32>; 2] {
        match class {
            Class::Embryonic => [Some(&self.live), Some(&self.embryonic)],
            Class::Established => [Some(&self.live), None],
            Class::Finished | Class::Reset => [Some(&self.closing), None],
        }
    }
}

impl core::ops::AddAssign for PortSessions {
    fn add_assign(&mut self, other: Self) {
        self.embryonic += other.embryonic;
        self.established += other.established;
        self.closing += other.closing;
        self.steered += other.steered;
    }
}

fn increment_below(count: &AtomicU32, limit: u32) -> bool {
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < limit).then_some(count + 1)
        })
        .is_ok()
}
