//! Bursts by io_uring and by system calls: the same packets in the same order, and books that close.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dataplane::DropReason;
use dataplane::counters::{Accounting, Counters};
use dataplane::tables::{Epoch, PortId, Tables};
use frame::{Packet, Pool};
use netio::port::{PortFd, Recv};

use super::{PATIENCE, packet_of, spec, state, tables};
use crate::{Command, Confinement, Idle, PortIo, WorkerSpec, Workers};

const WAYS: [PortIo; 3] = [PortIo::IoUring, PortIo::ReadWrite, PortIo::Auto];

/// A burst: more than one batch, and less than a socket takes.
const BURST: u16 = 100;

/// Pods, and a worker that reads and writes their ports one of the ways.
struct Scene {
    published: Arc<ArcSwap<Tables>>,
    workers: Workers,
    pods: Vec<PortFd>,
    pool: Pool,
}

impl Scene {
    fn new(port_io: PortIo, pods: u16) -> Self {
        let published = Arc::new(ArcSwap::from_pointee(tables(1, pods)));
        let spec = WorkerSpec { port_io, ..spec(Idle::Micros(0)) };
        let workers = Workers::spawn(vec![spec], &published, &state(), &Confinement::default())
            .expect("threads can be made");
        let pods = (1..=pods)
            .map(|number| {
                let (ours, theirs) = PortFd::pair().expect("a socketpair");
                workers.add_port(PortId(number), &Arc::new(ours), 0);
                theirs
            })
            .collect();
        assert!(workers.wait_epoch(Epoch(1), PATIENCE));
        Self { published, workers, pods, pool: Pool::new(4) }
    }

    /// A burst of one pod to another. Each packet is a byte longer than the one before.
    fn send(&self, from: u16, to: u16) {
        for number in 0..BURST {
            let mut packet = packet_of(&self.pool, from, to, 60 + number);
            self.pods[usize::from(from) - 1].send(&mut packet).expect("the port takes it");
        }
    }

    /// Lengths of the packets that a pod gets, until it has so many.
    fn received(&self, pod: u16, count: usize) -> Vec<usize> {
        let deadline = Instant::now() + PATIENCE;
        let mut packet = Packet::plain(self.pool.alloc().expect("a frame is free"));
        let mut lengths = Vec::new();
        while lengths.len() < count && Instant::now() < deadline {
            match self.pods[usize::from(pod) - 1].recv(&mut packet) {
                Recv::Packet => lengths.push(packet.frame.len()),
                _ => thread::sleep(Duration::from_millis(1)),
            }
        }
        lengths
    }

    fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.workers.counters()[0])
    }

    fn wait(&self, what: &str, is: impl Fn(&Counters) -> bool) {
        let counters = self.counters();
        for _ in 0..PATIENCE.as_millis() {
            if is(&counters) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("{what}: {:?}", counters.accounting());
    }
}

fn burst() -> Vec<usize> {
    (60..60 + usize::from(BURST)).collect()
}

#[test]
fn bursts_arrive_whole_and_in_order() {
    for way in WAYS {
        let scene = Scene::new(way, 3);
        for round in 1..=4 {
            // Two at once, so that batches have packets for several ports.
            scene.send(1, 2);
            scene.send(2, 3);
            assert_eq!(scene.received(2, BURST.into()), burst(), "{way:?}, round {round}");
            assert_eq!(scene.received(3, BURST.into()), burst(), "{way:?}, round {round}");
            let all = 2 * round * u64::from(BURST);
            let books = Accounting { received: all, made: 0, sent: all, dropped: 0 };
            scene.wait("each is counted", |counters| counters.accounting() == books);
        }
        let sent = scene.counters().port(PortId(2));
        let bytes: usize = burst().iter().sum();
        assert_eq!((sent.tx_packets, sent.tx_bytes), (400, 4 * bytes as u64), "{way:?}");
        scene.workers.stop();
    }
}

#[test]
fn what_a_full_port_refuses_is_counted_and_the_rest_arrives_in_order() {
    for way in WAYS {
        let scene = Scene::new(way, 2);
        // The second pod does not read.
        let full = |counters: &Counters| counters.drops(PortId(1), DropReason::QueueFull) > 0;
        let mut sent = 0;
        for _ in 0..100 {
            scene.send(1, 2);
            sent += u64::from(BURST);
            scene.wait("all are read", |counters| counters.accounting().received == sent);
            if full(&scene.counters()) {
                break;
            }
        }
        let closed = |counters: &Counters| {
            let books = counters.accounting();
            books.received == sent && books.sent + books.dropped == sent
        };
        scene.wait("the books close", closed);
        let books = scene.counters().accounting();
        assert_eq!(scene.counters().drops(PortId(1), DropReason::QueueFull), books.dropped);
        assert!(books.dropped > 0, "{way:?}");
        let lengths = scene.received(2, books.sent as usize);
        assert_eq!(lengths.len() as u64, books.sent, "{way:?}");
        for (number, len) in lengths.iter().take(usize::from(BURST)).enumerate() {
            assert_eq!(*len, 60 + number, "{way:?}");
        }
        scene.workers.stop();
    }
}

