//! The uplink by a TAP on a veth pair, beside the kernel's own traffic. Needs root, and Linux 6.17.
//!
//! The node has the NIC `nic0`; the peer is another uplink of ours, or the kernel's UDP and TCP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use frame::{Checksum, Gso, GsoKind, Offload, Packet, Pool, VxlanOver};
use netio::pinhole::PinholeFilter;
use netio::uplink::{Rx, TxError, UplinkControl, UplinkKind, UplinkQueue};

use crate::common::{Namespace, eventually, ip, link, skip, up};
use crate::xsk::{NODE, PEER, VXLAN, lab as veth_pair};

pub(crate) const NODE6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const POD: [u8; 4] = [198, 18, 2, 7];
const PEER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// Node and peer, connected; `None`, with a message, if that cannot be.
fn lab(test: &str) -> Option<(Namespace, Namespace)> {
    let (node, peer) = veth_pair(test)?;
    match node.run(|| tap::tunnelling::create("probe%d", 1)) {
        Ok(_) => Some((node, peer)),
        Err(error) => {
            skip(test, &error.to_string());
            None
        }
    }
}

pub(crate) fn steering(local: std::net::Ipv4Addr, local6: [u8; 16]) -> PinholeFilter {
    PinholeFilter {
        local: vec![local.into(), std::net::Ipv6Addr::from(local6).into()],
        vxlan_ports: vec![VXLAN],
        prefixes: vec![([198, 18, 2, 0].into(), 24)],
        ..PinholeFilter::default()
    }
}

fn open_node(queues: usize) -> (UplinkControl, Vec<UplinkQueue>) {
    UplinkControl::open_offload(link("nic0").index, queues, &steering(NODE, NODE6))
        .expect("the kernel has it")
}

pub(crate) fn open_peer() -> (UplinkControl, Vec<UplinkQueue>) {
    UplinkControl::open_offload(link("up0").index, 1, &steering(PEER, PEER6))
        .expect("the kernel has it")
}

/// What has arrived, by any queue: the worker's epoll is played by looking always.
pub(crate) fn received(queues: &mut [UplinkQueue], pool: &Pool) -> Vec<(Vec<u8>, Offload)> {
    let mut packets = Vec::new();
    for queue in queues {
        queue.rx.note_ready();
        queue.rx.recv(pool, 64, |packet| {
            let packet = packet.expect("it has a frame, and is sound");
            packets.push((packet.frame.to_vec(), packet.offload));
        });
    }
    packets
}

pub(crate) fn one(queues: &mut [UplinkQueue], pool: &Pool) -> (Vec<u8>, Offload) {
    let mut all = eventually("a packet", || {
        let all = received(queues, pool);
        (!all.is_empty()).then_some(all)
    });
    assert_eq!(all.len(), 1);
    all.remove(0)
}

pub(crate) fn packet(pool: &Pool, bytes: &[u8], offload: Offload) -> Packet {
    let mut packet = Packet::plain(pool.alloc().expect("free"));
    packet.frame.extend_from_slice(bytes).expect("room");
    packet.offload = offload;
    packet
}

pub(crate) fn ethernet(ethertype: u16) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &ethertype.to_be_bytes()].concat()
}

pub(crate) fn ipv4(protocol: u8, destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut header = vec![0x45, 0];
    header.extend(len.to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(NODE.octets());
    header.extend(destination);
    let sum: u32 = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&folded.to_be_bytes());
    [&header, payload].concat()
}

fn ipv6(payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((payload.len() as u16).to_be_bytes());
    header.extend([17, 64]);
    [&header[..], &NODE6, &PEER6, payload].concat()
}

fn payload(len: usize) -> impl Iterator<Item = u8> {
    (0..len).map(|at| (at % 251) as u8)
}

/// A TCP segment of a pod's whose checksum is still to be finished.
pub(crate) fn tcp(payload_len: usize) -> Vec<u8> {
    let mut segment = vec![0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0];
    segment.extend(pseudo(6, 20 + payload_len).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload(payload_len));
    segment
}

