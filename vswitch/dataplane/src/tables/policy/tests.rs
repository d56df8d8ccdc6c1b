//! Judgements of tables that are made by hand.

use core::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::{
    Action, ClassId, ClassSets, Classes, Direction, DirectionPolicy, Interval, Judgement, Matrix,
    PeerSetId, Policies, PortKey, PortSpan, Rule, RuleName, RuleNumber, RulePeers, RuleTable,
    Rules, SubjectPolicies,
};
use crate::tables::PortId;
use crate::wire::Protocol;

const SUBJECT: PortId = PortId(1);

fn rule(action: Action, sets: &[u32], spans: &[PortSpan]) -> Rule {
    let sets: Box<[_]> = sets.iter().map(|set| PeerSetId(*set)).collect();
    let peers = if sets.is_empty() { RulePeers::Any } else { RulePeers::Sets(sets) };
    Rule { action, peers, spans: spans.into() }
}

fn tcp(port: u16) -> PortSpan {
    PortSpan::ports(Protocol::TCP, port..=port)
}

/// Class 0 is in set 0, class 1 in sets 0 and 1.
fn policies(ingress: DirectionPolicy) -> Policies {
    let mut classes = Classes::default();
    classes.insert("198.18.0.0/16".parse().unwrap(), ClassId(0));
    classes.insert("198.18.1.7/32".parse().unwrap(), ClassId(1));
    classes.insert("fd00:18::/64".parse().unwrap(), ClassId(0));
    let sets = ClassSets::new([&[PeerSetId(0)][..], &[PeerSetId(0), PeerSetId(1)]].into_iter());
    let subject = SubjectPolicies { ingress, egress: DirectionPolicy::Closed };
    let subjects = [SubjectPolicies::default(), subject];
    Policies::new(7, Arc::new(classes), Arc::new(sets), Arc::new(subjects))
}

fn judge(policies: &Policies, peer: &str, protocol: Protocol, port: Option<u16>) -> Judgement {
    let peer: IpAddr = peer.parse().unwrap();
    policies.judge(SUBJECT, Direction::Ingress, peer, protocol, port)
}

fn by(allowed: bool, rule: u16) -> Judgement {
    Judgement { allowed, rule: RuleNumber(rule) }
}

#[test]
fn a_subject_without_policies_is_open_and_one_with_unknown_ones_closed() {
    let policies = policies(DirectionPolicy::Open);
    assert_eq!(judge(&policies, "198.18.1.7", Protocol::TCP, Some(80)), Judgement::ALLOWED);
    let peer = "198.18.1.7".parse().unwrap();
    let egress = policies.judge(SUBJECT, Direction::Egress, peer, Protocol::TCP, Some(80));
    assert_eq!(egress, Judgement::DENIED);
    assert!(policies.concern(SUBJECT));
    for other in [PortId(0), PortId(2)] {
        assert!(!policies.concern(other));
        let egress = policies.judge(other, Direction::Egress, peer, Protocol::TCP, Some(80));
        assert_eq!(egress, Judgement::ALLOWED);
    }
}

