//! Ports that another worker is to receive from.
//!
//! Enters: what the workers did in the last second. Leaves: a move, which `controlplane::balance` decides and the
//! workers carry out; a line of the log.

use std::time::Instant;

use controlplane::balance::{Balance, Move, PortWork, SECOND};
use dataplane::Millis;
use dataplane::tables::PortId;

use super::Daemon;
use super::worker_time::Measured;

/// The move that is due, with the worker of each pod's port that can be moved; and how many percent of the time the two workers
/// were busy.
fn due(
    balance: &mut Balance,
    measured: &Measured,
    pods: &[(PortId, usize)],
    now: Millis,
) -> Option<(Move, [u64; 2])> {
    let ports: Vec<_> = pods
        .iter()
        .map(|(port, worker)| {
            let (port, worker) = (*port, *worker);
            PortWork { port, worker, nanos: measured.of_port(worker, port) }
        })
        .collect();
    let mut fixed: Vec<_> = (0..measured.count()).map(|worker| measured.busy(worker)).collect();
    for port in &ports {
        if let Some(fixed) = fixed.get_mut(port.worker) {
            *fixed = fixed.saturating_sub(port.nanos);
        }
    }
    let due = balance.look(&fixed, &ports, now)?;
    let loads = balance.loads(&ports);
    let percent = |worker: usize| loads.get(worker).map_or(0, |load| load * 100 / SECOND);
    Some((due, [percent(due.from), percent(due.to)]))
}

impl Daemon {
    /// Moves a port from a busy worker to an idle one where that is due; true if one was to move.
    pub(super) fn move_a_port(&mut self, measured: &Measured, now: Millis) -> bool {
        let pods: Vec<_> = self.plane.ports().movable().collect();
        let due = due(&mut self.balance, measured, &pods, now);
        let Some((Move { port, from, to }, [was, other])) = due else { return false };
        let attachment = self.plane.ports().attachment_of(port);
        let name = attachment.map_or_else(String::new, |pod| self.plane.port_name(pod));
        if self.node.workers.move_port(port, from, to) {
            self.plane.is_received_by(port, to);
            tracing::info!(
                "worker {to} receives from {name} from now on: worker {from} was busy for {was} % of the time, worker {to} for {other} %"
            );
        } else {
            tracing::debug!("worker {from} goes on receiving from {name}: packets wait there");
        }
        true
    }

    /// Looks at what workers do, and spreads it better where that is due; once a second.
    pub fn balance_workers(&mut self, now: Instant) {
        let (moves, hands_over) = (self.plane.config().workers.rebalance, self.chooses_handoff());
        if self.node.workers.count() < 2 || !(moves || hands_over) {
            return;
        }
        let Some(measured) = self.worker_time.look(&self.node.workers, now) else { return };
        let millis = self.millis(now);
        // One change at a time; a move costs no copy of a packet, and so comes first.
        if moves && self.move_a_port(&measured, millis) {
            self.handoff.settle(millis);
        } else if hands_over && self.change_handoff(&measured, millis) {
            self.balance.settle(millis);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use controlplane::balance::{Balance, Move};
    use dataplane::Millis;
    use dataplane::tables::PortId;

    use super::due;
    use crate::daemon::worker_time::{Counted, WorkerTime};

    const PODS: [(PortId, usize); 3] = [(PortId(2), 0), (PortId(3), 0), (PortId(4), 1)];

    /// What two workers have counted after so many seconds: milliseconds a second that each was busy, and
    /// the work of each port in a second.
    fn counted(second: u64, busy: [u64; 2], work: [u64; 5]) -> Vec<Counted> {
        let worker = |number: usize| {
            let own = |port: usize| match PODS.iter().find(|(id, _)| usize::from(id.0) == port) {
                Some((_, worker)) => *worker == number,
                None => number == 0,
            };
            let work =
                work.iter().enumerate().map(|(port, work)| second * work * u64::from(own(port)));
            let (busy, work) = (Duration::from_millis(second * busy[number]), work.collect());
            Counted { busy, work, ..Counted::default() }
        };
        vec![worker(0), worker(1)]
    }

    /// The first move within twenty looks that are so far apart.
    fn first_move(busy: [u64; 2], work: [u64; 5], apart: Duration) -> Option<(Move, [u64; 2])> {
        let (begin, mut time) = (Instant::now(), WorkerTime::default());
        let mut balance = Balance::default();
        (0..20).find_map(|look: u32| {
            let since = apart * look;
            let counted = counted(since.as_secs(), busy, work);
            let measured = time.measure(counted, begin + since)?;
            due(&mut balance, &measured, &PODS, Millis(since.as_millis() as u64))
        })
    }

    #[test]
    fn a_port_has_the_share_of_its_work_in_the_time_of_its_worker() {
        // The NIC (1) keeps its worker busy, too, and stays; of the pods, the one with more work leaves.
        let (due, [from, to]) =
            first_move([900, 100], [0, 500, 300, 100, 7], Duration::from_secs(1)).expect("a move");
        assert_eq!(due, Move { port: PortId(2), from: 0, to: 1 });
        assert!(from > 50 && to <= 10, "{from} {to}");
    }

    #[test]
    fn without_a_busy_worker_nothing_moves_nor_after_pauses() {
        let work = [0, 0, 300, 300, 0];
        let second = Duration::from_secs(1);
        assert_eq!(first_move([400, 0], work, second), None);
        assert!(first_move([900, 0], work, second).is_some());
        assert_eq!(first_move([900, 0], work, Duration::from_secs(6)), None);
    }

    #[test]
    fn a_number_that_is_given_to_another_pod_has_no_work_of_the_former() {
        let (begin, mut time) = (Instant::now(), WorkerTime::default());
        let mut after = counted(1, [900, 0], [0, 0, 300, 300, 0]);
        assert!(time.measure(after.clone(), begin).is_none());
        after[0].work[2] = 0;
        let measured = time.measure(after, begin + Duration::from_secs(1)).expect("a second");
        assert_eq!(measured.of_port(0, PortId(2)), 0);
    }
}