/// Likewise datagrams in one.
pub(crate) fn udp(payload_len: usize) -> Vec<u8> {
    let mut datagram = vec![0, 1, 0, 2];
    datagram.extend(length(8 + payload_len));
    datagram.extend(pseudo(17, 8 + payload_len).to_be_bytes());
    datagram.extend(payload(payload_len));
    datagram
}

/// The sum of the pseudo header of a pod's packet.
fn pseudo(protocol: u8, len: usize) -> u16 {
    sum(&[&NODE.octets(), &POD, &[0, protocol], &length(len)])
}

/// UDP and VXLAN in front of a superframe of the pods'.
pub(crate) fn vxlan(protocol: u8, segment: &[u8]) -> Vec<u8> {
    let inner = [ethernet(0x0800), ipv4(protocol, POD, segment)].concat();
    let mut datagram = vec![0xc0, 0];
    datagram.extend(VXLAN.to_be_bytes());
    datagram.extend(((16 + inner.len()) as u16).to_be_bytes());
    datagram.extend([0, 0, 8, 0, 0, 0, 0, 0, 10, 0]);
    [datagram, inner].concat()
}

pub(crate) fn superframe(start: u16, vxlan: Option<VxlanOver>) -> Offload {
    let kind = GsoKind::Tcp4 { ecn: false };
    Offload {
        checksum: Checksum::Partial { start, offset: 16 },
        gso: Some(Gso { kind, size: 1390, header_len: start + 20, vxlan }),
    }
}

/// The offload as it is read: how long the headers are is the kernel's guess.
pub(crate) fn without_hint(mut offload: Offload) -> Offload {
    if let Some(gso) = &mut offload.gso {
        gso.header_len = 0;
    }
    offload
}

#[test]
fn superframes_cross_whole_inside_of_vxlan_and_without_it() {
    let test = "superframes_cross_whole_inside_of_vxlan_and_without_it";
    let Some((node, peer)) = lab(test) else { return };
    let (control, mut out) = node.run(|| open_node(1));
    let (_peer_control, mut into) = peer.run(open_peer);
    assert_eq!(control.kind(), UplinkKind::Offload);
    assert_eq!(control.kind().to_string(), "offload");
    assert!(control.xdp_mode().is_none() && control.copy_mode().is_none());
    let pool = Pool::new(4);
    let v4 = [ethernet(0x0800), ipv4(17, PEER.octets(), &vxlan(6, &tcp(60_000)))].concat();
    let v6 = [ethernet(0x86dd), ipv6(&vxlan(6, &tcp(60_000)))].concat();
    let direct = [ethernet(0x0800), ipv4(6, POD, &tcp(60_000))].concat();
    for (what, bytes, start, over) in [
        ("VXLAN over IPv4", v4, 84, Some(VxlanOver::Ipv4)),
        ("VXLAN over IPv6", v6, 104, Some(VxlanOver::Ipv6)),
        ("no tunnel", direct, 34, None),
    ] {
        let mut sent = packet(&pool, &bytes, superframe(start, over));
        assert_eq!(out[0].tx.send(&mut sent), Ok(()), "{what}");
        assert_eq!(sent.frame[..], bytes, "{what}");
        let (arrived, offload) = one(&mut into, &pool);
        assert!(arrived == bytes, "{what}: {} bytes, not {}", arrived.len(), bytes.len());
        assert_eq!(without_hint(offload), without_hint(superframe(start, None)), "{what}");
    }
    // Nothing comes back to its sender.
    assert!(received(&mut out, &pool).is_empty());
}

/// A link without offloads: what a wire carries.
pub(crate) fn without_offloads() {
    let off = "tx off tso off gso off tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off";
    let arguments = ["-K", "nic0"].into_iter().chain(off.split(' '));
    let done = std::process::Command::new("ethtool").args(arguments).output();
    assert!(done.expect("ethtool is there").status.success());
}

