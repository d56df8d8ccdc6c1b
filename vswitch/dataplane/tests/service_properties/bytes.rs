//! A packet to a service leaves byte for byte as its client would have sent it to the backend, and what
//! the backend answers as the service would have sent it.

use proptest::prelude::*;

use crate::node::Worker;
use crate::node::egress::Sent;

/// Pods with and without offloads, routed and on a segment; peers by both tunnels.
const NODE: &str = "underlay 198.51.100.11
    vxlan 10
    ipip
    clamp-mss
    host
    gateway 198.18.1.1 fd00:18:1::1
    bridge red vni 100
    pod a 198.18.1.2 fd00:18:1::2
    pod b 198.18.1.3 fd00:18:1::3
    pod p 198.18.1.4 fd00:18:1::4 plain
    pod m 198.18.1.66 fd00:18:1::66 in red
    peer n 203.0.113.12 vxlan 198.18.2.0/24 fd00:18:2::/64
    peer i 203.0.113.13 ipip 198.18.3.0/24 fd00:18:3::/64
    frames 64";

/// Where a backend is: its addresses, and what stands in front of its own IP packets.
struct Backend {
    v4: &'static str,
    v6: &'static str,
    way: &'static str,
}

const BACKENDS: [Backend; 6] = [
    Backend { v4: "198.18.1.3", v6: "fd00:18:1::3", way: "pod-b eth pod-b > gateway" },
    Backend { v4: "198.18.1.4", v6: "fd00:18:1::4", way: "pod-p eth pod-p > gateway" },
    Backend { v4: "198.18.1.66", v6: "fd00:18:1::66", way: "pod-m eth pod-m > gateway" },
    Backend {
        v4: "198.18.2.7",
        v6: "fd00:18:2::7",
        way: "uplink eth router > uplink / ip 203.0.113.12 > 198.51.100.11 / \
              udp 50000 > 4789 nosum / vxlan 10 / eth vtep-n > vtep",
    },
    Backend {
        v4: "198.18.3.7",
        v6: "fd00:18:3::7",
        way: "uplink eth router > uplink / ip 203.0.113.13 > 198.51.100.11",
    },
    Backend { v4: "192.0.2.9", v6: "2001:db8:9::9", way: "host eth host > gateway" },
];

#[derive(Debug, Clone, Copy)]
enum Shape {
    /// With its flags.
    Tcp(&'static str),
    Udp,
    /// Without a checksum, over IPv4 alone.
    UnsummedUdp,
    Sctp,
    /// The first of two fragments.
    Fragment,
    /// A superframe, whose checksums are left to us.
    Super,
    SuperUdp,
}

fn shape() -> impl Strategy<Value = Shape> {
    use Shape::*;
    let all = [Tcp("S mss 1460"), Tcp("A"), Udp, UnsummedUdp, Sctp, Fragment, Super, SuperUdp];
    (0..all.len()).prop_map(move |at| all[at])
}

impl Shape {
    fn protocol(self) -> &'static str {
        match self {
            Self::Tcp(_) | Self::Super => "tcp",
            Self::Sctp => "sctp",
            Self::Udp | Self::UnsummedUdp | Self::Fragment | Self::SuperUdp => "udp",
        }
    }

    /// The layers behind the Ethernet header of a packet between two sockets.
    fn text(self, from: (&str, u16), to: (&str, u16), len: usize, partial: bool) -> String {
        let ((source, source_port), (destination, port)) = (from, to);
        let v6 = source.contains(':');
        let ip = format!("ip {source} > {destination}");
        let ports = format!("{source_port} > {port}");
        let partial = if partial { " partial" } else { "" };
        let large = 1500 + 2 * len;
        match self {
            Self::Tcp(flags) => format!("{ip} / tcp {ports} flags {flags}{partial} / {len} bytes"),
            Self::UnsummedUdp if !v6 => format!("{ip} / udp {ports} nosum / {len} bytes"),
            Self::Fragment if !v6 => format!(
                "{ip} id 9 more / udp {ports} len {} whole {} / 592 bytes",
                1008 + len,
                1000 + len
            ),
            Self::Udp | Self::UnsummedUdp | Self::Fragment => {
                format!("{ip} / udp {ports}{partial} / {len} bytes")
            }
            Self::Sctp => format!("{ip} / sctp {ports} tag 7 / {len} bytes"),
            Self::Super => {
                let kind = if v6 { "tcp6" } else { "tcp4" };
                format!("{ip} / tcp {ports} flags AP partial / {large} bytes / gso {kind} 1200")
            }
            Self::SuperUdp => format!("{ip} / udp {ports} partial / {large} bytes / gso udp 1200"),
        }
    }
}

fn send(worker: &mut Worker, text: &str) -> Vec<Sent> {
    let (port, packet) = worker.described(text);
    worker.process(port, &packet.bytes, packet.offload)
}

proptest! {
    #[test]
    fn a_service_changes_nothing_but_the_endpoints(
        shape in shape(), v6: bool, partial: bool, at in 0..BACKENDS.len(), len in 0..1200usize
    ) {
        let Backend { v4, v6: backend6, way } = BACKENDS[at];
        let (client, service, backend) = match v6 {
            false => ("198.18.1.2", "198.18.255.1", v4),
            true => ("fd00:18:1::2", "fd00:18:ff::1", backend6),
        };
        let socket = if v6 { format!("[{backend}]:8080") } else { format!("{backend}:8080") };
        let served = format!("{NODE}\nservice {service} {} 80 to {socket}", shape.protocol());
        let (mut with, mut without) = (Worker::new(&served), Worker::new(NODE));
        let client_to = |to| {
            format!("pod-a eth pod-a > gateway / {}", shape.text((client, 40_000), to, len, partial))
        };
        let there = send(&mut with, &client_to((service, 80)));
        prop_assert!(!there.is_empty());
        prop_assert_eq!(there, send(&mut without, &client_to((backend, 8080))));

        // From the NIC nothing large comes, and the size of segments is limited.
        let (shape, partial) = match (way.starts_with("uplink"), shape) {
            (true, Shape::Tcp(_) | Shape::Super) => (Shape::Tcp("A"), false),
            (true, Shape::SuperUdp) => (Shape::Udp, false),
            (true, shape) => (shape, false),
            (false, shape) => (shape, partial),
        };
        let answer = |from, way: &str| {
            format!("{way} / {}", shape.text(from, (client, 40_000), len, partial))
        };
        let back = send(&mut with, &answer((backend, 8080), way));
        // The host alone may have any address as its source.
        let as_service = send(&mut without, &answer((service, 80), "host eth host > gateway"));
        prop_assert!(!back.is_empty());
        let bytes = |sent: &[Sent]| sent.iter().map(|one| one.bytes.clone()).collect::<Vec<_>>();
        prop_assert_eq!(bytes(&back), bytes(&as_service));
    }
}
