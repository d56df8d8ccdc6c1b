//! Random inputs and changes of them: what is compiled step by step judges as the inputs do, read one by
//! one, and as what is compiled at once, whether as matrices or not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{
    AttachmentId, GroupId, PeerBlock, PolicyPeers, PolicyPorts, PolicyRule, PolicyTier, RuleAction,
    RuleSet, RuleSetId, SubjectRules,
};
use dataplane::tables::PortId;
use dataplane::tables::policy::{Direction, Judgement, Policies};
use dataplane::wire::Protocol;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::{attachment, port};
use crate::compile::PodPort;
use crate::policy::Compiler;

/// Prefixes that lie inside one another, and addresses in and beside them.
const PREFIXES: [&str; 9] = [
    "0.0.0.0/0",
    "198.18.0.0/16",
    "198.18.1.0/24",
    "198.18.1.0/30",
    "198.18.1.2/32",
    "198.18.128.0/17",
    "::/0",
    "fd00:18::/64",
    "fd00:18::2/128",
];
const ADDRESSES: [&str; 8] = [
    "198.18.1.1",
    "198.18.1.2",
    "198.18.1.9",
    "198.18.200.1",
    "203.0.113.1",
    "fd00:18::2",
    "fd00:18::3",
    "fd00:19::1",
];
const PODS: [&str; 3] = ["a", "b", "c"];
const SETS: [&str; 5] = ["v", "w", "x", "y", "z"];
const GROUPS: [&str; 4] = ["g", "h", "i", "j"];

/// A change of the inputs.
#[derive(Debug, Clone)]
enum Step {
    Members { group: GroupId, join: Vec<IpAddr>, leave: Vec<IpAddr> },
    Rules { id: RuleSetId, set: RuleSet },
    NoRules { id: RuleSetId },
    Subject { pod: AttachmentId, rules: SubjectRules },
    NoSubject { pod: AttachmentId },
}

/// The inputs as they are, read one by one.
#[derive(Debug, Default)]
struct Naive {
    members: BTreeMap<GroupId, BTreeSet<IpAddr>>,
    sets: BTreeMap<RuleSetId, RuleSet>,
    subjects: BTreeMap<AttachmentId, SubjectRules>,
}

impl Naive {
    fn take(&mut self, step: Step) {
        match step {
            Step::Members { group, join, leave } => {
                let members = self.members.entry(group).or_default();
                members.retain(|member| !leave.contains(member));
                members.extend(join);
            }
            Step::Rules { id, set } => drop(self.sets.insert(id, set)),
            Step::NoRules { id } => drop(self.sets.remove(&id)),
            Step::Subject { pod, rules } => drop(self.subjects.insert(pod, rules)),
            Step::NoSubject { pod } => drop(self.subjects.remove(&pod)),
        }
    }

    /// Whether it is allowed, and by which rule.
    fn judge(&self, pod: &AttachmentId, probe: Probe) -> (bool, Option<(String, u32)>) {
        let Some(subject) = self.subjects.get(pod) else { return (true, None) };
        let ids = match probe.direction {
            Direction::Ingress => &subject.ingress,
            Direction::Egress => &subject.egress,
        };
        let sets: Option<Vec<&RuleSet>> = ids.iter().map(|id| self.sets.get(id)).collect();
        let Some(mut sets) = sets else { return (false, None) };
        sets.sort_by_key(|set| (set.tier, &set.policy));
        for tier in [is_admin, is_network_policy, is_baseline] {
            let of_tier: Vec<_> = sets.iter().filter(|set| tier(set)).collect();
            let mut rules =
                of_tier.iter().flat_map(|set| set.rules.iter().map(move |rule| (set, rule)));
            match rules.find(|(_, rule)| self.matches(rule, probe)) {
                Some((set, rule)) if rule.action != RuleAction::Pass => {
                    let name = (set.policy.clone(), rule.index);
                    return (rule.action == RuleAction::Allow, Some(name));
                }
                None if of_tier.iter().any(|set| is_network_policy(set)) => return (false, None),
                _ => {}
            }
        }
        (true, None)
    }

