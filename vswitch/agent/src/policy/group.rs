//! What makes an address a member of a group.
//!
//! Enters: selectors of rules, and the number of a named port where a rule has one. Leaves: the group's
//! name, which is the text of these, and its members.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use api::{GroupId, PeerBlock};

use super::pod::{Pod, PodKey};
use super::selector::{Selector, Word};
use super::{Cluster, PolicyNode};

/// Namespaces of pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespaces {
    /// One, by name.
    Named(String),
    /// Those with matching labels.
    Selected(Selector),
}

/// Pods by the labels of their namespace and their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodScope {
    /// The namespaces.
    pub namespaces: Namespaces,
    /// The pods in these.
    pub pods: Selector,
}

impl PodScope {
    /// Every pod of the cluster.
    #[must_use]
    pub fn all() -> Self {
        let namespaces = Namespaces::Selected(Selector::default());
        Self { namespaces, pods: Selector::default() }
    }

    /// Whether a pod is among them. One in a namespace that is not known is not.
    #[must_use]
    pub fn contains(&self, cluster: &Cluster, key: &PodKey, pod: &Pod) -> bool {
        let is_namespace = match &self.namespaces {
            Namespaces::Named(name) => key.namespace == *name,
            Namespaces::Selected(selector) => cluster
                .namespaces
                .get(&key.namespace)
                .is_some_and(|labels| selector.matches(labels)),
        };
        is_namespace && pod.is_judged() && self.pods.matches(&pod.labels)
    }

    /// The pods of the cluster that are among them.
    pub fn pods<'c>(&'c self, cluster: &'c Cluster) -> impl Iterator<Item = &'c Pod> {
        let namespaces: Vec<&str> = match &self.namespaces {
            Namespaces::Named(name) => vec![name],
            Namespaces::Selected(selector) => {
                let all = cluster.namespaces.iter();
                all.filter(|(_, labels)| selector.matches(labels))
                    .map(|(name, _)| &**name)
                    .collect()
            }
        };
        let pods = namespaces.into_iter().flat_map(|name| cluster.pods_of(name));
        let pods = pods.map(|(_, pod)| pod);
        pods.filter(|pod| pod.is_judged() && self.pods.matches(&pod.labels))
    }
}

impl fmt::Display for PodScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespaces {
            Namespaces::Named(name) => write!(f, "namespace {}", Word(name))?,
            Namespaces::Selected(selector) => write!(f, "namespaces {selector}")?,
        }
        write!(f, ", pods {}", self.pods)
    }
}

/// What makes an address a member of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupMembers {
    /// It is that of a pod.
    Pods {
        /// The pods.
        scope: PodScope,
        /// Name, protocol and number of a port that the pod has, if only those that have it count.
        port: Option<(String, u8, u16)>,
        /// The block that the address is in, if only those in it count.
        within: Option<PeerBlock>,
    },
    /// It is that of a node with matching labels.
    Nodes(Selector),
}

impl GroupMembers {
    /// The name of the group.
    #[must_use]
    pub fn id(&self) -> GroupId {
        GroupId(self.to_string())
    }

    /// The members.
    #[must_use]
    pub fn of(&self, cluster: &Cluster) -> BTreeSet<IpAddr> {
        self.each(cluster).into_iter().collect()
    }

    /// The members, each as often as there are pods or nodes that have it.
    pub(super) fn each(&self, cluster: &Cluster) -> Vec<IpAddr> {
        match self {
            Self::Pods { scope, .. } => {
                scope.pods(cluster).flat_map(|pod| self.addresses(pod)).collect()
            }
            Self::Nodes(_) => {
                cluster.nodes.values().flat_map(|node| self.of_node(node).to_vec()).collect()
            }
        }
    }

    /// The members that one node contributes.
    pub(super) fn of_node<'n>(&self, node: &'n PolicyNode) -> &'n [IpAddr] {
        match self {
            Self::Nodes(selector) if selector.matches(&node.labels) => &node.addresses,
            _ => &[],
        }
    }

    /// The members that one pod contributes: all that changes of the group when the pod does.
    #[must_use]
    pub fn of_pod(&self, cluster: &Cluster, key: &PodKey, pod: &Pod) -> Vec<IpAddr> {
        match self {
            Self::Pods { scope, .. } if scope.contains(cluster, key, pod) => {
                self.addresses(pod).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The addresses of a pod in the scope that are members.
    fn addresses(&self, pod: &Pod) -> impl Iterator<Item = IpAddr> {
        let (port, within) = match self {
            Self::Pods { port, within, .. } => (port.as_ref(), within.as_ref()),
            Self::Nodes(_) => (None, None),
        };
        let has_port = port.is_none_or(|(name, protocol, number)| {
            pod.numbers(name, Some(*protocol)).any(|(_, other)| other == *number)
        });
        let addresses = pod.addresses.iter().copied().filter(move |_| has_port);
        addresses.filter(move |address| within.is_none_or(|block| is_in(block, *address)))
    }
}

/// Whether an address is in a block.
pub(super) fn is_in(block: &PeerBlock, address: IpAddr) -> bool {
    block.cidr.contains(&address) && !block.except.iter().any(|except| except.contains(&address))
}

impl fmt::Display for GroupMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(selector) => write!(f, "nodes {selector}"),
            Self::Pods { scope, port, within } => {
                write!(f, "{scope}")?;
                if let Some((name, protocol, number)) = port {
                    write!(f, ", port {}/{protocol}={number}", Word(name))?;
                }
                if let Some(block) = within {
                    write!(f, ", within {}", block.cidr)?;
                    for except in &block.except {
                        write!(f, " but {except}")?;
                    }
                }
                Ok(())
            }
        }
    }
}
