//! What metrics tell of the daemon.
//!
//! Enters: the daemon, and how many sources are connected, from `control`. Leaves: [`Figures`], as they are at that
//! moment. It asks the kernel nothing, unless something of the node is broken.

use std::time::Instant;

use api::{PolicyDecisions, PortEntry, PortKind, ServiceProblemKind};
use dataplane::DropReason;
use dataplane::session::{PortSessions, SessionEvents};
use dataplane::tables::PortId;
use dataplane::tables::policy::Direction;

use crate::daemon::Daemon;
use crate::metrics::{Figures, PortFigures, SessionFigures, WorkerFigures};

impl Daemon {
    /// Figures as they are now; `sources` programs that tell the daemon of the cluster are connected.
    pub(crate) fn figures(&mut self, sources: usize) -> Figures {
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
            rule_sets: model.policies.rule_sets().len(),
            sources,
            packets: self.accounting(),
            ports: self.ports().iter().map(|port| self.port_figures(port)).collect(),
            decisions: self.decisions(),
            sessions: families
                .map(|((family, totals), events)| of_family(family, &totals, &events, capacity))
                .collect(),
            workers: self
                .node
                .workers
                .states()
                .iter()
                .map(|state| WorkerFigures {
                    frames_free: state.frames_free,
                    frames: state.frames_total,
                })
                .collect(),
            repairs: repairs.into_iter().map(|repair| (repair.part, repair.count)).collect(),
        }
    }

    fn decisions(&self) -> Vec<(&'static str, &'static str, u64)> {
        let directions = [("ingress", Direction::Ingress), ("egress", Direction::Egress)];
        let decided = directions.into_iter().flat_map(|(name, direction)| {
            let PolicyDecisions { allowed, denied } = self.decided(direction);
            [(name, "allowed", allowed), (name, "denied", denied)]
        });
        decided.collect()
    }

    fn port_figures(&self, port: &PortEntry) -> PortFigures {
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
        }
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
