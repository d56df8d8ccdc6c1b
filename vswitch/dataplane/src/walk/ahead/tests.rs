//! Of which packets what is loaded, by bytes that may be missing and ports that may not be concerned.

use std::sync::Arc;

use frame::{Packet, Pool};

use super::{Concerned, Ipv4Addr, PortId, PortRole, SessionTable, TOGETHER, Tables, route};
use crate::session::{Endpoint, Header, PolicyStamp, Session, SessionEffect, State, Tick, Tuple};
use crate::tables::policy::{DirectionPolicy, Policies, SubjectPolicies};
use crate::tables::{Adjacency, AdjacencyId, Attachment, Offloads, Port, Template};
use crate::wire::{MacAddr, Protocol, TcpFlags};

fn tables() -> Tables {
    let port = |kind| {
        Some(Port {
            kind,
            attachment: Attachment::Routed,
            mac: MacAddr::ZERO,
            mtu: 1500,
            offloads: Offloads::default(),
            addresses: Vec::new(),
            rx_limit: None,
            tx_limit: None,
        })
    };
    let ports = vec![port(PortRole::Pod), port(PortRole::Uplink)];
    let mut tables = Tables { ports, ..Tables::default() };
    tables.adjacencies.push(Adjacency::Blackhole);
    tables.fib4.insert(Ipv4Addr::new(198, 18, 1, 2), 32, AdjacencyId(0));
    tables
}

/// An IPv4 header, as far as it is read.
fn ip(protocol: u8) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[9] = protocol;
    header[16..].copy_from_slice(&[198, 18, 1, 2]);
    header
}

fn framed(behind: &[u8]) -> Vec<u8> {
    [&[0; 12][..], &[8, 0], behind].concat()
}

#[test]
fn the_destination_is_found_behind_whichever_headers_are_taken_away() {
    let (tables, pod, uplink) = (tables(), PortId(0), PortId(1));
    let plain = framed(&ip(17));
    let vxlan = framed(&[&ip(17)[..16], &[0; 4], &[0; 16], &plain].concat());
    let ipip = framed(&[&ip(4)[..16], &[0; 4], &ip(17)].concat());
    let direct = framed(&ip(6));
    for (what, ingress, bytes) in [
        ("a pod's", pod, &plain),
        ("VXLAN", uplink, &vxlan),
        ("IPIP", uplink, &ipip),
        ("direct", uplink, &direct),
    ] {
        assert_eq!(route(&tables, ingress, bytes), Some(()), "{what}");
        // Whatever is missing of them.
        for len in 0..bytes.len() {
            assert_eq!(route(&tables, ingress, &bytes[..len]), None, "{what}, {len} bytes");
        }
    }
    assert_eq!(route(&tables, PortId(2), &plain), None);
}

fn locate(
    tables: &Tables,
    sessions: &SessionTable,
    ingress: PortId,
    bytes: &[u8],
) -> Option<crate::session::Location> {
    let of = Concerned::of(tables, sessions, ingress);
    super::locate(tables, sessions, ingress, of, bytes)
}

const SENDER: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
const TARGET: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);

fn datagram() -> Vec<u8> {
    let mut header = ip(17);
    header[12..16].copy_from_slice(&SENDER.octets());
    framed(&[&header[..], &40_000u16.to_be_bytes(), &80u16.to_be_bytes()].concat())
}

fn session() -> Tuple {
    let end = |address: Ipv4Addr, port| Endpoint { address: address.into(), port };
    Tuple::new(0, Protocol::UDP, end(SENDER, 40_000), end(TARGET, 80)).unwrap()
}

fn table() -> SessionTable {
    SessionTable::on_heap(&Header { boot_id: 1, seed: 2, buckets: 64 }).unwrap()
}

/// With the target behind port 2.
fn with_target() -> Tables {
    let mut tables = tables();
    let template = Template::ethernet(MacAddr::ZERO, MacAddr::ZERO);
    tables.adjacencies.push(Adjacency::Port { port: PortId(2), template, mtu: 1500 });
    tables.fib4.insert(TARGET, 32, AdjacencyId(1));
    tables.tunnels =
        crate::tables::Tunnels { uplink: Some(PortId(1)), ..(*tables.tunnels).clone() }.into();
    tables
}

fn judged(port: usize) -> Policies {
    let mut subjects = vec![SubjectPolicies::default(); 4];
    subjects[port].ingress = DirectionPolicy::Pending;
    Policies::new(1, Arc::default(), Arc::default(), subjects.into())
}

/// A translated session of this port.
fn begin(sessions: &SessionTable, port: PortId) {
    let server_side = session();
    let end = |address: Ipv4Addr, port| Endpoint { address: address.into(), port };
    let (client, vip) = (end(SENDER, 40_000), end(Ipv4Addr::new(198, 18, 9, 9), 80));
    let client_side = Tuple::new(0, Protocol::UDP, client, vip).unwrap();
    let session = Session {
        client_side,
        server_side,
        state: State::opened(Protocol::UDP, TcpFlags(0), Tick(0)),
        policy: PolicyStamp::default(),
        charged: port,
        created: Tick(0),
        service: 0,
        service_generation: 0,
        local_in: Some(port),
        local_out: None,
        through_tunnel: false,
    };
    sessions.commit(&SessionEffect::Create(session), Tick(0));
}

#[test]
fn a_packet_is_located_where_either_port_has_policies_or_translated_sessions() {
    let (tables, bytes) = (with_target(), datagram());
    let is_located = |policies: Policies, sessions: &SessionTable| {
        let tables = Tables { policies, ..tables.clone() };
        locate(&tables, sessions, PortId(0), &bytes).is_some()
    };
    assert!(!is_located(Policies::default(), &table()));
    assert!(is_located(judged(0), &table()));
    assert!(is_located(judged(2), &table()));
    assert!(!is_located(judged(3), &table()));
    let sessions = table();
    begin(&sessions, PortId(3));
    assert!(!is_located(Policies::default(), &sessions));
    begin(&sessions, PortId(0));
    // The same endpoints: no other session begins.
    assert!(!is_located(Policies::default(), &sessions));
    let sessions = table();
    begin(&sessions, PortId(0));
    assert!(is_located(Policies::default(), &sessions));
}

#[test]
fn what_is_missing_of_a_packet_is_not_read() {
    let (tables, bytes) = (Tables { policies: judged(0), ..with_target() }, datagram());
    for len in 0..bytes.len() {
        assert!(locate(&tables, &table(), PortId(0), &bytes[..len]).is_none(), "{len}");
    }
    let mut ping = bytes;
    ping[14 + 9] = Protocol::ICMP.0;
    assert!(locate(&tables, &table(), PortId(0), &ping).is_none());
}

#[test]
fn a_batch_may_be_longer_than_what_is_looked_up_together() {
    let tables = Tables { policies: judged(0), ..with_target() };
    let pool = Pool::new(3 * TOGETHER as u32);
    let packets: Vec<_> = (0..2 * TOGETHER + 5)
        .map(|_| {
            let mut frame = pool.alloc().unwrap();
            frame.extend_from_slice(&datagram()).unwrap();
            Packet::plain(frame)
        })
        .collect();
    let sessions = table();
    begin(&sessions, PortId(0));
    for len in [0, 1, TOGETHER, packets.len()] {
        let batch = packets[..len].iter().map(|packet| (PortId(0), packet));
        super::sessions(&tables, &sessions, batch);
    }
}
