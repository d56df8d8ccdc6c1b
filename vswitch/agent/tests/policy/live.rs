//! Random changes, one after the other: the live translation is after each what the cluster is translated to
//! from scratch, and a daemon that follows the messages has just that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::{
    GroupId, PolicyDigest, PolicySync, RuleSet, RuleSetId, Subject, members_hash, rule_set_hash,
};
use proptest::prelude::*;
use vswitch_agent::policy::live::LiveTranslation;
use vswitch_agent::policy::pod::PodKey;
use vswitch_agent::policy::share::{PolicyBounds, Usage};
use vswitch_agent::policy::{Cluster, PolicyNode, Translation, held};

use crate::random;
use crate::world::{NODE, labels};

/// A change of one object: what becomes of it.
#[derive(Debug)]
enum Edit {
    Pod(PodKey),
    Namespace(String),
    Node(String),
    Policy(String),
}

/// All edits that make `next` of `live`, in an order that depends on `seed`.
fn edits(live: &LiveTranslation, next: &Cluster, seed: u64) -> Vec<Edit> {
    fn keys<K: Ord + Clone, V>(a: &BTreeMap<K, V>, b: &BTreeMap<K, V>) -> BTreeSet<K> {
        a.keys().chain(b.keys()).cloned().collect()
    }
    let now = live.cluster();
    let mut all = Vec::new();
    all.extend(keys(&now.pods, &next.pods).into_iter().map(Edit::Pod));
    all.extend(keys(&now.namespaces, &next.namespaces).into_iter().map(Edit::Namespace));
    all.extend(keys(&now.nodes, &next.nodes).into_iter().map(Edit::Node));
    all.extend(keys(&now.policies, &next.policies).into_iter().map(Edit::Policy));
    let mut state = seed;
    for place in (1..all.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        all.swap(place, (state >> 33) as usize % (place + 1));
    }
    all
}

fn apply(live: &mut LiveTranslation, next: &Cluster, edit: &Edit) {
    match edit {
        Edit::Pod(key) => match next.pods.get(key) {
            Some(pod) => live.put_pod(key, pod.clone()),
            None => live.remove_pod(key),
        },
        Edit::Namespace(name) => live.put_namespace(name, next.namespaces.get(name).cloned()),
        Edit::Node(name) => live.put_node(name, next.nodes.get(name).cloned()),
        Edit::Policy(id) => match next.policies.get(id) {
            Some(policy) => live.put_policy(policy.clone()),
            None => live.remove_policy(id),
        },
    };
}

/// What a daemon has that takes every message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Daemon {
    groups: BTreeMap<GroupId, BTreeSet<IpAddr>>,
    rule_sets: BTreeMap<RuleSetId, RuleSet>,
    subjects: BTreeMap<(String, String, Option<String>), Subject>,
}

impl Daemon {
    fn take(&mut self, parts: &[PolicySync]) {
        let committed = parts.iter().map(|part| part.commit).collect::<Vec<_>>();
        assert_eq!(committed.iter().filter(|commit| **commit).count(), parts.len().min(1));
        assert!(committed.last().copied().unwrap_or(true), "the last one");
        for (part, number) in parts.iter().zip(0..) {
            assert_eq!(part.part, number);
            for id in &part.gone_groups {
                // One that never had a member is none.
                self.groups.remove(id);
            }
            for change in &part.groups {
                let members = self.groups.entry(change.group.clone()).or_default();
                for address in &change.leave {
                    assert!(members.remove(address), "{address} was not in {:?}", change.group);
                }
                for address in &change.join {
                    assert!(members.insert(*address), "{address} was in {:?}", change.group);
                }
            }
            for id in &part.gone_rule_sets {
                assert!(self.rule_sets.remove(id).is_some(), "{id:?} was not there");
            }
            for named in &part.rule_sets {
                self.rule_sets.insert(named.id.clone(), named.set.clone());
            }
            for pod in &part.gone_subjects {
                let key = (pod.namespace.clone(), pod.name.clone(), pod.uid.clone());
                assert!(self.subjects.remove(&key).is_some(), "{pod:?} was not there");
            }
            for subject in &part.subjects {
                let pod = subject.pod.clone();
                self.subjects.insert((pod.namespace, pod.name, pod.uid), subject.clone());
            }
        }
        // A group without members is no group.
        self.groups.retain(|_, members| !members.is_empty());
    }

    fn digest(&self) -> PolicyDigest {
        let groups = self.groups.iter();
        let sets = self.rule_sets.iter();
        PolicyDigest {
            groups: groups.map(|(id, members)| (id.clone(), members_hash(members))).collect(),
            rule_sets: sets.map(|(id, set)| (id.clone(), rule_set_hash(set))).collect(),
            subjects: self.subjects.values().cloned().collect(),
        }
    }

    /// Panics unless it has just what there is.
    fn check(&self, live: &LiveTranslation) {
        for id in live.groups() {
            let members: BTreeSet<IpAddr> = live.members(id).copied().collect();
            assert_eq!(self.groups.get(id).cloned().unwrap_or_default(), members, "{id:?}");
        }
        let known: BTreeSet<&GroupId> = live.groups().collect();
        assert!(self.groups.keys().all(|id| known.contains(id)));
        let sets: BTreeMap<_, _> =
            live.rule_sets().map(|(id, set)| (id.clone(), set.clone())).collect();
        assert_eq!(self.rule_sets, sets);
        let subjects: Vec<&Subject> = live.subjects().values().collect();
        let mut has: Vec<&Subject> = self.subjects.values().collect();
        has.sort_by_key(|subject| (&subject.pod.namespace, &subject.pod.name));
        assert_eq!(has, subjects);
    }
}

