//! A node with services and two workers over one session table: a packet in, and with which endpoints
//! it leaves.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dataplane::counters::Counters;
use dataplane::session::{
    Endpoint, Header, Outcome, PolicyStamp, Session, SessionEffect, SessionMemory, SessionTable,
    State, Tick, Tuple,
};
use dataplane::tables::{Fdb, PortId};
use dataplane::wire::{Protocol, TcpFlags};
use dataplane::{Dataplane, DropReason, Millis};
use etherparse::SlicedPacket;
use frame::{Pool, Words};

use crate::node::packet::at_port;
use crate::node::{Described, Node, Ports};

/// Two routed pods; two of a segment, of which one is found by its MAC.
pub(crate) const NODE: &str = "underlay 198.51.100.11
    vxlan 10
    host
    gateway 198.18.1.1
    bridge red vni 100
    pod a 198.18.1.2
    pod b 198.18.1.3
    pod m 198.18.1.66 in red
    pod n 198.18.1.67 in red
    neighbor 198.18.1.67 at pod-n in red
    peer p 203.0.113.12 vxlan 198.18.2.0/24";

const NOW: Millis = Millis(1_000_000);

/// Buckets of the session table: more than any case fills.
const BUCKETS: u32 = 40;

/// Where a packet comes from, or goes to, by its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) address: Ipv4Addr,
    /// The port behind which it is.
    pub(crate) port: &'static str,
}

const fn end(port: &'static str, a: u8, b: u8, c: u8, d: u8) -> End {
    End { address: Ipv4Addr::new(a, b, c, d), port }
}

/// Four pods of the node, one of another node, the node itself, and a host in the world.
pub(crate) const ENDS: [End; 7] = [
    end("pod-a", 198, 18, 1, 2),
    end("pod-b", 198, 18, 1, 3),
    end("pod-m", 198, 18, 1, 66),
    end("pod-n", 198, 18, 1, 67),
    end("uplink", 198, 18, 2, 7),
    end("host", 198, 18, 1, 1),
    end("host", 192, 0, 2, 9),
];
pub(crate) const REMOTE: usize = 4;
pub(crate) const NODE_ITSELF: usize = 5;
pub(crate) const WORLD: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) transport: Transport,
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    /// TCP's.
    pub(crate) flags: &'static str,
}

/// With which source and destination a packet left, or why it did not.
pub(crate) type Left = Result<(SocketAddrV4, SocketAddrV4), DropReason>;

pub(crate) struct World {
    pub(crate) node: Node,
    workers: [(Dataplane, Arc<Counters>); 2],
    pools: [Pool; 2],
    words: [Words; 3],
}

impl World {
    pub(crate) fn new() -> Self {
        let node = Node::parse(NODE.lines()).expect("a node");
        let pools = [Pool::new(8), Pool::new(8)];
        let header = Header { boot_id: 1, seed: 2, buckets: BUCKETS };
        let memory = SessionMemory::on_heap(header.buckets);
        let SessionMemory { v4, v6, affinity } = memory.clone();
        let (table, _) = SessionTable::adopt(memory, &header, Tick(0)).expect("its own size");
        let table = Arc::new(table);
        let workers = [(); 2].map(|()| {
            let (counters, fdb) = (Arc::new(Counters::new()), Fdb::new(8, 300_000));
            let (pool, sessions) = (pools[0].clone(), Arc::clone(&table));
            (Dataplane::new(fdb, pool, Arc::clone(&counters), sessions), counters)
        });
        Self { node, workers, pools, words: [v4, v6, affinity] }
    }

    /// The same, in which each port carries a translated session: no packet skips the look-up.
    pub(crate) fn without_skips() -> Self {
        let world = Self::new();
        for number in 0..world.node.ports.len() as u16 {
            let tuple = |port| {
                let address = Ipv4Addr::new(192, 0, 2, 200).into();
                let ends = [Endpoint { address, port }, Endpoint { address, port: 9 }];
                Tuple::new(0, Protocol::UDP, ends[0], ends[1]).expect("of one version")
            };
            let now = NOW.tick();
            let session = Session {
                client_side: tuple(1000 + number),
                server_side: tuple(2000 + number),
                state: State::opened(Protocol::UDP, TcpFlags(0), now),
                policy: PolicyStamp::default(),
                charged: PortId(number),
                created: now,
                service: 0,
                service_generation: 0,
                local_in: Some(PortId(number)),
                local_out: None,
                through_tunnel: false,
            };
            let outcome = world.table().commit(&SessionEffect::Create(session), now);
            assert_eq!(outcome, Outcome::Created);
        }
        world
    }

    pub(crate) fn table(&self) -> &SessionTable {
        self.workers[0].0.sessions()
    }

    /// Every word of the table.
    fn bits(&self) -> Vec<u64> {
        let words = self.words.iter().flat_map(|words| words.iter());
        words.map(|word| word.load(Ordering::Relaxed)).collect()
    }

