//! How long packets take through a worker, by path and by port: counts of one worker, written by that
//! worker alone.
//!
//! Enters: packets that [`LatencySampler`](crate::latency_sampler::LatencySampler) has timed. Leaves:
//! snapshots, for any thread at any time. A single writer makes load-add-store enough; relaxed, as no count
//! orders anything else.
//!
//! A histogram has its buckets as HdrHistogram has them: each octave is cut into as many. With 32 an octave, a
//! bucket's end lies at most 1/32 above what is in it, and 17 s take 864 of them, 6.8 KiB. HdrHistogram's own of two
//! digits would take 28 KiB, for each of 1,024 ports 28 MiB a worker instead of seven; and it has no atomics. Pages
//! become resident as buckets are first used: latencies of some octaves take one page or two.

use std::sync::atomic::{AtomicU64, Ordering};

use dataplane::tables::{MAX_PORTS, PortId, PortRole};
use frame::Words;

/// Nanoseconds that the narrowest bucket covers: less than a reading of the clock takes.
const UNIT_NS: u64 = 8;
/// Buckets of an octave.
const PER_OCTAVE: usize = 32;
/// 2^34 ns are 17 s: a worker that does not turn for nine is ended by the watchdog.
const LONGEST_NS: u64 = 1 << 34;
/// The number of the bucket before [`LONGEST_NS`], and one more.
const BUCKETS: usize = bucket(LONGEST_NS - 1) + 1;

/// In front of the buckets: packets that were timed, and the sum of the nanoseconds of all.
const TIMED: usize = 0;
const SUM: usize = 1;
const FIRST_BUCKET: usize = 2;
/// A whole number of cache lines of eight words.
const HISTOGRAM_WORDS: usize = (FIRST_BUCKET + BUCKETS).next_multiple_of(8);

/// Where packets come from, and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LatencyPath {
    /// Between two pods of the node.
    PodToPod,
    /// From a pod to the node's kernel.
    PodToHost,
    /// From the node's kernel to a pod.
    HostToPod,
    /// From a pod to the NIC.
    PodToNic,
    /// From the NIC to a pod.
    NicToPod,
    /// From the node's kernel to the NIC.
    HostToNic,
    /// From the NIC to the node's kernel.
    NicToHost,
}

impl LatencyPath {
    /// Every path, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::PodToPod,
        Self::PodToHost,
        Self::HostToPod,
        Self::PodToNic,
        Self::NicToPod,
        Self::HostToNic,
        Self::NicToHost,
    ];

    /// The path between two kinds of ports; `None` where only answers of the switch pass.
    #[must_use]
    pub fn between(from: PortRole, to: PortRole) -> Option<Self> {
        match (from, to) {
            (PortRole::Pod, PortRole::Pod) => Some(Self::PodToPod),
            (PortRole::Pod, PortRole::Host) => Some(Self::PodToHost),
            (PortRole::Pod, PortRole::Uplink) => Some(Self::PodToNic),
            (PortRole::Host, PortRole::Pod) => Some(Self::HostToPod),
            (PortRole::Host, PortRole::Uplink) => Some(Self::HostToNic),
            (PortRole::Uplink, PortRole::Pod) => Some(Self::NicToPod),
            (PortRole::Uplink, PortRole::Host) => Some(Self::NicToHost),
            (PortRole::Host, PortRole::Host) | (PortRole::Uplink, PortRole::Uplink) => None,
        }
    }

    /// The name under which it is shown.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::PodToPod => "pod-pod",
            Self::PodToHost => "pod-host",
            Self::HostToPod => "host-pod",
            Self::PodToNic => "pod-nic",
            Self::NicToPod => "nic-pod",
            Self::HostToNic => "host-nic",
            Self::NicToHost => "nic-host",
        }
    }
}

/// Latencies of one worker: a histogram of each path, and one of each port that packets come from.
#[derive(Debug)]
pub struct Latencies(Words);

