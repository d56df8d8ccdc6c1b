//! The built daemon, end to end and without root: its ports are socketpairs, its clients use the
//! control protocol as the plugin and vswitchctl do.

mod bandwidth;
mod del_queue;
mod drops;
mod explain;
#[cfg(feature = "failpoints")]
mod faults;
mod latency;
mod mtu;
mod networks;
mod node;
mod policies;
mod queues;
mod recovery;
mod sandbox;
mod service;
mod sources;

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use api::{
    AttachmentId, Check, ErrorKind, LostPod, Mac, Mode, PodName, Reply, Request, Reserve,
    ServiceProblem, ServiceProblemKind, TracePacket,
};

use node::{Node, Pod, Running};

#[test]
fn two_pods_talk_and_everything_is_accounted_for() {
    let node = Node::new("");
    let daemon = node.start();
    let (a, b) = (daemon.plug("a"), daemon.plug("b"));
    assert_ne!(a.address, b.address);

    a.send_udp(&b, b"hello from a");
    let received = b.receive().expect("b gets the datagram");
    assert_eq!(&received[42..], b"hello from a");
    assert_eq!(received[22], 63, "one hop was taken");
    b.send_udp(&a, b"hello from b");
    assert!(a.receive().is_some());

    // No pod has this address: a gets an error, and the loss has a reason and a name.
    a.send_udp_to("198.18.1.200".parse().expect("an address"), b"anyone?");
    let told = a.receive().expect("an ICMP error");
    assert_eq!((told[23], told[34]), (1, 3), "ICMP destination unreachable");

    let Reply::Drops(drops) = daemon.ask(&Request::ShowDrops) else { panic!("not drops") };
    assert_eq!(drops.received + drops.made, drops.sent + drops.dropped);
    assert!(drops.reasons.iter().any(|drop| drop.reason == "unreachable" && drop.packets == 1));

    let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
    let pods: Vec<_> = ports.iter().filter(|port| port.attachment.is_some()).collect();
    assert_eq!(pods.len(), 2);
    assert!(pods.iter().all(|port| port.up));
    daemon.stop();
}

#[test]
fn a_trace_tells_what_would_happen_and_leaves_no_mark() {
    let node = Node::new("");
    let daemon = node.start();
    let (a, b) = (daemon.plug("a"), daemon.plug("b"));
    let packet = TracePacket {
        port: daemon.port_of(&a),
        dst_mac: None,
        src_mac: None,
        src: None,
        dst: b.address,
        protocol: "tcp".into(),
        src_port: 40_000,
        dst_port: 80,
        len: 60,
        ttl: 64,
        df: true,
    };
    let Reply::Trace(trace) = daemon.ask(&Request::Trace(packet)) else { panic!("not a trace") };
    let doors: Vec<_> = trace.doors.iter().map(|door| door.door.as_str()).collect();
    assert!(doors.starts_with(&["parse", "bridge", "route", "verdict"]), "{doors:?}");
    assert_eq!(trace.dropped, None);
    assert!(trace.verdict.ends_with(&format!("route to {}", daemon.port_of(&b))), "{trace:?}");
    assert_eq!(trace.leaves.len(), 1);
    let Reply::Drops(drops) = daemon.ask(&Request::ShowDrops) else { panic!("not drops") };
    assert_eq!((drops.received, drops.sent), (0, 0));
    daemon.stop();
}

#[test]
fn what_a_pod_holds_ends_with_its_del() {
    let node = Node::new("");
    let daemon = node.start();
    let before = daemon.open_fds();
    for _ in 0..20 {
        let a = daemon.plug("a");
        assert_eq!(daemon.ask(&Request::Detach(Pod::id("a"))), Reply::Done);
        // Twice, and never added: the same answer.
        assert_eq!(daemon.ask(&Request::Detach(Pod::id("a"))), Reply::Done);
        assert!(a.is_closed(), "the daemon lets go of the port");
    }
    let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
    assert!(ports.iter().all(|port| port.attachment.is_none()));
    assert!(daemon.settles(before), "nothing is left open after 20 rounds");
    daemon.stop();
}

#[test]
fn a_late_del_leaves_the_pod_that_has_the_address_by_now() {
    let node = Node::new("");
    let daemon = node.start();
    let peer = daemon.plug("peer");
    let first = daemon.plug("first");
    assert_eq!(daemon.ask(&Request::Detach(Pod::id("first"))), Reply::Done);
    let again = Reserve { requested: vec![first.address], ..Pod::reserve("second") };
    let second = daemon.plug_as(again);
    assert_eq!(second.address, first.address);
    for _ in 0..3 {
        assert_eq!(daemon.ask(&Request::Detach(Pod::id("first"))), Reply::Done);
        peer.send_udp(&second, b"still here");
        assert!(second.receive().is_some());
    }
    daemon.stop();
}

