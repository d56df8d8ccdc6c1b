//! The numbers that pods give to named ports, as far as rule sets depend on them.
//!
//! Enters: the queries of rule sets, and pods that come and go. Leaves: the numbers, and the rule sets that
//! have to be made anew as a number is new or gone, to `live`.

use std::collections::{BTreeMap, BTreeSet};

use api::RuleSetId;

use super::Cluster;
use super::pod::{Pod, PodKey};
use super::resolve::{NamedPortQuery, PortNumbers};

/// The numbers by query.
#[derive(Debug, Default)]
pub(super) struct NamedPorts {
    all: BTreeMap<NamedPortQuery, Answer>,
}

/// The answer to a query.
#[derive(Debug, Default)]
struct Answer {
    /// Protocols and numbers, and how many pods have each.
    pods: BTreeMap<(u8, u16), usize>,
    /// The rule sets that depend on it.
    users: BTreeSet<RuleSetId>,
}

/// What one pod contributes: of each query the protocols and numbers.
pub(super) type NamedPortsOfPod = Vec<(NamedPortQuery, PortNumbers)>;

impl NamedPortQuery {
    /// The protocols and numbers, each as often as there are pods that have it.
    pub(super) fn of<'c>(&'c self, cluster: &'c Cluster) -> impl Iterator<Item = (u8, u16)> + 'c {
        self.scope.pods(cluster).flat_map(|pod| pod.numbers(&self.name, self.protocol))
    }
}

impl NamedPorts {
    /// The answer to a query, on which a rule set depends from now on.
    pub(super) fn ask(
        &mut self,
        query: NamedPortQuery,
        user: &RuleSetId,
        cluster: &Cluster,
    ) -> PortNumbers {
        let answer = self.all.entry(query);
        let answer = match answer {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                let mut answer = Answer::default();
                for number in new.key().of(cluster) {
                    *answer.pods.entry(number).or_default() += 1;
                }
                new.insert(answer)
            }
        };
        answer.users.insert(user.clone());
        answer.pods.keys().copied().collect()
    }

    /// A rule set no longer depends on a query.
    pub(super) fn forget(&mut self, query: &NamedPortQuery, user: &RuleSetId) {
        let Some(answer) = self.all.get_mut(query) else { return };
        answer.users.remove(user);
        if answer.users.is_empty() {
            self.all.remove(query);
        }
    }

    /// What a pod contributes.
    pub(super) fn of_pod(&self, cluster: &Cluster, key: &PodKey, pod: &Pod) -> NamedPortsOfPod {
        let names: BTreeSet<&str> = pod.ports.iter().map(|port| port.name.as_str()).collect();
        let queries = self.all.keys().filter(|query| names.contains(query.name.as_str()));
        let queries = queries.filter(|query| query.scope.contains(cluster, key, pod));
        let numbers = |query: &NamedPortQuery| pod.numbers(&query.name, query.protocol).collect();
        queries.map(|query| (query.clone(), numbers(query))).collect()
    }

    /// A pod contributes `new` instead of `old`. Returns the rule sets for which numbers came or went.
    pub(super) fn change(
        &mut self,
        old: NamedPortsOfPod,
        new: NamedPortsOfPod,
    ) -> BTreeSet<RuleSetId> {
        let mut changed = BTreeSet::new();
        for (query, numbers) in new {
            let Some(answer) = self.all.get_mut(&query) else { continue };
            for number in numbers {
                let pods = answer.pods.entry(number).or_default();
                *pods += 1;
                if *pods == 1 {
                    changed.extend(answer.users.iter().cloned());
                }
            }
        }
        for (query, numbers) in old {
            let Some(answer) = self.all.get_mut(&query) else { continue };
            for number in numbers {
                let Some(pods) = answer.pods.get_mut(&number) else { continue };
                *pods -= 1;
                if *pods == 0 {
                    answer.pods.remove(&number);
                    changed.extend(answer.users.iter().cloned());
                }
            }
        }
        changed
    }
}