/// The internet checksum's sum: all ones if what it covers is whole.
fn sum(pieces: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = pieces.concat();
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u32::from(high) << 8 | u32::from(low),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn length(len: usize) -> [u8; 2] {
    (len as u16).to_be_bytes()
}

#[test]
fn a_link_that_takes_no_superframes_gets_their_pieces() {
    let test = "a_link_that_takes_no_superframes_gets_their_pieces";
    let Some((node, peer)) = lab(test) else { return };
    node.run(without_offloads);
    let (_control, mut out) = node.run(|| open_node(1));
    let (_peer_control, mut into) = peer.run(open_peer);
    let pool = Pool::new(4);
    for (protocol, segment, header_bytes) in [(6, tcp(2000), 20), (17, udp(2000), 8)] {
        let v4 = [ethernet(0x0800), ipv4(17, PEER.octets(), &vxlan(protocol, &segment))].concat();
        let v6 = [ethernet(0x86dd), ipv6(&vxlan(protocol, &segment))].concat();
        for (bytes, start, over, outer) in
            [(v4, 84_usize, VxlanOver::Ipv4, 34_usize), (v6, 104, VxlanOver::Ipv6, 54)]
        {
            let what = format!("protocol {protocol} over {over:?}");
            let mut bytes = bytes;
            let udp_len = bytes.len() - outer;
            if over == VxlanOver::Ipv6 {
                let begun = sum(&[&NODE6, &PEER6, &[0, 17], &length(udp_len)]);
                bytes[outer + 6..outer + 8].copy_from_slice(&begun.to_be_bytes());
            }
            let mut offload = superframe(start as u16, Some(over));
            if protocol == 17 {
                offload.checksum = Checksum::Partial { start: start as u16, offset: 6 };
                offload.gso.as_mut().expect("set").kind = GsoKind::Udp;
            }
            assert_eq!(out[0].tx.send(&mut packet(&pool, &bytes, offload)), Ok(()), "{what}");
            let mut pieces = Vec::new();
            eventually("two pieces", || {
                pieces.extend(received(&mut into, &pool));
                (pieces.len() == 2).then_some(())
            });
            for ((piece, offload), payload) in pieces.into_iter().zip([1390, 610]) {
                assert_eq!(offload, Offload::default(), "{what}");
                assert_eq!(piece.len(), start + header_bytes + payload, "{what}");
                let outer_len = length(piece.len() - outer);
                assert_eq!(piece[outer + 4..outer + 6], outer_len, "{what}");
                if over == VxlanOver::Ipv6 {
                    let covered: [&[u8]; 5] =
                        [&NODE6, &PEER6, &[0, 17], &outer_len, &piece[outer..]];
                    assert_eq!(sum(&covered), 0xffff, "{what}: outer checksum");
                }
                let ends = &piece[start - 8..start];
                let inner_len = length(piece.len() - start);
                let covered: [&[u8]; 4] = [ends, &[0, protocol], &inner_len, &piece[start..]];
                assert_eq!(sum(&covered), 0xffff, "{what}: inner checksum");
            }
        }
    }
}

#[test]
fn what_is_not_ours_stays_with_the_kernel_and_its_own_never_gets_to_us() {
    let test = "what_is_not_ours_stays_with_the_kernel_and_its_own_never_gets_to_us";
    let Some((node, peer)) = lab(test) else { return };
    let (_control, mut queues) = node.run(|| open_node(1));
    let pool = Pool::new(8);
    let listener = node.run(|| TcpListener::bind((NODE, 0)).expect("a socket"));
    let port = listener.local_addr().expect("bound").port();
    let mut client = peer.run(move || TcpStream::connect((NODE, port)).expect("connected"));
    client.write_all(b"hello").expect("written");
    let mut server = listener.accept().expect("accepted").0;
    let mut text = [0; 5];
    server.read_exact(&mut text).expect("read");
    assert_eq!(&text, b"hello");

    // The kernel speaks by the TAP: to multicast, and whatever a program puts there.
    node.run(|| {
        ip("addr add 203.0.113.1/24 dev vswup0");
        ip("neigh add 203.0.113.2 lladdr 02:00:00:00:00:09 dev vswup0");
        let socket = UdpSocket::bind("203.0.113.1:0").expect("a socket");
        // The program drops it, which the kernel may report.
        let _ = socket.send_to(b"stray", "203.0.113.2:9");
    });
    let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    sender.send_to(b"ours", (NODE, VXLAN)).expect("sent");
    let (bytes, offload) = one(&mut queues, &pool);
    assert_eq!(bytes[42..], *b"ours");
    // The sender's kernel left the outer checksum to a device, and no wire was crossed.
    assert_eq!(offload.checksum, Checksum::Partial { start: 34, offset: 6 });
}

#[test]
fn without_a_frame_a_packet_is_counted_and_the_next_one_arrives() {
    let test = "without_a_frame_a_packet_is_counted_and_the_next_one_arrives";
    let Some((node, peer)) = lab(test) else { return };
    let (_control, mut queues) = node.run(|| open_node(1));
    let pool = Pool::new(1);
    let held = pool.alloc().expect("free");
    let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    sender.send_to(b"one", (NODE, VXLAN)).expect("sent");
    let lost = eventually("a loss", || {
        let mut lost = None;
        queues[0].rx.note_ready();
        queues[0].rx.recv(&pool, 8, |packet| lost = packet.err());
        lost
    });
    assert_eq!(lost, netio::uplink::RxError::NoFrame);
    drop(held);
    sender.send_to(b"two", (NODE, VXLAN)).expect("sent");
    assert_eq!(one(&mut queues, &pool).0[42..], *b"two");
}

/// Waits by epoll, as a worker does: true if the queue became readable.
pub(crate) fn is_readable(rx: &Rx, timeout_ms: i32) -> bool {
    let mut poll = libc::pollfd { fd: rx.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, timeout_ms) == 1 && poll.revents & libc::POLLIN != 0 }
}

