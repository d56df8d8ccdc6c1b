//! What metrics tell of the daemon.
//!
//! Enters: the daemon, and how many sources are connected, from `control`. Leaves: [`Figures`], as they are at that
//! moment. The kernel is asked what it dropped, and nothing else unless something of the node is broken.

use std::collections::BTreeMap;
use std::time::Instant;

use api::{PolicyDecisions, PortEntry, PortKind, ServiceProblemKind};
use dataplane::DropReason;
use dataplane::session::{PortSessions, SessionEvents};
use dataplane::tables::PortId;
use dataplane::tables::policy::Direction;
use worker::{LatencyPath, LatencySnapshot};

use crate::daemon::Daemon;
use crate::metrics::{
    Figures, HistogramFigures, PortFigures, ServiceFigures, SessionFigures, WorkerFigures,
};

/// Bounds of latencies in nanoseconds, from what the switch takes of an idle core to what no pod should see.
const LATENCY_BOUNDS_NS: [u64; 12] = [
    1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000,
];

impl Daemon {
    /// Figures as they are now; `sources` programs that tell the daemon of the cluster are connected.
    pub(crate) fn figures(&mut self, sources: usize) -> Figures {
        let mut kernel_drops = self.kernel_drops_of_ports();
        let problems = self.problems(Instant::now());
        let count = |kind| problems.iter().filter(|problem| problem.kind == kind).count();
        let problems = [
            ("adds-fail", count(ServiceProblemKind::AddsFail)),
            ("pods-suffer", count(ServiceProblemKind::PodsSuffer)),
        ];
        let model = self.plane.model();
        let table = &self.node.shared.sessions;
        let families = ["ipv4", "ipv6"].into_iter().zip(table.totals()).zip(table.events());
        let capacity = u64::from(table.capacity());
        let pending = model.attachments.keys().filter(|pod| self.plane.is_pending(pod));
        let repairs = self.repairs.status();
        Figures {
            node: self.plane.config().node.name.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            pods: self.plane.ports().count_up(),
            pods_pending: pending.count(),
            pods_lost: self.plane.lost_pods().count(),
            problems,
            peers: model.peers.len(),
            service_ports: model.served.ports.len(),
            service_backends: model.services.values().map(|service| service.backends.len()).sum(),
            service_connections: if self.plane.config().metrics.services {
                let counts = model.served.connections.iter();
                counts.map(|(name, count)| of_service(name, count.get())).collect()
            } else {
                Vec::new()
            },
            rule_sets: model.policies.rule_sets().len(),
            sources,
            sync_ages: self.sync_ages(Instant::now()),
            packets: self.accounting(),
            ports: self
                .ports()
                .iter()
                .map(|port| {
                    let of_port = kernel_drops.remove(&PortId(port.id));
                    self.port_figures(port, of_port.unwrap_or_default())
                })
                .chain([self.gone_figures()])
                .collect(),
            decisions: self.decisions(),
            sessions: families
                .map(|((family, totals), events)| of_family(family, &totals, &events, capacity))
                .collect(),
            latency: self.latency_figures(),
            change_apply: self.change_times.figures(),
            workers: self
                .node
                .workers
                .states()
                .iter()
                .map(|state| WorkerFigures {
                    frames_free: state.frames_free,
                    frames: state.frames_total,
                    busy_seconds: state.busy.as_secs_f64(),
                    handed_over: state.handed_over,
                })
                .collect(),
            repairs: repairs.into_iter().map(|repair| (repair.part, repair.count)).collect(),
        }
    }

    /// What goes to the node's kernel, or comes from it, is one path.
    fn latency_figures(&self) -> Vec<(&'static str, HistogramFigures)> {
        let mut sums = BTreeMap::<_, LatencySnapshot>::new();
        for path in LatencyPath::ALL {
            let name = match path {
                LatencyPath::PodToPod | LatencyPath::PodToNic | LatencyPath::NicToPod => {
                    path.label()
                }
                LatencyPath::PodToHost
                | LatencyPath::HostToPod
                | LatencyPath::HostToNic
                | LatencyPath::NicToHost => "host",
            };
            sums.entry(name).or_default().add(&self.latency_of(path));
        }
        sums.into_iter().map(|(name, sum)| (name, histogram(&sum))).collect()
    }

