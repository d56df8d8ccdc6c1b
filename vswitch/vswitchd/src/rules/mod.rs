//! The nftables table, as the control thread has it: ordered, and never waited for.
//!
//! Enters: tables that are to be in force, in order, each of which gets a number; questions. Leaves: whether a
//! number is in force, and what was seen of the table last. `nft` is run by a thread of its own, as one run
//! takes some 10 ms, and seconds where something holds it up. An answer that needs a table to be in force is held
//! until it is (`requests::held`).
//!
//! | file | has |
//! |---|---|
//! | `thread`  | the thread: which order is next |
//! | `table`   | the table in the kernel: set, compared, looked at |
//! | `nft`     | what listings show |
//! | `program` | runs of `nft`, bounded in time |

mod nft;
mod program;
mod table;
#[cfg(test)]
mod tests;
mod thread;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread as threads;
use std::time::{Duration, Instant};

use controlplane::desired::NftTable;
use rustix::event::{EventfdFlags, eventfd};

use crate::sandbox::{Sandbox, ThreadKind};
use program::{LIMIT, Program, Runs};
use table::NftRules;
pub use table::{Observed, remove_leftover};
pub use thread::Report;
use thread::{Look, Order, Waiter};

/// A start waits so long for its first table, of which four runs of `nft` may each take the longest.
pub const START_PATIENCE: Duration = LIMIT.saturating_mul(4);
/// An end waits so long until the table is removed: less than service managers wait for the end of the daemon.
pub const END_PATIENCE: Duration = Duration::from_secs(12);
/// A run that takes longer is worth a sentence.
const SLOW: Duration = Duration::from_secs(2);

/// What is known of a table that was ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InKernel {
    /// It is in force, or one that was ordered after it.
    Yes,
    /// It is waited for.
    NotYet,
    /// It is not, and why.
    Failed(String),
}

/// The table, and the thread that sets it. That ends when this is dropped, as soon as `nft` lets it.
#[derive(Debug)]
pub struct Rules {
    orders: Sender<Order>,
    reports: Receiver<Report>,
    bell: Arc<OwnedFd>,
    runs: Runs,
    /// Reports that came while one of them was waited for.
    kept: VecDeque<Report>,
    /// Number of the last table that was ordered, and whether it is one.
    ordered: u64,
    is_wanted: bool,
    /// Numbers of the last that is in force, and of the last that came to an end.
    in_force: u64,
    done: u64,
    failure: String,
    /// Numbers of the last look that was ordered, and of the last that is over.
    asked: u64,
    looked: u64,
    /// What was seen last, and when.
    seen: Option<(Observed, Instant)>,
    /// Why nothing newer is known.
    blindness: Option<String>,
    /// What the last comparison came to.
    is_whole: bool,
}

impl Rules {
    /// Starts the thread. Where a former daemon's table is in force, the first that is ordered waits for the first
    /// [`Self::settle`].
    ///
    /// # Errors
    /// If the kernel has no thread for it.
    pub fn start(is_left_by_former: bool, sandbox: &Sandbox) -> io::Result<Self> {
        Self::start_with(Program::nft(), is_left_by_former, sandbox)
    }

    fn start_with(
        program: Program,
        is_left_by_former: bool,
        sandbox: &Sandbox,
    ) -> io::Result<Self> {
        let (orders, to_do) = mpsc::channel();
        let (reporter, reports) = mpsc::channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let runs = program.runs().clone();
        let rules = NftRules::new(program, is_left_by_former);
        let waiter = Waiter { rules, reporter, bell: Arc::clone(&bell) };
        let confine = sandbox.confining(ThreadKind::Rules);
        threads::Builder::new().name("nft".into()).spawn(move || waiter.run(&to_do, &confine))?;
        Ok(Self {
            orders,
            reports,
            bell,
            runs,
            kept: VecDeque::new(),
            ordered: 0,
            is_wanted: false,
            in_force: 0,
            done: 0,
            failure: String::new(),
            asked: 0,
            looked: 0,
            seen: None,
            blindness: None,
            is_whole: false,
        })
    }

    /// Orders a table in place of the one that is there, or the removal of ours.
    pub fn set(&mut self, table: Option<&NftTable>) {
        self.ordered += 1;
        self.is_wanted = table.is_some();
        self.order(Order::Set(self.ordered, table.cloned()));
    }

