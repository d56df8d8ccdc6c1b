//! What metrics tell, as plain data.
//!
//! Enters: the control thread's counts, by [`requests::metrics`](crate::requests). Leaves: what `text`
//! writes. Counts are since the daemon's start.

use dataplane::counters::Accounting;

/// Everything that is told at one moment.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Name of the node.
    pub node: String,
    /// Seconds since the daemon's start.
    pub uptime_seconds: u64,
    /// Pods with a port.
    pub pods: usize,
    /// Those of them whose policies nobody has told yet: they are denied everything.
    pub pods_pending: usize,
    /// Those that lost their interface.
    pub pods_lost: usize,
    /// What keeps the node from adding pods, and from serving those that are there.
    pub problems: [(&'static str, usize); 2],
    /// Other nodes.
    pub peers: usize,
    /// Virtual ports that are served.
    pub service_ports: usize,
    /// Backends of services.
    pub service_backends: usize,
    /// Connections of each port of a Service, if they are told.
    pub service_connections: Vec<ServiceFigures>,
    /// Rule sets of policies.
    pub rule_sets: usize,
    /// Programs that are connected and tell the daemon of a cluster.
    pub sources: usize,
    /// Seconds since a source told the last time: of what, and how long ago.
    pub sync_ages: Vec<(&'static str, u64)>,
    /// Of all workers.
    pub packets: Accounting,
    /// Each port that has a name, and those that are gone as one.
    pub ports: Vec<PortFigures>,
    /// What policies decided: direction, verdict, how often.
    pub decisions: Vec<(&'static str, &'static str, u64)>,
    /// Sessions of each IP version.
    pub sessions: Vec<SessionFigures>,
    /// Latencies of packets, by path.
    pub latency: Vec<(&'static str, HistogramFigures)>,
    /// How long changes took until they were in force.
    pub change_apply: HistogramFigures,
    /// Each worker, by its number.
    pub workers: Vec<WorkerFigures>,
    /// What was put right of the node: the part in words, and how often.
    pub repairs: Vec<(String, u64)>,
}

/// One port of a Service.
#[derive(Debug, Clone, Default)]
pub struct ServiceFigures {
    /// Namespace of the Service; empty of one without.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// Name of the port; empty of one without.
    pub port: String,
    /// Connections that it was given.
    pub connections: u64,
}

/// One port.
#[derive(Debug, Clone, Default)]
pub struct PortFigures {
    /// `pod`, `host`, `uplink`, or `gone` for all that are gone together.
    pub kind: &'static str,
    /// Namespace of the pod; empty for one without, and for other ports.
    pub namespace: String,
    /// Name of the pod, or of the interface.
    pub name: String,
    /// Packets and bytes from the port.
    pub rx: (u64, u64),
    /// Packets and bytes to the port.
    pub tx: (u64, u64),
    /// How often packets from the port, and to it, waited for its rate.
    pub delayed: (u64, u64),
    /// Packets from the port that were dropped, by reason.
    pub drops: Vec<(&'static str, u64)>,
    /// What the kernel dropped on its way to the switch or from it, by reason.
    pub kernel_drops: Vec<(&'static str, u64)>,
}

/// A histogram.
#[derive(Debug, Clone, Default)]
pub struct HistogramFigures {
    /// Bounds in seconds, and how many were within each.
    pub within: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// The seconds of all.
    pub sum_seconds: f64,
}

/// Sessions of an IP version.
#[derive(Debug, Clone, Default)]
pub struct SessionFigures {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// How many are in each state.
    pub states: [(&'static str, u64); 3],
    /// How many there may be.
    pub capacity: u64,
    /// Begun.
    pub created: u64,
    /// Not begun, by reason.
    pub refused: [(&'static str, u64); 4],
}

/// One worker.
#[derive(Debug, Clone, Copy, Default)]
pub struct WorkerFigures {
    /// Packet frames that are free.
    pub frames_free: usize,
    /// Packet frames in all.
    pub frames: usize,
    /// The time that turns with packets have taken.
    pub busy_seconds: f64,
    /// Packets that it has left to other workers.
    pub handed_over: u64,
}
