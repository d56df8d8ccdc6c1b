//! ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy as policies.
//!
//! Enters: their specs, of `policy.networking.k8s.io` v1alpha2 and v1alpha1. Leaves: a [`Policy`]. Their
//! rules deny too, so that nothing can just be left out: of a rule with anything that is not known here
//! becomes what the API demands, [`Draft::unknown`].

use api::{PolicyPorts, PolicyTier, RuleAction};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use super::group::{Namespaces, PodScope};
use super::rule::{
    Draft, DraftPeer, DraftPort, Policy, SCTP, TCP, UDP, interval, peer_block, protocol,
};
use super::selector::Selector;
use crate::fields::shown;

/// `spec` of any of the three.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ClusterPolicySpec {
    /// `Admin` or `Baseline`, of a ClusterNetworkPolicy.
    pub tier: Option<String>,
    /// 0 to 1000, the lower one first; a BaselineAdminNetworkPolicy has none.
    pub priority: Option<i64>,
    /// The pods that it selects.
    #[serde(default)]
    pub subject: ClusterPeer,
    /// Rules for connections to them.
    #[serde(default)]
    pub ingress: Option<Vec<ClusterRule>>,
    /// Rules for connections from them.
    #[serde(default)]
    pub egress: Option<Vec<ClusterRule>>,
}

/// A rule.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ClusterRule {
    /// `Accept` (`Allow` in v1alpha1), `Deny` or `Pass`.
    #[serde(default)]
    pub action: String,
    /// Peers of a rule for ingress.
    pub from: Option<Vec<ClusterPeer>>,
    /// Peers of a rule for egress.
    pub to: Option<Vec<ClusterPeer>>,
    /// Ports, of v1alpha2.
    pub protocols: Option<Vec<ClusterProtocol>>,
    /// Ports, of v1alpha1.
    pub ports: Option<Vec<AdminPort>>,
}

/// A peer or a subject: one of the fields is there, or it is of a kind that is not known.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ClusterPeer {
    /// All pods of these namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Pods by both selectors.
    pub pods: Option<NamespacedPods>,
    /// Nodes.
    pub nodes: Option<LabelSelector>,
    /// Prefixes.
    pub networks: Option<Vec<String>>,
}

/// Pods by the labels of their namespace and their own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPods {
    /// Namespaces.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Pods.
    #[serde(default)]
    pub pod_selector: LabelSelector,
}

/// Ports of a rule of v1alpha2: one of the fields is there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterProtocol {
    /// Of TCP.
    pub tcp: Option<ClusterPorts>,
    /// Of UDP.
    pub udp: Option<ClusterPorts>,
    /// Of SCTP.
    pub sctp: Option<ClusterPorts>,
    /// By the name that the destination pod gives to it.
    pub destination_named_port: Option<String>,
}

/// Ports of a protocol.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPorts {
    /// Some of its ports; all if absent.
    pub destination_port: Option<ClusterPort>,
}

/// A port or an interval.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ClusterPort {
    /// One port.
    pub number: Option<i32>,
    /// An interval.
    pub range: Option<ClusterPortRange>,
}

/// An interval of ports.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ClusterPortRange {
    /// The first.
    pub start: i32,
    /// The last.
    pub end: i32,
}

/// Ports of a rule of v1alpha1: one of the fields is there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminPort {
    /// One port.
    pub port_number: Option<AdminPortNumber>,
    /// By the name that the destination pod gives to it.
    pub named_port: Option<String>,
    /// An interval.
    pub port_range: Option<AdminPortRange>,
}

/// A port of a protocol.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AdminPortNumber {
    /// TCP if absent.
    pub protocol: Option<String>,
    /// The port.
    pub port: i32,
}

/// An interval of ports of a protocol.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AdminPortRange {
    /// TCP if absent.
    pub protocol: Option<String>,
    /// The first.
    pub start: i32,
    /// The last.
    pub end: i32,
}

/// A baseline policy of v1alpha1 is evaluated behind those of v1alpha2, whose priorities end at 1000.
const BEHIND_ALL: u32 = 1001;

impl Policy {
    /// The policy of a ClusterNetworkPolicy.
    #[must_use]
    pub fn cluster(name: &str, spec: &ClusterPolicySpec) -> Self {
        let priority = priority(spec);
        // The API has no other tier; one that it gets later is evaluated first here.
        let tier = match spec.tier.as_deref() {
            Some("Baseline") => PolicyTier::Baseline { priority },
            _ => PolicyTier::Admin { priority },
        };
        policy("ClusterNetworkPolicy", name, tier, spec)
    }

    /// The policy of an AdminNetworkPolicy.
    #[must_use]
    pub fn admin(name: &str, spec: &ClusterPolicySpec) -> Self {
        let tier = PolicyTier::Admin { priority: priority(spec) };
        policy("AdminNetworkPolicy", name, tier, spec)
    }

    /// The policy of a BaselineAdminNetworkPolicy.
    #[must_use]
    pub fn baseline_admin(name: &str, spec: &ClusterPolicySpec) -> Self {
        let tier = PolicyTier::Baseline { priority: BEHIND_ALL };
        policy("BaselineAdminNetworkPolicy", name, tier, spec)
    }
}

fn priority(spec: &ClusterPolicySpec) -> u32 {
    spec.priority.and_then(|priority| priority.try_into().ok()).unwrap_or_default()
}

