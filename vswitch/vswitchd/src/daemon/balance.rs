//! How much of its time each worker has for each port, and ports that another worker is to receive from.
//!
//! Enters: what the workers have counted so far, once a second. Leaves: a move, which `controlplane::balance`
//! decides and the workers carry out; a line of the log.

use std::time::{Duration, Instant};

use controlplane::balance::{Balance, Move, PortWork, SECOND};
use dataplane::tables::{MAX_PORTS, PortId};

use super::Daemon;

/// Shares of a shorter time are mostly noise.
const SHORTEST: Duration = Duration::from_millis(500);

/// After a longer pause of the control thread, its mean tells nothing of the last second.
const LONGEST: Duration = Duration::from_secs(5);

/// What a worker has counted since its start.
#[derive(Debug, Clone, Default)]
struct Counted {
    /// The time of its turns with packets.
    busy: Duration,
    /// By the number of the port that they came from: what its packets take, in bytes of work.
    work: Vec<u64>,
}

/// The work of all workers.
#[derive(Debug, Default)]
pub(super) struct WorkerBalance {
    balance: Balance,
    former: Option<(Instant, Vec<Counted>)>,
}

impl WorkerBalance {
    /// Takes what each worker has counted by now, and the worker of each pod's port that can be moved: the work of
    /// others stays with their workers. Answers with the move that is
    /// due, and how many percent of the time the two workers were busy.
    fn look(
        &mut self,
        counted: Vec<Counted>,
        pods: &[(PortId, usize)],
        now: Instant,
        started: Instant,
    ) -> Option<(Move, [u64; 2])> {
        let former = self.former.as_ref();
        let elapsed = former.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at));
        if former.is_some() && elapsed < SHORTEST {
            return None;
        }
        let (_, former) = self.former.replace((now, counted.clone()))?;
        if elapsed > LONGEST {
            return None;
        }
        let pairs: Vec<_> = former.iter().zip(&counted).collect();
        let ports: Vec<_> = pods
            .iter()
            .map(|(port, worker)| {
                let pair = pairs.get(*worker);
                let nanos = pair.map_or(0, |(before, after)| share(before, after, *port, elapsed));
                PortWork { port: *port, worker: *worker, nanos }
            })
            .collect();
        let mut fixed: Vec<_> =
            pairs.iter().map(|(before, after)| busy(before, after, elapsed)).collect();
        for port in &ports {
            if let Some(fixed) = fixed.get_mut(port.worker) {
                *fixed = fixed.saturating_sub(port.nanos);
            }
        }
        let millis = now.saturating_duration_since(started).as_millis() as u64;
        let due = self.balance.look(&fixed, &ports, dataplane::Millis(millis))?;
        let loads = self.balance.loads(&ports);
        let percent = |worker: usize| loads.get(worker).map_or(0, |load| load * 100 / SECOND);
        Some((due, [percent(due.from), percent(due.to)]))
    }
}

/// Nanoseconds a second in which a worker was busy.
fn busy(before: &Counted, after: &Counted, elapsed: Duration) -> u64 {
    let busy = after.busy.saturating_sub(before.busy).as_secs_f64();
    ((busy / elapsed.as_secs_f64()).min(1.0) * SECOND as f64) as u64
}

/// Of that, a port's part.
fn share(before: &Counted, after: &Counted, port: PortId, elapsed: Duration) -> u64 {
    let pairs = before.work.iter().zip(&after.work);
    // A counter begins anew when a number is given to another pod.
    let mut work = pairs.map(|(before, after)| after.saturating_sub(*before));
    let own = work.clone().nth(usize::from(port.0)).unwrap_or_default();
    let all = work.by_ref().sum::<u64>().max(1);
    (busy(before, after, elapsed) as f64 * (own as f64 / all as f64)) as u64
}

impl Daemon {
    /// Moves a port from a busy worker to an idle one where that is due; once a second.
    pub fn balance_workers(&mut self, now: Instant) {
        if self.node.workers.count() < 2 || !self.plane.config().workers.rebalance {
            return;
        }
        let states = self.node.workers.states();
        let counters = self.node.workers.counters();
        let counted = states.iter().zip(&counters).map(|(state, counters)| {
            let work = (0..MAX_PORTS as u16).map(|port| {
                let counts = counters.port(PortId(port));
                worker::work(counts.rx_packets, counts.rx_bytes)
            });
            Counted { busy: state.busy, work: work.collect() }
        });
        let pods: Vec<_> = self.plane.ports().movable().collect();
        let due = self.worker_balance.look(counted.collect(), &pods, now, self.started);
        let Some((Move { port, from, to }, [was, other])) = due else { return };
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
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use controlplane::balance::Move;
    use dataplane::tables::PortId;

    use super::{Counted, WorkerBalance};

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
            Counted { busy: Duration::from_millis(second * busy[number]), work: work.collect() }
        };
        vec![worker(0), worker(1)]
    }

    /// The first move within twenty looks that are so far apart.
    fn first_move(busy: [u64; 2], work: [u64; 5], apart: Duration) -> Option<(Move, [u64; 2])> {
        let (begin, mut balance) = (Instant::now(), WorkerBalance::default());
        (0..20).find_map(|look: u32| {
            let seconds = (apart * look).as_secs();
            balance.look(counted(seconds, busy, work), &PODS, begin + apart * look, begin)
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
        let (begin, mut balance) = (Instant::now(), WorkerBalance::default());
        let mut after = counted(1, [900, 0], [0, 0, 300, 300, 0]);
        assert_eq!(balance.look(after.clone(), &PODS, begin, begin), None);
        after[0].work[2] = 0;
        assert_eq!(balance.look(after, &PODS, begin + Duration::from_secs(1), begin), None);
    }
}
