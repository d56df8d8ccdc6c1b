//! Policies: what sources commit, and what that comes to, read one by one.
//!
//! Enters: random numbers; changes that were answered; pods. Leaves: changes, to `events`; everything
//! that was committed, to `ledger`; whether a pod's connection is to be allowed, to `invariants`. Nothing
//! here is the compiler's: it is the witness against which tables are held.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{
    AttachmentId, GroupChange, GroupId, NamedRuleSet, PodName, PolicyPeers, PolicyPorts,
    PolicyRule, PolicySync, PolicyTier, RuleAction, RuleSet, RuleSetId, Subject, SubjectRules,
};
use controlplane::config::{PodPattern, PolicyPeer};
use controlplane::model::PolicyInputs;
use controlplane::plane::ControlPlane;
use dataplane::tables::policy::Direction;

use crate::random::Random;

/// Members of groups; the first few are addresses of pods.
pub(crate) const MEMBERS: [&str; 5] =
    ["198.18.1.2", "198.18.1.3", "198.18.2.9", "203.0.113.1", "fd00:18:1::2"];
const GROUPS: [&str; 3] = ["g", "h", "i"];
const SETS: [&str; 4] = ["w", "x", "y", "z"];
/// The port of rules that name one.
pub(crate) const PORT: u16 = 80;

/// Everything that was committed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Committed {
    groups: BTreeMap<GroupId, BTreeSet<IpAddr>>,
    rule_sets: BTreeMap<RuleSetId, RuleSet>,
    /// By namespace and name.
    subjects: BTreeMap<(String, String), Subject>,
}

impl Committed {
    /// All that a model has.
    pub(crate) fn of(known: &PolicyInputs) -> Self {
        let key = |pod: &PodName| (pod.namespace.clone(), pod.name.clone());
        let rule_sets = known.rule_sets().iter();
        let subjects = known.subjects();
        Self {
            groups: known.groups().clone(),
            rule_sets: rule_sets.map(|(id, set)| (id.clone(), RuleSet::clone(set))).collect(),
            subjects: subjects.map(|one| (key(&one.pod), one.clone())).collect(),
        }
    }

    /// As it is after the parts of a change.
    pub(crate) fn after(&self, parts: &[PolicySync]) -> Self {
        let mut after = self.clone();
        parts.iter().flat_map(|part| &part.gone_groups).for_each(|id| {
            after.groups.remove(id);
        });
        for change in parts.iter().flat_map(|part| &part.groups) {
            let members = after.groups.entry(change.group.clone()).or_default();
            members.retain(|member| !change.leave.contains(member));
            members.extend(&change.join);
        }
        after.groups.retain(|_, members| !members.is_empty());
        parts.iter().flat_map(|part| &part.gone_rule_sets).for_each(|id| {
            after.rule_sets.remove(id);
        });
        for named in parts.iter().flat_map(|part| &part.rule_sets) {
            after.rule_sets.insert(named.id.clone(), named.set.clone());
        }
        for pod in parts.iter().flat_map(|part| &part.gone_subjects) {
            after.subjects.retain(|_, subject| !is_same(&subject.pod, pod));
        }
        for subject in parts.iter().flat_map(|part| &part.subjects) {
            let key = (subject.pod.namespace.clone(), subject.pod.name.clone());
            after.subjects.insert(key, subject.clone());
        }
        after
    }

    /// The rule sets that cannot be compiled.
    pub(crate) fn refused(&self) -> Vec<&RuleSetId> {
        self.rule_sets.iter().filter(|(_, set)| is_refused(set)).map(|(id, _)| id).collect()
    }

