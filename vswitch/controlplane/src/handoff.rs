//! Which workers share the packets of IPIP that one receives.
//!
//! Enters: what each worker did lately, once a second. Leaves: another set of workers for one of them, at most one
//! at a time. `vswitchd` measures, and has the worker hand packets over.
//!
//! A NIC gives all packets of a peer by IPIP to one queue, so that one worker may have all of a node's work. To hand
//! a packet over costs that worker a copy, and the other one another copy and perhaps a wake-up: it is done where
//! a worker is busy and others are idle, and no longer than that. A flow goes to one of the workers by its hash; how
//! much each of them gets is therefore taken to be alike.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use dataplane::Millis;

use crate::balance::SECOND;

/// A worker that is idle for half of the time has room for what is to come.
const BUSY: u64 = SECOND / 2;

/// One that would be busy for less, with all of its packets, takes them back. Far below [`BUSY`], so that it does not
/// give and take in turns.
const CALM: u64 = SECOND * 35 / 100;

/// Sharing makes the busiest of the workers less busy by a tenth of a core at least.
const GAIN: u64 = SECOND / 10;

/// What another member has to gain: with more of them each packet finds colder caches.
const GAIN_OF_MEMBER: u64 = SECOND / 20;

/// To hand a packet over takes a worker this part of what it takes to process it: a copy of the frame and a look into
/// it, beside a walk and a write to a pod's interface.
pub const HANDING_PART: u64 = 4;

/// Work is averaged over about so many looks, as for moves of pods.
const LOOKS: u64 = 4;

/// After a change the averages are those of before.
const SETTLE_MS: u64 = 2 * LOOKS * 1000;

/// What a worker did in a second, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerWork {
    /// All of it.
    pub busy: u64,
    /// Of that, for packets of IPIP from its own queues.
    pub kept: u64,
    /// What others did for packets that it handed over to them, by their numbers.
    pub handed: Vec<u64>,
}

/// A worker whose packets are to be shared otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sharing {
    /// The worker that receives them.
    pub worker: usize,
    /// Those that are to process them; the worker alone to hand nothing over.
    pub members: Vec<usize>,
}

/// Averages of all work, and which workers share packets.
#[derive(Debug, Default)]
pub struct Handoff {
    averages: Vec<WorkerWork>,
    /// By the number of the worker that receives: those that process.
    members: Vec<Vec<usize>>,
    /// Nothing changes before this time.
    settles: Option<Millis>,
}

impl Handoff {
    /// Takes the work of the last second, of each worker. Answers with the change that is due, if one is.
    #[must_use]
    pub fn look(&mut self, latest: &[WorkerWork], now: Millis) -> Option<Sharing> {
        self.average(latest);
        if self.settles.is_some_and(|until| until > now) {
            return None;
        }
        let due = self.due()?;
        self.settle(now);
        if let Some(members) = self.members.get_mut(due.worker) {
            members.clone_from(&due.members);
        }
        Some(due)
    }

    /// Changes nothing for a while: workers have other work since.
    pub fn settle(&mut self, now: Millis) {
        self.settles = Some(Millis(now.0 + SETTLE_MS));
    }

    /// Nanoseconds a second in which a worker is busy.
    #[must_use]
    pub fn busy(&self, worker: usize) -> u64 {
        self.averages.get(worker).map_or(0, |work| work.busy)
    }

    fn average(&mut self, latest: &[WorkerWork]) {
        self.averages.resize(latest.len(), WorkerWork::default());
        for worker in self.members.len()..latest.len() {
            self.members.push(vec![worker]);
        }
        for (average, latest) in self.averages.iter_mut().zip(latest) {
            average.busy = closer(average.busy, latest.busy);
            average.kept = closer(average.kept, latest.kept);
            average.handed.resize(latest.handed.len(), 0);
            for (average, latest) in average.handed.iter_mut().zip(&latest.handed) {
                *average = closer(*average, *latest);
            }
        }
    }

    /// The change by which the most is gained.
    fn due(&self) -> Option<Sharing> {
        let due = (0..self.averages.len()).filter_map(|worker| self.due_of(worker));
        due.max_by_key(|(gain, due)| (*gain, Reverse(due.worker))).map(|(_, due)| due)
    }

    /// The change that is due of one worker, and what it gains.
    fn due_of(&self, worker: usize) -> Option<(u64, Sharing)> {
        let present = self.members.get(worker)?;
        let view = Shared::of(&self.averages, worker)?;
        let alone = [worker];
        if present != &alone && view.busiest(&alone) <= CALM {
            return Some((0, Sharing { worker, members: alone.into() }));
        }
        let busiest = view.busiest(present);
        if busiest < BUSY {
            return None;
        }
        let (least, members) = view.best();
        let gain = busiest.checked_sub(least).filter(|gain| *gain >= GAIN)?;
        (&members != present).then_some((gain, Sharing { worker, members }))
    }
}

/// What there is to share of one worker, and what all do beside that.
struct Shared {
    worker: usize,
    /// Its packets of IPIP, whichever worker processes them.
    all: u64,
    /// What each worker does beside these.
    others: Vec<u64>,
}

impl Shared {
    fn of(averages: &[WorkerWork], worker: usize) -> Option<Self> {
        let own = averages.get(worker)?;
        let handed_to = |to: usize| own.handed.get(to).copied().unwrap_or_default();
        let handed = own.handed.iter().sum::<u64>();
        let all = own.kept + handed;
        let beside = averages.iter().enumerate().map(|(number, work)| {
            let shared =
                if number == worker { own.kept + handed / HANDING_PART } else { handed_to(number) };
            work.busy.saturating_sub(shared)
        });
        (all > 0).then(|| Self { worker, all, others: beside.collect() })
    }

    /// How busy the busiest of the workers concerned is when these share.
    fn busiest(&self, members: &[usize]) -> u64 {
        let share = self.all / members.len().max(1) as u64;
        let away = members.iter().filter(|member| **member != self.worker).count() as u64;
        let beside = |worker: usize| self.others.get(worker).copied().unwrap_or_default();
        let handing = beside(self.worker) + share * away / HANDING_PART;
        let load =
            |member: &usize| share + if *member == self.worker { handing } else { beside(*member) };
        members.iter().map(load).max().unwrap_or_default().max(handing)
    }

    /// The set that makes the busiest the least busy, and how busy that is. The idlest share first: one that does more
    /// beside it would be the busiest sooner.
    fn best(&self) -> (u64, Vec<usize>) {
        let mut order: Vec<_> = (0..self.others.len()).collect();
        order.sort_by_key(|worker| self.others.get(*worker).copied());
        let alone = vec![self.worker];
        let mut best = (self.busiest(&alone), alone);
        for count in 1..=order.len() {
            let members = order.get(..count).unwrap_or_default();
            let busiest = self.busiest(members);
            let more = count.saturating_sub(best.1.len()).max(1) as u64;
            if busiest + more * GAIN_OF_MEMBER <= best.0 {
                let mut members = members.to_vec();
                members.sort_unstable();
                best = (busiest, members);
            }
        }
        best
    }
}

/// An average that has come closer to the latest value.
fn closer(average: u64, latest: u64) -> u64 {
    (average * (LOOKS - 1) + latest) / LOOKS
}
