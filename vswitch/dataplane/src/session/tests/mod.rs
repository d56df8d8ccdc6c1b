//! The table as its callers use it, and as its workers interleave.

mod adoption;
mod affinity;
mod ahead;
mod faults;
mod interleaved;
mod limits;
mod model;
mod sessions;

use core::net::{Ipv4Addr, Ipv6Addr};

use super::state::{State, Tick};
use super::tuple::{Endpoint, Tuple};
use super::{Direction, Found, Lookup, Outcome};
use super::{Header, PolicyStamp, Session, SessionEffect, SessionTable};
use crate::tables::PortId;
use crate::wire::{Protocol, TcpFlags};

const SYN: TcpFlags = TcpFlags::SYN;
const SYN_ACK: TcpFlags = TcpFlags::SYN.with(TcpFlags::ACK);
const ACK: TcpFlags = TcpFlags::ACK;
const FIN_ACK: TcpFlags = TcpFlags::FIN.with(TcpFlags::ACK);
const RST: TcpFlags = TcpFlags::RST;

const POD: PortId = PortId(5);
const OTHER_POD: PortId = PortId(6);

fn header(buckets: u32) -> Header {
    Header { boot_id: 0xb007, seed: 0x5eed, buckets }
}

fn table(buckets: u32) -> SessionTable {
    SessionTable::on_heap(&header(buckets)).unwrap()
}

fn v4(host: u16, port: u16) -> Endpoint {
    let [high, low] = host.to_be_bytes();
    Endpoint { address: Ipv4Addr::from([198, 18, high, low]).into(), port }
}

fn v6(host: u16, port: u16) -> Endpoint {
    Endpoint { address: Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]).into(), port }
}

fn tcp(from: Endpoint, to: Endpoint) -> Tuple {
    Tuple::new(0, Protocol::TCP, from, to).unwrap()
}

/// A session that a SYN opens, or another protocol's first packet.
fn opened(client_side: Tuple, server_side: Tuple, charged: PortId, now: Tick) -> Session {
    Session {
        client_side,
        server_side,
        state: State::opened(client_side.protocol(), SYN, now),
        policy: PolicyStamp { generation: 3, rule_in: 4, rule_out: 5, is_revoked: false },
        charged,
        created: now,
        service: 0,
        service_generation: 9,
        local_in: Some(charged),
        local_out: None,
        through_tunnel: false,
    }
}

fn plain(tuple: Tuple, charged: PortId, now: Tick) -> Session {
    opened(tuple, tuple, charged, now)
}

impl SessionTable {
    fn hit(&self, tuple: Tuple, now: Tick) -> Option<Found> {
        match self.find(&tuple, now) {
            Lookup::Hit(found) => Some(found),
            Lookup::Miss => None,
            Lookup::Busy => panic!("nobody writes"),
        }
    }

    fn create(&self, session: Session, now: Tick) -> Outcome {
        self.commit(&SessionEffect::Create(session), now)
    }

    /// A packet of a session that is there.
    fn packet(&self, tuple: Tuple, flags: TcpFlags, now: Tick) -> Direction {
        let found = self.hit(tuple, now).unwrap();
        if let Some(touch) = found.touch(flags, now) {
            assert_eq!(self.commit(&SessionEffect::Touch(touch), now), Outcome::Done);
        }
        found.direction
    }

    /// The rest of the handshake of a session that a SYN opened.
    fn establish(&self, session: &Session, now: Tick) {
        self.packet(session.server_side.reversed(), SYN_ACK, now);
        self.packet(session.client_side, ACK, now);
    }

    fn all(&self, now: Tick) -> Vec<Session> {
        self.page(0..self.buckets(), now).collect()
    }
}
