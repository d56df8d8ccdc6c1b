//! Pods with limits, from the reservation to the datapath, and over a restart.

use api::{Bandwidth, Check, ErrorKind, PortEntry, RateLimit, Reply, Request, Reserve};

use crate::node::{Node, Pod, Running};

fn rate(bits_per_second: u64) -> Option<RateLimit> {
    Some(RateLimit { bits_per_second, burst_bits: Some(0) })
}

fn port(daemon: &Running<'_>, name: &str) -> PortEntry {
    let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
    ports.into_iter().find(|port| port.name == name).expect("the pod has a port")
}

/// At 1 kbit/s a datagram takes half a second, and what may pass at once is a byte.
#[test]
fn a_pod_is_held_to_its_limits_and_keeps_them_over_a_restart() {
    let node = Node::new("");
    let daemon = node.start();
    let limits = Bandwidth { ingress: rate(1_000_000_000), egress: rate(1_000) };
    let limited = daemon.plug_as(Reserve { bandwidth: limits, ..Pod::reserve("limited") });
    let free = daemon.plug("free");
    for number in 0..3 {
        limited.send_udp(&free, &[number; 20]);
    }
    for number in 0..3 {
        assert_eq!(free.receive().expect("none is lost")[42..], [number; 20]);
    }
    let entry = port(&daemon, "limited");
    assert_eq!(entry.bandwidth, limits);
    assert_eq!((entry.counters.rx_packets, entry.counters.dropped), (3, 0));
    assert!(entry.counters.rx_delayed > 0, "{:?}", entry.counters);
    assert!(port(&daemon, "free").bandwidth.is_unlimited());

    daemon.kill();
    let daemon = node.start();
    assert_eq!(port(&daemon, "limited").bandwidth, limits);
    let mut check = Check {
        attachment: Pod::id("limited"),
        addresses: vec![limited.address],
        mac: limited.mac,
        bandwidth: Some(Bandwidth::default()),
        queues: None,
        attached_queues: None,
        port_mappings: Vec::new(),
    };
    // Judged before the port, which is down.
    let refused = daemon.try_ask(&Request::Check(check.clone())).expect_err("the limits differ");
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(refused.message.contains("is limited to 1G bit/s"), "{}", refused.message);
    check.bandwidth = Some(limits);
    let down = daemon.try_ask(&Request::Check(check)).expect_err("it has no port");
    assert!(!down.message.contains("limited to"), "{}", down.message);
    daemon.stop();
}
