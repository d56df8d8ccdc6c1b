use std::sync::Arc;

use frame::{Packet, Pool};

use super::{Admission, Held, Shaper};
use crate::act::{Egress, Tally};
use crate::rate::{Budgets, Limit, Nanos};
use crate::tables::{Attachment, Offloads, Port, PortId, PortRole, Tables};
use crate::verdict::DropReason;
use crate::wire::MacAddr;

const SENDER: PortId = PortId(9);

#[derive(Default)]
struct Ends {
    /// First bytes of what was sent, with their ports.
    sent: Vec<(PortId, u8)>,
    counted: Counted,
}

#[derive(Default)]
struct Counted {
    sent: u64,
    dropped: Vec<(PortId, DropReason)>,
}

impl Egress for Ends {
    fn send(&mut self, port: PortId, packet: Packet) -> Result<(), DropReason> {
        self.sent.push((port, packet.frame.first().copied().unwrap_or(0)));
        Ok(())
    }

    fn send_with(
        &mut self,
        _: PortId,
        _: usize,
        _: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), DropReason> {
        Err(DropReason::PortRefused)
    }
}

impl Tally for Counted {
    fn sent(&mut self, _: PortId, packets: u64, _: usize) {
        self.sent += packets;
    }

    fn made(&mut self, _: u64) {}

    fn delayed(&mut self, _: PortId) {}

    fn dropped(&mut self, ingress: PortId, packets: u64, reason: DropReason, _: &[u8]) {
        self.dropped.extend((0..packets).map(|_| (ingress, reason)));
    }
}

/// Ports of 1 Mbit/s and a burst of 1,250 bytes.
fn limit() -> Limit {
    Limit::new(1_000_000, Some(0))
}

fn tables(limits: &[Option<Limit>]) -> Tables {
    let port = |limit: &Option<Limit>| {
        Some(Port {
            kind: PortRole::Pod,
            attachment: Attachment::Routed,
            mac: MacAddr::ZERO,
            mtu: 1450,
            offloads: Offloads::default(),
            addresses: Vec::new(),
            rx_limit: None,
            tx_limit: *limit,
        })
    };
    Tables { ports: limits.iter().map(port).collect(), ..Tables::default() }
}

/// What a shaper of a pool of so many frames does.
struct Scene {
    pool: Pool,
    shaper: Shaper,
    ends: Ends,
}

impl Scene {
    fn new(frames: u32, budgets: &Arc<Budgets>) -> Self {
        let pool = Pool::new(frames);
        let shaper = Shaper::new(&pool, Arc::clone(budgets));
        Self { pool, shaper, ends: Ends::default() }
    }

    /// Offers frames of so many bytes, numbered from 0; how many may wait.
    fn offer(&mut self, limit: &Limit, port: PortId, count: u8, bytes: u32) -> usize {
        let mut waiting = 0;
        for number in 0..count {
            if self.shaper.admit(limit, port, bytes) == Admission::Later {
                let mut frame = self.pool.alloc().unwrap();
                frame.extend_from_slice(&[number; 14]).unwrap();
                let packet = Packet::plain(frame);
                let held = Held { packet, ingress: SENDER, packets: 1, bytes };
                assert!(self.shaper.hold(limit, port, held).is_none());
                waiting += 1;
            }
        }
        waiting
    }

    fn turn(&mut self, tables: &Tables, now: Nanos) -> Vec<(PortId, u8)> {
        let mut counted = std::mem::take(&mut self.ends.counted);
        self.shaper.turn(tables, now, &mut self.ends, &mut counted);
        self.ends.counted = counted;
        std::mem::take(&mut self.ends.sent)
    }
}

#[test]
fn what_waits_leaves_in_order_when_it_is_due_and_not_before() {
    let (limit, port) = (limit(), PortId(0));
    let tables = tables(&[Some(limit)]);
    let mut scene = Scene::new(512, &Arc::default());
    // Two pass; the burst is 1,250 bytes.
    assert_eq!(scene.offer(&limit, port, 5, 1000), 3);
    let mut left = Vec::new();
    while let Some(due) = scene.shaper.due() {
        assert_eq!(scene.turn(&tables, Nanos(due.0 - 1)), []);
        left.extend(scene.turn(&tables, due).into_iter().map(|(_, number)| (number, due.0)));
    }
    // 1,000 bytes take 8 ms. The second frame exceeded the burst by 6 ms.
    assert_eq!(left, [(2, 6_000_000), (3, 14_000_000), (4, 22_000_000)]);
    assert_eq!(scene.pool.available(), scene.pool.total());
}