    /// Whether a connection of a pod to or from a peer may be, by TCP and [`PORT`] or the next one, where
    /// the configuration says this of it.
    pub(crate) fn allows(
        &self,
        pod: &PodName,
        direction: Direction,
        peer: IpAddr,
        port: u16,
        file: Option<bool>,
    ) -> bool {
        let Some(subject) = self.subjects.values().find(|subject| is_same(&subject.pod, pod))
        else {
            return false;
        };
        let ids = match direction {
            Direction::Ingress => &subject.rules.ingress,
            Direction::Egress => &subject.rules.egress,
        };
        let sets: Option<Vec<_>> = ids.iter().map(|id| self.rule_sets.get(id)).collect();
        let Some(mut sets) = sets else { return false };
        if sets.iter().any(|set| is_refused(set)) {
            return false;
        }
        sets.sort_by_key(|set| (set.tier, &set.policy));
        for tier in 0..3 {
            let of_tier: Vec<_> = sets.iter().filter(|set| number(set.tier) == tier).collect();
            let mut rules = of_tier.iter().flat_map(|set| &set.rules);
            let first = rules.find(|rule| self.matches(rule, peer, port));
            match first.map(|rule| rule.action) {
                Some(RuleAction::Allow) => return true,
                Some(RuleAction::Deny) => return false,
                None if tier == 1 && file == Some(true) => return true,
                None if tier == 1 && (file.is_some() || !of_tier.is_empty()) => return false,
                Some(RuleAction::Pass) | None => {}
            }
        }
        true
    }

    fn matches(&self, rule: &PolicyRule, peer: IpAddr, port: u16) -> bool {
        let is_peer = match &rule.peers {
            PolicyPeers::Any => true,
            PolicyPeers::Of { groups, .. } => {
                let all = groups.iter().filter_map(|group| self.groups.get(group));
                all.flatten().any(|member| *member == peer)
            }
        };
        is_peer && rule.ports.as_ref().is_none_or(|_| port == PORT)
    }
}

/// Whether the policies of the configuration allow a connection of an attached pod; nothing, if none of
/// them selects it for this direction.
pub(crate) fn file_allows(
    plane: &ControlPlane,
    attachment: &AttachmentId,
    direction: Direction,
    peer: IpAddr,
    port: u16,
) -> Option<bool> {
    let (leases, ports) = (&plane.model().attachments, plane.ports().compiled());
    let name_of = |attachment: &AttachmentId| {
        let lease = leases.get(attachment)?;
        let of_podman = lease.container_name.clone();
        Some(match lease.pod.as_ref() {
            Some(pod) => format!("{}/{}", pod.namespace, pod.name),
            None => of_podman.unwrap_or_else(|| attachment.container_id.clone()),
        })
    };
    let is_named = |names: &[PodPattern], attachment: &AttachmentId| {
        names.iter().any(|one| name_of(attachment).is_some_and(|name| one.matches(&name)))
    };
    let policies = plane.config().policies.iter();
    let policies = policies.filter(|policy| is_named(&policy.pods, attachment));
    let rules: Vec<_> = policies
        .filter_map(|policy| match direction {
            Direction::Ingress => policy.ingress.as_ref(),
            Direction::Egress => policy.egress.as_ref(),
        })
        .collect();
    let is_peer = |one: &PolicyPeer| match one {
        PolicyPeer::Block(block) => {
            block.cidr.contains(&peer) && !block.except.iter().any(|except| except.contains(&peer))
        }
        PolicyPeer::Pods(names) => leases.iter().any(|(attachment, lease)| {
            ports.contains_key(attachment)
                && is_named(names, attachment)
                && lease.addresses.iter().any(|net| net.addr() == peer)
        }),
    };
    let is_allowed = rules.iter().copied().flatten().any(|rule| {
        rule.peers.as_ref().is_none_or(|peers| peers.iter().any(is_peer))
            && rule.ports.as_ref().is_none_or(|_| port == PORT)
    });
    (!rules.is_empty()).then_some(is_allowed)
}

fn is_refused(set: &RuleSet) -> bool {
    let ports = set.rules.iter().flat_map(|rule| rule.ports.iter().flatten());
    ports.filter_map(|ports| ports.ports).any(|(first, last)| first > last)
}

