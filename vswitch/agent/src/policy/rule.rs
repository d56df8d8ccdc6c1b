//! A policy of any kind, before its selectors and named ports are resolved.
//!
//! Enters: the fields of a policy, from `network` and `cluster`. Leaves: a [`Policy`] to `resolve`. What
//! cannot be meant is left out so that less is allowed, never more, and is named.

use api::{PeerBlock, PolicyPeers, PolicyPorts, PolicyRule, PolicyTier, RuleAction, RuleSet};
use ipnet::IpNet;

use super::group::PodScope;
use super::resolve::Side;
use super::selector::Selector;
use crate::fields::shown;

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Kind, namespace and name: unique in the cluster.
    pub id: String,
    /// Namespace and name, as people know it.
    pub name: String,
    /// Its namespace; `None` of one of the whole cluster.
    pub namespace: Option<String>,
    /// When it was created, seconds since 1970; 0 if that is not known.
    pub created_seconds: i64,
    /// When it is evaluated.
    pub tier: PolicyTier,
    /// The pods that it selects; `None` if that cannot be meant, and it selects none.
    pub subject: Option<PodScope>,
    /// Rules for connections to them; `None` if it does not concern these.
    pub ingress: Option<Vec<Draft>>,
    /// Rules for connections from them.
    pub egress: Option<Vec<Draft>>,
    /// What could not be meant, a sentence each.
    pub problems: Vec<String>,
}

impl Policy {
    /// The directions that it concerns, with its rules for them.
    pub(super) fn sides(&self) -> impl Iterator<Item = (Side, &[Draft])> {
        let ingress = self.ingress.iter().map(|drafts| (Side::Ingress, &**drafts));
        ingress.chain(self.egress.iter().map(|drafts| (Side::Egress, &**drafts)))
    }

    /// What closes those that it selects: of policies that isolate no rule, of others one that denies.
    pub(super) fn closed(&self) -> RuleSet {
        let denial =
            PolicyRule { index: 0, action: RuleAction::Deny, peers: PolicyPeers::Any, ports: None };
        let rules = match self.tier {
            PolicyTier::NetworkPolicy => Vec::new(),
            PolicyTier::Admin { .. } | PolicyTier::Baseline { .. } => vec![denial],
        };
        RuleSet { policy: self.name.clone(), tier: self.tier, rules }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Index in the policy's list.
    pub index: u32,
    /// What it does.
    pub action: RuleAction,
    /// Peers; `None` for every address.
    pub peers: Option<Vec<DraftPeer>>,
    /// Ports; `None` for every protocol, with ports or without.
    pub ports: Option<Vec<DraftPort>>,
}

impl Draft {
    /// What a rule becomes that a newer version of the API knows and this one does not: one that allows
    /// matches nothing, any other denies everything.
    #[must_use]
    pub fn unknown(index: u32, action: RuleAction) -> Self {
        match action {
            RuleAction::Allow => Self { index, action, peers: Some(Vec::new()), ports: None },
            RuleAction::Deny | RuleAction::Pass => {
                Self { index, action: RuleAction::Deny, peers: None, ports: None }
            }
        }
    }
}

/// Peers of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DraftPeer {
    /// Pods by their labels.
    Pods(PodScope),
    /// Nodes by their labels.
    Nodes(Selector),
    /// Addresses, of pods too.
    Block(PeerBlock),
}

/// Ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DraftPort {
    /// By number.
    Numbers(PolicyPorts),
    /// By the name that the destination pod gives to one of its ports.
    Named {
        /// The name.
        name: String,
        /// Number of the protocol that the port must have; any if absent.
        protocol: Option<u8>,
    },
}

/// The number of a protocol by its name in Kubernetes, TCP if there is none.
pub(crate) fn protocol(name: Option<&str>) -> Option<u8> {
    match name.filter(|name| !name.is_empty()) {
        None | Some("TCP") => Some(TCP),
        Some("UDP") => Some(UDP),
        Some("SCTP") => Some(SCTP),
        Some(_) => None,
    }
}

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;

/// Ports from the first to the last, or why they cannot be meant.
pub(crate) fn interval(protocol: u8, first: i32, last: i32) -> Result<DraftPort, String> {
    match (u16::try_from(first), u16::try_from(last)) {
        (Ok(first), Ok(last)) if first <= last => {
            Ok(DraftPort::Numbers(PolicyPorts { protocol, ports: Some((first, last)) }))
        }
        _ => Err(format!("{first} to {last} are no ports")),
    }
}

/// A block, `None` if it is empty, or why it cannot be meant. An exception beside it cuts nothing.
pub(crate) fn peer_block(cidr: &str, except: &[String]) -> Result<Option<PeerBlock>, String> {
    let parse = |text: &str| {
        let prefix = text.parse::<IpNet>();
        prefix.map(|prefix| prefix.trunc()).map_err(|_| format!("{} is no prefix", shown(text)))
    };
    let cidr = parse(cidr)?;
    let mut inside = Vec::new();
    for except in except {
        let except = parse(except)?;
        if except.contains(&cidr) {
            return Ok(None);
        }
        if cidr.contains(&except) {
            inside.push(except);
        }
    }
    inside.sort_unstable();
    inside.dedup();
    Ok(Some(PeerBlock { cidr, except: inside }))
}
