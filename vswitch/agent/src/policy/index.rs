//! All that policies are about, as the API server has it.
//!
//! Enters: events of the watches of NetworkPolicies, cluster policies, Namespaces, Pods and Nodes. Leaves:
//! the translation, to `held`, and a sentence for each policy of which something is left out, to `report`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;

use super::PolicyNode;
use super::live::LiveTranslation;
use super::object::{ClusterPolicyKind, ClusterPolicyObject, NamespaceObject};
use super::pod::{Pod, PodKey, PodObject};
use super::rule::Policy;
use crate::listing::{ListStep, Listing};
use crate::object::NodeObject;

/// So many problems of a policy are named; the rest is counted.
const NAMED: usize = 5;

/// All that policies are about.
#[derive(Debug, Default)]
pub struct PolicyIndex {
    live: LiveTranslation,
    pods: Listing,
    namespaces: Listing,
    nodes: Listing,
    network: Listing,
    cluster: BTreeMap<ClusterPolicyKind, Listing>,
    /// UIDs of policies, by [`Policy::id`].
    uids: BTreeMap<String, Box<str>>,
    problems: BTreeMap<String, String>,
}

impl PolicyIndex {
    /// Of no object yet, for the node of that name.
    #[must_use]
    pub fn new(node_name: &str) -> Self {
        let cluster = ClusterPolicyKind::ALL.map(|kind| (kind, Listing::default())).into();
        Self { live: LiveTranslation::new(node_name), cluster, ..Self::default() }
    }

    /// Whether all kinds were listed that are there: before that nothing is known for sure.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        let kinds = [&self.pods, &self.namespaces, &self.nodes, &self.network];
        kinds.into_iter().chain(self.cluster.values()).all(Listing::is_whole)
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.cluster().policies.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The UID of a policy, by [`Policy::id`].
    #[must_use]
    pub fn uid(&self, id: &str) -> Option<&str> {
        self.uids.get(id).map(|uid| &**uid)
    }

    /// Policies of which something is left out, or that deny what they do not mean to, by [`Policy::id`], and
    /// what, or why.
    #[must_use]
    pub fn problems(&self) -> BTreeMap<String, String> {
        let mut all = self.problems.clone();
        // The rule sets of one policy have the same reasons.
        for (id, why) in self.live.refusals().collect::<BTreeSet<_>>() {
            let known = all.entry(id.to_owned()).or_default();
            *known = if known.is_empty() { why.to_owned() } else { format!("{known}; {why}") };
        }
        all
    }

    /// The translation.
    pub fn live(&mut self) -> &mut LiveTranslation {
        &mut self.live
    }

    /// Takes what became of a Pod; true if something may have changed.
    pub fn take_pod(&mut self, event: &Event<PodObject>) -> bool {
        match self.pods.step(event, |object| pod_key(&object.metadata).to_string()) {
            ListStep::Nothing => false,
            ListStep::Put(object) => {
                let (key, pod) = Pod::new(object);
                self.live.put_pod(&key, pod)
            }
            ListStep::Remove(object) => self.live.remove_pod(&pod_key(&object.metadata)),
            ListStep::Whole(seen) => {
                let all = self.live.cluster().pods.keys();
                let gone: Vec<_> =
                    all.filter(|key| !seen.contains(&*key.to_string())).cloned().collect();
                for key in &gone {
                    self.live.remove_pod(key);
                }
                tracing::info!("listed {} Pod(s)", self.live.cluster().pods.len());
                true
            }
        }
    }

    /// Takes what became of a Namespace; true if something may have changed.
    pub fn take_namespace(&mut self, event: &Event<NamespaceObject>) -> bool {
        match self.namespaces.step(event, |object| name(&object.metadata).to_owned()) {
            ListStep::Nothing => false,
            ListStep::Put(NamespaceObject { metadata }) => {
                let labels = metadata.labels.clone().unwrap_or_default();
                self.live.put_namespace(name(metadata), Some(labels))
            }
            ListStep::Remove(object) => self.live.put_namespace(name(&object.metadata), None),
            ListStep::Whole(seen) => {
                let all = self.live.cluster().namespaces.keys();
                let gone: Vec<_> = all.filter(|name| !seen.contains(&***name)).cloned().collect();
                for name in &gone {
                    self.live.put_namespace(name, None);
                }
                true
            }
        }
    }