    /// Number of the table that was ordered last.
    #[must_use]
    pub fn ordered(&self) -> u64 {
        self.ordered
    }

    /// Whether the table that was ordered last is one.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// What is known of the table with this number.
    #[must_use]
    pub fn is_in_kernel(&self, number: u64) -> InKernel {
        if number <= self.in_force {
            InKernel::Yes
        } else if number <= self.done {
            InKernel::Failed(self.failure.clone())
        } else {
            InKernel::NotYet
        }
    }

    /// Orders that the table is compared with the kernel's, which another program may have changed.
    pub fn settle(&mut self, by: Option<String>) {
        self.order(Order::Settle(by));
    }

    /// Orders that firewalls are looked for again that drop what pods send.
    pub fn look_for_droppers(&mut self) {
        self.order(Order::LookForDroppers);
    }

    /// Orders a look at the table, of all of it where it is to be compared; its number.
    pub fn look(&mut self, compares: bool) -> u64 {
        self.asked += 1;
        self.order(Order::Look(Look { number: self.asked, compares }));
        self.asked
    }

    /// Whether a look is over.
    #[must_use]
    pub fn has_looked(&self, number: u64) -> bool {
        number <= self.looked
    }

    /// What was seen last.
    #[must_use]
    pub fn seen(&self) -> Option<&Observed> {
        self.seen.as_ref().map(|(seen, _)| seen).filter(|_| self.is_wanted)
    }

    /// Whether the table was as it was set when it was compared last.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_wanted && self.is_whole
    }

    /// Why what is known of the table is of some time ago, as a sentence.
    #[must_use]
    pub fn note(&self, now: Instant) -> Option<String> {
        let age = self.seen.as_ref().map(|(_, at)| now.saturating_duration_since(*at).as_secs());
        let known = match age {
            Some(age) => format!("what is shown of masquerading is {age} s old"),
            None => "nothing is known of masquerading".to_owned(),
        };
        if let Some(runs) = self.runs.since().map(|since| now.saturating_duration_since(since))
            && runs >= SLOW
        {
            return Some(format!(
                "nft has been running for {} s, of {} at most: hostPorts of new pods wait for it, and {known}",
                runs.as_secs(),
                LIMIT.as_secs()
            ));
        }
        let why = self.blindness.as_ref().filter(|_| self.is_wanted)?;
        Some(format!("the nftables table cannot be looked at ({why}): {known}"))
    }

    /// Whether a process that changed the table was one of ours.
    #[must_use]
    pub fn is_own(&self, pid: u32) -> bool {
        self.runs.is_own(pid)
    }

    /// Readable when there are reports.
    #[must_use]
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Everything that was reported so far.
    pub fn reports(&mut self) -> Vec<Report> {
        // First the bell: what is reported after that rings again.
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        let mut reports: Vec<_> = self.kept.drain(..).collect();
        while let Ok(report) = self.reports.try_recv() {
            self.take(&report);
            reports.push(report);
        }
        reports
    }

    /// Waits until the last table that was ordered is in force.
    ///
    /// # Errors
    /// Why it is not.
    pub fn wait(&mut self, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        loop {
            match self.is_in_kernel(self.ordered) {
                InKernel::Yes => return Ok(()),
                InKernel::Failed(why) => return Err(why),
                InKernel::NotYet => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(report) = self.reports.recv_timeout(left) else {
                return Err(format!("nft has not done its work within {} s", patience.as_secs()));
            };
            self.take(&report);
            self.kept.push_back(report);
        }
    }

    fn order(&self, order: Order) {
        // The thread ends after its channel alone.
        let _ = self.orders.send(order);
    }

    fn take(&mut self, report: &Report) {
        match report {
            Report::Set { number, outcome, .. } => {
                self.done = *number;
                self.is_whole = outcome.is_ok();
                match outcome {
                    Ok(()) => self.in_force = *number,
                    Err(why) => self.failure.clone_from(why),
                }
            }
            Report::Settled { outcome, .. } => self.is_whole = outcome.is_ok(),
            Report::Looked { number, seen, is_in_force } => {
                self.looked = *number;
                self.is_whole = is_in_force.unwrap_or(self.is_whole);
                match seen {
                    Ok(seen) => {
                        self.seen = seen.clone().map(|seen| (seen, Instant::now()));
                        self.blindness = None;
                    }
                    Err(why) => self.blindness = Some(why.clone()),
                }
            }
        }
    }
}
