//! The daemon: events in, lists of actions performed.
//!
//! Enters: a configuration, requests, events of the kernel, time. Leaves: what the control plane makes
//! of each is carried out on the [`Node`], and logged. One thread owns all of it; `control` calls it.
//!
//! | file | does |
//! |---|---|
//! | `balance` | which ports another worker is to receive from |
//! | `handoff` | packets of IPIP that one worker leaves to others |
//! | `worker_time` | what each worker had its time for |
//! | `change_times` | how long changes take until they are in force |
//! | `cores`  | how much of its core each worker gets |
//! | `start`  | from a configuration to a daemon that forwards |
//! | `frames` | which workers have no packet memory left |
//! | `kernel` | gathers what the kernel announces, and has it acted upon |
//! | `nft_table` | orders the nftables table, and learns what becomes of that |
//! | `settle` | compares what the kernel is to have with what it has |
//! | `queued` | detaches pods whose DEL came while no daemon ran |
//! | `recovery` | pods that the journal may have lost |
//! | `pending` | pods that wait for their policies |
//! | `syncs`  | when sources told the last time |
//! | `turns`  | which workers turn |
//! | `drop_sampling` | whether dropped packets are followed |
//! | `workers` | what each worker is started with |
//! | `stop`   | reload and end |

mod balance;
mod change_times;
pub(crate) mod cores;
mod drop_sampling;
mod fallback;
mod frames;
mod handoff;
mod kernel;
mod nft_table;
mod pending;
mod queued;
mod recovery;
mod settle;
mod start;
mod stop;
mod syncs;
mod turns;
mod worker_time;
mod workers;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{ErrorReply, Reply};
use controlplane::balance::Balance;
use controlplane::change::{Level, Note};
use controlplane::config::MetricsAddress;
use controlplane::handoff::Handoff;
use controlplane::plane::{ControlPlane, Event};
use controlplane::ports;
use controlplane::repairs::Repairs;
use dataplane::counters::Counters;
use dataplane::drop_ring::DropRing;
use dataplane::tables::{MAX_PORTS, Offloads, PortId};
use dataplane::{DropReason, Millis};
use frame::Pool;
use netio::port::TapOffloads;
use netlink::{Monitor, RulesetMonitor};

use crate::journal::OnDisk;
use crate::lock::Locks;
use crate::namespaces::{self, Namespaces};
use crate::node::Node;
use crate::notify::Notify;
use crate::router_advertisements::Advertised;
use crate::sandbox::Sandbox;
use change_times::ChangeTimes;
use cores::CoreShares;
use drop_sampling::DropSampling;
use frames::FrameShortage;
use pending::PendingPods;
use queued::QueueWatch;
use recovery::Recovery;
use syncs::Syncs;
pub(crate) use syncs::Told;
use turns::Turns;
use worker_time::WorkerTime;

/// A running daemon.
pub struct Daemon {
    /// The control plane, which decides.
    pub(crate) plane: ControlPlane,
    /// The node, on which it is done.
    pub(crate) node: Node,
    config_path: PathBuf,
    /// The kernel's announcements, if the node has an interface that they may concern.
    monitor: Option<Monitor>,
    /// The changes of our nftables table, if the kernel announces them.
    ruleset: Option<RulesetMonitor>,
    /// What had to be put right of the node.
    pub(crate) repairs: Repairs,
    /// Queues of the NIC without a socket, as a sentence.
    pub(crate) queue_note: Option<String>,
    queue_logged: Option<String>,
    /// Settings by which the kernel was seen to forward.
    forwards: BTreeSet<&'static str>,
    /// What routers have advertised to the node.
    advertised: Advertised,
    /// What of the kernel's settings stands in pods' way now.
    pub(crate) sysctl_notes: Vec<String>,
    /// Choices that were made at the start, and why.
    pub(crate) choices: Vec<String>,
    /// Sentences that need the operator's attention since then.
    pub(crate) warnings: Vec<String>,
    /// What was wrong with the journal, and was logged.
    journal_notes: Vec<String>,
    pub(crate) started: Instant,
    /// Told to leave nothing behind.
    pub(crate) is_drained: bool,
    /// Frames for `trace`.
    pub(crate) trace_pool: Pool,
    agenda: kernel::Agenda,
    turns: Turns,
    frames: FrameShortage,
    /// What each worker gets of its core.
    pub(crate) core_shares: CoreShares,
    worker_time: WorkerTime,
    balance: Balance,
    handoff: Handoff,
    pub(crate) change_times: ChangeTimes,
    syncs: Syncs,
    /// The table of a reload that is not over.
    reloading: Option<u64>,
    /// What keeps pods from the world, and was logged.
    known_rule_notes: Vec<String>,
    drop_sampling: DropSampling,
    pending: PendingPods,
    queue_watch: QueueWatch,
    /// Pods that the journal may have lost.
    pub(crate) recovery: Recovery,
    /// The service manager, which is to see that this thread turns, and when it last did.
    notify: Notify,
    fed: Instant,
    /// Filters of threads.
    pub(crate) sandbox: Sandbox,
    _locks: Locks,
}

