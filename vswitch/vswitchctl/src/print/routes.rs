//! `show fib`, `show peers`, `show neighbors` and `show fdb`: where packets go.

use api::{FdbEntry, FibEntry, NeighborEntry, PeerEntry};

use super::table::{Table, join, line, or_dash, word};

pub(super) fn fdb(entries: &[FdbEntry]) -> String {
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

pub(super) fn fib(entries: &[FibEntry]) -> String {
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

pub(super) fn neighbors(entries: &[NeighborEntry]) -> String {
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

pub(super) fn peers(peers: &[PeerEntry]) -> String {
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
