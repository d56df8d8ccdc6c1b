//! TAPs against the kernel, in namespaces of the test's own. Needs root.

use std::fs::OpenOptions;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::common::{Namespace, eventually, ip, link, up};
use frame::{Checksum, GsoKind, Packet, Pool};
use netio::port::{Done, PortFd, PortFdKind, PortRing, Recv, SendError};
use netio::{Error, fdpass};
use netlink::Netlink;

const KERNEL: &str = "198.18.0.1";
const POD: &str = "198.18.0.2";
const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A TAP, up, with an address of the kernel's and a pod behind it that is this test.
fn plugged() -> PortFd {
    let port = PortFd::create_tap("tap0").expect("a TAP");
    let mut netlink = Netlink::open().expect("a socket");
    let tap = link("tap0").index;
    netlink.set_up(tap).expect("up");
    let address = |text: &str| text.parse::<IpAddr>().expect("address");
    netlink.add_address(tap, (address(KERNEL), 24)).expect("added");
    netlink.replace_neighbor(tap, address(POD), POD_MAC).expect("set");
    port
}

/// The next IPv4 packet of a protocol; the kernel sends other things, too.
fn next_ipv4(port: &PortFd, packet: &mut Packet, protocol: u8) {
    eventually("a packet from the kernel", || match port.recv(packet) {
        Recv::Packet => {
            (packet.frame[12..14] == [8, 0] && packet.frame[23] == protocol).then_some(())
        }
        Recv::WouldBlock => None,
        other => panic!("{other:?}"),
    });
}

/// Turns a UDP packet round: addresses and ports change places, sums stay as they are.
fn turn_round(frame: &mut [u8]) {
    for (a, b, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        for at in 0..len {
            frame.swap(a + at, b + at);
        }
    }
}

fn empty(pool: &Pool) -> Packet {
    Packet::plain(pool.alloc().expect("a frame is free"))
}

#[test]
fn a_datagram_goes_out_unfinished_and_comes_back() {
    let test = "a_datagram_goes_out_unfinished_and_comes_back";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(|| {
        let (pool, port) = (Pool::new(1), plugged());
        assert_eq!((port.kind(), port.name().as_deref()), (PortFdKind::Tap, Some("tap0")));
        assert!(port.offloads().checksum && port.offloads().tso, "{:?}", port.offloads());
        let socket = UdpSocket::bind((KERNEL, 0)).expect("a socket");
        socket.send_to(b"ping", (POD, 7)).expect("sent");
        let mut packet = empty(&pool);
        next_ipv4(&port, &mut packet, 17);
        assert_eq!(packet.frame.len(), 14 + 20 + 8 + 4);
        assert_eq!(packet.frame[..6], POD_MAC);
        assert_eq!(packet.offload.checksum, Checksum::Partial { start: 34, offset: 6 });
        turn_round(&mut packet.frame);
        let before = packet.frame.to_vec();
        port.send(&mut packet).expect("it is up");
        assert_eq!(packet.frame[..], before, "the packet is unchanged");
        let mut answer = [0; 16];
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("set");
        let (len, from) = socket.recv_from(&mut answer).expect("the kernel took it");
        assert_eq!((&answer[..len], from.to_string()), (&b"ping"[..], format!("{POD}:7")));
    });
}

#[test]
fn a_superframe_goes_out_whole_and_comes_back_in_pieces() {
    let test = "a_superframe_goes_out_whole_and_comes_back_in_pieces";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(move || {
        let (pool, port) = (Pool::new(1), plugged());
        if !port.offloads().uso {
            crate::common::skip(test, "the kernel has no USO on a TAP (Linux 6.2)");
            return;
        }
        let socket = UdpSocket::bind((KERNEL, 0)).expect("a socket");
        let piece = 1000_i32;
        // SAFETY: the kernel reads the four bytes of `piece`.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_UDP,
                libc::UDP_SEGMENT,
                (&raw const piece).cast(),
                size_of_val(&piece) as libc::socklen_t,
            )
        };
        assert_eq!(set, 0);
        socket.send_to(&[0x5a; 30_500], (POD, 7)).expect("sent");
        let mut packet = empty(&pool);
        next_ipv4(&port, &mut packet, 17);
        assert_eq!(packet.frame.len(), 42 + 30_500);
        let gso = packet.offload.gso.expect("a superframe");
        assert_eq!((gso.kind, gso.size), (GsoKind::Udp, 1000));

        turn_round(&mut packet.frame);
        port.send(&mut packet).expect("it is up");
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("set");
        let mut piece = [0; 2000];
        let lens: Vec<_> = (0..31).map(|_| socket.recv(&mut piece).expect("a datagram")).collect();
        assert_eq!(lens[..30], [1000; 30]);
        assert_eq!(lens[30], 500);
    });
}