/// Panics unless the live translation is what its cluster is translated to.
fn check(live: &LiveTranslation, bounds: &PolicyBounds) {
    let expected = Translation::within(live.cluster(), NODE, &bounds.share);
    assert_eq!(live.translation(), expected);
    for (id, members) in expected.members(live.cluster()) {
        let has: BTreeSet<IpAddr> = live.members(&id).copied().collect();
        assert_eq!(has, members, "{id:?}");
    }
    let own = live
        .cluster()
        .pods
        .iter()
        .filter(|(_, pod)| pod.is_judged() && pod.node.as_deref() == Some(NODE));
    let own: Vec<&PodKey> = own.map(|(key, _)| key).collect();
    assert_eq!(Vec::from_iter(live.subjects().keys()), own, "each own pod is a subject");
}

/// A cluster like a random world's, of several nodes, some pods of which are there.
fn cluster() -> impl Strategy<Value = Cluster> {
    let fates = proptest::collection::vec(0..8u8, 9);
    let namespaces = proptest::collection::vec(0..6u8, 3);
    (random::world(), fates, namespaces, 0..4u8).prop_map(|(mut world, fates, namespaces, node)| {
        for (name, fate) in ["x", "y", "z"].into_iter().zip(namespaces) {
            match fate {
                0 => drop(world.namespaces.remove(name)),
                1 => world.set_namespace(name, &[("ns", "x")]),
                2 => world.set_namespace(name, &[]),
                _ => {}
            }
        }
        let pool = [("node-a", "one"), ("node-b", "two")];
        for (place, (name, zone)) in pool.into_iter().enumerate() {
            let host = place as u8 + node % 2;
            let addresses = vec![[198, 51, 100, host].into()];
            let labels = labels(&[("zone", if node > 1 { zone } else { "one" })]);
            if node != 3 {
                world.nodes.insert(name.into(), PolicyNode { labels, addresses });
            }
        }
        let mut cluster = world.cluster();
        let mut fates = fates.into_iter();
        cluster.pods.retain(|_, pod| {
            let fate = fates.next().unwrap_or_default();
            pod.uid = format!("uid-{}", fate % 2);
            match fate {
                1 | 2 => pod.node = Some(Arc::from("node-b")),
                3 => pod.node = None,
                4 => pod.addresses.clear(),
                // Two pods have one address while one of them ends.
                5 => pod.addresses = vec![[198, 18, 1, 2].into()],
                _ => {}
            }
            fate != 0
        });
        cluster
    })
}

/// Bounds of all that are never met, and shares that some namespaces have more than, or none.
fn bounds() -> impl Strategy<Value = PolicyBounds> {
    let most = 1 << 30;
    let any = Usage { groups: most, members: most, rule_sets: most, bytes: most };
    let share = prop_oneof![
        2 => Just(any),
        2 => (1..6usize).prop_map(move |groups| Usage { groups, ..any }),
        2 => (1..12usize).prop_map(move |members| Usage { members, ..any }),
        2 => (1..5usize).prop_map(move |rule_sets| Usage { rule_sets, ..any }),
        2 => (100..4000usize).prop_map(move |bytes| Usage { bytes, ..any }),
    ];
    share.prop_map(move |share| PolicyBounds { share, total: any })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_changing_cluster_is_translated_as_from_scratch(
        clusters in proptest::collection::vec((cluster(), any::<u64>()), 1..4),
        bounds in bounds(),
    ) {
        let mut live = LiveTranslation::bounded(NODE, bounds);
        // One follows each change, one some of them at once, one compares now and then.
        let (mut each, mut some, mut seldom) = (Daemon::default(), Daemon::default(), Daemon::default());
        for (next, seed) in &clusters {
            for edit in &edits(&live, next, *seed) {
                apply(&mut live, next, edit);
                live.settle();
                check(&live, &bounds);
                let changes = live.take_changes();
                each.take(&held::changed(&live, changes));
                each.check(&live);
            }
            seldom.take(&held::difference(&live, seldom.digest()));
            seldom.check(&live);
            let again = held::difference(&live, seldom.digest());
            prop_assert_eq!(again, [PolicySync { commit: true, ..PolicySync::default() }]);
        }
        let mut live = LiveTranslation::bounded(NODE, bounds);
        for (next, seed) in &clusters {
            for (edit, number) in edits(&live, next, *seed).iter().zip(0..) {
                apply(&mut live, next, edit);
                if number % 5 == 4 {
                    live.settle();
                }
                if number % 10 == 9 {
                    let changes = live.take_changes();
                    some.take(&held::changed(&live, changes));
                    some.check(&live);
                }
            }
            live.settle();
            let changes = live.take_changes();
            some.take(&held::changed(&live, changes));
            some.check(&live);
            check(&live, &bounds);
        }
    }
}
