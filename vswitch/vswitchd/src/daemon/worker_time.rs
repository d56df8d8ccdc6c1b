//! What each worker had its time for.
//!
//! Enters: what the workers have counted so far, once a second. Leaves: of the second between two looks, how long each
//! was busy, and for what. `balance` and `handoff` decide by it.

use std::time::{Duration, Instant};

use controlplane::balance::SECOND;
use controlplane::handoff::{HANDING_PART, WorkerWork};
use dataplane::tables::{MAX_PORTS, PortId};
use worker::{IpipWork, Workers};

/// Shares of a shorter time are mostly noise.
const SHORTEST: Duration = Duration::from_millis(500);

/// After a longer pause of the control thread, its mean tells nothing of the last second.
const LONGEST: Duration = Duration::from_secs(5);

/// What a worker has counted since its start.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted {
    /// The time of its turns with packets.
    pub(super) busy: Duration,
    /// By the number of the port that they came from: what its packets take, in bytes of work. Of the NIC's port with
    /// what others handed over to it, and without what it handed over.
    pub(super) work: Vec<u64>,
    /// What its queues of the NIC gave of IPIP.
    pub(super) ipip: IpipWork,
}

/// What was counted at the last look.
#[derive(Debug, Default)]
pub(super) struct WorkerTime {
    former: Option<(Instant, Vec<Counted>)>,
}

/// The work between two looks.
pub(super) struct Measured {
    elapsed: Duration,
    /// Of each worker, before and after.
    pairs: Vec<(Counted, Counted)>,
}

impl WorkerTime {
    /// Asks the workers, and compares with what they said the last time. `None` where that is no second ago.
    pub(super) fn look(&mut self, workers: &Workers, now: Instant) -> Option<Measured> {
        let (states, counters) = (workers.states(), workers.counters());
        let of_each = states.iter().zip(&counters).zip(workers.ipip_work());
        let counted = of_each.map(|((state, counters), ipip)| {
            let work = (0..MAX_PORTS as u16).map(|port| {
                let counts = counters.port(PortId(port));
                worker::work(counts.rx_packets, counts.rx_bytes)
            });
            Counted { busy: state.busy, work: work.collect(), ipip }
        });
        self.measure(counted.collect(), now)
    }

    pub(super) fn measure(&mut self, counted: Vec<Counted>, now: Instant) -> Option<Measured> {
        let former = self.former.as_ref();
        let elapsed = former.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at));
        if former.is_some() && elapsed < SHORTEST {
            return None;
        }
        let (_, former) = self.former.replace((now, counted.clone()))?;
        (elapsed <= LONGEST)
            .then(|| Measured { elapsed, pairs: former.into_iter().zip(counted).collect() })
    }
}

impl Measured {
    /// How many workers there are.
    pub(super) fn count(&self) -> usize {
        self.pairs.len()
    }

    /// Nanoseconds a second in which a worker was busy.
    pub(super) fn busy(&self, worker: usize) -> u64 {
        let Some((before, after)) = self.pairs.get(worker) else { return 0 };
        let busy = after.busy.saturating_sub(before.busy).as_secs_f64();
        ((busy / self.elapsed.as_secs_f64()).min(1.0) * SECOND as f64) as u64
    }

    /// Of that, what it had for packets of a port.
    pub(super) fn of_port(&self, worker: usize, port: PortId) -> u64 {
        let own = self.work(worker).nth(usize::from(port.0)).unwrap_or_default();
        self.time_of(worker, own)
    }

    /// What each worker did for packets of IPIP, and beside that.
    pub(super) fn ipip(&self) -> Vec<WorkerWork> {
        let of_worker = |(worker, (before, after)): (usize, &(Counted, Counted))| {
            let kept = after.ipip.kept.saturating_sub(before.ipip.kept);
            let handed = handed(before, after).enumerate();
            WorkerWork {
                busy: self.busy(worker),
                kept: self.time_of(worker, kept),
                handed: handed.map(|(to, work)| self.time_of(to, work)).collect(),
            }
        };
        self.pairs.iter().enumerate().map(of_worker).collect()
    }

    /// The part of a worker's time that so much work takes.
    fn time_of(&self, worker: usize, work: u64) -> u64 {
        let Some((before, after)) = self.pairs.get(worker) else { return 0 };
        let handing = handed(before, after).sum::<u64>() / HANDING_PART;
        let all = (self.work(worker).sum::<u64>() + handing).max(1);
        (self.busy(worker) as f64 * (work as f64 / all as f64).min(1.0)) as u64
    }

    /// A worker's work by port. A counter begins anew when a number is given to another pod.
    fn work(&self, worker: usize) -> impl Iterator<Item = u64> {
        let pairs = self.pairs.get(worker).into_iter();
        let by_port = pairs.flat_map(|(before, after)| before.work.iter().zip(&after.work));
        by_port.map(|(before, after)| after.saturating_sub(*before))
    }
}

/// What a worker handed over, by the number of the other. A ring is made when it is needed first.
fn handed(before: &Counted, after: &Counted) -> impl Iterator<Item = u64> {
    let (before, after) = (&before.ipip.handed, &after.ipip.handed);
    let former = |to: usize| before.get(to).copied().unwrap_or_default();
    after.iter().enumerate().map(move |(to, work)| work.saturating_sub(former(to)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use controlplane::balance::SECOND;
    use controlplane::handoff::WorkerWork;
    use worker::IpipWork;

    use super::{Counted, WorkerTime};

    #[test]
    fn what_was_handed_over_is_the_time_of_the_one_that_processed_it() {
        let (begin, mut time) = (Instant::now(), WorkerTime::default());
        let counted = |seconds: u64| {
            let ipip = IpipWork { kept: 300 * seconds, handed: vec![0, 400 * seconds] };
            let busy = |millis: u64| Duration::from_millis(millis * seconds);
            // Of a pod it had 500; handing over is a quarter of processing.
            let first = Counted { busy: busy(900), work: vec![500 * seconds, 300 * seconds], ipip };
            let work = vec![0, 400 * seconds];
            vec![first, Counted { busy: busy(200), work, ipip: IpipWork::default() }]
        };
        assert!(time.measure(counted(0), begin).is_none());
        let measured = time.measure(counted(1), begin + Duration::from_secs(1)).expect("a second");
        let millis = |millis: u64| millis * SECOND / 1000;
        let first =
            WorkerWork { busy: millis(900), kept: millis(300), handed: vec![0, millis(200)] };
        let second = WorkerWork { busy: millis(200), ..WorkerWork::default() };
        assert_eq!(measured.ipip(), [first, second]);
    }
}
