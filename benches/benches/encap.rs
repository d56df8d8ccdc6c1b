//! Into the overlay and out of it, and superframes cut for a NIC: time in `process` alone, for
//! 1,000 pods, 250 peers and 10,000 flows in batches of 32. Each figure includes the routing.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use vswitch_benches::traffic::SEGMENTS;
use vswitch_benches::{BATCH, Node, Path, live};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (path, name) in [(Path::Vxlan, "vxlan"), (Path::Ipip, "ipip")] {
        for (v6, version) in [(false, "v4"), (true, "v6")] {
            let packets = BATCH as u64;
            run(&mut criterion, "encap", &format!("{name}-{version}"), packets, || {
                live::encapsulating(path, v6)
            });
            run(&mut criterion, "decap", &format!("{name}-{version}"), packets, || {
                live::decapsulating(path, v6)
            });
        }
    }
    let pieces = (BATCH * SEGMENTS) as u64;
    for (path, name) in
        [(Path::Direct, "plain-64k"), (Path::Vxlan, "vxlan-64k"), (Path::Ipip, "ipip-64k")]
    {
        run(&mut criterion, "segment", name, pieces, || live::segmenting(path));
    }
    criterion.final_summary();
}

fn run(c: &mut Criterion, group: &str, name: &str, elements: u64, node: impl Fn() -> Node) {
    let mut node = node();
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::ElementsAndBytes { elements, bytes: node.batch_bytes() });
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|turns| (0..turns).map(|_| node.turn()).sum::<Duration>());
    });
}
