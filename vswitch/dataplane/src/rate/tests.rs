use proptest::prelude::*;

use super::{Budget, Limit, Nanos, PARTS_PER_NANO};

const SECOND: u64 = 1_000_000_000;

/// Bytes that pass of frames which always wait, from `from` for `nanos`; each is tried again when the
/// budget says so.
fn passed(budget: &Budget, limit: &Limit, frame: u32, from: u64, nanos: u64) -> u64 {
    let (mut now, mut bytes) = (from, 0);
    while now < from + nanos {
        match budget.take(limit, frame, Nanos(now)) {
            Ok(()) => bytes += u64::from(frame),
            Err(opens) => {
                assert!(opens.0 > now, "it waits for a time that is to come");
                now = opens.0;
            }
        }
    }
    bytes
}

/// Long enough for a thousand frames.
fn long(rate: u64, frame: u32) -> u64 {
    (u64::from(frame) * 8 * 2000).saturating_mul(SECOND / 1000) / (rate / 1000) + 1
}

#[test]
fn a_burst_passes_at_once_and_exceeds_its_size_by_a_frame_at_most() {
    let limit = Limit::new(20_000_000, Some(8 * 200_000));
    let budget = Budget::default();
    let mut bytes = 0;
    while budget.take(&limit, 1464, Nanos(5)).is_ok() {
        bytes += 1464;
    }
    assert!((200_000..200_000 + 2 * 1464).contains(&bytes), "{bytes}");
}

#[test]
fn kubelets_burst_does_not_switch_a_limit_off() {
    for (rate, most) in [(1_000_000, 128 << 10), (1_000_000_000, 12_500_000)] {
        let limit = Limit::new(rate, Some((1 << 31) - 1));
        assert_eq!(limit, Limit::new(rate, None), "as if none was given");
        let bytes = passed(&Budget::default(), &limit, 1464, 0, 1);
        assert!((most..most + 2 * 1464).contains(&bytes), "{rate}: {bytes}");
    }
}

#[test]
fn a_burst_of_nothing_is_ten_milliseconds_of_the_rate() {
    let limit = Limit::new(20_000_000, Some(0));
    let bytes = passed(&Budget::default(), &limit, 1000, 0, 1);
    assert!((25_000..27_000).contains(&bytes), "{bytes}");
}

#[test]
fn rates_outside_of_kubernetes_are_the_nearest_inside() {
    assert_eq!(Limit::new(0, None), Limit::new(1_000, None));
    assert_eq!(Limit::new(u64::MAX, None), Limit::new(1_000_000_000_000_000, None));
}

#[test]
fn superframes_pass_whole_where_they_are_ten_milliseconds_at_most() {
    assert!(!Limit::new(52_000_000, None).takes_superframes());
    assert!(Limit::new(53_000_000, None).takes_superframes());
}

#[test]
fn what_a_former_port_used_up_is_forgotten() {
    let limit = Limit::new(1_000, None);
    let budget = Budget::default();
    passed(&budget, &limit, 64_000, 0, 1);
    assert!(budget.opens_at(&limit) > Nanos(100 * SECOND));
    budget.reset();
    assert_eq!(budget.take(&Limit::new(1_000_000, None), 1464, Nanos(7)), Ok(()));
}

#[test]
fn the_end_of_time_closes_nothing() {
    let limit = Limit::new(1_000, None);
    let budget = Budget::default();
    for _ in 0..1000 {
        assert_eq!(budget.take(&limit, u32::MAX, Nanos(u64::MAX)), Ok(()));
    }
}

#[test]
fn threads_that_share_a_budget_get_it_once() {
    let limit = Limit::new(8_000_000, Some(8 * 128 * 1024));
    let budget = Budget::default();
    let all: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| passed(&budget, &limit, 1000, 0, SECOND))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
    });
    // A megabyte in a second, and the burst.
    let most = 1_000_000 + 128 * 1024;
    assert!((most..most + 2000).contains(&all), "{all}");
}

proptest! {
    /// 100 Gbit/s is beyond what a port of ours carries. A frame's time is rounded up to a part of a
    /// nanosecond, which is felt of the shortest frames at such rates.
    #[test]
    fn the_rate_is_exact_in_the_long_run(rate in 1_000_u64..100_000_000_000, frame in 60_u32..65_000) {
        let limit = Limit::new(rate, None);
        let budget = Budget::default();
        passed(&budget, &limit, frame, 0, 1);
        // The burst is spent: what passes now was earned.
        let from = budget.opens_at(&limit).0;
        let nanos = long(rate, frame);
        let bytes = passed(&budget, &limit, frame, from, nanos);
        let exact = u128::from(rate) * u128::from(nanos) / (8 * u128::from(SECOND));
        let error = (bytes as f64 / exact as f64 - 1.0).abs();
        let parts_a_frame = f64::from(frame) * 8e9 / rate as f64 * PARTS_PER_NANO as f64;
        prop_assert!(error <= 0.001 + 1.0 / parts_a_frame, "{bytes} of {exact}");
    }

    /// Whatever the times are, no more passes than the rate, the burst and a frame up to the latest.
    #[test]
    fn no_order_of_times_lets_more_pass(
        rate in 1_000_u64..10_000_000_000,
        burst in 0_u64..10_000_000,
        tries in prop::collection::vec((0_u64..10 * SECOND, 1_u32..65_000), 1..400),
    ) {
        let limit = Limit::new(rate, Some(burst));
        let budget = Budget::default();
        let (mut bytes, mut latest, mut longest) = (0, 0, 0);
        for (now, frame) in tries {
            if budget.take(&limit, frame, Nanos(now)).is_ok() {
                bytes += u128::from(frame);
                latest = latest.max(now);
                longest = longest.max(u128::from(frame));
            }
        }
        let earned = u128::from(rate) * u128::from(latest) / (8 * u128::from(SECOND));
        let allowed = u128::from((burst / 8).max(rate / 800));
        prop_assert!(bytes <= earned + allowed + longest + 2, "{bytes}");
    }

    /// A used up budget opens again when it says, which is when its last frame is earned at the latest.
    #[test]
    fn it_never_blocks_for_ever(
        rate in Limit::RATES,
        burst in prop::option::of(any::<u64>()),
        frames in prop::collection::vec(1_u32..70_000, 1..400),
        now in 0_u64..SECOND * 3600 * 24 * 365,
    ) {
        let limit = Limit::new(rate, burst);
        let budget = Budget::default();
        let mut last = 0;
        for frame in frames {
            match budget.take(&limit, frame, Nanos(now)) {
                Ok(()) => last = frame,
                Err(opens) => {
                    let earned = u128::from(last) * 8 * u128::from(SECOND) / u128::from(rate);
                    prop_assert!(u128::from(opens.0 - now) <= earned + 2);
                    prop_assert_eq!(budget.take(&limit, 60, opens), Ok(()));
                    return Ok(());
                }
            }
        }
    }
}
