//! A pod whose interface has several queues: socketpairs play them.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use api::{Attach, Check, ErrorKind, PortEntry, Reply, Request, Reserve, Reserved};
use netio::port::PortFd;

use crate::node::{Node, Pod, Running};

/// A node with two workers; none where there are not two CPUs.
fn two_workers() -> Option<Node> {
    let cores = worker::cores::given();
    let [one, other, ..] = cores[..] else {
        let _ = writeln!(io::stderr(), "SKIPPED: this process may run on one CPU only");
        return None;
    };
    let node = Node::new("");
    node.append(&format!("cores = [{one}, {other}]\n"));
    Some(node)
}

fn reserve(daemon: &Running<'_>, name: &str, queues: u8) -> Reserved {
    let request = Request::Reserve(Reserve { queues, ..Pod::reserve(name) });
    let Reply::Reserved(reserved) = daemon.ask(&request) else { panic!("not a reservation") };
    reserved
}

/// A pod with two queues, by each of them.
fn plug(daemon: &Running<'_>, name: &str) -> Vec<Pod> {
    daemon.plug_queues(Reserve { queues: 2, ..Pod::reserve(name) })
}

fn port(daemon: &Running<'_>, name: &str) -> PortEntry {
    let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
    let port = ports.into_iter().find(|port| port.attachment == Some(Pod::id(name)));
    port.expect("it is attached")
}

fn workers(daemon: &Running<'_>, name: &str) -> Vec<usize> {
    let mut workers: Vec<_> = port(daemon, name).queues.iter().map(|queue| queue.worker).collect();
    workers.sort_unstable();
    workers
}

#[test]
fn each_queue_has_a_worker_and_outlives_daemons_until_the_del() {
    let Some(node) = two_workers() else { return };
    let daemon = node.start_as(node.supervised());
    let queues = plug(&daemon, "a");
    let b = daemon.plug("b");
    assert_eq!(workers(&daemon, "a"), [0, 1]);
    assert!(workers(&daemon, "b").is_empty(), "one queue is named by its worker alone");
    assert!(node.journal().contains("\"queues\":2"));
    for signal in ["-KILL", "-TERM"] {
        for queue in &queues {
            daemon.ends_daemon(signal);
            queue.send_udp(&b, b"by this queue");
            assert!(b.receive().is_some(), "after {signal}");
        }
        assert_eq!(workers(&daemon, "a"), [0, 1]);
    }
    assert_eq!(daemon.try_ask(&Request::Detach(Pod::id("a"))), Ok(Reply::Done));
    assert!(queues.iter().all(Pod::is_closed), "neither daemon nor supervisor has one open");
    daemon.stop();
}

#[test]
fn a_pod_gets_as_many_queues_as_there_are_workers() {
    let node = Node::new("");
    let daemon = node.start();
    assert_eq!(reserve(&daemon, "a", 8).queues, 1);
    assert!(node.journal().contains("\"queues\":8"), "what was asked for is for another start");
    for queues in [0, 9] {
        let asked = Request::Reserve(Reserve { queues, ..Pod::reserve("b") });
        let refused = daemon.try_ask(&asked).expect_err("none can have so many");
        assert_eq!(refused.kind, ErrorKind::Invalid);
        assert!(refused.message.contains("queues is"), "{refused}");
    }
    daemon.stop();
    let Some(node) = two_workers() else { return };
    let daemon = node.start();
    assert_eq!(reserve(&daemon, "a", 8).queues, 2);
    daemon.stop();
}

#[test]
fn descriptors_that_are_no_queues_of_one_device_are_refused() {
    let node = Node::new("");
    let daemon = node.start();
    let reserved = reserve(&daemon, "a", 2);
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").expect("every Linux has it"));
    let pair = || OwnedFd::from(PortFd::pair().expect("a socketpair").0);
    let (several, none) = (vec![pair(), null()], Vec::new());
    for (queues, words) in [(several, "neither a TAP nor"), (none, "0 file descriptor(s)")] {
        let refused = daemon.attach_queues("a", reserved.mac, queues).expect_err("refused");
        assert!(refused.message.contains(words), "{refused}");
    }
    // Fewer than it says.
    let attach = Attach { attachment: Pod::id("a"), mac: reserved.mac, queues: 2 };
    let refused = daemon.try_ask(&Request::Attach(attach)).expect_err("refused");
    assert!(refused.message.contains("2 file descriptor(s)"), "{refused}");
    daemon.stop();
}

#[test]
fn check_compares_the_queues() {
    let Some(node) = two_workers() else { return };
    let daemon = node.start();
    let by_queue = plug(&daemon, "a");
    let check = |queues, attached_queues| {
        daemon.try_ask(&Request::Check(Check {
            attachment: Pod::id("a"),
            addresses: vec![by_queue[0].address],
            mac: by_queue[0].mac,
            port_mappings: Vec::new(),
            bandwidth: None,
            queues,
            attached_queues,
        }))
    };
    assert_eq!(check(None, None), Ok(Reply::Done), "an older plugin's");
    assert_eq!(check(Some(2), Some(2)), Ok(Reply::Done));
    for (queues, attached, words) in [
        (3, 2, "is to have an interface with 3 queue(s) and was added with 2"),
        (2, 3, "has 3 queue(s) that the kernel gives packets to, of which 2 are read here"),
    ] {
        let refused = check(Some(queues), Some(attached)).expect_err("it differs");
        assert!(refused.message.contains(words), "{refused}");
    }
    daemon.stop();
}
