//! What workers show of themselves while they run.
//!
//! Enters: words that each worker writes and others read. Leaves: [`WorkerState`], to the control thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dataplane::counters::Counters;
use dataplane::drop_ring::DropRing;
use dataplane::tables::Epoch;
use netio::uplink::UplinkKind;

use crate::Workers;
use crate::handoff::Kept;
use crate::latency::Latencies;
use crate::port_io::PortIoChoice;

/// What a worker shows to the control thread while it runs.
pub(crate) struct Shared {
    pub(super) epoch: AtomicU64,
    pub(super) turns: AtomicU64,
    pub(super) frames_free: AtomicUsize,
    /// Since it was last asked for.
    pub(super) longest_turn_us: AtomicU64,
    pub(super) busy_ns: AtomicU64,
    pub(super) pinned: AtomicBool,
    pub(super) thread_id: AtomicU32,
    pub(super) counters: Arc<Counters>,
    pub(super) latencies: Arc<Latencies>,
    pub(super) drops: Arc<DropRing>,
    pub(super) kept: Arc<Kept>,
    /// Set at the start, and perhaps once more.
    pub(super) port_io: ArcSwapOption<PortIoChoice>,
}

/// State of one worker.
#[derive(Debug, Clone)]
pub struct WorkerState {
    /// Number of the worker.
    pub id: usize,
    /// The core that it is pinned to; none if it asked for none or was refused.
    pub core: Option<usize>,
    /// The kernel's number of its thread.
    pub thread_id: u32,
    /// The NIC's queues that it owns.
    pub queues: Vec<u32>,
    /// How it sends by the NIC.
    pub sends_by: Option<UplinkKind>,
    /// How it reads and writes its ports, and why.
    pub port_io: Option<PortIoChoice>,
    /// The tables that it uses.
    pub epoch: Epoch,
    /// Turns of its loop so far: a worker that runs makes at least one a second.
    pub turns: u64,
    /// Packet frames that are free.
    pub frames_free: usize,
    /// Packet frames in all.
    pub frames_total: usize,
    /// The longest turn with packets since the last look, microseconds: they waited for so long.
    pub longest_turn_us: u64,
    /// The time that turns with packets have taken so far.
    pub busy: Duration,
    /// Other workers that its packets of IPIP are handed over to.
    pub hands_over_to: Vec<usize>,
    /// Packets that it has handed over so far.
    pub handed_over: u64,
}

impl Workers {
    /// State of each worker. The longest turn is forgotten by that, so that the next look covers the
    /// time between.
    #[must_use]
    pub fn look(&self) -> Vec<WorkerState> {
        let mut states = self.states();
        for (state, handle) in states.iter_mut().zip(&self.handles) {
            state.longest_turn_us = handle.shared.longest_turn_us.swap(0, Ordering::Relaxed);
        }
        states
    }

    /// State of each worker.
    #[must_use]
    pub fn states(&self) -> Vec<WorkerState> {
        self.handles
            .iter()
            .map(|handle| WorkerState {
                id: handle.id,
                core: handle.core.filter(|_| handle.shared.pinned.load(Ordering::Relaxed)),
                thread_id: handle.shared.thread_id.load(Ordering::Relaxed),
                queues: handle.queues.clone(),
                sends_by: handle.sends_by,
                port_io: handle.shared.port_io.load().as_deref().cloned(),
                epoch: handle.shared.epoch(),
                turns: handle.shared.turns.load(Ordering::Relaxed),
                frames_free: handle.shared.frames_free.load(Ordering::Relaxed),
                frames_total: handle.frames,
                longest_turn_us: handle.shared.longest_turn_us.load(Ordering::Relaxed),
                busy: Duration::from_nanos(handle.shared.busy_ns.load(Ordering::Relaxed)),
                hands_over_to: handle.hands_over_to(),
                handed_over: handle.handed_over(),
            })
            .collect()
    }
}

impl Shared {
    /// What a worker shows that has not begun.
    pub(super) fn new(frames: usize) -> Self {
        Self {
            epoch: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            frames_free: AtomicUsize::new(frames),
            longest_turn_us: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            pinned: AtomicBool::new(false),
            thread_id: AtomicU32::new(0),
            counters: Arc::new(Counters::new()),
            latencies: Arc::new(Latencies::new()),
            drops: Arc::new(DropRing::new()),
            kept: Arc::default(),
            port_io: ArcSwapOption::empty(),
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    pub(super) fn set_port_io(&self, choice: PortIoChoice) {
        self.port_io.store(Some(Arc::new(choice)));
    }
}
