//! The walk from end to end, for 1,000 pods and 10,000 flows of the shortest frames in batches of
//! 32: time in `process` alone. `receive` is what the copy before it costs. Where a packet needs a session,
//! that is known, and so many are live; `beside` is a packet that needs none, where others have many.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use vswitch_benches::{BATCH, Node, live};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    receive(&mut criterion);
    forward(&mut criterion, "l2-known-unicast", live::bridged);
    forward(&mut criterion, "l2-learned-10k", live::learned);
    forward(&mut criterion, "l3-pod-to-pod", live::routed_locally);
    forward(&mut criterion, "l3-10-routes", || live::routed(10));
    forward(&mut criterion, "l3-1m-routes", || live::routed(1_000_000));
    for (count, size) in [(10_000, "10k"), (1_000_000, "1m")] {
        forward(&mut criterion, &format!("service-{size}-sessions"), || {
            live::sessions::to_services(count)
        });
        forward(&mut criterion, &format!("policies-{size}-sessions"), || {
            live::sessions::judged(count)
        });
        forward(&mut criterion, &format!("l3-beside-{size}-sessions"), || {
            live::sessions::beside(count)
        });
    }
    criterion.final_summary();
}

fn forward(criterion: &mut Criterion, name: &str, node: impl Fn() -> Node) {
    let mut node = node();
    let mut group = criterion.benchmark_group("forward");
    group.throughput(throughput(&node));
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|turns| (0..turns).map(|_| node.turn()).sum::<Duration>());
    });
}

fn receive(criterion: &mut Criterion) {
    let mut node = live::bridged();
    let mut group = criterion.benchmark_group("forward");
    group.throughput(throughput(&node));
    group.bench_function("receive", |bencher| bencher.iter(|| node.receive()));
}

fn throughput(node: &Node) -> Throughput {
    Throughput::ElementsAndBytes { elements: BATCH as u64, bytes: node.batch_bytes() }
}
