//! Answers as aligned tables, or as JSON.

mod policies;

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use api::{
    BackendUse, Drops, MasqueradeStatus, RefusedRoute, RepairStatus, Reply, ServiceEntry,
    ServiceProblem, ServiceProblemKind, ServiceSpec, SessionEnd, Sessions, SourceStatus, Status,
    TraceResult, WithoutBackend,
};
use policies::policies_text;
use serde::Serialize;

/// The content of an answer, without its envelope.
pub(crate) fn json(reply: &Reply) -> String {
    fn pretty(value: &impl Serialize) -> String {
        let text = serde_json::to_string_pretty(value).expect("plain structs with string keys");
        text + "\n"
    }
    match reply {
        Reply::Done => "{}\n".into(),
        Reply::Status(status) => pretty(status),
        Reply::Ports(ports) => pretty(ports),
        Reply::Fdb(entries) => pretty(entries),
        Reply::Fib(entries) => pretty(entries),
        Reply::Neighbors(entries) => pretty(entries),
        Reply::Peers(peers) => pretty(peers),
        Reply::Drops(drops) => pretty(drops),
        Reply::Trace(trace) => pretty(trace),
        Reply::Reserved(reserved) => pretty(reserved),
        Reply::Synced(refused) => pretty(refused),
        Reply::Services(services) => pretty(services),
        Reply::Sessions(sessions) => pretty(sessions),
        Reply::SyncedServices(refused) => pretty(refused),
        Reply::Policies(state) => pretty(state),
        Reply::PolicyDigest(digest) => pretty(digest),
        Reply::SyncedPolicies(refused) => pretty(refused),
        Reply::Adjustments(adjustments) => pretty(adjustments),
        Reply::Reattachments(pods) => pretty(pods),
        Reply::Survey(survey) => pretty(survey),
        // Nothing of this program asks for it.
        Reply::Drained { pods, .. } => pretty(pods),
    }
}

