//! Lookups by themselves: longest-prefix match over tables of full-table proportions, how fast
//! such a table loads, and the learned MACs. `random` asks for another address each time, `hot` for
//! the same 32.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use criterion::{Criterion, Throughput};
use dataplane::Millis;
use dataplane::tables::{AdjacencyId, BridgeId, Fdb, Fib, VtepId, fib::Address};
use dataplane::wire::MacAddr;
use vswitch_benches::{BATCH, Random, routes};

/// Enough that the addresses themselves stay in L2 beside the tables' hot part.
const ADDRESSES: usize = 16_384;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (count, size) in [(10, "10"), (10_000, "10k"), (1_000_000, "1m")] {
        let random = &mut Random::new(3);
        let prefixes = routes::prefixes_v4(count, random);
        let inside: Vec<Ipv4Addr> =
            (0..ADDRESSES).map(|_| routes::inside_v4(*random.pick(&prefixes), random)).collect();
        lookups(&mut criterion, &format!("v4-{size}"), &prefixes, &inside);

        let prefixes = routes::prefixes_v6(count, random);
        let inside: Vec<Ipv6Addr> =
            (0..ADDRESSES).map(|_| routes::inside_v6(*random.pick(&prefixes), random)).collect();
        lookups(&mut criterion, &format!("v6-{size}"), &prefixes, &inside);
    }
    load(&mut criterion);
    learned(&mut criterion);
    criterion.final_summary();
}

/// Memory for a route of a full table, at most: the kernel takes 1,166.
const ROUTE_BYTES: usize = 32;

/// A full table from nothing, time for a route; the kernel loads 59,000 a second.
fn load(criterion: &mut Criterion) {
    let prefixes = routes::prefixes_v4(1_000_000, &mut Random::new(3));
    let bytes = filled(&prefixes).size_bytes() / prefixes.len();
    assert!(bytes <= ROUTE_BYTES, "a route takes {bytes} bytes");
    let mut group = criterion.benchmark_group("fib");
    group.sample_size(10).throughput(Throughput::Elements(prefixes.len() as u64));
    group.bench_function("v4-1m-load", |bencher| bencher.iter(|| filled(black_box(&prefixes))));
}

fn filled<A: Address>(prefixes: &[(A, u8)]) -> Fib<A> {
    let mut fib = Fib::default();
    for (index, (prefix, len)) in prefixes.iter().enumerate() {
        fib.insert(*prefix, *len, AdjacencyId(index as u32 % 1000));
    }
    fib
}

fn lookups<A: Address>(c: &mut Criterion, name: &str, prefixes: &[(A, u8)], inside: &[A]) {
    let fib = filled(prefixes);
    assert!(inside.iter().all(|address| fib.lookup(*address).is_some()), "each has a route");
    let mut group = c.benchmark_group("fib");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (order, addresses) in [("random", inside), ("hot", &inside[..BATCH])] {
        let mut batches = addresses.chunks_exact(BATCH).cycle();
        group.bench_function(format!("{name}-{order}"), |bencher| {
            bencher.iter(|| {
                for address in batches.next().into_iter().flatten() {
                    black_box(fib.lookup(black_box(*address)));
                }
            });
        });
    }
}

fn learned(criterion: &mut Criterion) {
    let mac = |nth: usize| {
        let [.., a, b, c] = nth.to_be_bytes();
        MacAddr([0x02, 0, 0, a, b, c])
    };
    let mut fdb = Fdb::new(16_384, 300_000);
    for nth in 0..10_000 {
        fdb.learn(BridgeId(0), mac(nth), VtepId((nth % 250) as u16), Millis(0));
    }
    let random = &mut Random::new(4);
    let asked: Vec<MacAddr> = (0..ADDRESSES).map(|_| mac(random.below(10_000))).collect();
    let mut batches = asked.chunks_exact(BATCH).cycle();
    let mut group = criterion.benchmark_group("fdb");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("10k-random", |bencher| {
        bencher.iter(|| {
            for mac in batches.next().into_iter().flatten() {
                black_box(fdb.lookup(BridgeId(0), black_box(*mac), Millis(0)));
            }
        });
    });
}
