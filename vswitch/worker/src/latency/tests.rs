use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dataplane::tables::{MAX_PORTS, PortId, PortRole};
use hdrhistogram::Histogram;
use proptest::prelude::*;

use super::{BUCKETS, LONGEST_NS, Latencies, LatencyPath, UNIT_NS, bucket, longest_of};

/// The smallest latency that so many of a thousand packets do not exceed, as a reader finds it.
fn quantile(latencies: &Latencies, permille: u64) -> u64 {
    let snapshot = latencies.path(LatencyPath::PodToPod);
    let mut histogram = Histogram::<u64>::new(3).expect("three digits are allowed");
    for (longest, packets) in snapshot.buckets() {
        histogram.record_n(longest, packets).expect("it grows");
    }
    histogram.value_at_quantile(permille as f64 / 1000.0)
}

#[test]
fn buckets_follow_one_another_without_a_gap() {
    let mut first = 0;
    for number in 0..BUCKETS {
        let last = longest_of(number);
        assert_eq!((bucket(first), bucket(last)), (number, number), "{first} to {last}");
        assert!(last - first < (first / 32).max(UNIT_NS), "{first} to {last}");
        first = last + 1;
    }
    assert_eq!(first, LONGEST_NS);
}

#[test]
fn a_latency_beyond_all_counts_as_the_longest() {
    let latencies = Latencies::new();
    latencies.record(LatencyPath::PodToPod, PortId(1), u64::MAX, 1);
    let snapshot = latencies.path(LatencyPath::PodToPod);
    assert_eq!(snapshot.buckets().collect::<Vec<_>>(), [(LONGEST_NS - 1, 1)]);
}

#[test]
fn a_packet_counts_with_its_path_and_its_port_for_those_that_it_stands_for() {
    let latencies = Latencies::new();
    latencies.record(LatencyPath::PodToNic, PortId(7), 1000, 12);
    latencies.record(LatencyPath::PodToPod, PortId(7), 5000, 1);
    let path = latencies.path(LatencyPath::PodToNic);
    assert_eq!((path.timed(), path.packets(), path.sum_ns()), (1, 12, 12_000));
    assert_eq!(path.buckets().collect::<Vec<_>>(), [(1007, 12)]);
    let port = latencies.port(PortId(7));
    assert_eq!((port.timed(), port.packets(), port.sum_ns()), (2, 13, 17_000));
    for other in [6, 8, MAX_PORTS as u16 - 1, MAX_PORTS as u16] {
        assert_eq!(latencies.port(PortId(other)).packets(), 0);
    }
    latencies.clear_port(PortId(7));
    assert_eq!(latencies.port(PortId(7)).packets(), 0);
    assert_eq!(latencies.path(LatencyPath::PodToNic), path);
    let mut sum = path;
    sum.add(&latencies.path(LatencyPath::PodToPod));
    assert_eq!((sum.timed(), sum.packets(), sum.sum_ns()), (2, 13, 17_000));
}

#[test]
fn paths_have_numbers_and_names_of_their_own() {
    for (number, path) in LatencyPath::ALL.into_iter().enumerate() {
        assert_eq!(path as usize, number);
    }
    let roles = [PortRole::Pod, PortRole::Host, PortRole::Uplink];
    let pairs = roles.into_iter().flat_map(|from| roles.map(|to| (from, to)));
    let mut paths: Vec<_> = pairs.filter_map(|(from, to)| LatencyPath::between(from, to)).collect();
    paths.sort_unstable();
    assert_eq!(paths, LatencyPath::ALL);
    let mut labels = LatencyPath::ALL.map(LatencyPath::label);
    labels.sort_unstable();
    assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{labels:?}");
}

#[test]
fn a_snapshot_taken_while_it_is_written_loses_and_invents_nothing() {
    const ROUNDS: u64 = 200_000;
    let latencies = Arc::new(Latencies::new());
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = {
        let (latencies, is_over) = (Arc::clone(&latencies), Arc::clone(&is_over));
        thread::spawn(move || {
            for round in 0..ROUNDS {
                latencies.record(LatencyPath::PodToPod, PortId(2), 500 + round % 10_000, 3);
            }
            is_over.store(true, Ordering::Release);
        })
    };
    let mut before = latencies.port(PortId(2));
    loop {
        let was_over = is_over.load(Ordering::Acquire);
        let now = latencies.port(PortId(2));
        assert!(now.buckets.iter().zip(&before.buckets).all(|(now, before)| now >= before));
        assert!(now.buckets.iter().all(|packets| packets % 3 == 0), "no count is half written");
        before = now;
        if was_over {
            break;
        }
    }
    writer.join().expect("the writer ends");
    assert_eq!((before.timed(), before.packets()), (ROUNDS, 3 * ROUNDS));
    assert_eq!(before, latencies.path(LatencyPath::PodToPod));
}

proptest! {
    /// Against a histogram that has each value to three digits.
    #[test]
    fn a_percentile_is_at_most_a_thirtysecond_too_long(
        latencies in prop::collection::vec((1u32..33, any::<u64>()), 1..300),
        permille in 1u64..=1000,
    ) {
        let counted = Latencies::new();
        let mut exact = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3).expect("valid");
        for (octave, random) in latencies {
            let ns = (1 << octave) + random % (1 << octave);
            counted.record(LatencyPath::PodToPod, PortId(1), ns, 1);
            exact.record(ns).expect("in bounds");
        }
        let (ours, theirs) =
            (quantile(&counted, permille), exact.value_at_quantile(permille as f64 / 1000.0));
        // Each of the two histograms that it has passed has three digits.
        let error = |ns: u64| ns / 32 + 2 * (ns / 1000) + UNIT_NS;
        prop_assert!(ours + error(ours) / 10 + UNIT_NS >= theirs, "{ours} for {theirs}");
        prop_assert!(ours <= theirs + error(theirs), "{ours} for {theirs}");
    }
}
