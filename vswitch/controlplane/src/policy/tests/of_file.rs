//! Policies of the configuration file, beside those of sources.

use std::collections::BTreeMap;

use api::{AttachmentId, PodName, SubjectRules};
use dataplane::tables::policy::{Direction, Policies};
use dataplane::wire::Protocol;

use super::{SUBJECT, address, allow, attachment, from_groups, group, id, network_policy, ports};
use crate::config::{Config, PolicySettings};
use crate::model::Lease;
use crate::policy::{Compiler, FilePolicies, rules_of_file};

const NODE: &str = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n";

const DB: &str = r#"
[[policies]]
name = "db"
pods = ["demo/web"]
[[policies.ingress]]
from = [{ pods = ["demo/client*"] }, { cidr = "192.0.2.0/24", except = ["192.0.2.7/32"] }]
ports = [{ protocol = "tcp", port = 5432 }]
"#;

fn policies(text: &str) -> Vec<PolicySettings> {
    Config::parse("f", &format!("{NODE}{text}")).expect("valid").policies
}

/// Leases by the name of their pod in `demo`, each with its addresses.
fn leases(pods: &[(&str, &[&str])]) -> BTreeMap<AttachmentId, Lease> {
    let lease = |(name, addresses): &(&str, &[&str])| {
        let pod = PodName { namespace: "demo".into(), name: (*name).into(), uid: None };
        let addresses: Vec<_> = addresses.iter().map(|one| format!("{one}/32")).collect();
        let lease = serde_json::json!({
            "pod": pod, "netns": "", "mode": "routed", "addresses": addresses, "gateways": [],
            "mac": "02:00:00:00:00:01", "mtu": 1500,
        });
        (attachment(name), serde_json::from_value(lease).expect("a lease"))
    };
    pods.iter().map(lease).collect()
}

fn allowed(policies: &Policies, peer: &str, port: u16) -> bool {
    let peer = address(peer);
    policies.judge(SUBJECT, Direction::Ingress, peer, Protocol::TCP, Some(port)).allowed
}

#[test]
fn a_pod_is_reached_by_names_and_blocks_that_the_file_has() {
    let (mut compiler, mut file) = (Compiler::default(), FilePolicies::default());
    let db = policies(DB);
    compiler.set_subject(attachment("web"), rules_of_file(&db, "demo/web"));
    let mut pods = leases(&[("web", &["198.18.1.9"]), ("client", &["198.18.1.2"])]);
    file.follow(&mut compiler, &db, &pods, |_| true);
    let judged = compiler.compile(&ports());
    for (peer, is_allowed) in [
        ("198.18.1.2", true),
        ("198.18.1.3", false),
        ("192.0.2.6", true),
        ("192.0.2.7", false),
        ("192.0.3.1", false),
    ] {
        assert_eq!(allowed(&judged, peer, 5432), is_allowed, "{peer}");
        assert!(!allowed(&judged, peer, 5433), "{peer}");
    }
    let egress = Direction::Egress;
    let any = address("203.0.113.9");
    assert!(judged.judge(SUBJECT, egress, any, Protocol::TCP, Some(1)).allowed, "not isolated");

    pods.extend(leases(&[("client-2", &["198.18.1.3"])]));
    pods.remove(&attachment("client"));
    file.follow(&mut compiler, &db, &pods, |_| true);
    let judged = compiler.compile(&ports());
    assert!(allowed(&judged, "198.18.1.3", 5432), "who comes is a member");
    assert!(!allowed(&judged, "198.18.1.2", 5432), "who goes is none");

    let generation = judged.generation();
    file.follow(&mut compiler, &db, &pods, |_| true);
    assert_eq!(compiler.compile(&ports()).generation(), generation, "nothing is judged anew");

    file.follow(&mut compiler, &[], &pods, |_| true);
    compiler.set_subject(attachment("web"), rules_of_file(&[], "demo/web"));
    assert!(allowed(&compiler.compile(&ports()), "203.0.113.9", 1), "the file has none");
    assert_eq!((compiler.rule_sets().count(), compiler.groups().count()), (0, 0));
}

#[test]
fn a_change_of_a_rule_is_in_force_and_an_empty_list_denies() {
    let (mut compiler, mut file) = (Compiler::default(), FilePolicies::default());
    let pods = leases(&[("web", &["198.18.1.9"])]);
    for (ingress, is_allowed) in [
        ("[{ from = [{ cidr = \"192.0.2.0/24\" }] }]", true),
        ("[{ from = [{ cidr = \"192.0.2.0/24\", except = [\"192.0.2.6/32\"] }] }]", false),
        ("[{}]", true),
        ("[]", false),
    ] {
        let text = format!("[[policies]]\nname = \"p\"\npods = [\"*\"]\ningress = {ingress}\n");
        let policies = policies(&text);
        compiler.set_subject(attachment("web"), rules_of_file(&policies, "demo/web"));
        file.follow(&mut compiler, &policies, &pods, |_| true);
        let judged = compiler.compile(&ports());
        assert_eq!(allowed(&judged, "192.0.2.6", 80), is_allowed, "{ingress}");
    }
}

#[test]
fn policies_of_file_and_cluster_unite() {
    let (mut compiler, mut file) = (Compiler::default(), FilePolicies::default());
    let db = policies(DB);
    let told = network_policy("told", vec![allow(from_groups(&["g"]), None)]);
    compiler.set_rules(id("told"), told).expect("it can be compiled");
    compiler.change_members(&group("g"), &[address("198.18.2.1")], &[]);
    let mut rules = rules_of_file(&db, "demo/web");
    rules.ingress.push(id("told"));
    compiler.set_subject(attachment("web"), rules);
    file.follow(&mut compiler, &db, &leases(&[("client", &["198.18.1.2"])]), |_| true);
    let judged = compiler.compile(&ports());
    assert!(allowed(&judged, "198.18.2.1", 80) && allowed(&judged, "198.18.1.2", 5432));
    assert!(!allowed(&judged, "198.18.1.2", 80) && !allowed(&judged, "198.18.2.2", 80));
    assert_eq!(rules_of_file(&db, "demo/client"), SubjectRules::default());
}
