//! Which policies are beyond the shares of their namespaces, as the cluster changes.
//!
//! Enters: what `live` counts of each namespace as it settles its subjects. Leaves: for a namespace that has
//! more than its share, where its policies are cut, and the pods of this node that are settled anew for it.
//! While each has less than its share, that costs the counting alone.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{GroupMembers, PodScope};
use super::live::LiveTranslation;
use super::pod::{Pod, PodKey};
use super::rule::Policy;
use super::share::{Cut, Usage, cut, policies_of};

/// Cut namespaces are looked at again once a pod of so many has gone or changed: a look costs what that many
/// changes do.
const PODS_OF_A_LOOK: usize = 64;
/// A share is halved so often at most.
const MOST_HALVINGS: u32 = 12;

/// What stands of cuts.
#[derive(Debug, Default)]
pub(super) struct Shares {
    cuts: BTreeMap<Box<str>, Cut>,
    /// Policies that are cut and select pods of this node, by namespace and `Policy::id`, and why.
    refusals: BTreeMap<Box<str>, BTreeMap<String, String>>,
    /// Cut namespaces with other policies or pods of this node than before.
    touched: BTreeSet<Box<str>>,
    /// Those of which something was not made, as they had more than their shares meanwhile.
    unfinished: BTreeSet<Box<str>>,
    /// Whether that is so as all had more than is possible.
    is_crowded: bool,
    /// Pods and nodes that went or changed since the last look.
    departures: usize,
    /// How often the share was halved, as all had more than is possible.
    halvings: u32,
    /// How much all had after that.
    total_then: Usage,
}

impl Shares {
    /// Whether a policy is represented by the rule set that stands for those beyond the share.
    pub(super) fn refuse(&self, policy: &Policy) -> bool {
        let cut = policy.namespace.as_ref().and_then(|namespace| self.cuts.get(&**namespace));
        cut.is_some_and(|cut| cut.refuses(policy))
    }

    /// A namespace has other policies, or other pods of this node.
    pub(super) fn touch(&mut self, namespace: &str) {
        if self.cuts.contains_key(namespace) {
            self.touched.insert(namespace.into());
        }
    }

    /// A pod or a node that was there has gone or is another.
    pub(super) fn depart(&mut self) {
        self.departures += usize::from(!self.cuts.is_empty());
    }

    /// Policies that are cut, by `Policy::id`, and why.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (&String, &String)> {
        self.refusals.values().flatten()
    }
}

impl LiveTranslation {
    /// Whether nothing is to be made for this namespace now. What is left out is made when its policies are
    /// cut, unless they are beyond its share then.
    pub(super) fn is_full(&mut self, owner: Option<&str>) -> bool {
        let Some(owner) = owner else { return false };
        let most = self.bounds.total.each(|most| most.saturating_mul(2));
        let is_crowded = self.ledger.total().excess(&most).is_some();
        // While what was cut is settled, the older policies may come before the newer ones go.
        let is_full = is_crowded || !self.is_reviewing && self.ledger.is_over(owner);
        self.shares.is_crowded |= is_crowded;
        if is_full {
            self.shares.unfinished.insert(owner.into());
        }
        is_full
    }

    /// Cuts the policies of the namespaces that have more than their shares, and takes up again those that
    /// have room.
    pub(super) fn review_shares(&mut self) {
        self.is_reviewing = true;
        let mut is_tried = false;
        let mut is_halved = false;
        loop {
            self.cut_namespaces();
            let is_crowded = std::mem::take(&mut self.shares.is_crowded);
            let is_full = self.ledger.total().excess(&self.bounds.total).is_some();
            if (is_full || is_crowded) && self.shares.halvings < MOST_HALVINGS {
                self.halve(1);
                is_halved = true;
            } else if self.shares.halvings > 0 && !is_halved && !is_tried && self.has_fallen() {
                self.halve(-1);
                is_tried = true;
            } else {
                break;
            }
        }
        if is_halved {
            self.shares.total_then = *self.ledger.total();
        }
        self.is_reviewing = false;
    }