#[test]
fn the_class_names_the_row_and_the_port_its_interval() {
    let interval =
        |protocol, port, judgement| Interval { first: PortKey::new(protocol, port), judgement };
    let all = |judgement| Interval { first: PortKey::FIRST, judgement };
    let other = [all(Judgement::DENIED)];
    let first = [
        all(Judgement::DENIED),
        interval(Protocol::TCP, Some(80), by(true, 0)),
        interval(Protocol::TCP, Some(81), Judgement::DENIED),
    ];
    let second = [all(by(false, 3))];
    let rows = [&other[..], &first, &second];
    let classes = [(ClassId(0), 1), (ClassId(1), 2)].into_iter();
    let matrix = Matrix::new(rows.into_iter(), classes);
    let policies = policies(DirectionPolicy::Rules(Arc::new(RuleTable::matrix(matrix, &[], &[]))));
    for (peer, protocol, port, expected) in [
        ("198.18.9.9", Protocol::TCP, Some(80), by(true, 0)),
        ("fd00:18::1", Protocol::TCP, Some(80), by(true, 0)),
        ("198.18.9.9", Protocol::TCP, Some(79), Judgement::DENIED),
        ("198.18.9.9", Protocol::TCP, Some(81), Judgement::DENIED),
        ("198.18.9.9", Protocol::TCP, None, Judgement::DENIED),
        ("198.18.9.9", Protocol::UDP, Some(80), Judgement::DENIED),
        ("198.18.1.7", Protocol::TCP, Some(80), by(false, 3)),
        ("203.0.113.1", Protocol::TCP, Some(80), Judgement::DENIED),
    ] {
        assert_eq!(judge(&policies, peer, protocol, port), expected, "{peer} {port:?}");
    }
}

#[test]
fn a_class_whose_row_is_missing_is_denied() {
    let open = [Interval { first: PortKey::FIRST, judgement: Judgement::ALLOWED }];
    let matrix = Matrix::new([&open[..]].into_iter(), [(ClassId(1), 9)].into_iter());
    let policies = policies(DirectionPolicy::Rules(Arc::new(RuleTable::matrix(matrix, &[], &[]))));
    assert_eq!(judge(&policies, "198.18.9.9", Protocol::ICMP, None), Judgement::ALLOWED);
    assert_eq!(judge(&policies, "198.18.1.7", Protocol::ICMP, None), Judgement::DENIED);
}

#[test]
fn tiers_follow_one_another() {
    let any = [PortSpan::ANY];
    let linear = |rules| {
        let table = RuleTable::linear(Arc::new(rules), &[], &[]);
        policies(DirectionPolicy::Rules(Arc::new(table)))
    };
    let admin = || {
        vec![
            rule(Action::Pass, &[1], &[tcp(80)]),
            rule(Action::Deny, &[0], &[tcp(80)]),
            rule(Action::Allow, &[], &[tcp(22)]),
        ]
    };
    let baseline = || vec![rule(Action::Deny, &[], &any)];
    let isolated =
        linear(Rules::new(admin(), Some(vec![rule(Action::Allow, &[1], &any)]), baseline()));
    let open = linear(Rules::new(admin(), None, baseline()));
    let bare = linear(Rules::new(admin(), None, Vec::new()));
    for (peer, port, of_isolated, of_open, of_bare) in [
        // Passed by the first rule, although the second would deny it.
        ("198.18.1.7", 80, by(true, 3), by(false, 3), Judgement::ALLOWED),
        ("198.18.9.9", 80, by(false, 1), by(false, 1), by(false, 1)),
        ("203.0.113.1", 22, by(true, 2), by(true, 2), by(true, 2)),
        ("203.0.113.1", 23, Judgement::DENIED, by(false, 3), Judgement::ALLOWED),
    ] {
        let judged = |policies| judge(policies, peer, Protocol::TCP, Some(port));
        assert_eq!(judged(&isolated), of_isolated, "isolated: {peer} {port}");
        assert_eq!(judged(&open), of_open, "open: {peer} {port}");
        assert_eq!(judged(&bare), of_bare, "bare: {peer} {port}");
    }
}

#[test]
fn spans_are_of_their_protocol_alone() {
    let key = PortKey::new;
    let all = PortSpan::protocol(Protocol::UDP);
    assert!(
        all.contains(key(Protocol::UDP, None)) && all.contains(key(Protocol::UDP, Some(65535)))
    );
    assert!(!all.contains(key(Protocol(16), Some(65535))));
    assert!(!all.contains(key(Protocol(18), None)));
    let some = PortSpan::ports(Protocol::UDP, 0..=53);
    assert!(
        some.contains(key(Protocol::UDP, Some(0))) && some.contains(key(Protocol::UDP, Some(53)))
    );
    assert!(!some.contains(key(Protocol::UDP, Some(54))));
    assert!(!some.contains(key(Protocol::UDP, None)), "no port is not port 0");
    assert!(PortSpan::ANY.contains(key(Protocol(255), Some(65535))));
    assert_eq!(PortSpan::ANY.last.next(), None);
}

