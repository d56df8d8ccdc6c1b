//! The uplink by packet sockets on a veth pair, beside the kernel's own traffic. Needs root.
//!
//! The node has the NIC `nic0`; the peer is an uplink of ours, or the kernel's UDP and TCP. Each way of keeping
//! the kernel from what is ours is met: a link to tc, and a classifier.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use frame::{Checksum, Offload, Pool, VxlanOver};
use netio::pinhole::{TcWish, remove_leftover};
use netio::uplink::{RxError, Tx, TxError, UplinkControl, UplinkKind, UplinkQueue};

use crate::common::{Namespace, eventually, ip, link, skip};
use crate::offload::{
    NODE6, POD, detach, ethernet, ipv4, is_readable, one, packet, received, steering, superframe,
    tcp, vxlan, without_hint, without_offloads,
};
use crate::xsk::{NODE, PEER, VXLAN, lab};

const BOTH: [TcWish; 2] = [TcWish::LinkThenClassifier, TcWish::Classifier];
const PEER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn open(workers: usize, wish: TcWish) -> (UplinkControl, Vec<UplinkQueue>) {
    let nic = link("nic0").index;
    UplinkControl::open_af_packet(nic, workers, &steering(NODE, NODE6), wish).expect("root may")
}

fn open_peer() -> (UplinkControl, Vec<UplinkQueue>) {
    let (nic, wish) = (link("up0").index, TcWish::LinkThenClassifier);
    UplinkControl::open_af_packet(nic, 1, &steering(PEER, PEER6), wish).expect("root may")
}

/// A socket of the peer's kernel that sends to ours.
fn sender(peer: &Namespace) -> UdpSocket {
    let sender = peer.run(|| UdpSocket::bind((PEER, 0)).expect("a socket"));
    sender.connect((NODE, VXLAN)).expect("an address");
    sender.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
    sender
}

/// Whether the node's kernel answers that nobody has the port.
fn is_refused(sender: &UdpSocket) -> bool {
    sender.recv(&mut [0; 8]).expect_err("nobody sends").kind() == ErrorKind::ConnectionRefused
}

