//! The session table by itself: packets of sessions that are there, of none, and those that write.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput};
use dataplane::session::{
    Endpoint, Header, Lookup, Outcome, PolicyStamp, Session, SessionEffect, SessionTable, State,
    Tick, Tuple, default_buckets,
};
use dataplane::tables::PortId;
use dataplane::wire::{Protocol, TcpFlags};
use vswitch_benches::{BATCH, Random};

/// Packets asked for, in random order: more than the caches keep of a large table.
const PACKETS: usize = 1 << 17;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (count, size) in [(10_000, "10k"), (100_000, "100k"), (1_000_000, "1m")] {
        let table = filled(count, false);
        lookups(&mut group, &format!("v4-{size}"), &table, count, false);
        touch(&mut group, &format!("v4-{size}"), &table, count);
    }
    let table = filled(100_000, true);
    lookups(&mut group, "v6-100k", &table, 100_000, true);
    drop(table);
    create(&mut group);
    group.finish();
    criterion.final_summary();
}

/// The nth client's tuple to one server.
fn tuple(nth: usize, v6: bool) -> Tuple {
    let nth = nth as u32;
    let (client, server): (IpAddr, IpAddr) = if v6 {
        let address = |host: u32| Ipv6Addr::from(0xfd00 << 112 | u128::from(host));
        (address(nth >> 14).into(), address(1 << 31).into())
    } else {
        let address = |host: u32| Ipv4Addr::from(0x0a00_0000 | host);
        (address(nth >> 14).into(), address(1 << 23).into())
    };
    let client = Endpoint { address: client, port: (nth & 0x3fff) as u16 + 1024 };
    let server = Endpoint { address: server, port: 443 };
    Tuple::new(0, Protocol::TCP, client, server).expect("one IP version")
}

fn session(nth: usize, v6: bool, now: Tick) -> Session {
    let tuple = tuple(nth, v6);
    Session {
        client_side: tuple,
        server_side: tuple,
        state: State::opened(Protocol::TCP, TcpFlags::ACK, now),
        policy: PolicyStamp { generation: 1, rule_in: 0, rule_out: 1, is_revoked: false },
        // Many ports, none at its quota.
        charged: PortId((nth % 256) as u16),
        created: now,
        service: 0,
        service_generation: 0,
        local_in: Some(PortId((nth % 256) as u16)),
        local_out: None,
        through_tunnel: false,
    }
}

/// An established session for each number below `count`, in a table of the size for it.
fn filled(count: usize, v6: bool) -> SessionTable {
    let cores = (count as u32).div_ceil(32_768);
    let header = Header { boot_id: 1, seed: 0x5eed, buckets: default_buckets(cores) };
    let table = SessionTable::on_heap(&header).expect("enough buckets");
    for nth in 0..count {
        let created = table.commit(&SessionEffect::Create(session(nth, v6, Tick(1))), Tick(1));
        assert_eq!(created, Outcome::Created);
        let answer = tuple(nth, v6).reversed();
        let Lookup::Hit(found) = table.find(&answer, Tick(1)) else { panic!("it is there") };
        let touch = found.touch(TcpFlags::ACK, Tick(1)).expect("it is answered");
        table.commit(&SessionEffect::Touch(touch), Tick(1));
    }
    table
}

/// Packets of random sessions below `count`, in batches; every second is an answer.
fn packets(count: usize, v6: bool) -> Vec<Tuple> {
    let random = &mut Random::new(7);
    let numbers: Vec<usize> = (0..count).collect();
    let packet = |at: usize| {
        let tuple = tuple(*random.pick(&numbers), v6);
        if at.is_multiple_of(2) { tuple } else { tuple.reversed() }
    };
    (0..PACKETS).map(packet).collect()
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn lookups(group: &mut Group<'_>, name: &str, table: &SessionTable, count: usize, v6: bool) {
    let packets = packets(count, v6);
    let mut batches = packets.chunks_exact(BATCH).cycle();
    group.bench_function(format!("{name}-hit"), |bencher| {
        bencher.iter(|| {
            for packet in batches.next().into_iter().flatten() {
                let Lookup::Hit(found) = table.find(black_box(packet), Tick(1)) else {
                    panic!("it is there")
                };
                assert!(found.touch(TcpFlags::ACK, Tick(1)).is_none());
                black_box((found.direction, found.session.policy.generation));
            }
        });
    });
    let mut batches = packets.chunks_exact(BATCH).cycle();
    group.bench_function(format!("{name}-hit-prefetched"), |bencher| {
        bencher.iter(|| {
            let batch = batches.next().unwrap_or_default();
            let mut places = [None; BATCH];
            for (place, packet) in places.iter_mut().zip(batch) {
                let at = table.locate(black_box(packet));
                table.prefetch(&at);
                *place = Some(at);
            }
            for at in places.iter().flatten() {
                let Lookup::Hit(found) = table.find_at(at, Tick(1)) else { panic!("it is there") };
                assert!(found.touch(TcpFlags::ACK, Tick(1)).is_none());
                black_box((found.direction, found.session.policy.generation));
            }
        });
    });
    let absent: Vec<_> = (0..PACKETS).map(|nth| tuple(count + nth, v6)).collect();
    let mut batches = absent.chunks_exact(BATCH).cycle();
    group.bench_function(format!("{name}-miss"), |bencher| {
        bencher.iter(|| {
            for packet in batches.next().into_iter().flatten() {
                black_box(table.find(black_box(packet), Tick(1)) == Lookup::Miss);
            }
        });
    });
}

/// Each packet is a session's first in its second: it is found and stamped.
fn touch(group: &mut Group<'_>, name: &str, table: &SessionTable, count: usize) {
    let packets = packets(count, false);
    let mut batches = packets.chunks_exact(BATCH).cycle();
    let mut now = Tick(1);
    group.bench_function(format!("{name}-hit-new-tick"), |bencher| {
        bencher.iter(|| {
            // A tick a batch. Look-ups are at an earlier one, at which nothing has expired.
            now.0 += 1;
            for packet in batches.next().into_iter().flatten() {
                let Lookup::Hit(found) = table.find(black_box(packet), Tick(1)) else {
                    panic!("it is there")
                };
                let touch = found.touch(TcpFlags::ACK, now);
                black_box(touch.map(|touch| table.commit(&SessionEffect::Touch(touch), now)));
            }
        });
    });
}

/// Sessions that begin in a table that already has 100,000.
fn create(group: &mut Group<'_>) {
    let table = filled(100_000, false);
    let mut next = 200_000;
    group.bench_function("v4-100k-create", |bencher| {
        bencher.iter_batched(
            || {
                for nth in next - BATCH..next {
                    table.commit(&SessionEffect::Close(tuple(nth, false)), Tick(1));
                }
                let batch: [_; BATCH] =
                    std::array::from_fn(|at| session(next + at, false, Tick(1)));
                next += BATCH;
                batch
            },
            |batch| {
                for session in batch {
                    let outcome = table.commit(&SessionEffect::Create(session), Tick(1));
                    assert_eq!(outcome, Outcome::Created);
                }
            },
            BatchSize::PerIteration,
        );
    });
}
