//! A table of cases of the shape of the public conformance suite for network policies (cyclonus): products
//! of small lists, 230 cases on nine pods, two ports and three protocols.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use crate::world::{Node, World};

/// What a step does; the connections are probed behind the last of each list.
pub(crate) enum Action {
    Policy(Box<NetworkPolicy>),
    NoPolicy(&'static str, &'static str),
    Namespace(&'static str, &'static [(&'static str, &'static str)]),
    NoNamespace(&'static str),
    Pod(&'static str, &'static str, &'static [(&'static str, &'static str)]),
    NoPod(&'static str, &'static str),
}
use Action::{Namespace, NoNamespace, NoPod, NoPolicy, Pod};

/// Adds a policy, or replaces the one of its name.
fn set(policy: NetworkPolicy) -> Action {
    Action::Policy(policy.into())
}

/// A case: its steps one after the other.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) steps: Vec<Vec<Action>>,
}

/// A case with one step.
fn case(name: impl Into<String>, policies: Vec<NetworkPolicy>) -> Case {
    Case { name: name.into(), steps: vec![policies.into_iter().map(set).collect()] }
}

fn steps(name: &str, steps: Vec<Vec<Action>>) -> Case {
    Case { name: name.into(), steps }
}

fn policy(namespace: &str, name: &str, spec: Value) -> NetworkPolicy {
    let metadata = json!({ "namespace": namespace, "name": name });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).expect("a NetworkPolicy")
}

fn label(key: &str, value: &str) -> Value {
    json!({ "matchLabels": { key: value } })
}

fn one_of(key: &str, values: &[&str]) -> Value {
    json!({ "matchExpressions": [{ "key": key, "operator": "In", "values": values }] })
}

fn none_of(key: &str, values: &[&str]) -> Value {
    json!({ "matchExpressions": [{ "key": key, "operator": "NotIn", "values": values }] })
}

/// What the cases vary: the policy of one pod, for both directions.
struct Base {
    namespace: &'static str,
    pods: Value,
    ingress: Vec<Value>,
    egress: Vec<Value>,
}

const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

impl Base {
    fn new() -> Self {
        let tcp_80 = || json!([{ "protocol": "TCP", "port": 80 }]);
        let peers = |pods: &[&str], namespaces: &[&str]| json!([{ "podSelector": one_of("pod", pods), "namespaceSelector": one_of("ns", namespaces) }]);
        Self {
            namespace: "x",
            pods: label("pod", "a"),
            ingress: vec![json!({ "ports": tcp_80(), "from": peers(&["b", "c"], &["x", "y"]) })],
            egress: vec![
                json!({ "ports": tcp_80(), "to": peers(&["a", "b"], &["y", "z"]) }),
                dns(),
            ],
        }
    }

    fn rules(&mut self, direction: &str) -> &mut Vec<Value> {
        if direction == "ingress" { &mut self.ingress } else { &mut self.egress }
    }

    fn policy(self) -> NetworkPolicy {
        let Self { namespace, pods, ingress, egress } = self;
        let types = ["Ingress", "Egress"];
        let spec = json!({ "podSelector": pods, "policyTypes": types, "ingress": ingress, "egress": egress });
        policy(namespace, "base", spec)
    }
}

/// The base with this field of the first rule of a direction.
fn base_with(direction: &str, field: &str, value: Value) -> NetworkPolicy {
    let mut base = Base::new();
    base.rules(direction)[0][field] = value;
    base.policy()
}

fn dns() -> Value {
    json!({ "ports": [{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }] })
}

fn targets() -> Vec<Case> {
    let namespaces = ["x", "y", "z"].map(|namespace| {
        case(format!("target in {namespace}"), vec![Base { namespace, ..Base::new() }.policy()])
    });
    let selectors = [json!({}), label("pod", "a"), one_of("pod", &["a", "b"])]
        .map(|pods| case(format!("target {pods}"), vec![Base { pods, ..Base::new() }.policy()]));
    namespaces.into_iter().chain(selectors).collect()
}

fn rules() -> Vec<Case> {
    let mut cases = Vec::new();
    for (direction, _) in DIRECTIONS {
        for (what, rules) in [("nothing", vec![]), ("everything", vec![json!({})])] {
            let mut base = Base::new();
            *base.rules(direction) = rules;
            cases.push(case(format!("{direction}: {what} is allowed"), vec![base.policy()]));
        }
    }
    cases
}

