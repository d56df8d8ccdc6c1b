//! What may happen to a node.
//!
//! Enters: random numbers. Leaves: happenings, to `node`, which lets them happen; each says in one line
//! what it is. Names, addresses and prefixes are few, so that they meet.

use std::fmt;
use std::net::IpAddr;

use api::{
    Attach, AttachmentId, Collect, Delegated, Encapsulate, Encapsulation, Mac, Mode, PeerSpec,
    PeerSync, PortMapping, RateLimit, Request, Reserve, RouteSpec, RouteTarget, Source,
    TransportProtocol,
};
use controlplane::kernel::{KernelHop, KernelRoute, RouteKind};
use controlplane::next_hop::NextHop;
use dataplane::wire::MacAddr;
use ipnet::IpNet;

use crate::policies;
use crate::random::Random;
use crate::settings::{self, Setting, WHOLE_KINDS};

/// Something that happens.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one at a time")]
pub(crate) enum Happening {
    /// A client asks.
    Ask(Box<Request>),
    /// The operator writes another configuration, and has it read.
    Reload(Setting),
    /// Others change the kernel.
    KernelMoves(Vec<Move>),
    /// The daemon looks at the kernel.
    Look,
    /// Routers of the underlay say how large a packet may be.
    PathMtu(IpAddr, u16),
    /// The NIC is opened anew, by a kind of uplink that takes superframes or by one that does not.
    UplinkReopens(bool),
    /// So many milliseconds go by.
    Time(u64),
    /// A pod's interface is deleted in its namespace.
    PortGoes(AttachmentId),
    /// A pod's namespace ends.
    PodEnds(AttachmentId),
    /// A worker that stopped gets on.
    WorkerGetsOn(usize),
    /// The daemon writes its journal anew.
    Compact,
    /// The process is killed, and started again.
    Kill,
    /// The process is stopped in order, and started again.
    Stop,
    /// The machine stops, in order or not, and starts: of what was not synced so many percent are there.
    Reboot(usize),
}

/// One thing that others do to the kernel.
#[derive(Debug, Clone)]
pub(crate) enum Move {
    Mtu(u32),
    Mac(u8),
    Addresses(Vec<IpAddr>),
    Way(IpAddr, Option<NextHop>),
    Route(KernelRoute),
    NoRoute(usize),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask(request) => {
                let line = serde_json::to_string(request).map_err(|_| fmt::Error)?;
                write!(f, "a client asks {line}")
            }
            Self::Reload(setting) => write!(f, "the operator reloads {setting:?}"),
            Self::KernelMoves(moves) => write!(f, "the kernel has {moves:?}"),
            Self::Look => f.write_str("the daemon looks at the kernel"),
            Self::PathMtu(address, mtu) => {
                write!(f, "a router says that {mtu} bytes pass to {address}")
            }
            Self::UplinkReopens(takes_superframes) => {
                write!(f, "the NIC is opened anew, with superframes: {takes_superframes}")
            }
            Self::Time(millis) => write!(f, "{millis} ms go by"),
            Self::PortGoes(attachment) => {
                write!(f, "the interface of {} goes", attachment.container_id)
            }
            Self::PodEnds(attachment) => {
                write!(f, "the namespace of {} ends", attachment.container_id)
            }
            Self::WorkerGetsOn(worker) => write!(f, "worker {worker} gets on"),
            Self::Compact => f.write_str("the journal is written anew"),
            Self::Kill => f.write_str("the process is killed"),
            Self::Stop => f.write_str("the process is stopped in order"),
            Self::Reboot(percent) => {
                write!(f, "the machine starts anew, with {percent} % of what was not synced")
            }
        }
    }
}

impl Happening {
    /// Something, on a node with this configuration.
    pub(crate) fn random(random: &mut Random, setting: Setting) -> Self {
        match random.below(100) {
            0..58 => Self::Ask(Box::new(request(random))),
            58..66 => Self::Reload(another(random, setting)),
            66..80 => {
                let count = 1 + random.below(3);
                Self::KernelMoves((0..count).map(|_| Move::random(random)).collect())
            }
            80..83 => Self::Look,
            83 => Self::PathMtu(underlay(random), random.of(&[1280, 1400, 1420])),
            84 => Self::UplinkReopens(random.of(&[true, false])),
            85..87 => Self::Time(random.of(&[1_000, 61_000, 700_000])),
            87..89 => Self::PortGoes(pod(random)),
            89..91 => Self::PodEnds(pod(random)),
            91..94 => Self::WorkerGetsOn(random.below(2)),
            94..96 => Self::Compact,
            96..98 => Self::Kill,
            98..99 => Self::Stop,
            _ => Self::Reboot(random.below(101)),
        }
    }
}

/// Another variant of the same kind of node, mostly.
fn another(random: &mut Random, setting: Setting) -> Setting {
    let is_other_kind = setting.kind < WHOLE_KINDS && random.percent(10);
    let kind = if is_other_kind { random.below(WHOLE_KINDS) } else { setting.kind };
    Setting { kind, variant: random.below(settings::all()[kind].len()) }
}

