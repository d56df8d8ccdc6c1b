//! What a worker is started with.
//!
//! Enters: the configuration's and the NIC's share of each worker, from the control thread. Leaves: nothing; `turn`
//! takes it apart.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use dataplane::session::SessionTable;
use dataplane::tables::PortId;
use netio::uplink::{Rx, Tx};

use crate::PortIo;

/// When a worker without packets goes to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// Never: the core is its own.
    Spin,
    /// After so many microseconds; a packet wakes it.
    Micros(u64),
}

/// What all workers share beside the tables.
#[derive(Debug, Clone)]
pub struct SharedState {
    /// The session table.
    pub sessions: Arc<SessionTable>,
    /// The moment from which workers count time: the kernel's boot, so that a session's age means the
    /// same after a restart.
    pub origin: Instant,
}

/// Gives up what the calling thread needs no more.
pub type Confine = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// What each thread gives up once it has all that it works with, and before its work begins. By default nothing.
#[derive(Clone)]
pub struct Confinement {
    /// Is called by each worker.
    pub worker: Confine,
    /// Is called by the closer.
    pub closer: Confine,
}

impl Default for Confinement {
    fn default() -> Self {
        let nothing: Confine = Arc::new(|| Ok(()));
        Self { worker: Arc::clone(&nothing), closer: nothing }
    }
}

impl fmt::Debug for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confinement")
    }
}

/// One worker to be started.
pub struct WorkerSpec {
    /// Number of the worker.
    pub id: usize,
    /// Where to pin it.
    pub core: Option<usize>,
    /// When to sleep.
    pub idle: Idle,
    /// How to read and write ports.
    pub port_io: PortIo,
    /// Packet frames.
    pub frames: u32,
    /// Learned MACs at most.
    pub fdb_max: u32,
    /// How long a learned MAC is kept.
    pub fdb_ageing_ms: u64,
    /// Its share of the NIC.
    pub uplink: Option<WorkerUplink>,
}

/// One worker's share of the NIC.
pub struct WorkerUplink {
    /// The NIC's port.
    pub port: PortId,
    /// The queues that it owns, by number. With none it receives from pods alone.
    pub queues: Vec<(u32, Rx)>,
    /// The one way by which it sends, so that its packets leave in the order in which they came.
    pub tx: Tx,
}
