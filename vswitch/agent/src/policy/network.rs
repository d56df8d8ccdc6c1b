//! NetworkPolicy as a policy.
//!
//! Enters: a NetworkPolicy of `networking.k8s.io/v1`. Leaves: a [`Policy`]. All of its rules allow, so
//! that leaving out what cannot be meant allows less.

use api::{PolicyPorts, PolicyTier, RuleAction};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::group::{Namespaces, PodScope};
use super::rule::{Draft, DraftPeer, DraftPort, Policy, interval, peer_block, protocol};
use super::selector::Selector;
use crate::fields::shown;

impl Policy {
    /// The policy of a NetworkPolicy.
    #[must_use]
    pub fn network(object: &NetworkPolicy) -> Self {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let name = format!("{namespace}/{}", object.metadata.name.as_deref().unwrap_or_default());
        let spec = object.spec.clone().unwrap_or_default();
        let mut problems = Vec::new();
        let ingress = spec.ingress.unwrap_or_default();
        let egress = spec.egress.unwrap_or_default();
        let types = spec.policy_types.filter(|types| !types.is_empty());
        let (is_ingress, is_egress) = match types {
            Some(types) => {
                (types.iter().any(|one| one == "Ingress"), types.iter().any(|one| one == "Egress"))
            }
            None => (true, !egress.is_empty()),
        };
        let mut drafts = |rules: Vec<_>| {
            let numbered = rules.into_iter().zip(0..);
            numbered
                .map(|((peers, ports), index)| {
                    draft(&namespace, index, peers, ports, &mut problems)
                })
                .collect::<Vec<_>>()
        };
        let ingress = is_ingress
            .then(|| drafts(ingress.into_iter().map(|rule| (rule.from, rule.ports)).collect()));
        let egress = is_egress
            .then(|| drafts(egress.into_iter().map(|rule| (rule.to, rule.ports)).collect()));
        let subject = scope(&namespace, None, spec.pod_selector.as_ref());
        if subject.is_none() {
            problems.push(
                "its podSelector has an operator that is not known: it selects no pod".into(),
            );
        }
        let id = format!("NetworkPolicy {name}");
        let tier = PolicyTier::NetworkPolicy;
        let created = object.metadata.creation_timestamp.as_ref();
        let created_seconds = created.map_or(0, |time| time.0.as_second());
        let namespace = Some(namespace);
        Self { id, name, namespace, created_seconds, tier, subject, ingress, egress, problems }
    }
}

fn draft(
    namespace: &str,
    index: u32,
    peers: Option<Vec<NetworkPolicyPeer>>,
    ports: Option<Vec<NetworkPolicyPort>>,
    problems: &mut Vec<String>,
) -> Draft {
    // An empty list is none: every peer, every port.
    let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
        let peers = peers.iter().map(|peer| draft_peer(namespace, peer));
        kept(peers, index, problems).into_iter().flatten().collect()
    });
    let ports = ports.filter(|ports| !ports.is_empty());
    let ports = ports.map(|ports| kept(ports.iter().map(draft_port), index, problems));
    Draft { index, action: RuleAction::Allow, peers, ports }
}

/// Those that can be meant.
fn kept<T>(
    all: impl Iterator<Item = Result<T, String>>,
    index: u32,
    problems: &mut Vec<String>,
) -> Vec<T> {
    let mut keep = |one: Result<T, String>| match one {
        Ok(one) => Some(one),
        Err(why) => {
            problems.push(format!("rule {index}: {why}"));
            None
        }
    };
    all.filter_map(&mut keep).collect()
}

fn draft_peer(namespace: &str, peer: &NetworkPolicyPeer) -> Result<Option<DraftPeer>, String> {
    let NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = peer;
    match ip_block {
        Some(block) if namespace_selector.is_none() && pod_selector.is_none() => {
            let except = block.except.as_deref().unwrap_or_default();
            Ok(peer_block(&block.cidr, except)?.map(DraftPeer::Block))
        }
        Some(_) => Err("a peer has a block and a selector: it matches nothing".into()),
        None if namespace_selector.is_none() && pod_selector.is_none() => {
            Err("a peer is of a kind that is not known: it matches nothing".into())
        }
        None => scope(namespace, namespace_selector.as_ref(), pod_selector.as_ref())
            .map(|scope| Some(DraftPeer::Pods(scope)))
            .ok_or_else(|| "a selector has an operator that is not known".into()),
    }
}

/// Pods of the policy's namespace, or of those that a selector selects; absent, the selector of pods
/// selects all.
fn scope(
    namespace: &str,
    namespaces: Option<&LabelSelector>,
    pods: Option<&LabelSelector>,
) -> Option<PodScope> {
    let namespaces = match namespaces {
        None => Namespaces::Named(namespace.to_owned()),
        Some(selector) => Namespaces::Selected(Selector::new(selector)?),
    };
    let pods = pods.map_or(Some(Selector::default()), Selector::new)?;
    Some(PodScope { namespaces, pods })
}

fn draft_port(port: &NetworkPolicyPort) -> Result<DraftPort, String> {
    let NetworkPolicyPort { protocol: name, port, end_port } = port;
    let protocol = protocol(name.as_deref()).ok_or_else(|| {
        format!("the protocol {} is not known", shown(name.as_deref().unwrap_or_default()))
    })?;
    match (port, end_port) {
        (None, None) => Ok(DraftPort::Numbers(PolicyPorts { protocol, ports: None })),
        (Some(IntOrString::Int(port)), None) => interval(protocol, *port, *port),
        (Some(IntOrString::Int(port)), Some(end)) => interval(protocol, *port, *end),
        (Some(IntOrString::String(name)), None) => {
            Ok(DraftPort::Named { name: name.clone(), protocol: Some(protocol) })
        }
        (Some(IntOrString::String(name)), Some(_)) => {
            Err(format!("endPort is of no use with the named port {}", shown(name)))
        }
        (None, Some(_)) => Err("endPort is there without a port".into()),
    }
}
