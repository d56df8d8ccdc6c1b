use dataplane::Millis;
use dataplane::tables::PortId;
use proptest::prelude::*;

use super::{BUSY, Balance, FULL, GAIN, GAIN_OF_FULL, Move, PortWork, REST_MS, SECOND, SETTLE_MS};

/// A node with constant work: percents of a core, of each worker beside its ports and of each port.
struct Scene {
    balance: Balance,
    fixed: Vec<u64>,
    ports: Vec<PortWork>,
    now: u64,
}

const PERCENT: u64 = SECOND / 100;

impl Scene {
    /// Ports by number: worker and percent.
    fn new(fixed: &[u64], ports: &[(usize, u64)]) -> Self {
        let port = |(number, (worker, percent)): (usize, &(usize, u64))| PortWork {
            port: PortId(number as u16),
            worker: *worker,
            nanos: percent * PERCENT,
        };
        Self {
            balance: Balance::default(),
            fixed: fixed.iter().map(|percent| percent * PERCENT).collect(),
            ports: ports.iter().enumerate().map(port).collect(),
            now: 0,
        }
    }

    /// One look, a second later; a move is carried out.
    fn look(&mut self) -> Option<Move> {
        self.now += 1000;
        let due = self.balance.look(&self.fixed, &self.ports, Millis(self.now))?;
        let port = self.ports.iter_mut().find(|port| port.port == due.port).expect("a port");
        assert_eq!(port.worker, due.from);
        port.worker = due.to;
        Some(due)
    }

    /// The moves of so many seconds.
    fn seconds(&mut self, count: u64) -> Vec<Move> {
        (0..count).filter_map(|_| self.look()).collect()
    }

    /// What each worker really has to do.
    fn loads(&self) -> Vec<u64> {
        let mut loads = self.fixed.clone();
        self.ports.iter().for_each(|port| loads[port.worker] += port.nanos);
        loads
    }
}

#[test]
fn of_two_heavy_pods_on_one_worker_one_moves() {
    let mut scene = Scene::new(&[0, 0], &[(0, 40), (0, 40), (1, 5)]);
    let moves = scene.seconds(60);
    assert_eq!(moves, [Move { port: PortId(1), from: 0, to: 1 }]);
}

#[test]
fn a_pod_that_is_alone_stays_and_the_others_leave_it() {
    let mut scene = Scene::new(&[0, 0], &[(0, 90), (0, 15), (1, 10)]);
    let moves = scene.seconds(120);
    assert_eq!(moves, [Move { port: PortId(1), from: 0, to: 1 }]);
}

#[test]
fn work_for_the_nic_stays_and_pods_make_room_for_it() {
    let mut scene = Scene::new(&[60, 0], &[(0, 20), (1, 10)]);
    assert_eq!(scene.seconds(60), [Move { port: PortId(0), from: 0, to: 1 }]);
}

#[test]
fn nothing_moves_where_there_is_room_or_little_to_gain() {
    // Half idle; nearly as busy as the other; one worker alone.
    for (fixed, ports) in [
        (&[0, 0][..], &[(0, 20), (0, 20), (0, 9)][..]),
        (&[0, 0], &[(0, 50), (0, 8), (1, 50)]),
        (&[90], &[(0, 10)]),
        (&[0, 90], &[(0, 90), (1, 1)]),
        (&[], &[]),
    ] {
        assert_eq!(Scene::new(fixed, ports).seconds(60), [], "{fixed:?} {ports:?}");
    }
}

#[test]
fn a_burst_of_a_second_moves_nothing() {
    let mut scene = Scene::new(&[0, 0], &[(0, 5), (0, 5)]);
    assert_eq!(scene.seconds(10), []);
    scene.ports[0].nanos = SECOND;
    assert_eq!(scene.look(), None);
    scene.ports[0].nanos = 5 * PERCENT;
    assert_eq!(scene.seconds(10), []);
}

#[test]
fn a_port_that_was_moved_rests_and_so_do_the_others_for_a_while() {
    let mut scene = Scene::new(&[0, 0], &[(0, 40), (0, 40), (0, 15)]);
    let mut at = Vec::new();
    for _ in 0..30 {
        let due = scene.look();
        at.extend(due.map(|due| (due.port, scene.now)));
    }
    let [(first, moved)] = at[..] else { panic!("{at:?}") };
    // Now the other worker becomes the busier one, and would send it back.
    scene.fixed = vec![0, 80 * PERCENT];
    while scene.look().is_none_or(|due| due.port != first) {
        assert!(scene.now < moved + 2 * REST_MS, "it is moved at last");
    }
    assert!(scene.now >= moved + REST_MS);
}

#[test]
fn a_port_that_is_gone_is_forgotten() {
    let mut scene = Scene::new(&[0, 0], &[(0, 80), (1, 5)]);
    scene.seconds(10);
    let gone = scene.ports.remove(0);
    assert_eq!(scene.look(), None);
    assert_eq!(scene.balance.work_of(gone.port), 0);
}

proptest! {
    /// With constant work every move makes the busiest of the two workers less busy, nothing moves for ever,
    /// and no single move is left by which more could be gained.
    #[test]
    fn constant_work_comes_to_rest(
        fixed in proptest::collection::vec(0..40u64, 1..6),
        ports in proptest::collection::vec((0..6usize, 0..60u64), 0..30),
    ) {
        let ports: Vec<_> =
            ports.into_iter().map(|(worker, percent)| (worker % fixed.len(), percent)).collect();
        let mut scene = Scene::new(&fixed, &ports);
        // The averages begin at zero.
        prop_assert!(scene.balance.look(&scene.fixed, &scene.ports, Millis(0)).is_none_or(|_| true));
        let mut quiet = 0;
        let mut moves = 0;
        while quiet < 2 * (REST_MS + SETTLE_MS) / 1000 {
            let before = scene.loads();
            match scene.look() {
                None => quiet += 1,
                Some(due) => {
                    let after = scene.loads();
                    let busier = |loads: &[u64]| loads[due.from].max(loads[due.to]);
                    prop_assert!(busier(&after) < busier(&before), "{due:?} {before:?} {after:?}");
                    (quiet, moves) = (0, moves + 1);
                }
            }
            prop_assert!(moves <= 4 * ports.len(), "it comes to rest");
        }
        let loads = scene.loads();
        let idlest = loads.iter().copied().min().unwrap_or_default();
        // An average is a little below a constant value, by rounding down.
        let helps = |port: &PortWork| {
            let from = loads[port.worker];
            let gain = if from < FULL + PERCENT { GAIN } else { GAIN_OF_FULL };
            from >= BUSY + PERCENT && (from - port.nanos).max(idlest + port.nanos) + gain + PERCENT < from
        };
        prop_assert!(!scene.ports.iter().any(helps), "{loads:?}");
    }
}