#[test]
fn an_interface_that_is_down_is_not_gone() {
    let Some(namespace) = Namespace::new("an_interface_that_is_down_is_not_gone") else { return };
    namespace.run(|| {
        let (pool, port) = (Pool::new(1), PortFd::create_tap("tap0").expect("a TAP"));
        let mut packet = empty(&pool);
        packet.frame.extend(60).expect("room").fill(0);
        assert_eq!(port.send(&mut packet), Err(SendError::Down));
        assert_eq!(port.recv(&mut packet), Recv::WouldBlock);
        up("tap0");
        packet.frame.extend(60).expect("room").fill(0);
        assert_eq!(port.send(&mut packet), Ok(()));
    });
}

#[test]
fn what_the_kernel_cannot_make_a_packet_of_is_refused() {
    let test = "what_the_kernel_cannot_make_a_packet_of_is_refused";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(|| {
        let (pool, port) = (Pool::new(1), plugged());
        let mut packet = empty(&pool);
        packet.frame.extend(13).expect("room").fill(0);
        assert_eq!(port.send(&mut packet), Err(SendError::Refused), "a runt");
        packet.frame.extend(60).expect("room").fill(0);
        // A TCP superframe that holds no TCP: well-formed as a virtio header.
        packet.offload.checksum = Checksum::Partial { start: 14, offset: 0 };
        packet.offload.gso =
            Some(frame::Gso { kind: GsoKind::Udp, size: 1, header_len: 14, vxlan: None });
        assert_eq!(port.send(&mut packet), Err(SendError::Refused), "no UDP in a USO frame");
        packet.offload = frame::Offload::default();
        assert_eq!(port.send(&mut packet), Ok(()), "and the port still works");
    });
}

#[test]
fn a_tap_moved_to_a_pod_works_until_the_pod_dies() {
    let test = "a_tap_moved_to_a_pod_works_until_the_pod_dies";
    let Some(node) = Namespace::new(test) else { return };
    let Some(pod) = Namespace::new(test) else { return };
    let pod_id = pod.id();
    // The plugin's part: make it on the node, move it, pass it, close its own copy.
    let port = node.run(move || {
        let made = PortFd::create_tap("tap0").expect("a TAP");
        ip(&format!("link set tap0 netns {pod_id} name eth0"));
        let (plugin, daemon) = UnixStream::pair().expect("a socketpair");
        let fd = OwnedFd::from(made);
        fdpass::send(&plugin, b"add", &[fd.as_fd()]).expect("sent");
        drop(fd);
        let (_, mut fds) = fdpass::recv(&daemon, &mut [0; 8]).expect("received");
        PortFd::adopt(fds.pop().expect("one")).expect("a port")
    });
    assert_eq!(port.name().as_deref(), Some("eth0"), "renamed on its way");
    assert!(port.offloads().tso);
    pod.run(|| {
        up("eth0");
        ip("addr add 198.18.0.1/24 dev eth0");
        ip("neigh add 198.18.0.2 lladdr 02:00:00:00:00:02 dev eth0");
        UdpSocket::bind((KERNEL, 0)).expect("a socket").send_to(b"x", (POD, 7)).expect("sent");
    });
    let pool = Pool::new(1);
    let mut packet = empty(&pool);
    next_ipv4(&port, &mut packet, 17);

    drop(pod);
    eventually("the end of the device", || (port.recv(&mut packet) == Recv::Gone).then_some(()));
    packet.frame.extend(60).expect("room").fill(0);
    assert_eq!(port.send(&mut packet), Err(SendError::Gone));
    assert_eq!(port.name(), None);
    let mut poll = libc::pollfd { fd: port.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which outlives the call.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 0) }, 1);
    assert_ne!(poll.revents & libc::POLLERR, 0);
}

