//! What the daemon shows of policies.

use serde::{Deserialize, Serialize};

use crate::{AttachmentId, PodName, PolicyTier, RefusedRuleSet};

/// The policies of a node's pods, and how much there is of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyState {
    /// The attached pods that policies concern.
    pub pods: Vec<PodPolicies>,
    /// How much there is.
    pub summary: PolicySummary,
}

/// The policies of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPolicies {
    /// Its port, as `show ports` names it.
    pub name: String,
    /// Its interface.
    pub attachment: AttachmentId,
    /// The pod as the runtime named it; absent where that was lost with a line of the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Connections to it.
    pub ingress: DirectionPolicies,
    /// Connections from it.
    pub egress: DirectionPolicies,
}

/// The policies of a pod in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionPolicies {
    /// What decides.
    pub isolation: Isolation,
    /// Why everything is denied, if it is so without a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The policies in the order of evaluation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyEntry>,
}

/// What decides about a pod's connections in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Nothing: no policy selects it, and everything is allowed.
    Open,
    /// Its policies.
    Policies,
    /// Everything is denied, as one of its policies is refused or missing.
    Closed,
    /// Everything is denied until it is known which policies it has.
    Pending,
}

/// A policy of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyEntry {
    /// The policy as people know it: namespace and name, or the name alone.
    pub policy: String,
    /// When it is evaluated.
    #[serde(flatten)]
    pub tier: PolicyTier,
    /// Rules that it has in this direction.
    pub rules: usize,
}

/// How much there is of policies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicySummary {
    /// Whether pods may be isolated: those with a name, until a source has told their policies, or those
    /// that policies of the configuration select.
    pub enforced: bool,
    /// Rule sets.
    pub rule_sets: usize,
    /// Groups with members.
    pub groups: usize,
    /// Members of all groups.
    pub members: usize,
    /// Pods whose rule sets are known, attached or not.
    pub subjects: usize,
    /// Tables of rules; pods with the same policies in a direction share one.
    pub tables: usize,
    /// Those of them whose rules are gone through one by one, as there is no room for more.
    pub linear_tables: usize,
    /// Memory of tables and prefixes, bytes.
    pub bytes: usize,
    /// Decisions about connections to pods with policies, since the daemon's start.
    #[serde(default)]
    pub ingress: PolicyDecisions,
    /// About connections from them.
    #[serde(default)]
    pub egress: PolicyDecisions,
    /// Rule sets that are refused: what they concern is denied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedRuleSet>,
}

/// How often policies allowed a connection, or denied it: one that is allowed is judged when it begins and
/// when policies change, one that is denied with each of its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyDecisions {
    /// It was allowed.
    pub allowed: u64,
    /// It was denied.
    pub denied: u64,
}

impl Isolation {
    /// Its name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Policies => "policies",
            Self::Closed => "closed",
            Self::Pending => "pending",
        }
    }
}
