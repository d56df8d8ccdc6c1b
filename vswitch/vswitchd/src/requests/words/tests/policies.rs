//! What a trace tells of policies.

use std::sync::Arc;

use api::TracePacket;
use dataplane::Millis;
use dataplane::session::{
    Endpoint, Header, Outcome, PolicyStamp, Session, SessionEffect, SessionMemory, SessionTable,
    State, Tuple,
};
use dataplane::tables::policy::{
    Action, DirectionPolicy, PeerSetId, Policies, PortSpan, Rule, RulePeers, RuleTable, Rules,
    SubjectPolicies,
};
use dataplane::tables::{Gateway, Tables};
use dataplane::wire::{Protocol, TcpFlags};

use super::{BRIDGED, HOST, POD, address, from_pod, mac, packet, sessions, tables, traced_at};
use crate::requests::packet::build;

/// The web pod may open connections to TCP port 80 alone; nothing but its own network reaches it.
fn policies(generation: u32) -> Policies {
    let rule =
        |sets, spans: &[PortSpan]| Rule { action: Action::Allow, peers: sets, spans: spans.into() };
    let table = |name: &str, rules| {
        let rules = Rules::new(Vec::new(), Some(rules), Vec::new());
        let table = RuleTable::linear(Arc::new(rules), &[(0, name.into())], &[0]);
        DirectionPolicy::Rules(Arc::new(table))
    };
    let http = PortSpan::ports(Protocol::TCP, 80..=80);
    let own = RulePeers::Sets([PeerSetId(0)].into());
    let web = SubjectPolicies {
        ingress: table("shop/own-alone", vec![rule(own, &[PortSpan::ANY])]),
        egress: table("shop/web-to-db", vec![rule(RulePeers::Any, &[http])]),
    };
    let mut subjects = vec![SubjectPolicies::default(); 4];
    subjects[usize::from(POD.0)] = web;
    Policies::new(generation, Arc::default(), Arc::default(), subjects.into())
}

#[test]
fn a_trace_tells_what_policies_decided_and_by_which_rule() {
    // The table is not young any more.
    let now = Millis(100_000);
    let (mut tables, table) = (tables(), sessions());
    tables.policies = policies(1);
    let policy = |tables: &Tables, ingress, bytes: &[u8]| {
        let text = traced_at(now, tables, &table, ingress, bytes);
        let lines = text.lines().filter_map(|line| line.strip_prefix("policy   "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let to = |dst, protocol| from_pod(&packet(dst, protocol));
    let from_host = |source| {
        build(&packet("198.18.1.2", "tcp"), mac(HOST), Gateway::MAC, address(source))
            .expect("a packet")
    };
    assert_eq!(
        policy(&tables, POD, &to("198.18.1.3", "tcp")),
        [
            "egress of shop/web-0 allowed by shop/web-to-db rule 0",
            "ingress of shop/db-0 allowed: no policy concerns it",
        ]
    );
    assert_eq!(
        policy(&tables, POD, &to("198.18.2.7", "udp")),
        ["egress of shop/web-0 denied: no rule of shop/web-to-db allows it"]
    );
    assert_eq!(
        policy(&tables, HOST, &from_host("192.0.2.1")),
        ["ingress of shop/web-0 denied: no rule of shop/own-alone allows it"]
    );
    assert_eq!(
        policy(&tables, HOST, &from_host("198.18.1.1")),
        ["from this node itself, by its address 198.18.1.1: allowed"]
    );

    // Where the sessions were lost a datagram may be an answer.
    let memory = SessionMemory::on_heap(8);
    memory.v4.iter().next().expect("a header").store(1, core::sync::atomic::Ordering::Relaxed);
    let header = Header { boot_id: 1, seed: 2, buckets: 8 };
    let (lost, _) = SessionTable::adopt(memory, &header, now.tick()).expect("its own size");
    let text = traced_at(now, &tables, &lost, POD, &to("198.18.2.7", "udp"));
    assert!(text.contains("policy   without a session it may be an answer\n"), "{text}");

    // A connection to the other pod, and what becomes of it.
    let end = |address: &str, port| Endpoint { address: address.parse().expect("one"), port };
    let tuple = Tuple::new(0, Protocol::TCP, end("198.18.1.2", 40_000), end("198.18.1.3", 80));
    let tuple = tuple.expect("one IP version");
    let session = Session {
        client_side: tuple,
        server_side: tuple,
        state: State::opened(Protocol::TCP, TcpFlags::SYN, now.tick()),
        policy: PolicyStamp { generation: 1, ..PolicyStamp::default() },
        charged: POD,
        created: now.tick(),
        service: 0,
        service_generation: 0,
        local_in: Some(POD),
        local_out: Some(BRIDGED),
        through_tunnel: false,
    };
    // A traced segment is a SYN, which is no answer; a datagram may be one.
    let tuple = Tuple::new(0, Protocol::UDP, end("198.18.1.2", 40_000), end("198.18.1.3", 80));
    let tuple = tuple.expect("one IP version");
    let datagrams = Session {
        client_side: tuple,
        server_side: tuple,
        state: State::opened(Protocol::UDP, TcpFlags(0), now.tick()),
        ..session
    };
    for session in [session, datagrams] {
        let created = table.commit(&SessionEffect::Create(session), now.tick());
        assert_eq!(created, Outcome::Created);
    }
    let answer = build(
        &TracePacket { src_port: 80, dst_port: 40_000, ..packet("198.18.1.2", "udp") },
        mac(BRIDGED),
        Gateway::MAC,
        address("198.18.1.3"),
    )
    .expect("a packet");
    assert_eq!(
        policy(&tables, BRIDGED, &answer),
        ["of a session, from the end that answers: allowed by the present policies"]
    );
    tables.policies = policies(2);
    let stale = "of a session, from the end that opened it: not judged by the present policies yet";
    assert_eq!(
        policy(&tables, POD, &to("198.18.1.3", "tcp")),
        [
            stale,
            "egress of shop/web-0 allowed by shop/web-to-db rule 0",
            "ingress of shop/db-0 allowed: no policy concerns it",
        ]
    );
    for (unknown, why) in [
        (DirectionPolicy::Pending, "its policies are not known yet"),
        (DirectionPolicy::Closed, "its policies cannot be compiled"),
    ] {
        let mut subjects = vec![SubjectPolicies::default(); 4];
        subjects[usize::from(POD.0)].egress = unknown;
        tables.policies = Policies::new(3, Arc::default(), Arc::default(), subjects.into());
        let denied = format!("egress of shop/web-0 denied: {why}");
        assert_eq!(policy(&tables, POD, &to("198.18.1.3", "tcp")), [stale, denied.as_str()]);
    }
}