#[test]
fn what_a_full_queue_lost_is_read_without_entering_the_pod() {
    let test = "what_a_full_queue_lost_is_read_without_entering_the_pod";
    let Some(node) = Namespace::new(test) else { return };
    let Some(pod) = Namespace::new(test) else { return };
    let port = pod.run(|| {
        let port = plugged();
        Netlink::open().expect("a socket").set_tx_queue(link("tap0").index, 8).expect("set");
        port
    });
    let lost = pod.run(|| {
        let socket = UdpSocket::bind((KERNEL, 0)).expect("a socket");
        for _ in 0..100 {
            // Some kernels tell the sender that the queue is full.
            let _ = socket.send_to(b"burst", (POD, 7));
        }
        let mut netlink = Netlink::open().expect("a socket");
        netlink.tx_dropped(link("tap0").index).expect("an answer").expect("it is there")
    });
    assert!(lost >= 92, "a queue of 8 lost {lost} of 100 datagrams");
    let read = node.run(move || {
        let mut netlink = Netlink::open().expect("a socket");
        let namespace = port.open_namespace().expect("the pod's");
        // The namespace has no number at first, and keeps the one that it gets.
        let reads = [0; 2].map(|_| netlink.tx_dropped_in(namespace.as_fd(), "tap0"));
        let absent = netlink.tx_dropped_in(namespace.as_fd(), "absent");
        (reads.map(|read| read.expect("an answer")), absent.expect("an answer"), port)
    });
    let (reads, absent, _port) = read;
    // The kernel sends on its own account, too.
    assert!(reads.iter().all(|read| *read >= Some(lost)), "{reads:?}, {lost} before");
    assert_eq!(absent, None);
    assert_eq!(node.run(|| Netlink::open().expect("a socket").tx_dropped(999)).ok(), Some(None));
}

#[test]
fn tun_files_that_are_no_port_are_refused_with_a_reason() {
    let test = "tun_files_that_are_no_port_are_refused_with_a_reason";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(|| {
        let open = |flags: Option<libc::c_int>| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/net/tun")
                .expect("the kernel has TUN");
            if let Some(flags) = flags {
                // SAFETY: integers and pointers, for all of which zero is a value.
                let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
                request.ifr_ifru.ifru_flags = flags as libc::c_short;
                // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
                let set =
                    unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
                assert_eq!(set, 0);
            }
            OwnedFd::from(file)
        };
        for (what, flags) in [
            ("attached to no", None),
            ("TUN device", Some(libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR)),
            ("IFF_NO_PI", Some(libc::IFF_TAP | libc::IFF_VNET_HDR)),
            ("IFF_VNET_HDR", Some(libc::IFF_TAP | libc::IFF_NO_PI)),
        ] {
            match PortFd::adopt(open(flags)) {
                Err(Error::NotAPort { reason }) => assert!(reason.contains(what), "{reason}"),
                other => panic!("{what}: {other:?}"),
            }
        }
        let with_other_header = open(Some(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR));
        PortFd::adopt(with_other_header).expect("its 10-byte header becomes ours");
    });
}

#[test]
fn a_name_that_is_taken_is_not_shared() {
    let Some(namespace) = Namespace::new("a_name_that_is_taken_is_not_shared") else { return };
    namespace.run(|| {
        ip("tuntap add tap0 mode tap vnet_hdr");
        let refused = PortFd::create_tap("tap0").expect_err("somebody else's");
        assert!(matches!(refused, Error::Tap(tap::Error::Create { .. })), "{refused}");
    });
}

/// `None`, with a message, where there can be no ring.
fn ring(test: &str) -> Option<PortRing<u16>> {
    PortRing::new(4)
        .inspect_err(|error| crate::common::skip(test, &format!("no io_uring ({error})")))
        .ok()
}

fn run(ring: &mut PortRing<u16>) -> Vec<Done<u16>> {
    let mut all = Vec::new();
    ring.run(|done| all.push(done)).expect("the kernel does not refuse");
    all
}

