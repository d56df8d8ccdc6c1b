//! `show ports`.

use api::PortEntry;

use super::table::{Table, join, or_dash, word};

pub(super) fn ports(ports: &[PortEntry]) -> String {
    let mut header =
        vec!["ID", "NAME", "KIND", "STATE", "WORKER", "MAC", "MTU", "RX", "TX", "DROPPED"];
    // Columns of their own only if an interface has lost packets, or a pod has limits.
    let has_losses = ports.iter().any(|port| port.counters.queue_full.is_some_and(|lost| lost > 0));
    header.extend(has_losses.then_some("QUEUE FULL"));
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
            match &port.queues[..] {
                [] => or_dash(port.worker),
                queues => {
                    let workers = queues.iter().map(|queue| queue.worker.to_string());
                    workers.collect::<Vec<_>>().join(",")
                }
            },
            or_dash(port.mac),
            port.mtu.to_string(),
            counters.rx_packets.to_string(),
            counters.tx_packets.to_string(),
            counters.dropped.to_string(),
        ];
        cells.extend(has_losses.then(|| or_dash(counters.queue_full)));
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