#[test]
fn one_port_waits_with_64_frames_and_an_eighth_of_the_pool_at_most() {
    // A rate whose 25 ms would hold more.
    let limit = Limit::new(100_000_000, Some(0));
    for (frames, most) in [(4096, 64), (512, 64), (64, 8), (4, 1)] {
        let mut scene = Scene::new(frames, &Arc::default());
        assert_eq!(scene.shaper.admit(&limit, PortId(0), 200_000), Admission::Now);
        assert_eq!(scene.offer(&limit, PortId(0), 255, 600), most, "of {frames}");
        assert!(scene.pool.available() * 4 >= scene.pool.total() * 3);
    }
}

#[test]
fn ports_that_wait_leave_room_to_others_and_three_quarters_of_the_pool() {
    let limit = Limit::new(100_000_000, Some(0));
    let mut scene = Scene::new(512, &Arc::default());
    let waiting: Vec<_> = (0..4)
        .map(|port| {
            assert_eq!(scene.shaper.admit(&limit, PortId(port), 200_000), Admission::Now);
            scene.offer(&limit, PortId(port), 255, 600)
        })
        .collect();
    assert_eq!(waiting, [64, 32, 16, 8]);
    assert!(scene.pool.available() >= 384);
}

#[test]
fn what_waits_for_a_port_that_is_taken_away_is_dropped_and_counted() {
    let (limit, port, other) = (limit(), PortId(0), PortId(1));
    let mut scene = Scene::new(512, &Arc::default());
    assert_eq!(scene.offer(&limit, port, 4, 1000), 2);
    assert_eq!(scene.offer(&limit, other, 4, 1000), 2);
    let mut counted = Counted::default();
    scene.shaper.forget(port, &mut counted);
    assert_eq!(counted.dropped, [(SENDER, DropReason::PortGone); 2]);
    assert_eq!(scene.pool.available(), scene.pool.total() - 2);
    // The other's are not touched; a port that no table names any more is treated likewise.
    scene.turn(&tables(&[None]), Nanos(1_000_000_000));
    assert_eq!(scene.ends.counted.dropped, [(SENDER, DropReason::PortGone); 2]);
    assert_eq!(scene.pool.available(), scene.pool.total());
    assert_eq!(scene.shaper.due(), None);
}

#[test]
fn a_rate_that_is_taken_away_releases_what_waits() {
    let (limit, port) = (limit(), PortId(0));
    let mut scene = Scene::new(512, &Arc::default());
    assert_eq!(scene.offer(&limit, port, 4, 1000), 2);
    let due = scene.shaper.due().expect("frames wait");
    assert_eq!(scene.turn(&tables(&[None, None]), Nanos(due.0 - 1)), []);
    let mut unlimited = tables(&[Some(limit)]);
    for port in unlimited.ports.iter_mut().flatten() {
        port.tx_limit = None;
    }
    assert_eq!(scene.turn(&unlimited, due), [(port, 2), (port, 3)]);
}

#[test]
fn workers_share_the_rate_of_a_port() {
    let (limit, port) = (limit(), PortId(0));
    let tables = tables(&[Some(limit)]);
    let budgets = Arc::default();
    let mut workers = [Scene::new(512, &budgets), Scene::new(512, &budgets)];
    let mut bytes = 0;
    for millis in 0..1000 {
        for worker in &mut workers {
            bytes += 1000 * worker.turn(&tables, Nanos(millis * 1_000_000)).len();
            let passed = (0..2).filter(|_| {
                let admission = worker.shaper.admit(&limit, port, 1000);
                if admission == Admission::Later {
                    let packet = Packet::plain(worker.pool.alloc().unwrap());
                    let held = Held { packet, ingress: SENDER, packets: 1, bytes: 1000 };
                    worker.shaper.hold(&limit, port, held);
                }
                admission == Admission::Now
            });
            bytes += 1000 * passed.count();
        }
    }
    // A second at 1 Mbit/s, and the burst.
    assert!((125_000..=128_000).contains(&bytes), "{bytes}");
}
