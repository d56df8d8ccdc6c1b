//! How long packets take, by path and by port.

use std::thread;
use std::time::{Duration, Instant};

use api::{LatencyCounts, LatencyReport, Reply, Request};

use crate::node::{Node, Pod, Running};

const PATIENCE: Duration = Duration::from_secs(10);

fn packets(counts: &LatencyCounts) -> u64 {
    counts.buckets.iter().map(|bucket| bucket.packets).sum()
}

impl Running<'_> {
    fn latency(&self, by_port: bool) -> LatencyReport {
        match self.ask(&Request::ShowLatency { by_port }) {
            Reply::Latency(report) => report,
            other => panic!("{other:?}"),
        }
    }

    /// The report once so many packets are in it: each counts with the end of its turn.
    fn latency_of(&self, wanted: u64) -> LatencyReport {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.latency(true);
            if report.paths.iter().map(packets).sum::<u64>() == wanted {
                return report;
            }
            assert!(Instant::now() < deadline, "{report:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn packets_are_told_by_path_and_by_port_and_a_port_takes_its_own_with_it() {
    let node = Node::new("");
    let daemon = node.start();
    let nothing = daemon.latency(true);
    assert_eq!((nothing.paths, nothing.ports), (Vec::new(), Vec::new()));

    let (a, b) = (daemon.plug("a"), daemon.plug("b"));
    for _ in 0..3 {
        a.send_udp(&b, b"hello from a");
        assert!(b.receive().is_some());
    }
    b.send_udp(&a, b"hello from b");
    assert!(a.receive().is_some());
    let report = daemon.latency_of(4);
    assert!(report.uptime_ms > 0);
    let [path] = report.paths.as_slice() else { panic!("{report:?}") };
    assert_eq!((path.name.as_str(), path.port), ("pod-pod", None));
    assert!((1..=4).contains(&path.timed), "{path:?}");
    let ports: Vec<_> =
        report.ports.iter().map(|port| (port.name.clone(), packets(port))).collect();
    assert_eq!(ports, [(daemon.port_of(&a), 3), (daemon.port_of(&b), 1)]);
    assert_eq!(daemon.latency(false).ports, Vec::new());

    // What it had is in the sum of the path still.
    assert_eq!(daemon.ask(&Request::Detach(Pod::id("a"))), Reply::Done);
    assert!(a.is_closed());
    let report = daemon.latency_of(4);
    assert_eq!(report.ports.len(), 1);
    daemon.stop();
}
