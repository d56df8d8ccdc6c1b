//! The pinned threads, in which packets pass between `netio` and `dataplane`.
//!
//! Enters: ports and tables from the control thread. Leaves: packets, counters, and the epoch that
//! each worker uses. Workers share nothing: each owns whole NIC queues, or none, the receive side of
//! its pods' TAPs, its learned MACs, its packet memory and its counters, and has a transmit handle
//! of its own for every port, the NIC's included. No frame changes thread: of a packet that a worker leaves to
//! another one (`handoff`) the bytes are copied.
//!
//! | file | holds |
//! |---|---|
//! | `lib`       | [`Workers`]: what the control thread may ask of them |
//! | `command`   | what it asks of one |
//! | `state`     | what workers show of themselves |
//! | `publish`   | tables to workers, and when they have them |
//! | `turn`      | the loop: commands, NIC queues, TAPs, flush, sleep |
//! | `fdb_pages` | copies learned MACs to the control thread, a page a turn |
//! | `egress`    | transmit handles: the way out of the walk |
//! | `gather`    | packets that are written and read together, by io_uring |
//! | `port_io`   | whether that pays on this machine |
//! | `batch_sizes` | how many packets of a port are read together |
//! | `schedule`  | which source is served next, and with how much |
//! | `latency`   | how long packets take through a worker, counted for other threads |
//! | `latency_sampler` | which of them are timed |
//! | `handoff`   | packets of IPIP that a worker leaves to another one |
//! | `gate`      | which ports are not read for now, as their pods' rate is used up |
//! | `spec`      | what a worker is started with |
//! | `cores`     | which thread runs on which core |
//! | `closer`    | closes TAPs, which takes milliseconds, away from the pinned cores |
//! | `essential` | threads that end the process if they panic |
//!
//! # Threads, and what each may touch
//! Packets meet no lock. Three kinds of thread share a few words, channels and file descriptors:
//!
//! - **The control thread** (one, vswitchd's) owns [`Workers`] and [`publish::Publisher`]. It alone
//!   swaps the published tables, frees the old ones and sends commands.
//! - **A worker** (pinned) owns what its loop touches: its NIC queues, packet memory, learned MACs,
//!   readiness queue. It writes its counters, its latencies, its ring of dropped packets and its epoch, with no other
//!   writer; the control thread reads them. It looks at the published tables once a turn, by one atomic load where
//!   nothing has changed.
//! - **Between two workers**, if one hands packets over to the other, there is a ring: each place of it is one
//!   side's alone at any time, and each side publishes with one word how far it is. A third word tells the sender
//!   what has reached its end. Whether a worker sleeps is a word that all read that hand over to it.
//! - **What may still be sent to ports with a rate, and by their pods,** is an atomic of each port and direction,
//!   which all workers share: a rate is the port's, whichever worker sends to it or reads one of its queues. They
//!   count time from one moment therefore.
//! - **The closer** (one) closes the file descriptors of removed ports, and the queues of a former uplink.
//!
//! The file descriptor of a port is shared: one worker alone reads from it, and each writes to it,
//! a whole frame by one system call. A port with several queues has a descriptor for each, and a worker reads from
//! one of them at most. Each worker holds a reference and gives that to the closer when
//! a command removes the port, so the last one to do so ends it.
//!
//! A worker waits for packets and commands, and for no other thread: its channels to others are
//! unbounded, or it drops what a full one does not take. A panic in a worker or in the closer ends
//! the process.

#![forbid(unsafe_code)]

mod batch_sizes;
mod closer;
mod command;
pub mod cores;
mod egress;
mod essential;
mod fdb_pages;
mod gate;
mod gather;
mod handoff;
mod latency;
mod latency_sampler;
mod port_io;
pub mod publish;
mod schedule;
mod spec;
mod state;
#[cfg(test)]
mod tests;
mod turn;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use dataplane::PathMtu;
use dataplane::counters::Counters;
use dataplane::drop_ring::DropRing;
use dataplane::rate::Budgets;
use dataplane::session::SweepCursor;
use dataplane::tables::{Epoch, LearnedMac, PortId, Tables};
use mio::{Poll, Token, Waker};
use netio::port::PortFd;
use netio::uplink::UplinkKind;

use closer::Closer;
use command::Command;
use fdb_pages::FdbReader;
pub use handoff::IpipWork;
use handoff::{Bell, Ring};
pub use latency::{Latencies, LatencyPath, LatencySnapshot};
pub use port_io::{PortIo, PortIoChoice};
pub use schedule::work;
pub use spec::{Confine, Confinement, Idle, SharedState, WorkerSpec, WorkerUplink};
use state::Shared;
pub use state::WorkerState;
use turn::{Inbox, Outbox, Turn};

