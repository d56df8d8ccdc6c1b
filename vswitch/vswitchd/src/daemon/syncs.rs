//! When sources told the last time, by what they told of.
//!
//! Enters: requests that were carried out, and the time. Leaves: how long ago each was, to metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use api::Request;

use super::Daemon;

/// What a source tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    /// Other nodes.
    Peers,
    /// Services and their backends.
    Services,
    /// Policies and the groups that they name.
    Policies,
}

impl Told {
    /// What a request tells of; none if it comes from a pod's runtime or an operator.
    pub(crate) fn by(request: &Request) -> Option<Self> {
        match request {
            Request::SyncPeers(_) => Some(Self::Peers),
            Request::SyncServices(_) => Some(Self::Services),
            Request::SyncPolicies(_) => Some(Self::Policies),
            _ => None,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Services => "services",
            Self::Policies => "policies",
        }
    }
}

/// When each was told the last time.
#[derive(Debug, Default)]
pub(super) struct Syncs(BTreeMap<Told, Instant>);

impl Daemon {
    /// A source has told of this.
    pub(crate) fn note_sync(&mut self, told: Told, now: Instant) {
        self.syncs.0.insert(told, now);
    }

    /// How many seconds ago each was told; nothing of what nobody has told yet.
    pub(crate) fn sync_ages(&self, now: Instant) -> Vec<(&'static str, u64)> {
        let age = |at: Instant| now.saturating_duration_since(at).as_secs();
        self.syncs.0.iter().map(|(told, at)| (told.label(), age(*at))).collect()
    }
}