/// A reply as text for people.
pub(crate) fn text(reply: &Reply) -> String {
    match reply {
        Reply::Done
        | Reply::Reserved(_)
        | Reply::Synced(_)
        | Reply::SyncedServices(_)
        | Reply::SyncedPolicies(_)
        | Reply::PolicyDigest(_)
        | Reply::Adjustments(_)
        | Reply::Drained { .. }
        | Reply::Reattachments(_)
        | Reply::Survey(_) => String::new(),
        Reply::Status(status) => status_text(status),
        Reply::Drops(drops) => drops_text(drops),
        Reply::Services(services) => services_text(services),
        Reply::Policies(state) => policies_text(state),
        Reply::Sessions(sessions) => sessions_text(sessions),
        Reply::Trace(trace) => trace_text(trace),
        Reply::Ports(ports) => {
            let mut header =
                vec!["ID", "NAME", "KIND", "STATE", "WORKER", "MAC", "MTU", "RX", "TX", "DROPPED"];
            // Columns of their own only if a pod has limits.
            let has_limits = ports.iter().any(|port| !port.bandwidth.is_unlimited());
            if has_limits {
                header.extend(["INGRESS", "EGRESS"]);
            }
            header.push("ADDRESSES");
            // Most nodes have none.
            let are_mapped = ports.iter().any(|port| !port.port_mappings.is_empty());
            header.extend(are_mapped.then_some("HOSTPORTS"));
            let mut table = Table::new(&header);
            for port in ports {
                let counters = &port.counters;
                let mut cells = vec![
                    port.id.to_string(),
                    port.name.clone(),
                    word(&port.kind),
                    if port.up { "up" } else { "down" }.into(),
                    or_dash(port.worker),
                    or_dash(port.mac),
                    port.mtu.to_string(),
                    counters.rx_packets.to_string(),
                    counters.tx_packets.to_string(),
                    counters.dropped.to_string(),
                ];
                if has_limits {
                    cells.extend([port.bandwidth.ingress, port.bandwidth.egress].map(or_dash));
                }
                cells.push(join(&port.addresses));
                let mapped = port.port_mappings.iter().map(ToString::to_string);
                cells.extend(are_mapped.then(|| mapped.collect::<Vec<_>>().join(", ")));
                table.rows.push(cells);
            }
            table.print()
        }
        Reply::Fdb(entries) => {
            let mut table = Table::new(&["BRIDGE", "MAC", "BEHIND", "SOURCE", "AGE", "WORKER"]);
            for entry in entries {
                let behind = match (&entry.port, entry.vtep) {
                    (Some(port), _) => format!("port {port}"),
                    (None, Some(vtep)) => format!("vtep {vtep}"),
                    (None, None) => "-".into(),
                };
                table.row([
                    entry.bridge.clone(),
                    entry.mac.to_string(),
                    behind,
                    entry.source.clone(),
                    entry.age_seconds.map_or_else(|| "-".into(), |age| format!("{age}s")),
                    or_dash(entry.worker),
                ]);
            }
            table.print()
        }
        Reply::Fib(entries) => {
            let mut header = vec!["PREFIX", "TO", "SOURCE", "MTU"];
            // A column of its own only if the hidden ones were asked for.
            let has_hidden = entries.iter().any(|entry| entry.hidden.is_some());
            header.extend(has_hidden.then_some("HIDDEN BECAUSE"));
            let mut table = Table::new(&header);
            for entry in entries {
                let mut cells = vec![
                    entry.prefix.to_string(),
                    entry.target.clone(),
                    entry.source.clone(),
                    or_dash(entry.mtu),
                ];
                cells.extend(has_hidden.then(|| or_dash(entry.hidden.as_ref())));
                table.rows.push(cells);
            }
            table.print()
        }
        Reply::Neighbors(entries) => {
            let mut table = Table::new(&["ADDRESS", "MAC", "ON", "SOURCE", "STATE"]);
            for entry in entries {
                table.row([
                    entry.address.to_string(),
                    or_dash(entry.mac),
                    entry.on.clone(),
                    entry.source.clone(),
                    entry.state.clone(),
                ]);
            }
            table.print()
        }
        Reply::Peers(peers) => {
            let mut table = Table::new(&[
                "NAME",
                "ADDRESS",
                "BY",
                "ENCAPSULATE",
                "WHY",
                "NEXT HOP",
                "NEXT HOP MAC",
                "MTU",
                "SOURCE",
                "STATE",
                "PREFIXES",
            ]);
            for peer in peers {
                table.row([
                    peer.spec.name.clone(),
                    peer.spec.address.to_string(),
                    word(&peer.in_force),
                    word(&peer.policy),
                    peer.reason.clone(),
                    or_dash(peer.next_hop),
                    or_dash(peer.next_hop_mac),
                    peer.mtu.to_string(),
                    peer.source.clone(),
                    peer.state.clone(),
                    join(&peer.spec.prefixes),
                ]);
            }
            let mut text = table.print();
            for peer in peers {
                if let Some(reason) = &peer.hidden {
                    let (name, source) = (&peer.spec.name, &peer.source);
                    line(&mut text, &format!("{name} of {source} is {}: {reason}", peer.state));
                }
            }
            text
        }
    }
}

