//! However routes and pods come and go, what is learned step by step is what a look at all of it
//! would learn.

use std::collections::BTreeSet;

use ipnet::IpNet;
use netlink::Placement::Replaces;
use proptest::prelude::*;

use super::judge::{Scope, judge};
use super::lines::{HOST, UPLINK, route};
use super::mirror::{Mirror, prefix_of};
use super::{Lesson, Open, Tracked, judge_open};

/// Destinations that lie in, cover and are taken prefixes, this node's and its pods'.
const DESTINATIONS: [&str; 10] = [
    "0.0.0.0/0",
    "198.18.0.0/15",
    "198.18.0.0/16",
    "198.18.0.0/23",
    "198.18.1.0/24",
    "198.18.1.5/32",
    "198.18.2.0/24",
    "198.18.2.7/32",
    "198.19.0.0/24",
    "fd00:18::/32",
];

const WAYS: [&str; 6] = [
    "via 198.51.100.2 dev eth0",
    "via 203.0.113.12 dev vsw0 onlink",
    "nexthop via 198.51.100.2 dev eth0 weight 2 nexthop via 203.0.113.12 dev vsw0 onlink",
    "nexthop via 198.51.100.2 dev eth0 nexthop via 198.51.100.2 dev eth0",
    "dev docker0",
    "via 198.18.9.9 dev vsw0 onlink",
];

const PODS: [&str; 3] = ["198.18.1.5", "198.18.2.7", "198.19.0.3"];

#[derive(Debug, Clone)]
enum Step {
    Route { destination: usize, way: usize, metric: u8 },
    Gone { destination: usize, metric: u8 },
    Pods(BTreeSet<usize>),
    Covering(bool),
    Judge,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (destination, metric) = (0..DESTINATIONS.len(), 0..2u8);
    let step = prop_oneof![
        6 => (destination.clone(), 0..WAYS.len(), metric.clone())
            .prop_map(|(destination, way, metric)| Step::Route { destination, way, metric }),
        3 => (destination, metric)
            .prop_map(|(destination, metric)| Step::Gone { destination, metric }),
        1 => prop::collection::btree_set(0..PODS.len(), 0..3).prop_map(Step::Pods),
        1 => any::<bool>().prop_map(Step::Covering),
        3 => Just(Step::Judge),
    ];
    prop::collection::vec(step, 0..40)
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

fn scope() -> Scope {
    Scope {
        prefixes: nets(&["198.18.0.0/16", "198.19.0.0/16", "fd00:18::/32"]),
        covering: true,
        own: nets(&["198.18.1.0/24"]),
        cluster: nets(&["198.18.0.0/16", "fd00:18::/32"]),
        uplink: Some(UPLINK),
        host: Some(HOST),
        ..Scope::default()
    }
}

/// A node without a kernel.
struct Node {
    mirror: Mirror,
    open: Open,
    scope: Scope,
    judged_for: Scope,
    learned: Tracked,
}

impl Node {
    fn new() -> Self {
        let scope = scope();
        Self {
            mirror: Mirror::new(254, &scope.prefixes),
            open: Open::All,
            judged_for: Scope::default(),
            scope,
            learned: Tracked::default(),
        }
    }

    fn route(&mut self, line: &str) {
        let route = route(line);
        self.mirror.changed(&route, Replaces);
        self.open.add(prefix_of(&route));
    }

    fn gone(&mut self, line: &str) {
        let route = route(line);
        self.mirror.gone(&route);
        self.open.add(prefix_of(&route));
    }

    fn judge(&mut self) -> Lesson {
        let scope = self.scope.clone();
        self.open.follow(&self.judged_for, &scope, &self.mirror);
        let lesson = judge_open(&self.mirror, &scope, &mut self.open, &mut self.learned);
        self.judged_for = scope;
        lesson
    }
}

proptest! {
    #[test]
    fn what_is_learned_step_by_step_is_what_a_look_at_all_learns(steps in steps()) {
        let mut node = Node::new();
        for step in steps.into_iter().chain([Step::Judge]) {
            match step {
                Step::Route { destination, way, metric } => node.route(
                    &format!("{} {} metric {metric}", DESTINATIONS[destination], WAYS[way]),
                ),
                Step::Gone { destination, metric } => {
                    for way in WAYS {
                        node.gone(&format!("{} {way} metric {metric}", DESTINATIONS[destination]));
                    }
                }
                Step::Pods(pods) => {
                    let pods = pods.into_iter().map(|pod| PODS[pod].parse().expect("an address"));
                    node.scope.pods = pods.collect();
                }
                Step::Covering(covering) => node.scope.covering = covering,
                Step::Judge => {
                    let (revision, before) = (node.learned.revision(), node.learned.clone());
                    let lesson = node.judge();
                    prop_assert_eq!(&*node.learned, &judge(&node.mirror, &node.scope));
                    prop_assert_eq!(lesson.is_changed, *before != *node.learned);
                    for prefix in &lesson.refused {
                        let reason = |learned: &Tracked| learned.refused.get(prefix).cloned();
                        prop_assert_ne!(reason(&node.learned), None);
                        prop_assert_ne!(reason(&node.learned), reason(&before));
                    }
                    if let Some(changed) = node.learned.since(revision) {
                        for prefix in nets(&DESTINATIONS) {
                            let way = |learned: &Tracked| learned.routes.get(&prefix).cloned();
                            prop_assert!(
                                changed.contains(&prefix) || way(&before) == way(&node.learned)
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_route_that_a_pod_stood_against_is_taken_when_the_pod_is_gone() {
    let mut node = Node::new();
    node.scope.pods = ["198.18.2.7".parse().expect("an address")].into();
    node.route("198.18.2.7/32 via 198.51.100.2 dev eth0");
    let refused = nets(&["198.18.2.7/32"]);
    assert_eq!(node.judge(), Lesson { is_changed: true, refused });
    assert_eq!(node.judge(), Lesson::default());
    node.scope.pods.clear();
    assert!(node.judge().is_changed);
    assert_eq!(node.learned.routes.len(), 1);
}

#[test]
fn one_route_is_one_change() {
    let mut node = Node::new();
    node.judge();
    let revision = node.learned.revision();
    node.route("198.18.2.0/24 via 198.51.100.2 dev eth0");
    node.judge();
    let changed = node.learned.since(revision);
    assert_eq!(changed, Some(nets(&["198.18.2.0/24"]).into_iter().collect()));
}
