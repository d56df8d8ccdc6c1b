//! The daemon under a service manager, which the test plays.

use std::io::{ErrorKind, Write};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use api::{Reply, Request, encode_request};

use crate::node::{Node, Pod};

#[test]
fn who_asks_while_no_daemon_runs_is_answered_by_the_next() {
    let node = Node::new("");
    let socket = UnixListener::bind(node.socket()).expect("the directory is ours");
    let asking = |request| {
        let mut stream = UnixStream::connect(node.socket()).expect("the manager listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
        stream.write_all(&encode_request(&request).expect("small")).expect("room");
        stream
    };
    let early = asking(Request::Status);
    let daemon = node.start_as(node.activated(&socket));
    assert!(matches!(daemon.answer(early), Ok(Reply::Status(_))));
    daemon.plug("a");
    daemon.kill();

    let meanwhile = asking(Request::Reserve(Pod::reserve("b")));
    let daemon = node.start_as(node.activated(&socket));
    assert!(matches!(daemon.answer(meanwhile), Ok(Reply::Reserved(_))));
    daemon.stop();
    // The manager's socket outlives a daemon that ends well, too.
    let after = asking(Request::Detach(Pod::id("b")));
    let daemon = node.start_as(node.activated(&socket));
    assert_eq!(daemon.answer(after), Ok(Reply::Done));
    daemon.stop();
    assert!(node.socket().exists());
}

#[test]
fn a_socket_that_no_client_looks_for_is_refused() {
    let node = Node::new("");
    for (socket, expected) in [
        (UnixListener::bind(node.file("other.sock")).expect("free"), "other.sock"),
        (
            UnixListener::from(std::os::fd::OwnedFd::from(
                UnixDatagram::bind(node.socket()).expect("free"),
            )),
            "no unix socket that listens",
        ),
    ] {
        let output = node.activated(&socket).output().expect("the daemon can be executed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected) && said.contains("control.socket"), "{said}");
    }
}

#[test]
fn the_service_manager_hears_of_its_beginning_its_life_and_its_end() {
    let node = Node::new("");
    let manager = UnixDatagram::bind(node.file("notify")).expect("the directory is ours");
    manager.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
    let hears = || {
        let mut buffer = [0; 256];
        let len = loop {
            match manager.recv(&mut buffer) {
                // A signal to this process, which has others to wait for.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result.expect("a notification in time"),
            }
        };
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    let mut command = node.command();
    command.env("NOTIFY_SOCKET", node.file("notify"));
    let daemon = node.start_as(command);
    assert_eq!(hears(), "FDSTOREREMOVE=1\nFDNAME=host", "it has none");
    assert_eq!(hears(), "FDSTORE=1\nFDPOLL=0\nFDNAME=control");
    assert_eq!(hears(), "READY=1");
    assert_eq!((hears(), hears()), ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned()));
    daemon.stop();
    let last = std::iter::repeat_with(hears).find(|said| said != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}

#[test]
fn a_supervised_daemon_goes_on_where_the_former_one_ended() {
    let node = Node::new("");
    let running = node.start_as(node.supervised());
    let (a, b) = (running.plug("a"), running.plug("b"));
    for (number, signal) in ["-KILL", "-TERM", "-STOP"].into_iter().enumerate() {
        running.ends_daemon(signal);
        // What is sent before the next one serves waits in the port.
        let payload = format!("after {number}");
        a.send_udp(&b, payload.as_bytes());
        let received = b.receive().expect("b gets the datagram");
        assert_eq!(&received[42..], payload.as_bytes());
    }
    assert_eq!(running.try_ask(&Request::Detach(Pod::id("a"))), Ok(Reply::Done));
    assert!(a.is_closed(), "neither daemon nor supervisor has it open");
    running.ends_daemon("-KILL");
    let Reply::Ports(ports) = running.ask(&Request::ShowPorts) else { panic!("not ports") };
    let pods: Vec<_> = ports.iter().filter_map(|port| port.attachment.clone()).collect();
    assert_eq!(pods, [Pod::id("b")]);
    running.stop();
    assert!(b.is_closed(), "with the supervisor its descriptors end");
}

#[test]
fn pods_outlive_a_journal_that_cannot_be_read_for_a_while() {
    let node = Node::new("");
    let running = node.start_as(node.supervised());
    let (a, b) = (running.plug("a"), running.plug("b"));
    let (journal, away) = (node.file("state/journal"), node.file("away"));
    std::fs::rename(&journal, &away).expect("it is there");
    std::fs::create_dir(&journal).expect("the name is free");
    running.ends_daemon("-KILL");
    let refused =
        running.try_ask(&Request::Reserve(Pod::reserve("c"))).expect_err("unknown leases");
    assert!(refused.message.contains("is a directory"), "{refused}");
    std::fs::remove_dir(&journal).expect("it is empty");
    std::fs::rename(&away, &journal).expect("the name is free");
    running.ends_daemon("-KILL");
    a.send_udp(&b, b"still here");
    assert!(b.receive().is_some());
    running.stop();
}

#[test]
fn a_supervisor_ends_where_another_daemon_would_be_of_no_use() {
    let node = Node::new("");
    let running = node.start_as(node.supervised());
    let _a = running.plug("a");
    let Reply::Drained { pods: 1, without_port } = running.ask(&Request::Drain) else {
        panic!("not drained")
    };
    assert!(without_port.is_empty());
    assert_eq!(running.ended(), Some(3));

    node.write("[node]\nname = 1\n");
    let output = node.supervised().output().expect("it can be executed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("node.name"), "{said}");
}
