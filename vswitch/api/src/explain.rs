//! What decides about a connection, stage by stage.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Isolation, SessionEntry};

/// A connection that one end would open to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    /// What opens it: a pod's port, as `show ports` names it, or an address.
    pub source: String,
    /// Where it leads: likewise, or a service, as `show services` names it or without the port's
    /// name; each may be followed by a colon and a port.
    pub destination: String,
    /// `tcp`, `udp`, `sctp` or `icmp`; the service's, or else TCP, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// What decides about it here, and the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Name of the node that answers.
    pub node: String,
    /// The end that opens it.
    pub source: ExplainedEnd,
    /// The end that it is addressed to.
    pub destination: ExplainedEnd,
    /// `tcp`, `udp`, `sctp` or `icmp`.
    pub protocol: String,
    /// The service that it is addressed to, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ExplainedService>,
    /// What judges that its source opens it.
    pub egress: Judge,
    /// Where its packets go; absent if they are dropped before that is looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<ExplainedRoute>,
    /// What judges that its target is reached; absent for a service that gives it no backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Judge>,
    /// Sessions that the source has with the destination now, some of them.
    pub sessions: Vec<SessionEntry>,
    /// Number of all of these.
    pub session_count: usize,
    /// Whether its first packet passes this node.
    pub allowed: bool,
    /// Name of the reason if it is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

/// One end of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedEnd {
    /// Its name, if this node knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its address.
    pub address: IpAddr,
    /// Its port; absent at the source, and where the protocol has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What a service does with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedService {
    /// Its name, as `show services` has it.
    pub name: String,
    /// Backends of the destination's IP version that take new flows.
    pub usable: usize,
    /// All of this version.
    pub backends: usize,
    /// The backend that this connection would have. Another connection may have another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<ExplainedEnd>,
}

/// Where packets go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRoute {
    /// A port of this node, the name or address of another node, or in words what it is instead.
    pub to: String,
    /// `vxlan`, `ipip` or `none`, for another node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encapsulation: Option<String>,
    /// Largest packet that passes, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// What judges one half of a connection, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "judge", rename_all = "kebab-case")]
pub enum Judge {
    /// This node, by the policies of a pod of its.
    ThisNode {
        /// The pod's port.
        pod: String,
        /// What decides.
        isolation: Isolation,
        /// The policies that select the pod in this direction, in the order of evaluation.
        policies: Vec<String>,
        /// Whether this half is allowed.
        allowed: bool,
        /// The rule that says so; absent if none matches.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<DecidingRule>,
    },
    /// Another node, which has the pod.
    OtherNode {
        /// Name of the node.
        node: String,
    },
    /// Nobody: that end is this node itself, which has no policies.
    Node,
    /// Nobody: that end is a pod of this node, and this node itself opens the connection.
    OwnNode {
        /// The pod's port.
        pod: String,
    },
    /// Nobody here: that end is no pod that this node knows of.
    Nobody,
}

/// A rule as people know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidingRule {
    /// Namespace and name of its policy.
    pub policy: String,
    /// Index of the rule there.
    pub index: u32,
}
