//! Pods of several networks on one daemon: GC of one leaves the others alone.

use std::collections::BTreeSet;

use api::{Collect, Reply, Request, Reserve};

use crate::node::{Node, Pod, Running};

fn of(network: &str, name: &str) -> Reserve {
    Reserve { network: Some(network.into()), ..Pod::reserve(name) }
}

fn collect(daemon: &Running<'_>, network: &str, valid: &[&str]) {
    let valid = valid.iter().map(|name| Pod::id(name)).collect();
    let request = Request::Collect(Collect { network: network.into(), valid });
    assert_eq!(daemon.ask(&request), Reply::Done);
}

/// Names of the pods, each with its network and whether it is up.
fn pods(daemon: &Running<'_>) -> BTreeSet<(String, Option<String>, bool)> {
    let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
    let pods = ports.into_iter().filter(|port| port.attachment.is_some());
    pods.map(|port| (port.name, port.network, port.up)).collect()
}

fn pod(name: &str, network: Option<&str>, is_up: bool) -> (String, Option<String>, bool) {
    (name.into(), network.map(Into::into), is_up)
}

#[test]
fn gc_frees_its_own_networks_pods_attached_or_not() {
    let node = Node::new("");
    let daemon = node.start();
    let (one, gone) = (daemon.plug_as(of("one", "a")), daemon.plug_as(of("one", "b")));
    daemon.ask(&Request::Reserve(of("one", "never-attached")));
    let two = daemon.plug_as(of("two", "c"));
    let old = daemon.plug("old");

    collect(&daemon, "one", &["a"]);
    let rest = [pod("a", Some("one"), true), pod("c", Some("two"), true), pod("old", None, true)];
    assert_eq!(pods(&daemon), rest.into());
    assert!(gone.is_closed());
    for (from, to) in [(&one, &two), (&two, &old), (&old, &one)] {
        from.send_udp(to, b"still here");
        assert!(to.receive().is_some());
    }

    // A network that lists the old pod has it from then on, also after a restart.
    collect(&daemon, "two", &["c", "old"]);
    daemon.kill();
    let daemon = node.start();
    let rest = [
        pod("a", Some("one"), false),
        pod("c", Some("two"), false),
        pod("old", Some("two"), false),
    ];
    assert_eq!(pods(&daemon), rest.into());
    collect(&daemon, "two", &[]);
    assert_eq!(pods(&daemon), [pod("a", Some("one"), false)].into());
    daemon.stop();
}
