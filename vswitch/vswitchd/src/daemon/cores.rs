//! How much of its core each worker gets, and what others take of it.
//!
//! Enters: what the kernel has counted of each worker's thread and of its core by now, on request. Leaves: the
//! shares of the time since an earlier request; to `status`. The kernel counts them in any case: nothing is
//! measured while nobody asks.

use std::fs;
use std::time::{Duration, Instant};

use worker::WorkerState;

/// A worker's thread that waited so much of the time for its core is too little on it: packets wait with it.
const SIZABLE_PERCENT: u8 = 5;

/// A share of a shorter time is no reason to warn.
const WARNING_TIME: Duration = Duration::from_secs(5);

/// Shares of a shorter time tell nothing: the kernel counts a core's time in hundredths of a second.
const SHORTEST: Duration = Duration::from_secs(1);

/// Requests within that time are compared with the same one before them.
const WINDOW: Duration = Duration::from_secs(10);

/// What the kernel has counted of a worker since its start, and of its core since the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    /// The thread ran.
    ran: Duration,
    /// The thread could have run, and another had its core.
    waited: Duration,
    /// The core was busy; `None` for a worker that is not pinned.
    busy: Option<Duration>,
}

#[derive(Debug, Clone)]
struct Look {
    at: Instant,
    readings: Vec<Option<Reading>>,
}

/// Shares of a worker's core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CoreShare {
    /// Of this time.
    pub(crate) over: Duration,
    /// The worker wanted to run and did not.
    pub(crate) waited_percent: u8,
    /// Others ran on the core; `None` for a worker that is not pinned.
    pub(crate) others_percent: Option<u8>,
}

/// Two earlier looks, by which the next one is judged.
#[derive(Debug, Default)]
pub(crate) struct CoreShares {
    base: Option<Look>,
    next_base: Option<Look>,
}

impl CoreShares {
    /// The shares of each worker since an earlier look, at least ten seconds ago if there was one; `None` where
    /// there was none, or the kernel does not count.
    pub(crate) fn look(&mut self, workers: &[WorkerState]) -> Vec<Option<CoreShare>> {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let readings = workers.iter().map(|worker| read(worker, &stat)).collect();
        self.judge(Look { at: Instant::now(), readings })
    }

    fn judge(&mut self, look: Look) -> Vec<Option<CoreShare>> {
        let age = |base: &Look| look.at.saturating_duration_since(base.at);
        if self.next_base.as_ref().is_none_or(|next| age(next) >= WINDOW) {
            self.base = self.next_base.replace(look.clone());
        }
        let Some(base) = &self.base.as_ref().or(self.next_base.as_ref()) else { return Vec::new() };
        let over = look.at.saturating_duration_since(base.at);
        let pairs = base.readings.iter().zip(&look.readings);
        pairs.map(|(before, now)| share((*before)?, (*now)?, over)).collect()
    }
}

impl CoreShare {
    /// What the operator is to be told of a worker that gets too little of its core.
    pub(crate) fn warning(&self, worker: &WorkerState) -> Option<String> {
        if self.waited_percent < SIZABLE_PERCENT || self.over < WARNING_TIME {
            return None;
        }
        let place = worker.core.map_or_else(|| "a core".to_owned(), |core| format!("core {core}"));
        let others = self.others_percent.map_or_else(String::new, |percent| {
            format!(", of which other threads took {percent} %")
        });
        Some(format!(
            "worker {} waited for {place} in {} % of the last {} s{others}: packets waited meanwhile; keep other programs off it (CPUAffinity= of their units, kubelet's reservedSystemCPUs, isolcpus=), or name another core in workers.cores",
            worker.id,
            self.waited_percent,
            self.over.as_secs()
        ))
    }
}

fn share(before: Reading, now: Reading, over: Duration) -> Option<CoreShare> {
    if over < SHORTEST {
        return None;
    }
    let percent = |part: Duration| (part.as_secs_f64() / over.as_secs_f64() * 100.0).round() as u8;
    let ran = now.ran.saturating_sub(before.ran);
    let others = before.busy.zip(now.busy).map(|(before, now)| {
        let busy = now.saturating_sub(before);
        percent(busy.saturating_sub(ran)).min(100)
    });
    let waited_percent = percent(now.waited.saturating_sub(before.waited)).min(100);
    Some(CoreShare { over, waited_percent, others_percent: others })
}

fn read(worker: &WorkerState, stat: &str) -> Option<Reading> {
    // The files of the own process can be read under ProtectProc=, too.
    let path = format!("/proc/self/task/{}/schedstat", worker.thread_id);
    let (ran, waited) = scheduled(&fs::read_to_string(path).ok()?)?;
    let hertz = rustix::param::clock_ticks_per_second();
    let busy = worker.core.and_then(|core| busy_ticks(stat, core));
    Some(Reading {
        ran,
        waited,
        busy: busy.map(|ticks| Duration::from_millis(ticks * 1000 / hertz)),
    })
}

/// `/proc/…/schedstat`: nanoseconds on a core and nanoseconds in wait of one, then a count.
fn scheduled(text: &str) -> Option<(Duration, Duration)> {
    let mut fields = text.split_whitespace().map(str::parse);
    let (Some(Ok(ran)), Some(Ok(waited))) = (fields.next(), fields.next()) else { return None };
    Some((Duration::from_nanos(ran), Duration::from_nanos(waited)))
}

