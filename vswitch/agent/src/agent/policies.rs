//! The agent's work on policies.
//!
//! Enters: what the watches report. Leaves: the index that follows it, and, once every kind was listed and the
//! burst of changes is over, what the daemon lacks of that. The agent's loop alone calls it.

use kube::runtime::watcher::Event;

use super::{Agent, LONGEST_POLICY_BURST, POLICY_QUIET};
use crate::burst::Burst;
use crate::object::NodeObject;
use crate::policy::index::PolicyIndex;
use crate::policy::object::ClusterPolicyKind;
use crate::watch::Seen;
use crate::watching::Watching;

/// What the agent has of policies.
pub(super) struct Policies {
    index: PolicyIndex,
    watching_pods: Watching,
    watching_namespaces: Watching,
    watching_network: Watching,
    watching_cluster: [Watching; 3],
    /// Changes that the daemon has not.
    pub(super) burst: Burst,
}

impl Policies {
    pub(super) fn new(node_name: &str) -> Self {
        Self {
            index: PolicyIndex::new(node_name),
            watching_pods: Watching::new("Pods cannot be watched"),
            watching_namespaces: Watching::new("Namespaces cannot be watched"),
            watching_network: Watching::new("NetworkPolicies cannot be watched"),
            watching_cluster: [
                Watching::new("ClusterNetworkPolicies cannot be watched"),
                Watching::new("AdminNetworkPolicies cannot be watched"),
                Watching::new("BaselineAdminNetworkPolicies cannot be watched"),
            ],
            burst: Burst::new(POLICY_QUIET, LONGEST_POLICY_BURST),
        }
    }

    pub(super) fn is_listed(&self) -> bool {
        self.index.is_listed()
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn take_node(&mut self, event: &Event<NodeObject>) {
        if self.index.take_node(event) {
            self.burst.changed();
        }
    }

    /// Takes what the watches of policies and of what they are about report.
    pub(super) fn take(&mut self, seen: Seen) {
        let Self { index, .. } = self;
        let is_new = match seen {
            Seen::Pod(event) => {
                let event = self.watching_pods.note(event);
                event.is_some_and(|event| index.take_pod(&event))
            }
            Seen::Namespace(event) => {
                let event = self.watching_namespaces.note(event);
                event.is_some_and(|event| index.take_namespace(&event))
            }
            Seen::NetworkPolicy(event) => {
                let event = self.watching_network.note(event);
                event.is_some_and(|event| index.take_network_policy(&event))
            }
            Seen::ClusterPolicy(kind, event) => {
                let event = watching(&mut self.watching_cluster, kind).note(event);
                event.is_some_and(|event| index.take_cluster_policy(kind, &event))
            }
            Seen::NoClusterPolicy(kind) => {
                watching(&mut self.watching_cluster, kind).absent();
                index.has_no(kind)
            }
            Seen::Node(_) | Seen::Service(_) | Seen::Slice(_) => false,
        };
        if is_new {
            self.burst.changed();
        }
    }
}

fn watching(all: &mut [Watching; 3], kind: ClusterPolicyKind) -> &mut Watching {
    let [cluster, admin, baseline] = all;
    match kind {
        ClusterPolicyKind::Cluster => cluster,
        ClusterPolicyKind::Admin => admin,
        ClusterPolicyKind::BaselineAdmin => baseline,
    }
}

impl Agent {
    /// Makes the daemon have what the policies ask for.
    pub(super) async fn settle_policies(&mut self) {
        self.policies.burst.clear();
        // Half a cluster would open what a policy closes, or close what one allows.
        if !self.settings.policies || !self.policies.is_listed() {
            return;
        }
        let index = &mut self.policies.index;
        index.live().settle();
        let Some(refused) = self.link.program_policies(index.live()).await else { return };
        let uid = |policy: &str| index.uid(policy).map(str::to_owned);
        self.report.settle_policies(index.problems(), refused, uid);
    }
}
