//! Ports over socketpairs: no privileges.

use std::fs::File;
use std::io::Write;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use frame::{Checksum, Gso, GsoKind, Offload, Packet, Pool};

use super::{PortFd, PortFdKind, Recv, SendError};
use crate::Error;

fn packet(pool: &Pool, bytes: &[u8]) -> Packet {
    let mut packet = Packet::plain(pool.alloc().expect("a frame is free"));
    packet.frame.extend_from_slice(bytes).expect("room");
    packet
}

#[test]
fn a_superframe_crosses_with_its_offload() {
    let pool = Pool::new(2);
    let (a, b) = PortFd::pair().expect("socketpair");
    assert_eq!(a.kind(), PortFdKind::Seqpacket);
    let mut sent = packet(&pool, &[0x5a; 65_000]);
    sent.offload = Offload {
        checksum: Checksum::Partial { start: 34, offset: 16 },
        gso: Some(Gso {
            kind: GsoKind::Tcp4 { ecn: false },
            size: 1448,
            header_len: 66,
            vxlan: None,
        }),
    };
    let mut received = packet(&pool, b"stale");
    assert_eq!(b.recv(&mut received), Recv::WouldBlock);
    a.send(&mut sent).expect("room in the socket");
    assert_eq!(b.recv(&mut received), Recv::Packet);
    assert_eq!(received.offload, sent.offload);
    assert_eq!(received.frame[..], sent.frame[..]);
    assert_eq!(received.frame.len(), 65_000);
}

#[test]
fn malformed_messages_are_taken_and_refused() {
    let pool = Pool::new(1);
    let (a, b) = PortFd::pair().expect("socketpair");
    let mut raw = File::from(OwnedFd::from(a));
    let mut with_bad_gso = [0; 112];
    with_bad_gso[..2].copy_from_slice(&[1, 0x7f]);
    for (what, bytes) in [
        ("shorter than the header", &[0; 11][..]),
        ("a runt", &[0; 25]),
        ("an unknown gso type", &with_bad_gso),
        ("longer than a frame", &[0; 66_000]),
    ] {
        raw.write_all(bytes).expect("room in the socket");
        let mut into = packet(&pool, b"");
        assert_eq!(b.recv(&mut into), Recv::Malformed, "{what}");
        assert!(into.frame.is_empty(), "{what}");
        assert_eq!(b.recv(&mut into), Recv::WouldBlock, "{what}");
    }
}

#[test]
fn a_closed_other_end_is_gone_in_both_directions() {
    let pool = Pool::new(1);
    let (a, b) = PortFd::pair().expect("socketpair");
    drop(a);
    let mut one = packet(&pool, &[0; 60]);
    assert_eq!(b.send(&mut one), Err(SendError::Gone));
    assert_eq!(b.recv(&mut one), Recv::Gone);
}

#[test]
fn a_full_queue_blocks_and_loses_nothing() {
    let pool = Pool::new(1);
    let (a, b) = PortFd::pair().expect("socketpair");
    let mut one = packet(&pool, &[7; 60]);
    let mut sent = 0;
    let refusal = loop {
        match a.send(&mut one) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refusal, SendError::WouldBlock);
    assert_eq!(one.frame[..], [7; 60], "the packet is unchanged");
    let received = std::iter::repeat_with(|| b.recv(&mut one)).take_while(|r| *r == Recv::Packet);
    assert_eq!(received.count(), sent);
}

#[test]
fn a_runt_is_never_written() {
    let pool = Pool::new(1);
    let (a, b) = PortFd::pair().expect("socketpair");
    let mut one = packet(&pool, &[0; 13]);
    assert_eq!(a.send(&mut one), Err(SendError::Refused));
    assert_eq!(b.recv(&mut one), Recv::WouldBlock);
}

#[test]
fn fds_that_are_no_port_are_refused_with_a_reason() {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a loopback socket");
    let regular = tempfile();
    let null = File::open("/dev/null").expect("there is one");
    for fd in [OwnedFd::from(udp), regular.into(), null.into()] {
        let refused = PortFd::adopt(fd).expect_err("no port");
        assert!(matches!(refused, Error::NotAPort { .. }), "{refused}");
    }
}

#[test]
fn impossible_names_are_refused_before_the_kernel_is_asked() {
    for name in ["", "name-of-16-bytes", "a b"] {
        assert!(
            matches!(PortFd::create_tap(name), Err(Error::Tap(tap::Error::Name { .. }))),
            "{name:?}"
        );
    }
}

/// An unnamed regular file.
fn tempfile() -> File {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(std::env::temp_dir())
        .expect("the temporary directory takes unnamed files")
}
