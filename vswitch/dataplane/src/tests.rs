//! Two workers that decide about one flow at the same time: what one has begun when the other carries out
//! its decision.

use core::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use etherparse::PacketBuilder;
use frame::{Packet, Pool};

use crate::counters::Counters;
use crate::session::{Endpoint, Header, SessionTable};
use crate::tables::{
    Adjacency, AdjacencyId, Attachment, Backend, BackendState, Backends, ConnectionCount, Fdb,
    Gateway, Offloads, Port, PortId, PortRole, Service, Tables, Template, VirtualPort,
    WithoutBackend,
};
use crate::walk::Decision;
use crate::wire::{MacAddr, Protocol};
use crate::{Committed, Dataplane, DropReason, Egress, Millis, Verdict};

const NOW: Millis = Millis(1_000_000);
/// The client, and two backends; their ports have these places as numbers.
const PODS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(198, 18, 1, 2), Ipv4Addr::new(198, 18, 1, 3), Ipv4Addr::new(198, 18, 1, 4)];
const SERVICES: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 255, 1), Ipv4Addr::new(198, 18, 255, 2)];

fn mac(pod: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, pod])
}

/// Tables in which this one of the pods takes new flows, and the other those that it has.
fn tables(usable: usize) -> Tables {
    let mut tables = Tables::default();
    let route = |tables: &mut Tables, address: Ipv4Addr, adjacency| {
        tables.adjacencies.push(adjacency);
        tables.fib4.insert(address, 32, AdjacencyId(tables.adjacencies.len() as u32 - 1));
    };
    for (number, address) in (0..).zip(PODS) {
        tables.ports.push(Some(Port {
            kind: PortRole::Pod,
            attachment: Attachment::Routed,
            mac: mac(number),
            mtu: 1450,
            offloads: Offloads::default(),
            addresses: vec![address.into()],
            rx_limit: None,
            tx_limit: None,
        }));
        let template = Template::ethernet(mac(number), Gateway::MAC);
        let port = PortId(number.into());
        route(&mut tables, address, Adjacency::Port { port, template, mtu: 1450 });
    }
    let backend = |pod: usize| Backend {
        endpoint: Endpoint { address: IpAddr::V4(PODS[pod]), port: 8080 },
        state: if pod == usable { BackendState::Usable } else { BackendState::Serving },
    };
    for address in SERVICES {
        route(&mut tables, address, Adjacency::Service);
        let service = Service {
            generation: usable as u32,
            backends: Arc::new(Backends::new([backend(1), backend(2)])),
            without_backend: WithoutBackend::Refuse,
            affinity: None,
            sources: None,
            connections: ConnectionCount::default(),
        };
        let port = VirtualPort { address: address.into(), protocol: Protocol::TCP, port: 80 };
        Arc::make_mut(&mut tables.services).insert(port, service);
    }
    tables
}

/// How many connections each service was given.
fn connections(tables: &Tables) -> [u64; 2] {
    SERVICES.map(|address| {
        let port = VirtualPort { address: address.into(), protocol: Protocol::TCP, port: 80 };
        tables.services.get(&port).unwrap().connections.get()
    })
}

/// Two workers over one table of sessions.
fn workers(pool: &Pool) -> [Dataplane; 2] {
    let header = Header { boot_id: 1, seed: 2, buckets: 64 };
    let sessions = Arc::new(SessionTable::on_heap(&header).unwrap());
    [(); 2].map(|()| {
        let (fdb, counters) = (Fdb::new(8, 300_000), Arc::new(Counters::new()));
        Dataplane::new(fdb, pool.clone(), counters, Arc::clone(&sessions))
    })
}

/// The client's first segment to a service.
fn syn(pool: &Pool, service: Ipv4Addr) -> Packet {
    let builder = PacketBuilder::ethernet2(mac(0).0, Gateway::MAC.0)
        .ipv4(PODS[0].octets(), service.octets(), 64)
        .tcp(40_000, 80, 1, 65_000)
        .syn();
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[]).unwrap();
    let mut frame = pool.alloc().unwrap();
    frame.extend_from_slice(&bytes).unwrap();
    Packet::plain(frame)
}

