//! Peers and pod prefixes that the cluster's agent sends, in a daemon that is restarted.

use std::net::Ipv4Addr;

use api::{
    ErrorKind, FibEntry, PeerEntry, PeerSpec, PeerSync, RefusedPeer, Reply, Request, RouteSpec,
    RouteTarget, Source, Status,
};
use ipnet::Ipv4Net;

use crate::node::{Node, Pod, Running};

fn peer(name: &str, host: u8, prefix: &str) -> PeerSpec {
    PeerSpec {
        name: name.into(),
        address: Ipv4Addr::new(203, 0, 113, host).into(),
        prefixes: vec![prefix.parse().expect("a prefix")],
        encapsulation: None,
        encapsulate: None,
        vtep_mac: None,
    }
}

impl Running<'_> {
    fn sync(&self, complete: bool, peers: &[PeerSpec], gone: &[&str]) -> Vec<RefusedPeer> {
        let sync = PeerSync {
            source: Source::Kubernetes,
            complete,
            peers: peers.to_vec(),
            gone: gone.iter().map(ToString::to_string).collect(),
        };
        match self.ask(&Request::SyncPeers(sync)) {
            Reply::Synced(refused) => refused,
            other => panic!("{other:?}"),
        }
    }

    fn status(&self) -> Status {
        match self.ask(&Request::Status) {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    fn peers(&self) -> Vec<PeerEntry> {
        match self.ask(&Request::ShowPeers) {
            Reply::Peers(peers) => peers,
            other => panic!("{other:?}"),
        }
    }

    /// Every entry of this prefix: source, and whether it forwards.
    fn routes(&self, prefix: &str) -> Vec<(String, bool)> {
        let Reply::Fib(entries) = self.ask(&Request::ShowFib) else { panic!("not a FIB") };
        let of_prefix = |entry: &FibEntry| entry.prefix.to_string() == prefix;
        let entries = entries.into_iter().filter(of_prefix);
        entries.map(|entry| (entry.source, entry.hidden.is_none())).collect()
    }

    fn set_pod_prefixes(&self, texts: &[&str]) -> Result<Reply, api::ErrorReply> {
        let prefixes = texts.iter().map(|text| text.parse().expect("a prefix")).collect();
        self.try_ask(&Request::SetPodPrefixes(prefixes))
    }
}

fn forwards(source: &str) -> (String, bool) {
    (source.to_owned(), true)
}

fn hidden(source: &str) -> (String, bool) {
    (source.to_owned(), false)
}

#[test]
fn what_the_cluster_says_survives_a_crash_and_is_not_said_twice() {
    let node = Node::new("");
    let daemon = node.start();
    let peers = [peer("b", 12, "198.18.2.0/24"), peer("c", 13, "198.18.3.0/24")];
    assert_eq!(daemon.sync(true, &peers, &[]), []);
    let (epoch, journal) = (daemon.status().epoch, node.journal());
    // An agent that starts anew sends everything again.
    assert_eq!(daemon.sync(true, &peers, &[]), []);
    assert_eq!((daemon.status().epoch, node.journal()), (epoch, journal));
    assert_eq!(daemon.routes("198.18.2.0/24"), [forwards("kubernetes")]);
    daemon.kill();

    let daemon = node.start();
    assert_eq!(daemon.routes("198.18.3.0/24"), [forwards("kubernetes")]);
    assert_eq!(daemon.sync(false, &[], &["c"]), []);
    assert_eq!(daemon.routes("198.18.3.0/24"), []);
    daemon.kill();
    let daemon = node.start();
    assert_eq!(daemon.peers().len(), 1);
    let refused = daemon.try_ask(&Request::DeletePeer("b".into())).expect_err("the cluster's");
    assert_eq!(refused.kind, ErrorKind::Conflict, "{refused}");
    daemon.stop();
}

#[test]
fn bad_peers_are_refused_by_name_and_keep_nobody_out() {
    let node = Node::new("");
    let daemon = node.start();
    let (a, b) = (daemon.plug("a"), daemon.plug("b"));
    let bad = [
        peer("everything", 20, "0.0.0.0/0"),
        peer("mine", 21, "198.18.1.0/25"),
        peer("a pod", 22, &format!("{}/32", a.address)),
        peer("group", 23, "224.0.0.0/24"),
        PeerSpec { address: Ipv4Addr::UNSPECIFIED.into(), ..peer("nowhere", 0, "198.18.9.0/24") },
        peer("bell\u{7}", 24, "198.18.10.0/24"),
        peer("late", 25, "198.18.2.128/25"),
    ];
    let good = [peer("b", 12, "198.18.2.0/24"), peer("c", 13, "198.18.3.0/24")];
    let refused = daemon.sync(true, &[&good[..], &bad].concat(), &[]);
    assert_eq!(refused.len(), bad.len(), "{refused:?}");
    for peer in &bad {
        let answer = refused.iter().find(|refused| refused.name == peer.name);
        assert!(
            answer.is_some_and(|refused| refused.reason.len() > 10),
            "{}: {refused:?}",
            peer.name
        );
    }
    for peer in &good {
        assert_eq!(daemon.routes(&peer.prefixes[0].to_string()), [forwards("kubernetes")]);
    }
    let status = daemon.status();
    let [source] = status.sources.as_slice() else { panic!("{status:?}") };
    assert_eq!((source.peers, source.refused, source.refused_total), (2, 7, 7));
    assert!(status.warnings.iter().any(|line| line.contains("is refused")), "{status:?}");
    let shown = daemon.peers();
    let bell = shown.iter().find(|peer| peer.spec.name.starts_with("bell")).expect("it is shown");
    assert_eq!((bell.state.as_str(), bell.spec.name.contains('\u{7}')), ("refused", false));
    a.send_udp(&b, b"still here");
    assert!(b.receive().is_some());

    // What worked before stays, until its owner gives it up; then the one that waited has it.
    let stolen = peer("c", 13, "198.18.2.0/24");
    assert!(daemon.sync(false, &[stolen], &[]).iter().any(|refused| refused.name == "c"));
    assert_eq!(daemon.routes("198.18.3.0/24"), [forwards("kubernetes")]);
    let refused = daemon.sync(false, &[], &["b"]);
    assert!(!refused.iter().any(|refused| refused.name == "c"), "{refused:?}");
    assert_eq!(daemon.routes("198.18.3.0/24"), []);
    assert_eq!(daemon.routes("198.18.2.0/24"), [forwards("kubernetes")]);
    // All of it is known again after a restart too: the agent sends it again.
    daemon.stop();
    let daemon = node.start();
    assert_eq!(daemon.routes("198.18.2.0/24"), [forwards("kubernetes")]);
    daemon.stop();
}

#[test]
fn a_command_hides_what_the_cluster_says_and_gives_it_back() {
    let node = Node::new("");
    let daemon = node.start();
    daemon.sync(true, &[peer("b", 12, "198.18.2.0/24")], &[]);
    let prefix = "198.18.2.0/24".parse().expect("a prefix");
    let route = RouteSpec { prefix, target: RouteTarget::Blackhole };
    assert_eq!(daemon.ask(&Request::AddRoute(route)), Reply::Done);
    assert_eq!(daemon.routes("198.18.2.0/24"), [forwards("runtime"), hidden("kubernetes")]);
    daemon.kill();
    let daemon = node.start();
    assert_eq!(daemon.routes("198.18.2.0/24"), [forwards("runtime"), hidden("kubernetes")]);
    assert_eq!(daemon.ask(&Request::DeleteRoute(prefix)), Reply::Done);
    assert_eq!(daemon.routes("198.18.2.0/24"), [forwards("kubernetes")]);
    // A route by a peer waits for it.
    let target = RouteTarget::Peer { name: "b".into() };
    let prefix = "198.18.60.0/24".parse().expect("a prefix");
    assert_eq!(daemon.ask(&Request::AddRoute(RouteSpec { prefix, target })), Reply::Done);
    daemon.sync(false, &[], &["b"]);
    assert_eq!(daemon.routes("198.18.60.0/24"), [hidden("runtime")]);
    daemon.sync(false, &[peer("b", 12, "198.18.2.0/24")], &[]);
    assert_eq!(daemon.routes("198.18.60.0/24"), [forwards("runtime")]);
    daemon.stop();
}

#[test]
fn a_node_without_prefixes_waits_for_the_clusters_word_and_remembers_it() {
    let node = Node::without_prefixes();
    let daemon = node.start();
    let early = daemon.try_ask(&Request::Reserve(Pod::reserve("a"))).expect_err("no prefix");
    assert_eq!(early.kind, ErrorKind::NotReady);
    assert!(early.message.contains("vswitch-agent"), "{early}");
    let status = daemon.status();
    assert_eq!(status.pod_prefixes, []);
    assert!(status.warnings.iter().any(|line| line.contains("no pod prefixes")), "{status:?}");

    for (bad, kind) in [
        (&["0.0.0.0/0"][..], ErrorKind::Invalid),
        (&["224.0.0.0/24"], ErrorKind::Invalid),
        (&["198.18.4.0/31"], ErrorKind::Invalid),
        (&[], ErrorKind::Invalid),
    ] {
        assert_eq!(daemon.set_pod_prefixes(bad).expect_err("refused").kind, kind, "{bad:?}");
    }
    daemon.sync(true, &[peer("b", 12, "198.18.2.0/24")], &[]);
    let taken = daemon.set_pod_prefixes(&["198.18.2.0/25"]).expect_err("a peer's");
    assert_eq!(taken.kind, ErrorKind::Conflict);
    assert!(taken.message.contains("peer \"b\" (kubernetes)"), "{taken}");

    assert_eq!(daemon.set_pod_prefixes(&["198.18.4.0/24"]), Ok(Reply::Done));
    let a = daemon.plug("a");
    assert_eq!(a.address.to_string(), "198.18.4.2");
    assert_eq!(daemon.routes("198.18.4.1/32"), [forwards("node")]);
    daemon.kill();

    let daemon = node.start();
    assert_eq!(daemon.status().pod_prefixes, ["198.18.4.0/24".parse().expect("a prefix")]);
    let (a, b) = (daemon.plug("a"), daemon.plug("b"));
    assert_eq!(a.address.to_string(), "198.18.4.2", "as before");
    // The cluster gives another one: a pod with an old address keeps it, and reaches the new ones.
    assert_eq!(daemon.set_pod_prefixes(&["198.18.5.0/24"]), Ok(Reply::Done));
    let c = daemon.plug("c");
    assert_eq!(c.address.to_string(), "198.18.5.2");
    for (from, to) in [(&a, &b), (&a, &c), (&c, &b)] {
        from.send_udp(to, b"across prefixes");
        assert!(to.receive().is_some(), "{} to {}", from.address, to.address);
    }
    assert_eq!(daemon.status().pod_prefixes.len(), 2);
    assert_eq!(daemon.ask(&Request::Detach(Pod::id("a"))), Reply::Done);
    assert_eq!(daemon.routes("198.18.4.1/32"), [forwards("node")]);
    assert_eq!(daemon.ask(&Request::Detach(Pod::id("b"))), Reply::Done);
    assert_eq!(daemon.routes("198.18.4.1/32"), [], "the last lease took the gateway with it");
    assert_eq!(daemon.sync(false, &[peer("d", 14, "198.18.4.0/24")], &[]), []);
    daemon.stop();
}

#[test]
fn prefixes_that_are_configured_are_changed_there() {
    let node = Node::new("");
    let daemon = node.start();
    assert_eq!(daemon.set_pod_prefixes(&["198.18.1.0/24"]), Ok(Reply::Done));
    let refused = daemon.set_pod_prefixes(&["198.18.2.0/24"]).expect_err("configured");
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(refused.message.contains("vswitch.toml configures 198.18.1.0/24"), "{refused}");
    daemon.stop();
}

#[test]
fn thousands_of_peers_are_one_request_and_one_line() {
    let node = Node::new("");
    let daemon = node.start();
    let peers: Vec<_> = (0..5000)
        .map(|number| {
            let prefix = Ipv4Net::new(Ipv4Addr::from_bits(0xc612_4000 + 4 * number), 30);
            PeerSpec {
                address: Ipv4Addr::from_bits(0xcb00_0001 + number).into(),
                prefixes: vec![prefix.expect("a length of IPv4").into()],
                ..peer(&format!("node-{number}"), 0, "198.18.2.0/24")
            }
        })
        .collect();
    let before = node.journal().lines().count();
    // Each compared with all others would take longer than an answer is waited for.
    assert_eq!(daemon.sync(true, &peers, &[]), []);
    assert_eq!((daemon.status().peers, node.journal().lines().count() - before), (5000, 1));
    daemon.stop();
}