#[test]
fn a_killed_daemon_remembers_who_holds_which_address() {
    let node = Node::new("");
    let daemon = node.start();
    let (a, b) = (daemon.plug("a"), daemon.plug("b"));
    daemon.kill();
    let daemon = node.start();
    // Their ports died with the daemon, their leases did not: a newcomer gets neither address.
    let c = daemon.plug("c");
    assert!(![a.address, b.address].contains(&c.address));
    let again = daemon.plug("a");
    assert_eq!(again.address, a.address);
    let check = Check {
        attachment: Pod::id("b"),
        addresses: vec![b.address],
        mac: b.mac,
        bandwidth: None,
        queues: None,
        attached_queues: None,
        port_mappings: Vec::new(),
    };
    assert!(daemon.try_ask(&Request::Check(check)).is_err(), "b has no port any more");
    assert_eq!(daemon.ask(&Request::Detach(Pod::id("b"))), Reply::Done);
    daemon.stop();
}

#[test]
fn what_is_reserved_and_never_attached_is_shown_and_ends_with_its_del() {
    let node = Node::new("198.18.1.0/30");
    let daemon = node.start();
    let reserve = || daemon.try_ask(&Request::Reserve(Pod::reserve("a")));
    let first = reserve().expect("an address is free");
    assert_eq!(reserve(), Ok(first), "its runtime tries anew");
    // As a plugin that was killed between the two leaves it.
    let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
    let [port] = ports.as_slice() else { panic!("{ports:?}") };
    assert_eq!((port.attachment.as_ref(), port.up), (Some(&Pod::id("a")), false));
    assert!(daemon.try_ask(&Request::Reserve(Pod::reserve("b"))).is_err(), "no address is left");
    assert_eq!(daemon.ask(&Request::Detach(Pod::id("a"))), Reply::Done);
    let _live = daemon.plug("b");
    let conflict = daemon.try_ask(&Request::Reserve(Pod::reserve("b"))).expect_err("it is live");
    assert_eq!(conflict.kind, ErrorKind::Conflict, "{}", conflict.message);
    daemon.stop();
}

#[test]
fn a_file_descriptor_that_is_no_port_is_refused() {
    let node = Node::new("");
    let daemon = node.start();
    let reserve = Pod::reserve("a");
    let Reply::Reserved(reserved) = daemon.ask(&Request::Reserve(reserve)) else {
        panic!("not a reservation")
    };
    assert!(matches!(reserved.mode, Mode::Routed));
    let (stream, _other) = UnixStream::pair().expect("a socketpair");
    let refused = daemon.attach("a", reserved.mac, OwnedFd::from(stream)).expect_err("no port");
    assert_eq!(refused.kind, ErrorKind::Invalid, "{}", refused.message);
    // The attachment is still as it was: a proper port is taken.
    daemon.plug("a");
    daemon.stop();
}

#[test]
fn an_attachment_must_be_reserved_first() {
    let node = Node::new("");
    let daemon = node.start();
    let (port, theirs) = netio::port::PortFd::pair().expect("a socketpair");
    let refused = daemon.attach("stranger", Mac([2, 0, 0, 0, 0, 9]), port.into());
    assert_eq!(refused.expect_err("unknown").kind, ErrorKind::Unknown);
    // The refused port is closed. Another test's child may have a copy until it executes its program.
    let mut theirs = UnixStream::from(OwnedFd::from(theirs));
    theirs.set_nonblocking(false).expect("a socket");
    theirs.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
    assert_eq!(theirs.read(&mut [0; 64]).expect("it is closed"), 0);
    daemon.stop();
}