/// The service manager's watchdog, which bites after five seconds, is fed no more often than this; and once a second
/// by a control thread that has nothing else to do.
const WATCHDOG_PERIOD: Duration = Duration::from_millis(500);

impl Daemon {
    /// The control plane's time: milliseconds since the start.
    pub(crate) fn millis(&self, now: Instant) -> Millis {
        Millis(now.saturating_duration_since(self.started).as_millis() as u64)
    }

    /// Whether it was told to end and leave nothing behind.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Where clients connect.
    #[must_use]
    pub fn socket(&self) -> &std::path::Path {
        &self.plane.config().control.socket
    }

    /// Where metrics are read from, if they are.
    #[must_use]
    pub fn metrics_address(&self) -> Option<&MetricsAddress> {
        self.plane.config().metrics.listen.as_ref()
    }

    /// The kernel's announcements, to be watched for readiness.
    #[must_use]
    pub fn monitor(&self) -> Option<&Monitor> {
        self.monitor.as_ref()
    }

    /// The changes of our nftables table, to be watched for readiness.
    #[must_use]
    pub fn ruleset(&self) -> Option<&RulesetMonitor> {
        self.ruleset.as_ref()
    }

    /// Readable when the disk has news of the journal.
    #[must_use]
    pub fn journal_bell(&self) -> BorrowedFd<'_> {
        self.node.journal.bell()
    }

    /// Whether a line of the journal is on disk.
    pub(crate) fn is_on_disk(&self, line: u64) -> OnDisk {
        self.node.journal.is_on_disk(line)
    }

    /// Has the control plane make a list of an event, and carries it out; the answer, if it has one.
    ///
    /// # Errors
    /// Why a request is refused, or could not be carried out.
    pub(crate) fn react(&mut self, event: Event) -> Result<Option<Reply>, ErrorReply> {
        let (begun, before) = (Instant::now(), self.node.publisher.epoch());
        let outcome = self.plane.on(event).and_then(|change| {
            let outcome = self.plane.carry_out(change, &mut self.node);
            outcome.inspect_err(|refusal| tracing::error!("{refusal}"))
        });
        let publisher = &self.node.publisher;
        if publisher.epoch() != before && outcome.is_ok() {
            self.change_times.note(begun, publisher.in_force_since());
        }
        // A port that no worker took is closed.
        self.node.arriving.clear();
        let answer = self.node.answer.take();
        outcome?.iter().for_each(log);
        Ok(answer)
    }

    /// As `react`, for a fact: the control plane takes it in any case.
    fn follow(&mut self, event: Event) {
        // What fails of a fact is among its notes.
        let _ = self.react(event);
    }

    /// Does what is due: after kernel events, and once a second.
    pub fn on_time(&mut self, now: Instant) {
        self.follow_kernel(now);
        let reported = self.node.workers.heard_path_mtus();
        self.follow(Event::PathMtus { reported, now: self.millis(now) });
        self.notice_gone_ports();
        if self.plane.is_a_quarantine_over(self.millis(now)) {
            self.look_at_namespaces();
        }
        self.look_at_queued(now);
        self.look_at_pending(now);
        self.drop_sampling.look(&self.node.workers.drop_rings(), now);
        if self.node.publisher.settle(&self.node.workers) {
            self.change_times.caught_up(now);
            self.follow(Event::WorkersCaughtUp);
        }
        self.mend_journal(now);
        self.node.store.settle();
    }

    /// A pod's namespace ended before its DEL came, or another program removed the host port.
    pub(crate) fn notice_gone_ports(&mut self) {
        let gone = self.node.workers.gone_ports();
        if gone.is_empty() {
            return;
        }
        if gone.contains(&ports::HOST) {
            self.settle_host_port(None, Instant::now());
        }
        // A device that went with its namespace was not lost.
        self.look_at_namespaces();
        self.follow(Event::PortsGone(gone));
    }

    /// Pods may have ended, as the kernel announces.
    pub fn on_namespace_event(&mut self) {
        if self.node.namespaces.may_have_ended() {
            self.look_at_namespaces();
        }
    }

    /// Looks whose network namespaces are gone: their ports are closed at once, as a descriptor keeps a
    /// namespace alive.
    pub(super) fn look_at_namespaces(&mut self) {
        let leases = &self.plane.model().attachments;
        let gone = leases.iter().filter(|(pod, lease)| {
            let port = self.plane.ports().number_of(pod);
            port.and_then(|port| self.node.namespaces.has_ended(port))
                .unwrap_or_else(|| namespaces::is_gone(lease.netns.as_ref()))
        });
        let gone: BTreeSet<_> = gone.map(|(pod, _)| pod.clone()).collect();
        for pod in &gone {
            let port = self.plane.ports().number_of(pod);
            if let Some(port) = port.and_then(|port| self.node.pods.get_mut(&port)) {
                port.has_ended = true;
            }
        }
        self.follow(Event::NamespacesGone { gone, now: self.millis(Instant::now()) });
    }

    /// Pods' namespaces, to be watched for readiness.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.node.namespaces
    }

    /// Something that needs attention until the daemon ends.
    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            tracing::error!("{warning}");
            self.warnings.push(warning);
        }
    }

    /// The disk has news of the journal.
    pub fn on_journal_event(&mut self) {
        self.node.journal.on_event();
        self.mend_journal(Instant::now());
    }

    /// What is wrong with the journal is put right, as far as the disk allows; log and `status` have
    /// the rest.
    fn mend_journal(&mut self, now: Instant) {
        let journal = &mut self.node.journal;
        journal.mend(now);
        if journal.wants_rewrite(now) {
            journal.rewrite(self.plane.model().snapshot());
        }
        let trouble = journal.trouble().map(|why| format!("no pod can be added: {why}"));
        let known: Vec<_> = trouble.into_iter().chain(journal.growth().cloned()).collect();
        for problem in known.iter().filter(|problem| !self.journal_notes.contains(problem)) {
            tracing::error!("{problem}");
        }
        if known.is_empty() && !self.journal_notes.is_empty() {
            tracing::info!("the journal is as it should be again");
        }
        self.journal_notes = known;
        for warning in self.node.journal.take_warnings() {
            self.warn(warning);
        }
        if self.node.journal.trouble().is_none() && self.plane.owes_lines() {
            self.follow(Event::JournalMended);
        }
    }

    /// Workers whose loop has not turned lately.
    pub(crate) fn stalled_workers(&mut self, now: Instant) -> Vec<usize> {
        let states = self.node.workers.states();
        self.turns.stalled(states.iter().map(|state| state.turns), now)
    }

    /// Looks whether workers drop packets for want of frames; once a second, which is more than is needed.
    pub fn look_at_frames(&mut self, now: Instant) {
        let workers = &self.node.workers;
        let of_each = || workers.counters().iter().map(|counters| no_frames(counters)).collect();
        self.frames.look(of_each, now);
    }

    /// The latest dropped packets of each worker; the workers take samples for some seconds from now on.
    pub(crate) fn follow_drops(&mut self, now: Instant) -> Vec<Arc<DropRing>> {
        let rings = self.node.workers.drop_rings();
        self.drop_sampling.asked(&rings, now);
        rings
    }

    /// Workers that go on dropping packets for want of frames, each with its number of frames.
    pub(crate) fn workers_without_frames(&self) -> Vec<(usize, usize)> {
        let states = self.node.workers.states();
        let short = self.frames.workers();
        short
            .filter_map(|number| states.get(number).map(|state| (number, state.frames_total)))
            .collect()
    }

    /// Feeds the watchdog if it is time, and only while every worker's loop has turned lately. Called between the
    /// steps of what may take long: no step takes seconds, while all that a reload of a large table comes to may.
    pub fn feed_watchdog(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.fed) < WATCHDOG_PERIOD {
            return;
        }
        self.fed = now;
        if self.stalled_workers(now).is_empty() {
            self.notify.send("WATCHDOG=1");
        }
    }
}

/// Packets of every port that a worker dropped for want of a frame.
fn no_frames(counters: &Counters) -> u64 {
    let ports = (0..MAX_PORTS as u16).map(PortId);
    let of_ports: u64 = ports.map(|port| counters.drops(port, DropReason::NoFrames)).sum();
    of_ports + counters.gone_drops(DropReason::NoFrames)
}

fn log(note: &Note) {
    let text = &note.text;
    match note.level {
        Level::Info => tracing::info!("{text}"),
        Level::Warning => tracing::warn!("{text}"),
        Level::Error => tracing::error!("{text}"),
    }
}

/// Offloads that a port's kernel accepts.
pub(crate) fn offloads(tap: TapOffloads) -> Offloads {
    Offloads { checksum: tap.checksum, tso: tap.tso, uso: tap.uso, vxlan: false }
}