#[test]
fn a_queue_is_read_when_it_is_ready_and_asks_for_nothing_when_it_is_empty() {
    let test = "a_queue_is_read_when_it_is_ready_and_asks_for_nothing_when_it_is_empty";
    let Some((node, peer)) = lab(test) else { return };
    let (_control, mut queues) = node.run(|| open_node(1));
    let pool = Pool::new(4);
    let rx = &mut queues[0].rx;
    assert!(rx.has_more(), "nobody has looked yet");
    let nothing = |_| panic!("there is nothing");
    assert_eq!(rx.recv(&pool, 8, nothing), 0);
    assert!(!rx.has_more());
    let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    for _ in 0..3 {
        sender.send_to(b"x", (NODE, VXLAN)).expect("sent");
    }
    assert!(is_readable(rx, 5000));
    assert_eq!(rx.recv(&pool, 8, nothing), 0, "nobody has said that it is ready");
    rx.note_ready();
    assert_eq!(rx.recv(&pool, 2, |packet| assert!(packet.is_ok())), 2);
    assert!(rx.has_more(), "the budget ended it");
    assert_eq!(rx.recv(&pool, 2, |packet| assert!(packet.is_ok())), 1);
    assert!(!rx.has_more());
}

#[test]
fn what_another_program_takes_away_is_put_back() {
    let test = "what_another_program_takes_away_is_put_back";
    let Some((node, peer)) = lab(test) else { return };
    for queues in [1, 2] {
        let (mut control, mut own) = node.run(move || open_node(queues));
        assert_eq!(own.len(), queues);
        let (_peer_control, mut into) = peer.run(open_peer);
        let pool = Pool::new(4);
        let bytes = [ethernet(0x0800), ipv4(17, PEER.octets(), &vxlan(6, &tcp(9000)))].concat();
        let offload = superframe(84, Some(VxlanOver::Ipv4));
        let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
        let mut works = |own: &mut Vec<UplinkQueue>| {
            for queue in own.iter_mut() {
                assert_eq!(queue.tx.send(&mut packet(&pool, &bytes, offload)), Ok(()));
                assert_eq!(one(&mut into, &pool).0.len(), bytes.len());
            }
            sender.send_to(b"back", (NODE, VXLAN)).expect("sent");
            assert_eq!(one(own, &pool).0[42..], *b"back");
        };
        works(&mut own);
        let mut control = node.run(move || {
            assert_eq!(control.settle().expect("an answer"), None);
            ip("link set vswup0 down");
            control
        });
        assert_eq!(own[0].tx.send(&mut packet(&pool, &bytes, offload)), Err(TxError::Refused));
        let mut control = node.run(move || {
            assert_eq!(control.settle().expect("it can be"), Some("its TAP was down"));
            control
        });
        works(&mut own);
        node.run(|| ip("link del vswup0"));
        assert_eq!(own[0].tx.send(&mut packet(&pool, &bytes, offload)), Err(TxError::Gone));
        assert!(received(&mut own, &pool).is_empty());
        let mut control = node.run(move || {
            assert_eq!(control.settle().expect("it can be"), Some("its TAP was removed"));
            control
        });
        works(&mut own);
        let control = node.run(move || {
            assert_eq!(control.settle().expect("an answer"), None);
            detach_all(3);
            let what = Some("a program of tc was detached or replaced");
            assert_eq!(control.settle().expect("it can be"), what);
            assert_eq!(control.settle().expect("an answer"), None);
            control
        });
        works(&mut own);
        drop((control, own));
        node.run(|| {
            let gone = || {
                let mut netlink = netlink::Netlink::open().expect("a socket");
                netlink.link("vswup0").expect("an answer").is_none().then_some(())
            };
            eventually("the TAP ends with its descriptors", gone);
        });
    }
}