fn number(tier: PolicyTier) -> u8 {
    match tier {
        PolicyTier::Admin { .. } => 0,
        PolicyTier::NetworkPolicy => 1,
        PolicyTier::Baseline { .. } => 2,
    }
}

fn is_same(one: &PodName, other: &PodName) -> bool {
    let is_other = matches!((&one.uid, &other.uid), (Some(one), Some(other)) if one != other);
    one.namespace == other.namespace && one.name == other.name && !is_other
}

/// The name of a pod, with a UID or without.
pub(crate) fn pod_name(random: &mut Random, container: &str) -> PodName {
    let uid = random.of(&[None, None, Some("1"), Some("2")]).map(str::to_owned);
    PodName { namespace: "lab".into(), name: container.into(), uid }
}

/// A change, or a part of one; not always the part that is to come.
pub(crate) fn sync(random: &mut Random, pods: usize) -> PolicySync {
    let (part, commit) = random.of(&[(0, true), (0, true), (0, true), (0, false), (1, true)]);
    let some_pod = |random: &mut Random| {
        let container = format!("c{}", random.below(pods));
        pod_name(random, &container)
    };
    let groups = (0..random.below(3)).map(|_| GroupChange {
        group: GroupId(random.of(&GROUPS).into()),
        leave: members(random),
        join: members(random),
    });
    let groups = groups.collect();
    let gone = random.percent(10).then(|| GroupId(random.of(&GROUPS).into()));
    PolicySync {
        part,
        commit,
        gone_groups: gone.into_iter().collect(),
        groups,
        gone_rule_sets: random
            .percent(10)
            .then(|| RuleSetId(random.of(&SETS).into()))
            .into_iter()
            .collect(),
        rule_sets: (0..random.below(3)).map(|_| rule_set(random)).collect(),
        gone_subjects: random.percent(20).then(|| some_pod(random)).into_iter().collect(),
        subjects: (0..random.below(4))
            .map(|_| {
                let pod = some_pod(random);
                let rules = SubjectRules { ingress: ids(random), egress: ids(random) };
                Subject { pod, rules }
            })
            .collect(),
    }
}

fn members(random: &mut Random) -> Vec<IpAddr> {
    (0..random.below(3)).map(|_| random.of(&MEMBERS).parse().expect("an address")).collect()
}

fn ids(random: &mut Random) -> Vec<RuleSetId> {
    (0..random.below(3)).map(|_| RuleSetId(random.of(&SETS).into())).collect()
}

fn rule_set(random: &mut Random) -> NamedRuleSet {
    let name = random.of(&SETS);
    let tier = random.of(&[
        PolicyTier::NetworkPolicy,
        PolicyTier::NetworkPolicy,
        PolicyTier::Admin { priority: 1 },
        PolicyTier::Baseline { priority: 1 },
    ]);
    let actions = match tier {
        PolicyTier::NetworkPolicy => &[RuleAction::Allow][..],
        _ => &[RuleAction::Allow, RuleAction::Deny, RuleAction::Pass],
    };
    let is_refused = random.percent(5);
    let rules = (0..1 + random.below(2) as u32).map(|index| {
        let first = if is_refused { PORT + 1 } else { PORT };
        let ports = vec![PolicyPorts { protocol: 6, ports: Some((first, PORT)) }];
        let peers = match random.below(4) {
            0 => PolicyPeers::Any,
            _ => PolicyPeers::Of {
                groups: vec![GroupId(random.of(&GROUPS).into())],
                blocks: Vec::new(),
            },
        };
        let has_ports = is_refused || random.percent(30);
        PolicyRule { index, action: random.of(actions), peers, ports: has_ports.then_some(ports) }
    });
    let rules = rules.collect();
    NamedRuleSet { id: RuleSetId(name.into()), set: RuleSet { policy: name.into(), tier, rules } }
}
