//! Uplinks on a veth pair: a kind as it is opened, and a transmit handle without a queue. Needs root.
//!
//! The node has the NIC `nic0`; the peer plays the underlay with the kernel's UDP.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use frame::{Checksum, Offload, Packet, Pool};
use netio::Error;
use netio::pinhole::{AttachWish, PinholeFilter};
use netio::uplink::{
    RxError, SendBy, Tx, TxError, UplinkConfig, UplinkControl, UplinkKind, UplinkQueue,
};
use netio::xsk::MAX_FRAME_BYTES;

use crate::common::{Namespace, eventually, ip, link, up};
use crate::xsk::{NODE, PEER, VXLAN, datagram, lab};

fn open() -> (UplinkControl, Vec<UplinkQueue>) {
    open_to_send_by(SendBy::AfXdp)
}

pub(crate) fn open_to_send_by(send_by: SendBy) -> (UplinkControl, Vec<UplinkQueue>) {
    let steering = PinholeFilter {
        local: vec![NODE.into()],
        vxlan_ports: vec![VXLAN],
        ..PinholeFilter::default()
    };
    let config = UplinkConfig {
        interface: "nic0",
        ifindex: link("nic0").index,
        queues: 2,
        attach: AttachWish::default(),
        zero_copy: false,
        send_by,
    };
    UplinkControl::open_af_xdp(&config, &steering).expect("the NIC is free")
}

/// An uplink with a transmit handle beside the queues.
fn open_with_extra() -> (UplinkControl, Vec<UplinkQueue>, Tx) {
    let (control, queues) = open();
    let extra = control.extra_tx().expect("root may");
    (control, queues, extra)
}

pub(crate) fn send(tx: &mut Tx, frame: &[u8]) -> Result<(), TxError> {
    tx.send_with(frame.len(), |buffer| buffer.copy_from_slice(frame))
}

fn receiver(peer: &Namespace) -> (UdpSocket, u16) {
    let receiver = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    let port = receiver.local_addr().expect("bound").port();
    (receiver, port)
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
fn what_queues_lost_is_read_beside_their_worker() {
    let Some((node, peer)) = lab("what_queues_lost_is_read_beside_their_worker") else { return };
    let (control, queues) = node.run(open);
    let lost = || -> u64 {
        let read = control.statistics().expect("an answer");
        assert_eq!(read.iter().map(|(queue, _)| *queue).collect::<Vec<_>>(), [0, 1]);
        read.iter().map(|(_, lost)| lost.rx_dropped + lost.rx_ring_full).sum()
    };
    assert_eq!(lost(), 0);
    let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    // More than both rings hold, which nobody reads.
    for _ in 0..6000 {
        sender.send_to(b"burst", (NODE, VXLAN)).expect("sent");
    }
    eventually("the loss", || (lost() > 0).then_some(()));
    drop(queues);
}

#[test]
fn without_a_queue_frames_arrive_all_and_in_order() {
    let test = "without_a_queue_frames_arrive_all_and_in_order";
    let Some((node, peer)) = lab(test) else { return };
    let (_control, mut queues, mut tx) = node.run(open_with_extra);
    assert_eq!(tx.kind().to_string(), "af_packet");
    let (receiver, port) = receiver(&peer);
    // More than one call sends, less than the receiver's socket holds.
    for burst in 0..20_u32 {
        for number in 0..150_u32 {
            let frame = datagram(port, &[burst.to_be_bytes(), number.to_be_bytes()].concat());
            send(&mut tx, &frame).expect("room");
        }
        assert_eq!(tx.pending(), 150);
        eventually("room in the kernel", || {
            tx.flush().expect("the device is there");
            (tx.pending() == 0).then_some(())
        });
        for number in 0..150_u32 {
            let mut payload = [0; 16];
            let len = receiver.recv(&mut payload).expect("a datagram");
            assert_eq!(payload[..len], [burst.to_be_bytes(), number.to_be_bytes()].concat());
        }
    }
    // The queues have their owner's, and nothing else.
    let pool = Pool::new(4);
    let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    sender.send_to(b"in", (NODE, VXLAN)).expect("sent");
    let mut received = Vec::new();
    eventually("a packet", || {
        for queue in &mut queues {
            queue.rx.recv(&pool, 64, |packet| received.push(packet.expect("a frame is free")));
        }
        (!received.is_empty()).then_some(())
    });
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].frame[42..], *b"in");
}

