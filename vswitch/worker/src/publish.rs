//! Hands tables to the workers.
//!
//! Enters: tables from `compile`. Leaves: the same behind a pointer that workers look at once a
//! turn. Replaced tables are kept until every worker is past them, so that they are freed here and
//! never on a pinned core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dataplane::tables::{Epoch, Tables};
use hdrhistogram::Histogram;

use crate::Workers;

/// How long a publication is waited for. A turn takes microseconds; a second is a stuck worker.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Longest latency that is distinguished from longer ones, microseconds.
const MAX_LATENCY_US: u64 = 60_000_000;

/// The published tables.
pub struct Publisher {
    current: Arc<ArcSwap<Tables>>,
    epoch: Epoch,
    retired: Vec<Arc<Tables>>,
    in_force_since: Option<Instant>,
    latency_us: Histogram<u64>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self::new()
    }
}

impl Publisher {
    /// Empty tables: everything is dropped.
    #[must_use]
    pub fn new() -> Self {
        let latency_us = Histogram::new_with_bounds(1, MAX_LATENCY_US, 2)
            .expect("the bounds are in order and two digits are allowed");
        Self {
            current: Arc::new(ArcSwap::from_pointee(Tables::default())),
            epoch: Epoch(0),
            retired: Vec::new(),
            in_force_since: None,
            latency_us,
        }
    }

    /// The tables that workers look at.
    #[must_use]
    pub fn shared(&self) -> &Arc<ArcSwap<Tables>> {
        &self.current
    }

    /// The tables that forward now.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        self.current.load_full()
    }

    /// Epoch of the published tables.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Publishes tables and waits for every worker; false if one does not follow.
    pub fn publish(&mut self, tables: Tables, workers: &Workers) -> bool {
        let begin = Instant::now();
        self.epoch = tables.epoch;
        self.retired.push(self.current.swap(Arc::new(tables)));
        let all_follow = workers.wait_epoch(self.epoch, PATIENCE);
        self.in_force_since = all_follow.then(Instant::now);
        if all_follow {
            self.latency_us.saturating_record(begin.elapsed().as_micros() as u64);
            self.retired.clear();
        } else {
            tracing::error!(epoch = self.epoch.0, "a worker does not take new tables");
        }
        all_follow
    }

    /// Frees what was waiting for a worker that has come round since.
    pub fn settle(&mut self, workers: &Workers) -> bool {
        if !self.retired.is_empty() && workers.wait_epoch(self.epoch, Duration::ZERO) {
            self.retired.clear();
        }
        self.retired.is_empty()
    }

    /// Since when every worker uses the published tables; `None` if one did not follow in time.
    #[must_use]
    pub fn in_force_since(&self) -> Option<Instant> {
        self.in_force_since
    }

    /// From publishing to every worker's using, microseconds: p50, p99, max.
    #[must_use]
    pub fn latency_us(&self) -> Option<[u64; 3]> {
        let latency = &self.latency_us;
        (!latency.is_empty()).then(|| {
            [latency.value_at_quantile(0.5), latency.value_at_quantile(0.99), latency.max()]
        })
    }
}
