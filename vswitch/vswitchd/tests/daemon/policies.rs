//! Policies over the socket: committed in parts, in force at once, and as they were after a kill.

use std::time::{Duration, Instant};

use api::{
    ErrorKind, GroupChange, GroupId, Isolation, NamedRuleSet, PodName, PolicyPeers, PolicyRule,
    PolicyState, PolicySync, PolicyTier, RefusedRuleSet, Reply, Request, Reserve, RuleAction,
    RuleSet, RuleSetId, Subject, SubjectRules,
};

use netio::port::PortFd;

use crate::node::{Node, Pod, Running};
use crate::recovery::recover;

const KEPT: &str = "[kubernetes]\npolicies = true\n";
/// An ADD waits for policies so long.
const ADD_PATIENCE: Duration = Duration::from_secs(2);

fn pod(name: &str) -> PodName {
    PodName { namespace: "shop".into(), name: name.into(), uid: None }
}

fn reserve(name: &str) -> Reserve {
    Reserve { pod: Some(pod(name)), ..Pod::reserve(name) }
}

fn id(name: &str) -> RuleSetId {
    RuleSetId(name.into())
}

/// A rule set that allows what comes from a group.
fn allow(name: &str, group: &str, rules: usize) -> NamedRuleSet {
    let rule = |index| PolicyRule {
        index,
        action: RuleAction::Allow,
        peers: PolicyPeers::Of { groups: vec![GroupId(group.into())], blocks: Vec::new() },
        ports: None,
    };
    let rules = (0..rules as u32).map(rule).collect();
    let set = RuleSet { policy: format!("shop/{name}"), tier: PolicyTier::NetworkPolicy, rules };
    NamedRuleSet { id: id(name), set }
}

fn subject(name: &str, ingress: &[&str]) -> Subject {
    let ingress = ingress.iter().map(|name| id(name)).collect();
    Subject { pod: pod(name), rules: SubjectRules { ingress, egress: Vec::new() } }
}

impl Running<'_> {
    fn sync_policies(&self, sync: PolicySync) -> Vec<RefusedRuleSet> {
        match self.ask(&Request::SyncPolicies(sync)) {
            Reply::SyncedPolicies(refused) => refused,
            other => panic!("{other:?}"),
        }
    }

    fn policies(&self) -> PolicyState {
        match self.ask(&Request::ShowPolicies) {
            Reply::Policies(state) => state,
            other => panic!("{other:?}"),
        }
    }

    fn isolation(&self) -> Vec<(String, Isolation, Isolation)> {
        let pods = self.policies().pods.into_iter();
        pods.map(|pod| (pod.name, pod.ingress.isolation, pod.egress.isolation)).collect()
    }
}

fn commit() -> PolicySync {
    PolicySync { commit: true, ..PolicySync::default() }
}

#[test]
fn policies_are_in_force_with_the_last_part_and_after_a_kill() {
    let node = Node::new("");
    let daemon = node.start_as(node.supervised());
    let _web = daemon.plug_as(reserve("web"));
    assert!(!daemon.policies().summary.enforced);
    let first = PolicySync {
        groups: vec![GroupChange {
            group: GroupId("clients".into()),
            leave: Vec::new(),
            join: vec!["198.18.2.9".parse().expect("an address")],
        }],
        rule_sets: vec![allow("from-clients", "clients", 2), allow("huge", "clients", 40_000)],
        ..PolicySync::default()
    };
    assert_eq!(daemon.sync_policies(first.clone()), []);
    assert!(!daemon.policies().summary.enforced, "nothing of a part is in force");
    let skipped = PolicySync { part: 2, ..commit() };
    let refused = daemon.try_ask(&Request::SyncPolicies(skipped)).expect_err("part 1 is missing");
    assert_eq!(refused.kind, ErrorKind::Invalid);
    let late = PolicySync { part: 1, ..commit() };
    let refused = daemon.try_ask(&Request::SyncPolicies(late)).expect_err("it was discarded");
    assert!(refused.message.contains("begin again with part 0"), "{refused}");

    assert_eq!(daemon.sync_policies(first), []);
    let last = PolicySync {
        part: 1,
        subjects: vec![subject("web", &["from-clients"]), subject("db", &["huge"])],
        ..commit()
    };
    let refused = daemon.sync_policies(last);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].reason.contains("has 40000 rules"), "{refused:?}");
    let _db = daemon.plug_as(reserve("db"));
    let before = daemon.policies();
    let names: Vec<_> = before.pods.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!(names, ["shop/db", "shop/web"]);
    let [db, web] = &before.pods[..] else { panic!("{before:?}") };
    assert_eq!(db.ingress.isolation, Isolation::Closed);
    assert_eq!(db.ingress.reason.as_ref(), Some(&refused[0].reason));
    assert_eq!(web.ingress.isolation, Isolation::Policies);
    assert_eq!(web.ingress.policies[0].policy, "shop/from-clients");
    assert_eq!(web.ingress.policies[0].rules, 2);
    assert_eq!(web.egress.isolation, Isolation::Open);
    let Reply::PolicyDigest(digest) = daemon.ask(&Request::PolicyDigest) else { panic!("none") };
    let Reply::Status(status) = daemon.ask(&Request::Status) else { panic!("none") };
    assert!(status.warnings.iter().any(|line| line.contains("1 rule set(s) are refused")));
    assert_eq!(status.problems, [], "no policy keeps a pod from being added");

    daemon.ends_daemon("-KILL");
    // Memory is as it was come by.
    let without_bytes = |mut state: PolicyState| {
        state.summary.bytes = 0;
        state
    };
    let after = without_bytes(daemon.policies());
    assert_eq!(after, without_bytes(before), "before any source came");
    assert_eq!(daemon.ask(&Request::PolicyDigest), Reply::PolicyDigest(digest));
    daemon.stop();
}