#[test]
fn without_zero_copy_packet_sockets_send() {
    let Some((node, peer)) = lab("without_zero_copy_packet_sockets_send") else { return };
    let (control, mut queues, mut extra) = node.run(|| {
        let (control, queues) = open_to_send_by(SendBy::Auto);
        let extra = control.extra_tx().expect("root may");
        (control, queues, extra)
    });
    assert_eq!((control.kind(), control.sends_by_packet_sockets()), (UplinkKind::AfXdp, true));
    let choices = control.choices();
    let told = "sends by packet sockets, as AF_XDP would copy and send frame by frame";
    assert_eq!(choices[3], told, "{choices:?}");
    let (receiver, port) = receiver(&peer);
    let queues = queues.iter_mut().map(|queue| &mut queue.tx);
    for (number, tx) in queues.chain([&mut extra]).enumerate() {
        assert_eq!(tx.kind(), UplinkKind::AfPacket);
        send(tx, &datagram(port, &[number as u8])).expect("room");
        tx.flush().expect("the device is there");
        let mut payload = [0; 16];
        assert_eq!(receiver.recv(&mut payload).expect("a datagram"), 1);
        assert_eq!(usize::from(payload[0]), number);
    }
}

#[test]
fn what_no_kind_can_send_is_refused_before_it_is_written() {
    let test = "what_no_kind_can_send_is_refused_before_it_is_written";
    let Some((node, _peer)) = lab(test) else { return };
    let (_control, queues, extra) = node.run(open_with_extra);
    let pool = Pool::new(1);
    let mut packet = Packet::plain(pool.alloc().expect("free"));
    packet.frame.extend_from_slice(&datagram(9, b"x")).expect("room");
    packet.offload.checksum = Checksum::Partial { start: 34, offset: 6 };
    let never = |_: &mut [u8]| panic!("there is nothing to write to");
    for mut tx in queues.into_iter().map(|queue| queue.tx).chain([extra]) {
        assert_eq!(tx.send_with(MAX_FRAME_BYTES + 1, never), Err(TxError::TooLong));
        assert_eq!(tx.send_with(13, never), Err(TxError::TooShort));
        assert_eq!(tx.send(&mut packet), Err(TxError::Unfinished), "{}", tx.kind());
        assert_eq!(tx.pending(), 0);
        let mut finished = Packet { offload: Offload::default(), ..packet };
        assert_eq!(tx.send(&mut finished), Ok(()), "{}", tx.kind());
        packet.frame = finished.frame;
    }
}

#[test]
fn without_a_queue_too_a_full_memory_says_so_and_recovers() {
    let test = "without_a_queue_too_a_full_memory_says_so_and_recovers";
    let Some((node, peer)) = lab(test) else { return };
    let (_control, _queues, mut tx) = node.run(open_with_extra);
    let (_receiver, port) = receiver(&peer);
    let frame = datagram(port, b"x");
    let mut queued = 0;
    while send(&mut tx, &frame).is_ok() {
        queued += 1;
    }
    assert_eq!(send(&mut tx, &frame), Err(TxError::Full));
    assert_eq!(tx.pending(), queued);
    eventually("room", || {
        tx.flush().expect("the device is there");
        (tx.pending() == 0).then_some(())
    });
    assert_eq!(send(&mut tx, &frame), Ok(()));
}

#[test]
fn a_frame_that_the_nic_refuses_does_not_hold_up_the_next() {
    let test = "a_frame_that_the_nic_refuses_does_not_hold_up_the_next";
    let Some((node, peer)) = lab(test) else { return };
    let (_control, _queues, mut tx) = node.run(open_with_extra);
    let (receiver, port) = receiver(&peer);
    send(&mut tx, &datagram(port, b"before")).expect("room");
    send(&mut tx, &datagram(port, &[0; 2000])).expect("no longer than a slot");
    send(&mut tx, &datagram(port, b"after")).expect("room");
    let refused = tx.flush().expect_err("the MTU is 1,500");
    assert!(matches!(refused, Error::PacketSocket { .. }), "{refused}");
    assert_eq!(tx.pending(), 0);
    for expected in [&b"before"[..], b"after"] {
        let mut payload = [0; 16];
        let len = receiver.recv(&mut payload).expect("a datagram");
        assert_eq!(payload[..len], *expected);
    }

    // A NIC that is down keeps its frames.
    node.run(|| ip("link set nic0 down"));
    send(&mut tx, &datagram(port, b"waits")).expect("room");
    tx.flush().expect_err("the NIC is down");
    assert_eq!(tx.pending(), 1);
    node.run(|| up("nic0"));
    node.run(|| {
        let peer_mac = "02:00:00:00:00:02";
        ip(&format!("neigh replace {PEER} lladdr {peer_mac} dev nic0"));
        eventually("carrier", || link("nic0").carrier.then_some(()))
    });
    tx.flush().expect("it is up");
    assert_eq!(tx.pending(), 0);
    let mut payload = [0; 16];
    let len = receiver.recv(&mut payload).expect("a datagram");
    assert_eq!(payload[..len], *b"waits");

    node.run(|| ip("link del nic0"));
    send(&mut tx, &datagram(port, b"x")).expect("room");
    tx.flush().expect_err("the NIC is gone");
}
