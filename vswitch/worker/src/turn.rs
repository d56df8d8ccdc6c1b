//! One worker's loop.
//!
//! A turn: take the published tables and the control thread's commands, store the epoch, receive
//! from the NIC's queues, from the TAPs that are ready and from other workers, as `schedule` has them, each packet
//! walked to its end before the next, or handed over to another worker; then flush. Without packets the worker spins a
//! little, giving way to others of its core, then sleeps until a file descriptor is ready, or what waits for the rate
//! of a port is due.
//!
//! mio is edge-triggered, and a turn reads a share from a TAP at most: the schedule remembers
//! which may still have packets. TAPs are chosen by readiness even while spinning, as asking each in
//! turn would cost a system call a pod. Looking at a queue of the NIC costs none.

mod commands;
mod serve;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use crossbeam_channel::{Receiver, Sender};
use dataplane::rate::{Budgets, Nanos};
use dataplane::session::{PortSessions, SweepCursor};
use dataplane::tables::{Epoch, Fdb, MAX_PORTS, PortId, Tables};
use dataplane::{Dataplane, Millis, PathMtu};
use frame::{Packet, Pool};
use mio::{Events, Poll, Token};
use netio::port::Recv;
use netio::uplink::Rx;

use super::batch_sizes::{self, BatchSizes};
use super::closer::ToClose;
use super::egress::EgressPorts;
use super::fdb_pages::{FdbCopier, FdbEntries};
use super::gate::Gate;
use super::handoff::{Bell, Inbound, Outbound};
use super::latency_sampler::LatencySampler;
use super::port_io;
use super::schedule::Schedule;
use super::{Command, Idle, Shared, SharedState, WAKE, WorkerSpec, WorkerUplink};

/// A sleeping worker turns at least this often, to age its table and to show that it runs.
const NAP: Duration = Duration::from_secs(1);

/// Learned MACs that are looked at for ageing in one nap.
const EXPIRE_BUDGET: usize = 256;

/// Buckets of the session table that are looked at in one nap: 100 ns each.
const SWEEP_BUDGET: u32 = 4096;

/// Tokens of the NIC's queues follow those of the ports.
const QUEUE_TOKENS: usize = MAX_PORTS;

pub(super) struct Turn {
    tables: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
    inbox: Receiver<Command>,
    shared: Arc<Shared>,
    dataplane: Dataplane,
    pool: Pool,
    ports: EgressPorts,
    uplink: Option<PortId>,
    queues: Vec<Rx>,
    /// Packets that a queue has handed over together; empty between two sources.
    batch: Vec<Packet>,
    poll: Poll,
    events: Events,
    schedule: Schedule,
    gate: Gate,
    tx_budgets: Arc<Budgets>,
    idle: Idle,
    /// From here on time is counted.
    origin: Instant,
    sweep: SweepCursor,
    /// The session table had some in the last nap.
    has_sessions: bool,
    path_mtu: Sender<PathMtu>,
    fdb_copier: FdbCopier,
    to_close: ToClose,
    /// To be told when nothing that was received so far waits here any longer.
    stopping: Option<Sender<()>>,
    /// How many packets of a port to read together, where that pays.
    batch_sizes: BatchSizes,
    /// Packets that were read together and are still to be processed; empty between two sources.
    received: VecDeque<(Packet, Recv)>,
    /// What is handed over to other workers, and by them.
    outbound: Outbound,
    inbound: Inbound,
}

/// What a worker gets from other threads, or shares with them.
pub(super) struct Inbox {
    /// From the control thread.
    pub(super) commands: Receiver<Command>,
    /// The published tables.
    pub(super) tables: Arc<ArcSwap<Tables>>,
    /// What all workers change.
    pub(super) state: SharedState,
    /// What may still be sent to ports with a rate.
    pub(super) tx_budgets: Arc<Budgets>,
    /// What pods with a rate may still send.
    pub(super) rx_budgets: Arc<Budgets>,
    /// Which part of the session table is this worker's to sweep.
    pub(super) sweep: SweepCursor,
    /// By which others wake this worker.
    pub(super) bell: Arc<Bell>,
}