fn status_text(status: &Status) -> String {
    let mut lines = vec![
        ("node", format!("{} (vswitchd {})", status.node, status.version)),
        ("uptime", format!("{} s", status.uptime_seconds)),
        ("pods", format!("{} attached, MTU {}", status.pods, status.pod_mtu)),
        ("pod prefixes", join(&status.pod_prefixes)),
        ("cluster prefixes", join(&status.cluster_prefixes)),
        ("peers", status.peers.to_string()),
    ];
    lines.extend(status.sources.iter().map(|source| ("  told by", source_text(source))));
    if let Some(uplink) = &status.uplink {
        let addresses = uplink.address.into_iter().chain(uplink.address6.map(IpAddr::V6));
        let addresses: Vec<_> = addresses.collect();
        let mut macs: Vec<_> = uplink.vtep_mac.into_iter().chain(uplink.vtep_mac6).collect();
        macs.dedup();
        lines.push((
            "uplink",
            format!(
                "{} {} MTU {}, {} on {} queue(s){}{}",
                uplink.interface,
                if addresses.is_empty() { "no address yet".into() } else { join(&addresses) },
                uplink.mtu,
                uplink.kind,
                uplink.queues,
                uplink.xdp_mode.iter().map(|mode| format!(", {mode} XDP")).collect::<String>(),
                uplink.copy_mode.iter().map(|mode| format!(", {mode}")).collect::<String>()
            ),
        ));
        lines.push((
            "overlay",
            format!(
                "{} {}, VNI {}, UDP port {}, VTEP {}",
                word(&uplink.encapsulation),
                word(&uplink.encapsulate),
                uplink.vni,
                uplink.vxlan_port,
                join(&macs)
            ),
        ));
    } else {
        lines.push(("uplink", "none".into()));
    }
    lines.push(("host port", status.host_interface.clone().unwrap_or_else(|| "none".into())));
    lines.push(("masquerade", masquerade_text(status.masquerade.as_ref())));
    if let Some(kernel) = &status.kernel_routes {
        lines.push((
            "kernel routes",
            format!(
                "{} taken, {} ignored, {} refused",
                kernel.taken, kernel.ignored, kernel.refused
            ),
        ));
    }
    let latency = match status.publish_latency_us {
        Some([p50, p99, max]) => format!("; to every worker in {p50} µs p50, {p99} p99, {max} max"),
        None => String::new(),
    };
    lines.push(("tables", format!("epoch {}{latency}", status.epoch)));
    let mut text = String::new();
    for (label, value) in lines {
        line(&mut text, &format!("{label:<17}{value}"));
    }
    text.push('\n');
    let mut table = Table::new(&[
        "WORKER",
        "CORE",
        "QUEUES",
        "SENDS BY",
        "PORTS",
        "EPOCH",
        "FRAMES FREE",
        "LONGEST TURN",
    ]);
    for worker in &status.workers {
        table.row([
            worker.id.to_string(),
            worker.core.map_or_else(|| "unpinned".into(), |core| core.to_string()),
            if worker.queues.is_empty() { "-".into() } else { join(&worker.queues) },
            worker.sends_by.clone().unwrap_or_else(|| "-".into()),
            worker.ports.to_string(),
            worker.epoch.to_string(),
            format!("{}/{}", worker.frames_free, worker.frames_total),
            format!("{} µs", worker.longest_turn_us),
        ]);
    }
    text.push_str(&table.print());
    if let Some(kernel) = status.kernel_routes.as_ref().filter(|kernel| kernel.refused > 0) {
        line(&mut text, "\nkernel routes that are refused");
        for RefusedRoute { prefix, reason } in &kernel.refusals {
            line(&mut text, &format!("  {prefix}: {reason}"));
        }
        if kernel.refused > kernel.refusals.len() {
            line(&mut text, &format!("  and {} more", kernel.refused - kernel.refusals.len()));
        }
    }
    if !status.repairs.is_empty() {
        line(&mut text, "\nchanged by others and put right");
        for RepairStatus { part, count, last, by } in &status.repairs {
            let by = by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
            line(&mut text, &format!("  {part}: {count} time(s), the last time as {last}{by}"));
        }
    }
    if !status.problems.is_empty() {
        line(&mut text, "\nproblems");
    }
    for ServiceProblem { kind, reason } in &status.problems {
        let what = match kind {
            ServiceProblemKind::AddsFail | ServiceProblemKind::NoAddress => "no pod can be added",
            ServiceProblemKind::PodsSuffer => "pods suffer",
        };
        line(&mut text, &format!("  {what}: {reason}"));
    }
    for (title, items) in [("chosen at start", &status.choices), ("attention", &status.warnings)] {
        if !items.is_empty() {
            line(&mut text, &format!("\n{title}"));
            for item in items {
                line(&mut text, &format!("  {item}"));
            }
        }
    }
    text
}

fn masquerade_text(status: Option<&MasqueradeStatus>) -> String {
    let Some(status) = status else { return "no".into() };
    let so_far = match status.connections {
        Some(connections) => format!("yes, {connections} connections since the rules were set"),
        None => "the rules are gone".into(),
    };
    if status.exceptions.is_empty() {
        return so_far;
    }
    format!("{so_far}; not towards {}", join(&status.exceptions))
}

