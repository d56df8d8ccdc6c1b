//! Namespaces and cluster policies as the API server sends them, as far as they are read here.
//!
//! Enters: JSON from the lists and watches, in `watch`. Leaves: to `index`. What is not named here is
//! skipped while it is parsed.

use std::borrow::Cow;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use serde_json::Value;

use super::cluster::ClusterPolicySpec;
use super::rule::Policy;

/// A Namespace.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct NamespaceObject {
    /// Name and labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
}

/// A policy of the whole cluster, of whatever kind.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ClusterPolicyObject {
    /// Name and UID.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it says. It is read later, so that one that cannot be read spoils no list.
    #[serde(default)]
    pub spec: Value,
}

/// Kind of a policy of the whole cluster. Each is there if its custom resource is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterPolicyKind {
    /// ClusterNetworkPolicy, v1alpha2.
    Cluster,
    /// AdminNetworkPolicy, v1alpha1.
    Admin,
    /// BaselineAdminNetworkPolicy, v1alpha1.
    BaselineAdmin,
}

impl ClusterPolicyKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Cluster, Self::Admin, Self::BaselineAdmin];

    /// The name of the kind.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "ClusterNetworkPolicy",
            Self::Admin => "AdminNetworkPolicy",
            Self::BaselineAdmin => "BaselineAdminNetworkPolicy",
        }
    }

    /// The policy of an object of this kind.
    #[must_use]
    pub fn policy(self, object: &ClusterPolicyObject) -> Policy {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let (spec, unread) = match ClusterPolicySpec::deserialize(&object.spec) {
            Ok(spec) => (spec, None),
            Err(error) => {
                (ClusterPolicySpec::default(), Some(format!("it cannot be read: {error}")))
            }
        };
        let mut policy = match self {
            Self::Cluster => Policy::cluster(name, &spec),
            Self::Admin => Policy::admin(name, &spec),
            Self::BaselineAdmin => Policy::baseline_admin(name, &spec),
        };
        policy.problems.splice(0..0, unread);
        policy
    }
}

impl Resource for NamespaceObject {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Namespace".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "namespaces".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Resource for ClusterPolicyObject {
    type DynamicType = ClusterPolicyKind;
    type Scope = ClusterResourceScope;

    fn kind(kind: &ClusterPolicyKind) -> Cow<'_, str> {
        kind.name().into()
    }

    fn group(_: &ClusterPolicyKind) -> Cow<'_, str> {
        "policy.networking.k8s.io".into()
    }

    fn version(kind: &ClusterPolicyKind) -> Cow<'_, str> {
        match kind {
            ClusterPolicyKind::Cluster => "v1alpha2".into(),
            ClusterPolicyKind::Admin | ClusterPolicyKind::BaselineAdmin => "v1alpha1".into(),
        }
    }

    fn plural(kind: &ClusterPolicyKind) -> Cow<'_, str> {
        match kind {
            ClusterPolicyKind::Cluster => "clusternetworkpolicies".into(),
            ClusterPolicyKind::Admin => "adminnetworkpolicies".into(),
            ClusterPolicyKind::BaselineAdmin => "baselineadminnetworkpolicies".into(),
        }
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