    pub(crate) fn words_v4(&self) -> &Words {
        &self.words[0]
    }

    pub(crate) fn sessions(&self) -> usize {
        let totals = self.table().totals();
        totals.iter().map(|one| (one.embryonic + one.established + one.closing) as usize).sum()
    }

    /// One worker receives a packet.
    pub(crate) fn send(&mut self, worker: usize, sent: &Sent) -> (Left, Vec<Vec<u8>>) {
        let (from, to) = (sent.from, sent.to);
        let (source, destination) = (from.port(), to.port());
        let l4 = match (sent.transport, sent.flags) {
            (Transport::Tcp, flags) => format!("tcp {source} > {destination} flags {flags}"),
            (Transport::Udp, _) => format!("udp {source} > {destination} / 8 bytes"),
            (Transport::Sctp, _) => format!("sctp {source} > {destination} / hex 01 00 00 04"),
        };
        let text = format!("{} / ip {} > {} / {l4}", way(&from, &to), from.ip(), to.ip());
        let (dropped, left) = self.receive(worker, &text);
        match dropped {
            Some(reason) => (Err(reason), left),
            None => {
                assert_eq!(left.len(), 1, "one packet leaves");
                (Ok(endpoints(&left[0])), left)
            }
        }
    }

    /// What a packet is dropped for, and what leaves because of it.
    pub(crate) fn receive(
        &mut self,
        worker: usize,
        text: &str,
    ) -> (Option<DropReason>, Vec<Vec<u8>>) {
        let (port, text) = at_port(&self.node, text).expect("a port");
        let packet = Described::parse(&self.node, text, &[]).expect("a packet");
        let before = self.bits();
        let tables = &self.node.tables;
        let traced = packet.packet(&self.pools[1]);
        let trace = self.workers[worker].0.trace(tables, &self.pools[1], port, traced, NOW);
        assert!(self.bits() == before, "a trace leaves the table as it is, bit for bit");

        let tables = &self.node.tables;
        let (dataplane, counters) = &mut self.workers[worker];
        let drops = |counters: &Counters| {
            let of = |reason: &DropReason| counters.drops(port, *reason);
            DropReason::ALL.iter().map(of).collect::<Vec<_>>()
        };
        let dropped = drops(counters);
        let mut ports = Ports::default();
        dataplane.process(tables, port, packet.packet(&self.pools[0]), NOW, &mut ports);
        ports.end_batch(dataplane, tables);
        let left: Vec<_> = ports.sent.iter().map(|one| (one.port, one.bytes.clone())).collect();
        let reasons = DropReason::ALL.iter().zip(dropped.iter().zip(drops(counters)));
        let reason = reasons.into_iter().find(|(_, (before, after))| **before != *after);
        let reason = reason.map(|(reason, _)| *reason);
        // That there is no room for a session shows when it is to be put into the table.
        let had_room = !matches!(
            reason,
            Some(DropReason::SessionFull | DropReason::SessionQuota | DropReason::SessionPortsUsed)
        );
        if had_room {
            assert_eq!(left, trace.leaves, "a trace foretells what leaves");
        }
        (reason, left.into_iter().map(|(_, bytes)| bytes).collect())
    }
}

/// How a packet comes to the node: neighbours on a segment need no gateway.
fn way(from: &SocketAddrV4, to: &SocketAddrV4) -> String {
    let of = |at: &SocketAddrV4| ENDS.iter().find(|end| end.address == *at.ip());
    let is_bridged = |end: &&End| ["pod-m", "pod-n"].contains(&end.port);
    let source = of(from).expect("one of the ends sends");
    let neighbour = of(to).filter(is_bridged).filter(|to| is_bridged(&source) && **to != *source);
    match source.port {
        "uplink" => "uplink eth router > uplink / ip 203.0.113.12 > 198.51.100.11 / \
             udp 50000 > 4789 nosum / vxlan 10 / eth vtep-p > vtep"
            .into(),
        port => {
            let next_hop = neighbour.map_or("gateway", |neighbour| neighbour.port);
            format!("{port} eth {port} > {next_hop}")
        }
    }
}

/// Source and destination of the innermost packet.
fn endpoints(bytes: &[u8]) -> (SocketAddrV4, SocketAddrV4) {
    let ports_of_tunnel = bytes.get(36..38) == Some(&4789u16.to_be_bytes()) && bytes[23] == 17;
    let inner = if ports_of_tunnel { &bytes[64..] } else { &bytes[14..] };
    let packet = SlicedPacket::from_ip(inner).expect("an IP packet");
    let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { panic!("no IPv4 packet") };
    let transport = ip.payload().payload;
    let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
    let header = ip.header();
    (
        SocketAddrV4::new(header.source_addr(), port(0)),
        SocketAddrV4::new(header.destination_addr(), port(2)),
    )
}
