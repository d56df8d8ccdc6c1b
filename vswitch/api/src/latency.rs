//! How long packets take through the switch, as counts from which any program can make percentiles.

use serde::{Deserialize, Serialize};

/// Latencies since the daemon's start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LatencyReport {
    /// How long ago the daemon started, milliseconds.
    pub uptime_ms: u64,
    /// By path, such as `pod-nic`; without those that no packet has taken.
    pub paths: Vec<LatencyCounts>,
    /// By the port that packets came from, if that was asked for; without those from which none passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<LatencyCounts>,
}

/// Latencies of a path, or of packets from a port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LatencyCounts {
    /// Name of the path, or of the port.
    pub name: String,
    /// Number of the port; absent for a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Packets that were timed.
    pub timed: u64,
    /// Packets by latency, shortest first: all for which the timed ones stand.
    pub buckets: Vec<LatencyBucket>,
}

/// Packets of about the same latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyBucket {
    /// The longest latency that falls in the bucket, nanoseconds. The shortest is at most 1/32 below it, or 8 ns.
    pub longest_ns: u64,
    /// Packets.
    pub packets: u64,
}
