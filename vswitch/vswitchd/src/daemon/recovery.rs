//! Pods that may be missing from the journal that was read at the start.
//!
//! Enters: signs of that, at the start; the report that all places were looked at. Leaves: where to look, to
//! the program that may enter namespaces; and for a while a refusal of new pods, as the address of one that
//! is missing looks free.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::{ErrorKind, ErrorReply, Survey};
use controlplane::model::refuse;

use super::Daemon;

/// Where containerd, CRI-O and `ip netns` keep namespaces.
const NAMESPACES: &str = "/run/netns";
/// A survey takes less than a second. Where nobody makes one, new pods do not wait for ever.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is known of missing pods.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// A survey is to be made.
    is_wanted: bool,
    /// Pods are missing, or may be: new ones wait until then.
    holds_until: Option<Instant>,
}

impl Recovery {
    /// At a start: `is_known` if the journal is incomplete, or descriptors are there of pods that it does not
    /// have; `is_possible` if it may be without showing it, as pods' descriptors are lost.
    pub(super) fn begin(&mut self, is_known: bool, is_possible: bool, now: Instant) {
        self.is_wanted = is_known || is_possible;
        self.holds_until = is_known.then(|| now + PATIENCE);
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    fn end(&mut self) {
        *self = Self::default();
    }

    /// Why no pod can be added now, if that is so.
    pub(crate) fn trouble(&self, now: Instant) -> Option<String> {
        let until = self.holds_until?;
        (now < until).then(|| {
            "pods may be missing from the journal, which was damaged: until `vswitch-cni --adjust` has looked for their interfaces, or for 15 s, no pod is added".to_owned()
        })
    }

    /// What an operator should know once new pods wait no longer.
    pub(crate) fn note(&self, now: Instant) -> Option<String> {
        let until = self.holds_until?;
        (now >= until).then(|| {
            "pods may be missing from the journal, which was damaged, and their addresses may be given again: run `vswitch-cni --adjust`, which looks for their interfaces".to_owned()
        })
    }
}

impl Daemon {
    /// Where to look for missing pods, if any may be missing.
    pub(crate) fn survey(&self) -> Option<Survey> {
        if !self.recovery.is_wanted() {
            return None;
        }
        let leases = &self.plane.model().attachments;
        let is_known = |pod: &&api::AttachmentId| {
            leases.get(*pod).is_some_and(|lease| lease.attached) || self.plane.ports().is_up(pod)
        };
        let known = leases.keys().filter(is_known).cloned().collect();
        let parents = leases.values().filter_map(|lease| Path::new(&lease.netns).parent());
        // A namespace that is named by its process has a directory of its own.
        let parents = parents.filter(|path| !path.starts_with("/proc")).map(Path::to_owned);
        let directories: BTreeSet<_> = parents.chain([PathBuf::from(NAMESPACES)]).collect();
        Some(Survey { known, directories })
    }

    /// The survey was made.
    pub(crate) fn surveyed(&mut self) {
        if self.recovery.is_wanted() {
            tracing::info!("every pod was looked for that the journal may have lost");
        }
        self.recovery.end();
    }

    /// Refuses a new pod while others may be missing.
    pub(crate) fn admit_pod(&self, now: Instant) -> Result<(), ErrorReply> {
        match self.recovery.trouble(now) {
            Some(why) => Err(refuse(ErrorKind::NotReady, why)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{PATIENCE, Recovery};

    #[test]
    fn new_pods_wait_for_a_survey_but_not_for_ever() {
        let now = Instant::now();
        let mut recovery = Recovery::default();
        recovery.begin(true, false, now);
        assert!(recovery.is_wanted() && recovery.trouble(now).is_some());
        assert_eq!(recovery.note(now), None);
        let later = now + PATIENCE;
        assert_eq!(recovery.trouble(later), None);
        assert!(recovery.note(later).is_some() && recovery.is_wanted());
        recovery.end();
        assert!(recovery.note(later).is_none() && !recovery.is_wanted());
    }

    #[test]
    fn what_is_merely_possible_holds_up_no_pod() {
        let now = Instant::now();
        let mut recovery = Recovery::default();
        recovery.begin(false, true, now);
        assert!(recovery.is_wanted() && recovery.trouble(now).is_none());
    }
}