struct Handle {
    id: usize,
    core: Option<usize>,
    queues: Vec<u32>,
    sends_by: Option<UplinkKind>,
    frames: usize,
    commands: Sender<Command>,
    waker: Arc<Waker>,
    shared: Arc<Shared>,
    fdb: FdbReader,
    bell: Arc<Bell>,
    /// Workers among which its packets of IPIP are shared; empty if nobody has said.
    members: Vec<usize>,
    /// By which it hands packets over, and to which worker.
    rings: Vec<(usize, Arc<Ring>)>,
    thread: JoinHandle<()>,
}

/// The running workers.
pub struct Workers {
    handles: Vec<Handle>,
    gone_ports: Receiver<PortId>,
    path_mtus: Receiver<PathMtu>,
    closer: Closer,
}

/// How long a worker is waited for that is to stop receiving from a port: a turn takes microseconds. One whose
/// packets wait longer, for the rate of another port, goes on receiving.
const STOP_PATIENCE: Duration = Duration::from_millis(50);

/// Path MTUs that wait for the control thread at most; a router repeats what has no room.
const PATH_MTUS: usize = 256;

pub(crate) const WAKE: Token = Token(usize::MAX);

impl Workers {
    /// Starts, pins and confines them. Each uses the published tables before this returns.
    ///
    /// # Errors
    /// If a thread or its readiness queue cannot be made, or a worker cannot be confined.
    pub fn spawn(
        specs: Vec<WorkerSpec>,
        tables: &Arc<ArcSwap<Tables>>,
        state: &SharedState,
        confinement: &Confinement,
    ) -> io::Result<Self> {
        let (port_gone, gone_ports) = unbounded();
        let (path_mtu, path_mtus) = bounded(PATH_MTUS);
        let closer = Closer::spawn(Arc::clone(&confinement.closer))?;
        let tx_budgets = Arc::<Budgets>::default();
        let rx_budgets = Arc::<Budgets>::default();
        let count = specs.len();
        let mut handles = Vec::with_capacity(count);
        for spec in specs {
            let poll = Poll::new()?;
            let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
            let bell = Arc::new(Bell::new(Arc::clone(&waker)));
            let (commands, inbox) = unbounded();
            let shared = Arc::new(Shared::new(spec.frames as usize));
            let (id, core, frames) = (spec.id, spec.core, spec.frames as usize);
            let uplink = spec.uplink.as_ref();
            let queues =
                uplink.iter().flat_map(|own| &own.queues).map(|(queue, _)| *queue).collect();
            let sends_by = uplink.map(|own| own.tx.kind());
            let (ready_tx, ready) = bounded(1);
            let (fdb, fdb_pages) = FdbReader::new(spec.fdb_max);
            let thread = {
                let (tables, shared) = (Arc::clone(tables), Arc::clone(&shared));
                let sweep = SweepCursor::new(spec.id as u32, count as u32);
                let (tx_budgets, rx_budgets) = (Arc::clone(&tx_budgets), Arc::clone(&rx_budgets));
                let (state, bell) = (state.clone(), Arc::clone(&bell));
                let confine = Arc::clone(&confinement.worker);
                let inbox =
                    Inbox { commands: inbox, tables, state, tx_budgets, rx_budgets, sweep, bell };
                let outbox = Outbox {
                    port_gone: port_gone.clone(),
                    path_mtu: path_mtu.clone(),
                    fdb_pages,
                    to_close: closer.to_close(),
                };
                essential::spawn(&format!("worker-{id}"), move || {
                    shared.pinned.store(cores::pin(core), Ordering::Relaxed);
                    shared.thread_id.store(cores::thread_id(), Ordering::Relaxed);
                    let turn = Turn::new(spec, poll, inbox, shared, outbox);
                    match turn.and_then(|turn| confine().map(|()| turn)) {
                        Ok(turn) => {
                            // A closed channel means that the starter gave up; the turn ends too.
                            let _ = ready_tx.send(Ok(()));
                            turn.run();
                        }
                        Err(error) => {
                            let _ = ready_tx.send(Err(error));
                        }
                    }
                })?
            };
            match ready.recv() {
                Ok(result) => result?,
                Err(_) => return Err(io::Error::other(format!("worker {id} ended at its start"))),
            }
            handles.push(Handle {
                id,
                core,
                queues,
                sends_by,
                frames,
                commands,
                waker,
                shared,
                fdb,
                bell,
                members: Vec::new(),
                rings: Vec::new(),
                thread,
            });
        }
        Ok(Self { handles, gone_ports, path_mtus, closer })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.handles.len()
    }

    /// Gives every worker a transmit handle for a port; `receiver` reads from it as well. Tables
    /// that name the port may be published afterwards.
    pub fn add_port(&self, id: PortId, io: &Arc<PortFd>, receiver: usize) {
        self.add_queues(id, std::slice::from_ref(io), &[receiver]);
    }

    /// As `add_port`, for a port with several queues: each is read by the worker of the same place in
    /// `receivers`, no two of which are the same, and that worker sends by it as well. Others send by the first.
    pub fn add_queues(&self, id: PortId, queues: &[Arc<PortFd>], receivers: &[usize]) {
        let Some(first) = queues.first() else { return };
        for handle in &self.handles {
            let own = receivers.iter().position(|receiver| *receiver == handle.id);
            let io = own.and_then(|queue| queues.get(queue));
            let receives = io.is_some();
            handle.send(Command::AddPort { id, io: Arc::clone(io.unwrap_or(first)), receives });
        }
    }

