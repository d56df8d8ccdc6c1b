//! Changes of policies as edits: applied, taken back, written and read again, with lines missing.

use std::net::IpAddr;

use api::{
    ErrorKind, GroupChange, GroupId, NamedRuleSet, PodName, PolicyPeers, PolicyRule, PolicySync,
    PolicyTier, RuleAction, RuleSet, RuleSetId, Subject, SubjectRules,
};

use super::bounds::MAX_POD_NAME;
use super::{PodRules, check_names, check_totals};
use crate::config::Config;
use crate::model::{Edit, Lease, Model};

fn config() -> Config {
    let text = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\n\
                cluster_prefixes = [\"198.18.0.0/16\"]\n";
    Config::parse("f", text).expect("valid")
}

fn address(last: u8) -> IpAddr {
    [198, 18, 1, last].into()
}

fn change(group: &str, leave: &[u8], join: &[u8]) -> GroupChange {
    let list = |lasts: &[u8]| lasts.iter().copied().map(address).collect();
    GroupChange { group: GroupId(group.into()), leave: list(leave), join: list(join) }
}

fn rule_set(name: &str, action: RuleAction) -> NamedRuleSet {
    let peers = PolicyPeers::Of { groups: vec![GroupId("web".into())], blocks: Vec::new() };
    let rules = vec![PolicyRule { index: 0, action, peers, ports: None }];
    let set = RuleSet { policy: name.into(), tier: PolicyTier::NetworkPolicy, rules };
    NamedRuleSet { id: RuleSetId(name.into()), set }
}

fn pod(name: &str, uid: Option<&str>) -> PodName {
    PodName { namespace: "shop".into(), name: name.into(), uid: uid.map(str::to_owned) }
}

fn subject(pod: PodName, ingress: &[&str]) -> Subject {
    let ingress = ingress.iter().map(|name| RuleSetId((*name).into())).collect();
    Subject { pod, rules: SubjectRules { ingress, egress: Vec::new() } }
}

/// A commit, as the plane makes it; its edits and those that take it back.
fn commit(model: &mut Model, sync: PolicySync) -> (Vec<Edit>, Vec<Edit>) {
    let mut edits = model.sync_policies(sync);
    let mut undo = model.apply_all(&edits);
    let last = [Edit::PoliciesAre { sum: Some(model.policies.sum()) }];
    undo.splice(0..0, model.apply_all(&last));
    edits.extend(last);
    (edits, undo)
}

/// Two groups, a rule set and a pod.
fn first() -> PolicySync {
    PolicySync {
        groups: vec![change("web", &[], &[1, 2, 3]), change("db", &[], &[3])],
        rule_sets: vec![rule_set("from-web", RuleAction::Allow)],
        subjects: vec![subject(pod("db", None), &["from-web"])],
        ..PolicySync::default()
    }
}

fn second() -> PolicySync {
    PolicySync {
        gone_groups: vec![GroupId("db".into())],
        groups: vec![change("web", &[1, 9], &[2, 4])],
        rule_sets: vec![rule_set("from-web", RuleAction::Deny)],
        subjects: vec![subject(pod("db", None), &[]), subject(pod("web", None), &[])],
        ..PolicySync::default()
    }
}

#[test]
fn only_what_is_different_is_an_edit() {
    let mut model = Model::new(&config());
    assert_eq!(commit(&mut model, first()).0.len(), 5);
    assert_eq!(model.sync_policies(first()), []);
    let (edits, _) = commit(&mut model, second());
    let web = || GroupId("web".into());
    assert_eq!(edits[0], Edit::NoMembers { group: GroupId("db".into()) });
    let (leave, join) = (vec![address(1)], vec![address(4)]);
    assert_eq!(edits[1], Edit::Members { group: web(), leave, join });
    assert_eq!(edits.len(), 6);
    assert_eq!(model.policies.count_members(), 3);
    // A group that loses all its members before some join has these.
    let again = PolicySync {
        gone_groups: vec![web()],
        groups: vec![change("web", &[], &[4, 5])],
        ..PolicySync::default()
    };
    let (edits, _) = commit(&mut model, again);
    let (leave, join) = (vec![address(2), address(3)], vec![address(5)]);
    assert_eq!(edits[0], Edit::Members { group: web(), leave, join });
}

#[test]
fn what_is_taken_back_is_as_before() {
    let mut model = Model::new(&config());
    let empty = model.snapshot();
    let (_, undo_first) = commit(&mut model, first());
    let (digest, sum, snapshot) = (model.policies.digest(), model.policies.sum(), model.snapshot());
    let (_, undo_second) = commit(&mut model, second());
    assert_ne!(model.policies.sum(), sum);
    model.apply_all(&undo_second);
    assert_eq!((model.policies.digest(), model.policies.sum()), (digest, sum));
    assert_eq!(model.snapshot(), snapshot);
    assert!(model.policies.are_told());
    model.apply_all(&undo_first);
    assert_eq!((model.policies.sum(), model.policies.are_told()), (0, false));
    assert_eq!(model.snapshot(), empty);
}

#[test]
fn what_is_forgotten_is_as_before_the_first_commit() {
    let mut model = Model::new(&config());
    let empty = model.snapshot();
    commit(&mut model, first());
    let told = model.snapshot();
    let undo = model.apply_all(&model.policies.forgetting());
    assert_eq!(model.snapshot(), empty);
    assert!(!model.policies.are_told());
    model.apply_all(&undo);
    assert_eq!(model.snapshot(), told);
}

#[test]
fn edits_are_the_same_after_their_json_and_a_second_time() {
    let mut model = Model::new(&config());
    let mut edits = commit(&mut model, first()).0;
    edits.extend(commit(&mut model, second()).0);
    let json = serde_json::to_string(&edits).expect("JSON");
    assert_eq!(serde_json::from_str::<Vec<Edit>>(&json).expect("edits"), edits);
    let mut again = Model::restored(&config(), &edits);
    assert!(!again.forget_doubtful_policies(&edits, None));
    for made in [&Model::restored(&config(), &model.snapshot()), &again] {
        assert_eq!(made.policies.digest(), model.policies.digest());
        assert_eq!(made.policies.sum(), model.policies.sum());
        assert_eq!(made.policies.count_members(), model.policies.count_members());
    }
    again.apply_all(&edits);
    assert_eq!(again.policies.sum(), model.policies.sum());
}

#[test]
fn whichever_line_is_missing_policies_are_forgotten() {
    let mut model = Model::new(&config());
    let lines = [commit(&mut model, first()).0, commit(&mut model, second()).0];
    let snapshot: Vec<_> = model.snapshot().into_iter().map(|edit| vec![edit]).collect();
    let is_policy = |line: &[Edit]| {
        !matches!(line, [Edit::PodPrefixes { .. } | Edit::Cursor { .. } | Edit::Boot { .. }])
    };
    for lines in [&lines[..], &snapshot] {
        for missing in (0..lines.len()).filter(|at| is_policy(&lines[*at])) {
            let before = lines[..missing].concat();
            let edits = [before.clone(), lines[missing + 1..].concat()].concat();
            let mut damaged = Model::restored(&config(), &edits);
            assert!(damaged.forget_doubtful_policies(&edits, Some(before.len())), "{missing}");
            assert!(damaged.policies.are_told() && damaged.policies.digest().subjects.is_empty());
            // Until a source has told all again, over any number of starts.
            let snapshot = damaged.snapshot();
            let mut again = Model::restored(&config(), &snapshot);
            assert!(!again.forget_doubtful_policies(&snapshot, None));
            assert!(again.policies.are_told());
        }
    }
}

#[test]
fn a_line_of_others_that_is_missing_before_the_last_commit_costs_no_policies() {
    let mut model = Model::new(&config());
    let edits = commit(&mut model, first()).0;
    let mut damaged = Model::restored(&config(), &edits);
    assert!(!damaged.forget_doubtful_policies(&edits, Some(0)));
    // Behind it, it may have been a commit.
    assert!(damaged.forget_doubtful_policies(&edits, Some(edits.len())));
    // A node to which no policies were told has none to doubt.
    assert!(!Model::new(&config()).forget_doubtful_policies(&[], Some(0)));
}

fn lease(pod: Option<PodName>, name_is_lost: bool) -> Lease {
    let lease = serde_json::json!({
        "pod": pod, "name_is_lost": name_is_lost, "netns": "", "mode": "routed",
        "addresses": [], "gateways": [], "mac": "02:00:00:00:00:01", "mtu": 1500,
    });
    serde_json::from_value(lease).expect("a lease")
}

#[test]
fn a_pod_has_the_rules_of_its_name_and_uid() {
    let mut model = Model::new(&config());
    let subjects = vec![subject(pod("a", Some("1")), &["x"]), subject(pod("b", None), &["x"])];
    commit(&mut model, PolicySync { subjects, ..PolicySync::default() });
    let rules = |pod| model.pod_rules(&lease(Some(pod), false), true);
    for (pod, is_known) in [
        (pod("a", Some("1")), true),
        (pod("a", None), true),
        (pod("a", Some("2")), false),
        (pod("b", Some("2")), true),
        (pod("c", None), false),
    ] {
        assert_eq!(matches!(rules(pod.clone()), PodRules::Known(_)), is_known, "{pod:?}");
    }
    let named = lease(Some(pod("c", None)), false);
    assert_eq!(model.pod_rules(&named, false), PodRules::Unconcerned);
    assert_eq!(model.pod_rules(&lease(None, false), true), PodRules::Unconcerned);
    assert_eq!(model.pod_rules(&lease(None, true), true), PodRules::Unknown, "it may have one");
}

#[test]
fn a_pod_that_goes_takes_no_successor_of_its_name_with_it() {
    let mut model = Model::new(&config());
    let told = |uid| PolicySync {
        subjects: vec![subject(pod("a", Some(uid)), &[])],
        ..PolicySync::default()
    };
    let gone = || PolicySync { gone_subjects: vec![pod("a", Some("1"))], ..PolicySync::default() };
    commit(&mut model, told("1"));
    commit(&mut model, PolicySync { subjects: told("2").subjects, ..gone() });
    assert_eq!(model.policies.subjects().len(), 1);
    assert_eq!(model.sync_policies(gone()), []);
    let gone = PolicySync { gone_subjects: vec![pod("a", None)], ..PolicySync::default() };
    commit(&mut model, gone);
    assert_eq!(model.policies.subjects().len(), 0);
}

#[test]
fn names_and_totals_have_bounds_and_a_long_selector_costs_its_own_group() {
    let long = "a".repeat(MAX_POD_NAME + 1);
    for (sync, expected) in [
        (
            PolicySync { subjects: vec![subject(pod(&long, None), &[])], ..PolicySync::default() },
            "the name of a pod has 254 bytes; 1 to 253 are possible",
        ),
        (
            PolicySync { gone_rule_sets: vec![RuleSetId(String::new())], ..PolicySync::default() },
            "the name of a rule set has 0 bytes",
        ),
    ] {
        let refused = check_names(&sync).expect_err(expected);
        assert_eq!(refused.kind, ErrorKind::Invalid);
        assert!(refused.message.contains(expected), "{refused}");
    }
    assert_eq!(check_names(&first()), Ok(()));

    let mut model = Model::new(&config());
    let selector = "a".repeat(crate::policy::MAX_GROUP_NAME + 1);
    let groups = vec![change(&selector, &[], &[1]), change("web", &[], &[2])];
    commit(&mut model, PolicySync { groups, ..PolicySync::default() });
    assert_eq!(model.policies.groups().len(), 1);

    let many = (0..4097).map(|number| subject(pod(&number.to_string(), None), &[])).collect();
    commit(&mut model, PolicySync { subjects: many, ..PolicySync::default() });
    let refused = check_totals(&model.policies).expect_err("too many");
    assert_eq!(refused.kind, ErrorKind::Exhausted);
    assert!(refused.message.contains("there would be 4097 pods; 4096 are possible"), "{refused}");
}

#[test]
fn no_source_uses_the_names_of_the_files_policies() {
    let of_set = PolicySync {
        rule_sets: vec![rule_set("vswitch.toml/db ingress", RuleAction::Allow)],
        ..PolicySync::default()
    };
    let groups = vec![change("vswitch.toml/demo/db", &[], &[1])];
    for sync in [of_set, PolicySync { groups, ..PolicySync::default() }] {
        let refused = check_names(&sync).expect_err("they are taken");
        assert_eq!(refused.kind, ErrorKind::Invalid);
        assert!(refused.message.contains("begins with vswitch.toml/"), "{}", refused.message);
    }
}