impl Move {
    fn random(random: &mut Random) -> Self {
        match random.below(10) {
            0..2 => Self::Mtu(random.of(&[1500, 1500, 1500, 1400, 3000])),
            2 => Self::Mac(1 + random.below(3) as u8),
            3 => Self::Addresses(addresses(random)),
            4..7 => Self::Way(underlay(random), way(random)),
            7..9 => Self::Route(kernel_route(random)),
            _ => Self::NoRoute(random.below(8)),
        }
    }
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn addresses(random: &mut Random) -> Vec<IpAddr> {
    let sets: [&[&str]; 6] = [
        &["198.51.100.11"],
        &["198.51.100.11"],
        &["198.51.100.21"],
        &["198.51.100.11", "2001:db8::11"],
        &["2001:db8::11"],
        &[],
    ];
    random.of(&sets).iter().map(|text| address(text)).collect()
}

/// Where peers, routers and VTEPs are.
fn underlay(random: &mut Random) -> IpAddr {
    random.of(&UNDERLAY).parse().expect("an address")
}

pub(crate) const UNDERLAY: [&str; 9] = [
    "198.51.100.12",
    "198.51.100.13",
    "198.51.100.14",
    "203.0.113.15",
    "203.0.113.41",
    "203.0.113.42",
    "198.51.100.1",
    "2001:db8::16",
    "2001:db8::11",
];

fn way(random: &mut Random) -> Option<NextHop> {
    let via = random.perhaps(&[address("198.51.100.1"), address("198.51.100.12")]);
    let mac = MacAddr([2, 0, 0, 0, 1, random.below(2) as u8]);
    let mtu = random.percent(20).then_some(1400);
    random.percent(80).then(|| NextHop { via, mtu, ..NextHop::resolved(mac) })
}

fn kernel_route(random: &mut Random) -> KernelRoute {
    const DESTINATIONS: [(&str, u8); 6] = [
        ("198.18.4.0", 24),
        ("198.18.5.0", 24),
        ("198.18.1.2", 32),
        ("198.18.0.0", 16),
        ("198.18.9.9", 32),
        ("fd00:18:5::", 64),
    ];
    let (network, len) = random.of(&DESTINATIONS);
    let count = random.below(3);
    let hops = (0..count).map(|_| KernelHop {
        oif: random.of(&[UPLINK_IFINDEX, UPLINK_IFINDEX, HOST_IFINDEX, 9]),
        gateway: random.perhaps(&[
            address("198.51.100.12"),
            address("198.51.100.14"),
            address("198.51.100.1"),
        ]),
        weight: 1 + random.below(2) as u16,
        onlink: false,
        usable: random.percent(90),
    });
    let next_hops: Vec<_> = hops.collect();
    let kind = if next_hops.is_empty() { RouteKind::Blackhole } else { RouteKind::Unicast };
    KernelRoute {
        destination: (address(network), len),
        table: 254,
        tos: 0,
        metric: random.of(&[20, 100]),
        protocol: 12,
        kind,
        next_hops,
    }
}

pub(crate) const UPLINK_IFINDEX: u32 = 2;
pub(crate) const HOST_IFINDEX: u32 = 3;

pub(crate) fn container(number: usize) -> AttachmentId {
    AttachmentId { container_id: format!("c{number}"), ifname: "eth0".into() }
}

/// Pods that there may be.
const PODS: usize = 7;

fn pod(random: &mut Random) -> AttachmentId {
    container(random.below(PODS))
}

pub(crate) fn reserve(attachment: AttachmentId) -> Reserve {
    let netns = format!("/run/netns/{}", attachment.container_id);
    Reserve {
        attachment,
        network: None,
        pod: None,
        container_name: None,
        netns,
        mode: None,
        delegated: None,
        requested: Vec::new(),
        ranges: Vec::new(),
        mac: None,
        port_mappings: Vec::new(),
        bandwidth: api::Bandwidth::default(),
        queues: 1,
    }
}

fn request(random: &mut Random) -> Request {
    match random.below(100) {
        0..16 => Request::Reserve(random_reserve(random)),
        // Its MAC is that of the lease mostly; see `node`.
        16..34 => {
            let mac = if random.percent(95) { Mac([0; 6]) } else { Mac([2, 9, 9, 9, 9, 9]) };
            Request::Attach(Attach { attachment: pod(random), mac, queues: 1 })
        }
        34..44 => Request::Detach(pod(random)),
        44..47 => Request::Collect(Collect {
            network: random.of(&NETWORKS).into(),
            valid: (0..random.below(6)).map(|_| pod(random)).collect(),
        }),
        47..50 => {
            Request::Adjusted { attachment: pod(random), mtu: random.of(&[1300, 1430, 1450, 1500]) }
        }
        50..58 => Request::AddPeer(peer(random)),
        58..61 => Request::DeletePeer(format!("n{}", 2 + random.below(5))),
        61..72 => Request::SyncPeers(PeerSync {
            source: Source::Kubernetes,
            complete: random.percent(50),
            peers: (0..random.below(4)).map(|_| peer(random)).collect(),
            gone: (0..random.below(2)).map(|_| format!("n{}", 2 + random.below(5))).collect(),
        }),
        72..77 => Request::SetPodPrefixes(pod_prefixes(random)),
        77 => Request::ForgetPolicies,
        78..88 => Request::SyncPolicies(policies::sync(random, PODS)),
        88..91 => Request::AddRoute(RouteSpec {
            prefix: random
                .of(&["198.18.77.0/24", "198.18.2.128/25", "192.0.2.0/24"])
                .parse()
                .expect("a prefix"),
            target: match random.below(4) {
                0 => RouteTarget::Host,
                1 => RouteTarget::Blackhole,
                2 => RouteTarget::Unreachable,
                _ => RouteTarget::Peer { name: format!("n{}", 2 + random.below(5)) },
            },
        }),
        91..93 => Request::DeleteRoute(net(random.of(&["198.18.77.0/24", "192.0.2.0/24"]))),
        93..95 => {
            Request::AddFdb { bridge: "default".into(), mac: mac(random), vtep: underlay(random) }
        }
        95..96 => Request::DeleteFdb { bridge: "default".into(), mac: mac(random) },
        96..99 => Request::AddNeighbor {
            bridge: "default".into(),
            address: address(random.of(&["198.18.1.4", "198.18.1.100"])),
            mac: mac(random),
        },
        _ => Request::DeleteNeighbor {
            bridge: "default".into(),
            address: address(random.of(&["198.18.1.4", "198.18.1.100"])),
        },
    }
}

const NETWORKS: [&str; 2] = ["one", "two"];

fn random_reserve(random: &mut Random) -> Reserve {
    let mut asked = reserve(pod(random));
    // Not every runtime names pods.
    let container = asked.attachment.container_id.clone();
    asked.pod = random.percent(80).then(|| policies::pod_name(random, &container));
    // podman gives its containers names; one is another pod's ID.
    if asked.pod.is_none() && random.percent(50) {
        asked.container_name = Some(random.of(&["web", "c1", "c3"]).into());
    }
    // An older plugin names none.
    asked.network = random.percent(80).then(|| random.of(&NETWORKS).into());
    if random.percent(20) {
        asked.mode = Some(random.of(&[Mode::Routed, Mode::Bridged { bridge: None }]));
    }
    if random.percent(30) {
        asked.port_mappings.push(PortMapping {
            protocol: random.of(&[TransportProtocol::Tcp, TransportProtocol::Udp]),
            host_ip: random.of(&[None, None, Some(address("198.51.100.11"))]),
            host_port: random.of(&[8080, 8081]),
            container_port: 80,
        });
    }
    if random.percent(10) {
        asked.requested.push(address(random.of(&["198.18.1.3", "198.18.1.5", "fd00:18:1::3"])));
    }
    // More than there are workers, too.
    if random.percent(20) {
        asked.queues = random.of(&[2, 8]);
    }
    if random.percent(10) {
        let addresses = [net("198.18.1.6/24"), net("198.18.2.9/24"), net("198.18.50.2/24")];
        let addresses = vec![random.of(&addresses)];
        asked.delegated = Some(Box::new(Delegated { addresses, gateways: Vec::new() }));
    }
    if random.percent(10) {
        asked.mac = Some(mac(random));
    }
    if random.percent(20) {
        let bits_per_second = random.of(&[0, 1_000, 20_000_000]);
        asked.bandwidth.egress = Some(RateLimit { bits_per_second, burst_bits: None });
    }
    asked
}

fn mac(random: &mut Random) -> Mac {
    Mac([2, 7, 0, 0, 0, random.below(3) as u8])
}

fn peer(random: &mut Random) -> PeerSpec {
    let number = 2 + random.below(5);
    // Mostly what is its own; sometimes what is another's.
    let owner = if random.percent(85) { number } else { 1 + random.below(6) };
    let mut prefixes = vec![net(&format!("198.18.{owner}.0/24"))];
    if random.percent(30) {
        prefixes.push(net(&format!("fd00:18:{owner}::/64")));
    }
    let at = if random.percent(80) {
        UNDERLAY[number - 2].parse().expect("an address")
    } else {
        underlay(random)
    };
    PeerSpec {
        name: format!("n{number}"),
        address: at,
        prefixes,
        encapsulation: random.percent(30).then(|| {
            random.of(&[Encapsulation::Vxlan, Encapsulation::Ipip, Encapsulation::Direct])
        }),
        encapsulate: random.percent(20).then(|| {
            random.of(&[Encapsulate::Always, Encapsulate::CrossSubnet, Encapsulate::Never])
        }),
        vtep_mac: None,
    }
}

fn pod_prefixes(random: &mut Random) -> Vec<IpNet> {
    let sets: [&[&str]; 5] = [
        &["198.18.1.0/29"],
        &["198.18.1.0/29", "fd00:18:1::/125"],
        &["198.18.7.0/29"],
        &["198.18.7.0/29", "fd00:18:7::/125"],
        &["198.18.2.0/28"],
    ];
    random.of(&sets).iter().map(|text| net(text)).collect()
}
