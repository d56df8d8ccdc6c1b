//! Pods that wait for their policies.
//!
//! Enters: which pods are denied everything as nobody told their policies, and the time. Leaves: those that
//! have waited for too long, to the log and to `status`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::AttachmentId;

use super::Daemon;

/// A source tells a pod's policies within a second; after so long it is no longer a matter of time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pods and rule sets that a sentence names.
const NAMED: usize = 5;

/// The pods that wait, and since when each was seen to.
#[derive(Debug, Default)]
pub(super) struct PendingPods {
    since: BTreeMap<AttachmentId, Instant>,
    /// The sentence that was logged, if it is so still.
    logged: Option<String>,
}

impl PendingPods {
    /// Notes which pods wait now.
    fn look(&mut self, pending: impl Iterator<Item = AttachmentId>, now: Instant) {
        let since = std::mem::take(&mut self.since);
        let known = |pod: &AttachmentId| since.get(pod).copied().unwrap_or(now);
        self.since = pending.map(|pod| (pod.clone(), known(&pod))).collect();
    }

    /// Those that have waited for too long.
    fn late(&self, now: Instant) -> impl Iterator<Item = &AttachmentId> {
        let is_late = move |since: &Instant| now.saturating_duration_since(*since) >= PATIENCE;
        self.since.iter().filter(move |(_, since)| is_late(since)).map(|(pod, _)| pod)
    }
}

impl Daemon {
    /// Looks which pods wait; once a second.
    pub(super) fn look_at_pending(&mut self, now: Instant) {
        let pending: Vec<_> = self.plane.pending_pods().cloned().collect();
        self.pending.look(pending.into_iter(), now);
        let note = self.late_note(now);
        if self.pending.logged != note {
            if let Some(note) = &note {
                tracing::warn!("{note}");
            }
            self.pending.logged = note;
        }
    }

    /// What an operator should know of policies: pods that are denied everything, and rule sets that are
    /// refused.
    pub(crate) fn policy_notes(&self, now: Instant) -> Vec<String> {
        let notes = [self.late_note(now), self.nameless_note(), self.refused_note()];
        notes.into_iter().flatten().collect()
    }

    fn late_note(&self, now: Instant) -> Option<String> {
        // One that has its policies since the last look waits no more.
        let late = self.pending.late(now).filter(|pod| self.plane.is_pending(pod));
        let late: Vec<_> = late.map(|pod| self.plane.port_name(pod)).collect();
        (!late.is_empty()).then(|| {
            format!(
                "{} pod(s) are denied everything for more than {} s, as nobody told their policies: {}; see that vswitch-agent runs and reaches the API server",
                late.len(),
                PATIENCE.as_secs(),
                some(&late, ", ")
            )
        })
    }

    fn nameless_note(&self) -> Option<String> {
        let pods: Vec<_> =
            self.plane.nameless_pods().map(|pod| self.plane.port_name(pod)).collect();
        (!pods.is_empty()).then(|| {
            format!(
                "{} pod(s) are denied everything, as their names were lost with a line of the journal and any policy may select them: {}; delete them",
                pods.len(),
                some(&pods, ", ")
            )
        })
    }

    fn refused_note(&self) -> Option<String> {
        let refused = self.plane.refused_rule_sets();
        let reasons: Vec<_> = refused.iter().map(|one| one.reason.clone()).collect();
        (!reasons.is_empty()).then(|| {
            format!(
                "{} rule set(s) are refused, and what they concern is denied: {}; see vswitchctl show policies",
                reasons.len(),
                some(&reasons, "; ")
            )
        })
    }
}

/// The first of them.
fn some(list: &[String], separator: &str) -> String {
    let named = list.get(..NAMED).unwrap_or(list).join(separator);
    match list.len().checked_sub(NAMED) {
        None | Some(0) => named,
        Some(more) => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use api::AttachmentId;

    use super::{PATIENCE, PendingPods, some};

    fn pod(name: &str) -> AttachmentId {
        AttachmentId { container_id: name.into(), ifname: "eth0".into() }
    }

    #[test]
    fn a_pod_is_late_that_waits_without_a_break() {
        let begin = Instant::now();
        let mut pending = PendingPods::default();
        let mut late = |pods: &[&str], seconds| {
            let now = begin + Duration::from_secs(seconds);
            pending.look(pods.iter().map(|name| pod(name)), now);
            pending.late(now).map(|pod| pod.container_id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(late(&["a", "b"], 0), [""; 0]);
        assert_eq!(late(&["a"], PATIENCE.as_secs() - 1), [""; 0]);
        assert_eq!(late(&["a", "b"], PATIENCE.as_secs()), ["a"]);
        assert_eq!(late(&["b"], 2 * PATIENCE.as_secs()), ["b"]);
    }

    #[test]
    fn a_sentence_names_a_few() {
        let names: Vec<_> = (0..7).map(|number| number.to_string()).collect();
        assert_eq!(some(&names[..5], ", "), "0, 1, 2, 3, 4");
        assert_eq!(some(&names, ", "), "0, 1, 2, 3, 4 and 2 more");
    }
}
