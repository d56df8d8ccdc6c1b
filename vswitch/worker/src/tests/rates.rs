//! Ports with a rate. A frame of 1,250 bytes takes 10 ms at 1 Mbit/s and 10 s at 1 kbit/s.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dataplane::DropReason;
use dataplane::counters::{Accounting, Counters};
use dataplane::rate::Limit;
use dataplane::tables::{Epoch, Port, PortId, Tables};
use frame::{Packet, Pool};
use netio::port::{PortFd, Recv};

use super::{PATIENCE, packet_of, spec, state, tables};
use crate::{Confinement, Idle, Workers};

const FRAME: u16 = 1250;

/// Two pods, and a worker that sleeps whenever it may.
struct Scene {
    published: Arc<ArcSwap<Tables>>,
    workers: Workers,
    pods: Vec<PortFd>,
    pool: Pool,
}

impl Scene {
    fn new(limit: impl Fn(&mut Port)) -> Self {
        let mut tables = tables(1, 2);
        for port in tables.ports.iter_mut().flatten() {
            limit(port);
        }
        let published = Arc::new(ArcSwap::from_pointee(tables));
        let workers = Workers::spawn(
            vec![spec(Idle::Micros(0))],
            &published,
            &state(),
            &Confinement::default(),
        )
        .expect("threads can be made");
        let pods = (1..=2)
            .map(|number| {
                let (ours, theirs) = PortFd::pair().expect("a socketpair");
                workers.add_port(PortId(number), &Arc::new(ours), 0);
                theirs
            })
            .collect();
        assert!(workers.wait_epoch(Epoch(1), PATIENCE));
        Self { published, workers, pods, pool: Pool::new(4) }
    }

    /// The first pod sends to the second.
    fn send(&self, count: u16) {
        for _ in 0..count {
            let mut packet = packet_of(&self.pool, 1, 2, FRAME);
            self.pods[0].send(&mut packet).expect("the port takes it");
        }
    }

    /// Frames that the second pod gets, until it got so many or patience is over for all of them.
    fn received(&self, most: usize) -> usize {
        let deadline = Instant::now() + PATIENCE;
        let mut packet = Packet::plain(self.pool.alloc().expect("a frame is free"));
        let mut count = 0;
        while count < most && Instant::now() < deadline {
            match self.pods[1].recv(&mut packet) {
                Recv::Packet => count += 1,
                _ => thread::sleep(Duration::from_millis(1)),
            }
        }
        count
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

/// Were it not for the deadline, a sleeping worker would read two frames a second.
#[test]
fn what_a_pod_sends_beyond_its_rate_waits_and_is_not_lost() {
    let scene = Scene::new(|port| port.rx_limit = Some(Limit::new(1_000_000, Some(0))));
    scene.send(40);
    assert_eq!(scene.received(40), 40);
    let counters = scene.counters();
    assert!(counters.port(PortId(1)).rx_delayed > 0);
    // The worker counts a packet when it has written it, so that it may have arrived before.
    let all = Accounting { received: 40, made: 0, sent: 40, dropped: 0 };
    scene.wait("each is counted", |counters| counters.accounting() == all);
    scene.workers.stop();
}

#[test]
fn what_waits_for_a_pod_is_sent_when_no_packet_wakes_the_worker() {
    let scene = Scene::new(|port| {
        if port.mac == super::pod_mac(2) {
            port.tx_limit = Some(Limit::new(1_000_000, Some(0)));
        }
    });
    scene.send(6);
    assert_eq!(scene.received(6), 6);
    scene.wait("all were sent", |counters| counters.accounting().sent == 6);
    assert!(scene.counters().port(PortId(2)).tx_delayed > 0);
    scene.workers.stop();
}

#[test]
fn what_waits_for_a_removed_port_is_dropped_and_the_books_close() {
    let scene = Scene::new(|port| port.tx_limit = Some(Limit::new(1_000, Some(0))));
    scene.send(8);
    // One passes. Four wait: a fifth would be more than four full frames.
    scene.wait("three are dropped", |counters| {
        counters.drops(PortId(1), DropReason::BandwidthExceeded) == 3
    });
    let counters = scene.counters();
    assert_eq!(counters.port(PortId(2)).tx_packets, 1);
    assert_eq!(counters.port(PortId(2)).tx_delayed, 4);

    scene.published.store(Arc::new(tables(2, 1)));
    assert!(scene.workers.wait_epoch(Epoch(2), PATIENCE));
    scene.workers.remove_port(PortId(2));
    scene.wait("the others are dropped", |counters| {
        counters.drops(PortId(1), DropReason::PortGone) == 4
    });
    assert_eq!(counters.accounting(), Accounting { received: 8, made: 0, sent: 1, dropped: 7 });
    scene.workers.stop();
}

/// The number's former pod has used up a hundred seconds.
#[test]
fn a_port_that_gets_the_number_of_another_begins_with_a_budget_of_its_own() {
    let scene = Scene::new(|port| port.tx_limit = Some(Limit::new(1_000, Some(0))));
    scene.send(3);
    scene.wait("two wait", |counters| counters.port(PortId(2)).tx_delayed == 2);
    scene.published.store(Arc::new(tables(2, 1)));
    assert!(scene.workers.wait_epoch(Epoch(2), PATIENCE));
    scene.workers.remove_port(PortId(2));

    let (ours, theirs) = PortFd::pair().expect("a socketpair");
    scene.workers.add_port(PortId(2), &Arc::new(ours), 0);
    let mut limited = tables(3, 2);
    limited.ports[2].as_mut().expect("the second pod").tx_limit =
        Some(Limit::new(1_000_000, Some(0)));
    scene.published.store(Arc::new(limited));
    assert!(scene.workers.wait_epoch(Epoch(3), PATIENCE));
    let scene = Scene { pods: scene.pods.into_iter().take(1).chain([theirs]).collect(), ..scene };
    scene.send(1);
    assert_eq!(scene.received(1), 1);
    scene.workers.stop();
}
