//! A pod as policies see it.
//!
//! Enters: a Pod as the API server sends it, as far as it is read here: labels, phase, node, addresses,
//! named ports. Leaves: a [`Pod`], slim and parsed. What is not named here is skipped while it is parsed.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use super::rule::protocol;
use super::selector::Labels;

/// Annotation of the object that a kubelet makes of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation with the static pod's UID.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// A Pod.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PodObject {
    /// Namespace, name, UID, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was asked for.
    #[serde(default)]
    pub spec: PodSpec,
    /// What became of it.
    #[serde(default)]
    pub status: PodStatus,
}

/// `spec` of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// Where it runs, once that is decided.
    pub node_name: Option<String>,
    /// It has the node's network, and no address of its own.
    #[serde(default)]
    pub host_network: bool,
    /// The containers.
    #[serde(default)]
    pub containers: Vec<Container>,
    /// Containers that run before the others, or beside them.
    #[serde(default)]
    pub init_containers: Option<Vec<Container>>,
}

/// A container of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// `Always` of an init container that runs beside the others.
    pub restart_policy: Option<String>,
    /// Its ports.
    pub ports: Option<Vec<ContainerPort>>,
}

/// A port of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// The name, unique in the container.
    pub name: Option<String>,
    /// The number.
    #[serde(default)]
    pub container_port: i64,
    /// TCP if absent.
    pub protocol: Option<String>,
}

/// `status` of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[serde(default)]
    pub phase: String,
    /// The first of `pod_ips`.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// Addresses, one a family.
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIp>>,
}

/// An address of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PodIp {
    /// The address, as text.
    #[serde(default)]
    pub ip: String,
}

impl Resource for PodObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Namespace and name of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// Number of the protocol.
    pub protocol: u8,
    /// The port.
    pub number: u16,
}

/// A pod as policies see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// UID by which the runtime knows it: a pod of the same name has another.
    pub uid: String,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// Where it runs.
    pub node: Option<Arc<str>>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its named ports; of two with the same name and protocol the first.
    pub ports: Arc<[NamedPort]>,
    /// It has the node's network.
    pub host_network: bool,
    /// All of its containers have ended, for good.
    pub finished: bool,
}

impl Pod {
    /// The pod of an object, and its key.
    #[must_use]
    pub fn new(object: &PodObject) -> (PodKey, Self) {
        let PodObject { metadata, spec, status } = object;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = PodKey { namespace: text(&metadata.namespace), name: text(&metadata.name) };
        let pod = Self {
            uid: uid(metadata).unwrap_or_default().to_owned(),
            labels: Arc::new(metadata.labels.clone().unwrap_or_default()),
            node: spec.node_name.as_deref().map(Arc::from),
            addresses: addresses(status),
            ports: named_ports(spec).into(),
            host_network: spec.host_network,
            finished: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
        };
        (key, pod)
    }

    /// Whether selectors can select it, as a subject or as a peer: a pod in the node's network is the node,
    /// and the address of one that has finished may be another's.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        !self.host_network && !self.finished
    }

    /// The numbers of a named port: of one protocol, or of every one.
    pub fn numbers(&self, name: &str, protocol: Option<u8>) -> impl Iterator<Item = (u8, u16)> {
        let ports = self.ports.iter().filter(move |port| port.name == name);
        let ports = ports.map(|port| (port.protocol, port.number));
        ports.filter(move |(other, _)| protocol.is_none_or(|protocol| protocol == *other))
    }
}

/// The UID by which the runtime knows a pod: that of its object; of a static pod, which is there before it
/// has an object, what its kubelet made of its file.
fn uid(metadata: &ObjectMeta) -> Option<&str> {
    let annotation = |key| metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let of_file = annotation(MIRROR).and_then(|_| annotation(CONFIG_HASH));
    of_file.or(metadata.uid.as_deref())
}

fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let several = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let texts = several.chain(status.pod_ip.as_deref());
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(2);
    for address in texts.filter_map(|text| text.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn named_ports(spec: &PodSpec) -> Vec<NamedPort> {
    let beside = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let init = spec.init_containers.iter().flatten().filter(beside);
    let mut ports: Vec<NamedPort> = Vec::new();
    for port in spec.containers.iter().chain(init).flat_map(|one| one.ports.iter().flatten()) {
        let number = u16::try_from(port.container_port).ok().filter(|number| *number > 0);
        let protocol = protocol(port.protocol.as_deref());
        let (Some(name), Some(number), Some(protocol)) = (&port.name, number, protocol) else {
            continue;
        };
        if !ports.iter().any(|other| other.name == *name && other.protocol == protocol) {
            ports.push(NamedPort { name: name.clone(), protocol, number });
        }
    }
    ports
}