fn peers() -> Vec<Case> {
    let pods_c = || label("pod", "c");
    let mut kinds = vec![
        json!({ "podSelector": {} }),
        json!({ "podSelector": pods_c() }),
        json!({ "ipBlock": { "cidr": "198.18.1.0/24" } }),
        json!({ "ipBlock": { "cidr": "198.18.1.0/24", "except": ["198.18.1.0/28"] } }),
    ];
    for namespaces in [json!({}), label("ns", "x")] {
        kinds.push(json!({ "namespaceSelector": namespaces }));
        for pods in [json!({}), pods_c()] {
            kinds.push(json!({ "namespaceSelector": namespaces, "podSelector": pods }));
        }
    }
    let mut lists = vec![vec![]];
    lists.extend(kinds.iter().map(|kind| vec![kind]));
    for (place, first) in kinds.iter().enumerate() {
        lists.extend(kinds[place + 1..].iter().map(|second| vec![first, second]));
    }
    let mut cases = Vec::new();
    for (direction, field) in DIRECTIONS {
        for list in &lists {
            let peers = json!(list);
            let name = format!("{direction}: peers {peers}");
            cases.push(case(name, vec![base_with(direction, field, peers)]));
        }
    }
    cases
}

fn ports() -> Vec<Case> {
    let mut kinds = Vec::new();
    for protocol in [None, Some("TCP"), Some("UDP"), Some("SCTP")] {
        for port in [None, Some(80), Some(81)] {
            kinds.push(json!({ "protocol": protocol, "port": port }));
        }
    }
    for protocol in ["TCP", "UDP", "SCTP"] {
        for number in [80, 81] {
            let name = format!("serve-{number}-{}", protocol.to_lowercase());
            kinds.push(json!({ "protocol": protocol, "port": name }));
        }
        for end in [80, 84] {
            kinds.push(json!({ "protocol": protocol, "port": 53, "endPort": end }));
        }
    }
    // A name of another protocol's port, one that no pod has, a number that no pod serves.
    for port in [json!("serve-81-udp"), json!("serve-7981-udp"), json!(7981)] {
        kinds.push(json!({ "protocol": "TCP", "port": port }));
    }
    let mut lists: Vec<_> = kinds.into_iter().map(|kind| json!([kind])).collect();
    lists.push(json!([]));
    lists.extend([
        json!([{}, { "port": 80 }]),
        json!([{}, { "port": "serve-80-tcp" }]),
        json!([{}, { "protocol": "UDP" }]),
        json!([{ "port": 80 }, { "port": 81 }]),
        json!([{ "port": 80 }, { "port": "serve-81-tcp" }]),
        json!([{ "port": 80 }, { "protocol": "UDP", "port": "serve-81-udp" }]),
        json!([{ "protocol": "UDP", "port": 80 }, { "protocol": "UDP", "port": "serve-81-udp" }]),
    ]);
    let mut cases = Vec::new();
    for (direction, _) in DIRECTIONS {
        for ports in &lists {
            let name = format!("{direction}: ports {ports}");
            cases.push(case(name, vec![base_with(direction, "ports", ports.clone())]));
        }
    }
    cases
}

/// Ingress to the pods `a` of namespace `x`, or to all of them.
fn ingress(name: &str, pods: Value, rules: Value) -> NetworkPolicy {
    let spec = json!({ "podSelector": pods, "policyTypes": ["Ingress"], "ingress": rules });
    policy("x", name, spec)
}

fn named_port() -> NetworkPolicy {
    ingress("named-port", json!({}), json!([{ "ports": [{ "port": "serve-81-tcp" }] }]))
}

fn examples() -> Vec<Case> {
    vec![steps(
        "a named port, and pods that come and go",
        vec![
            vec![set(named_port())],
            vec![Namespace("w", &[("ns", "w")]), Pod("w", "a", &[("pod", "a")])],
            vec![NoPod("w", "a")],
            vec![NoNamespace("w")],
        ],
    )]
}

fn actions() -> Vec<Case> {
    let base = || set(Base::new().policy());
    let of_labels = |peer: Value| set(base_with("ingress", "from", json!([peer])));
    vec![
        steps("a policy that goes", vec![vec![base()], vec![NoPolicy("x", "base")]]),
        steps(
            "a policy that changes",
            vec![
                vec![base()],
                vec![set(base_with(
                    "ingress",
                    "ports",
                    json!([{ "protocol": "UDP", "port": "serve-81-udp" }]),
                ))],
            ],
        ),
        steps(
            "a namespace that comes and goes",
            vec![
                vec![base()],
                vec![
                    Namespace("y-2", &[("ns", "y")]),
                    Pod("y-2", "a", &[("pod", "a")]),
                    Pod("y-2", "b", &[("pod", "b")]),
                ],
                vec![NoNamespace("y-2")],
            ],
        ),
        steps(
            "a namespace that is labelled",
            vec![
                vec![of_labels(json!({ "namespaceSelector": label("new-ns", "qrs") }))],
                vec![Namespace("y", &[("ns", "y"), ("new-ns", "qrs")])],
                vec![Namespace("y", &[("ns", "y")])],
            ],
        ),
        steps(
            "a pod that comes and goes",
            vec![vec![base()], vec![Pod("x", "d", &[("pod", "d")])], vec![NoPod("x", "d")]],
        ),
        steps(
            "a pod that is labelled",
            vec![
                vec![of_labels(json!({
                    "podSelector": label("new-label", "abc"),
                    "namespaceSelector": one_of("ns", &["y", "z"]),
                }))],
                vec![Pod("y", "b", &[("pod", "b"), ("new-label", "abc")])],
                vec![Pod("y", "b", &[("pod", "b")])],
            ],
        ),
    ]
}

