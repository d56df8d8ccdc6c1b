//! Several queues of a TAP: each flow in one of them, and none that nobody reads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;

use frame::{Packet, Pool};
use netio::port::{PortFd, Recv, spread};
use netlink::{Link, Netlink, TapQueues};

use crate::common::{Namespace, eventually, ip, link, up};

const FLOWS: u16 = 16;
const FIRST_PORT: u16 = 40_000;
const ROUNDS: u8 = 8;

/// A TAP with so many queues, up and with a neighbour to send to.
fn plugged(queues: u8) -> Vec<PortFd> {
    let queues = PortFd::create_tap_with("tap0", queues).expect("a TAP");
    Netlink::open().expect("a socket").set_no_queue(link("tap0").index).expect("set");
    up("tap0");
    ip("addr add 198.18.0.1/24 dev tap0");
    ip("neigh add 198.18.0.2 lladdr 02:00:00:00:00:02 dev tap0");
    queues
}

fn refs(queues: &[PortFd]) -> Vec<&PortFd> {
    queues.iter().collect()
}

/// Sends of each flow a few numbered datagrams, in turn.
fn send_flows() {
    let flow = |number| {
        let socket = UdpSocket::bind(("198.18.0.1", FIRST_PORT + number)).expect("a socket");
        socket.connect("198.18.0.2:7").expect("an address");
        socket
    };
    let flows: Vec<_> = (0..FLOWS).map(flow).collect();
    for round in 0..ROUNDS {
        for flow in &flows {
            flow.send(&[round]).expect("sent");
        }
    }
}

/// What waits in each queue: source ports, and the numbers that came by each.
fn received(queues: &[PortFd]) -> Vec<BTreeMap<u16, Vec<u8>>> {
    let pool = Pool::new(1);
    let mut packet = Packet::plain(pool.alloc().expect("one"));
    let mut of_queue = |queue: &PortFd| {
        let mut flows = BTreeMap::<u16, Vec<u8>>::new();
        while queue.recv(&mut packet) == Recv::Packet {
            let frame = &packet.frame;
            // UDP over IPv4 without options.
            if frame[12..14] == [8, 0] && frame[23] == 17 {
                let port = u16::from_be_bytes([frame[34], frame[35]]);
                flows.entry(port).or_default().push(frame[42]);
            }
        }
        flows
    };
    queues.iter().map(&mut of_queue).collect()
}

#[test]
fn each_flow_has_one_queue_whatever_is_written_and_every_queue_has_flows() {
    let test = "each_flow_has_one_queue_whatever_is_written_and_every_queue_has_flows";
    let Some(pod) = Namespace::new(test) else { return };
    pod.run(|| {
        let queues = plugged(2);
        let spread = spread(&refs(&queues), 2).expect("it is ours");
        assert!(spread.queues == 2 && spread.refusal.is_none(), "{spread:?}");
        let mut places = Vec::new();
        for _ in 0..2 {
            send_flows();
            let received = received(&queues);
            let all = Vec::from_iter(0..ROUNDS);
            assert!(received.iter().flat_map(BTreeMap::values).all(|numbers| *numbers == all));
            assert!(received.iter().all(|flows| !flows.is_empty()), "{received:?}");
            let flows: usize = received.iter().map(BTreeMap::len).sum();
            assert_eq!(flows, usize::from(FLOWS), "a flow came by two queues");
            let flows = received.into_iter().map(BTreeMap::into_keys).map(BTreeSet::from_iter);
            places.push(flows.collect::<Vec<_>>());
            // By the kernel's own choice an answer would move its flow to this queue.
            answer_flows(&queues[0]);
        }
        assert_eq!(places[0], places[1], "flows moved");
    });
}

