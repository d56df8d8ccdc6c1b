//! Packets of IPIP that one worker leaves to others.
//!
//! Enters: the configuration; what the workers did in the last second. Leaves: which workers share the packets of one,
//! which `controlplane::handoff` decides where the configuration leaves it open; a line of the log.

use controlplane::balance::SECOND;
use controlplane::config::HandoffSetting;
use dataplane::Millis;

use super::Daemon;
use super::worker_time::Measured;

impl Daemon {
    /// Whether it depends on how busy workers are.
    pub(super) fn chooses_handoff(&self) -> bool {
        self.plane.config().workers.handoff == HandoffSetting::Auto
    }

    /// Has each worker that has queues of the NIC do what the configuration says: at the start, and when another uplink
    /// has given queues to others.
    pub(super) fn begin_handoff(&mut self) {
        let (workers, setting) = (&mut self.node.workers, self.plane.config().workers.handoff);
        let count = workers.count();
        if count < 2 || setting == HandoffSetting::Never {
            return;
        }
        let all: Vec<_> = (0..count).collect();
        for state in workers.states() {
            if state.queues.is_empty() || !state.hands_over_to.is_empty() {
                continue;
            }
            match setting {
                HandoffSetting::Always => workers.hand_over(state.id, &all),
                // So that it counts them.
                _ => workers.hand_over(state.id, &[state.id]),
            }
        }
    }

    /// Has a worker leave packets to others, or to others than before, where that is due; true if so.
    pub(super) fn change_handoff(&mut self, measured: &Measured, now: Millis) -> bool {
        let Some(due) = self.handoff.look(&measured.ipip(), now) else { return false };
        let (worker, members) = (due.worker, due.members);
        self.node.workers.hand_over(worker, &members);
        let percent = |worker: usize| self.handoff.busy(worker) * 100 / SECOND;
        let busy = percent(worker);
        let others: Vec<_> = members
            .iter()
            .filter(|member| **member != worker)
            .map(|member| format!("{member} ({} %)", percent(*member)))
            .collect();
        if others.is_empty() {
            tracing::info!(
                "worker {worker} keeps its packets of IPIP from now on: it was busy for {busy} % of the time"
            );
        } else {
            let others = others.join(", ");
            tracing::info!(
                "worker {worker} leaves packets of IPIP to other workers from now on: it was busy for {busy} % of the time; others: {others}"
            );
        }
        true
    }
}
