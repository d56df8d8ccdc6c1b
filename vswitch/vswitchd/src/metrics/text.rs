//! Figures in Prometheus' text format.
//!
//! Enters: [`Figures`]. Leaves: text. Names, types and labels are here alone, and what `docs/operations.md`
//! has of them is compared with this.

use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{CounterVec, IntCounterVec, IntGaugeVec, Opts, Registry, Result, TextEncoder};

use super::figures::{
    Figures, HistogramFigures, PortFigures, ServiceFigures, SessionFigures, WorkerFigures,
};

/// Begins every name.
const NAMESPACE: &str = "vswitch";
/// Labels that tell a port from others.
const PORT: [&str; 3] = ["kind", "namespace", "pod"];

/// The whole answer.
///
/// # Errors
/// If a name or a label is none that Prometheus allows.
pub(super) fn encode(figures: &Figures) -> Result<String> {
    let page = Page(Registry::new());
    node(&page, figures)?;
    ports(&page, &figures.ports)?;
    sessions(&page, &figures.sessions)?;
    workers(&page, &figures.workers)?;
    let mut families = page.0.gather();
    families.push(latency(&figures.latency));
    families.push(change_apply(&figures.change_apply));
    families.sort_by(|one, other| one.name().cmp(other.name()));
    TextEncoder::new().encode_to_string(&families)
}

/// The metrics of one answer.
struct Page(Registry);

impl Page {
    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        let counter = IntCounterVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        let gauge = IntGaugeVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn one_gauge(&self, name: &str, help: &str, value: usize) -> Result<()> {
        self.gauge(name, help, &[])?.get_metric_with_label_values::<&str>(&[])?.set(value as i64);
        Ok(())
    }
}

fn node(page: &Page, figures: &Figures) -> Result<()> {
    page.gauge("build_info", "Always 1; the daemon's version and node", &["version", "node"])?
        .get_metric_with_label_values(&[env!("CARGO_PKG_VERSION"), figures.node.as_str()])?
        .set(1);
    let uptime = figures.uptime_seconds as usize;
    page.one_gauge("uptime_seconds", "Seconds since the daemon's start", uptime)?;
    page.one_gauge("pods", "Pods with a port", figures.pods)?;
    page.one_gauge(
        "pods_pending",
        "Pods that are denied everything until their policies are told",
        figures.pods_pending,
    )?;
    page.one_gauge("pods_lost", "Pods that have lost their interface", figures.pods_lost)?;
    page.one_gauge("peers", "Other nodes", figures.peers)?;
    page.one_gauge("service_ports", "Virtual ports that are served", figures.service_ports)?;
    page.one_gauge("service_backends", "Backends of services", figures.service_backends)?;
    page.one_gauge("rule_sets", "Rule sets of policies", figures.rule_sets)?;
    page.one_gauge(
        "sources_connected",
        "Programs that are connected and tell the daemon of a cluster",
        figures.sources,
    )?;
    let ages = page.gauge(
        "sync_age_seconds",
        "Seconds since a source told the last time, by what it told of",
        &["of"],
    )?;
    for (of, seconds) in &figures.sync_ages {
        ages.get_metric_with_label_values(&[of])?.set(*seconds as i64);
    }
    let problems = page.gauge(
        "problems",
        "What keeps the node from serving pods, by what it does",
        &["kind"],
    )?;
    for (kind, count) in figures.problems {
        problems.get_metric_with_label_values(&[kind])?.set(count as i64);
    }
    let packets = page.counter(
        "packets_total",
        "Packets by their fate: received and made here are sent or dropped",
        &["fate"],
    )?;
    let all = figures.packets;
    let fates = [all.received, all.made, all.sent, all.dropped];
    for (fate, count) in ["received", "made", "sent", "dropped"].into_iter().zip(fates) {
        packets.get_metric_with_label_values(&[fate])?.inc_by(count);
    }
    let decisions = page.counter(
        "policy_decisions_total",
        "Connections that policies of pods allowed or denied",
        &["direction", "verdict"],
    )?;
    for (direction, verdict, count) in &figures.decisions {
        decisions.get_metric_with_label_values(&[direction, verdict])?.inc_by(*count);
    }
    let connections = page.counter(
        "service_connections_total",
        "Connections that a port of a Service was given",
        &["namespace", "service", "port"],
    )?;
    for ServiceFigures { namespace, service, port, connections: count } in
        &figures.service_connections
    {
        connections.get_metric_with_label_values(&[namespace, service, port])?.inc_by(*count);
    }
    let repairs = page.counter("repairs_total", "What was put right of the node", &["part"])?;
    for (part, count) in &figures.repairs {
        repairs.get_metric_with_label_values(&[part])?.inc_by(*count);
    }
    Ok(())
}

