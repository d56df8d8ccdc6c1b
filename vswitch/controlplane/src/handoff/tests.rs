use dataplane::Millis;

use super::{HANDING_PART, Handoff, SECOND, Sharing, WorkerWork};

/// A node whose packets of IPIP all come to worker 0. In percent of a core.
struct Node {
    handoff: Handoff,
    members: Vec<usize>,
    /// What each worker does beside that.
    beside: Vec<u64>,
    /// Packets of IPIP.
    ipip: u64,
    second: u64,
}

impl Node {
    fn new(beside: &[u64], ipip: u64) -> Self {
        Self {
            handoff: Handoff::default(),
            members: vec![0],
            beside: beside.to_vec(),
            ipip,
            second: 0,
        }
    }

    /// What each worker does in a second, with the members as they are; none does more than a second.
    fn work(&self) -> Vec<WorkerWork> {
        let percent = SECOND / 100;
        let share = self.ipip * percent / self.members.len() as u64;
        let handed: Vec<_> = (0..self.beside.len())
            .map(|worker| if worker > 0 && self.members.contains(&worker) { share } else { 0 })
            .collect();
        let mut work: Vec<_> = self
            .beside
            .iter()
            .zip(&handed)
            .map(|(beside, handed)| WorkerWork {
                busy: (beside * percent + handed).min(SECOND),
                ..WorkerWork::default()
            })
            .collect();
        let kept = if self.members.contains(&0) { share } else { 0 };
        let busy = work[0].busy + kept + handed.iter().sum::<u64>() / HANDING_PART;
        work[0] = WorkerWork { busy: busy.min(SECOND), kept, handed };
        work
    }

    /// Changes within so many seconds.
    fn changes(&mut self, seconds: u64) -> Vec<Vec<usize>> {
        let mut changes = Vec::new();
        for _ in 0..seconds {
            self.second += 1;
            let work = self.work();
            if let Some(due) = self.handoff.look(&work, Millis(self.second * 1000)) {
                let Sharing { worker, members } = due;
                assert_eq!(worker, 0, "no other receives any");
                self.members.clone_from(&members);
                changes.push(members);
            }
        }
        changes
    }
}

#[test]
fn a_busy_worker_shares_with_an_idle_one_and_goes_on() {
    let mut node = Node::new(&[0, 0], 80);
    assert_eq!(node.changes(60), [[0, 1]]);
}

#[test]
fn a_worker_with_time_keeps_its_packets() {
    assert!(Node::new(&[0, 0], 45).changes(60).is_empty());
    assert!(Node::new(&[20, 0], 25).changes(60).is_empty());
}

#[test]
fn what_others_have_no_time_for_stays() {
    assert!(Node::new(&[0, 70], 75).changes(60).is_empty());
    assert!(Node::new(&[0, 100], 100).changes(60).is_empty());
}

#[test]
fn a_worker_that_pods_keep_busy_shares_nothing() {
    assert!(Node::new(&[90, 0], 5).changes(60).is_empty());
}

#[test]
fn where_pods_keep_the_worker_busy_as_well_the_other_gets_all() {
    let mut node = Node::new(&[50, 0], 40);
    assert_eq!(node.changes(60), [[1]]);
}

#[test]
fn no_more_share_than_it_takes() {
    let mut node = Node::new(&[0; 16], 90);
    let changes = node.changes(120);
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert!((2..=5).contains(&changes[0].len()), "{changes:?}");
    // Of idle workers; one that is busy is left out.
    let mut node = Node::new(&[0, 90, 0, 90], 90);
    assert_eq!(node.changes(60), [[0, 2]]);
}

#[test]
fn packets_come_back_when_there_are_few_and_not_before() {
    let mut node = Node::new(&[0, 0], 80);
    assert_eq!(node.changes(30), [[0, 1]]);
    node.ipip = 45;
    assert!(node.changes(60).is_empty(), "alone it would be nearly busy again");
    node.ipip = 20;
    assert_eq!(node.changes(60), [[0]]);
    node.ipip = 45;
    assert!(node.changes(60).is_empty());
}

#[test]
fn a_burst_of_a_second_changes_nothing() {
    let mut node = Node::new(&[0, 0], 10);
    assert!(node.changes(20).is_empty());
    node.ipip = 100;
    assert!(node.changes(1).is_empty());
    node.ipip = 10;
    assert!(node.changes(20).is_empty());
}

#[test]
fn another_that_becomes_busy_is_spared() {
    let mut node = Node::new(&[0, 0, 0], 60);
    let changes = node.changes(30);
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert!(changes[0].contains(&1), "{changes:?}");
    node.beside[1] = 90;
    let changes = node.changes(60);
    assert_eq!(changes, [[0, 2]], "{:?}", node.members);
}

#[test]
fn after_another_change_the_averages_are_waited_for() {
    let mut node = Node::new(&[0, 0], 80);
    node.handoff.settle(Millis(0));
    assert!(node.changes(7).is_empty());
    assert_eq!(node.changes(10), [[0, 1]]);
}
