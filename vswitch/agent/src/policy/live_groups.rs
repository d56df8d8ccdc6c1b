//! The groups that rule sets name, and their members, as pods and nodes come and go.
//!
//! Enters: groups that rule sets begin and cease to name, and what a pod or a node contributes before and
//! after a change. Leaves: the members, and which of them are others than before, to `changes`; how many there
//! are, to the ledger.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::GroupId;

use super::changes::PolicyChanges;
use super::group::GroupMembers;
use super::pod::{Pod, PodKey};
use super::scope_index::ScopeIndex;
use super::share::{Ledger, Usage};
use super::{Cluster, PolicyNode};

/// The groups.
#[derive(Debug, Default)]
pub(super) struct LiveGroups {
    all: BTreeMap<u32, LiveGroup>,
    by_id: BTreeMap<GroupId, u32>,
    /// Groups of pods.
    of_pods: ScopeIndex<u32>,
    next: u32,
}

/// A group.
#[derive(Debug)]
struct LiveGroup {
    id: GroupId,
    members: GroupMembers,
    /// Its members, and how many pods or nodes have each.
    addresses: BTreeMap<IpAddr, u32>,
    /// How many rule sets name it.
    users: usize,
    /// How many of those each namespace has.
    owners: BTreeMap<Box<str>, usize>,
}

impl LiveGroup {
    fn usage(&self) -> Usage {
        Usage::of_group(&self.id, self.addresses.len())
    }

    /// So many members more.
    const ONE_MEMBER: Usage = Usage { groups: 0, members: 1, rule_sets: 0, bytes: 0 };

    fn count_member(&self, joins: bool, ledger: &mut Ledger) {
        let count = if joins { Ledger::add_to } else { Ledger::subtract_from };
        self.owners.keys().for_each(|owner| count(ledger, owner, Self::ONE_MEMBER));
        let count = if joins { Ledger::add } else { Ledger::subtract };
        count(ledger, None, Self::ONE_MEMBER);
    }
}

/// What a pod or a node contributes: addresses by group.
pub(super) type Contribution = Vec<(u32, Vec<IpAddr>)>;

impl LiveGroups {
    /// A rule set names a group from now on, one of the namespace `owner`.
    pub(super) fn acquire(
        &mut self,
        id: GroupId,
        members: GroupMembers,
        owner: Option<&str>,
        cluster: &Cluster,
        (ledger, changes): (&mut Ledger, &mut PolicyChanges),
    ) {
        if !self.by_id.contains_key(&id) {
            self.make(id.clone(), members, cluster, changes);
            let made = self.by_id.get(&id).and_then(|number| self.all.get(number));
            made.into_iter().for_each(|group| ledger.add(None, group.usage()));
        }
        let Some(group) = self.by_id.get(&id).and_then(|number| self.all.get_mut(number)) else {
            return;
        };
        group.users += 1;
        if let Some(owner) = owner {
            let users = group.owners.entry(owner.into()).or_default();
            *users += 1;
            if *users == 1 {
                ledger.add_to(owner, group.usage());
            }
        }
    }

    fn make(
        &mut self,
        id: GroupId,
        members: GroupMembers,
        cluster: &Cluster,
        changes: &mut PolicyChanges,
    ) {
        let number = self.next;
        self.next += 1;
        let mut addresses = BTreeMap::new();
        for address in members.each(cluster) {
            *addresses.entry(address).or_default() += 1;
        }
        if let GroupMembers::Pods { scope, .. } = &members {
            self.of_pods.insert(scope, &number);
        }
        changes.make_group(&id);
        self.by_id.insert(id.clone(), number);
        let owners = BTreeMap::new();
        self.all.insert(number, LiveGroup { id, members, addresses, users: 0, owners });
    }

    /// A rule set no longer names a group.
    pub(super) fn release(
        &mut self,
        id: &GroupId,
        owner: Option<&str>,
        (ledger, changes): (&mut Ledger, &mut PolicyChanges),
    ) {
        let Some(number) = self.by_id.get(id).copied() else { return };
        let Some(group) = self.all.get_mut(&number) else { return };
        group.users -= 1;
        if let Some(owner) = owner
            && let Some(users) = group.owners.get_mut(owner)
        {
            *users -= 1;
            if *users == 0 {
                group.owners.remove(owner);
                ledger.subtract_from(owner, group.usage());
            }
        }
        if group.users > 0 {
            return;
        }
        ledger.subtract(None, group.usage());
        if let GroupMembers::Pods { scope, .. } = &group.members {
            self.of_pods.remove(scope, &number);
        }
        self.all.remove(&number);
        self.by_id.remove(id);
        changes.remove_group(id);
    }

    /// What a pod contributes as the cluster is.
    pub(super) fn of_pod(&self, cluster: &Cluster, key: &PodKey, pod: &Pod) -> Contribution {
        let may_be = self.of_pods.may_contain(&key.namespace, &pod.labels);
        let groups = may_be.filter_map(|number| {
            let addresses = self.all.get(number)?.members.of_pod(cluster, key, pod);
            (!addresses.is_empty()).then_some((*number, addresses))
        });
        groups.collect()
    }

    /// What a node contributes.
    pub(super) fn of_node(&self, node: &PolicyNode) -> Contribution {
        let groups = self.all.iter().filter_map(|(number, group)| {
            let addresses = group.members.of_node(node);
            (!addresses.is_empty()).then(|| (*number, addresses.to_vec()))
        });
        groups.collect()
    }

    /// A pod or a node contributes `new` instead of `old`.
    pub(super) fn change(
        &mut self,
        old: Contribution,
        new: Contribution,
        (ledger, changes): (&mut Ledger, &mut PolicyChanges),
    ) {
        // What joins goes first, so that what stays does not leave in between.
        for (number, addresses) in new {
            let Some(group) = self.all.get_mut(&number) else { continue };
            for address in addresses {
                let count = group.addresses.entry(address).or_default();
                *count += 1;
                if *count == 1 {
                    group.count_member(true, ledger);
                    changes.change_member(&group.id, address, false);
                }
            }
        }
        for (number, addresses) in old {
            let Some(group) = self.all.get_mut(&number) else { continue };
            for address in addresses {
                let Some(count) = group.addresses.get_mut(&address) else { continue };
                *count -= 1;
                if *count == 0 {
                    group.addresses.remove(&address);
                    group.count_member(false, ledger);
                    changes.change_member(&group.id, address, true);
                }
            }
        }
    }

    /// What makes an address a member of a group, and the members.
    pub(super) fn get(&self, id: &GroupId) -> Option<(&GroupMembers, &BTreeMap<IpAddr, u32>)> {
        let group = self.all.get(self.by_id.get(id)?)?;
        Some((&group.members, &group.addresses))
    }

    /// All of them by name.
    pub(super) fn ids(&self) -> impl Iterator<Item = &GroupId> {
        self.by_id.keys()
    }
}