/// Interfaces of one pod are summed up.
fn ports(page: &Page, ports: &[PortFigures]) -> Result<()> {
    let by_direction = [PORT.as_slice(), &["direction"]].concat();
    let packets = page.counter(
        "port_packets_total",
        "Packets from a port (rx) and to it (tx), as seen from the switch",
        &by_direction,
    )?;
    let bytes = page.counter("port_bytes_total", "Bytes of these packets", &by_direction)?;
    let delayed = page.counter(
        "port_bandwidth_delayed_total",
        "Waits for a port's bandwidth: reads that were put off (rx), packets (tx)",
        &by_direction,
    )?;
    let by_reason = [PORT.as_slice(), &["reason"]].concat();
    let drops = page.counter("drops_total", "Packets from a port that were dropped", &by_reason)?;
    let kernel_drops = page.counter(
        "kernel_drops_total",
        "Packets that the kernel dropped between a port and the switch",
        &by_reason,
    )?;
    for port in ports {
        let of_port = [port.kind, &port.namespace, &port.name];
        let directions = [("rx", port.rx, port.delayed.0), ("tx", port.tx, port.delayed.1)];
        for (direction, (count, len), waits) in directions {
            let labels = [of_port[0], of_port[1], of_port[2], direction];
            packets.get_metric_with_label_values(&labels)?.inc_by(count);
            bytes.get_metric_with_label_values(&labels)?.inc_by(len);
            delayed.get_metric_with_label_values(&labels)?.inc_by(waits);
        }
        for (reason, count) in &port.drops {
            let labels = [of_port[0], of_port[1], of_port[2], reason];
            drops.get_metric_with_label_values(&labels)?.inc_by(*count);
        }
        for (reason, count) in &port.kernel_drops {
            let labels = [of_port[0], of_port[1], of_port[2], reason];
            kernel_drops.get_metric_with_label_values(&labels)?.inc_by(*count);
        }
    }
    Ok(())
}

fn sessions(page: &Page, families: &[SessionFigures]) -> Result<()> {
    let sessions = page.gauge("sessions", "Sessions by state", &["family", "state"])?;
    let capacity = page.gauge("sessions_capacity", "Sessions that there may be", &["family"])?;
    let created = page.counter("sessions_created_total", "Sessions that began", &["family"])?;
    let refused = page.counter(
        "sessions_refused_total",
        "Sessions that did not begin, for want of room",
        &["family", "reason"],
    )?;
    for of in families {
        for (state, count) in of.states {
            sessions.get_metric_with_label_values(&[of.family, state])?.set(count as i64);
        }
        capacity.get_metric_with_label_values(&[of.family])?.set(of.capacity as i64);
        created.get_metric_with_label_values(&[of.family])?.inc_by(of.created);
        for (reason, count) in of.refused {
            refused.get_metric_with_label_values(&[of.family, reason])?.inc_by(count);
        }
    }
    Ok(())
}

fn workers(page: &Page, workers: &[WorkerFigures]) -> Result<()> {
    let free = page.gauge("worker_frames_free", "Packet frames that are free", &["worker"])?;
    let all = page.gauge("worker_frames", "Packet frames in all", &["worker"])?;
    let busy = Opts::new("worker_busy_seconds_total", "Time that turns with packets have taken");
    let busy = CounterVec::new(busy.namespace(NAMESPACE), &["worker"])?;
    page.0.register(Box::new(busy.clone()))?;
    let handed_over = "Packets of IPIP that a worker has left to others";
    let handed_over = page.counter("worker_handed_over_packets_total", handed_over, &["worker"])?;
    for (number, worker) in workers.iter().enumerate() {
        let number = number.to_string();
        free.get_metric_with_label_values(&[&number])?.set(worker.frames_free as i64);
        all.get_metric_with_label_values(&[&number])?.set(worker.frames as i64);
        busy.get_metric_with_label_values(&[&number])?.inc_by(worker.busy_seconds);
        handed_over.get_metric_with_label_values(&[&number])?.inc_by(worker.handed_over);
    }
    Ok(())
}

fn latency(paths: &[(&str, HistogramFigures)]) -> MetricFamily {
    let metrics = paths.iter().map(|(path, figures)| {
        let mut label = LabelPair::default();
        label.set_name("path".into());
        label.set_value((*path).into());
        let mut metric = histogram(figures);
        metric.set_label(vec![label]);
        metric
    });
    let help = "From a worker's look at its queues to its handing the packet on";
    histograms("latency_seconds", help, metrics.collect())
}

fn change_apply(figures: &HistogramFigures) -> MetricFamily {
    let help = "From a change's being taken up to the last worker's using it";
    histograms("change_apply_seconds", help, vec![histogram(figures)])
}

/// The package's own histograms count by themselves; these are counted elsewhere.
fn histograms(name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(format!("{NAMESPACE}_{name}"));
    family.set_help(help.into());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(metrics);
    family
}

