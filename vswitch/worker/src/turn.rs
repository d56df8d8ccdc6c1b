//! One worker's loop.
//!
//! A turn: take the published tables and the control thread's commands, store the epoch, receive
//! from the NIC's queues and from the TAPs that are ready, as `schedule` has them, each packet walked to its
//! end before the next; then flush. Without packets the worker spins a little, then sleeps until a file
//! descriptor is ready, or what waits for the rate of a port is due.
//!
//! mio is edge-triggered, and a turn reads a share from a TAP at most: the schedule remembers
//! which may still have packets. TAPs are chosen by readiness even while spinning, as asking each in
//! turn would cost a system call a pod. Looking at a queue of the NIC costs none.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use crossbeam_channel::{Receiver, Sender};
use dataplane::rate::{Budgets, Nanos};
use dataplane::session::{PortSessions, SweepCursor};
use dataplane::tables::{Epoch, Fdb, MAX_PORTS, PortId, Tables};
use dataplane::{Dataplane, DropReason, Millis, PathMtu, wire_len};
use frame::{Packet, Pool};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use netio::port::{PortFd, Recv};
use netio::uplink::{Rx, RxError};

use super::closer::ToClose;
use super::egress::EgressPorts;
use super::fdb_pages::{FdbCopier, FdbEntries};
use super::gate::Gate;
use super::schedule::{Left, SHARE, Schedule, Source, cost};
use super::{Command, Idle, Shared, SharedState, WAKE, WorkerSpec, WorkerUplink};

/// Packets from a queue of the NIC at a time: amortizes the kick of a batch, lets pieces of a flow be merged,
/// and takes about as long as a share of a TAP, as receiving costs no system call.
const QUEUE_BUDGET: usize = 32;
const QUEUE_COST: i64 = SHARE / QUEUE_BUDGET as i64;

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
    /// What a queue has just handed over; empty between turns.
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
    /// Which part of the session table is this worker's to sweep.
    pub(super) sweep: SweepCursor,
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

/// What serving a source came to.
struct Served {
    /// Packets that were received.
    packets: usize,
    /// What they took, as `schedule` counts it.
    took: i64,
    left: Left,
}

impl Turn {
    pub(super) fn new(
        spec: WorkerSpec,
        poll: Poll,
        inbox: Inbox,
        shared: Arc<Shared>,
        outbox: Outbox,
    ) -> io::Result<Self> {
        let Inbox { commands, tables, state, tx_budgets, sweep } = inbox;
        let Outbox { port_gone, path_mtu, fdb_pages, to_close } = outbox;
        let pool = Pool::new(spec.frames);
        let uplink = spec.uplink.as_ref().map(|uplink| uplink.port);
        let (queues, egress) = match spec.uplink {
            Some(WorkerUplink { port, queues, tx }) => (queues, Some((port, tx))),
            None => (Vec::new(), None),
        };
        let queues: Vec<Rx> = queues.into_iter().map(|(_, rx)| rx).collect();
        for (index, queue) in queues.iter().enumerate() {
            let token = Token(QUEUE_TOKENS + index);
            let fd = queue.as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        }
        let fdb = Fdb::new(spec.fdb_max, spec.fdb_ageing_ms);
        let counters = Arc::clone(&shared.counters);
        let turn = Self {
            tables: Cache::new(tables),
            inbox: commands,
            dataplane: Dataplane::new(fdb, pool.clone(), counters, state.sessions)
                .sharing(Arc::clone(&tx_budgets))
                .sampling(Arc::clone(&shared.drops)),
            ports: EgressPorts::new(egress, pool.clone(), port_gone),
            pool,
            shared,
            uplink,
            schedule: Schedule::new(queues.len()),
            queues,
            batch: Vec::with_capacity(QUEUE_BUDGET),
            poll,
            events: Events::with_capacity(256),
            gate: Gate::new(),
            tx_budgets,
            idle: spec.idle,
            origin: state.origin,
            sweep,
            has_sessions: false,
            path_mtu,
            fdb_copier: FdbCopier::new(fdb_pages),
            to_close,
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
            self.adopt(tables.epoch);
            self.fdb_copier.copy(&self.dataplane.fdb, now);

            self.dataplane.turn(&tables, nanos, &mut self.ports);
            self.gate.open(nanos, |port| self.schedule.ready(port));
            let received = self.serve(&tables, now, nanos);
            let unsent = self.ports.flush();
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
                || self.fdb_copier.is_busy();
            let timeout = if sleeps && !has_work { self.nap(nanos) } else { Duration::ZERO };
            busy_since = (received > 0).then_some(at);
            if !timeout.is_zero()
                && let Some(since) = busy_since.take()
            {
                // The sleep is no part of it; beside that, reading the clock costs nothing.
                self.note_turn(since.elapsed());
            }
            self.wait(timeout);

            if at.duration_since(last_nap) >= NAP {
                last_nap = at;
                self.dataplane.fdb.expire(now, EXPIRE_BUDGET);
                self.shared.frames_free.store(self.pool.available(), Ordering::Relaxed);
            }
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

    /// Commands that were sent before tables were published are seen with them. False to end.
    fn commands(&mut self) -> bool {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::AddPort { id, io, receives } => self.add(id, io, receives),
                Command::RemovePort { id } => self.remove(id),
                Command::ForgetLearned { id } => self.dataplane.fdb.forget_port(id),
                Command::CopyFdb { into } => self.fdb_copier.begin(into),
                #[cfg(test)]
                Command::Panic => panic!("by order of a test"),
                Command::Stop => return false,
            }
        }
        true
    }

