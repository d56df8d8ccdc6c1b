//! What decides about a connection, asked by names.

use api::{
    BackendSpec, BackendUse, ErrorKind, Explain, Explained, Isolation, Judge, NamedRuleSet,
    PodName, PolicyPeers, PolicyPorts, PolicyRule, PolicySync, PolicyTier, Reply, Request, Reserve,
    RuleAction, RuleSet, RuleSetId, ServiceProtocol, ServiceSpec, ServiceSync, Subject,
    SubjectRules, WithoutBackend,
};

use crate::node::{Node, Pod, Running};

fn pod(name: &str) -> PodName {
    PodName { namespace: "shop".into(), name: name.into(), uid: None }
}

fn asked(source: &str, destination: &str, protocol: Option<&str>) -> Request {
    let protocol = protocol.map(str::to_owned);
    let (source, destination) = (source.to_owned(), destination.to_owned());
    Request::Explain(Explain { source, destination, protocol })
}

impl Running<'_> {
    fn explain(&self, source: &str, destination: &str, protocol: Option<&str>) -> Explained {
        match self.ask(&asked(source, destination, protocol)) {
            Reply::Explained(told) => *told,
            other => panic!("{other:?}"),
        }
    }

    fn plug_named(&self, name: &str) -> Pod {
        self.plug_as(Reserve { pod: Some(pod(name)), ..Pod::reserve(name) })
    }

    /// The pod `db` is reached at TCP and SCTP port 5432 alone.
    fn isolate_db(&self) {
        let ports = |protocol| PolicyPorts { protocol, ports: Some((5432, 5432)) };
        let rule = PolicyRule {
            index: 0,
            action: RuleAction::Allow,
            peers: PolicyPeers::Any,
            ports: Some(vec![ports(6), ports(132)]),
        };
        let set = |policy: &str, rules| NamedRuleSet {
            id: RuleSetId(policy.into()),
            set: RuleSet { policy: policy.into(), tier: PolicyTier::NetworkPolicy, rules },
        };
        let rule_sets = vec![set("shop/default-deny", Vec::new()), set("shop/to-db", vec![rule])];
        let ids = |sets: &[NamedRuleSet]| sets.iter().map(|set| set.id.clone()).collect();
        let rules = SubjectRules { ingress: ids(&rule_sets), egress: Vec::new() };
        let web = Subject { pod: pod("web"), rules: SubjectRules::default() };
        let subjects = vec![Subject { pod: pod("db"), rules }, web];
        let sync = PolicySync { rule_sets, subjects, commit: true, ..PolicySync::default() };
        assert_eq!(self.ask(&Request::SyncPolicies(sync)), Reply::SyncedPolicies(Vec::new()));
    }
}

#[test]
fn a_connection_between_pods_is_explained_by_their_policies() {
    let node = Node::new("");
    let daemon = node.start();
    daemon.isolate_db();
    let (web, _db) = (daemon.plug_named("web"), daemon.plug_named("db"));
    let told = daemon.explain("shop/web", "shop/db:5432", None);
    assert!(told.allowed, "{told:?}");
    assert_eq!(told.route.as_ref().map(|route| route.to.as_str()), Some("shop/db"));
    let Some(Judge::ThisNode { pod, policies, allowed: true, rule: Some(rule), .. }) =
        &told.ingress
    else {
        panic!("{told:?}")
    };
    assert_eq!((pod.as_str(), rule.policy.as_str(), rule.index), ("shop/db", "shop/to-db", 0));
    assert_eq!(policies, &["shop/default-deny", "shop/to-db"]);
    let Judge::ThisNode { isolation: Isolation::Open, .. } = told.egress else {
        panic!("{told:?}")
    };
    assert!(daemon.explain("shop/web", "shop/db:5432", Some("sctp")).allowed);
    assert!(daemon.explain(&web.address.to_string(), "shop/db:5432", None).allowed);

    for (destination, protocol) in [
        ("shop/db:5433", None),
        ("shop/db:5432", Some("udp")),
        ("shop/db:5433", Some("sctp")),
        ("shop/db", Some("icmp")),
    ] {
        let told = daemon.explain("shop/web", destination, protocol);
        assert!(!told.allowed, "{told:?}");
        assert_eq!(told.dropped.as_deref(), Some("policy-denied"));
        let Some(Judge::ThisNode { allowed: false, rule: None, .. }) = told.ingress else {
            panic!("{told:?}")
        };
    }
    // Nobody else could reach the pod: there is no host port, and no NIC.
    let other = asked("198.18.9.9", "shop/db:5432", None);
    let refused = daemon.try_ask(&other).expect_err("by which port would it come?");
    assert_eq!(refused.kind, ErrorKind::NotReady, "{refused}");

    // None of it left a mark.
    let Reply::Drops(drops) = daemon.ask(&Request::ShowDrops) else { panic!("not drops") };
    assert_eq!((drops.received, drops.dropped), (0, 0));
    daemon.stop();
}