fn conflicts() -> Vec<Case> {
    let nothing = || json!([]);
    let everything = || json!([{}]);
    let peer = |peer: Value| json!([{ "from": [peer.clone()], "to": [peer] }]);
    let all_pods = || peer(json!({ "namespaceSelector": {} }));
    let no_pods = || peer(json!({ "namespaceSelector": label("never", "there") }));
    let all_addresses = || peer(json!({ "ipBlock": { "cidr": "0.0.0.0/0" } }));
    let no_addresses = || peer(json!({ "ipBlock": { "cidr": "0.0.0.0/31" } }));
    let of = |direction: &str, (namespace, pod): (&str, &str), name: &str, rules: Value| {
        let mut spec = json!({ "podSelector": label("pod", pod) });
        spec["policyTypes"] =
            if direction == "ingress" { json!(["Ingress"]) } else { json!(["Egress"]) };
        spec[direction] = rules;
        policy(namespace, name, spec)
    };
    let (source, destination) = (("x", "b"), ("y", "c"));
    let mut cases = vec![
        case(
            "nothing leaves the source, everything enters the destination",
            vec![
                of("egress", source, "one", nothing()),
                of("ingress", destination, "two", everything()),
            ],
        ),
        case(
            "everything leaves the source, nothing enters the destination",
            vec![
                of("egress", source, "one", everything()),
                of("ingress", destination, "two", nothing()),
            ],
        ),
    ];
    for (direction, end) in [("egress", source), ("ingress", destination)] {
        for (what, one, two) in [
            ("nothing and everything", nothing(), everything()),
            ("nothing and all pods", nothing(), all_pods()),
            ("nothing and all addresses", nothing(), all_addresses()),
            ("no address and all pods", no_addresses(), all_pods()),
            ("no pod and all addresses", no_pods(), all_addresses()),
        ] {
            let policies = vec![of(direction, end, "one", one), of(direction, end, "two", two)];
            cases.push(case(format!("{direction}: {what}"), policies));
        }
        for (what, rules) in [("no address", no_addresses()), ("no pod", no_pods())] {
            let policies = vec![of(direction, end, "one", rules)];
            cases.push(case(format!("{direction}: {what}"), policies));
        }
    }
    cases
}

fn namespaces() -> Vec<Case> {
    let of_direction = |(direction, field)| {
        let peer = json!([{ "namespaceSelector": label("kubernetes.io/metadata.name", "z") }]);
        case(
            format!("{direction}: a namespace by its name"),
            vec![base_with(direction, field, peer)],
        )
    };
    DIRECTIONS.map(of_direction).into()
}

