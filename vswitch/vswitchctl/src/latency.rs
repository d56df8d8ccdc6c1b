//! Percentiles of latencies, since the daemon's start or of an interval.
//!
//! Enters: the daemon's counts, of one moment or of two. Leaves: percentiles, made by HdrHistogram, for `print`.

use std::collections::BTreeMap;

use api::{LatencyCounts, LatencyReport};
use hdrhistogram::Histogram;
use serde::Serialize;

/// Digits of a percentile: more than a bucket of the daemon's has, so that nothing is lost here.
const DIGITS: u8 = 3;

/// What is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct LatencySummary {
    /// The time that it covers.
    pub(crate) seconds: f64,
    /// That time began with the daemon.
    pub(crate) since_start: bool,
    /// By path.
    pub(crate) paths: Vec<Percentiles>,
    /// By port, the slowest first; empty if it was not asked for.
    pub(crate) ports: Vec<Percentiles>,
}

/// Latencies of a path, or of packets from a port, microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) name: String,
    /// Packets for which the timed ones stand.
    pub(crate) packets: u64,
    pub(crate) timed: u64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p99_9_us: f64,
    pub(crate) max_us: f64,
}

impl LatencySummary {
    /// Since the daemon's start.
    pub(crate) fn since_start(report: &LatencyReport) -> Self {
        Self::of(report.uptime_ms, true, report)
    }

    /// Between two moments. A daemon that was started anew meanwhile counts from its start.
    pub(crate) fn between(earlier: &LatencyReport, later: &LatencyReport) -> Self {
        let Some(ms) = later.uptime_ms.checked_sub(earlier.uptime_ms) else {
            return Self::since_start(later);
        };
        let paths = since(&earlier.paths, &later.paths);
        let ports = since(&earlier.ports, &later.ports);
        Self::of(ms, false, &LatencyReport { uptime_ms: ms, paths, ports })
    }

    fn of(ms: u64, since_start: bool, report: &LatencyReport) -> Self {
        let percentiles = |counts: &[LatencyCounts]| -> Vec<_> {
            counts.iter().filter_map(Percentiles::of).collect()
        };
        let mut ports = percentiles(&report.ports);
        ports.sort_by(|one, other| other.p99_us.total_cmp(&one.p99_us));
        let seconds = ms as f64 / 1000.0;
        Self { seconds, since_start, paths: percentiles(&report.paths), ports }
    }
}

impl Percentiles {
    /// `None` if there are no packets.
    fn of(counts: &LatencyCounts) -> Option<Self> {
        // It grows as it must, so that every value has room.
        let mut histogram = Histogram::<u64>::new(DIGITS).ok()?;
        for bucket in &counts.buckets {
            histogram.record_n(bucket.longest_ns, bucket.packets).ok()?;
        }
        let micros = |ns: u64| ns as f64 / 1000.0;
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self {
            name: counts.name.clone(),
            packets: histogram.len(),
            timed: counts.timed,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: micros(histogram.max()),
        })
    }
}

/// What has come since. Counts that are lower than before are another port's of the same number, and count
/// from zero.
fn since(earlier: &[LatencyCounts], later: &[LatencyCounts]) -> Vec<LatencyCounts> {
    let fresh = |later: &LatencyCounts| {
        let same =
            |earlier: &&LatencyCounts| (earlier.port, &earlier.name) == (later.port, &later.name);
        let difference = earlier.iter().find(same).and_then(|earlier| difference(earlier, later));
        difference.unwrap_or_else(|| later.clone())
    };
    later.iter().map(fresh).collect()
}

fn difference(earlier: &LatencyCounts, later: &LatencyCounts) -> Option<LatencyCounts> {
    let mut before: BTreeMap<_, _> =
        earlier.buckets.iter().map(|bucket| (bucket.longest_ns, bucket.packets)).collect();
    let mut fresh = later.clone();
    fresh.timed = fresh.timed.checked_sub(earlier.timed)?;
    for bucket in &mut fresh.buckets {
        let packets = before.remove(&bucket.longest_ns).unwrap_or(0);
        bucket.packets = bucket.packets.checked_sub(packets)?;
    }
    fresh.buckets.retain(|bucket| bucket.packets > 0);
    before.is_empty().then_some(fresh)
}

