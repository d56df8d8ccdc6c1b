//! What is true of any packets of pods with policies: a naive model says what becomes of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::counters::Counters;
use dataplane::session::{Header, SessionMemory, SessionTable, Tick};
use dataplane::tables::{Fdb, PortId};
use dataplane::{Dataplane, DropReason, Millis};
use frame::{Pool, Words};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::node::packet::at_port;
use crate::node::{Described, Node, Ports};

const NODE: &str = "underlay 198.51.100.11
    vxlan 10
    host
    gateway 198.18.1.1
    pod a 198.18.1.2
    pod b 198.18.1.3
    pod c 198.18.1.4
    peer n 203.0.113.12 vxlan 198.18.2.0/24";

/// Addresses that send: of three pods, of one on another node, of the node itself, and of a host in the world.
const ENDS: [&str; 6] =
    ["198.18.1.2", "198.18.1.3", "198.18.1.4", "198.18.2.7", "198.18.1.1", "192.0.2.9"];
const PODS: usize = 3;
const NODE_ITSELF: usize = 4;
const PORTS: [u16; 4] = [53, 80, 40_000, 50_051];

/// The policies of one pod in one direction: its rules, if it is isolated.
type Own = Option<Vec<Allowed>>;

/// What a rule allows; no peers are all, no ports too.
#[derive(Debug, Clone)]
struct Allowed {
    peers: Vec<usize>,
    ports: Vec<(Transport, Option<u16>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Transport {
    Tcp,
    Udp,
    Echo,
}

/// Both ends with their ports, of which an echo has its identifier.
type Ends = [(usize, u16); 2];

#[derive(Debug, Clone, Copy)]
struct Sent {
    transport: Transport,
    ends: Ends,
    /// TCP's; of an echo `S` is the request.
    flags: &'static str,
}

#[derive(Debug, Clone)]
enum Step {
    Send(Sent),
    /// One more packet of a session, or an answer.
    Follow {
        nth: Index,
        answers: bool,
        flags: &'static str,
    },
    Change {
        pod: usize,
        ingress: bool,
        own: Own,
    },
}

fn allowed() -> impl Strategy<Value = Allowed> {
    let transport = prop::sample::select(&[Transport::Tcp, Transport::Udp, Transport::Echo]);
    let port = prop::option::of(prop::sample::select(&PORTS[..]));
    let span = (transport, port)
        .prop_map(|(transport, port)| (transport, port.filter(|_| transport != Transport::Echo)));
    let peers = prop::collection::vec(0..ENDS.len(), 0..3);
    (peers, prop::collection::vec(span, 0..3)).prop_map(|(peers, ports)| Allowed { peers, ports })
}

fn step() -> impl Strategy<Value = Step> {
    let transport = prop::sample::select(&[Transport::Tcp, Transport::Udp, Transport::Echo]);
    let end = || (0..ENDS.len(), prop::sample::select(&PORTS[..]));
    let flags = prop::sample::select(&["S", "S", "SA", "A", "A"]);
    let send = (transport, end(), end(), flags).prop_map(|(transport, from, to, flags)| {
        let to = if transport == Transport::Echo { (to.0, from.1) } else { to };
        let is_request = flags == "S" || flags == "A";
        let flags = match transport {
            Transport::Echo if is_request => "S",
            _ => flags,
        };
        Step::Send(Sent { transport, ends: [from, to], flags })
    });
    let flags = prop::sample::select(&["S", "SA", "A", "A"]);
    let follow = (any::<Index>(), any::<bool>(), flags)
        .prop_map(|(nth, answers, flags)| Step::Follow { nth, answers, flags });
    let own = prop::option::of(prop::collection::vec(allowed(), 0..3));
    let change = (0..PODS, any::<bool>(), own);
    let change = change.prop_map(|(pod, ingress, own)| Step::Change { pod, ingress, own });
    prop_oneof![4 => send, 4 => follow, 2 => change]
}

/// A session, as the model has it.
#[derive(Debug, Clone, Copy)]
struct Known {
    transport: Transport,
    /// From its opener.
    ends: Ends,
    generation: u32,
    is_revoked: bool,
}

#[derive(Default)]
struct Model {
    /// By pod and whether it is of ingress.
    own: BTreeMap<(usize, bool), Vec<Allowed>>,
    sessions: Vec<Known>,
    generation: u32,
}

impl Model {
    fn is_concerned(&self, pod: usize) -> bool {
        [true, false].iter().any(|ingress| self.own.contains_key(&(pod, *ingress)))
    }

    fn allows(&self, pod: usize, ingress: bool, peer: usize, sent: (Transport, u16)) -> bool {
        let Some(rules) = self.own.get(&(pod, ingress)) else { return true };
        rules.iter().any(|rule| {
            let is_peer = rule.peers.is_empty() || rule.peers.contains(&peer);
            let is_port = |(transport, port): &(Transport, Option<u16>)| {
                *transport == sent.0 && port.is_none_or(|port| port == sent.1)
            };
            is_peer && (rule.ports.is_empty() || rule.ports.iter().any(is_port))
        })
    }

    /// Both directions: the opener's egress, the target's ingress.
    fn judge(&self, transport: Transport, [(from, _), (to, port)]: Ends) -> bool {
        from == NODE_ITSELF
            || self.allows(from, false, to, (transport, port))
                && self.allows(to, true, from, (transport, port))
    }

    fn begin(&mut self, transport: Transport, openers: &[Ends]) -> Result<(), DropReason> {
        let opener = openers.iter().find(|ends| self.judge(transport, **ends));
        let ends = *opener.ok_or(DropReason::PolicyDenied)?;
        let generation = self.generation;
        self.sessions.push(Known { transport, ends, generation, is_revoked: false });
        Ok(())
    }

    fn expect(&mut self, sent: Sent) -> Result<(), DropReason> {
        let Sent { transport, ends, flags } = sent;
        let [from, to] = ends;
        let back = [to, from];
        if !self.is_concerned(from.0) && !self.is_concerned(to.0) {
            return Ok(());
        }
        let answers_ping = transport == Transport::Echo && to.0 == NODE_ITSELF && flags == "S";
        if answers_ping {
            // By the gateway itself, at once.
            return if self.judge(transport, ends) {
                Ok(())
            } else {
                Err(DropReason::PolicyDenied)
            };
        }
        let known =
            |one: &Known| one.transport == transport && (one.ends == ends || one.ends == back);
        if let Some(at) = self.sessions.iter().position(known) {
            let session = self.sessions[at];
            let reopens = session.is_revoked && transport == Transport::Tcp && flags == "S";
            // A ping, or a SYN, of the end that is spoken to.
            let opens_another = transport != Transport::Udp && flags == "S" && session.ends != ends;
            if opens_another && !reopens {
                let judged = self.judge(transport, ends);
                return if judged { Ok(()) } else { Err(DropReason::PolicyDenied) };
            }
            if !reopens {
                let is_revoked = match session.generation == self.generation {
                    true => session.is_revoked,
                    false => !self.judge(transport, session.ends),
                };
                let generation = self.generation;
                self.sessions[at] = Known { generation, is_revoked, ..session };
                return if is_revoked { Err(DropReason::PolicyRevoked) } else { Ok(()) };
            }
            if !self.judge(transport, ends) {
                return Err(DropReason::PolicyDenied);
            }
            self.sessions.remove(at);
        }
        let is_client = |port: u16| port >= 32_768;
        let openers: &[Ends] = match (transport, flags) {
            (Transport::Tcp, "SA" | "A") => match (is_client(from.1), is_client(to.1)) {
                (true, false) => &[ends],
                (false, true) => &[back],
                _ => &[ends, back],
            },
            _ => &[ends],
        };
        self.begin(transport, openers)
    }
}

struct World {
    node: Node,
    dataplane: Dataplane,
    counters: Arc<Counters>,
    pools: [Pool; 2],
    words: [Words; 3],
}

const NOW: Millis = Millis(1_000_000);

impl World {
    fn new() -> Self {
        let node = Node::parse(NODE.lines()).expect("a node");
        let counters = Arc::new(Counters::new());
        let pools = [Pool::new(8), Pool::new(8)];
        let header = Header { boot_id: 1, seed: 2, buckets: 200 };
        let memory = SessionMemory::on_heap(header.buckets);
        let SessionMemory { v4, v6, affinity } = memory.clone();
        let words = [v4, v6, affinity];
        let (table, _) = SessionTable::adopt(memory, &header, Tick(0)).expect("its own size");
        let fdb = Fdb::new(8, 300_000);
        let dataplane =
            Dataplane::new(fdb, pools[0].clone(), Arc::clone(&counters), Arc::new(table));
        Self { node, dataplane, counters, pools, words }
    }

    /// Every word of the table.
    fn bits(&self) -> Vec<u64> {
        use std::sync::atomic::Ordering;
        let words = self.words.iter().flat_map(|words| words.iter());
        words.map(|word| word.load(Ordering::Relaxed)).collect()
    }

    fn sessions(&self) -> usize {
        let totals = self.dataplane.sessions().totals();
        totals.iter().map(|one| (one.embryonic + one.established + one.closing) as usize).sum()
    }

    fn line(&mut self, pod: usize, ingress: bool, own: &Own, was_isolated: bool) {
        let (name, letter) = (if ingress { "in" } else { "out" }, ["a", "b", "c"][pod]);
        let policy = format!("shop/{letter}-{name}");
        if was_isolated {
            self.node.line(&format!("no-policy {policy}")).expect("it was there");
        }
        let Some(rules) = own else { return };
        let head =
            format!("policy {policy} {} pod-{letter}", if ingress { "ingress" } else { "egress" });
        self.node.line(&format!("{head} isolate")).expect("a policy");
        for rule in rules {
            let peers: Vec<_> = rule.peers.iter().map(|peer| ENDS[*peer]).collect();
            let mut line = head.clone();
            line += if rule.peers.is_empty() { " from" } else { " from " };
            line += &peers.join(" ");
            if !rule.ports.is_empty() {
                line += " ports";
                for (transport, port) in &rule.ports {
                    line += match transport {
                        Transport::Tcp => " tcp",
                        Transport::Udp => " udp",
                        Transport::Echo => " icmp",
                    };
                    line += &port.map_or(String::new(), |port| format!(" {port}"));
                }
            }
            self.node.line(&line).expect("a rule");
        }
    }

    /// Whether it left, or why not.
    fn send(&mut self, sent: Sent) -> Result<(), DropReason> {
        let [(from, source), (to, destination)] = sent.ends;
        let l4 = match (sent.transport, sent.flags) {
            (Transport::Tcp, flags) => format!("tcp {source} > {destination} flags {flags}"),
            (Transport::Udp, _) => format!("udp {source} > {destination} / 8 bytes"),
            (Transport::Echo, "S") => format!("icmp echo {source} 1 / 8 bytes"),
            (Transport::Echo, _) => format!("icmp reply {source} 1 / 8 bytes"),
        };
        let l3 = format!("ip {} > {} / {l4}", ENDS[from], ENDS[to]);
        let text = match from {
            0..PODS => {
                let pod = ["pod-a", "pod-b", "pod-c"][from];
                format!("{pod} eth {pod} > gateway / {l3}")
            }
            3 => format!(
                "uplink eth router > uplink / ip 203.0.113.12 > 198.51.100.11 / \
                 udp 50000 > 4789 nosum / vxlan 10 / eth vtep-n > vtep / {l3}"
            ),
            _ => format!("host eth host > gateway / {l3}"),
        };
        let (port, text) = at_port(&self.node, &text).expect("a port");
        let packet = Described::parse(&self.node, text, &[]).expect("a packet");

        let before = self.bits();
        let tables = &self.node.tables;
        let traced = packet.packet(&self.pools[1]);
        let trace = self.dataplane.trace(tables, &self.pools[1], port, traced, NOW);
        assert!(self.bits() == before, "a trace leaves the table as it is, bit for bit");

        let drops = |counters: &Counters| {
            let of = |reason: &DropReason| counters.drops(port, *reason);
            DropReason::ALL.iter().map(of).collect::<Vec<_>>()
        };
        let dropped = drops(&self.counters);
        let mut ports = Ports::default();
        let received = packet.packet(&self.pools[0]);
        self.dataplane.process(tables, port, received, NOW, &mut ports);
        ports.end_batch(&mut self.dataplane, tables);
        let left: Vec<_> = ports.sent.iter().map(|one| (one.port, one.bytes.clone())).collect();
        assert_eq!(left, trace.leaves, "a trace foretells what leaves");
        let after = drops(&self.counters);
        let reason = DropReason::ALL.iter().zip(dropped.iter().zip(&after));
        match reason.into_iter().find(|(_, (before, after))| before != after) {
            Some((reason, _)) => Err(*reason),
            None => Ok(()),
        }
    }
}

/// Packets between these ends meet policies: others go from the host to the host, or nowhere.
fn is_of_pods(sent: &Sent) -> bool {
    let [(from, _), (to, _)] = sent.ends;
    from != to && (from < PODS || to < PODS)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn packets_pass_as_a_naive_model_of_policies_says(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let (mut world, mut model) = (World::new(), Model::default());
        for step in steps {
            let sent = match step {
                Step::Send(sent) => sent,
                Step::Follow { nth, answers, flags } => {
                    if model.sessions.is_empty() {
                        continue;
                    }
                    let Known { transport, ends: [from, to], .. } = *nth.get(&model.sessions);
                    let ends = if answers { [to, from] } else { [from, to] };
                    let is_reply = transport == Transport::Echo && answers && flags != "S";
                    let flags = match transport {
                        Transport::Echo if is_reply => "SA",
                        Transport::Echo => "S",
                        _ => flags,
                    };
                    Sent { transport, ends, flags }
                }
                Step::Change { pod, ingress, own } => {
                    let was = match &own {
                        Some(rules) => model.own.insert((pod, ingress), rules.clone()),
                        None => model.own.remove(&(pod, ingress)),
                    };
                    world.line(pod, ingress, &own, was.is_some());
                    if was.is_some() || own.is_some() {
                        model.generation += 1;
                    }
                    continue;
                }
            };
            if is_of_pods(&sent) {
                let expected = model.expect(sent);
                prop_assert_eq!(world.send(sent), expected, "{:?}", sent);
                // None begins that is not allowed, and none is forgotten.
                prop_assert_eq!(world.sessions(), model.sessions.len());
            }
        }
    }
}

#[test]
fn the_model_knows_the_ends_of_the_node() {
    let node = Node::parse(NODE.lines()).expect("a node");
    for (number, address) in ENDS.iter().enumerate() {
        let address: IpAddr = address.parse().expect("an address");
        let own =
            |port: &PortId| node.tables.port(*port).expect("attached").addresses.contains(&address);
        let pod = (0..node.ports.len() as u16).map(PortId).find(own);
        assert_eq!(pod.is_some(), number < PODS);
        assert_eq!(node.tables.is_gateway(address), number == NODE_ITSELF);
    }
}