    fn matches(&self, rule: &PolicyRule, probe: Probe) -> bool {
        let is_peer = match &rule.peers {
            PolicyPeers::Any => true,
            PolicyPeers::Of { groups, blocks } => {
                let in_group =
                    |group| self.members.get(group).is_some_and(|m| m.contains(&probe.peer));
                let in_block = |block: &PeerBlock| {
                    block.cidr.contains(&probe.peer)
                        && !block.except.iter().any(|except| except.contains(&probe.peer))
                };
                groups.iter().any(in_group) || blocks.iter().any(in_block)
            }
        };
        let is_port = |ports: &PolicyPorts| {
            ports.protocol == probe.protocol.0
                && ports.ports.is_none_or(|(first, last)| {
                    probe.port.is_some_and(|port| first <= port && port <= last)
                })
        };
        is_peer && rule.ports.as_ref().is_none_or(|ports| ports.iter().any(is_port))
    }
}

fn is_admin(set: &RuleSet) -> bool {
    matches!(set.tier, PolicyTier::Admin { .. })
}

fn is_network_policy(set: &RuleSet) -> bool {
    set.tier == PolicyTier::NetworkPolicy
}

fn is_baseline(set: &RuleSet) -> bool {
    matches!(set.tier, PolicyTier::Baseline { .. })
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    direction: Direction,
    peer: IpAddr,
    protocol: Protocol,
    port: Option<u16>,
}

fn probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        for peer in ADDRESSES.iter().map(|text| text.parse().expect("an address")) {
            for (protocol, port) in [
                (Protocol::TCP, Some(79)),
                (Protocol::TCP, Some(80)),
                (Protocol::TCP, Some(90)),
                (Protocol::TCP, Some(65535)),
                (Protocol::TCP, None),
                (Protocol::UDP, Some(80)),
                (Protocol::UDP, Some(0)),
                (Protocol::ICMP, None),
                (Protocol(255), None),
            ] {
                probes.push(Probe { direction, peer, protocol, port });
            }
        }
    }
    probes
}

fn names<T: Clone + std::fmt::Debug + 'static>(
    all: &'static [&'static str],
    most: usize,
    name: fn(String) -> T,
) -> impl Strategy<Value = Vec<T>> {
    subsequence(all.to_vec(), 0..=most)
        .prop_map(move |some| some.into_iter().map(|text| name(text.to_owned())).collect())
}

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    subsequence(ADDRESSES.to_vec(), 0..=3)
        .prop_map(|some| some.iter().map(|text| text.parse().expect("an address")).collect())
}

fn blocks() -> impl Strategy<Value = Vec<PeerBlock>> {
    let block = (select(&PREFIXES[..]), any::<[bool; 9]>()).prop_map(|(cidr, chosen)| {
        let cidr: ipnet::IpNet = cidr.parse().expect("a prefix");
        let prefixes = PREFIXES.iter().map(|text| text.parse().expect("a prefix"));
        let inside = prefixes
            .zip(chosen)
            .filter(|(prefix, chosen)| *chosen && prefix != &cidr && cidr.contains(prefix));
        PeerBlock { cidr, except: inside.map(|(prefix, _)| prefix).take(2).collect() }
    });
    proptest::collection::vec(block, 0..=2)
}

fn peers() -> impl Strategy<Value = PolicyPeers> {
    prop_oneof![
        1 => Just(PolicyPeers::Any),
        4 => (names(&GROUPS, 2, GroupId), blocks())
            .prop_map(|(groups, blocks)| PolicyPeers::Of { groups, blocks }),
    ]
}

fn rule_ports() -> impl Strategy<Value = Option<Vec<PolicyPorts>>> {
    let interval = prop_oneof![
        Just(None),
        Just(Some((80, 80))),
        Just(Some((79, 80))),
        Just(Some((80, 100))),
        Just(Some((0, 65535))),
    ];
    let ports = (select(&[6u8, 17, 1, 255][..]), interval)
        .prop_map(|(protocol, ports)| PolicyPorts { protocol, ports });
    proptest::option::weighted(0.8, proptest::collection::vec(ports, 0..=3))
}