/// The ticks of a core in `/proc/stat` in which it ran something: user, nice, system, irq, softirq; but for
/// idle and iowait, and for what the hypervisor took.
fn busy_ticks(stat: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core}");
    let mut lines = stat.lines().map(str::split_whitespace);
    let fields = lines.find_map(|mut words| (words.next() == Some(&name)).then_some(words))?;
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else { return None };
    Some(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use worker::WorkerState;

    use super::{CoreShare, CoreShares, Look, Reading, busy_ticks, scheduled};

    const STAT: &str = "cpu  300 6 90 2000 10 4 8 0 0 0\ncpu0 100 2 30 1000 5 1 3 7 0 0\n\
        cpu1 200 4 60 1000 5 3 5 0 0 0\ncpu10 1 1 1 1 1 1 1 1 0 0\nintr 5 0\n";

    #[test]
    fn what_the_kernel_tells_is_read() {
        assert_eq!(busy_ticks(STAT, 0), Some(136));
        assert_eq!(busy_ticks(STAT, 1), Some(272));
        assert_eq!(busy_ticks(STAT, 10), Some(5));
        assert_eq!(busy_ticks(STAT, 2), None);
        assert_eq!(busy_ticks("cpu0 1 2", 0), None);
        let told = scheduled("106325 1421573 2\n");
        assert_eq!(told, Some((Duration::from_nanos(106_325), Duration::from_nanos(1_421_573))));
        assert_eq!(scheduled(""), None);
    }

    /// A worker's shares after looks at these seconds; of each, in milliseconds: it ran, it waited, its core was busy.
    fn shares(looks: &[(u64, [u64; 3])]) -> Option<CoreShare> {
        let begin = Instant::now();
        let mut shares = CoreShares::default();
        let mut last = Vec::new();
        for (seconds, [ran, waited, busy]) in looks {
            let [ran, waited, busy] = [ran, waited, busy].map(|ms| Duration::from_millis(*ms));
            let readings = vec![Some(Reading { ran, waited, busy: Some(busy) })];
            last = shares.judge(Look { at: begin + Duration::from_secs(*seconds), readings });
        }
        last[0]
    }

    fn seconds_and_percent(share: Option<CoreShare>) -> (u64, u8, u8) {
        let share = share.expect("there was a look before");
        (share.over.as_secs(), share.waited_percent, share.others_percent.expect("it is pinned"))
    }

    #[test]
    fn shares_are_those_of_the_time_since_an_earlier_look() {
        let first = (0, [1000, 50, 9000]);
        assert_eq!(shares(&[first]), None);
        // It ran for 6 s of 20, waited for 2, and the core was busy for 9.
        let second = (20, [7000, 2050, 18_000]);
        assert_eq!(seconds_and_percent(shares(&[first, second])), (20, 10, 15));
        // One that comes soon is compared with the first, too; a later one with the second.
        let third = (25, [7500, 2050, 18_500]);
        assert_eq!(seconds_and_percent(shares(&[first, second, third])), (25, 8, 12));
        let fourth = (30, [7000, 2050, 23_000]);
        assert_eq!(seconds_and_percent(shares(&[first, second, third, fourth])), (10, 0, 50));
    }

    #[test]
    fn counts_that_do_not_fit_together_are_no_share() {
        // A core's time is counted by ticks, which may see less of it than the thread had.
        assert_eq!(seconds_and_percent(shares(&[(0, [0; 3]), (10, [9000, 0, 8950])])), (10, 0, 0));
        assert_eq!(seconds_and_percent(shares(&[(0, [9, 9, 9]), (10, [0; 3])])), (10, 0, 0));
        assert_eq!(shares(&[(0, [0; 3]), (0, [1, 1, 1])]), None);
    }

    #[test]
    fn a_worker_that_is_kept_off_its_core_is_named_with_what_to_do() {
        let worker = WorkerState {
            id: 1,
            core: Some(3),
            thread_id: 77,
            queues: Vec::new(),
            sends_by: None,
            port_io: None,
            epoch: dataplane::tables::Epoch(1),
            turns: 1,
            frames_free: 1,
            frames_total: 1,
            longest_turn_us: 1,
            hands_over_to: Vec::new(),
            handed_over: 0,
            busy: Duration::from_secs(1),
        };
        let over = Duration::from_secs(30);
        let share =
            |waited_percent, others_percent| CoreShare { over, waited_percent, others_percent };
        assert_eq!(share(4, Some(90)).warning(&worker), None);
        let brief = CoreShare { over: Duration::from_secs(4), ..share(90, Some(90)) };
        assert_eq!(brief.warning(&worker), None);
        let told = share(12, Some(35)).warning(&worker).expect("sizable");
        let begin = "worker 1 waited for core 3 in 12 % of the last 30 s, of which other threads took 35 %:";
        assert!(told.starts_with(begin), "{told}");
        assert!(told.contains("workers.cores"), "{told}");
        let told = share(12, None).warning(&WorkerState { core: None, ..worker });
        assert!(told.expect("sizable").starts_with("worker 1 waited for a core in 12 %"));
    }
}