fn tc(arguments: &str) -> String {
    let output = Command::new("tc").args(arguments.split(' ')).output().expect("iproute2 is there");
    assert!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn superframes_without_a_tunnel_cross_whole() {
    let Some((node, peer)) = lab("superframes_without_a_tunnel_cross_whole") else { return };
    let (control, mut out) = node.run(|| open(1, TcWish::LinkThenClassifier));
    let (_peer_control, mut into) = peer.run(open_peer);
    assert_eq!(control.kind(), UplinkKind::AfPacket);
    let choices = control.choices();
    let begin = "1 packet socket(s), and a program of tc that drops what they take";
    assert!(choices.len() == 1 && choices[0].starts_with(begin), "{choices:?}");
    assert!(control.xdp_mode().is_none() && control.copy_mode().is_none());
    let pool = Pool::new(8);
    let whole = [ethernet(0x0800), ipv4(6, POD, &tcp(60_000))].concat();
    let plain = [ethernet(0x0800), ipv4(17, POD, &[7; 40])].concat();
    // A plain frame before it leaves before it.
    assert_eq!(out[0].tx.send(&mut packet(&pool, &plain, Offload::default())), Ok(()));
    let mut sent = packet(&pool, &whole, superframe(34, None));
    assert_eq!(out[0].tx.send(&mut sent), Ok(()));
    assert_eq!(sent.frame[..], whole);
    let mut arrived = Vec::new();
    eventually("both", || {
        arrived.extend(received(&mut into, &pool));
        (arrived.len() == 2).then_some(())
    });
    assert_eq!(arrived[0], (plain, Offload::default()));
    assert!(arrived[1].0 == whole, "{} bytes, not {}", arrived[1].0.len(), whole.len());
    assert_eq!(without_hint(arrived[1].1), without_hint(superframe(34, None)));
    // Nothing comes back to its sender.
    assert!(received(&mut out, &pool).is_empty());
    let in_vxlan = [ethernet(0x0800), ipv4(17, PEER.octets(), &vxlan(6, &tcp(9000)))].concat();
    let mut tunnelled = packet(&pool, &in_vxlan, superframe(84, Some(VxlanOver::Ipv4)));
    assert_eq!(out[0].tx.send(&mut tunnelled), Err(TxError::Unfinished));
}

#[test]
fn a_link_without_offloads_gets_pieces_with_whole_checksums() {
    let test = "a_link_without_offloads_gets_pieces_with_whole_checksums";
    let Some((node, peer)) = lab(test) else { return };
    node.run(without_offloads);
    let (_control, mut out) = node.run(|| open(1, TcWish::LinkThenClassifier));
    let (_peer_control, mut into) = peer.run(open_peer);
    let pool = Pool::new(8);
    let whole = [ethernet(0x0800), ipv4(6, POD, &tcp(2000))].concat();
    assert_eq!(out[0].tx.send(&mut packet(&pool, &whole, superframe(34, None))), Ok(()));
    let mut pieces = Vec::new();
    eventually("two pieces", || {
        pieces.extend(received(&mut into, &pool));
        (pieces.len() == 2).then_some(())
    });
    for ((piece, offload), payload) in pieces.iter().zip([1390, 610]) {
        assert_eq!((piece.len(), *offload), (54 + payload, Offload::default()));
    }
    // Alone, with a checksum that is still to be finished.
    let short = [ethernet(0x0800), ipv4(6, POD, &tcp(100))].concat();
    let partial = Offload { gso: None, ..superframe(34, None) };
    assert_eq!(out[0].tx.send(&mut packet(&pool, &short, partial)), Ok(()));
    let (arrived, offload) = one(&mut into, &pool);
    assert_eq!(offload, Offload::default());
    assert_ne!(arrived[50..52], short[50..52], "the checksum is finished");
}

#[test]
fn a_superframe_in_a_tunnel_arrives_whole() {
    let Some((node, peer)) = lab("a_superframe_in_a_tunnel_arrives_whole") else { return };
    if let Err(error) = node.run(|| tap::tunnelling::create("probe%d", 1)) {
        return skip("a_superframe_in_a_tunnel_arrives_whole", &error.to_string());
    }
    let (_control, mut into) = node.run(|| open(1, TcWish::LinkThenClassifier));
    let (_peer_control, mut out) = peer.run(crate::offload::open_peer);
    let pool = Pool::new(4);
    let bytes = [ethernet(0x0800), ipv4(17, NODE.octets(), &vxlan(6, &tcp(60_000)))].concat();
    let mut sent = packet(&pool, &bytes, superframe(84, Some(VxlanOver::Ipv4)));
    assert_eq!(out[0].tx.send(&mut sent), Ok(()));
    let (arrived, offload) = one(&mut into, &pool);
    assert!(arrived == bytes, "{} bytes, not {}", arrived.len(), bytes.len());
    assert_eq!(without_hint(offload), without_hint(superframe(84, None)));
}

#[test]
fn the_kernel_gets_nothing_of_what_is_ours_and_keeps_the_rest() {
    let test = "the_kernel_gets_nothing_of_what_is_ours_and_keeps_the_rest";
    let Some((node, peer)) = lab(test) else { return };
    let sender = sender(&peer);
    for wish in BOTH {
        let pool = Pool::new(8);
        sender.send(b"nobody").expect("sent");
        assert!(is_refused(&sender), "the kernel has it");
        let (control, mut queues) = node.run(move || open(1, wish));
        sender.send(b"ours").expect("sent");
        let (bytes, offload) = one(&mut queues, &pool);
        assert_eq!(bytes[42..], *b"ours");
        // The sender's kernel left the checksum to a device, and no wire was crossed.
        assert_eq!(offload.checksum, Checksum::Partial { start: 34, offset: 6 });
        assert!(!is_refused(&sender), "{wish:?}");

        let listener = node.run(|| TcpListener::bind((NODE, 0)).expect("a socket"));
        let port = listener.local_addr().expect("bound").port();
        peer.run(move || TcpStream::connect((NODE, port)).expect("connected"));
        // What the node itself sends to such an address is none of it, and neither is a tagged frame.
        node.run(|| {
            ip("route replace 198.18.2.0/24 via 198.51.100.2");
            let own = UdpSocket::bind((NODE, 0)).expect("a socket");
            own.send_to(b"outgoing", (Ipv4Addr::from(POD), 9)).expect("sent");
        });
        let (_peer_control, mut out) = peer.run(open_peer);
        let mut tagged = [ethernet(0x8100), vec![0, 7, 8, 0]].concat();
        tagged.extend(ipv4(17, NODE.octets(), &vxlan(6, &tcp(10))));
        out[0].tx.send_with(tagged.len(), |into| into.copy_from_slice(&tagged)).expect("room");
        out[0].tx.flush().expect("sent");
        sender.send(b"last").expect("sent");
        assert_eq!(one(&mut queues, &pool).0[42..], *b"last");
        drop((control, queues));
    }
    sender.send(b"nobody").expect("sent");
    assert!(is_refused(&sender), "nothing is left behind");
}

#[test]
fn flows_are_spread_over_workers_and_each_keeps_its_own() {
    let test = "flows_are_spread_over_workers_and_each_keeps_its_own";
    let Some((node, peer)) = lab(test) else { return };
    let (control, mut queues) = node.run(|| open(2, TcWish::LinkThenClassifier));
    assert_eq!(queues.iter().map(|queue| queue.number).collect::<Vec<_>>(), [0, 1]);
    let pool = Pool::new(512);
    let senders: Vec<_> = (0..16).map(|_| sender(&peer)).collect();
    for number in 0..10_u8 {
        senders.iter().for_each(|sender| assert_eq!(sender.send(&[number]).expect("sent"), 1));
    }
    let mut seen: BTreeMap<[u8; 2], (u32, Vec<u8>)> = BTreeMap::new();
    let mut count = 0;
    eventually("all", || {
        for queue in &mut queues {
            let number = queue.number;
            for (bytes, _) in received(std::slice::from_mut(queue), &pool) {
                let flow = seen.entry([bytes[34], bytes[35]]).or_insert((number, Vec::new()));
                assert_eq!(flow.0, number, "a flow has one worker");
                flow.1.push(bytes[42]);
                count += 1;
            }
        }
        (count == 160).then_some(())
    });
    assert!(seen.values().all(|(_, numbers)| numbers.iter().copied().eq(0..10)), "in order, once");
    assert!(seen.values().any(|(worker, _)| *worker == 0));
    assert!(seen.values().any(|(worker, _)| *worker == 1));
    // One more way to send is of no worker's.
    let mut extra = node.run(move || control.extra_tx().expect("root may"));
    assert!(matches!(extra, Tx::AfPacket(_)));
    let receiver = peer.run(|| UdpSocket::bind((PEER, 9)).expect("a socket"));
    receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    let datagram = [&[0, 9, 0, 9, 0, 11, 0, 0][..], b"off"].concat();
    let mut bytes = [ethernet(0x0800), ipv4(17, PEER.octets(), &datagram)].concat();
    bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    assert_eq!(extra.send(&mut packet(&pool, &bytes, Offload::default())), Ok(()));
    assert_eq!(extra.pending(), 1);
    extra.flush().expect("sent");
    let mut text = [0; 8];
    assert_eq!(receiver.recv(&mut text).expect("a datagram"), 3);
}

#[test]
fn what_a_late_worker_loses_is_counted() {
    let Some((node, peer)) = lab("what_a_late_worker_loses_is_counted") else { return };
    let (control, mut queues) = node.run(|| open(1, TcWish::LinkThenClassifier));
    let lost = || control.statistics().expect("an answer")[0].1.rx_ring_full;
    assert_eq!(lost(), 0);
    let sender = sender(&peer);
    for _ in 0..20_000 {
        sender.send(b"burst").expect("sent");
    }
    let counted = lost();
    assert!(counted > 0);
    assert_eq!(lost(), counted, "what was told is not forgotten");
    let pool = Pool::new(64);
    let mut arrived = 0;
    while queues[0].rx.has_more() {
        queues[0].rx.recv(&pool, 64, |packet| arrived += u64::from(packet.is_ok()));
    }
    assert_eq!(arrived + counted, 20_000);
}

#[test]
fn a_socket_is_asked_when_it_is_ready_and_counts_what_has_no_frame() {
    let test = "a_socket_is_asked_when_it_is_ready_and_counts_what_has_no_frame";
    let Some((node, peer)) = lab(test) else { return };
    let (_control, mut queues) = node.run(|| open(1, TcWish::LinkThenClassifier));
    let rx = &mut queues[0].rx;
    let pool = Pool::new(2);
    let nothing = |_| panic!("there is nothing");
    assert!(rx.has_more(), "nobody has looked yet");
    assert_eq!(rx.recv(&pool, 8, nothing), 0);
    assert!(!rx.has_more());
    let sender = sender(&peer);
    for _ in 0..3 {
        sender.send(b"x").expect("sent");
    }
    assert!(is_readable(rx, 5000));
    assert_eq!(rx.recv(&pool, 8, nothing), 0, "nobody has said that it is ready");
    rx.note_ready();
    let mut held = Vec::new();
    rx.recv(&pool, 2, |packet| held.push(packet.expect("a frame is free")));
    assert_eq!(held.len(), 2);
    assert!(rx.has_more(), "the budget ended it");
    let mut lost = Vec::new();
    assert_eq!(rx.recv(&pool, 2, |packet| lost.push(packet.err())), 1);
    assert_eq!(lost, [Some(RxError::NoFrame)]);
    assert!(!rx.has_more());
    assert_eq!(pool.available(), 0);
    held.clear();
    assert_eq!(pool.available(), 2);
}

#[test]
fn what_another_program_takes_away_is_put_back() {
    let test = "what_another_program_takes_away_is_put_back";
    let Some((node, peer)) = lab(test) else { return };
    let sender = sender(&peer);
    let what = Some("it was detached or replaced");
    for wish in BOTH {
        let (control, queues) = node.run(move || open(1, wish));
        let control = node.run(move || {
            let mut control = control;
            assert_eq!(control.settle().expect("an answer"), None);
            let is_classifier = control.choices()[0].contains("by a classifier");
            assert!(is_classifier || wish == TcWish::LinkThenClassifier);
            if is_classifier {
                tc("qdisc del dev nic0 clsact");
            } else {
                assert!(detach(link("nic0").index, 46));
            }
            control
        });
        sender.send(b"answered").expect("sent");
        assert!(is_refused(&sender), "{wish:?}");
        let control = node.run(move || {
            let mut control = control;
            assert_eq!(control.settle().expect("it can be"), what);
            assert_eq!(control.settle().expect("an answer"), None);
            control
        });
        sender.send(b"ours").expect("sent");
        assert!(!is_refused(&sender), "{wish:?}");
        node.run(move || drop((control, queues)));
    }
    node.run(|| assert!(!tc("filter show dev nic0 ingress").contains("vswitch_pinhole")));
}

#[test]
fn a_nic_that_was_down_is_used_again_and_keeps_nobody_awake() {
    let test = "a_nic_that_was_down_is_used_again_and_keeps_nobody_awake";
    let Some((node, peer)) = lab(test) else { return };
    let (_control, mut queues) = node.run(|| open(1, TcWish::LinkThenClassifier));
    let pool = Pool::new(4);
    let sender = sender(&peer);
    let bytes = [ethernet(0x0800), ipv4(17, PEER.octets(), &[0; 40])].concat();
    node.run(|| ip("link set nic0 down"));
    let tx = &mut queues[0].tx;
    assert_eq!(tx.send(&mut packet(&pool, &bytes, Offload::default())), Ok(()));
    assert!(tx.flush().is_err());
    assert_eq!(tx.pending(), 0);
    let whole = [ethernet(0x0800), ipv4(6, POD, &tcp(9000))].concat();
    let sent = tx.send(&mut packet(&pool, &whole, superframe(34, None)));
    assert_eq!(sent, Err(TxError::Refused));
    node.run(|| ip("link set nic0 up"));
    node.run(|| eventually("carrier", || link("nic0").carrier.then_some(())));
    eventually("the peer's carrier", || peer.run(|| link("up0").carrier).then_some(()));
    sender.send(b"again").expect("sent");
    assert_eq!(one(&mut queues, &pool).0[42..], *b"again");
    let tx = &mut queues[0].tx;
    assert_eq!(tx.send(&mut packet(&pool, &bytes, Offload::default())), Ok(()));
    assert!(tx.flush().is_ok());
    node.run(|| ip("link del nic0"));
    assert_eq!(tx.send(&mut packet(&pool, &whole, superframe(34, None))), Err(TxError::Gone));
    assert!(received(&mut queues, &pool).is_empty());
}

#[test]
fn what_a_killed_daemon_left_on_a_classifier_is_removed() {
    let test = "what_a_killed_daemon_left_on_a_classifier_is_removed";
    let Some((node, peer)) = lab(test) else { return };
    let sender = sender(&peer);
    node.run(|| {
        let (control, queues) = open(1, TcWish::Classifier);
        drop(queues);
        // As if nobody were there any more to remove it.
        std::mem::forget(control);
    });
    sender.send(b"dropped").expect("sent");
    assert!(!is_refused(&sender), "the kernel keeps the program");
    node.run(|| remove_leftover(link("nic0").index));
    sender.send(b"nobody").expect("sent");
    assert!(is_refused(&sender), "the kernel has its port again");
    // Of what is not there nothing is removed.
    node.run(|| remove_leftover(link("nic0").index));
}

#[test]
fn steering_changes_while_packets_pass() {
    let Some((node, peer)) = lab("steering_changes_while_packets_pass") else { return };
    let sender = sender(&peer);
    for wish in BOTH {
        let (control, mut queues) = node.run(move || open(1, wish));
        let pool = Pool::new(4);
        let control = node.run(move || {
            let mut control = control;
            let mut other = steering(NODE, NODE6);
            other.vxlan_ports = vec![VXLAN + 1];
            control.steer(&other).expect("the kernel takes it");
            control
        });
        sender.send(b"kernel").expect("sent");
        assert!(is_refused(&sender), "{wish:?}");
        assert!(received(&mut queues, &pool).is_empty());
        sender.send_to(b"ours", (NODE, VXLAN + 1)).expect("sent");
        assert_eq!(one(&mut queues, &pool).0[42..], *b"ours");
        assert!(!is_refused(&sender), "{wish:?}");
        node.run(move || drop((control, queues)));
    }
}
