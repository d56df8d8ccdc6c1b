//! A Node as the API server sends it, as far as it is read here.
//!
//! Enters: JSON from the list and the watch, in `cluster`. Leaves: to `node` and `publish`, which
//! keep a fraction. A Node has up to some tens of kilobytes, most of it images and managed fields;
//! what is not named here is skipped while it is parsed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

/// A Node.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct NodeObject {
    /// Name, annotations, age.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The part that the cluster assigned.
    #[serde(default)]
    pub spec: Spec,
    /// The part that the node reports.
    #[serde(default)]
    pub status: NodeStatus,
}

/// `spec` of a Node.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Spec {
    /// The first of `pod_cidrs`; alone on servers before dual stack.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    /// Pod CIDRs, one a family.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Option<Vec<String>>,
}

/// `status` of a Node.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct NodeStatus {
    /// Addresses by type.
    pub addresses: Option<Vec<NodeAddress>>,
    /// Conditions by type.
    pub conditions: Option<Vec<Condition>>,
}

/// One address of a Node.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct NodeAddress {
    /// `InternalIP`, `Hostname` and others.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The address, as text.
    #[serde(default)]
    pub address: String,
}

/// One condition of a Node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Condition {
    /// `NetworkUnavailable`, `Ready` and others.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
    /// Reason in one word.
    pub reason: Option<String>,
    /// Text for people.
    pub message: Option<String>,
}

impl NodeObject {
    /// Name of the Node; every stored object has one.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The value of an annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations()?.get(key).map(String::as_str)
    }

    /// Its addresses of all types, as far as they are such and no names.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let texts = self.status.addresses.iter().flatten().map(|entry| entry.address.as_str());
        texts.filter_map(|text| text.parse().ok())
    }

    fn annotations(&self) -> Option<&BTreeMap<String, String>> {
        self.metadata.annotations.as_ref()
    }
}

impl Resource for NodeObject {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
