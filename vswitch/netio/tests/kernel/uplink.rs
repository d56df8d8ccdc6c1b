//! Uplinks on a veth pair. Needs root.
//!
//! The node has the NIC `nic0`; the peer plays the underlay with the kernel's UDP.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use frame::{Checksum, Offload, Packet, Pool};
use netio::pinhole::{AttachWish, Steering};
use netio::uplink::{RxError, TxError, UplinkConfig, UplinkControl, UplinkKind, UplinkQueue};
use netio::xsk::MAX_FRAME_BYTES;

use crate::common::{eventually, link};
use crate::xsk::{NODE, PEER, VXLAN, datagram, lab};

fn open() -> (UplinkControl, Vec<UplinkQueue>) {
    let steering =
        Steering { local: vec![NODE.into()], vxlan_ports: vec![VXLAN], ..Steering::default() };
    let config = UplinkConfig {
        interface: "nic0",
        ifindex: link("nic0").index,
        queues: 2,
        attach: AttachWish::default(),
        zero_copy: false,
    };
    UplinkControl::open(&config, &steering).expect("the NIC is free")
}

#[test]
fn a_kind_names_itself_and_delivers_packets_in_frames() {
    let test = "a_kind_names_itself_and_delivers_packets_in_frames";
    let Some((node, peer)) = lab(test) else { return };
    let (control, mut queues) = node.run(open);
    assert_eq!(control.kind().to_string(), "af_xdp");
    assert_eq!(control.choices()[0], "AF_XDP on 2 queue(s), all that receive");
    assert!(control.xdp_mode().is_some() && control.copy_mode().is_some());
    let numbers: Vec<_> = queues.iter().map(|queue| queue.number).collect();
    assert_eq!(numbers, [0, 1]);
    assert!(queues.iter().all(|queue| queue.tx.kind() == UplinkKind::AfXdp));
    assert_ne!(queues[0].rx.as_raw_fd(), queues[1].rx.as_raw_fd());

    let pool = Pool::new(1);
    let mut recv = || {
        let mut received = Vec::new();
        for queue in &mut queues {
            queue.rx.recv(&pool, 64, |packet| received.push(packet));
        }
        received
    };
    let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    sender.send_to(b"one", (NODE, VXLAN)).expect("sent");
    let mut first = eventually("a packet", || recv().pop()).expect("a frame is free");
    assert_eq!((&first.frame[42..], first.offload), (&b"one"[..], Offload::default()));
    // The only frame is held.
    sender.send_to(b"two", (NODE, VXLAN)).expect("sent");
    assert_eq!(eventually("a loss", || recv().pop()).err(), Some(RxError::NoFrame));
    first.frame.reset();
    drop(first);
    sender.send_to(b"three", (NODE, VXLAN)).expect("sent");
    let third = eventually("a packet", || recv().pop()).expect("a frame is free again");
    assert_eq!(third.frame[42..], *b"three");
}

#[test]
fn what_no_kind_can_send_is_refused_before_it_is_written() {
    let test = "what_no_kind_can_send_is_refused_before_it_is_written";
    let Some((node, _peer)) = lab(test) else { return };
    let (_control, queues) = node.run(open);
    let pool = Pool::new(1);
    let mut packet = Packet::plain(pool.alloc().expect("free"));
    packet.frame.extend_from_slice(&datagram(9, b"x")).expect("room");
    packet.offload.checksum = Checksum::Partial { start: 34, offset: 6 };
    let never = |_: &mut [u8]| panic!("there is nothing to write to");
    for mut tx in queues.into_iter().map(|queue| queue.tx) {
        assert_eq!(tx.send_with(MAX_FRAME_BYTES + 1, never), Err(TxError::TooLong));
        assert_eq!(tx.send_with(13, never), Err(TxError::TooShort));
        assert_eq!(tx.send(&packet), Err(TxError::Unfinished), "{}", tx.kind());
        assert_eq!(tx.pending(), 0);
        let finished = Packet { offload: Offload::default(), ..packet };
        assert_eq!(tx.send(&finished), Ok(()), "{}", tx.kind());
        packet.frame = finished.frame;
    }
}