fn policy(kind: &str, name: &str, tier: PolicyTier, spec: &ClusterPolicySpec) -> Policy {
    let mut problems = Vec::new();
    let subject = pods(&spec.subject);
    if subject.is_none() {
        problems.push("its subject is of a kind that is not known: it selects no pod".into());
    }
    let mut drafts = |rules: &Option<Vec<ClusterRule>>| {
        // Without rules it does not concern the direction: it isolates nothing.
        let rules = rules.as_ref().filter(|rules| !rules.is_empty())?;
        let numbered = rules.iter().zip(0..);
        Some(numbered.map(|(rule, index)| draft(rule, index, &mut problems)).collect())
    };
    let (ingress, egress) = (drafts(&spec.ingress), drafts(&spec.egress));
    let id = format!("{kind} {name}");
    let name = name.to_owned();
    // Only those of a namespace are in competition.
    let (namespace, created_seconds) = (None, 0);
    Policy { id, name, namespace, created_seconds, tier, subject, ingress, egress, problems }
}

fn draft(rule: &ClusterRule, index: u32, problems: &mut Vec<String>) -> Draft {
    let action = match rule.action.as_str() {
        "Accept" | "Allow" => RuleAction::Allow,
        "Pass" => RuleAction::Pass,
        _ => RuleAction::Deny,
    };
    match peers_and_ports(rule) {
        Ok((peers, ports)) => Draft { index, action, peers: Some(peers), ports },
        Err(why) => {
            let becomes = match action {
                RuleAction::Allow => "it matches nothing",
                RuleAction::Deny | RuleAction::Pass => "it denies everything",
            };
            problems.push(format!("rule {index}: {why}: {becomes}"));
            Draft::unknown(index, action)
        }
    }
}

type PeersAndPorts = (Vec<DraftPeer>, Option<Vec<DraftPort>>);

fn peers_and_ports(rule: &ClusterRule) -> Result<PeersAndPorts, String> {
    if !matches!(rule.action.as_str(), "Accept" | "Allow" | "Deny" | "Pass") {
        return Err(format!("the action {} is not known", shown(&rule.action)));
    }
    let peers = rule.from.as_ref().or(rule.to.as_ref()).filter(|peers| !peers.is_empty());
    let mut found = Vec::new();
    for peer in peers.ok_or("it has no peers")? {
        draft_peer(peer, &mut found)?;
    }
    let protocols = rule.protocols.as_ref().filter(|protocols| !protocols.is_empty());
    let ports = rule.ports.as_ref().filter(|ports| !ports.is_empty());
    let ports = match (protocols, ports) {
        (None, None) => None,
        (protocols, ports) => {
            let newer = protocols.into_iter().flatten().map(cluster_port);
            let older = ports.into_iter().flatten().map(admin_port);
            Some(newer.chain(older).collect::<Result<_, _>>()?)
        }
    };
    Ok((found, ports))
}

fn draft_peer(peer: &ClusterPeer, found: &mut Vec<DraftPeer>) -> Result<(), String> {
    const UNKNOWN: &str = "a peer is of a kind that is not known";
    match peer {
        ClusterPeer { nodes: Some(nodes), namespaces: None, pods: None, networks: None } => {
            found.push(DraftPeer::Nodes(Selector::new(nodes).ok_or(UNKNOWN)?));
        }
        ClusterPeer { networks: Some(networks), namespaces: None, pods: None, nodes: None } => {
            for network in networks {
                found.extend(peer_block(network, &[])?.map(DraftPeer::Block));
            }
        }
        _ => found.push(DraftPeer::Pods(pods(peer).ok_or(UNKNOWN)?)),
    }
    Ok(())
}

/// The pods of a subject, or of a peer that names some.
fn pods(peer: &ClusterPeer) -> Option<PodScope> {
    let (namespaces, pods) = match peer {
        ClusterPeer { namespaces: Some(namespaces), pods: None, nodes: None, networks: None } => {
            (namespaces, &LabelSelector::default())
        }
        ClusterPeer { pods: Some(pods), namespaces: None, nodes: None, networks: None } => {
            (&pods.namespace_selector, &pods.pod_selector)
        }
        _ => return None,
    };
    let namespaces = Namespaces::Selected(Selector::new(namespaces)?);
    Some(PodScope { namespaces, pods: Selector::new(pods)? })
}

fn cluster_port(port: &ClusterProtocol) -> Result<DraftPort, String> {
    let ClusterProtocol { tcp, udp, sctp, destination_named_port: name } = port;
    let (protocol, ports) = match (tcp, udp, sctp, name) {
        (Some(ports), None, None, None) => (TCP, ports),
        (None, Some(ports), None, None) => (UDP, ports),
        (None, None, Some(ports), None) => (SCTP, ports),
        (None, None, None, Some(name)) => {
            return Ok(DraftPort::Named { name: name.clone(), protocol: None });
        }
        _ => return Err("a protocol is of a kind that is not known".into()),
    };
    match &ports.destination_port {
        None => Ok(DraftPort::Numbers(PolicyPorts { protocol, ports: None })),
        Some(ClusterPort { number: Some(number), range: None }) => {
            interval(protocol, *number, *number)
        }
        Some(ClusterPort { number: None, range: Some(range) }) => {
            interval(protocol, range.start, range.end)
        }
        Some(_) => Err("a port is of a kind that is not known".into()),
    }
}

fn admin_port(port: &AdminPort) -> Result<DraftPort, String> {
    let known = |name: &Option<String>| {
        protocol(name.as_deref()).ok_or_else(|| {
            format!("the protocol {} is not known", shown(name.as_deref().unwrap_or_default()))
        })
    };
    match port {
        AdminPort { port_number: Some(one), named_port: None, port_range: None } => {
            interval(known(&one.protocol)?, one.port, one.port)
        }
        AdminPort { port_number: None, named_port: None, port_range: Some(range) } => {
            interval(known(&range.protocol)?, range.start, range.end)
        }
        AdminPort { port_number: None, named_port: Some(name), port_range: None } => {
            Ok(DraftPort::Named { name: name.clone(), protocol: None })
        }
        _ => Err("a port is of a kind that is not known".into()),
    }
}