#[test]
fn a_ring_reads_and_writes_datagrams_in_their_order() {
    let test = "a_ring_reads_and_writes_datagrams_in_their_order";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(move || {
        let Some(mut ring) = ring(test) else { return };
        let (pool, port) = (Pool::new(64), plugged());
        ring.register(2, &port).expect("a place");
        let socket = UdpSocket::bind((KERNEL, 0)).expect("a socket");
        socket.connect((POD, 7)).expect("connected");
        for number in 0..20_u8 {
            socket.send(&[number]).expect("sent");
        }
        for _ in 0..32 {
            ring.read(2, &port, empty(&pool)).expect("room");
        }
        let mut answers = 0;
        for done in run(&mut ring) {
            // The kernel sends other things, too.
            if let Done::Read(mut packet, Recv::Packet) = done
                && packet.frame[12..14] == [8, 0]
                && packet.frame[23] == 17
            {
                assert_eq!(packet.offload.checksum, Checksum::Partial { start: 34, offset: 6 });
                turn_round(&mut packet.frame);
                ring.write(2, &port, packet, answers).expect("room");
                answers += 1;
            }
        }
        assert_eq!(answers, 20);
        let notes: Vec<_> = run(&mut ring)
            .into_iter()
            .map(|done| match done {
                Done::Write(_, note, Ok(())) => note,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(notes, (0..20).collect::<Vec<_>>());
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("set");
        for number in 0..20_u8 {
            let mut answer = [0; 16];
            let len = socket.recv(&mut answer).expect("an answer");
            assert_eq!(answer[..len], [number]);
        }
    });
}

#[test]
fn a_ring_tells_what_is_wrong_with_a_tap() {
    let test = "a_ring_tells_what_is_wrong_with_a_tap";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(move || {
        let Some(mut ring) = ring(test) else { return };
        let (pool, port) = (Pool::new(4), PortFd::create_tap("tap0").expect("a TAP"));
        ring.register(0, &port).expect("a place");
        let packet = || {
            let mut packet = empty(&pool);
            packet.frame.extend(60).expect("room").fill(0);
            packet
        };
        ring.write(0, &port, packet(), 0).expect("room");
        let [Done::Write(_, 0, Err(SendError::Down))] = run(&mut ring)[..] else {
            panic!("it is down")
        };
        up("tap0");
        ring.write(0, &port, packet(), 0).expect("room");
        let [Done::Write(_, 0, Ok(()))] = run(&mut ring)[..] else { panic!("it is up") };
        ip("link delete tap0");
        ring.write(0, &port, packet(), 0).expect("room");
        ring.read(0, &port, empty(&pool)).expect("room");
        let done = run(&mut ring);
        let [Done::Write(_, 0, Err(SendError::Gone)), Done::Read(_, Recv::Gone)] = done[..] else {
            panic!("{done:?}")
        };
    });
}

/// As a pod's namespace is: the TAP was made in it.
#[test]
fn a_ring_that_has_let_go_of_a_tap_keeps_no_namespace() {
    let test = "a_ring_that_has_let_go_of_a_tap_keeps_no_namespace";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(move || {
        let Some(mut ring) = ring(test) else { return };
        let (pool, port) = (Pool::new(1), PortFd::create_tap("tap0").expect("a TAP"));
        ring.register(3, &port).expect("a place");
        ring.read(3, &port, empty(&pool)).expect("room");
        run(&mut ring);
        ring.unregister(3).expect("it is there");
        drop(port);
        // The TAP ends with its last file, and it was this one.
        PortFd::create_tap("tap0").expect("the name is free");
        let port = PortFd::create_tap("tap1").expect("a TAP");
        ring.register(3, &port).expect("a place");
        drop((port, ring));
        PortFd::create_tap("tap1").expect("a ring that is dropped lets go of all files first");
    });
}

/// As when a process was killed whose ring had the TAP.
#[test]
fn a_tap_that_is_let_go_of_late_is_waited_for() {
    let test = "a_tap_that_is_let_go_of_late_is_waited_for";
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(|| {
        let port = PortFd::create_tap("tap0").expect("a TAP");
        port.set_persistent(true).expect("it outlives us");
        let late = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            drop(port);
        });
        PortFd::reattach_tap("tap0")
            .expect("it is free by then")
            .set_persistent(false)
            .expect("set");
        late.join().expect("it does not panic");
    });
}