fn source_text(status: &SourceStatus) -> String {
    let SourceStatus { source, peers, routes, hidden, refused, refused_total } = status;
    let mut text = format!("{}: {peers} peers, {routes} routes", source.label());
    if *hidden > 0 {
        text += &format!(", {hidden} hidden");
    }
    if *refused_total > 0 {
        text += &format!(", {refused} refused ({refused_total} since the start)");
    }
    text
}

fn drops_text(drops: &Drops) -> String {
    let mut table = Table::new(&["PORT", "REASON", "PACKETS", "EXPLANATION"]);
    for drop in &drops.reasons {
        table.row([
            drop.port.clone(),
            drop.reason.clone(),
            drop.packets.to_string(),
            drop.explanation.clone(),
        ]);
    }
    let mut text = if drops.reasons.is_empty() { String::new() } else { table.print() + "\n" };
    let (entered, left) = (drops.received + drops.made, drops.sent + drops.dropped);
    line(
        &mut text,
        &format!(
            "received {} + made {} = {entered}; sent {} + dropped {} = {left}",
            drops.received, drops.made, drops.sent, drops.dropped
        ),
    );
    // Counters are read one after the other while workers count on.
    if entered != left {
        line(&mut text, &format!("{} in flight while this was read", entered.abs_diff(left)));
    }
    text
}

/// Backends of one line; a service may have thousands.
const BACKENDS_SHOWN: usize = 4;

fn services_text(services: &[ServiceEntry]) -> String {
    let mut table = Table::new(&["SERVICE", "ADDRESSES", "PORT", "AFFINITY", "BACKENDS"]);
    let mut refused = String::new();
    for entry in services {
        let spec = &entry.spec;
        for at in &entry.refused {
            line(
                &mut refused,
                &format!("{} is not served at {}: {}", spec.name, at.address, at.reason),
            );
        }
        let is_served = |address: &&IpAddr| entry.refused.iter().all(|at| at.address != **address);
        table.row([
            spec.name.clone(),
            addresses_text(spec.addresses.iter().filter(is_served)),
            format!("{}/{}", spec.port, spec.protocol.label()),
            spec.affinity_seconds.map_or("-".to_owned(), |seconds| format!("{seconds} s")),
            backends_text(spec),
        ]);
    }
    table.print() + "\n" + &refused
}

