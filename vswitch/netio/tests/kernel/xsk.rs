//! AF_XDP through the pinhole on a veth pair, beside the kernel's own traffic. Needs root.
//!
//! The node has the NIC `nic0` with two queues and the sockets; the peer plays the underlay with
//! the kernel's UDP and TCP.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::common::{Namespace, eventually, ip, link, skip};
use netio::Error;
use netio::pinhole::{AttachWish, Pinhole, PinholeFilter};
use netio::uplink::TxError;
use netio::xsk::{MAX_FRAME_BYTES, XskConfig, XskMode, XskSocket, XskStatistics};
use netlink::Netlink;

pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const VXLAN: u16 = 4789;
const SMALL: XskConfig = XskConfig { rx_frames: 512, tx_frames: 512, zero_copy: false };

fn host(name: &str, address: Ipv4Addr, mac: [u8; 6], neighbor: (Ipv4Addr, [u8; 6])) {
    let mut netlink = Netlink::open().expect("a socket");
    let index = link(name).index;
    netlink.set_mac(index, mac).expect("unicast");
    netlink.set_up(index).expect("up");
    netlink.add_address(index, (address.into(), 24)).expect("added");
    netlink.replace_neighbor(index, neighbor.0.into(), neighbor.1).expect("set");
}

/// Node and peer, connected; `None`, with a message, if that cannot be.
pub(crate) fn lab(test: &str) -> Option<(Namespace, Namespace)> {
    let node = Namespace::new(test)?;
    let peer = Namespace::new(test)?;
    // SAFETY: three integers; the fd is closed below.
    let probe = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if probe < 0 {
        skip(test, &format!("no AF_XDP: {}", std::io::Error::last_os_error()));
        return None;
    }
    // SAFETY: opened above, and nobody else's.
    unsafe { libc::close(probe) };
    let peer_id = peer.id();
    node.run(move || {
        let queues = "numrxqueues 2 numtxqueues 2";
        ip(&format!("link add nic0 {queues} type veth peer name up0 {queues} netns {peer_id}"));
        host("nic0", NODE, NODE_MAC, (PEER, PEER_MAC));
    });
    peer.run(|| host("up0", PEER, PEER_MAC, (NODE, NODE_MAC)));
    node.run(|| eventually("carrier", || link("nic0").carrier.then_some(())));
    Some((node, peer))
}

struct Uplink {
    sockets: Vec<XskSocket>,
    pinhole: Pinhole,
}

fn open(config: XskConfig) -> Uplink {
    let steering = PinholeFilter {
        local: vec![NODE.into()],
        vxlan_ports: vec![VXLAN],
        ..PinholeFilter::default()
    };
    let pinhole =
        Pinhole::attach(link("nic0").index, 2, &steering, AttachWish::default()).expect("attached");
    let sockets = (0..2)
        .map(|queue| XskSocket::open("nic0", queue, &config, pinhole.xsk_map()).expect("free"))
        .collect();
    Uplink { sockets, pinhole }
}

impl Uplink {
    /// Frames from all queues.
    fn recv(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for socket in &mut self.sockets {
            socket.rx.recv(64, |bytes| frames.push(bytes.to_vec()));
        }
        frames
    }

    fn assert_faultless(&self) {
        for socket in &self.sockets {
            assert_eq!(socket.ring_violations(), 0);
            let statistics = socket.statistics().expect("an answer");
            let counts_of_empty_looks = XskStatistics {
                tx_ring_empty: statistics.tx_ring_empty,
                ..XskStatistics::default()
            };
            assert_eq!(statistics, counts_of_empty_looks);
        }
    }
}

/// A UDP datagram to the peer's port, without a checksum, as VXLAN's outer header may be.
pub(crate) fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_len = 8 + payload.len() as u16;
    let mut header = vec![0x45, 0];
    header.extend((20 + udp_len).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    header.extend(NODE.octets());
    header.extend(PEER.octets());
    let sum = header
        .chunks(2)
        .fold(0_u32, |sum, word| sum + u32::from(u16::from_be_bytes([word[0], word[1]])));
    let folded = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    let mut frame = [&PEER_MAC[..], &NODE_MAC, &[8, 0], &header].concat();
    frame.extend(VXLAN.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// A TCP connection from the peer to the NIC's own address, there and back.
fn tcp_works(node: &Namespace, peer: &Namespace) {
    let (listener, port) = node.run(|| {
        let listener = TcpListener::bind((NODE, 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        (listener, port)
    });
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).expect("four bytes");
        stream.write_all(&bytes).expect("sent");
    });
    peer.run(move || {
        let to = SocketAddrV4::new(NODE, port).into();
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("accepted");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        stream.write_all(b"ssh?").expect("sent");
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).expect("echoed");
        assert_eq!(&bytes, b"ssh?");
    });
    echo.join().expect("the echo ends");
}