    /// Whether all have clearly less than when the share was halved.
    fn has_fallen(&self) -> bool {
        let then = &self.shares.total_then;
        then.each(|then| then - then.div_ceil(8)).excess(self.ledger.total()).is_some()
    }

    fn halve(&mut self, by: i32) {
        self.shares.halvings = self.shares.halvings.saturating_add_signed(by);
        let halvings = self.shares.halvings;
        self.ledger.set_share(self.bounds.share.each(|most| most >> halvings));
        self.shares.touched.extend(self.shares.cuts.keys().cloned());
    }

    /// Cuts the policies of each namespace for which that may be otherwise than before, and settles.
    fn cut_namespaces(&mut self) {
        let shares = &mut self.shares;
        let mut namespaces = std::mem::take(&mut shares.touched);
        let all = self.cluster.pods.len() + self.cluster.nodes.len();
        if shares.departures > 0 && shares.departures.saturating_mul(PODS_OF_A_LOOK) >= all {
            namespaces.extend(shares.cuts.keys().cloned());
            shares.departures = 0;
        }
        let unfinished = std::mem::take(&mut shares.unfinished);
        let over = self.ledger.take_over();
        namespaces.extend(unfinished.iter().chain(&over).cloned());
        for namespace in namespaces {
            let is_other = self.cut_namespace(&namespace);
            if is_other || unfinished.contains(&namespace) {
                let keys = self.own_pods_of(&namespace).map(|(key, _)| key.clone());
                let keys: Vec<_> = keys.collect();
                self.unsettled.extend(keys);
            }
        }
        if !self.unsettled.is_empty() {
            self.settle_subjects();
        }
    }

    /// True if the policies are cut elsewhere than before.
    fn cut_namespace(&mut self, namespace: &str) -> bool {
        let own: Vec<_> = self.own_pods_of(namespace).collect();
        let mut size = |id: &_, members: &GroupMembers| {
            let known = self.groups.get(id).map(|(_, addresses)| addresses.len());
            known.unwrap_or_else(|| members.of(&self.cluster).len())
        };
        let new = cut(&self.cluster, &own, namespace, self.ledger.share(), &mut size);
        let mut refusals = BTreeMap::new();
        if let Some(cut) = &new {
            let reason = cut.reason(namespace);
            let policies = policies_of(&self.cluster, namespace);
            let selects = |policy: &&Policy| {
                let scope = policy.subject.as_ref();
                let is_in = |scope: &PodScope| {
                    own.iter().any(|(key, pod)| scope.contains(&self.cluster, key, pod))
                };
                cut.refuses(policy) && scope.is_some_and(is_in)
            };
            let refused = policies.filter(selects);
            refusals.extend(refused.map(|policy| (policy.id.clone(), reason.clone())));
        }
        let shares = &mut self.shares;
        shares.refusals.remove(namespace);
        if !refusals.is_empty() {
            shares.refusals.insert(namespace.into(), refusals);
        }
        let old = match new.clone() {
            Some(cut) => shares.cuts.insert(namespace.into(), cut),
            None => shares.cuts.remove(namespace),
        };
        old != new
    }

    /// The namespace's pods of this node that are judged.
    fn own_pods_of(&self, namespace: &str) -> impl Iterator<Item = (&PodKey, &Pod)> {
        let first = PodKey { namespace: namespace.to_owned(), name: String::new() };
        let own = self.own_pods.range(first..);
        let namespace = namespace.to_owned();
        let own = own.take_while(move |key| key.namespace == namespace);
        own.filter_map(|key| Some((key, self.cluster.pods.get(key)?)))
            .filter(|(_, pod)| pod.is_judged())
    }
}

#[cfg(test)]
mod tests;
