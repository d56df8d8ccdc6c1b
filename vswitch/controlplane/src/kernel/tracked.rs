//! What was learned, and which prefixes changed lately: a reader that made something of it can follow
//! without looking at all of it again.
//!
//! Enters: judgements, from `KernelSource`. Leaves: a [`LearnedRoutes`] to read, and the prefixes that are
//! different since a revision, to `compile`.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ipnet::IpNet;

use super::learned::{Judgement, LearnedRoutes};

/// Changes that are remembered. To follow more of them takes longer than to make all anew.
pub const REMEMBERED: usize = 4096;

/// A state of what was learned; no two different states of the process have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(u64);

impl Revision {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Relaxed) + 1)
    }
}

/// What was learned, with its latest changes.
#[derive(Debug, Clone, Default)]
pub struct Tracked {
    /// Shared by clones until one of them changes.
    learned: Arc<LearnedRoutes>,
    revision: Revision,
    /// The changes after this revision are known.
    known_since: Revision,
    changes: VecDeque<(Revision, IpNet)>,
}

impl Deref for Tracked {
    type Target = LearnedRoutes;

    fn deref(&self) -> &LearnedRoutes {
        &self.learned
    }
}

impl From<LearnedRoutes> for Tracked {
    fn from(learned: LearnedRoutes) -> Self {
        let revision = Revision::next();
        Self {
            learned: Arc::new(learned),
            revision,
            known_since: revision,
            changes: VecDeque::new(),
        }
    }
}

impl Tracked {
    /// Revision of the present state.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Takes over what becomes of a prefix; true if that is something else than before.
    pub fn set(&mut self, prefix: IpNet, judgement: Option<Judgement>) -> bool {
        let is_changed = Arc::make_mut(&mut self.learned).set(prefix, judgement);
        if is_changed {
            self.revision = Revision::next();
            self.changes.push_back((self.revision, prefix));
            if self.changes.len() > REMEMBERED
                && let Some((oldest, _)) = self.changes.pop_front()
            {
                self.known_since = oldest;
            }
        }
        is_changed
    }

    /// The prefixes that may be different since a revision; `None` if that is not known, and any
    /// may be.
    #[must_use]
    pub fn since(&self, revision: Revision) -> Option<BTreeSet<IpNet>> {
        if revision == self.revision {
            return Some(BTreeSet::new());
        }
        let is_of_here = revision == self.known_since
            || self.changes.binary_search_by_key(&revision, |(of, _)| *of).is_ok();
        if !is_of_here {
            return None;
        }
        let later = self.changes.partition_point(|(of, _)| *of <= revision);
        Some(self.changes.range(later..).map(|(_, prefix)| *prefix).collect())
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::{REMEMBERED, Tracked};
    use crate::kernel::{Judgement, LearnedRoutes, Way};

    fn host(number: usize) -> IpNet {
        let [.., c, d] = (number as u32).to_be_bytes();
        IpNet::from(std::net::IpAddr::from([198, 18, c, d]))
    }

    fn take() -> Option<Judgement> {
        Some(Judgement::Take(Way::Host))
    }

    #[test]
    fn what_changed_since_is_known() {
        let mut tracked = Tracked::from(LearnedRoutes::default());
        let first = tracked.revision();
        assert!(tracked.set(host(1), take()));
        let second = tracked.revision();
        assert!(!tracked.set(host(1), take()));
        assert_eq!(tracked.revision(), second);
        assert!(tracked.set(host(2), take()));
        assert!(tracked.set(host(1), None));
        assert_eq!(tracked.since(first), Some([host(1), host(2)].into()));
        assert_eq!(tracked.since(tracked.revision()), Some([].into()));
        // What another has become is not known.
        let mut other = tracked.clone();
        assert!(other.set(host(3), take()) && tracked.set(host(4), take()));
        assert_eq!(tracked.since(other.revision()), None);
        assert_eq!(tracked.since(second), Some([host(1), host(2), host(4)].into()));
        assert_eq!(Tracked::from(LearnedRoutes::default()).since(first), None);
    }

    #[test]
    fn what_is_too_long_ago_is_not() {
        let mut tracked = Tracked::from(LearnedRoutes::default());
        let first = tracked.revision();
        for number in 0..REMEMBERED {
            tracked.set(host(number), take());
        }
        assert_eq!(tracked.since(first).map(|changes| changes.len()), Some(REMEMBERED));
        let second = tracked.revision();
        tracked.set(host(0), None);
        assert_eq!(tracked.since(first), None);
        assert_eq!(tracked.since(second), Some([host(0)].into()));
    }
}