fn ping_works(peer: &Namespace) {
    peer.run(|| {
        let output = std::process::Command::new("ping")
            .args(["-c", "1", "-W", "5", &IpAddr::from(NODE).to_string()])
            .output()
            .expect("ping is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    });
}

#[test]
fn tunnel_packets_come_here_and_the_node_keeps_the_rest() {
    let test = "tunnel_packets_come_here_and_the_node_keeps_the_rest";
    let Some((node, peer)) = lab(test) else { return };
    let mut uplink = node.run(|| open(SMALL));
    for socket in &uplink.sockets {
        assert!(matches!(socket.mode(), XskMode::Copy { .. }), "{}", socket.mode());
    }
    let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    for round in 0_u32..100 {
        sender.send_to(&round.to_be_bytes(), (NODE, VXLAN)).expect("sent");
        let frames = eventually("a frame", || {
            let frames = uplink.recv();
            (!frames.is_empty()).then_some(frames)
        });
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0][..12], [NODE_MAC, PEER_MAC].concat());
        assert_eq!(frames[0][42..], round.to_be_bytes());
    }
    ping_works(&peer);
    tcp_works(&node, &peer);
    assert_eq!(uplink.recv(), Vec::<Vec<u8>>::new(), "none of that came here");
    uplink.assert_faultless();

    drop(uplink);
    assert!(!node.run(|| link("nic0").xdp));
    ping_works(&peer);
    tcp_works(&node, &peer);
}

#[test]
fn frames_that_are_sent_arrive_all_and_in_order() {
    let test = "frames_that_are_sent_arrive_all_and_in_order";
    let Some((node, peer)) = lab(test) else { return };
    let mut uplink = node.run(|| open(SMALL));
    let receiver = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    let port = receiver.local_addr().expect("bound").port();
    // More than one sendto sends, less than the receiver's socket holds; again and again, so that
    // every chunk is used several times.
    for burst in 0..20_u32 {
        let tx = &mut uplink.sockets[burst as usize % 2].tx;
        for number in 0..150_u32 {
            let frame = datagram(port, &[burst.to_be_bytes(), number.to_be_bytes()].concat());
            tx.send_with(frame.len(), |buffer| buffer.copy_from_slice(&frame)).expect("room");
        }
        assert_eq!(tx.pending(), 150);
        tx.flush().expect("the device is there");
        assert_eq!(tx.pending(), 0, "one flush sends all");
        for number in 0..150_u32 {
            let mut payload = [0; 16];
            let len = receiver.recv(&mut payload).expect("a datagram");
            let expected = [burst.to_be_bytes(), number.to_be_bytes()].concat();
            assert_eq!(payload[..len], expected);
        }
    }
    uplink.assert_faultless();
}

#[test]
fn a_ring_that_is_full_says_so_and_recovers() {
    let Some((node, _peer)) = lab("a_ring_that_is_full_says_so_and_recovers") else { return };
    let mut uplink = node.run(|| open(XskConfig { tx_frames: 64, ..SMALL }));
    let frame = datagram(9, b"x");
    let tx = &mut uplink.sockets[0].tx;
    let send = |tx: &mut netio::xsk::XskTx| {
        tx.send_with(frame.len(), |buffer| buffer.copy_from_slice(&frame))
    };
    for _ in 0..64 {
        send(tx).expect("room");
    }
    assert_eq!(send(tx), Err(TxError::Full));
    tx.flush().expect("the device is there");
    eventually("a chunk comes back", || send(tx).ok());

    let never = |_: &mut [u8]| panic!("there is nothing to write to");
    assert_eq!(tx.send_with(MAX_FRAME_BYTES + 1, never), Err(TxError::TooLong));
    assert_eq!(tx.send_with(13, never), Err(TxError::TooShort));
    tx.send_with(MAX_FRAME_BYTES, |buffer| {
        assert_eq!(buffer.len(), MAX_FRAME_BYTES);
        buffer.fill(0);
    })
    .expect("the longest fits");
}

#[test]
fn a_burst_beyond_the_ring_is_counted_and_the_ring_goes_on() {
    let test = "a_burst_beyond_the_ring_is_counted_and_the_ring_goes_on";
    let Some((node, peer)) = lab(test) else { return };
    let mut uplink = node.run(|| open(XskConfig { rx_frames: 64, ..SMALL }));
    let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    for _ in 0..1000 {
        sender.send_to(b"burst", (NODE, VXLAN)).expect("sent");
    }
    let lost = |uplink: &Uplink| -> u64 {
        let statistics = uplink.sockets.iter().map(|socket| socket.statistics().expect("told"));
        statistics.map(|s| s.rx_dropped + s.rx_ring_full + s.fill_ring_empty).sum()
    };
    eventually("the loss", || (lost(&uplink) > 0).then_some(()));
    let mut received = 0;
    eventually("the end of the burst", || match uplink.recv().len() {
        0 => Some(()),
        frames => {
            received += frames;
            None
        }
    });
    assert!((64..1000).contains(&received), "{received}");
    for _ in 0..100 {
        sender.send_to(b"after", (NODE, VXLAN)).expect("sent");
        eventually("a frame", || uplink.recv().pop());
    }
    assert!(uplink.sockets.iter().all(|socket| socket.ring_violations() == 0));
}

#[test]
fn epoll_tells_that_a_frame_is_there() {
    let Some((node, peer)) = lab("epoll_tells_that_a_frame_is_there") else { return };
    let mut uplink = node.run(|| open(SMALL));
    let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    let poll = |uplink: &Uplink, timeout_ms| {
        let mut fds: Vec<_> = uplink
            .sockets
            .iter()
            .map(|socket| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        // SAFETY: pointer and length of a live vector.
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) }
    };
    assert_eq!(poll(&uplink, 0), 0);
    sender.send_to(b"wake", (NODE, VXLAN)).expect("sent");
    assert_eq!(poll(&uplink, 5000), 1);
    assert_eq!(uplink.recv().len(), 1);
    assert_eq!(poll(&uplink, 0), 0);
}

