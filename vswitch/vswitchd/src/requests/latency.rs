//! How long packets take through the switch.
//!
//! Enters: the histograms of each worker. Leaves: their sums, by path and by port, for `latency` and for metrics.

use api::{LatencyBucket, LatencyCounts, LatencyReport};
use dataplane::tables::PortId;
use worker::{LatencyPath, LatencySnapshot};

use crate::daemon::Daemon;

impl Daemon {
    pub(super) fn show_latency(&self, by_port: bool) -> LatencyReport {
        let paths = LatencyPath::ALL.into_iter();
        let paths = paths.map(|path| counts(path.label().into(), None, &self.latency_of(path)));
        let ports = self.ports().into_iter().filter(|_| by_port).map(|port| {
            let mut sum = LatencySnapshot::default();
            for latencies in self.node.workers.latencies() {
                sum.add(&latencies.port(PortId(port.id)));
            }
            counts(port.name, Some(port.id), &sum)
        });
        LatencyReport {
            uptime_ms: self.started.elapsed().as_millis() as u64,
            paths: paths.filter(|counts| counts.timed > 0).collect(),
            ports: ports.filter(|counts| counts.timed > 0).collect(),
        }
    }

    /// Of all workers.
    pub(super) fn latency_of(&self, path: LatencyPath) -> LatencySnapshot {
        let mut sum = LatencySnapshot::default();
        for latencies in self.node.workers.latencies() {
            sum.add(&latencies.path(path));
        }
        sum
    }
}

fn counts(name: String, port: Option<u16>, of: &LatencySnapshot) -> LatencyCounts {
    let buckets = of.buckets().map(|(longest_ns, packets)| LatencyBucket { longest_ns, packets });
    LatencyCounts { name, port, timed: of.timed(), buckets: buckets.collect() }
}