#[test]
fn a_rule_is_named_by_its_policy_and_its_index_there() {
    let names: [(u16, Arc<str>); 3] =
        [(0, "shop/web".into()), (2, "shop/default-deny".into()), (2, "shop/db".into())];
    let table = RuleTable::linear(Arc::default(), &names, &[0, 0, 4]);
    let name = |number| table.rule(RuleNumber(number));
    assert_eq!(name(1), Some(RuleName { policy: "shop/web", index: 0 }));
    assert_eq!(name(2), Some(RuleName { policy: "shop/db", index: 4 }));
    assert_eq!(name(2).unwrap().to_string(), "shop/db rule 4");
    assert_eq!(name(3), None);
    assert_eq!(table.rule(RuleNumber::NONE), None);
    assert_eq!(table.policies().collect::<Vec<_>>(), ["shop/web", "shop/default-deny", "shop/db"]);
    let policies = policies(DirectionPolicy::Rules(Arc::new(table)));
    let found = policies.rule(SUBJECT, Direction::Ingress, RuleNumber(0)).unwrap();
    assert_eq!(found.policy, "shop/web");
    assert_eq!(policies.rule(SUBJECT, Direction::Egress, RuleNumber(0)), None);
}

/// As the rules say, one after the other.
fn naive(rules: &Rules, sets: &[PeerSetId], key: PortKey) -> Judgement {
    rules.decide(|mut range| {
        range.find(|number| {
            let rule = &rules.all()[*number];
            let is_peer = match &rule.peers {
                RulePeers::Any => true,
                RulePeers::Sets(own) => own.iter().any(|set| sets.contains(set)),
            };
            is_peer && rule.spans.iter().any(|span| span.contains(key))
        })
    })
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    let action = prop::sample::select(&[Action::Allow, Action::Deny, Action::Pass][..]);
    let sets = prop::collection::vec(0u32..6, 0..5);
    // Neighbours do not overlap.
    let spans = prop::collection::btree_set(0u16..8, 1..5);
    let rule = (action, sets, spans).prop_map(|(action, sets, spans)| {
        let spans: Vec<_> = spans.into_iter().map(tcp).collect();
        rule(action, &sets, &spans)
    });
    prop::collection::vec(rule, 0..8)
}

proptest! {
    #[test]
    fn rules_that_are_gone_through_by_peers_judge_as_all_of_them_do(
        admin in any_rules(),
        network in prop::option::of(any_rules()),
        baseline in any_rules(),
        sets in prop::collection::btree_set(0u32..9, 0..9),
        port in 0u16..9,
    ) {
        let rules = Rules::new(admin, network, baseline);
        let sets: Vec<_> = sets.into_iter().map(PeerSetId).collect();
        let key = PortKey::new(Protocol::TCP, Some(port));
        prop_assert_eq!(rules.judge(&sets, key), naive(&rules, &sets, key));
    }
}

#[test]
fn a_judgement_costs_by_the_rules_for_its_peer_and_not_by_all_of_them() {
    let of = |set: u32| rule(Action::Allow, &[set], &[tcp(80)]);
    let rules = Rules::new(Vec::new(), Some((0..1000).map(of).collect()), Vec::new());
    let own = rules.comparisons(&[PeerSetId(7)]);
    assert!(own < 10, "{own}");
    assert_eq!(rules.comparisons(&[PeerSetId(2000)]), own - 2);
    let all: Vec<_> = (0..1000).map(PeerSetId).collect();
    assert_eq!(rules.comparisons(&all), 6000);
}