#[test]
fn hostile_clients_cost_themselves_and_nobody_else() {
    let node = Node::new("");
    let daemon = node.start();
    let a = daemon.plug("a");
    let before = daemon.open_fds();
    for bytes in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02{}", b"\0\0\0\x08garbage!", b"\0\0"] {
        let mut client = daemon.connect();
        client.write_all(bytes).expect("the daemon reads");
        client.shutdown(std::net::Shutdown::Write).expect("open");
        let mut answer = Vec::new();
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
        client.read_to_end(&mut answer).expect("the daemon closes");
    }
    // More descriptors than any request has: all are closed, and so is the client.
    let (fd, _other) = UnixStream::pair().expect("a socketpair");
    let many = [fd.as_fd(); netio::fdpass::MAX_FDS];
    for _ in 0..2 {
        let client = daemon.connect();
        netio::fdpass::send(&client, b"\0", &many).expect("the daemon reads");
        netio::fdpass::send(&client, b"\0", &many).expect("the daemon reads");
    }
    let idle: Vec<UnixStream> = (0..100).map(|_| daemon.connect()).collect();
    // A client that asks without end and reads nothing stands in no other's way.
    let mut greedy = daemon.connect();
    greedy.set_nonblocking(true).expect("a socket");
    let question = api::encode_request(&Request::Status).expect("small");
    while greedy.write(&question).is_ok_and(|len| len == question.len()) {}
    let b = daemon.plug("b");
    a.send_udp(&b, b"still here");
    assert!(b.receive().is_some());
    drop((idle, greedy));
    drop(b);
    assert_eq!(daemon.ask(&Request::Detach(Pod::id("b"))), Reply::Done);
    assert!(daemon.settles(before), "every client's descriptor is closed");
    daemon.stop();
}

#[test]
fn addresses_run_out_with_a_word_of_why() {
    let node = Node::new("198.18.1.0/30");
    let daemon = node.start();
    // .0 is the network, .1 the gateway, .3 broadcast.
    let _only = daemon.plug("only");
    let refused = daemon.try_ask(&Request::Reserve(Pod::reserve("one-more"))).expect_err("full");
    assert_eq!(refused.kind, ErrorKind::Exhausted);
    let [problem] = &problems(&daemon)[..] else { panic!("one problem") };
    assert_eq!((problem.kind, &problem.reason), (ServiceProblemKind::NoAddress, &refused.message));
    assert!(refused.message.contains("198.18.1.0/30"), "{}", refused.message);
    assert_eq!(daemon.ask(&Request::Detach(Pod::id("only"))), Reply::Done);
    assert_eq!(problems(&daemon), []);
    daemon.plug("one-more");
    daemon.stop();
}

#[test]
fn a_pod_that_lost_its_interface_is_named_until_it_is_deleted() {
    let node = Node::new("");
    let daemon = node.start();
    let web = PodName { namespace: "default".into(), name: "web".into(), uid: Some("u".into()) };
    drop(daemon.plug_as(Reserve { pod: Some(web.clone()), ..Pod::reserve("a") }));
    let status = daemon.status_once(|status| !status.lost_pods.is_empty());
    let lost = LostPod { attachment: Pod::id("a"), pod: Some(web) };
    assert_eq!(status.lost_pods, [lost]);
    let [problem] = status.problems.as_slice() else { panic!("{status:?}") };
    assert_eq!(problem.kind, ServiceProblemKind::PodsSuffer);
    assert!(problem.reason.contains("default/web"), "{}", problem.reason);
    assert_eq!(daemon.ask(&Request::Detach(Pod::id("a"))), Reply::Done);
    let status = daemon.status_once(|_| true);
    assert!(status.lost_pods.is_empty() && status.problems.is_empty(), "{status:?}");
    daemon.stop();
}

fn problems(daemon: &Running<'_>) -> Vec<ServiceProblem> {
    let Reply::Status(status) = daemon.ask(&Request::Status) else { panic!("not a status") };
    status.problems
}

#[test]
fn a_node_without_prefixes_says_that_no_pod_can_be_added() {
    let node = Node::without_prefixes();
    let daemon = node.start();
    let [problem] = &problems(&daemon)[..] else { panic!("one problem") };
    assert_eq!(problem.kind, ServiceProblemKind::AddsFail);
    assert!(problem.reason.contains("no pod prefixes"), "{}", problem.reason);
    let prefix = "198.18.1.0/24".parse().expect("a prefix");
    assert_eq!(daemon.ask(&Request::SetPodPrefixes(vec![prefix])), Reply::Done);
    assert_eq!(problems(&daemon), []);
    daemon.stop();
}

#[test]
fn bridged_pods_reach_one_another_by_mac() {
    let node = Node::new("");
    let daemon = node.start();
    let bridged =
        |name| Reserve { mode: Some(Mode::Bridged { bridge: None }), ..Pod::reserve(name) };
    let (a, b) = (daemon.plug_as(bridged("a")), daemon.plug_as(bridged("b")));
    a.send_udp_directly(&b, b"directly");
    let frame = b.receive().expect("switched by MAC");
    assert_eq!((&frame[..6], &frame[6..12]), (&b.mac.0[..], &a.mac.0[..]));
    daemon.stop();
}