    /// Takes what became of a Node; true if something may have changed.
    pub fn take_node(&mut self, event: &Event<NodeObject>) -> bool {
        match self.nodes.step(event, |object| object.name().to_owned()) {
            ListStep::Nothing => false,
            ListStep::Put(object) => self.live.put_node(object.name(), Some(node(object))),
            ListStep::Remove(object) => self.live.put_node(object.name(), None),
            ListStep::Whole(seen) => {
                let all = self.live.cluster().nodes.keys();
                let gone: Vec<_> = all.filter(|name| !seen.contains(&***name)).cloned().collect();
                for name in &gone {
                    self.live.put_node(name, None);
                }
                true
            }
        }
    }

    /// Takes what became of a NetworkPolicy; true if something may have changed.
    pub fn take_network_policy(&mut self, event: &Event<NetworkPolicy>) -> bool {
        let id = |object: &NetworkPolicy| {
            let PodKey { namespace, name } = pod_key(&object.metadata);
            format!("NetworkPolicy {namespace}/{name}")
        };
        match self.network.step(event, id) {
            ListStep::Nothing => false,
            ListStep::Put(object) => self.put(Policy::network(object), &object.metadata),
            ListStep::Remove(object) => self.remove(&id(object)),
            ListStep::Whole(seen) => self.keep("NetworkPolicy", |id| seen.contains(id)),
        }
    }

    /// Takes what became of a cluster policy; true if something may have changed.
    pub fn take_cluster_policy(
        &mut self,
        kind: ClusterPolicyKind,
        event: &Event<ClusterPolicyObject>,
    ) -> bool {
        let id =
            |object: &ClusterPolicyObject| format!("{} {}", kind.name(), name(&object.metadata));
        match self.cluster.entry(kind).or_default().step(event, id) {
            ListStep::Nothing => false,
            ListStep::Put(object) => self.put(kind.policy(object), &object.metadata),
            ListStep::Remove(object) => self.remove(&id(object)),
            ListStep::Whole(seen) => self.keep(kind.name(), |id| seen.contains(id)),
        }
    }

    /// The API server has no such kind: there are no policies of it. True if something may have changed.
    pub fn has_no(&mut self, kind: ClusterPolicyKind) -> bool {
        let listing = self.cluster.entry(kind).or_default();
        let was_listed = listing.is_whole();
        listing.end_empty();
        let has_some = self.live.cluster().policies.keys().any(|id| is_of(id, kind.name()));
        has_some && self.keep(kind.name(), |_| false) || !was_listed
    }

    fn put(&mut self, policy: Policy, metadata: &ObjectMeta) -> bool {
        match summary(&policy.problems) {
            Some(sentence) => self.problems.insert(policy.id.clone(), sentence),
            None => self.problems.remove(&policy.id),
        };
        if let Some(uid) = &metadata.uid {
            self.uids.insert(policy.id.clone(), uid.as_str().into());
        }
        self.live.put_policy(policy)
    }

    fn remove(&mut self, id: &str) -> bool {
        self.problems.remove(id);
        self.uids.remove(id);
        self.live.remove_policy(id)
    }

    /// These are all policies of a kind.
    fn keep(&mut self, kind: &str, is_there: impl Fn(&str) -> bool) -> bool {
        let all = self.live.cluster().policies.keys().filter(|id| is_of(id, kind));
        let (kept, gone): (Vec<_>, Vec<_>) = all.cloned().partition(|id| is_there(id));
        for id in &gone {
            self.remove(id);
        }
        tracing::info!("listed {} of kind {kind}", kept.len());
        true
    }
}

fn is_of(id: &str, kind: &str) -> bool {
    id.split_once(' ').is_some_and(|(its, _)| its == kind)
}

fn pod_key(metadata: &ObjectMeta) -> PodKey {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    PodKey { namespace, name: name(metadata).to_owned() }
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// A Node as policies see it.
fn node(object: &NodeObject) -> PolicyNode {
    let labels = object.metadata.labels.clone().unwrap_or_default();
    let mut addresses: Vec<IpAddr> = object.addresses().collect();
    addresses.sort_unstable();
    addresses.dedup();
    PolicyNode { labels, addresses }
}

/// The problems of a policy in one sentence, or none.
fn summary(problems: &[String]) -> Option<String> {
    let named = problems.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    match problems.len() {
        0 => None,
        count if count > NAMED => Some(format!("{named}; and {} more", count - NAMED)),
        _ => Some(named),
    }
}

#[cfg(test)]
mod tests;