fn histogram(figures: &HistogramFigures) -> Metric {
    let buckets = figures.within.iter().map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(figures.count);
    histogram.set_sample_sum(figures.sum_seconds);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::encode;
    use crate::metrics::{
        Figures, HistogramFigures, PortFigures, ServiceFigures, SessionFigures, WorkerFigures,
    };

    const PAGE: &str = include_str!("../../../../docs/operations.md");

    fn figures() -> Figures {
        let port = |namespace: &str, name: &str, packets| PortFigures {
            kind: "pod",
            namespace: namespace.into(),
            name: name.into(),
            rx: (packets, 60 * packets),
            drops: vec![("policy-denied", 3)],
            kernel_drops: vec![("interface-queue-full", 4)],
            ..PortFigures::default()
        };
        let sessions = SessionFigures { family: "ipv4", ..SessionFigures::default() };
        Figures {
            node: "node-a".into(),
            pods: 2,
            sync_ages: vec![("peers", 12)],
            service_connections: vec![ServiceFigures {
                namespace: "shop".into(),
                service: "db".into(),
                port: "sql".into(),
                connections: 5,
            }],
            // Two interfaces of one pod, and a name that has to be escaped.
            ports: vec![port("shop", "db", 5), port("shop", "db", 2), port("", "a\"b\\", 1)],
            decisions: vec![("ingress", "denied", 7)],
            sessions: vec![sessions],
            latency: vec![(
                "pod-pod",
                HistogramFigures { within: vec![(1e-6, 4), (0.01, 6)], count: 7, sum_seconds: 0.5 },
            )],
            workers: vec![WorkerFigures {
                frames_free: 1,
                frames: 2,
                busy_seconds: 1.5,
                handed_over: 9,
            }],
            repairs: vec![("the host port".into(), 1)],
            ..Figures::default()
        }
    }

    #[test]
    fn figures_are_told_by_name_and_label() {
        let text = encode(&figures()).expect("valid names");
        for line in [
            "# TYPE vswitch_port_packets_total counter",
            "vswitch_port_packets_total{direction=\"rx\",kind=\"pod\",namespace=\"shop\",pod=\"db\"} 7",
            "vswitch_drops_total{kind=\"pod\",namespace=\"shop\",pod=\"db\",reason=\"policy-denied\"} 6",
            "vswitch_drops_total{kind=\"pod\",namespace=\"\",pod=\"a\\\"b\\\\\",reason=\"policy-denied\"} 3",
            "vswitch_policy_decisions_total{direction=\"ingress\",verdict=\"denied\"} 7",
            "vswitch_pods 2",
            "vswitch_service_connections_total{namespace=\"shop\",port=\"sql\",service=\"db\"} 5",
            "vswitch_sync_age_seconds{of=\"peers\"} 12",
            "vswitch_worker_frames_free{worker=\"0\"} 1",
            "vswitch_worker_busy_seconds_total{worker=\"0\"} 1.5",
            "vswitch_worker_handed_over_packets_total{worker=\"0\"} 9",
            "vswitch_kernel_drops_total{kind=\"pod\",namespace=\"shop\",pod=\"db\",reason=\"interface-queue-full\"} 8",
            "vswitch_latency_seconds_bucket{path=\"pod-pod\",le=\"0.000001\"} 4",
            "vswitch_latency_seconds_bucket{path=\"pod-pod\",le=\"0.01\"} 6",
            "vswitch_latency_seconds_bucket{path=\"pod-pod\",le=\"+Inf\"} 7",
            "vswitch_latency_seconds_sum{path=\"pod-pod\"} 0.5",
            "vswitch_change_apply_seconds_count 0",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
    }

    /// A row is `| \`name\` | type | labels | meaning |`.
    #[test]
    fn the_page_names_each_with_its_type_and_labels() {
        let text = encode(&figures()).expect("valid names");
        let mut told = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').expect("a name and a type");
            // Of a histogram the label of its buckets is none of its own.
            let sample = text.lines().find(|line| {
                let rest = line.strip_prefix(name).unwrap_or_default();
                rest.strip_prefix("_count").unwrap_or(rest).starts_with(['{', ' '])
            });
            let sample = sample.unwrap_or_else(|| panic!("{name} has no sample"));
            let labels = sample.split_once('{').map_or("", |(_, rest)| rest);
            let mut labels: Vec<_> =
                labels.split("=\"").filter_map(|part| part.rsplit(['"', ',']).next()).collect();
            labels.pop();
            let labels: Vec<_> = labels.into_iter().map(|label| format!("`{label}`")).collect();
            told.insert(name.to_owned(), (kind.to_owned(), labels.join(", ")));
        }
        let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `vswitch_"));
        let documented: BTreeMap<_, _> = rows
            .map(|row| {
                let mut cells = row.split('|').map(str::trim);
                let mut cell = || cells.next().unwrap_or_default().to_owned();
                (format!("vswitch_{}", cell().trim_end_matches('`')), (cell(), cell()))
            })
            .collect();
        assert_eq!(documented, told);
    }
}
