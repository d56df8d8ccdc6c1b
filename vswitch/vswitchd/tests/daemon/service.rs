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
    assert_eq!(hears(), "READY=1");
    assert_eq!((hears(), hears()), ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned()));
    daemon.stop();
    let last = std::iter::repeat_with(hears).find(|said| said != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}