#[test]
fn a_second_daemon_on_the_same_socket_says_so() {
    let node = Node::new("");
    let daemon = node.start();
    let (code, said) = node.run_to_end(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("vswitch.sock") && said.contains("running"), "{said}");
    assert!(matches!(daemon.ask(&Request::Status), Reply::Status(_)));
    daemon.stop();
}

#[test]
fn a_bad_configuration_is_refused_by_name_and_line() {
    let node = Node::new("198.18.1.0/24");
    node.append("[attachment]\nmode = \"sideways\"\n");
    let (code, said) = node.run_to_end(&["--check"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("vswitch.toml:") && said.contains("attachment.mode"), "{said}");
    assert!(said.contains("routed"), "what is expected: {said}");
}

#[test]
fn sigterm_leaves_nothing_behind() {
    let node = Node::new("");
    let daemon: Running<'_> = node.start();
    daemon.plug("a");
    daemon.stop();
    assert!(!node.socket().exists());
    let id = AttachmentId { container_id: "a".into(), ifname: "eth0".into() };
    let daemon = node.start();
    assert_eq!(daemon.ask(&Request::Detach(id)), Reply::Done);
    daemon.stop();
}

#[test]
fn clients_that_only_hold_a_connection_make_room() {
    let node = Node::new("");
    let daemon = node.start();
    // Again and again, as a connection that has just ended may still be counted.
    let mut held: Vec<UnixStream> = Vec::new();
    for _ in 0..3 {
        held.extend((0..300).map(|_| daemon.connect()));
        let _ = daemon.try_ask(&Request::Status);
    }
    // Refused at first, perhaps, as a burst would be; but never for as long as they hold on.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while let Err(refused) = daemon.try_ask(&Request::Reserve(Pod::reserve("a"))) {
        assert_eq!(refused.kind, ErrorKind::NotReady, "{}", refused.message);
        assert!(std::time::Instant::now() < deadline, "{}", refused.message);
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(held);
    daemon.stop();
}

#[test]
fn requests_that_do_not_come_whole_cost_nobody_a_slot_or_memory() {
    let node = Node::new("");
    let daemon = node.start();
    let request = api::encode_request(&Request::Status).expect("small");
    let before = daemon.resident_kb();
    let mut held: Vec<UnixStream> = Vec::new();
    // Half a request of the largest size each, as far as the daemon takes it.
    let half = [&(4_u32 << 20).to_be_bytes()[..], &vec![b' '; 2 << 20]].concat();
    for _ in 0..100 {
        let mut client = daemon.connect();
        client.set_write_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
        let _ = client.write_all(&half);
        held.push(client);
    }
    daemon.ask(&Request::Status);
    let more = daemon.resident_kb().saturating_sub(before);
    assert!(more < 64 << 10, "{more} KB for 200 MB of halves");
    // And a byte now and then.
    held.extend((0..300).map(|_| daemon.connect()));
    let mut answered = false;
    for byte in &request[..request.len() - 1] {
        held.iter_mut().for_each(|client| _ = client.write(&[*byte]));
        std::thread::sleep(Duration::from_millis(100));
        answered |= daemon.try_ask(&Request::Reserve(Pod::reserve("a"))).is_ok();
    }
    assert!(answered, "a pod is added meanwhile");
    drop(held);
    daemon.stop();
}

#[test]
fn a_reload_takes_over_a_good_file_and_leaves_a_bad_one() {
    let node = Node::new("");
    let daemon = node.start();
    let (a, b) = (daemon.plug("a"), daemon.plug("b"));
    let fib = |daemon: &Running<'_>| match daemon.ask(&Request::ShowFib) {
        Reply::Fib(entries) => entries,
        other => panic!("{other:?}"),
    };
    let before = fib(&daemon);
    let good = node.text();
    node.append("[[routes.static]]\nprefix = \"198.18.77.0/24\"\nto = \"nowhere\"\n");
    daemon.reload("is not reloaded");
    assert_eq!(fib(&daemon), before);

    node.write(&good);
    node.append("[[routes.static]]\nprefix = \"198.18.77.0/24\"\nto = \"blackhole\"\n");
    daemon.reload("the configuration is reloaded");
    let prefixes: Vec<_> = fib(&daemon).iter().map(|entry| entry.prefix.to_string()).collect();
    assert!(prefixes.contains(&"198.18.77.0/24".to_owned()), "{prefixes:?}");

    // What needs a restart is reported, and nothing of it happens.
    node.write(&good.replace("198.18.1.0/24", "198.18.2.0/24"));
    daemon.reload("needs a restart");
    a.send_udp(&b, b"still here");
    assert!(b.receive().is_some());
    daemon.stop();
}
