//! The rule sets of a policy for a pod.
//!
//! Enters: a policy that selects the pod, and the numbers that peers give to named ports. Leaves: the name
//! of the rule set, the rule set, and the groups that it names. A named port is that of the destination: for
//! ingress the subject, so that subjects with other numbers have another rule set; for egress each peer,
//! so that each number that some peer has makes a rule of its own, for a group of those peers.

use std::collections::{BTreeMap, BTreeSet};

use api::{GroupId, PolicyPeers, PolicyPorts, PolicyRule, RuleSet, RuleSetId};

use super::group::{GroupMembers, PodScope};
use super::pod::Pod;
use super::rule::{Draft, DraftPeer, DraftPort, Policy};
use super::selector::Word;

/// The direction of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Ingress,
    Egress,
}

/// A question: which numbers do pods give to a port of that name?
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NamedPortQuery {
    /// The name.
    pub(super) name: String,
    /// Number of the protocol that the port must have; any if absent.
    pub(super) protocol: Option<u8>,
    /// The pods.
    pub(super) scope: PodScope,
}

/// Protocols and numbers that some pod gives to a named port.
pub(super) type PortNumbers = BTreeSet<(u8, u16)>;
/// Groups by name.
pub(super) type Members = BTreeMap<GroupId, GroupMembers>;

/// Name of the rule set of a policy's rules for a pod: all pods for which it is the same share the set.
pub(super) fn rule_set_id(
    policy: &Policy,
    side: Side,
    drafts: &[Draft],
    subject: &Pod,
) -> RuleSetId {
    let (direction, numbers) = match side {
        Side::Ingress => ("ingress", numbers(drafts, subject)),
        Side::Egress => ("egress", String::new()),
    };
    RuleSetId(format!("{} {direction}{numbers}", policy.id))
}

/// The policy's part of a rule set's name, as [`Policy::id`] has it.
#[must_use]
pub fn policy_of(id: &RuleSetId) -> &str {
    // Kinds and names of objects have no spaces.
    let end = id.0.match_indices(' ').nth(1);
    end.map_or(&*id.0, |(end, _)| &id.0[..end])
}

/// The rule set of a policy's rules for a pod. Groups that it names are added to `groups`; `asked` answers
/// for the peers' named ports, and is asked only for those that the rules have.
pub(super) fn rule_set(
    policy: &Policy,
    side: Side,
    drafts: &[Draft],
    subject: &Pod,
    asked: &mut dyn FnMut(NamedPortQuery) -> PortNumbers,
    groups: &mut Members,
) -> RuleSet {
    let mut rules = Vec::new();
    for draft in drafts {
        match side {
            Side::Ingress => rules.extend(ingress(draft, subject, groups)),
            Side::Egress => rules.extend(egress(draft, asked, groups)),
        }
    }
    RuleSet { policy: policy.name.clone(), tier: policy.tier, rules }
}

/// The numbers that a subject gives to the named ports of rules, as text.
fn numbers(drafts: &[Draft], subject: &Pod) -> String {
    let ports = drafts.iter().flat_map(|draft| draft.ports.iter().flatten());
    let mut numbers = BTreeSet::new();
    for port in ports {
        if let DraftPort::Named { name, protocol } = port {
            let found = subject.numbers(name, *protocol);
            numbers.extend(found.map(|(protocol, number)| (name, protocol, number)));
        }
    }
    let texts = numbers
        .iter()
        .map(|(name, protocol, number)| format!(" {}/{protocol}={number}", Word(name)));
    texts.collect()
}

fn ingress(draft: &Draft, subject: &Pod, out: &mut Members) -> Option<PolicyRule> {
    let ports = draft.ports.as_ref().map(|ports| {
        let numbers = |port: &DraftPort| match port {
            DraftPort::Numbers(numbers) => vec![*numbers],
            DraftPort::Named { name, protocol } => {
                subject.numbers(name, *protocol).map(one_port).collect()
            }
        };
        ports.iter().flat_map(numbers).collect::<Vec<_>>()
    });
    let peers = peers(draft, out);
    rule(draft, peers, ports)
}

