//! Nodes whose packets are of sessions that are known.
//!
//! Enters: how many sessions are live. Leaves: a [`Node`] that has begun each of them by its first packet,
//! and that packets of some of them come to, in random order. Services are in 198.20.0.0/16.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use dataplane::session::Endpoint;
use dataplane::tables::policy::{
    DirectionPolicy, Interval, Judgement, Matrix, Policies, PortKey, RuleNumber, RuleTable,
    SubjectPolicies,
};
use dataplane::tables::{
    Adjacency, AdjacencyId, Attachment, Backend, BackendState, Backends, ConnectionCount, PortRole,
    Service, Tables, VirtualPort, WithoutBackend,
};
use dataplane::wire::Protocol;

use super::{FLOWS, PODS, Path, pod_port, pod_v4, ready, route_to, tables, to_gateway};
use crate::node::{Node, Ready};
use crate::{BATCH, Random, traffic};

/// Services, each with as many backends.
const SERVICES: usize = 100;
const BACKENDS: u16 = 10;
/// The port of all datagrams.
const PORT: u16 = 8080;
/// Packets that come, in random order: more than the caches of a core keep of a large table.
const PACKETS: usize = 1 << 17;

/// Pod to a pod of this node by a service, in one of `count` sessions.
#[must_use]
pub fn to_services(count: usize) -> Node {
    let packet = |nth| to_service(PODS, nth);
    Node::knowing(with_services(PODS), (0..count).map(packet), random_of(count, packet))
}

/// Pod to pod of this node in one of `count` sessions, where each pod has policies for what is sent to it.
#[must_use]
pub fn judged(count: usize) -> Node {
    let mut tables = tables(Path::Direct, Attachment::Routed);
    let every = tables.ports.iter().map(|port| match port {
        Some(port) if port.kind == PortRole::Pod => {
            SubjectPolicies { ingress: all_allowed(), egress: DirectionPolicy::Open }
        }
        _ => SubjectPolicies::default(),
    });
    tables.policies = Policies::new(1, Arc::default(), Arc::default(), every.collect());
    let packet = |nth: usize| {
        let from = (nth % usize::from(PODS)) as u16;
        let step = 1 + (nth / usize::from(PODS) * 7) % usize::from(PODS - 1);
        frame(from, pod_v4((from + step as u16) % PODS), nth / usize::from(PODS))
    };
    Node::knowing(tables, (0..count).map(packet), random_of(count, packet))
}

/// Pod to pod of this node where neither has a session, beside `count` sessions of other pods. A batch is of
/// one pod, as a TAP gives it.
#[must_use]
pub fn beside(count: usize) -> Node {
    const OTHERS: u16 = PODS / 2;
    let packet = |nth: usize| {
        let from = nth / BATCH % usize::from(OTHERS);
        let to = (from + 1 + nth % (usize::from(OTHERS) - 1)) % usize::from(OTHERS);
        frame(OTHERS + from as u16, pod_v4(OTHERS + to as u16), nth)
    };
    let openers = (0..count).map(|nth| to_service(OTHERS, nth));
    Node::knowing(with_services(OTHERS), openers, (0..FLOWS).map(packet).collect())
}

/// Packets of sessions below `count`.
fn random_of(count: usize, packet: impl Fn(usize) -> Ready) -> Vec<Ready> {
    let random = &mut Random::new(2);
    (0..PACKETS).map(|_| packet(random.below(count))).collect()
}

/// A packet of the nth session of the first so many pods to services.
fn to_service(pods: u16, nth: usize) -> Ready {
    let pods = usize::from(pods);
    frame((nth % pods) as u16, virtual_address(nth % SERVICES), nth / pods)
}

/// The source port tells a session from others of its sender.
fn frame(from: u16, to: IpAddr, number: usize) -> Ready {
    let port = 1024 + number as u16;
    ready(pod_port(from), traffic::udp_frame(to_gateway(from), pod_v4(from), to, port))
}

/// With services whose backends are the first so many pods.
fn with_services(pods: u16) -> Tables {
    let mut tables = tables(Path::Direct, Attachment::Routed);
    let adjacency = AdjacencyId(tables.adjacencies.len() as u32);
    tables.adjacencies.push(Adjacency::Service);
    for nth in 0..SERVICES {
        let address = virtual_address(nth);
        route_to(&mut tables, address, 32, adjacency);
        let port = VirtualPort { address, protocol: Protocol::UDP, port: PORT };
        Arc::make_mut(&mut tables.services).insert(port, service(nth, pods));
    }
    tables
}

fn virtual_address(nth: usize) -> IpAddr {
    Ipv4Addr::new(198, 20, 0, nth as u8 + 1).into()
}

fn service(nth: usize, pods: u16) -> Service {
    let backends = (0..BACKENDS).map(|at| {
        let pod = (nth as u16 * BACKENDS + at) % pods;
        let endpoint = Endpoint { address: pod_v4(pod), port: PORT };
        Backend { endpoint, state: BackendState::Usable }
    });
    Service {
        generation: 1,
        backends: Arc::new(Backends::new(backends)),
        without_backend: WithoutBackend::Refuse,
        affinity: None,
        sources: None,
        connections: ConnectionCount::default(),
    }
}

fn all_allowed() -> DirectionPolicy {
    let judgement = Judgement { allowed: true, rule: RuleNumber(0) };
    let row = [Interval { first: PortKey::FIRST, judgement }];
    let matrix = Matrix::new([&row[..]].into_iter(), [].into_iter());
    DirectionPolicy::Rules(Arc::new(RuleTable::matrix(matrix, &[(0, "bench/all".into())], &[0])))
}