/// Detaches the tc programs of the calling thread's namespace, as another program may.
fn detach_all(expected: usize) {
    const TCX_INGRESS: u32 = 46;
    const TCX_EGRESS: u32 = 47;
    let [nic, tap] = ["nic0", "vswup0"].map(|name| link(name).index);
    let hooks = [(nic, TCX_INGRESS), (tap, TCX_INGRESS), (tap, TCX_EGRESS)];
    let detached = hooks.into_iter().filter(|&(ifindex, hook)| detach(ifindex, hook)).count();
    assert_eq!(detached, expected);
}

/// Detaches the only program of a hook; false if it has none.
pub(crate) fn detach(ifindex: u32, hook: u32) -> bool {
    #[repr(C)]
    #[derive(Default)]
    struct Query {
        ifindex: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        program_ids: u64,
        count: u32,
        _padding: u32,
        program_attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    let (mut program_id, mut link_id) = (0_u32, 0_u32);
    let mut query = Query {
        ifindex,
        attach_type: hook,
        program_ids: (&raw mut program_id) as u64,
        count: 1,
        link_ids: (&raw mut link_id) as u64,
        ..Query::default()
    };
    let call = |command: libc::c_long, attributes: *mut libc::c_void, len: usize| {
        // SAFETY: the attributes are as long as told; BPF_PROG_QUERY writes one number
        // each at `program_ids` and `link_ids`.
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes, len) }
    };
    assert_eq!(call(16, (&raw mut query).cast(), size_of::<Query>()), 0, "BPF_PROG_QUERY");
    if query.count == 0 {
        return false;
    }
    let fd = call(30, (&raw mut link_id).cast(), size_of_val(&link_id));
    assert!(fd >= 0, "BPF_LINK_GET_FD_BY_ID");
    let mut of = fd as u32;
    assert_eq!(call(34, (&raw mut of).cast(), size_of_val(&of)), 0, "BPF_LINK_DETACH");
    // SAFETY: opened above, and nobody else's.
    unsafe { libc::close(fd as libc::c_int) };
    true
}

#[test]
fn steering_changes_while_packets_pass() {
    let test = "steering_changes_while_packets_pass";
    let Some((node, peer)) = lab(test) else { return };
    let (mut control, mut queues) = node.run(|| open_node(1));
    let pool = Pool::new(4);
    let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    let other = node.run(|| UdpSocket::bind((NODE, VXLAN + 1)).expect("a socket"));
    other.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    sender.send_to(b"kernel", (NODE, VXLAN + 1)).expect("sent");
    let mut text = [0; 8];
    assert_eq!(other.recv(&mut text).expect("a datagram"), 6);
    let mut changed = steering(NODE, NODE6);
    changed.vxlan_ports = vec![VXLAN + 1];
    control.steer(&changed).expect("the kernel takes it");
    sender.send_to(b"ours", (NODE, VXLAN + 1)).expect("sent");
    assert_eq!(one(&mut queues, &pool).0[42..], *b"ours");
    node.run(|| up("nic0"));
}