/// Writes a datagram to each flow by one queue.
fn answer_flows(queue: &PortFd) {
    let pool = Pool::new(1);
    for flow in 0..FLOWS {
        let mut packet = Packet::plain(pool.alloc().expect("one"));
        let udp = [&[0, 7][..], &(FIRST_PORT + flow).to_be_bytes(), &[0, 9, 0, 0, 1]].concat();
        let mut frame = [&[2; 6][..], &[2, 0, 0, 0, 0, 2, 8, 0]].concat();
        frame.extend([0x45, 0, 0, 20 + udp.len() as u8, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([198, 18, 0, 2, 198, 18, 0, 1]);
        frame.extend(udp);
        packet.frame.extend(frame.len()).expect("room").copy_from_slice(&frame);
        assert_eq!(queue.send(&mut packet), Ok(()));
    }
}

#[test]
fn a_queue_that_nobody_reads_is_given_nothing_and_can_be_taken_up_again() {
    let test = "a_queue_that_nobody_reads_is_given_nothing_and_can_be_taken_up_again";
    let Some(pod) = Namespace::new(test) else { return };
    pod.run(|| {
        let queues = plugged(3);
        let shown = || link("tap0").tap_queues.expect("it has several");
        assert_eq!(shown(), TapQueues { attached: 3, detached: 0 });
        for (readers, attached) in [(1, 1), (2, 2), (1, 1), (9, 3)] {
            assert_eq!(spread(&refs(&queues), readers).expect("it is ours").queues, attached);
            let detached = 3 - attached as u32;
            assert_eq!(shown(), TapQueues { attached: attached as u32, detached });
            received(&queues);
            send_flows();
            let received = received(&queues);
            let flows = |from: &[BTreeMap<u16, _>]| from.iter().map(BTreeMap::len).sum::<usize>();
            assert_eq!(flows(&received[..attached]), usize::from(FLOWS), "{readers} readers");
            assert_eq!(flows(&received[attached..]), 0, "{readers} readers");
        }
    });
}

#[test]
fn a_plain_tap_has_one_queue_whoever_would_read_more() {
    let test = "a_plain_tap_has_one_queue_whoever_would_read_more";
    let Some(pod) = Namespace::new(test) else { return };
    pod.run(|| {
        let queues = plugged(1);
        assert!(!queues[0].is_multi_queue());
        assert_eq!(link("tap0").tap_queues, None);
        let spread = spread(&refs(&queues), 4).expect("it is ours");
        assert!(spread.queues == 1 && spread.refusal.is_none());
        assert!(tap::queues::add("tap0").is_err(), "it was made for one");
    });
}

#[test]
fn queues_of_another_device_are_told_apart() {
    let test = "queues_of_another_device_are_told_apart";
    let (Some(one), Some(other)) = (Namespace::new(test), Namespace::new(test)) else { return };
    let here = one.run(|| plugged(2));
    let there = other.run(|| plugged(2));
    assert!(here[0].is_multi_queue() && here[0].is_of_same_device(&here[1]));
    assert!(!here[0].is_of_same_device(&there[0]), "the same name in another namespace");
}

#[test]
fn a_persistent_tap_is_opened_again_with_its_queues() {
    let test = "a_persistent_tap_is_opened_again_with_its_queues";
    let Some(pod) = Namespace::new(test) else { return };
    pod.run(|| {
        let queues = plugged(2);
        queues[0].set_persistent(true).expect("it is ours");
        drop(queues);
        let free = |link: &Link| link.tap_queues == Some(TapQueues::default());
        assert!(free(&link("tap0")));
        let plain = tap::reattach("tap0");
        assert!(plain.is_err(), "its flags do not match");
        let queues: Vec<_> = (0..2)
            .map(|_| PortFd::adopt(tap::queues::add("tap0").expect("a queue")).expect("a port"))
            .collect();
        assert_eq!(spread(&refs(&queues), 2).expect("it is ours").queues, 2);
        // The kernel sends by it once it has noticed the carrier.
        eventually("every flow", || {
            send_flows();
            let flows: usize = received(&queues).iter().map(BTreeMap::len).sum();
            (flows == usize::from(FLOWS)).then_some(())
        });
    });
}
