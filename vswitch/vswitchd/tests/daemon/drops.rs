//! Dropped packets that a client follows, each with its cause.

use std::thread;
use std::time::{Duration, Instant};

use api::{
    DropSample, ErrorKind, FollowDrops, FollowedDrops, NamedRuleSet, PodName, PolicyPeers,
    PolicyRule, PolicySync, PolicyTier, Reply, Request, Reserve, RuleAction, RuleSet, RuleSetId,
    Subject, SubjectRules,
};

use crate::node::{Node, Pod, Running};

const PATIENCE: Duration = Duration::from_secs(10);

fn pod(name: &str) -> PodName {
    PodName { namespace: "shop".into(), name: name.into(), uid: None }
}

fn of_reason(reason: &str) -> FollowDrops {
    FollowDrops { reason: Some(reason.into()), ..FollowDrops::default() }
}

impl Running<'_> {
    fn named(&self, name: &str) -> Pod {
        self.plug_as(Reserve { pod: Some(pod(name)), ..Pod::reserve(name) })
    }

    fn follow(&self, asked: &FollowDrops) -> FollowedDrops {
        match self.ask(&Request::FollowDrops(asked.clone())) {
            Reply::FollowedDrops(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// What is asked for, from now on.
    fn begin(&self, asked: FollowDrops) -> FollowDrops {
        let answer = self.follow(&asked);
        assert_eq!(answer.samples, [], "it begins now");
        FollowDrops { since: answer.next, ..asked }
    }

    /// The next samples, as soon as there are any.
    fn next_drops(&self, asked: &mut FollowDrops) -> Vec<DropSample> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.follow(asked);
            asked.since = answer.next;
            if !answer.samples.is_empty() {
                return answer.samples;
            }
            assert!(Instant::now() < deadline, "no sample comes");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until so many packets have been dropped in all.
    fn drops_so_many(&self, packets: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Reply::Drops(drops) = self.ask(&Request::ShowDrops) else { panic!("not drops") };
            if drops.dropped == packets {
                return;
            }
            assert!(Instant::now() < deadline, "{drops:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The pod `db` is reached by nobody, or by anybody by its first policy; `shy` reaches nobody.
    fn isolate(&self, is_reached: bool) {
        let id = |name: &str| RuleSetId(name.into());
        let any = PolicyRule {
            index: 0,
            action: RuleAction::Allow,
            peers: PolicyPeers::Any,
            ports: None,
        };
        let set = |name: &str| NamedRuleSet {
            id: id(name),
            set: RuleSet {
                policy: format!("shop/{name}"),
                tier: PolicyTier::NetworkPolicy,
                rules: if is_reached && name == "a" { vec![any.clone()] } else { Vec::new() },
            },
        };
        let subject = |name, ingress: &[&str], egress: &[&str]| {
            let [ingress, egress] =
                [ingress, egress].map(|ids| ids.iter().map(|name| id(name)).collect());
            Subject { pod: pod(name), rules: SubjectRules { ingress, egress } }
        };
        let sync = PolicySync {
            rule_sets: ["a", "b", "c", "d", "quiet"].map(set).into(),
            subjects: vec![
                subject("db", &["a", "b", "c", "d"], &[]),
                subject("shy", &[], &["quiet"]),
                subject("web", &[], &[]),
            ],
            commit: true,
            ..PolicySync::default()
        };
        assert_eq!(self.ask(&Request::SyncPolicies(sync)), Reply::SyncedPolicies(Vec::new()));
    }
}

#[test]
fn a_denied_packet_is_followed_with_the_policies_that_deny_it() {
    let node = Node::new("");
    let daemon = node.start();
    daemon.isolate(false);
    let (web, db, shy) = (daemon.named("web"), daemon.named("db"), daemon.named("shy"));
    web.send_udp(&db, b"before anybody follows");
    daemon.drops_so_many(1);
    let mut of_db =
        daemon.begin(FollowDrops { pod: Some("shop/db".into()), ..of_reason("policy-denied") });
    shy.send_udp(&web, b"this concerns db not at all");
    web.send_udp(&db, &[7; 1000]);
    let [sample] = &daemon.next_drops(&mut of_db)[..] else { panic!("one packet") };
    assert_eq!((sample.reason.as_str(), sample.port.as_str()), ("policy-denied", "shop/web"));
    assert_eq!(sample.direction.as_deref(), Some("in"));
    let cause = "shop/db isolated by shop/a, shop/b, shop/c and 1 more";
    assert_eq!(sample.cause.as_deref(), Some(cause));
    let [source, destination] = [&sample.source, &sample.destination].map(|end| {
        let end = end.as_ref().expect("it is IP");
        (end.name.as_deref(), end.address, end.port)
    });
    assert_eq!(source, (Some("shop/web"), web.address, Some(1000)));
    assert_eq!(destination, (Some("shop/db"), db.address, Some(2000)));
    assert_eq!((sample.protocol.as_str(), sample.bytes, sample.packets), ("UDP", 1042, 1));
    assert_eq!((sample.source_mac, sample.detail.as_deref()), (Some(web.mac), None));

    let mut of_shy =
        daemon.begin(FollowDrops { pod: Some("shop/shy".into()), ..FollowDrops::default() });
    shy.send_udp(&db, b"denied before db is asked");
    let [sample] = &daemon.next_drops(&mut of_shy)[..] else { panic!("one packet") };
    assert_eq!(sample.direction.as_deref(), Some("out"));
    assert_eq!(sample.cause.as_deref(), Some("shop/shy isolated by shop/quiet"));

    // Nothing of the question is left behind: what was dropped is what was sent.
    let Reply::Drops(drops) = daemon.ask(&Request::ShowDrops) else { panic!("not drops") };
    assert_eq!((drops.received, drops.dropped), (4, 4));
    daemon.stop();
}

#[test]
fn a_packet_of_a_revoked_connection_is_followed_with_what_revoked_it() {
    let node = Node::new("");
    let daemon = node.start();
    daemon.isolate(true);
    let (web, db) = (daemon.named("web"), daemon.named("db"));
    web.send_udp(&db, b"allowed");
    assert!(db.receive().is_some());
    daemon.isolate(false);
    let mut asked = daemon.begin(of_reason("policy-revoked"));
    // The first one revokes the connection, the second one finds it revoked.
    for number in 0..2_u8 {
        web.send_udp(&db, &[number]);
        let [sample] = &daemon.next_drops(&mut asked)[..] else { panic!("one packet") };
        let cause = "shop/db isolated by shop/a, shop/b, shop/c and 1 more";
        assert_eq!(sample.cause.as_deref(), Some(cause), "{number}");
        assert_eq!(sample.direction.as_deref(), Some("in"));
    }
    daemon.stop();
}

#[test]
fn every_drop_is_counted_and_a_sample_says_for_how_many_it_stands() {
    let node = Node::new("");
    let daemon = node.start();
    let web = daemon.named("web");
    let mut asked = daemon.begin(FollowDrops::default());
    let nobody = "198.18.1.200".parse().expect("an address");
    let before = daemon.follow(&asked).counted;
    for _ in 0..50 {
        web.send_udp_to(nobody, b"anyone?");
    }
    daemon.drops_so_many(50);
    assert_eq!(daemon.follow(&asked).counted, before + 50);
    let samples = daemon.next_drops(&mut asked);
    // How many depends on the seconds in which they came.
    assert!(samples.iter().map(|sample| sample.packets).sum::<u32>() <= 50);
    assert!(samples.iter().all(|sample| sample.reason == "unreachable"), "{samples:?}");
    let sample = &samples[0];
    assert_eq!((sample.port.as_str(), sample.direction.as_deref()), ("shop/web", Some("out")));
    assert_eq!(sample.cause, None);
    assert!(sample.explanation.contains("nobody has"), "{sample:?}");
    daemon.stop();
}

#[test]
fn whom_nobody_can_follow_is_refused_by_name() {
    let node = Node::new("");
    let daemon = node.start();
    let refused = |asked: FollowDrops| {
        daemon.try_ask(&Request::FollowDrops(asked)).expect_err("there is none")
    };
    let refusal = refused(FollowDrops { pod: Some("shop/wbe".into()), ..FollowDrops::default() });
    assert_eq!(refusal.kind, ErrorKind::Unknown, "{refusal}");
    let refusal = refused(of_reason("policy-denid"));
    assert_eq!(refusal.kind, ErrorKind::Unknown, "{refusal}");
    assert!(refusal.message.contains("\"policy-denid\" is no reason"), "{refusal}");
    // Places that no worker has been at, and of workers that are not there.
    let beyond = FollowDrops { since: vec![u64::MAX; 9], ..FollowDrops::default() };
    let answer = daemon.follow(&beyond);
    assert_eq!((answer.samples.len(), answer.next.len()), (0, 1));
    daemon.stop();
}

#[test]
fn ports_that_are_gone_have_one_line_for_each_reason_and_the_books_close() {
    const PODS: u64 = 31;
    let node = Node::new("");
    let daemon = node.start();
    let nobody = "198.18.1.200".parse().expect("an address");
    for number in 1..=PODS {
        let pod = daemon.plug(&format!("pod-{number}"));
        pod.send_udp_to(nobody, b"anyone?");
        daemon.drops_so_many(number);
        let id = Pod::id(&format!("pod-{number}"));
        assert_eq!(daemon.ask(&Request::Detach(id)), Reply::Done);
    }
    // It has the number that others had, and none of their counts.
    let stays = daemon.plug("stays");
    stays.send_udp_to(nobody, b"anyone?");
    daemon.drops_so_many(PODS + 1);
    let Reply::Drops(drops) = daemon.ask(&Request::ShowDrops) else { panic!("not drops") };
    let mut lines: Vec<_> = drops
        .reasons
        .iter()
        .map(|line| (line.port.clone(), line.reason.as_str(), line.packets))
        .collect();
    lines.sort_unstable();
    let mut wanted = vec![
        (daemon.port_of(&stays), "unreachable", 1),
        ("ports that are gone".to_owned(), "unreachable", PODS),
    ];
    wanted.sort_unstable();
    assert_eq!(lines, wanted);
    assert_eq!(drops.reasons.iter().map(|line| line.packets).sum::<u64>(), drops.dropped);
    let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
    assert!(matches!(&ports[..], [one] if one.counters.rx_packets == 1), "{ports:?}");
    daemon.stop();
}