#[test]
fn a_pod_that_too_many_policies_select_costs_no_other_its_change() {
    let node = Node::new("");
    let daemon = node.start();
    let _web = daemon.plug_as(reserve("web"));
    let _db = daemon.plug_as(reserve("db"));
    let names: Vec<String> = (0..4097).map(|number| format!("s{number}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let change = |web: &[&str]| PolicySync {
        rule_sets: all.iter().map(|name| allow(name, "clients", 0)).collect(),
        subjects: vec![subject("web", web), subject("db", &["s0"])],
        ..commit()
    };
    let refused = daemon.sync_policies(change(&all));
    let [refused] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!((&refused.id, &*refused.policy), (&id("s4096"), "shop/s4096"));
    let why = "the pod shop/web has 4097 rule sets for ingress; 4096 are possible";
    assert!(refused.reason.contains(why), "{refused:?}");
    let [db, web] = &daemon.policies().pods[..] else { panic!("{:?}", daemon.policies()) };
    assert_eq!(db.ingress.isolation, Isolation::Policies);
    assert_eq!((web.ingress.isolation, web.egress.isolation), (Isolation::Closed, Isolation::Open));
    assert!(web.ingress.reason.as_ref().is_some_and(|why| why.contains("4097 rule sets")));
    let Reply::Status(status) = daemon.ask(&Request::Status) else { panic!("none") };
    assert!(status.warnings.iter().any(|line| line.contains(why)), "{:?}", status.warnings);
    assert_eq!(daemon.sync_policies(change(&all[1..])), []);
    assert_eq!(daemon.policies().pods[1].ingress.isolation, Isolation::Policies);
    daemon.stop();
}

#[test]
fn a_pod_is_closed_until_its_policies_are_told_and_its_add_waits_for_them() {
    let node = Node::new("");
    node.append(KEPT);
    let daemon = node.start();
    let begin = Instant::now();
    let _web = daemon.plug_as(reserve("web"));
    assert!(begin.elapsed() >= ADD_PATIENCE, "it is added without");
    let _nameless = daemon.plug("nameless");
    let pending = |name: &str| (name.to_owned(), Isolation::Pending, Isolation::Pending);
    let open = |name: &str| (name.to_owned(), Isolation::Open, Isolation::Open);
    assert_eq!(daemon.isolation(), [pending("shop/web")]);

    // The ADD is answered as soon as a source tells them, and meanwhile others are served.
    let Reply::Reserved(reserved) = daemon.ask(&Request::Reserve(reserve("db"))) else {
        panic!("none")
    };
    let (port, _far) = PortFd::pair().expect("a socketpair");
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| daemon.attach("db", reserved.mac, port.into()));
        daemon.status_once(|status| status.pods == 3);
        assert_eq!(daemon.isolation(), [pending("shop/db"), pending("shop/web")]);
        assert!(!adding.is_finished(), "it waits");
        daemon.sync_policies(PolicySync { subjects: vec![subject("db", &[])], ..commit() });
        assert_eq!(adding.join().expect("no panic"), Ok(Reply::Done));
    });
    assert_eq!(daemon.isolation(), [open("shop/db"), pending("shop/web")]);

    // The UID tells a pod from another of its name, and one that is withdrawn is held again.
    let told = |uid: &str| {
        let uid = Some(uid.to_owned());
        Subject { pod: PodName { uid, ..pod("uid") }, rules: SubjectRules::default() }
    };
    let of = Some("1".to_owned());
    daemon.sync_policies(PolicySync { subjects: vec![told("1")], ..commit() });
    let _uid = daemon
        .plug_as(Reserve { pod: Some(PodName { uid: of, ..pod("uid") }), ..Pod::reserve("uid") });
    let now = |at: usize| daemon.isolation()[at].clone();
    assert_eq!(now(1), open("shop/uid"));
    daemon.sync_policies(PolicySync { subjects: vec![told("2")], ..commit() });
    assert_eq!(now(1), pending("shop/uid"));
    daemon.sync_policies(PolicySync { gone_subjects: vec![pod("db")], ..commit() });
    assert_eq!(now(0), pending("shop/db"));
    daemon.stop();
}