    fn decisions(&self) -> Vec<(&'static str, &'static str, u64)> {
        let directions = [("ingress", Direction::Ingress), ("egress", Direction::Egress)];
        let decided = directions.into_iter().flat_map(|(name, direction)| {
            let PolicyDecisions { allowed, denied } = self.decided(direction);
            [(name, "allowed", allowed), (name, "denied", denied)]
        });
        decided.collect()
    }

    fn port_figures(
        &self,
        port: &PortEntry,
        kernel_drops: Vec<(&'static str, u64)>,
    ) -> PortFigures {
        let workers = self.node.workers.counters();
        let dropped = |reason: &DropReason| {
            let count = workers.iter().map(|of| of.drops(PortId(port.id), *reason)).sum::<u64>();
            (count > 0).then(|| (reason.label(), count))
        };
        let (namespace, name) = match &port.pod {
            Some(pod) => (pod.namespace.clone(), pod.name.clone()),
            None => (String::new(), port.name.clone()),
        };
        let of = &port.counters;
        PortFigures {
            kind: match port.kind {
                PortKind::Pod => "pod",
                PortKind::Host => "host",
                PortKind::Uplink => "uplink",
            },
            namespace,
            name,
            rx: (of.rx_packets, of.rx_bytes),
            tx: (of.tx_packets, of.tx_bytes),
            delayed: (of.rx_delayed, of.tx_delayed),
            drops: DropReason::ALL.iter().filter_map(dropped).collect(),
            kernel_drops,
        }
    }

    /// Ports that are gone, as one, so that sums over all never fall.
    fn gone_figures(&self) -> PortFigures {
        let of = self.gone_counters();
        let drops = self.gone_drops().into_iter();
        PortFigures {
            kind: "gone",
            rx: (of.rx_packets, of.rx_bytes),
            tx: (of.tx_packets, of.tx_bytes),
            delayed: (of.rx_delayed, of.tx_delayed),
            drops: drops.map(|(reason, packets)| (reason.label(), packets)).collect(),
            ..PortFigures::default()
        }
    }
}

/// A service by its name, `namespace/name:port` in a cluster.
fn of_service(name: &str, connections: u64) -> ServiceFigures {
    let (namespace, rest) = name.split_once('/').unwrap_or(("", name));
    let (service, port) = rest.split_once(':').unwrap_or((rest, ""));
    let [namespace, service, port] = [namespace, service, port].map(str::to_owned);
    ServiceFigures { namespace, service, port, connections }
}

/// A bucket that a bound cuts lies beyond it: it is 3 % wide.
fn histogram(of: &LatencySnapshot) -> HistogramFigures {
    let within = |bound: u64| {
        let below = of.buckets().take_while(|(longest, _)| *longest <= bound);
        below.map(|(_, packets)| packets).sum()
    };
    HistogramFigures {
        within: LATENCY_BOUNDS_NS
            .into_iter()
            .map(|bound| (bound as f64 / 1e9, within(bound)))
            .collect(),
        count: of.packets(),
        sum_seconds: of.sum_ns() as f64 / 1e9,
    }
}

fn of_family(
    family: &'static str,
    totals: &PortSessions,
    events: &SessionEvents,
    capacity: u64,
) -> SessionFigures {
    SessionFigures {
        family,
        states: [
            ("embryonic", totals.embryonic.into()),
            ("established", totals.established.into()),
            ("closing", totals.closing.into()),
        ],
        capacity,
        created: events.created,
        refused: [
            ("full", events.refused_full),
            ("quota", events.refused_quota),
            ("ports-used", events.refused_taken),
            ("busy", events.refused_busy),
        ],
    }
}