fn egress(
    draft: &Draft,
    asked: &mut dyn FnMut(NamedPortQuery) -> PortNumbers,
    out: &mut Members,
) -> Vec<PolicyRule> {
    let Some(ports) = &draft.ports else {
        let peers = peers(draft, out);
        return rule(draft, peers, None).into_iter().collect();
    };
    let (mut numbers, mut rules) = (Vec::new(), Vec::new());
    for port in ports {
        match port {
            DraftPort::Numbers(ports) => numbers.push(*ports),
            DraftPort::Named { name, protocol } => {
                rules.extend(named_egress(draft, name, *protocol, asked, out));
            }
        }
    }
    if !numbers.is_empty() {
        let peers = peers(draft, out);
        rules.extend(rule(draft, peers, Some(numbers)));
    }
    rules
}

/// A rule for each number that some peer gives to a named port.
fn named_egress(
    draft: &Draft,
    name: &str,
    protocol: Option<u8>,
    asked: &mut dyn FnMut(NamedPortQuery) -> PortNumbers,
    out: &mut Members,
) -> Vec<PolicyRule> {
    // Of peers only pods name ports: where a rule is for every address or for blocks, those in these.
    let all = |within| (PodScope::all(), within);
    let scopes: Vec<_> = match &draft.peers {
        None => vec![all(None)],
        Some(peers) => peers
            .iter()
            .filter_map(|peer| match peer {
                DraftPeer::Pods(scope) => Some((scope.clone(), None)),
                DraftPeer::Block(block) => Some(all(Some(block.clone()))),
                DraftPeer::Nodes(_) => None,
            })
            .collect(),
    };
    let query =
        |scope: &PodScope| NamedPortQuery { name: name.to_owned(), protocol, scope: scope.clone() };
    let found: PortNumbers = scopes.iter().flat_map(|(scope, _)| asked(query(scope))).collect();
    let mut rules = Vec::new();
    for (protocol, number) in found {
        let port = Some((name.to_owned(), protocol, number));
        let groups = scopes.iter().map(|(scope, within)| {
            let (scope, port, within) = (scope.clone(), port.clone(), within.clone());
            group(GroupMembers::Pods { scope, port, within }, out)
        });
        let peers = PolicyPeers::Of { groups: groups.collect(), blocks: Vec::new() };
        rules.extend(rule(draft, peers, Some(vec![one_port((protocol, number))])));
    }
    rules
}

/// A rule, unless it matches nothing.
fn rule(draft: &Draft, peers: PolicyPeers, ports: Option<Vec<PolicyPorts>>) -> Option<PolicyRule> {
    let has_peers = match &peers {
        PolicyPeers::Any => true,
        PolicyPeers::Of { groups, blocks } => !groups.is_empty() || !blocks.is_empty(),
    };
    let matches = has_peers && ports.as_ref().is_none_or(|ports| !ports.is_empty());
    let Draft { index, action, .. } = *draft;
    matches.then_some(PolicyRule { index, action, peers, ports })
}

/// The peers of a rule, whose groups are added.
fn peers(draft: &Draft, out: &mut Members) -> PolicyPeers {
    let Some(peers) = &draft.peers else { return PolicyPeers::Any };
    let (mut groups, mut blocks) = (Vec::new(), Vec::new());
    for peer in peers {
        let members = match peer {
            DraftPeer::Block(block) => {
                blocks.push(block.clone());
                continue;
            }
            DraftPeer::Pods(scope) => {
                GroupMembers::Pods { scope: scope.clone(), port: None, within: None }
            }
            DraftPeer::Nodes(selector) => GroupMembers::Nodes(selector.clone()),
        };
        groups.push(group(members, out));
    }
    PolicyPeers::Of { groups, blocks }
}

fn group(members: GroupMembers, out: &mut Members) -> GroupId {
    let id = members.id();
    out.insert(id.clone(), members);
    id
}

fn one_port((protocol, number): (u8, u16)) -> PolicyPorts {
    PolicyPorts { protocol, ports: Some((number, number)) }
}
