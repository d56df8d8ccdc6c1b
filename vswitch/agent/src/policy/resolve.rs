//! The rule sets of a policy for a pod.
//!
//! Enters: a policy that selects the pod, and the numbers that peers give to named ports. Leaves: the name
//! of the rule set, the rule set, and the groups that it names. One that is too large for a message is one that
//! closes its subjects. A named port is that of the destination: for
//! ingress the subject, so that subjects with other numbers have another rule set; for egress each peer,
//! so that each number that some peer has makes a rule of its own, for a group of those peers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use api::{GroupId, MAX_REQUEST_BYTES, PolicyPeers, PolicyPorts, PolicyRule, RuleSet, RuleSetId};

use super::group::{GroupMembers, PodScope};
use super::pod::Pod;
use super::rule::{Draft, DraftPeer, DraftPort, Policy};
use super::selector::Word;
use crate::sync::encoded_bytes;

/// Bytes of a rule set at most: it goes into one message.
const MAX_RULE_SET_BYTES: usize = MAX_REQUEST_BYTES / 4 * 3;
/// Bytes of the numbers of named ports in a rule set's name at most: some thirty ports. So a pod's list of
/// all that its namespace may have fits into a message.
const MAX_NUMBERS: usize = 512;
/// What a rule takes beside its peers and ports, at least, bytes.
const RULE_BYTES: usize = 48;
/// What a question counts for, as each is a look at all pods: some 6,000 are possible.
const QUERY_BYTES: usize = 512;

/// The direction of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Ingress,
    Egress,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// A rule set and what belongs to it.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) set: RuleSet,
    /// The groups that it names.
    pub(super) groups: Members,
    /// Its length in a message.
    pub(super) bytes: usize,
    /// Why it is not what the policy says, but denies everything.
    pub(super) problem: Option<&'static str>,
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
    let numbers = match side {
        Side::Ingress => numbers(drafts, subject),
        Side::Egress => String::new(),
    };
    // No port has the name of those of which there are too many.
    let numbers = if numbers.len() > MAX_NUMBERS { " *" } else { &*numbers };
    RuleSetId(format!("{} {side}{numbers}", policy.id))
}

/// The policy's part of a rule set's name, as [`Policy::id`] has it.
#[must_use]
pub fn policy_of(id: &RuleSetId) -> &str {
    // Kinds and names of objects have no spaces.
    let end = id.0.match_indices(' ').nth(1);
    end.map_or(&*id.0, |(end, _)| &id.0[..end])
}

/// The rule set of a policy's rules for a pod. `asked` answers for the peers' named ports, and is asked only
/// for those that the rules have.
pub(super) fn rule_set(
    policy: &Policy,
    side: Side,
    drafts: &[Draft],
    subject: &Pod,
    asked: &mut dyn FnMut(NamedPortQuery) -> PortNumbers,
) -> Resolved {
    let closed = |problem| {
        let set = policy.closed();
        let bytes = encoded_bytes(&set);
        Resolved { set, groups: Members::new(), bytes, problem: Some(problem) }
    };
    if side == Side::Ingress && numbers(drafts, subject).len() > MAX_NUMBERS {
        return closed(
            "a pod that it selects gives numbers to too many of its named ports, and is denied everything: \
             use numbers in it",
        );
    }
    let mut made = Made { rules: Vec::new(), groups: Members::new(), bytes: 0 };
    for draft in drafts {
        if made.is_full() {
            break;
        }
        match side {
            Side::Ingress => ingress(draft, subject, &mut made),
            Side::Egress => egress(draft, asked, &mut made),
        }
    }
    let is_too_large = made.is_full();
    let Made { rules, groups, .. } = made;
    let set = RuleSet { policy: policy.name.clone(), tier: policy.tier, rules };
    let bytes = if is_too_large { usize::MAX } else { encoded_bytes(&set) };
    if bytes > MAX_RULE_SET_BYTES {
        return closed(
            "its rules are too large, and what it selects is denied everything: split it, or have fewer peers \
             and ports in a rule",
        );
    }
    Resolved { set, groups, bytes, problem: None }
}

/// What was made of a rule set so far.
struct Made {
    rules: Vec<PolicyRule>,
    groups: Members,
    /// What it takes at least.
    bytes: usize,
}

impl Made {
    fn is_full(&self) -> bool {
        self.bytes > MAX_RULE_SET_BYTES
    }

    /// Adds a rule, unless it matches nothing.
    fn push(&mut self, draft: &Draft, peers: PolicyPeers, ports: Option<Vec<PolicyPorts>>) {
        if self.is_full() {
            return;
        }
        let has_peers = match &peers {
            PolicyPeers::Any => true,
            PolicyPeers::Of { groups, blocks } => !groups.is_empty() || !blocks.is_empty(),
        };
        if !has_peers || ports.as_ref().is_some_and(Vec::is_empty) {
            return;
        }
        if let PolicyPeers::Of { groups, .. } = &peers {
            self.bytes += groups.iter().map(|group| group.0.len()).sum::<usize>();
        }
        self.bytes += RULE_BYTES;
        let Draft { index, action, .. } = *draft;
        self.rules.push(PolicyRule { index, action, peers, ports });
    }
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

fn ingress(draft: &Draft, subject: &Pod, made: &mut Made) {
    let ports = draft.ports.as_ref().map(|ports| {
        let numbers = |port: &DraftPort| match port {
            DraftPort::Numbers(numbers) => vec![*numbers],
            DraftPort::Named { name, protocol } => {
                subject.numbers(name, *protocol).map(one_port).collect()
            }
        };
        ports.iter().flat_map(numbers).collect::<Vec<_>>()
    });
    let peers = peers(draft, &mut made.groups);
    made.push(draft, peers, ports);
}

fn egress(draft: &Draft, asked: &mut dyn FnMut(NamedPortQuery) -> PortNumbers, made: &mut Made) {
    let Some(ports) = &draft.ports else {
        let peers = peers(draft, &mut made.groups);
        return made.push(draft, peers, None);
    };
    let mut numbers = Vec::new();
    for port in ports {
        match port {
            DraftPort::Numbers(ports) => numbers.push(*ports),
            DraftPort::Named { name, protocol } if !made.is_full() => {
                named_egress(draft, name, *protocol, asked, made);
            }
            DraftPort::Named { .. } => {}
        }
    }
    if !numbers.is_empty() {
        let peers = peers(draft, &mut made.groups);
        made.push(draft, peers, Some(numbers));
    }
}

/// Adds a rule for each number that some peer gives to a named port.
fn named_egress(
    draft: &Draft,
    name: &str,
    protocol: Option<u8>,
    asked: &mut dyn FnMut(NamedPortQuery) -> PortNumbers,
    made: &mut Made,
) {
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
    let mut found = PortNumbers::new();
    for (scope, _) in &scopes {
        if made.is_full() {
            return;
        }
        made.bytes += QUERY_BYTES;
        let scope = scope.clone();
        found.extend(asked(NamedPortQuery { name: name.to_owned(), protocol, scope }));
    }
    for (protocol, number) in found {
        if made.is_full() {
            return;
        }
        let port = Some((name.to_owned(), protocol, number));
        let groups = scopes.iter().map(|(scope, within)| {
            let (scope, port, within) = (scope.clone(), port.clone(), within.clone());
            group(GroupMembers::Pods { scope, port, within }, &mut made.groups)
        });
        let groups = groups.collect();
        let peers = PolicyPeers::Of { groups, blocks: Vec::new() };
        made.push(draft, peers, Some(vec![one_port((protocol, number))]));
    }
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