/// Channels by which a worker sends to other threads.
pub(super) struct Outbox {
    /// Ports that lost their device, to the control thread.
    pub(super) port_gone: Sender<PortId>,
    /// Path MTUs that routers of the underlay have reported, to the control thread.
    pub(super) path_mtu: Sender<PathMtu>,
    /// Its learned MACs, to the control thread, on request.
    pub(super) fdb_pages: Sender<FdbEntries>,
    /// Removed ports, to the thread that closes them.
    pub(super) to_close: ToClose,
}

impl Turn {
    pub(super) fn new(
        spec: WorkerSpec,
        poll: Poll,
        inbox: Inbox,
        shared: Arc<Shared>,
        outbox: Outbox,
    ) -> io::Result<Self> {
        let Inbox { commands, tables, state, tx_budgets, rx_budgets, sweep, bell } = inbox;
        let Outbox { port_gone, path_mtu, fdb_pages, to_close } = outbox;
        let pool = Pool::new(spec.frames);
        let uplink = spec.uplink.as_ref().map(|uplink| uplink.port);
        let (queues, egress) = match spec.uplink {
            Some(WorkerUplink { port, queues, tx }) => (queues, Some((port, tx))),
            None => (Vec::new(), None),
        };
        let queues: Vec<Rx> = queues.into_iter().map(|(_, rx)| rx).collect();
        commands::watch(&poll, &queues)?;
        let fdb = Fdb::new(spec.fdb_max, spec.fdb_ageing_ms);
        let counters = Arc::clone(&shared.counters);
        let latency = LatencySampler::new(Arc::clone(&shared.latencies));
        let (gather, port_io) = port_io::choose(spec.port_io);
        shared.set_port_io(port_io);
        let turn = Self {
            tables: Cache::new(tables),
            inbox: commands,
            outbound: Outbound::new(spec.id, Arc::clone(&shared.kept)),
            inbound: Inbound::new(bell),
            dataplane: Dataplane::new(fdb, pool.clone(), counters, state.sessions)
                .sharing(Arc::clone(&tx_budgets))
                .sampling(Arc::clone(&shared.drops)),
            ports: EgressPorts::new(egress, pool.clone(), port_gone, latency, gather),
            pool,
            shared,
            uplink,
            schedule: Schedule::new(queues.len()),
            queues,
            batch: Vec::with_capacity(serve::QUEUE_BUDGET),
            poll,
            events: Events::with_capacity(256),
            gate: Gate::new(rx_budgets),
            tx_budgets,
            idle: spec.idle,
            origin: state.origin,
            sweep,
            has_sessions: false,
            path_mtu,
            fdb_copier: FdbCopier::new(fdb_pages),
            to_close,
            stopping: None,
            batch_sizes: BatchSizes::new(),
            received: VecDeque::with_capacity(batch_sizes::MOST),
        };
        Ok(turn)
    }

    pub(super) fn run(mut self) {
        let mut last_packet = Instant::now();
        let mut last_nap = last_packet;
        // When the last turn began, if it had packets.
        let mut busy_since = None;
        loop {
            let at = Instant::now();
            if let Some(since) = busy_since {
                self.note_turn(at.duration_since(since));
            }
            let elapsed = at.duration_since(self.origin);
            let (now, nanos) =
                (Millis(elapsed.as_millis() as u64), Nanos(elapsed.as_nanos() as u64));
            let tables = Arc::clone(self.tables.load());
            if !self.commands() {
                return;
            }
            self.dataplane.turn(&tables, nanos, &mut self.ports);
            self.adopt(tables.epoch);
            self.outbound.begin_turn();
            self.fdb_copier.copy(&self.dataplane.fdb, now);

            self.gate.open(nanos, |port| self.schedule.ready(port));
            self.ports.latency.begin(at);
            let received = self.serve(&tables, now, nanos);
            let unsent = self.ports.flush();
            self.ports.latency.end(&tables, unsent);
            let holds = self.dataplane.due().is_some();
            if !unsent && !holds {
                self.tell_stopped();
            }
            // What the NIC has no room for came from pods: nothing that came from the NIC leaves by it again, but
            // errors and answers, which belong to no flow.
            self.outbound.end_turn(holds);
            self.inbound.end_turn(holds);
            self.sweep(received, now, at.duration_since(last_nap) >= NAP);

            if received > 0 || unsent {
                last_packet = at;
            }
            let sleeps = match self.idle {
                Idle::Spin => false,
                Idle::Micros(after) => {
                    at.duration_since(last_packet) >= Duration::from_micros(after)
                }
            };
            let has_work = !self.schedule.is_empty()
                || self.queues.iter().any(Rx::has_more)
                || self.dataplane.merges()
                || !self.inbound.is_empty()
                || self.fdb_copier.is_busy();
            let timeout = if sleeps && !has_work { self.nap(nanos) } else { Duration::ZERO };
            busy_since = (received > 0).then_some(at);
            if !timeout.is_zero()
                && let Some(since) = busy_since.take()
            {
                // The sleep is no part of it; beside that, reading the clock costs nothing.
                self.note_turn(since.elapsed());
            }
            // From here on another worker that hands something over wakes this one.
            let sleeps = !timeout.is_zero() && self.inbound.may_sleep();
            if !sleeps && !has_work && !unsent && received == 0 {
                self.give_way();
            }
            self.wait(if sleeps { timeout } else { Duration::ZERO });
            if sleeps {
                self.inbound.awake();
            }

            if at.duration_since(last_nap) >= NAP {
                last_nap = at;
                self.dataplane.fdb.expire(now, EXPIRE_BUDGET);
                self.shared.frames_free.store(self.pool.available(), Ordering::Relaxed);
            }
        }
    }