#[test]
fn a_queue_that_is_taken_is_refused_and_free_after_the_drop() {
    let test = "a_queue_that_is_taken_is_refused_and_free_after_the_drop";
    let Some((node, _peer)) = lab(test) else { return };
    node.run(|| {
        let mut uplink = open(SMALL);
        let again = |uplink: &Uplink, queue| {
            XskSocket::open("nic0", queue, &SMALL, uplink.pinhole.xsk_map())
        };
        let refused = again(&uplink, 0).expect_err("taken");
        assert!(matches!(refused, Error::XskBusy { queue: 0, .. }), "{refused}");
        for _ in 0..3 {
            uplink.sockets.clear();
            for queue in 0..2 {
                uplink.sockets.push(again(&uplink, queue).expect("free again"));
            }
        }
        assert!(matches!(again(&uplink, 7), Err(Error::XskBind { .. })));
        let absent = XskSocket::open("absent", 0, &SMALL, uplink.pinhole.xsk_map());
        assert!(matches!(absent, Err(Error::NoInterface { .. })), "{absent:?}");
    });
}

#[test]
fn zero_copy_falls_back_with_the_reason() {
    let Some((node, peer)) = lab("zero_copy_falls_back_with_the_reason") else { return };
    let mut uplink = node.run(|| open(XskConfig { zero_copy: true, ..SMALL }));
    let shown = uplink.sockets[0].mode().to_string();
    assert!(shown.starts_with("copy (the driver refuses zero-copy: "), "{shown}");
    let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    sender.send_to(b"works", (NODE, VXLAN)).expect("sent");
    assert_eq!(eventually("a frame", || uplink.recv().pop())[42..], *b"works");
}

#[test]
fn a_nic_that_goes_away_is_an_error_and_no_more() {
    let Some((node, _peer)) = lab("a_nic_that_goes_away_is_an_error_and_no_more") else { return };
    let mut uplink = node.run(|| open(SMALL));
    node.run(|| ip("link del nic0"));
    let frame = datagram(9, b"x");
    assert_eq!(uplink.recv().len(), 0);
    let gone = eventually("an error", || {
        let tx = &mut uplink.sockets[0].tx;
        let _ = tx.send_with(frame.len(), |buffer| buffer.copy_from_slice(&frame));
        tx.flush().err()
    });
    assert!(matches!(gone, Error::Xsk { .. }), "{gone}");
    assert!(uplink.pinhole.update(&PinholeFilter::default()).is_err());
}
