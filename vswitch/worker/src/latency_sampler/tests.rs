use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::tables::{PortId, PortRole, Tables};

use super::{LatencySampler, Leaves, successor};
use crate::latency::{Latencies, LatencyPath, LatencySnapshot};
use crate::tests::tables;

const POD: PortId = PortId(1);
const OTHER: PortId = PortId(2);
const HOST: PortId = PortId(3);
const NIC: PortId = PortId(4);

struct Scene {
    sampler: LatencySampler,
    latencies: Arc<Latencies>,
    tables: Tables,
}

impl Scene {
    fn new() -> Self {
        let mut tables = tables(1, 4);
        for (port, role) in [(HOST, PortRole::Host), (NIC, PortRole::Uplink)] {
            if let Some(port) = &mut tables.ports[usize::from(port.0)] {
                port.kind = role;
            }
        }
        let latencies = Arc::new(Latencies::new());
        Self { sampler: LatencySampler::new(Arc::clone(&latencies)), latencies, tables }
    }

    /// A turn that began so long ago, with these packets.
    fn turn(&mut self, ago: Duration, packets: &[(PortId, PortId, Leaves)], is_unsent: bool) {
        let begun = Instant::now().checked_sub(ago).expect("the clock began before");
        self.sampler.begin(begun);
        for (from, to, leaves) in packets {
            self.sampler.serve(*from);
            self.sampler.sent(*to, *leaves);
        }
        self.sampler.end(&self.tables, is_unsent);
    }

    fn path(&self, path: LatencyPath) -> LatencySnapshot {
        self.latencies.path(path)
    }
}

/// The shortest and the longest latency.
fn range(snapshot: &LatencySnapshot) -> (Duration, Duration) {
    let [first, last] = [snapshot.buckets().next(), snapshot.buckets().last()]
        .map(|bucket| Duration::from_nanos(bucket.map_or(0, |(longest, _)| longest)));
    (first, last)
}

#[test]
fn a_packet_is_counted_under_its_path_and_the_port_that_it_came_from() {
    let mut scene = Scene::new();
    for (from, to, path) in [
        (POD, OTHER, LatencyPath::PodToPod),
        (POD, HOST, LatencyPath::PodToHost),
        (HOST, POD, LatencyPath::HostToPod),
        (POD, NIC, LatencyPath::PodToNic),
        (NIC, OTHER, LatencyPath::NicToPod),
        (HOST, NIC, LatencyPath::HostToNic),
        (NIC, HOST, LatencyPath::NicToHost),
    ] {
        let leaves = if to == NIC { Leaves::AtFlush } else { Leaves::Now };
        scene.turn(Duration::ZERO, &[(from, to, leaves)], false);
        let counted = scene.path(path);
        assert_eq!((counted.timed(), counted.packets()), (1, 1), "{path:?}");
    }
    let ports = [POD, OTHER, HOST, NIC].map(|port| scene.latencies.port(port).packets());
    assert_eq!(ports, [3, 0, 2, 2]);
}

#[test]
fn a_latency_lasts_from_the_beginning_of_the_turn() {
    let mut scene = Scene::new();
    scene.turn(Duration::from_secs(1), &[(POD, OTHER, Leaves::Now)], false);
    let (shortest, longest) = range(&scene.path(LatencyPath::PodToPod));
    assert!(shortest >= Duration::from_secs(1) && longest < Duration::from_secs(16), "{longest:?}");
}

#[test]
fn a_packet_stands_for_all_of_its_turn() {
    let mut scene = Scene::new();
    scene.turn(Duration::ZERO, &[(POD, OTHER, Leaves::Now); 36], false);
    let counted = scene.path(LatencyPath::PodToPod);
    assert_eq!((counted.timed(), counted.packets()), (1, 36));
}