fn addresses_text<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> String {
    let all: Vec<_> = addresses.map(IpAddr::to_string).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

fn backends_text(spec: &ServiceSpec) -> String {
    if spec.backends.is_empty() {
        return match spec.without_backend {
            WithoutBackend::Refuse => "none: refused".to_owned(),
            WithoutBackend::Drop => "none of this node: dropped".to_owned(),
        };
    }
    let shown = spec.backends.iter().take(BACKENDS_SHOWN).map(|backend| {
        let at = SocketAddr::new(backend.address, backend.port);
        match backend.flows {
            BackendUse::All => at.to_string(),
            BackendUse::Existing => format!("{at} (no new flows)"),
            BackendUse::Connections => format!("{at} (not ready)"),
        }
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match spec.backends.len().saturating_sub(BACKENDS_SHOWN) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}

fn sessions_text(sessions: &Sessions) -> String {
    let mut text = String::new();
    for counts in &sessions.families {
        let all = counts.embryonic + counts.established + counts.closing;
        line(
            &mut text,
            &format!(
                "{}: {all} session(s), {} not answered, {} established, {} closing; room for {} entries; {} begun, {} refused",
                counts.family,
                counts.embryonic,
                counts.established,
                counts.closing,
                counts.capacity,
                counts.created,
                counts.refused
            ),
        );
    }
    if sessions.sessions.is_empty() {
        return text;
    }
    let end = |end: &SessionEnd| SocketAddr::new(end.address, end.port).to_string();
    let other = |it: &Option<SessionEnd>| it.as_ref().map_or("-".to_owned(), end);
    let mut table =
        Table::new(&["PROTOCOL", "CLIENT", "SERVER", "BACKEND", "SEEN AS", "STATE", "IDLE S"]);
    for session in &sessions.sessions {
        table.row([
            session.protocol.clone(),
            end(&session.client),
            end(&session.server),
            other(&session.backend),
            other(&session.client_at_backend),
            session.state.clone(),
            session.idle_seconds.to_string(),
        ]);
    }
    text + &table.print() + "\n"
}

fn trace_text(trace: &TraceResult) -> String {
    let mut text = String::new();
    line(&mut text, &trace.packet);
    for door in &trace.doors {
        line(&mut text, &format!("  {:<9}{}", door.door, door.said));
    }
    line(&mut text, &trace.verdict);
    for leaves in &trace.leaves {
        line(&mut text, &format!("-> {leaves}"));
    }
    text
}

fn line(text: &mut String, content: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{}", content.trim_end());
}

/// How serde writes a unit variant.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "-".into(),
    }
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn join<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Columns as wide as their widest cell.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(ToString::to_string).collect()] }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    fn print(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            line(&mut text, &cells.collect::<Vec<_>>().join("  "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use api::{
        DropCount, Drops, FibEntry, PortCounters, PortEntry, PortKind, PortMapping, Reply,
        TransportProtocol,
    };

    use super::{json, text};

    fn fib() -> Reply {
        let entry = |prefix: &str, target: &str, mtu| FibEntry {
            prefix: prefix.parse().expect("a prefix"),
            target: target.into(),
            source: "node".into(),
            mtu,
            hidden: None,
        };
        Reply::Fib(vec![
            entry("0.0.0.0/0", "host", Some(1450)),
            entry("198.18.0.0/16", "unreachable", None),
        ])
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(
            text(&fib()),
            "PREFIX         TO           SOURCE  MTU\n\
             0.0.0.0/0      host         node    1450\n\
             198.18.0.0/16  unreachable  node    -\n"
        );
    }

    #[test]
    fn host_ports_are_shown_where_a_pod_has_one() {
        let port = |id: u16, mappings: Vec<PortMapping>| PortEntry {
            bandwidth: api::Bandwidth::default(),
            id,
            name: format!("demo/a{id}"),
            kind: PortKind::Pod,
            up: true,
            mac: None,
            addresses: vec![[198, 18, 1, 2].into()],
            mtu: 1450,
            offloads: String::new(),
            attachment: None,
            network: None,
            pod: None,
            mode: None,
            port_mappings: mappings,
            worker: None,
            counters: PortCounters::default(),
        };
        let plain = Reply::Ports(vec![port(2, Vec::new())]);
        assert!(!text(&plain).contains("HOSTPORTS"));
        let mapping =
            |protocol| PortMapping { protocol, host_ip: None, host_port: 53, container_port: 5353 };
        let mapped = vec![mapping(TransportProtocol::Tcp), mapping(TransportProtocol::Udp)];
        let text = text(&Reply::Ports(vec![port(2, mapped), port(3, Vec::new())]));
        let ends: Vec<_> = text
            .lines()
            .map(|line| line.split_once("198.18.1.2").map_or("", |(_, end)| end))
            .collect();
        assert_eq!(ends, ["", "  tcp 53 -> 5353, udp 53 -> 5353", ""], "{text}");
    }

    #[test]
    fn json_is_the_content_alone() {
        let value: serde_json::Value = serde_json::from_str(&json(&fib())).expect("JSON");
        assert_eq!(value[1]["target"], "unreachable");
    }

    #[test]
    fn drops_show_the_sum_that_closes() {
        let drops = Drops {
            received: 10,
            made: 1,
            sent: 8,
            dropped: 3,
            reasons: vec![DropCount {
                port: "web".into(),
                reason: "no-route".into(),
                explanation: "No route to the destination.".into(),
                packets: 3,
            }],
        };
        let text = text(&Reply::Drops(drops));
        assert!(text.ends_with("received 10 + made 1 = 11; sent 8 + dropped 3 = 11\n"), "{text}");
        assert!(text.contains("web   no-route  3        No route"), "{text}");
    }
}
