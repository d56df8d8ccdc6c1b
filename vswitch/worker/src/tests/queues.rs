//! A port with several queues: each has a worker of its own.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dataplane::rate::Limit;
use dataplane::tables::{Epoch, PortId, Tables};
use frame::{Packet, Pool};
use netio::port::{PortFd, Recv};

use super::{PATIENCE, packet, packet_of, receive, spec, state, tables};
use crate::{Confinement, Idle, WorkerSpec, Workers};

const HEAVY: PortId = PortId(1);
const OTHER: PortId = PortId(2);

/// Three workers, and a pod with two queues, which the last and the first of them read. The other pod is the
/// second worker's.
fn three_workers(tables: Tables) -> (Workers, Vec<PortFd>, PortFd) {
    let published = Arc::new(ArcSwap::from_pointee(tables));
    let specs = (0..3).map(|id| WorkerSpec { id, ..spec(Idle::Micros(0)) }).collect();
    let workers = Workers::spawn(specs, &published, &state(), &Confinement::default())
        .expect("threads can be made");
    let pairs = [(); 2].map(|()| PortFd::pair().expect("a socketpair"));
    let (queues, theirs): (Vec<_>, Vec<_>) =
        pairs.into_iter().map(|(ours, theirs)| (Arc::new(ours), theirs)).unzip();
    workers.add_queues(HEAVY, &queues, &[2, 0]);
    let (ours, other) = PortFd::pair().expect("a socketpair");
    workers.add_port(OTHER, &Arc::new(ours), 1);
    assert!(workers.wait_epoch(Epoch(1), PATIENCE));
    (workers, theirs, other)
}

/// Packets of a port that each worker has received.
fn received(workers: &Workers, port: PortId) -> Vec<u64> {
    workers.counters().iter().map(|of| of.port(port).rx_packets).collect()
}

#[test]
fn each_queue_is_read_by_its_worker_and_answered_by_any() {
    let (workers, queues, other) = three_workers(tables(1, 2));
    let pool = Pool::new(4);
    for (queue, count) in [(0, 1), (1, 3)] {
        for _ in 0..count {
            queues[queue].send(&mut packet(&pool, 1, 2)).expect("there is room");
            assert!(receive(&pool, &other).is_some(), "queue {queue}");
        }
    }
    assert_eq!(received(&workers, HEAVY), [3, 0, 1]);
    // The second worker has no queue of it, and sends by the first.
    other.send(&mut packet(&pool, 2, 1)).expect("there is room");
    assert!(receive(&pool, &queues[0]).is_some());
    assert_eq!(received(&workers, OTHER), [0, 1, 0]);
    workers.stop();
}

#[test]
fn a_port_that_is_removed_is_closed_with_all_its_queues() {
    let (workers, queues, _other) = three_workers(tables(1, 2));
    workers.remove_port(HEAVY);
    let deadline = Instant::now() + PATIENCE;
    let mut packet = Packet::plain(Pool::new(1).alloc().expect("one"));
    for queue in &queues {
        while queue.recv(&mut packet) != Recv::Gone {
            assert!(Instant::now() < deadline, "a queue stays open");
            thread::sleep(Duration::from_millis(1));
        }
    }
    workers.stop();
}

#[test]
fn queues_share_the_rate_of_their_port() {
    let mut tables = tables(1, 2);
    // A frame of 1,014 bytes takes 8 ms; 10 ms may be in advance.
    let limit = Limit::new(1_000_000, Some(0));
    tables.ports[1].as_mut().expect("there").rx_limit = Some(limit);
    let (workers, queues, other) = three_workers(tables);
    let pool = Pool::new(4);
    let begun = Instant::now();
    let each = 10;
    for _ in 0..each {
        for queue in &queues {
            queue.send(&mut packet_of(&pool, 1, 2, 1014)).expect("there is room");
        }
    }
    for _ in 0..2 * each {
        assert!(receive(&pool, &other).is_some());
    }
    // The last of 20 frames waits for the 19 before it, less the burst: 144 ms, and less what a worker took of
    // the time before, in whose turn they came. With a rate for each queue it would be 63 ms.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(100), "{took:?}");
    assert_eq!(received(&workers, HEAVY), [each, 0, each]);
    workers.stop();
}