    fn add(&mut self, id: PortId, io: Arc<PortFd>, receives: bool) {
        self.remove(id);
        self.shared.counters.clear_port(id);
        if receives {
            // No tables name the port yet, so that no worker sends to it.
            if let Some(budget) = self.tx_budgets.of(id) {
                budget.reset();
            }
            let fd = io.as_raw_fd();
            let token = Token(usize::from(id.0));
            match self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE) {
                Ok(()) => self.schedule.ready(id),
                Err(error) => tracing::error!(port = id.0, %error, "cannot watch a port"),
            }
        }
        self.ports.add(id, io);
    }

    fn remove(&mut self, id: PortId) {
        self.dataplane.forget_port(id);
        self.gate.forget(id);
        if let Some(io) = self.ports.remove(id) {
            // Fails where this worker only sends.
            let _ = self.poll.registry().deregister(&mut SourceFd(&io.as_raw_fd()));
            // The closer outlives the workers.
            let _ = self.to_close.send(io);
        }
    }

    /// After this store the control thread may free older tables and close ports that they named.
    fn adopt(&mut self, epoch: Epoch) {
        self.shared.epoch.store(epoch.0, Ordering::Release);
        let turns = self.shared.turns.load(Ordering::Relaxed);
        self.shared.turns.store(turns.wrapping_add(1), Ordering::Relaxed);
    }

    /// The control thread takes the longest and leaves zero; of two at the same moment one may be
    /// lost.
    fn note_turn(&self, took: Duration) {
        let (took, longest) = (took.as_micros() as u64, &self.shared.longest_turn_us);
        if took > longest.load(Ordering::Relaxed) {
            longest.store(took, Ordering::Relaxed);
        }
    }

    /// Packets that were received.
    fn serve(&mut self, tables: &Tables, now: Millis, nanos: Nanos) -> usize {
        let mut received = 0;
        let mut plan = self.schedule.begin();
        while let Some((source, credit)) = self.schedule.next(&mut plan) {
            let served = match source {
                Source::Queue(queue) => self.queue(tables, usize::from(queue), credit, now),
                Source::Port(id) => self.tap(tables, id, credit, now, nanos),
            };
            received += served.packets;
            self.schedule.served(source, served.took, served.left);
        }
        received
    }

    fn queue(&mut self, tables: &Tables, queue: usize, credit: i64, now: Millis) -> Served {
        let Self { queues, pool, dataplane, ports, path_mtu, batch, .. } = self;
        let (Some(uplink), Some(queue)) = (self.uplink, queues.get_mut(queue)) else {
            return Served { packets: 0, took: 0, left: Left::Nothing };
        };
        let budget = (credit / QUEUE_COST).clamp(1, QUEUE_BUDGET as i64) as usize;
        // All of a batch hold their memory until the first is processed.
        let budget = budget.min(pool.available().max(1));
        let packets = queue.recv(pool, budget, |received| match received {
            Ok(packet) => batch.push(packet),
            Err(RxError::NoFrame) => dataplane.unreadable(uplink, DropReason::NoFrames),
            Err(RxError::TooLong) => dataplane.unreadable(uplink, DropReason::PortRefused),
            Err(RxError::Malformed) => dataplane.unreadable(uplink, DropReason::OffloadInvalid),
        });
        Dataplane::prefetch(tables, batch.iter().map(|packet| (uplink, packet)));
        for packet in batch.drain(..) {
            dataplane.process(tables, uplink, packet, now, ports);
        }
        dataplane.flush(tables, ports);
        if packets > 0 {
            for heard in dataplane.take_path_mtus() {
                // One that has no room is reported again by the router.
                let _ = path_mtu.try_send(heard);
            }
        }
        let left = if packets < budget { Left::Nothing } else { Left::Some };
        Served { packets, took: packets as i64 * QUEUE_COST, left }
    }

    fn tap(
        &mut self,
        tables: &Tables,
        id: PortId,
        credit: i64,
        now: Millis,
        nanos: Nanos,
    ) -> Served {
        let mut served = Served { packets: 0, took: 0, left: Left::Nothing };
        let Some(io) = self.ports.io(id).map(Arc::clone) else { return served };
        // A port comes before the tables that name it: its first packets wait for them.
        let Some(port) = tables.port(id) else { return Served { left: Left::Some, ..served } };
        let limit = port.rx_limit.as_ref();
        while served.took < credit {
            if let Some(limit) = limit
                && !self.gate.is_open(id, limit, nanos)
            {
                self.shared.counters.rx_delayed(id);
                return served;
            }
            let Some(frame) = self.pool.alloc() else { break };
            let mut packet = Packet::plain(frame);
            match io.recv(&mut packet) {
                Recv::Packet => {
                    if let Some(limit) = limit {
                        self.gate.charge(id, limit, wire_len(&packet), nanos);
                    }
                    served.took += cost(packet.frame.len());
                    self.dataplane.process(tables, id, packet, now, &mut self.ports);
                }
                Recv::Malformed => {
                    served.took += cost(0);
                    self.dataplane.unreadable(id, DropReason::OffloadInvalid);
                }
                Recv::WouldBlock => return served,
                Recv::Gone => {
                    self.ports.note_gone(id);
                    return served;
                }
            }
            served.packets += 1;
        }
        Served { left: Left::Some, ..served }
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