#[test]
fn what_goes_to_a_port_that_has_ended_is_counted_and_the_port_reported() {
    for way in WAYS {
        let mut scene = Scene::new(way, 3);
        scene.send(1, 2);
        assert_eq!(scene.received(2, BURST.into()), burst());
        drop(scene.pods.remove(1));
        let scene = scene;
        for _ in 0..2 {
            scene.send(1, 2);
        }
        let (sent, dropped) = (u64::from(BURST), 2 * u64::from(BURST));
        let books = Accounting { received: sent + dropped, made: 0, sent, dropped };
        scene.wait("each is counted", |counters| counters.accounting() == books);
        assert_eq!(scene.counters().drops(PortId(1), DropReason::PortGone), dropped, "{way:?}");
        assert_eq!(scene.workers.gone_ports(), [PortId(2)], "{way:?}");
        scene.workers.stop();
    }
}

#[test]
fn a_port_is_removed_amid_a_burst_and_closed() {
    for way in WAYS {
        let scene = Scene::new(way, 2);
        scene.send(1, 2);
        assert_eq!(scene.received(2, BURST.into()), burst());
        scene.send(1, 2);
        scene.published.store(Arc::new(tables(2, 1)));
        assert!(scene.workers.wait_epoch(Epoch(2), PATIENCE));
        scene.workers.remove_port(PortId(2));
        let mut packet = Packet::plain(scene.pool.alloc().expect("a frame is free"));
        let deadline = Instant::now() + PATIENCE;
        let mut late = 0;
        let gone = loop {
            match scene.pods[1].recv(&mut packet) {
                Recv::Packet => late += 1,
                Recv::Gone => break true,
                _ if Instant::now() > deadline => break false,
                _ => thread::sleep(Duration::from_millis(1)),
            }
        };
        assert!(gone, "{way:?}: no ring, and nothing else, has the port open");
        drop(packet);
        // For packets to an address of nobody their sender gets ICMP errors, which are made here.
        scene.wait("the books close", |counters| {
            let Accounting { received, made, sent, dropped } = counters.accounting();
            received == 2 * u64::from(BURST) && received + made == sent + dropped
        });
        let (of_port, gone) = (scene.counters().port(PortId(2)), scene.counters().gone());
        let sent = of_port.tx_packets + gone.tx_packets;
        assert_eq!(sent, u64::from(BURST) + late, "{way:?}");
        scene.workers.stop();
    }
}

/// A worker has 64 frames, of which those that wait for a rate may have a quarter.
#[test]
fn a_burst_beyond_packet_memory_waits_in_its_port() {
    for way in WAYS {
        let scene = Scene::new(way, 2);
        for _ in 0..2 {
            scene.send(1, 2);
            scene.send(1, 2);
            let twice: Vec<_> = burst().into_iter().chain(burst()).collect();
            assert_eq!(scene.received(2, twice.len()), twice, "{way:?}");
        }
        scene.workers.stop();
    }
}

#[test]
fn a_ring_that_fails_is_done_without() {
    let scene = Scene::new(PortIo::IoUring, 2);
    let port_io = || scene.workers.states()[0].port_io.clone().expect("it was chosen");
    if !port_io().is_ring {
        assert!(port_io().reason.starts_with("io_uring is refused ("), "{}", port_io());
        return scene.workers.stop();
    }
    scene.send(1, 2);
    assert_eq!(scene.received(2, BURST.into()), burst());
    scene.workers.handles[0].send(Command::BreakRing);
    let mut sent = u64::from(BURST);
    for _ in 0..3 {
        scene.send(1, 2);
        sent += u64::from(BURST);
        scene.wait("none is lost sight of", |counters| {
            let books = counters.accounting();
            books.received == sent && books.sent + books.dropped == sent
        });
    }
    let books = scene.counters().accounting();
    assert_eq!(scene.counters().drops(PortId(1), DropReason::QueueFull), books.dropped);
    assert!(books.dropped <= 64, "of one batch at most: {books:?}");
    assert!(!port_io().is_ring);
    assert_eq!(port_io().reason, "io_uring is refused (by order of a test)");
    scene.workers.stop();
}
