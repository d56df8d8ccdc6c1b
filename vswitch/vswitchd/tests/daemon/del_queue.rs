//! Pods that were deleted while no daemon was there to hear of it.

use std::fs;
use std::time::{Duration, Instant};

use api::{DetachQueue, Reply, Request, Reserved};

use crate::node::{Node, Pod, Running};

fn queue(node: &Node) -> DetachQueue {
    DetachQueue::open(&node.file("state")).expect("the daemon made its state directory")
}

fn push(node: &Node, name: &str) {
    let queue = queue(node);
    let lock = queue.lock(Instant::now() + Duration::from_secs(10)).expect("released soon");
    lock.push(&Pod::id(name)).expect("room");
}

fn is_empty(node: &Node) -> bool {
    queue(node).queued().expect("readable").attachments.is_empty()
}

fn reserve(daemon: &Running<'_>, name: &str) -> Reserved {
    match daemon.ask(&Request::Reserve(Pod::reserve(name))) {
        Reply::Reserved(reserved) => reserved,
        other => panic!("{other:?}"),
    }
}

fn names(daemon: &Running<'_>) -> Vec<String> {
    let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
    ports.into_iter().filter(|port| port.attachment.is_some()).map(|port| port.name).collect()
}

#[test]
fn a_start_applies_what_is_queued_and_the_journal_has_it() {
    let node = Node::new("");
    let daemon = node.start();
    for name in ["a", "b", "c"] {
        daemon.plug(name);
    }
    daemon.kill();
    for name in ["a", "c", "never-added"] {
        push(&node, name);
    }
    fs::write(node.file("state/del-queue/0.json"), "no entry").expect("room");
    let daemon = node.start();
    assert_eq!(names(&daemon), ["b"]);
    assert!(is_empty(&node));
    assert!(node.file("state/del-queue/0.json.damaged").exists());
    let Reply::Status(status) = daemon.ask(&Request::Status) else { panic!("not a status") };
    assert!(status.warnings.iter().any(|one| one.contains("0.json.damaged")), "{status:?}");
    daemon.kill();
    // The queue is empty: it is the journal that knows.
    let daemon = node.start();
    assert_eq!(names(&daemon), ["b"]);
    daemon.stop();
}

#[test]
fn what_is_queued_while_it_runs_is_applied_soon_and_before_the_next_reservation() {
    let node = Node::new("");
    let daemon = node.start();
    let (a, b) = (daemon.plug("a"), daemon.plug("b"));
    push(&node, "a");
    assert!(a.is_closed(), "by itself");
    push(&node, "b");
    // Not a conflict with the pod that is live: its DEL came before.
    let again = reserve(&daemon, "b");
    assert!(b.is_closed());
    assert!(is_empty(&node));
    assert_ne!(again.addresses[0].addr(), b.address, "a new lease");
    daemon.stop();
}
