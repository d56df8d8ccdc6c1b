//! `[[policies]]` as people write them, right and wrong.

use api::{PeerBlock, PolicyPorts};

use super::{PodPattern, PolicyPeer, PolicyRuleSettings};
use crate::config::Config;

const NODE: &str = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n";

/// Lines of the file before the text that follows.
fn parse(text: &str) -> Result<Config, Vec<String>> {
    Config::parse("f", &format!("{NODE}{text}"))
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_policy_is_read_as_it_is_written() {
    let text = r#"
[[policies]]
name = "db"
pods = ["demo/db", "demo/db-*"]
egress = []
[[policies.ingress]]
from = [{ pods = ["demo/web"] }, { cidr = "192.0.2.0/24", except = ["192.0.2.7/32"] }]
ports = [{ protocol = "tcp", port = 5432 }, { protocol = "udp", port = 53, end_port = 60 }, { protocol = "sctp" }, { port = 80 }]
[[policies.ingress]]
"#;
    let policies = parse(text).expect("valid").policies;
    let pattern = |text: &str| text.parse::<PodPattern>().expect("a name");
    let [policy] = &policies[..] else { panic!("{policies:?}") };
    assert_eq!((policy.name.as_str(), &policy.egress), ("db", &Some(Vec::new())));
    assert_eq!(policy.pods, [pattern("demo/db"), pattern("demo/db-*")]);
    let block = PeerBlock {
        cidr: "192.0.2.0/24".parse().expect("a prefix"),
        except: vec!["192.0.2.7/32".parse().expect("a prefix")],
    };
    let peers = vec![PolicyPeer::Pods(vec![pattern("demo/web")]), PolicyPeer::Block(block)];
    let ports = [(6, Some((5432, 5432))), (17, Some((53, 60))), (132, None), (6, Some((80, 80)))];
    let ports = ports.map(|(protocol, ports)| PolicyPorts { protocol, ports }).to_vec();
    let rule = PolicyRuleSettings { peers: Some(peers), ports: Some(ports) };
    let any = PolicyRuleSettings { peers: None, ports: None };
    assert_eq!(policy.ingress, Some(vec![rule, any]));
}

#[test]
fn a_name_or_its_beginning_is_of_whole_pods() {
    for (pattern, name, is_meant) in [
        ("demo/db", "demo/db", true),
        ("demo/db", "demo/db-2", false),
        ("demo/db", "other/demo/db", false),
        ("demo/db*", "demo/db", true),
        ("demo/db*", "demo/db-2", true),
        ("demo/*", "demo2/db", false),
        ("*", "db", true),
    ] {
        let meant = pattern.parse::<PodPattern>().expect("a pattern").matches(name);
        assert_eq!(meant, is_meant, "{pattern} {name}");
    }
}

#[test]
fn what_cannot_be_meant_is_named_with_its_key_and_a_remedy() {
    let head = "[[policies]]\nname = \"p\"\npods = [\"*\"]\n";
    let rule = |text: &str| format!("{head}[[policies.ingress]]\n{text}\n");
    for (text, expected) in [
        (
            "[[policies]]\npods = [\"*\"]\ningress = []\n".into(),
            "f:5: policies[0]: name is missing; expected a string such as \"db\"",
        ),
        (
            "[[policies]]\nname = \"a b\"\npods = [\"*\"]\ningress = []\n".into(),
            "f:6: policies[0].name: a name has 1 to 253 bytes and no spaces",
        ),
        (
            format!("{head}ingress = []\n{head}egress = []\n"),
            "f:10: policies[1].name: another policy is called \"p\"; rename one",
        ),
        (
            "[[policies]]\nname = \"p\"\ningress = []\n".into(),
            "f:5: policies[0]: a policy needs pods, a list of a pod's name such as \"demo/db\", the beginning of names such as \"demo/*\", or \"*\" for all",
        ),
        (
            "[[policies]]\nname = \"p\"\npods = []\ningress = []\n".into(),
            "f:7: policies[0].pods: at least one name is needed; [\"*\"] is every pod",
        ),
        (
            "[[policies]]\nname = \"p\"\npods = [\"a*b\"]\ningress = []\n".into(),
            "f:7: policies[0].pods[0]: expected a pod's name such as \"demo/db\", the beginning of names such as \"demo/*\", or \"*\" for all, found \"a*b\"",
        ),
        (
            head.into(),
            "f:5: policies[0]: the policy does nothing: it needs ingress, egress or both; [] denies all of a direction",
        ),
        (
            format!("{head}ingres = []\negress = []\n"),
            "f:8: policies[0].ingres: unknown key; expected one of egress, ingress, name, pods",
        ),
        (
            format!("{head}ingress = \"all\"\n"),
            "f:8: policies[0].ingress: expected a list of rules; [] allows nothing, found a value of type string",
        ),
        (
            rule("to = [{ cidr = \"192.0.2.0/24\" }]"),
            "f:9: policies[0].ingress[0].to: unknown key; expected one of from, ports",
        ),
        (
            rule("from = []"),
            "f:9: policies[0].ingress[0].from: it is empty; leave the key out to allow every address, or remove the rule to allow nothing",
        ),
        (
            rule("ports = []"),
            "f:9: policies[0].ingress[0].ports: it is empty; leave the key out to allow every port, or remove the rule to allow nothing",
        ),
        (rule("from = [{}]"), "f:9: policies[0].ingress[0].from[0]: a peer needs pods or cidr"),
        (
            rule("from = [{ pods = [\"a\"], cidr = \"192.0.2.0/24\" }]"),
            "f:9: policies[0].ingress[0].from[0]: a peer has pods or cidr; write two peers for both",
        ),
        (
            rule("from = [{ pods = [\"a\"], except = [\"192.0.2.7/32\"] }]"),
            "f:9: policies[0].ingress[0].from[0].except: only a peer with cidr has except; remove it",
        ),
        (
            rule("from = [{ cidr = \"192.0.2.1/24\" }]"),
            "f:9: policies[0].ingress[0].from[0].cidr: 192.0.2.1/24 has bits beyond its length; did you mean 192.0.2.0/24?",
        ),
        (
            rule("from = [{ cidr = \"192.0.2.1\" }]"),
            "f:9: policies[0].ingress[0].from[0].cidr: expected a prefix such as \"198.18.1.0/24\" or \"fd00:18:1::/64\", found \"192.0.2.1\"",
        ),
        (
            rule("from = [{ cidr = \"192.0.2.0/24\", except = [\"2001:db8::/64\"] }]"),
            "f:9: policies[0].ingress[0].from[0].except[0]: 2001:db8::/64 is not within 192.0.2.0/24; remove it",
        ),
        (
            rule("from = [{ podSelector = 1 }]"),
            "f:9: policies[0].ingress[0].from[0].podSelector: unknown key; expected one of cidr, except, pods",
        ),
        (
            rule("ports = [{ protocol = \"icmp\" }]"),
            "f:9: policies[0].ingress[0].ports[0].protocol: expected \"tcp\" or \"udp\" or \"sctp\", found \"icmp\"",
        ),
        (
            rule("ports = [{ port = 0 }]"),
            "f:9: policies[0].ingress[0].ports[0].port: expected a whole number from 1 to 65535, found 0",
        ),
        (
            rule("ports = [{ end_port = 9 }]"),
            "f:9: policies[0].ingress[0].ports[0].end_port: it needs port, the first of the ports",
        ),
        (
            rule("ports = [{ port = 10, end_port = 9 }]"),
            "f:9: policies[0].ingress[0].ports[0].end_port: expected 10 or more, as port is 10, found 9",
        ),
        (
            rule("ports = [{ port = 10, endPort = 19 }]"),
            "f:9: policies[0].ingress[0].ports[0].endPort: unknown key; expected one of end_port, port, protocol",
        ),
    ] {
        let problems = parse(&text).err().unwrap_or_default();
        assert!(problems.iter().any(|problem| problem == expected), "{text}: {problems:#?}");
    }
}

#[test]
fn more_rules_than_tables_can_have_are_refused() {
    let most = crate::policy::MAX_RULES;
    let rules = |count| "{},".repeat(count);
    let text = |count| {
        format!("[[policies]]\nname = \"p\"\npods = [\"*\"]\negress = [{}]\n", rules(count))
    };
    assert!(parse(&text(most)).is_ok());
    let problems = parse(&text(most + 1)).expect_err("too many");
    assert!(problems[0].starts_with("f:8: policies[0].egress: policy vswitch.toml/p has"));
}