/// A histogram at one moment. A count that is written meanwhile is in it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencySnapshot {
    timed: u64,
    sum_ns: u64,
    buckets: Vec<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// Latencies of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Words::on_heap((LatencyPath::ALL.len() + MAX_PORTS) * HISTOGRAM_WORDS))
    }

    /// The latencies of a path.
    #[must_use]
    pub fn path(&self, path: LatencyPath) -> LatencySnapshot {
        LatencySnapshot::of(self.histogram(path as usize))
    }

    /// The latencies of packets from a port.
    #[must_use]
    pub fn port(&self, port: PortId) -> LatencySnapshot {
        LatencySnapshot::of(self.histogram(of_port(port)))
    }

    /// Counts a packet that was timed and stands for so many. The writer's to call.
    pub(crate) fn record(&self, path: LatencyPath, from: PortId, ns: u64, packets: u32) {
        for number in [path as usize, of_port(from)] {
            let words = self.histogram(number);
            let packets = u64::from(packets);
            let counts = [
                (TIMED, 1),
                (SUM, ns.saturating_mul(packets)),
                (FIRST_BUCKET + bucket(ns.min(LONGEST_NS - 1)), packets),
            ];
            for (at, count) in counts {
                if let Some(word) = words.get(at) {
                    let sum = word.load(Ordering::Relaxed).wrapping_add(count);
                    word.store(sum, Ordering::Relaxed);
                }
            }
        }
    }

    /// Forgets a port: its number is given to another. The writer's to call.
    pub(crate) fn clear_port(&self, port: PortId) {
        // Reading a page that was never written to takes no memory.
        for word in self.histogram(of_port(port)) {
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
    }

    fn histogram(&self, number: usize) -> &[AtomicU64] {
        let begin = number * HISTOGRAM_WORDS;
        self.0.get(begin..begin + HISTOGRAM_WORDS).unwrap_or_default()
    }
}

impl Default for LatencySnapshot {
    fn default() -> Self {
        Self { timed: 0, sum_ns: 0, buckets: vec![0; BUCKETS] }
    }
}

impl LatencySnapshot {
    fn of(words: &[AtomicU64]) -> Self {
        let read = |at: usize| words.get(at).map_or(0, |word| word.load(Ordering::Relaxed));
        Self {
            timed: read(TIMED),
            sum_ns: read(SUM),
            buckets: (0..BUCKETS).map(|number| read(FIRST_BUCKET + number)).collect(),
        }
    }

    /// Adds another worker's, or another path's.
    pub fn add(&mut self, other: &Self) {
        self.timed = self.timed.wrapping_add(other.timed);
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
        for (sum, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum = sum.wrapping_add(*count);
        }
    }

    /// Packets that were timed.
    #[must_use]
    pub fn timed(&self) -> u64 {
        self.timed
    }

    /// Packets that these stand for.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The nanoseconds of all of these.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// The longest latency that each bucket with packets covers, nanoseconds, and their number; shortest first.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let numbered = self.buckets.iter().enumerate().filter(|(_, packets)| **packets > 0);
        numbered.map(|(number, packets)| (longest_of(number), *packets))
    }
}

/// The number of the bucket in which a latency falls: below two octaves, which are linear, its multiple of the
/// unit, and above that 32 an octave.
const fn bucket(ns: u64) -> usize {
    let units = ns / UNIT_NS;
    let octaves = (units / PER_OCTAVE as u64).checked_ilog2();
    let shift = match octaves {
        Some(octaves) => octaves as usize,
        None => 0,
    };
    shift * PER_OCTAVE + (units >> shift) as usize
}

/// The longest latency that falls in the bucket of this number, nanoseconds.
const fn longest_of(number: usize) -> u64 {
    let shift = (number / PER_OCTAVE).saturating_sub(1);
    (((number - shift * PER_OCTAVE + 1) as u64) << shift) * UNIT_NS - 1
}

fn of_port(port: PortId) -> usize {
    LatencyPath::ALL.len() + usize::from(port.0)
}

#[cfg(test)]
mod tests;