fn rule_set(id: RuleSetId) -> impl Strategy<Value = RuleSet> {
    let tier = prop_oneof![
        (0..3u32).prop_map(|priority| PolicyTier::Admin { priority }),
        Just(PolicyTier::NetworkPolicy),
        Just(PolicyTier::NetworkPolicy),
        (0..3u32).prop_map(|priority| PolicyTier::Baseline { priority }),
    ];
    let action = select(&[RuleAction::Allow, RuleAction::Deny, RuleAction::Pass][..]);
    let rule = (action, peers(), rule_ports()).prop_map(|(action, peers, ports)| PolicyRule {
        index: 0,
        action,
        peers,
        ports,
    });
    (tier, proptest::collection::vec(rule, 0..5)).prop_map(move |(tier, mut rules)| {
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.index = index as u32;
        }
        RuleSet { policy: id.0.clone(), tier, rules }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let id = || select(&SETS[..]).prop_map(|name| RuleSetId(name.into()));
    let pod = || select(&PODS[..]).prop_map(attachment);
    let group = select(&GROUPS[..]).prop_map(|name| GroupId(name.into()));
    prop_oneof![
        4 => (group, addresses(), addresses())
            .prop_map(|(group, join, leave)| Step::Members { group, join, leave }),
        4 => id().prop_flat_map(|id| (Just(id.clone()), rule_set(id)))
            .prop_map(|(id, set)| Step::Rules { id, set }),
        1 => id().prop_map(|id| Step::NoRules { id }),
        4 => (pod(), names(&SETS, 4, RuleSetId), names(&SETS, 4, RuleSetId))
            .prop_map(|(pod, ingress, egress)| {
                Step::Subject { pod, rules: SubjectRules { ingress, egress } }
            }),
        1 => pod().prop_map(|pod| Step::NoSubject { pod }),
    ]
}

fn apply(compiler: &mut Compiler, step: Step) {
    match step {
        Step::Members { group, join, leave } => compiler.change_members(&group, &join, &leave),
        Step::Rules { id, set } => compiler.set_rules(id, set).expect("it can be compiled"),
        Step::NoRules { id } => compiler.remove_rules(&id),
        Step::Subject { pod, rules } => compiler.set_subject(pod, rules),
        Step::NoSubject { pod } => compiler.remove_subject(&pod),
    }
}

fn pod_ports() -> BTreeMap<AttachmentId, PodPort> {
    PODS.iter().zip(1..).map(|(name, number)| (attachment(name), port(number))).collect()
}

fn judged(policies: &Policies, subject: PortId, probe: Probe) -> (bool, Option<(String, u32)>) {
    let Probe { direction, peer, protocol, port } = probe;
    let Judgement { allowed, rule } = policies.judge(subject, direction, peer, protocol, port);
    let name = policies.rule(subject, direction, rule);
    (allowed, name.map(|name| (name.policy.to_owned(), name.index)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn tables_judge_as_the_inputs_do(
        steps in proptest::collection::vec(step(), 1..40),
        commits in proptest::collection::vec(any::<Index>(), 0..10),
        max_bytes in prop_oneof![Just(0), Just(600), Just(8 << 20)],
    ) {
        let ports = pod_ports();
        let commits: BTreeSet<_> = commits.iter().map(|index| index.index(steps.len())).collect();
        let mut naive = Naive::default();
        let mut stepwise = Compiler::with_matrix_bytes(max_bytes);
        let mut at_once = Compiler::default();
        for (number, step) in steps.into_iter().enumerate() {
            naive.take(step.clone());
            apply(&mut at_once, step.clone());
            apply(&mut stepwise, step);
            if commits.contains(&number) {
                stepwise.compile(&ports);
            }
        }
        let (stepwise, at_once) = (stepwise.compile(&ports), at_once.compile(&ports));
        for (pod, subject) in &ports {
            for probe in probes() {
                let expected = naive.judge(pod, probe);
                let found = judged(&stepwise, subject.id, probe);
                prop_assert_eq!(&found, &expected, "{:?} {:?}", pod, probe);
                prop_assert_eq!(judged(&at_once, subject.id, probe), expected, "{:?} {:?}", pod, probe);
            }
        }
    }

    /// A judgement changes with the generation alone.
    #[test]
    fn the_generation_changes_whenever_a_judgement_does(
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let ports = pod_ports();
        let mut compiler = Compiler::default();
        let mut before = compiler.compile(&ports);
        for step in steps {
            apply(&mut compiler, step);
            let after = compiler.compile(&ports);
            if after.generation() == before.generation() {
                for subject in ports.values() {
                    for probe in probes() {
                        let same = judged(&after, subject.id, probe) == judged(&before, subject.id, probe);
                        prop_assert!(same, "{:?}", probe);
                    }
                }
            }
            before = after;
        }
    }
}
