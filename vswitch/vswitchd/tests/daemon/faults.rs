//! The daemon on a disk that is slow or broken, by failpoints.

use std::fs;
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use api::{ErrorKind, Reply, Request, ServiceProblemKind, Status, encode_request};
use netio::port::PortFd;

use crate::node::{Node, Pod, Running};

impl Node {
    fn start_with(&self, failpoints: &str) -> Running<'_> {
        let mut command = self.command();
        command.env("VSWITCH_FAILPOINTS", failpoints);
        self.start_as(command)
    }
}

impl Running<'_> {
    fn reported(&self) -> Status {
        let Reply::Status(status) = self.ask(&Request::Status) else { panic!("not a status") };
        *status
    }

    /// As a runtime, which tries again.
    fn reserves_in_the_end(&self, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(refused) = self.try_ask(&Request::Reserve(Pod::reserve(name))) {
            assert!(Instant::now() < deadline, "{refused}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn sixteen_pods_at_once_succeed_on_a_slow_disk() {
    let node = Node::new("");
    // One after the other, the 32 lines would take longer than any answer is waited for.
    let daemon = node.start_with("journal-sync=delay:1000");
    let names: Vec<_> = (0..16).map(|number| format!("pod-{number}")).collect();
    let addresses: Vec<_> = thread::scope(|scope| {
        let plugs: Vec<_> =
            names.iter().map(|name| scope.spawn(|| daemon.plug(name).address)).collect();
        plugs.into_iter().map(|plug| plug.join().expect("it is added")).collect()
    });
    daemon.kill();
    let daemon = node.start();
    let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
    let kept: Vec<_> = ports.iter().flat_map(|port| &port.addresses).collect();
    assert!(addresses.iter().all(|address| kept.contains(&address)), "{kept:?}");
    daemon.stop();
}

#[test]
fn nobody_waits_for_the_disk_but_who_asked() {
    let node = Node::new("");
    let fault = node.file("fault");
    let daemon = node.start_with(&format!("@{}", fault.display()));
    let _pods = (daemon.plug("a"), daemon.plug("b"));
    fs::write(&fault, "journal-sync=delay:3000").expect("room");
    let mut waits = daemon.connect();
    let detach = |name: &str| encode_request(&Request::Detach(Pod::id(name))).expect("small");
    waits.write_all(&detach("a")).expect("room");
    // One that asks and goes is no hindrance either.
    let mut goes = daemon.connect();
    goes.write_all(&detach("b")).expect("room");
    drop(goes);
    // Questions are answered meanwhile: neither pod is known any more, and no release is acknowledged.
    loop {
        let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
        if ports.is_empty() {
            break;
        }
    }
    waits.set_nonblocking(true).expect("a socket");
    let nothing = waits.read(&mut [0; 1]).expect_err("the disk is slower");
    assert_eq!(nothing.kind(), IoErrorKind::WouldBlock);
    waits.set_nonblocking(false).expect("a socket");
    assert_eq!(daemon.answer(waits), Ok(Reply::Done));
    daemon.stop();
}

#[test]
fn an_add_waits_for_the_disk_once_when_its_interface_is_attached() {
    let node = Node::new("");
    let fault = node.file("fault");
    let daemon = node.start_with(&format!("@{}", fault.display()));
    fs::write(&fault, "journal-sync=delay:5000").expect("room");
    // Answered, though its line is on disk seconds later.
    let reply = daemon.ask(&Request::Reserve(Pod::reserve("a")));
    let Reply::Reserved(reserved) = reply else { panic!("not a reservation: {reply:?}") };
    let (port, _pod) = PortFd::pair().expect("a socketpair");
    thread::scope(|scope| {
        let attach = scope.spawn(|| daemon.attach("a", reserved.mac, port.into()));
        while fault.exists() || daemon.reported().pods == 0 {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(!attach.is_finished(), "the disk is slower");
        assert_eq!(attach.join().expect("no panic"), Ok(Reply::Done));
    });
    daemon.stop();
}

/// The daemon has so much to do at once that a client waits for longer than one may be silent.
#[test]
fn a_client_is_not_closed_for_a_delay_of_the_daemons_own() {
    let node = Node::new("");
    let fault = node.file("fault");
    let daemon = node.start_with(&format!("@{}", fault.display()));
    let question = encode_request(&Request::ShowPorts).expect("small");
    let (begin, rest) = question.split_at(5);
    let mut client = daemon.connect();
    client.write_all(begin).expect("room");
    daemon.ask(&Request::ShowPorts);
    fs::write(&fault, "change-on-disk=delay:11000").expect("room");
    let mut busy = daemon.connect();
    let detach = encode_request(&Request::Detach(Pod::id("a"))).expect("small");
    busy.write_all(&detach).expect("room");
    while fault.exists() {
        thread::sleep(Duration::from_millis(10));
    }
    client.write_all(rest).expect("room");
    for stream in [&client, &busy] {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
    }
    assert!(matches!(daemon.answer(client), Ok(Reply::Ports(_))));
    assert_eq!(daemon.answer(busy), Ok(Reply::Done));
    daemon.stop();
}

#[test]
fn what_cannot_be_synced_is_refused_with_the_reason_and_a_del_succeeds() {
    let node = Node::new("");
    let daemon = node.start();
    daemon.plug("a");
    daemon.kill();
    // Nor can it be written anew, which would be tried a second later.
    let daemon = node.start_with("journal-sync=error,journal-fresh=error");
    let refused = daemon.try_ask(&Request::Reserve(Pod::reserve("b"))).expect_err("not on disk");
    assert_eq!(refused.kind, ErrorKind::NotReady, "{refused}");
    assert!(refused.message.contains("journal"), "{refused}");
    assert_eq!(daemon.ask(&Request::Detach(Pod::id("a"))), Reply::Done);
    let status = daemon.reported();
    let [problem] = status.problems.as_slice() else { panic!("{status:?}") };
    assert_eq!(problem.kind, ServiceProblemKind::AddsFail);
    assert!(problem.reason.contains("journal"), "{problem:?}");
    daemon.stop();
}

#[test]
fn a_service_manager_that_takes_nothing_for_a_while_is_told_later() {
    let node = Node::new("");
    let fault = node.file("fault");
    let once = |text: &str| fs::write(&fault, text).expect("room");
    let mut command = node.supervised();
    command.env("VSWITCH_FAILPOINTS", format!("@{}", fault.display()));
    let running = node.start_as(command);
    once("store-keep=error");
    let (a, _b) = (running.plug("a"), running.plug("b"));
    assert!(!fault.exists(), "it happened");
    running.ends_daemon("-KILL");
    let Reply::Ports(ports) = running.ask(&Request::ShowPorts) else { panic!("not ports") };
    assert!(
        ports.len() == 2 && ports.iter().all(|port| port.up),
        "the next one has both: {ports:?}"
    );
    once("store-forget=error");
    assert_eq!(running.ask(&Request::Detach(Pod::id("a"))), Reply::Done);
    assert!(!fault.exists(), "it happened");
    assert!(a.is_closed(), "neither daemon nor supervisor has it open");
    running.stop();
}

#[test]
fn a_broken_journal_is_written_anew_by_itself() {
    for failpoints in ["journal-sync=error:2", "journal-write=error:2", "journal-fresh=error:2"] {
        let node = Node::new("");
        let daemon = node.start();
        let (a, b) = (daemon.plug("a"), daemon.plug("b"));
        daemon.kill();
        let daemon = node.start_with(failpoints);
        // Whether or not it can be written.
        assert_eq!(daemon.ask(&Request::Detach(Pod::id("a"))), Reply::Done, "{failpoints}");
        let _ = daemon.try_ask(&Request::Reserve(Pod::reserve("c")));
        daemon.reserves_in_the_end("d");
        let d = daemon.plug("d");
        assert_ne!(d.address, b.address);
        daemon.kill();
        let daemon = node.start();
        let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
        let held = |name| ports.iter().find(|port| port.attachment == Some(Pod::id(name)));
        assert!(held("a").is_none(), "{failpoints}: {ports:?}");
        assert_eq!(held("b").map(|port| &port.addresses[..]), Some(&[b.address][..]));
        assert_eq!(held("d").map(|port| &port.addresses[..]), Some(&[d.address][..]));
        assert_eq!(daemon.reported().problems, []);
        drop(a);
        daemon.stop();
    }
}

#[test]
fn killed_while_the_journal_is_written_anew_nothing_is_lost() {
    let node = Node::new("");
    let daemon = node.start();
    let (a, b) = (daemon.plug("a"), daemon.plug("b"));
    daemon.kill();
    // Each is reached at a start, by itself.
    for place in ["journal-fresh", "journal-replace", "journal-sync"] {
        let mut command = node.command();
        command.env("VSWITCH_FAILPOINTS", format!("{place}=kill"));
        let ended = command.output().expect("the daemon can be executed");
        assert_eq!(ended.status.code(), None, "{place}: {ended:?}");
        let daemon = node.start();
        let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
        let held: Vec<_> = ports.iter().flat_map(|port| port.addresses.clone()).collect();
        assert_eq!(held, [a.address, b.address], "{place}");
        daemon.kill();
    }
}