#[test]
fn a_journal_that_may_lack_policies_closes_pods_until_they_are_told_again() {
    let node = Node::new("");
    let daemon = node.start();
    daemon.sync_policies(PolicySync {
        rule_sets: vec![allow("from-clients", "clients", 1)],
        subjects: vec![subject("web", &[])],
        ..commit()
    });
    let _web = daemon.plug_as(reserve("web"));
    // Now something selects it.
    daemon.sync_policies(PolicySync {
        subjects: vec![subject("web", &["from-clients"])],
        ..commit()
    });
    daemon.kill();
    let journal = node.journal();
    let last = journal.rfind("from-clients").expect("it was written");
    let damaged = format!("{}F{}", &journal[..last], &journal[last + 1..]);
    std::fs::write(node.file("state/journal"), damaged).expect("it can be written");
    for _ in 0..2 {
        let daemon = node.start();
        let pending = ("shop/web".to_owned(), Isolation::Pending, Isolation::Pending);
        assert_eq!(daemon.isolation(), [pending], "the line that is left would open it");
        let Reply::PolicyDigest(digest) = daemon.ask(&Request::PolicyDigest) else {
            panic!("none")
        };
        assert!(digest.rule_sets.is_empty() && digest.subjects.is_empty(), "all is told again");
        daemon.kill();
    }
    let daemon = node.start();
    daemon.sync_policies(PolicySync {
        rule_sets: vec![allow("from-clients", "clients", 1)],
        subjects: vec![subject("web", &["from-clients"])],
        ..commit()
    });
    let told = ("shop/web".to_owned(), Isolation::Policies, Isolation::Open);
    assert_eq!(daemon.isolation(), [told]);
    daemon.stop();
}

#[test]
fn a_lost_line_of_a_pod_costs_no_policies_but_its_own() {
    let node = Node::new("");
    let daemon = node.start();
    let subjects = vec![subject("web", &["from-clients"]), subject("db", &[])];
    let rule_sets = vec![allow("from-clients", "clients", 1)];
    daemon.sync_policies(PolicySync { rule_sets, subjects, ..commit() });
    let db = daemon.plug_as(reserve("db"));
    let _web = daemon.plug_as(reserve("web"));
    daemon.kill();
    node.damage("db");
    let daemon = node.start();
    let web = ("shop/web".to_owned(), Isolation::Policies, Isolation::Open);
    assert_eq!(daemon.isolation(), std::slice::from_ref(&web));
    assert!(matches!(daemon.ask(&Request::Recover(recover("db", &db))), Reply::Reserved(_)));
    let (port, _far) = PortFd::pair().expect("a socketpair");
    assert_eq!(daemon.attach("db", db.mac, port.into()), Ok(Reply::Done));
    let state = daemon.policies();
    let nameless = &state.pods[0];
    assert_eq!((nameless.name.as_str(), nameless.ingress.isolation), ("db", Isolation::Pending));
    let why = nameless.ingress.reason.as_deref().unwrap_or_default();
    assert!(why.contains("its name was lost"), "{why}");
    assert_eq!(daemon.isolation()[1], web);
    let Reply::Status(status) = daemon.ask(&Request::Status) else { panic!("not a status") };
    let warns = |part: &str| status.warnings.iter().any(|warning| warning.contains(part));
    assert!(warns("any policy may select them: db; delete them"), "{:?}", status.warnings);
    assert!(!warns("vswitch-agent"), "the agent could not help: {:?}", status.warnings);
    daemon.stop();
}

#[test]
fn a_pod_whose_name_is_lost_may_be_any_that_the_configuration_selects() {
    let node = Node::new("");
    node.append("[[policies]]\nname = \"db\"\npods = [\"shop/db\"]\ningress = []\n");
    let daemon = node.start();
    let db = daemon.plug_as(reserve("db"));
    assert_eq!(daemon.isolation(), [("shop/db".into(), Isolation::Policies, Isolation::Open)]);
    daemon.kill();
    node.damage("db");
    let daemon = node.start();
    assert!(matches!(daemon.ask(&Request::Recover(recover("db", &db))), Reply::Reserved(_)));
    let (port, _far) = PortFd::pair().expect("a socketpair");
    assert_eq!(daemon.attach("db", db.mac, port.into()), Ok(Reply::Done));
    assert_eq!(daemon.isolation(), [("db".into(), Isolation::Pending, Isolation::Pending)]);
    let Reply::Status(status) = daemon.ask(&Request::Status) else { panic!("not a status") };
    let warning = "any policy may select them: db; delete them";
    assert!(status.warnings.iter().any(|one| one.contains(warning)), "{:?}", status.warnings);
    daemon.stop();
}

#[test]
fn what_was_told_can_be_forgotten() {
    let node = Node::new("");
    let daemon = node.start();
    daemon.sync_policies(PolicySync { subjects: vec![subject("db", &[])], ..commit() });
    let _web = daemon.plug_as(reserve("web"));
    assert_eq!(daemon.isolation(), [("shop/web".into(), Isolation::Pending, Isolation::Pending)]);
    assert_eq!(daemon.ask(&Request::ForgetPolicies), Reply::Done);
    assert_eq!(daemon.policies(), PolicyState::default());
    daemon.kill();
    assert_eq!(node.start().policies(), PolicyState::default());
}
