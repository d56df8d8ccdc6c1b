//! Services and EndpointSlices as the API server sends them, as far as they are read here.
//!
//! Enters: JSON from the lists and watches, in `watch`. Leaves: to `virtuals` and `slice`, which keep a
//! fraction. What is not named here is skipped while it is parsed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

/// Another program than kube-proxy serves what has this label.
pub const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The Service has no virtual address; its EndpointSlices have the label, too.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// Name of the Service that an EndpointSlice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Of a Node: its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Key in the topology of an endpoint before `nodeName` came up.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Whether labels leave an object to others, as the watches' selector has it too.
#[must_use]
pub fn is_others(metadata: &ObjectMeta) -> bool {
    let is_labelled = |label| metadata.labels.as_ref().is_some_and(|all| all.contains_key(label));
    is_labelled(PROXY_NAME) || is_labelled(HEADLESS)
}

/// A Service.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ServiceObject {
    /// Namespace, name, labels, UID.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What its owner and the API server decided.
    #[serde(default)]
    pub spec: ServiceFields,
    /// What a load balancer's controller reports.
    #[serde(default)]
    pub status: ServiceStatus,
}

/// `spec` of a Service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceFields {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The first of `cluster_ips`; alone on servers before dual stack. `None` in a headless Service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// Virtual addresses inside the cluster, one a family.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    /// Virtual addresses that the Service's owner names.
    #[serde(rename = "externalIPs")]
    pub external_ips: Option<Vec<String>>,
    /// Who may speak to a load balancer's addresses.
    pub load_balancer_source_ranges: Option<Vec<String>>,
    /// Ports at the virtual addresses.
    pub ports: Option<Vec<ServicePortFields>>,
    /// `Cluster` or `Local`.
    pub internal_traffic_policy: Option<String>,
    /// `None` or `ClientIP`.
    pub session_affinity: Option<String>,
    /// How long an affinity lasts.
    pub session_affinity_config: Option<AffinityConfig>,
}

/// One port of a Service.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ServicePortFields {
    /// Its name; may be missing if it is the only one.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// The number at the virtual addresses.
    #[serde(default)]
    pub port: i64,
}

/// `spec.sessionAffinityConfig` of a Service.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AffinityConfig {
    /// Of `ClientIP`.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIp>,
}

/// Settings of the affinity `ClientIP`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientIp {
    /// Seconds of silence after which it is over.
    pub timeout_seconds: Option<i64>,
}

/// `status` of a Service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// What a load balancer's controller reports.
    pub load_balancer: Option<LoadBalancer>,
}

/// `status.loadBalancer` of a Service.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct LoadBalancer {
    /// Where the load balancer is reached.
    pub ingress: Option<Vec<Ingress>>,
}

/// One address of a load balancer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// The address; missing if it has a name alone.
    pub ip: Option<String>,
    /// `VIP`, or `Proxy` if the load balancer itself is to get the packets.
    pub ip_mode: Option<String>,
}

/// An EndpointSlice.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceObject {
    /// `discovery.k8s.io/v1`, or `discovery.k8s.io/v1beta1`.
    pub api_version: Option<String>,
    /// Namespace, name, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(default)]
    pub address_type: String,
    /// Ports on which all of its endpoints listen.
    pub ports: Option<Vec<SlicePortFields>>,
    /// Endpoints.
    pub endpoints: Option<Vec<EndpointFields>>,
}

/// One port of an EndpointSlice.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct SlicePortFields {
    /// Name of the Service's port.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// The number on which the endpoints listen.
    pub port: Option<i64>,
}

/// One endpoint of an EndpointSlice.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointFields {
    /// Its address is the first; the others are equivalent.
    pub addresses: Option<Vec<String>>,
    /// How ready it is.
    #[serde(default)]
    pub conditions: Conditions,
    /// Name of its Node.
    pub node_name: Option<String>,
    /// In v1beta1: labels of its Node.
    pub topology: Option<BTreeMap<String, String>>,
    /// Which nodes are to use it.
    pub hints: Option<Hints>,
}

/// How ready an endpoint is.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Conditions {
    /// It takes new connections.
    pub ready: Option<bool>,
    /// It would, were it not terminating.
    pub serving: Option<bool>,
    /// Its pod is being deleted.
    pub terminating: Option<bool>,
}

/// Which nodes are to use an endpoint.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hints {
    /// Nodes.
    pub for_nodes: Option<Vec<Hint>>,
    /// Zones.
    pub for_zones: Option<Vec<Hint>>,
}

/// A Node or a zone.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Hint {
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// Version of the API of EndpointSlices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SliceVersion {
    /// Since Kubernetes 1.21.
    #[default]
    V1,
    /// Until Kubernetes 1.24.
    V1Beta1,
}

impl SliceVersion {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::V1 => Self::V1Beta1,
            Self::V1Beta1 => Self::V1,
        }
    }
}

impl Resource for ServiceObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Service".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "services".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Resource for SliceObject {
    type DynamicType = SliceVersion;
    type Scope = NamespaceResourceScope;

    fn kind(_: &SliceVersion) -> Cow<'_, str> {
        "EndpointSlice".into()
    }

    fn group(_: &SliceVersion) -> Cow<'_, str> {
        "discovery.k8s.io".into()
    }

    fn version(version: &SliceVersion) -> Cow<'_, str> {
        match version {
            SliceVersion::V1 => "v1".into(),
            SliceVersion::V1Beta1 => "v1beta1".into(),
        }
    }

    fn plural(_: &SliceVersion) -> Cow<'_, str> {
        "endpointslices".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
