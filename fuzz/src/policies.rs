//! Policies of some of the pods: one that is isolated from others, one that may open few connections, one
//! whose policies are not known yet.
//!
//! Enters: nothing. Leaves: the policies that [`live`](crate::live) gives its tables.

use std::sync::Arc;

use dataplane::tables::policy::{
    Action, ClassId, ClassSets, Classes, Direction, DirectionPolicy, Interval, Judgement, Matrix,
    PeerSetId, Policies, PortKey, PortSpan, Rule, RuleNumber, RulePeers, RuleTable, Rules,
    SubjectPolicies,
};
use dataplane::wire::Protocol;

use crate::live::{pod_v4, remote_v4};

/// A routed pod without offloads: what may be sent to it.
const ISOLATED: u16 = 3;
/// A bridged pod: what it may open.
const RESTRICTED: u16 = 4;
/// A pod of another segment: nothing, as long as nothing is known.
const PENDING: u16 = 6;

/// The set of a routed pod, a bridged one and the pods of a peer.
const PEERS: PeerSetId = PeerSetId(0);

/// The policies.
#[must_use]
pub fn policies() -> Policies {
    let mut classes = Classes::default();
    let remote = ipnet::Ipv4Net::new_assert(remote_v4(0), 24).trunc();
    for prefix in [pod_v4(2).into(), pod_v4(4).into(), remote] {
        classes.insert(ipnet::IpNet::V4(prefix), ClassId(0));
    }
    let class_sets = ClassSets::new([&[PEERS][..]].into_iter());
    let mut subjects = vec![SubjectPolicies::default(); usize::from(PENDING) + 1];
    let mut set = |pod: u16, direction, policy| match direction {
        Direction::Ingress => subjects[usize::from(pod)].ingress = policy,
        Direction::Egress => subjects[usize::from(pod)].egress = policy,
    };
    set(ISOLATED, Direction::Ingress, gone_through());
    set(RESTRICTED, Direction::Egress, worked_out());
    set(PENDING, Direction::Ingress, DirectionPolicy::Pending);
    Policies::new(1, Arc::new(classes), Arc::new(class_sets), subjects.into())
}

/// An administrator's rule, then one that allows the peers some ports.
fn gone_through() -> DirectionPolicy {
    let rule = |action, peers, spans: &[PortSpan]| Rule { action, peers, spans: spans.into() };
    let denied = PortSpan::ports(Protocol::TCP, 8081..=8089);
    let allowed = [
        PortSpan::protocol(Protocol::ICMP),
        PortSpan::ports(Protocol::TCP, 1..=9000),
        PortSpan::ports(Protocol::UDP, 1..=9000),
        PortSpan::ports(Protocol::SCTP, 8080..=8080),
    ];
    let admin = vec![rule(Action::Deny, RulePeers::Any, &[denied])];
    let network = vec![rule(Action::Allow, RulePeers::Sets([PEERS].into()), &allowed)];
    let rules = Arc::new(Rules::new(admin, Some(network), Vec::new()));
    let names = [(0, "admin/closed".into()), (1, "shop/peers".into())];
    DirectionPolicy::Rules(Arc::new(RuleTable::linear(rules, &names, &[0, 0])))
}

/// Everything to the peers, and nothing else.
fn worked_out() -> DirectionPolicy {
    let row = |judgement| [Interval { first: PortKey::FIRST, judgement }];
    let allowed = Judgement { allowed: true, rule: RuleNumber(0) };
    let rows = [row(Judgement::DENIED), row(allowed)];
    let matrix = Matrix::new(rows.iter().map(|row| &row[..]), [(ClassId(0), 1)].into_iter());
    let names = [(0, "shop/peers".into())];
    DirectionPolicy::Rules(Arc::new(RuleTable::matrix(matrix, &names, &[0])))
}