fn upstream() -> Vec<Case> {
    let pod_a = || label("pod", "a");
    let both = ["Ingress", "Egress"];
    let from_y = |name, port: u16| {
        let ports = json!([{ "protocol": "TCP", "port": port }]);
        let from = json!([{ "namespaceSelector": label("ns", "y") }]);
        set(ingress(name, pod_a(), json!([{ "from": from, "ports": ports }])))
    };
    let allow_all = || set(ingress("allow-all", json!({}), json!([{}])));
    let from = |peer: Value| json!([{ "from": [peer] }]);
    let from_xa = |name, pod: &str| {
        let peer = json!({ "namespaceSelector": label("ns", "x"), "podSelector": pod_a() });
        let spec = json!({
            "podSelector": label("pod", pod), "policyTypes": ["Ingress"], "ingress": from(peer),
        });
        set(policy("y", name, spec))
    };
    let everything_denied = || {
        let spec = json!({ "podSelector": {}, "policyTypes": both, "ingress": [], "egress": [] });
        set(policy("x", "deny-all", spec))
    };
    vec![
        steps("default-deny-ingress", vec![vec![set(ingress("deny", json!({}), json!([])))]]),
        steps(
            "default-deny-all but DNS",
            vec![vec![set(policy(
                "x",
                "deny",
                json!({
                    "podSelector": {}, "policyTypes": both, "ingress": [], "egress": [dns()],
                }),
            ))]],
        ),
        steps(
            "selectors of pods and namespaces together",
            vec![vec![set(ingress(
                "not-x-b-c",
                pod_a(),
                from(json!({
                    "namespaceSelector": none_of("ns", &["x"]), "podSelector": one_of("pod", &["b", "c"]),
                })),
            ))]],
        ),
        steps(
            "policies on one another",
            vec![vec![from_y("port-81", 81)], vec![], vec![from_y("port-80", 80)]],
        ),
        steps("allow-all", vec![vec![allow_all()], vec![]]),
        steps("a named port", vec![vec![set(named_port())]]),
        steps(
            "a policy that changes",
            vec![vec![allow_all()], vec![set(ingress("allow-all", json!({}), json!([])))]],
        ),
        steps(
            "a namespace that is labelled",
            vec![
                vec![set(ingress(
                    "labelled",
                    pod_a(),
                    from(json!({ "namespaceSelector": label("ns2", "updated") })),
                ))],
                vec![Namespace("y", &[("ns", "y"), ("ns2", "updated")])],
            ],
        ),
        steps(
            "a client that is labelled",
            vec![
                vec![set(ingress(
                    "labelled",
                    pod_a(),
                    from(json!({
                        "podSelector": { "matchLabels": { "pod": "b", "pod2": "updated" } },
                    })),
                ))],
                vec![Pod("x", "b", &[("pod", "b"), ("pod2", "updated")])],
            ],
        ),
        steps(
            "a server that is labelled",
            vec![
                vec![set(ingress("isolated", label("target", "isolated"), json!([])))],
                vec![Pod("x", "a", &[("target", "isolated")])],
            ],
        ),
        steps(
            "ingress and egress together",
            vec![vec![set(policy(
                "x",
                "both",
                json!({
                    "podSelector": pod_a(), "policyTypes": both,
                    "ingress": from(json!({ "podSelector": label("pod", "b") })),
                    "egress": [{ "ports": [{ "port": 80 }, { "protocol": "UDP", "port": 53 }] }],
                }),
            ))]],
        ),
        steps(
            "egress is denied although the server allows it",
            vec![vec![
                set(policy(
                    "x",
                    "to-ya",
                    json!({
                        "podSelector": pod_a(), "policyTypes": ["Egress"],
                        "egress": [
                            { "to": [{ "namespaceSelector": label("ns", "y"), "podSelector": pod_a() }] },
                            { "ports": [{ "protocol": "UDP", "port": 53 }] },
                        ],
                    }),
                )),
                from_xa("from-xa-on-ya", "a"),
                from_xa("from-xa-on-yb", "b"),
            ]],
        ),
        steps("policies that go", vec![vec![everything_denied()], vec![NoPolicy("x", "deny-all")]]),
    ]
}

pub(crate) fn act(world: &mut World, action: Action) {
    match action {
        Action::Policy(policy) => world.set_policy(*policy),
        NoPolicy(namespace, name) => world.policies.retain(|policy| {
            let metadata = &policy.metadata;
            (metadata.namespace.as_deref(), metadata.name.as_deref())
                != (Some(namespace), Some(name))
        }),
        Namespace(name, labels) => world.set_namespace(name, labels),
        NoNamespace(name) => {
            world.namespaces.remove(name);
            world.pods.retain(|pod| pod.namespace != name);
        }
        Pod(namespace, name, labels) => world.set_pod(namespace, name, labels),
        NoPod(namespace, name) => {
            world
                .pods
                .retain(|pod| (pod.namespace.as_str(), pod.name.as_str()) != (namespace, name));
        }
    }
}

/// All cases: each table's name, how many it has, and these.
pub(crate) fn tables() -> [(&'static str, usize, Vec<Case>); 9] {
    [
        ("targets", 6, targets()),
        ("rules", 4, rules()),
        ("peers", 112, peers()),
        ("ports", 70, ports()),
        ("examples", 1, examples()),
        ("actions", 6, actions()),
        ("conflicts", 16, conflicts()),
        ("namespaces", 2, namespaces()),
        ("upstream", 13, upstream()),
    ]
}

#[test]
fn every_case_is_judged_as_the_api_has_it() {
    // One node for all of them: what one case leaves in the compiler would show in the next.
    let mut node = Node::default();
    let (mut probed, mut allowed) = (0, 0);
    for (table, count, cases) in tables() {
        assert_eq!(cases.len(), count, "{table}");
        for Case { name, steps } in cases {
            let mut world = World::nine_pods();
            for (number, actions) in steps.into_iter().enumerate() {
                actions.into_iter().for_each(|action| act(&mut world, action));
                let probes = world.all_probes();
                let what = format!("{table}, {name}, step {number}");
                let of_step = node.check(&world, &probes, &what);
                assert!(of_step > 0, "{what}: nothing at all is allowed");
                probed += probes.len();
                allowed += of_step;
            }
        }
    }
    assert!(probed > 230 * 486 && allowed < probed * 95 / 100, "{allowed} of {probed} are allowed");
}