    /// Takes a port from every worker; no published tables may name it any more. Its file
    /// descriptor is closed once all have let go of it, on a thread of its own.
    pub fn remove_port(&self, id: PortId) {
        for handle in &self.handles {
            handle.send(Command::RemovePort { id });
        }
    }

    /// Has one worker receive from a port instead of another. The first one stops; when all that it had received
    /// is on its way, the other one starts, so that packets of a flow stay in their order. False, and the
    /// first one goes on, if some wait there for the rate of another port.
    #[must_use]
    pub fn move_port(&self, id: PortId, from: usize, to: usize) -> bool {
        let (Some(former), Some(next)) = (self.handles.get(from), self.handles.get(to)) else {
            return false;
        };
        let (done, stopped) = bounded(1);
        former.send(Command::StopReceiving { id, done });
        let has_stopped = stopped.recv_timeout(STOP_PATIENCE).is_ok();
        let receiver = if has_stopped { next } else { former };
        receiver.send(Command::StartReceiving { id });
        has_stopped
    }

    /// Gives each worker another share of the NIC, in the order of their numbers. It uses the new one when it
    /// takes the command, within a turn; what then waits in its former queues is lost.
    ///
    /// # Panics
    /// If there are fewer or more shares than workers.
    pub fn change_uplink(&mut self, shares: Vec<WorkerUplink>) {
        assert_eq!(shares.len(), self.handles.len(), "each worker has a share");
        for (handle, share) in self.handles.iter_mut().zip(shares) {
            handle.queues = share.queues.iter().map(|(queue, _)| *queue).collect();
            handle.sends_by = Some(share.tx.kind());
            handle.send(Command::ChangeUplink(Box::new(share)));
        }
    }

    /// Has every worker forget the MACs that it learned, before it looks at tables that are published
    /// from now on.
    pub fn forget_learned(&self) {
        for handle in &self.handles {
            handle.send(Command::ForgetLearned);
        }
    }

    /// Makes sleeping workers look at the published tables.
    pub fn wake(&self) {
        for handle in &self.handles {
            handle.wake();
        }
    }

    /// Waits until every worker uses tables of at least this epoch; false after `timeout`.
    #[must_use]
    pub fn wait_epoch(&self, epoch: Epoch, timeout: Duration) -> bool {
        self.wake();
        let deadline = Instant::now() + timeout;
        loop {
            if self.handles.iter().all(|handle| handle.shared.epoch() >= epoch) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_micros(20));
        }
    }

    /// The counters of each worker, in the order of their numbers.
    #[must_use]
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.handles.iter().map(|handle| Arc::clone(&handle.shared.counters)).collect()
    }

    /// The latencies of each worker, in the order of their numbers.
    #[must_use]
    pub fn latencies(&self) -> Vec<Arc<Latencies>> {
        self.handles.iter().map(|handle| Arc::clone(&handle.shared.latencies)).collect()
    }

    /// The latest dropped packets of each worker while they are followed, in the order of their numbers.
    #[must_use]
    pub fn drop_rings(&self) -> Vec<Arc<DropRing>> {
        self.handles.iter().map(|handle| Arc::clone(&handle.shared.drops)).collect()
    }

    /// The MACs that each has learned, with the age of every entry in milliseconds; a worker that
    /// does not answer within `timeout` is left out.
    #[must_use]
    pub fn learned(&self, timeout: Duration) -> Vec<(usize, Vec<(LearnedMac, u64)>)> {
        for handle in &self.handles {
            if let Some(into) = handle.fdb.memory() {
                handle.send(Command::CopyFdb { into });
            }
        }
        let deadline = Instant::now() + timeout;
        self.handles
            .iter()
            .filter_map(|handle| Some((handle.id, handle.fdb.entries(deadline)?)))
            .collect()
    }

    /// Ports that lost their device since the last call: the pod's namespace ended.
    #[must_use]
    pub fn gone_ports(&self) -> Vec<PortId> {
        self.gone_ports.try_iter().collect()
    }

    /// Path MTUs that routers of the underlay have reported since the last call.
    #[must_use]
    pub fn heard_path_mtus(&self) -> Vec<PathMtu> {
        self.path_mtus.try_iter().collect()
    }

    /// Ends them all, and closes their sockets.
    pub fn stop(self) {
        for handle in &self.handles {
            handle.send(Command::Stop);
        }
        for handle in self.handles {
            essential::join(handle.thread);
        }
        self.closer.stop();
    }
}

impl Handle {
    fn send(&self, command: Command) {
        // A worker that could not be started has dropped its ports; nothing is left to send to.
        let _ = self.commands.send(command);
        self.wake();
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(worker = self.id, %error, "cannot wake a worker");
        }
    }
}
