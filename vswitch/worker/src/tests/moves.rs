//! Ports that another worker receives from, from one moment to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dataplane::rate::Limit;
use dataplane::tables::{Epoch, Port, PortId};
use frame::{Packet, Pool};
use netio::port::{PortFd, Recv, SendError};

use super::{PATIENCE, packet, packet_of, spec, state, tables};
use crate::{Confinement, Idle, WorkerSpec, Workers};

const SENDER: PortId = PortId(1);
const RECEIVER: PortId = PortId(2);

/// Two workers, and two pods that the first one receives from.
fn two_workers(limit: impl Fn(&mut Port)) -> (Workers, Vec<PortFd>) {
    let mut tables = tables(1, 2);
    tables.ports.iter_mut().flatten().for_each(limit);
    let published = Arc::new(ArcSwap::from_pointee(tables));
    let specs = (0..2).map(|id| WorkerSpec { id, ..spec(Idle::Micros(0)) }).collect();
    let workers = Workers::spawn(specs, &published, &state(), &Confinement::default())
        .expect("threads can be made");
    let pods = [SENDER, RECEIVER].map(|port| {
        let (ours, theirs) = PortFd::pair().expect("a socketpair");
        workers.add_port(port, &Arc::new(ours), 0);
        theirs
    });
    assert!(workers.wait_epoch(Epoch(1), PATIENCE));
    (workers, pods.into())
}

/// Packets that a worker has received from the sending pod.
fn received_by(workers: &Workers, worker: usize) -> u64 {
    workers.counters()[worker].port(SENDER).rx_packets
}

/// The place of a packet's number, behind Ethernet and IPv4.
const NUMBER: std::ops::Range<usize> = 34..38;

#[test]
fn a_flow_stays_in_order_and_whole_while_its_port_moves_to_and_fro() {
    let (workers, pods) = two_workers(|_| ());
    let (sender, receiver) = (&pods[0], &pods[1]);
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let (ends, sent_by) = (
            &ends,
            scope.spawn(|| {
                let pool = Pool::new(1);
                let mut number = 0u32;
                while !ends.load(Ordering::Relaxed) {
                    let mut packet = packet(&pool, 1, 2);
                    packet.frame[NUMBER].copy_from_slice(&number.to_be_bytes());
                    match sender.send(&mut packet) {
                        Ok(()) => number += 1,
                        Err(SendError::WouldBlock) => thread::yield_now(),
                        Err(other) => panic!("{other:?}"),
                    }
                }
                number
            }),
        );
        let arrived = scope.spawn(|| {
            let pool = Pool::new(1);
            let mut packet = Packet::plain(pool.alloc().expect("a frame is free"));
            let mut numbers = Vec::new();
            let mut last = Instant::now();
            while !ends.load(Ordering::Relaxed) || last.elapsed() < Duration::from_millis(200) {
                match receiver.recv(&mut packet) {
                    Recv::Packet => {
                        let number = packet.frame[NUMBER].try_into().expect("four bytes");
                        numbers.push(u32::from_be_bytes(number));
                        last = Instant::now();
                    }
                    _ => thread::yield_now(),
                }
            }
            numbers
        });
        for round in 0..20 {
            let (from, to) = (round % 2, (round + 1) % 2);
            let before = received_by(&workers, to);
            assert!(workers.move_port(SENDER, from, to), "nothing waits for a rate");
            let deadline = Instant::now() + PATIENCE;
            while received_by(&workers, to) < before + 50 {
                assert!(Instant::now() < deadline, "worker {to} receives in round {round}");
                thread::yield_now();
            }
        }
        ends.store(true, Ordering::Relaxed);
        let sent = sent_by.join().expect("no panic");
        let arrived = arrived.join().expect("no panic");
        let full: u64 =
            workers.counters().iter().map(|counters| counters.accounting().dropped).sum();
        // The far side of a socketpair takes few packets; what it does not take is lost, and counted.
        assert_eq!(arrived.len() as u64 + full, u64::from(sent));
        assert!(arrived.is_sorted(), "one overtook another");
    });
    workers.stop();
}

#[test]
fn a_port_that_sends_to_one_with_a_full_rate_is_not_moved_and_goes_on() {
    let (workers, pods) = two_workers(|port| {
        if port.mac == super::pod_mac(2) {
            port.tx_limit = Some(Limit::new(1_000, Some(0)));
        }
    });
    let pool = Pool::new(1);
    for _ in 0..3 {
        pods[0].send(&mut packet_of(&pool, 1, 2, 1250)).expect("the port takes it");
    }
    let deadline = Instant::now() + PATIENCE;
    while received_by(&workers, 0) < 3 {
        assert!(Instant::now() < deadline, "they arrive");
        thread::yield_now();
    }
    assert!(!workers.move_port(SENDER, 0, 1), "two packets wait for seconds");
    pods[0].send(&mut packet(&pool, 1, 2)).expect("the port takes it");
    while received_by(&workers, 0) < 4 {
        assert!(Instant::now() < deadline, "the first worker goes on");
        thread::yield_now();
    }
    assert_eq!(received_by(&workers, 1), 0);
    workers.stop();
}

#[test]
fn a_worker_that_there_is_not_gets_no_port() {
    let (workers, _pods) = two_workers(|_| ());
    assert!(!workers.move_port(SENDER, 0, 2));
    workers.stop();
}
