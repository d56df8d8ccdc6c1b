//! What keeps the node from serving its pods, for `status` and for CNI's STATUS.
//!
//! Enters: the control plane's own problems; workers, journal, host port and uplink as they are now. Leaves: one
//! list, each with what it does to pods. What an operator should know beside that is among the warnings.

use std::time::Instant;

use api::{ServiceProblem, ServiceProblemKind};
use controlplane::repairs::Part;

use crate::daemon::Daemon;

impl Daemon {
    pub(super) fn problems(&mut self, now: Instant) -> Vec<ServiceProblem> {
        let mut problems = self.plane.problems();
        let fail = [self.node.journal.trouble(), self.recovery.trouble(now)].into_iter().flatten();
        problems.extend(
            fail.map(|reason| ServiceProblem { kind: ServiceProblemKind::AddsFail, reason }),
        );
        let mut suffer = self.stalled(now);
        suffer.extend(self.workers_without_frames().into_iter().map(without_frames));
        suffer.extend(self.broken_parts(now));
        suffer.extend(self.uplink_problem());
        let kind = ServiceProblemKind::PodsSuffer;
        problems.extend(suffer.into_iter().map(|reason| ServiceProblem { kind, reason }));
        problems
    }

    fn stalled(&mut self, now: Instant) -> Vec<String> {
        let stalled = self.stalled_workers(now).into_iter();
        stalled
            .map(|number| {
                format!(
                    "worker {number} does not turn: packets of its ports are lost, and no change reaches it; see what takes its core, or restart vswitchd"
                )
            })
            .collect()
    }

    /// Parts of the node that are not as they should be and are not put right.
    fn broken_parts(&mut self, now: Instant) -> Vec<String> {
        let time = self.millis(now);
        let mut broken = self.repairs.broken(time);
        // Another program that fights for it may have left it whole.
        if broken.iter().any(|(part, _)| *part == Part::HostPort) && self.host_port_is_whole() {
            broken.retain(|(part, _)| *part != Part::HostPort);
        }
        broken.into_iter().map(|(_, reason)| reason).collect()
    }

    fn host_port_is_whole(&mut self) -> bool {
        let Some(host) = &self.node.host else { return true };
        let wanted = self.plane.host_port_state();
        host.exists(&mut self.node.netlink).is_ok_and(|exists| exists)
            && host
                .actual(&mut self.node.netlink, &self.node.cluster)
                .is_ok_and(|actual| wanted.repairs(&actual).is_empty())
    }

    fn uplink_problem(&self) -> Option<String> {
        let uplink = self.node.uplink.as_ref()?;
        let (name, link) = (&uplink.facts.link.name, &uplink.facts.link);
        let what = match (uplink.is_gone, link.up, link.carrier) {
            (true, _, _) if self.chooses_uplink() => "is gone; it is opened again when it is back",
            (true, _, _) => "is gone; restart vswitchd when it is back",
            (_, false, _) => "is down; run `ip link set` with it, and `up`",
            (_, _, false) => "has no carrier; see to its cable or its switch",
            _ => return None,
        };
        Some(format!("pods reach no other node: the uplink {name} {what}"))
    }
}

fn without_frames((worker, frames): (usize, usize)) -> String {
    format!(
        "worker {worker} has no packet memory left and drops pods' packets: all of its {frames} frames are in use; give it more, workers.frames in the daemon's configuration, and restart vswitchd"
    )
}

#[cfg(test)]
mod tests {
    use super::without_frames;

    #[test]
    fn exhausted_packet_memory_is_told_with_its_size_and_its_cure() {
        let told = without_frames((1, 512));
        assert!(told.starts_with("worker 1 has no packet memory left"), "{told}");
        assert!(told.contains("512 frames") && told.contains("workers.frames"), "{told}");
    }
}
