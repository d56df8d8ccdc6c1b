//! What is compiled, against the inputs read one by one.

mod of_file;
mod random;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::{
    AttachmentId, GroupId, PeerBlock, PolicyPeers, PolicyPorts, PolicyRule, PolicyTier, RuleAction,
    RuleSet, RuleSetId, SubjectRules,
};
use dataplane::tables::policy::{Direction, DirectionPolicy, Judgement, Policies, RuleTable};
use dataplane::tables::{Offloads, PortId};
use dataplane::wire::Protocol;

use super::{Compiler, MAX_BLOCKS, MAX_RULE_SETS_OF_A_POD, MAX_RULES, RuleSetProblem};
use crate::compile::PodPort;

const SUBJECT: PortId = PortId(3);

fn attachment(name: &str) -> AttachmentId {
    AttachmentId { container_id: name.into(), ifname: "eth0".into() }
}

fn port(number: u16) -> PodPort {
    PodPort { id: PortId(number), offloads: Offloads::default() }
}

/// One pod, behind [`SUBJECT`].
fn ports() -> BTreeMap<AttachmentId, PodPort> {
    BTreeMap::from([(attachment("web"), port(SUBJECT.0))])
}

fn group(name: &str) -> GroupId {
    GroupId(name.into())
}

fn id(name: &str) -> RuleSetId {
    RuleSetId(name.into())
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn block(cidr: &str, except: &[&str]) -> PeerBlock {
    let prefix = |text: &str| text.parse().expect("a prefix");
    PeerBlock { cidr: prefix(cidr), except: except.iter().copied().map(prefix).collect() }
}

fn from_groups(names: &[&str]) -> PolicyPeers {
    PolicyPeers::Of { groups: names.iter().copied().map(group).collect(), blocks: Vec::new() }
}

fn from_blocks(blocks: Vec<PeerBlock>) -> PolicyPeers {
    PolicyPeers::Of { groups: Vec::new(), blocks }
}

fn tcp(first: u16, last: u16) -> Option<Vec<PolicyPorts>> {
    Some(vec![PolicyPorts { protocol: 6, ports: Some((first, last)) }])
}

fn allow(peers: PolicyPeers, ports: Option<Vec<PolicyPorts>>) -> PolicyRule {
    PolicyRule { index: 0, action: RuleAction::Allow, peers, ports }
}

fn network_policy(name: &str, rules: Vec<PolicyRule>) -> RuleSet {
    let tier = PolicyTier::NetworkPolicy;
    RuleSet { policy: name.into(), tier, rules }
}

/// A compiler whose pod has these rule sets for ingress.
fn compiler(sets: Vec<RuleSet>) -> Compiler {
    let mut compiler = Compiler::default();
    let ids: Vec<_> = sets.iter().map(|set| id(&set.policy)).collect();
    for set in sets {
        compiler.set_rules(id(&set.policy), set).expect("it can be compiled");
    }
    let rules = SubjectRules { ingress: ids, egress: Vec::new() };
    compiler.set_subject(attachment("web"), rules);
    compiler
}

fn judge(policies: &Policies, peer: &str, port: u16) -> Judgement {
    policies.judge(SUBJECT, Direction::Ingress, address(peer), Protocol::TCP, Some(port))
}

fn table(policies: &Policies) -> Arc<RuleTable> {
    match policies.of(SUBJECT, Direction::Ingress) {
        DirectionPolicy::Rules(table) => Arc::clone(table),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_is_isolated_in_the_directions_of_its_policies() {
    let mut compiler = compiler(vec![network_policy("shop/deny", Vec::new())]);
    let policies = compiler.compile(&ports());
    assert_eq!(judge(&policies, "198.18.1.7", 80), Judgement::DENIED);
    let peer = address("198.18.1.7");
    let egress = policies.judge(SUBJECT, Direction::Egress, peer, Protocol::TCP, Some(80));
    assert_eq!(egress, Judgement::ALLOWED);
    assert_eq!(table(&policies).policies().collect::<Vec<_>>(), ["shop/deny"]);
}

#[test]
fn a_member_that_joins_a_known_class_changes_no_table() {
    let rules = vec![allow(from_groups(&["clients"]), tcp(80, 80))];
    let mut compiler = compiler(vec![network_policy("shop/web", rules)]);
    compiler.change_members(&group("clients"), &[address("198.18.1.7")], &[]);
    let before = compiler.compile(&ports());
    assert!(judge(&before, "198.18.1.7", 80).allowed && !judge(&before, "198.18.1.7", 81).allowed);
    assert!(!judge(&before, "198.18.1.8", 80).allowed);

    compiler.change_members(&group("clients"), &[address("198.18.1.8")], &[]);
    let after = compiler.compile(&ports());
    assert!(judge(&after, "198.18.1.8", 80).allowed, "it joined");
    assert!(!judge(&before, "198.18.1.8", 80).allowed, "what was published stays as it was");
    assert!(Arc::ptr_eq(&table(&before), &table(&after)), "the same table");
    assert_ne!(before.generation(), after.generation());
}

#[test]
fn a_new_class_is_a_row_in_the_tables_that_name_it_alone() {
    let mut compiler =
        compiler(vec![network_policy("shop/web", vec![allow(from_groups(&["clients"]), None)])]);
    let other = network_policy("shop/db", vec![allow(from_groups(&["web"]), None)]);
    compiler.set_rules(id("shop/db"), other).expect("it can be compiled");
    let rules = SubjectRules { ingress: vec![id("shop/db")], egress: Vec::new() };
    compiler.set_subject(attachment("db"), rules);
    let mut ports = ports();
    ports.insert(attachment("db"), port(4));
    let before = compiler.compile(&ports);
    compiler.change_members(&group("web"), &[address("198.18.1.3")], &[]);
    let after = compiler.compile(&ports);
    assert!(Arc::ptr_eq(&table(&before), &table(&after)), "its rules do not name the group");
    let peer = address("198.18.1.3");
    let of_db = |policies: &Policies| {
        policies.judge(PortId(4), Direction::Ingress, peer, Protocol::TCP, Some(1)).allowed
    };
    assert!(!of_db(&before) && of_db(&after));
}

#[test]
fn subjects_with_the_same_rule_sets_share_a_table() {
    let mut compiler = compiler(vec![network_policy("a", vec![]), network_policy("b", vec![])]);
    let rules = SubjectRules { ingress: vec![id("b"), id("a"), id("b")], egress: Vec::new() };
    compiler.set_subject(attachment("other"), rules);
    let mut ports = ports();
    ports.insert(attachment("other"), port(4));
    let policies = compiler.compile(&ports);
    let DirectionPolicy::Rules(other) = policies.of(PortId(4), Direction::Ingress) else {
        panic!("no table");
    };
    assert!(Arc::ptr_eq(&table(&policies), other));
    assert_eq!(compiler.statistics().tables, 1);
}

#[test]
fn what_changes_nothing_is_of_the_same_generation() {
    let rules = vec![allow(from_groups(&["clients"]), None)];
    let mut compiler = compiler(vec![network_policy("shop/web", rules.clone())]);
    compiler.change_members(&group("clients"), &[address("198.18.1.7")], &[]);
    let first = compiler.compile(&ports()).generation();
    // The same again, a group that no rule names, a subject without a port.
    compiler.change_members(&group("clients"), &[address("198.18.1.7")], &[]);
    compiler.change_members(&group("unnamed"), &[address("198.18.1.9")], &[]);
    compiler.set_rules(id("shop/web"), network_policy("shop/web", rules)).expect("as before");
    let rules = SubjectRules { ingress: vec![id("shop/web")], egress: Vec::new() };
    compiler.set_subject(attachment("gone"), rules);
    assert_eq!(compiler.compile(&ports()).generation(), first);
    compiler.change_members(&group("clients"), &[], &[address("198.18.1.7")]);
    assert_ne!(compiler.compile(&ports()).generation(), first);
}

#[test]
fn exceptions_cut_their_own_block_alone() {
    let rules = vec![
        allow(from_blocks(vec![block("198.18.0.0/16", &["198.18.1.0/24"])]), tcp(80, 80)),
        PolicyRule {
            index: 1,
            ..allow(from_blocks(vec![block("198.18.1.0/28", &["198.18.1.7/32"])]), None)
        },
    ];
    let mut compiler = compiler(vec![network_policy("shop/web", rules)]);
    let policies = compiler.compile(&ports());
    for (peer, port, rule) in [
        ("198.18.2.1", 80, Some(0)),
        ("198.18.2.1", 81, None),
        ("198.18.1.1", 80, Some(1)),
        ("198.18.1.7", 80, None),
        ("198.18.1.99", 80, None),
        ("203.0.113.1", 80, None),
    ] {
        let judgement = judge(&policies, peer, port);
        let name = policies.rule(SUBJECT, Direction::Ingress, judgement.rule);
        assert_eq!(judgement.allowed, rule.is_some(), "{peer} {port}");
        assert_eq!(name.map(|name| name.index), rule, "{peer} {port}");
    }
}

#[test]
fn a_rule_set_that_cannot_be_compiled_closes_its_subjects_and_is_named() {
    let rule = |peers, ports| vec![allow(peers, ports)];
    let any = || PolicyPeers::Any;
    let many = |count: usize| {
        let prefix = |number: usize| format!("10.{}.{}.0/24", number >> 8, number & 255);
        from_blocks((0..count).map(|number| block(&prefix(number), &[])).collect())
    };
    for (rules, expected) in [
        (vec![allow(any(), None); 100_000], "has 100000 rules; 32767 are possible"),
        (rule(many(MAX_BLOCKS + 1), None), "has 16385 address blocks; 16384 are possible"),
        (rule(any(), tcp(81, 80)), "rule 0: the ports 81 to 80 end before they begin"),
        (
            rule(from_blocks(vec![block("198.18.0.0/16", &["198.19.0.0/24"])]), None),
            "rule 0: the exception 198.19.0.0/24 is not within 198.18.0.0/16",
        ),
        (
            rule(from_blocks(vec![block("0.0.0.0/0", &["fd00:18::/64"])]), None),
            "rule 0: the exception fd00:18::/64 is not within 0.0.0.0/0",
        ),
    ] {
        let mut compiler = compiler(vec![network_policy("shop/web", rule(any(), None))]);
        assert!(judge(&compiler.compile(&ports()), "198.18.1.7", 80).allowed);
        let refused = compiler.set_rules(id("shop/web"), network_policy("shop/web", rules));
        let problem = refused.expect_err("refused").to_string();
        assert!(problem.starts_with("policy shop/web") && problem.contains(expected), "{problem}");
        assert_eq!(judge(&compiler.compile(&ports()), "198.18.1.7", 80), Judgement::DENIED);
        let closed: Vec<_> = compiler.closed().collect();
        assert_eq!(closed, [(&attachment("web"), problem.as_str())]);
        let again = network_policy("shop/web", rule(any(), None));
        compiler.set_rules(id("shop/web"), again).expect("it can be compiled");
        assert!(judge(&compiler.compile(&ports()), "198.18.1.7", 80).allowed);
        assert_eq!(compiler.closed().count(), 0);
    }
}

#[test]
fn a_pod_is_closed_while_its_rules_are_not_there() {
    let mut compiler = Compiler::default();
    let closed = |compiler: &mut Compiler| {
        let policies = compiler.compile(&ports());
        let why = compiler.closed().map(|(_, why)| why.to_owned()).next();
        (!judge(&policies, "198.18.1.7", 80).allowed, why)
    };
    assert_eq!(closed(&mut compiler), (false, None));
    compiler.hold(attachment("web"));
    assert_eq!(closed(&mut compiler), (true, Some("its rule sets are not known yet".into())));
    let of_web = |compiler: &mut Compiler| {
        compiler.compile(&ports()).of(SUBJECT, Direction::Ingress).clone()
    };
    assert!(matches!(of_web(&mut compiler), DirectionPolicy::Pending));
    let rules = SubjectRules { ingress: vec![id("shop/web")], egress: Vec::new() };
    compiler.set_subject(attachment("web"), rules);
    compiler.hold(attachment("web"));
    let missing = "its rule set \"shop/web\" is not there";
    assert_eq!(closed(&mut compiler), (true, Some(missing.into())));
    assert!(matches!(of_web(&mut compiler), DirectionPolicy::Closed));
    let set = network_policy("shop/web", vec![allow(PolicyPeers::Any, None)]);
    compiler.set_rules(id("shop/web"), set).expect("it can be compiled");
    assert_eq!(closed(&mut compiler), (false, None));
    compiler.remove_rules(&id("shop/web"));
    assert_eq!(closed(&mut compiler), (true, Some(missing.into())));
    compiler.remove_subject(&attachment("web"));
    assert_eq!(closed(&mut compiler), (false, None));
}

#[test]
fn a_subject_has_no_more_rules_than_have_numbers() {
    let set = |name: &str| network_policy(name, vec![allow(PolicyPeers::Any, None); MAX_RULES]);
    let mut compiler = compiler(vec![set("a"), network_policy("b", vec![])]);
    assert!(judge(&compiler.compile(&ports()), "198.18.1.7", 80).allowed);
    let one = network_policy("b", vec![allow(PolicyPeers::Any, None)]);
    compiler.set_rules(id("b"), one).expect("it can be compiled");
    assert!(!judge(&compiler.compile(&ports()), "198.18.1.7", 80).allowed);
    let why = compiler.closed().next().expect("closed").1;
    assert!(why.contains("have 32768 rules in a direction; 32767 are possible"), "{why}");
}

#[test]
fn a_pod_with_too_many_rule_sets_is_closed_alone_and_in_that_direction_alone() {
    let names: Vec<String> = (0..=MAX_RULE_SETS_OF_A_POD).map(|n| format!("s{n}")).collect();
    let sets = names.iter().map(|name| network_policy(name, Vec::new()));
    let mut compiler = compiler(sets.collect());
    let all: Vec<_> = names.iter().map(|name| id(name)).collect();
    let rules = SubjectRules { ingress: all.clone(), egress: all[1..].to_vec() };
    compiler.set_subject(attachment("web"), rules);
    compiler.set_subject(attachment("db"), SubjectRules::default());
    let mut ports = ports();
    ports.insert(attachment("db"), port(8));
    let policies = compiler.compile(&ports);
    assert!(matches!(policies.of(SUBJECT, Direction::Ingress), DirectionPolicy::Closed));
    assert!(matches!(policies.of(SUBJECT, Direction::Egress), DirectionPolicy::Rules(_)));
    assert!(matches!(policies.of(PortId(8), Direction::Ingress), DirectionPolicy::Open));
    let closed: Vec<_> = compiler.closed().collect();
    let [(closed, why)] = closed[..] else { panic!("{closed:?}") };
    assert_eq!(*closed, attachment("web"));
    assert!(why.contains("has 4097 rule sets in a direction; 4096 are possible"), "{why}");
}

#[test]
fn the_problem_of_a_rule_set_stays_with_it() {
    let mut compiler = Compiler::default();
    let set = network_policy("shop/web", vec![allow(PolicyPeers::Any, tcp(2, 1))]);
    let problem = RuleSetProblem::Ports { policy: "shop/web".into(), index: 0, first: 2, last: 1 };
    for _ in 0..2 {
        assert_eq!(compiler.set_rules(id("shop/web"), set.clone()), Err(problem.clone()));
    }
    let listed: Vec<_> = compiler.rule_sets().map(|(_, _, problem)| problem.cloned()).collect();
    assert_eq!(listed, [Some(problem)]);
}

/// A policy with a row for each of 64 groups, of some 130 intervals.
fn large(name: &str) -> RuleSet {
    let rule = |number: u16| {
        let peers = from_groups(&[&format!("group-{}", number % 64)]);
        allow(peers, tcp(number * 2, number * 2))
    };
    network_policy(name, (0..64 * 64).map(rule).collect())
}

#[test]
fn the_largest_matrices_give_way_and_come_back() {
    let mut compiler = Compiler::with_matrix_bytes(128 << 10);
    let rule = allow(from_groups(&["group-7"]), None);
    compiler.set_rules(id("small"), network_policy("small", vec![rule])).expect("compiles");
    for name in ["one", "two"] {
        compiler.set_rules(id(name), large(name)).expect("compiles");
    }
    let mut ports = ports();
    for (number, name) in [(4, "one"), (5, "two"), (SUBJECT.0, "small")] {
        ports.insert(attachment(name), port(number));
        let rules = SubjectRules { ingress: vec![id(name)], egress: Vec::new() };
        compiler.set_subject(attachment(name), rules);
    }
    for number in 0..64u8 {
        let member = [198, 18, 1, number].into();
        compiler.change_members(&group(&format!("group-{number}")), &[member], &[]);
    }
    let check = |policies: &Policies| {
        for subject in [PortId(4), PortId(5)] {
            for (peer, port, rule) in [(7, 14, Some(7)), (7, 15, None), (7, 142, Some(71))] {
                let peer = [198, 18, 1, peer].into();
                let tcp = Protocol::TCP;
                let judged = policies.judge(subject, Direction::Ingress, peer, tcp, Some(port));
                assert_eq!(judged.allowed.then_some(judged.rule.0), rule, "{subject} {port}");
            }
        }
    };
    let policies = compiler.compile(&ports);
    assert!(!table(&policies).is_linear());
    let both = compiler.statistics();
    assert_eq!((both.tables, both.linear), (3, 1), "{both:?}");
    assert!(both.table_bytes > 50 << 10, "{both:?}");
    check(&policies);
    check(&compiler.compile(&ports));

    ports.remove(&attachment("one"));
    compiler.compile(&ports);
    let one = compiler.statistics();
    assert_eq!((one.tables, one.linear), (2, 0), "{one:?}");
}

/// Rules of distinct ports for one peer, beyond what a matrix has room for.
fn for_one_peer(name: &str, rules: u16) -> RuleSet {
    let rule = |number: u16| allow(from_groups(&["one"]), tcp(number * 2, number * 2));
    network_policy(name, (0..rules).map(rule).collect())
}

#[test]
fn rules_that_would_take_long_to_go_through_close_their_subjects_alone() {
    let mut compiler = Compiler::with_matrix_bytes(0);
    let mut ports = ports();
    // Each takes two comparisons, and to find those of the group four.
    for (number, name, rules) in [(4, "many", 2500), (5, "some", 2498)] {
        compiler.set_rules(id(name), for_one_peer(name, rules)).expect("compiles");
        ports.insert(attachment(name), port(number));
        let rules = SubjectRules { ingress: vec![id(name)], egress: Vec::new() };
        compiler.set_subject(attachment(name), rules);
    }
    let judged = |policies: &Policies, subject, port| {
        let peer = address("198.18.1.7");
        policies.judge(PortId(subject), Direction::Ingress, peer, Protocol::TCP, Some(port)).allowed
    };
    // Nobody is in the group yet: nothing is gone through.
    let policies = compiler.compile(&ports);
    assert_eq!(compiler.closed().count(), 0);
    assert!(!judged(&policies, 4, 0));

    compiler.change_members(&group("one"), &[address("198.18.1.7")], &[]);
    let policies = compiler.compile(&ports);
    let closed: Vec<_> = compiler.closed().collect();
    assert_eq!(closed.len(), 1, "{closed:?}");
    let (whose, why) = closed[0];
    assert_eq!(*whose, attachment("many"));
    assert!(why.contains("5004 comparisons; 5000 are possible"), "{why}");
    assert_eq!(compiler.order(&[id("many")]).expect_err("closed"), *why);
    assert!(matches!(policies.of(PortId(4), Direction::Ingress), DirectionPolicy::Closed));
    assert!(!judged(&policies, 4, 0));
    assert!(judged(&policies, 5, 4994) && !judged(&policies, 5, 4996));

    // With room for a matrix, or without the peer, it is judged again.
    compiler.change_members(&group("one"), &[], &[address("198.18.1.7")]);
    compiler.compile(&ports);
    assert_eq!(compiler.closed().count(), 0);
}