#[cfg(test)]
mod tests {
    use api::{LatencyBucket, LatencyCounts, LatencyReport};

    use super::{LatencySummary, Percentiles};

    fn counts(name: &str, port: Option<u16>, buckets: &[(u64, u64)]) -> LatencyCounts {
        let timed = buckets.iter().map(|(_, packets)| packets).sum::<u64>() / 2;
        let buckets = buckets.iter().map(|(longest_ns, packets)| LatencyBucket {
            longest_ns: *longest_ns,
            packets: *packets,
        });
        LatencyCounts { name: name.into(), port, timed, buckets: buckets.collect() }
    }

    fn report(uptime_ms: u64, paths: Vec<LatencyCounts>) -> LatencyReport {
        LatencyReport { uptime_ms, paths, ports: Vec::new() }
    }

    fn is_about(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() <= wanted / 1000.0
    }

    #[test]
    fn percentiles_are_of_packets() {
        let path = counts("pod-pod", None, &[(1007, 900), (5119, 95), (40_959, 4), (999_423, 1)]);
        let path = Percentiles::of(&path).expect("packets");
        assert_eq!((path.packets, path.timed), (1000, 500));
        for (value, wanted) in [
            (path.p50_us, 1.007),
            (path.p90_us, 1.007),
            (path.p99_us, 5.119),
            (path.p99_9_us, 40.959),
            (path.max_us, 999.423),
        ] {
            assert!(is_about(value, wanted), "{value} for {wanted}");
        }
        assert_eq!(Percentiles::of(&counts("pod-pod", None, &[])), None);
    }

    #[test]
    fn an_interval_has_what_came_within_it() {
        let earlier = report(1000, vec![counts("pod-pod", None, &[(1007, 100), (5119, 2)])]);
        let later = report(
            3500,
            vec![
                counts("pod-pod", None, &[(1007, 100), (5119, 6), (9983, 6)]),
                counts("pod-nic", None, &[(7039, 8)]),
            ],
        );
        let summary = LatencySummary::between(&earlier, &later);
        assert_eq!((summary.seconds, summary.since_start), (2.5, false));
        let shown: Vec<_> = summary
            .paths
            .iter()
            .map(|path| (path.name.as_str(), path.packets, path.timed))
            .collect();
        assert_eq!(shown, [("pod-pod", 10, 5), ("pod-nic", 8, 4)]);
        assert!(is_about(summary.paths[0].p50_us, 9.983), "{summary:?}");
        let nothing = LatencySummary::between(&later, &later);
        assert!(nothing.paths.is_empty());
    }

    #[test]
    fn a_daemon_that_was_started_anew_counts_from_its_start() {
        let earlier = report(90_000, vec![counts("pod-pod", None, &[(1007, 100)])]);
        let later = report(500, vec![counts("pod-pod", None, &[(1007, 200)])]);
        let summary = LatencySummary::between(&earlier, &later);
        assert_eq!((summary.seconds, summary.since_start), (0.5, true));
        assert_eq!(summary.paths[0].packets, 200);
    }

    #[test]
    fn a_port_that_has_another_s_number_counts_from_zero_and_the_slowest_is_first() {
        let ports = |ports| LatencyReport { uptime_ms: 1, paths: Vec::new(), ports };
        let earlier = ports(vec![
            counts("demo/a1", Some(2), &[(1007, 100)]),
            counts("demo/a2", Some(3), &[(5119, 10)]),
        ]);
        let later = ports(vec![
            counts("demo/a9", Some(2), &[(1007, 120)]),
            counts("demo/a2", Some(3), &[(7039, 4)]),
        ]);
        let summary = LatencySummary::between(&earlier, &later);
        let shown: Vec<_> =
            summary.ports.iter().map(|port| (port.name.as_str(), port.packets)).collect();
        assert_eq!(shown, [("demo/a2", 4), ("demo/a9", 120)]);
    }
}