#[test]
fn a_connection_to_a_service_is_explained_by_its_backend() {
    let node = Node::new("");
    let daemon = node.start();
    daemon.isolate_db();
    let (_web, db) = (daemon.plug_named("web"), daemon.plug_named("db"));
    let backend = |port, flows| BackendSpec { address: db.address, port, flows };
    let service = |name: &str, port, backends| ServiceSpec {
        name: name.into(),
        protocol: ServiceProtocol::Tcp,
        port,
        addresses: vec![[198, 19, 0, 7].into()],
        sources: Vec::new(),
        backends,
        without_backend: WithoutBackend::Refuse,
        affinity_seconds: None,
    };
    let of_sql = vec![backend(5432, BackendUse::All), backend(5433, BackendUse::Existing)];
    let services = vec![
        service("shop/db:sql", 80, of_sql),
        service("shop/db:admin", 81, vec![backend(5433, BackendUse::All)]),
        service("shop/none:any", 82, Vec::new()),
    ];
    let sync = ServiceSync { complete: true, services, gone: Vec::new() };
    let Reply::SyncedServices(refused) = daemon.ask(&Request::SyncServices(sync)) else {
        panic!("not taken")
    };
    assert_eq!(refused, []);
    for destination in ["shop/db:sql", "shop/db.svc:80", "198.19.0.7:80", "shop/db:sql.svc"] {
        let told = daemon.explain("shop/web", destination, None);
        assert!(told.allowed, "{told:?}");
        let service = told.service.expect("it is one");
        assert_eq!(
            (service.name.as_str(), service.usable, service.backends),
            ("shop/db:sql", 1, 2)
        );
        let chosen = service.chosen.expect("one is usable");
        assert_eq!((chosen.name.as_deref(), chosen.port), (Some("shop/db"), Some(5432)));
    }
    let told = daemon.explain("shop/web", "shop/db:admin", None);
    assert_eq!(told.dropped.as_deref(), Some("policy-denied"), "judged by the backend's port");
    let told = daemon.explain("shop/web", "shop/none", None);
    assert!(!told.allowed && told.ingress.is_none(), "{told:?}");

    for (source, destination, kind, says) in [
        (
            "shop/web",
            "shop/db.svc",
            ErrorKind::Invalid,
            "shop/db:admin (TCP 81), shop/db:sql (TCP 80)",
        ),
        ("shop/web", "shop/db.svc:9", ErrorKind::Unknown, "has no such port"),
        ("shop/web", "shop/bd:80", ErrorKind::Unknown, "most like it: shop/db"),
        (
            "shop/wbe",
            "shop/db:80",
            ErrorKind::Unknown,
            "no pod \"shop/wbe\"; most like it: shop/web",
        ),
        ("shop/web", "shop/db", ErrorKind::Invalid, "say shop/db:PORT"),
        ("shop/web", "fd00::1", ErrorKind::Invalid, "say fd00::1:PORT"),
    ] {
        let refused = daemon.try_ask(&asked(source, destination, None)).expect_err(destination);
        assert_eq!(refused.kind, kind, "{refused}");
        assert!(refused.message.contains(says), "{refused}");
    }
    daemon.stop();
}