    /// Lets another program of this core run, if one waits for it: it may be the one that sends the next packet, or
    /// that reads what was sent to it. A worker that never sleeps is to have the core for itself.
    fn give_way(&self) {
        if self.idle != Idle::Spin {
            thread::yield_now();
        }
    }

    /// Removes sessions that have expired: a little in each turn with packets, so that none waits for
    /// it, and more in a nap. Both go through the table within some seconds. A table without sessions
    /// is not touched, so that its memory is not taken.
    fn sweep(&mut self, received: usize, now: Millis, naps: bool) {
        if naps {
            let totals = self.dataplane.sessions().totals();
            self.has_sessions = totals != [PortSessions::default(); 2];
        }
        let budget = match (received, naps) {
            _ if !self.has_sessions => return,
            (0, true) => SWEEP_BUDGET,
            (1.., _) => 1,
            _ => return,
        };
        self.dataplane.sessions().sweep(&mut self.sweep, budget, now.tick());
    }

    /// How long nothing is to be done but what wakes the worker.
    fn nap(&self, now: Nanos) -> Duration {
        let due = [self.dataplane.due(), self.gate.due()].into_iter().flatten().min();
        due.map_or(NAP, |due| NAP.min(Duration::from_nanos(due.0.saturating_sub(now.0))))
    }

    /// Nothing waits that older tables have begun. After this store the control thread may free older tables and close ports that they named.
    fn adopt(&mut self, epoch: Epoch) {
        self.shared.epoch.store(epoch.0, Ordering::Release);
        let turns = self.shared.turns.load(Ordering::Relaxed);
        self.shared.turns.store(turns.wrapping_add(1), Ordering::Relaxed);
    }

    /// The control thread takes the longest and leaves zero; of two at the same moment one may be
    /// lost.
    fn note_turn(&self, took: Duration) {
        let busy = self.shared.busy_ns.load(Ordering::Relaxed);
        self.shared.busy_ns.store(busy.wrapping_add(took.as_nanos() as u64), Ordering::Relaxed);
        let (took, longest) = (took.as_micros() as u64, &self.shared.longest_turn_us);
        if took > longest.load(Ordering::Relaxed) {
            longest.store(took, Ordering::Relaxed);
        }
    }

    fn wait(&mut self, timeout: Duration) {
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout)) {
            if error.kind() != io::ErrorKind::Interrupted {
                tracing::error!(%error, "cannot wait for packets");
            }
            return;
        }
        for event in &self.events {
            match event.token() {
                WAKE => {}
                Token(port) if port < MAX_PORTS => {
                    let port = PortId(port as u16);
                    // The gate opens it, which costs no wake-up a packet.
                    if !self.gate.is_closed(port) {
                        self.schedule.ready(port);
                    }
                }
                Token(queue) => {
                    if let Some(queue) = self.queues.get_mut(queue - QUEUE_TOKENS) {
                        queue.note_ready();
                    }
                }
            }
        }
    }
}
