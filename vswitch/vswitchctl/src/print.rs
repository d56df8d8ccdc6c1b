//! Answers as aligned tables, or as JSON.
//!
//! Enters: the daemon's reply. Leaves: text for the standard output.
//!
//! | file | prints |
//! |---|---|
//! | `status`   | what runs, and what an operator should do |
//! | `ports`    | ports and their counters |
//! | `routes`   | routes, peers, neighbours, MACs |
//! | `services` | services, sessions |
//! | `policies` | policies of pods |
//! | `explain`  | what decides about a connection |
//! | `followed` | packets as they are dropped |
//! | `latency`  | how long packets take |
//! | `packets`  | drops, and what becomes of a packet |
//! | `table`    | columns and lines |

mod explain;
mod followed;
mod latency;
mod packets;
mod policies;
mod ports;
mod routes;
mod services;
mod status;
mod table;

use api::Reply;
use serde::Serialize;

use crate::latency::LatencySummary;
pub(crate) use followed::{Fold, followed_json, summary};
pub(crate) use latency::text as latency_text;

/// Latencies of an interval, on one line.
pub(crate) fn latency_json(summary: &LatencySummary) -> String {
    serde_json::to_string(summary).expect("a plain struct") + "\n"
}

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
        Reply::FollowedDrops(followed) => pretty(followed),
        Reply::Latency(report) => pretty(&LatencySummary::since_start(report)),
        Reply::Trace(trace) => pretty(trace),
        Reply::Explained(told) => pretty(told),
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
        // Printed as they come.
        | Reply::FollowedDrops(_)
        | Reply::Survey(_) => String::new(),
        Reply::Status(status) => status::status(status),
        Reply::Drops(drops) => packets::drops(drops),
        Reply::Services(services) => services::services(services),
        Reply::Sessions(sessions) => services::sessions(sessions),
        Reply::Policies(state) => policies::policies(state),
        Reply::Latency(report) => latency::text(&LatencySummary::since_start(report)),
        Reply::Trace(trace) => packets::trace(trace),
        Reply::Explained(told) => explain::explain(told),
        Reply::Ports(ports) => ports::ports(ports),
        Reply::Fdb(entries) => routes::fdb(entries),
        Reply::Fib(entries) => routes::fib(entries),
        Reply::Neighbors(entries) => routes::neighbors(entries),
        Reply::Peers(peers) => routes::peers(peers),
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

    fn port(id: u16, mappings: Vec<PortMapping>) -> PortEntry {
        PortEntry {
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
            queues: Vec::new(),
            counters: PortCounters::default(),
        }
    }

    #[test]
    fn host_ports_are_shown_where_a_pod_has_one() {
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
    fn a_port_with_several_queues_shows_the_worker_of_each() {
        let queue = |worker| api::PortQueue { worker, rx_packets: 7 };
        let spread = PortEntry { queues: vec![queue(1), queue(0)], ..port(3, Vec::new()) };
        let plain = PortEntry { worker: Some(1), ..port(2, Vec::new()) };
        let text = text(&Reply::Ports(vec![plain, spread]));
        let workers: Vec<_> =
            text.lines().filter_map(|line| line.split_whitespace().nth(4)).collect();
        assert_eq!(workers, ["WORKER", "1", "1,0"], "{text}");
    }

    #[test]
    fn what_the_kernel_lost_is_shown_where_it_lost_something() {
        let plain = Reply::Ports(vec![port(2, Vec::new())]);
        assert!(!text(&plain).contains("QUEUE FULL"));
        let mut lossy = port(3, Vec::new());
        lossy.counters.queue_full = Some(91);
        let text = text(&Reply::Ports(vec![port(2, Vec::new()), lossy]));
        let cells: Vec<Vec<_>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((cells[0][10], cells[0][11]), ("QUEUE", "FULL"), "{text}");
        assert_eq!((cells[1][10], cells[2][10]), ("-", "91"), "{text}");
    }

    #[test]
    fn json_is_the_content_alone() {
        let value: serde_json::Value = serde_json::from_str(&json(&fib())).expect("JSON");
        assert_eq!(value[1]["target"], "unreachable");
    }

    #[test]
    fn drops_show_the_sum_that_closes() {
        let mut drops = Drops {
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
            kernel: Vec::new(),
            nic_queues: Vec::new(),
        };
        let sums = "received 10 + made 1 = 11; sent 8 + dropped 3 = 11\n";
        let shown = text(&Reply::Drops(drops.clone()));
        assert!(shown.ends_with(sums), "{shown}");
        assert!(shown.contains("web   no-route  3        No route"), "{shown}");
        drops.kernel = vec![DropCount {
            port: "eth0 queue 1".into(),
            reason: "receive-ring-full".into(),
            explanation: "The worker was late.".into(),
            packets: 7,
        }];
        let shown = text(&Reply::Drops(drops));
        let (_, beside) = shown.split_once(sums).expect("the sums are the same");
        let last = "eth0 queue 1  receive-ring-full  7        The worker was late.\n";
        assert!(beside.starts_with("\nin no sum above") && beside.ends_with(last), "{shown}");
    }
}