/// The ports by which packets leave.
#[derive(Default)]
struct Left(Vec<PortId>);

impl Egress for Left {
    fn send(&mut self, port: PortId, _: Packet) -> Result<(), DropReason> {
        self.0.push(port);
        Ok(())
    }

    fn send_with(
        &mut self,
        port: PortId,
        _: usize,
        _: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), DropReason> {
        self.0.push(port);
        Ok(())
    }
}

fn begun(worker: &Dataplane) -> u64 {
    worker.sessions().events().iter().map(|events| events.created).sum()
}

#[test]
fn the_second_of_two_that_begin_one_flow_follows_the_first() {
    let pool = Pool::new(4);
    let [mut slow, mut fast] = workers(&pool);
    let (of_slow, of_fast) = (tables(1), tables(2));
    let packet = syn(&pool, SERVICES[0]);
    let mut decision = Decision::open();
    slow.decide(&of_slow, PortId(0), &packet, NOW, &mut decision);
    assert!(matches!(decision.verdict, Verdict::Route { port: PortId(1), .. }));

    // Meanwhile, by newer tables.
    let mut left = Left::default();
    fast.process(&of_fast, PortId(0), syn(&pool, SERVICES[0]), NOW, &mut left);
    assert_eq!(left.0, [PortId(2)]);

    let committed = slow.commit(&of_slow, &mut decision, PortId(0), NOW);
    assert_eq!(committed, Committed::DecideAgain(DropReason::SessionBusy));
    slow.decide_again(&of_slow, PortId(0), &packet, NOW, &mut decision);
    assert!(matches!(decision.verdict, Verdict::Route { port: PortId(2), .. }));
    assert_eq!(begun(&slow), 1);
}

#[test]
fn two_that_choose_the_same_begin_one_session() {
    let pool = Pool::new(4);
    let [mut slow, mut fast] = workers(&pool);
    let tables = tables(1);
    let packet = syn(&pool, SERVICES[0]);
    let mut decision = Decision::open();
    slow.decide(&tables, PortId(0), &packet, NOW, &mut decision);
    let mut left = Left::default();
    fast.process(&tables, PortId(0), syn(&pool, SERVICES[0]), NOW, &mut left);
    assert_eq!(slow.commit(&tables, &mut decision, PortId(0), NOW), Committed::Yes);
    assert!(matches!(decision.verdict, Verdict::Route { port: PortId(1), .. }));
    assert_eq!((left.0, begun(&slow)), (vec![PortId(1)], 1));
    assert_eq!(connections(&tables), [1, 0], "it is counted once");
}

#[test]
fn a_client_whose_port_another_service_took_meanwhile_gets_another() {
    let pool = Pool::new(4);
    let [mut slow, mut fast] = workers(&pool);
    let tables = tables(1);
    let packet = syn(&pool, SERVICES[0]);
    let mut decision = Decision::open();
    slow.decide(&tables, PortId(0), &packet, NOW, &mut decision);
    fast.process(&tables, PortId(0), syn(&pool, SERVICES[1]), NOW, &mut Left::default());
    let committed = slow.commit(&tables, &mut decision, PortId(0), NOW);
    assert_eq!(committed, Committed::DecideAgain(DropReason::SessionPortsUsed));
    slow.decide_again(&tables, PortId(0), &packet, NOW, &mut decision);
    assert!(matches!(decision.verdict, Verdict::Route { port: PortId(1), .. }));
    let source = decision.flow().and_then(|flow| flow.ports()).map(|ports| ports.source());
    assert!(source.is_some_and(|port| port >= 61_000), "{source:?}");
    assert_eq!(begun(&slow), 2);
    assert_eq!(connections(&tables), [1, 1]);
}
