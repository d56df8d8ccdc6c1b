//! `status`: what runs, what was chosen, and what an operator should do.

use std::net::IpAddr;

use api::{
    MasqueradeStatus, RefusedRoute, RepairStatus, ServiceProblem, ServiceProblemKind, SourceStatus,
    Status, WorkerStatus,
};

use super::table::{Table, join, line, or_dash, word};

pub(super) fn status(status: &Status) -> String {
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
        "PORTS BY",
        "PORTS",
        "EPOCH",
        "FRAMES FREE",
        "LONGEST TURN",
        "HANDS OVER",
        "OTHERS",
        "WAITED",
    ]);
    for worker in &status.workers {
        table.row([
            worker.id.to_string(),
            worker.core.map_or_else(|| "unpinned".into(), |core| core.to_string()),
            if worker.queues.is_empty() { "-".into() } else { join(&worker.queues) },
            worker.sends_by.clone().unwrap_or_else(|| "-".into()),
            worker.port_io.as_ref().map_or_else(|| "-".into(), |io| io.by.clone()),
            worker.ports.to_string(),
            worker.epoch.to_string(),
            format!("{}/{}", worker.frames_free, worker.frames_total),
            format!("{} µs", worker.longest_turn_us),
            handoff(worker),
            percent(worker.core_share.and_then(|share| share.others_percent)),
            percent(worker.core_share.map(|share| share.waited_percent)),
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

/// To which workers a worker leaves packets, and how many it left.
fn handoff(worker: &WorkerStatus) -> String {
    match (&worker.hands_over_to[..], worker.handed_over) {
        ([], 0) => "-".into(),
        ([], packets) => format!("no, {packets} before"),
        (to, packets) => format!("to {}, {packets} so far", join(to)),
    }
}

fn percent(percent: Option<u8>) -> String {
    or_dash(percent.map(|percent| format!("{percent} %")))
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