#[test]
fn a_turn_without_packets_and_what_is_sent_outside_of_turns_leave_no_mark() {
    let mut scene = Scene::new();
    scene.sampler.sent(OTHER, Leaves::Now);
    scene.turn(Duration::ZERO, &[], false);
    for _ in 0..3 {
        scene.sampler.sent(OTHER, Leaves::Now);
    }
    scene.turn(Duration::ZERO, &[], false);
    assert!(LatencyPath::ALL.into_iter().all(|path| scene.path(path).timed() == 0));
}

#[test]
fn an_answer_to_the_port_that_asks_does_not_count() {
    let mut scene = Scene::new();
    let packets = [(POD, POD, Leaves::Now), (POD, OTHER, Leaves::Now), (NIC, NIC, Leaves::AtFlush)];
    scene.turn(Duration::ZERO, &packets, false);
    scene.turn(Duration::ZERO, &packets[..1], false);
    let counted = scene.path(LatencyPath::PodToPod);
    assert_eq!((counted.timed(), counted.packets()), (1, 1));
    assert_eq!(scene.latencies.port(NIC).timed(), 0);
}

#[test]
fn what_the_nic_has_no_room_for_is_counted_when_it_has() {
    let mut scene = Scene::new();
    let packets = [(POD, NIC, Leaves::AtFlush); 4];
    scene.turn(Duration::from_secs(40), &packets, true);
    scene.turn(Duration::from_secs(2), &packets, true);
    assert_eq!(scene.path(LatencyPath::PodToNic).timed(), 0);
    scene.turn(Duration::ZERO, &[], false);
    let counted = scene.path(LatencyPath::PodToNic);
    assert_eq!((counted.timed(), counted.packets()), (1, 4));
    assert!(range(&counted).0 >= Duration::from_secs(17), "the first that waited");
    scene.turn(Duration::ZERO, &[], false);
    assert_eq!(scene.path(LatencyPath::PodToNic).timed(), 1);
}

#[test]
fn a_port_that_is_gone_takes_its_latencies_with_it() {
    let mut scene = Scene::new();
    scene.turn(Duration::ZERO, &[(POD, NIC, Leaves::AtFlush)], true);
    scene.turn(Duration::ZERO, &[(POD, OTHER, Leaves::Now)], true);
    scene.sampler.forget(POD);
    scene.turn(Duration::ZERO, &[], false);
    assert_eq!(scene.latencies.port(POD).packets(), 0);
    assert_eq!(scene.path(LatencyPath::PodToNic).timed(), 0);
}

/// Of 36 packets each is chosen by a thirty-sixth of the turns; the numbers are the same in every run.
#[test]
fn each_packet_of_a_turn_has_the_same_chance() {
    const PACKETS: u16 = 36;
    const TURNS: u64 = 36_000;
    let mut scene = Scene::new();
    scene.tables = tables(1, PACKETS + 1);
    let mut readings = 0;
    for _ in 0..TURNS {
        scene.sampler.begin(Instant::now());
        let mut next = scene.sampler.next;
        for from in 2..=PACKETS + 1 {
            scene.sampler.serve(PortId(from));
            scene.sampler.sent(PortId(1), Leaves::Now);
            readings += u64::from(scene.sampler.next != next);
            next = scene.sampler.next;
        }
        scene.sampler.end(&scene.tables, false);
    }
    let expected = TURNS / u64::from(PACKETS);
    for from in 2..=PACKETS + 1 {
        let timed = scene.latencies.port(PortId(from)).timed();
        // The standard deviation is 31.
        assert!(timed.abs_diff(expected) < 125, "packet {from}: {timed} of {expected}");
    }
    // 4.17 a turn: the 36th harmonic number.
    assert!((TURNS * 41 / 10..TURNS * 43 / 10).contains(&readings), "{readings}");
}

#[test]
fn one_is_always_followed_by_a_later_one() {
    assert_eq!(successor(1, u64::MAX), 2);
    assert_eq!(successor(1, 0), u32::MAX);
    assert_eq!(successor(10, 1 << 63), 20);
    assert_eq!(successor(u32::MAX, u64::MAX), u32::MAX);
}
