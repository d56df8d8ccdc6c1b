//! Cases for real pods: a part of the table, as objects for an API server, and what the oracle expects of
//! each. They are written to `tests/kubernetes/policy_cases.json`, which `policies.sh` reads.

use std::path::Path;

use serde_json::{Value, json};

use crate::cases::{Action, Case, act, tables};
use crate::oracle;
use crate::world::{PROTOCOLS, Probe, World};

/// Ports that each pod serves, by TCP and UDP; a lab's kernel may have no SCTP.
const PORTS: [u16; 2] = [80, 81];

/// Of each table every so manieth case.
const EVERY: [(&str, usize); 8] = [
    ("targets", 1),
    ("rules", 1),
    ("peers", 7),
    ("ports", 4),
    ("actions", 1),
    ("conflicts", 2),
    ("namespaces", 1),
    ("upstream", 1),
];

/// The nine pods on two nodes, in turns, with the addresses that these give one after the other.
fn world() -> World {
    let mut world = World::nine_pods();
    for (pod, place) in world.pods.iter_mut().zip(0..) {
        pod.addresses = vec![[198, 18, 1 + place % 2, 2 + place / 2].into()];
    }
    world
}

/// What each pod reaches: of every pod, TCP and UDP, and port 1 or 0.
fn expected(world: &World) -> Value {
    let row = |from: &crate::world::WorldPod| {
        let mut row = String::new();
        for to in &world.pods {
            for protocol in &PROTOCOLS[..2] {
                for port in PORTS {
                    let (from, to) = (from.addresses[0], to.addresses[0]);
                    let probe = Probe { from, to, protocol: *protocol, port: Some(port) };
                    // What a pod sends to its own address never leaves it.
                    let is_allowed = from == to || oracle::allows(world, probe);
                    row.push(if is_allowed { '1' } else { '0' });
                }
            }
        }
        row
    };
    let rows = world.pods.iter();
    rows.map(|pod| (format!("{}/{}", pod.namespace, pod.name), json!(row(pod)))).collect()
}

/// A step as objects; none if it needs other pods or a newer API server.
fn step(world: &World, actions: &[Action]) -> Option<Value> {
    let (mut put, mut gone, mut namespaces, mut pods) = (vec![], vec![], vec![], vec![]);
    for action in actions {
        match action {
            Action::Policy(policy) => {
                let text = serde_json::to_string(policy).expect("JSON");
                if text.contains("endPort") {
                    return None;
                }
                put.push(serde_json::to_value(policy).expect("JSON"));
            }
            Action::NoPolicy(namespace, name) => gone.push(format!("{namespace}/{name}")),
            Action::Namespace(name, _) => {
                namespaces.push(json!({ "name": name, "labels": world.namespaces.get(*name)? }));
            }
            Action::Pod(namespace, name, labels) => {
                let is_it = |pod: &&crate::world::WorldPod| {
                    pod.namespace == *namespace && pod.name == *name
                };
                let before = World::nine_pods();
                before.pods.iter().find(is_it)?;
                let labels: std::collections::BTreeMap<_, _> = labels.iter().copied().collect();
                pods.push(json!({ "pod": format!("{namespace}/{name}"), "labels": labels }));
            }
            Action::NoNamespace(_) | Action::NoPod(..) => return None,
        }
    }
    let expected = expected(world);
    Some(json!({
        "put": put, "gone": gone, "namespaces": namespaces, "pods": pods, "expected": expected,
    }))
}

fn steps(table: &str, case: Case) -> Option<Vec<Value>> {
    let mut world = world();
    let mut steps = Vec::new();
    for (number, actions) in case.steps.into_iter().enumerate() {
        let copies: Vec<Action> = actions.iter().map(copy).collect();
        copies.into_iter().for_each(|action| act(&mut world, action));
        let mut step = step(&world, &actions)?;
        step["name"] = json!(format!("{table}: {}", case.name));
        step["step"] = json!(number);
        steps.push(step);
    }
    Some(steps)
}

fn copy(action: &Action) -> Action {
    match action {
        Action::Policy(policy) => Action::Policy(policy.clone()),
        Action::NoPolicy(namespace, name) => Action::NoPolicy(namespace, name),
        Action::Namespace(name, labels) => Action::Namespace(name, labels),
        Action::NoNamespace(name) => Action::NoNamespace(name),
        Action::Pod(namespace, name, labels) => Action::Pod(namespace, name, labels),
        Action::NoPod(namespace, name) => Action::NoPod(namespace, name),
    }
}

#[test]
fn the_labs_cases_are_those_of_the_table() {
    let mut all = Vec::new();
    let mut cases = 0;
    for (table, _, of_table) in tables() {
        let Some((_, every)) = EVERY.iter().find(|(name, _)| *name == table) else { continue };
        for case in of_table.into_iter().step_by(*every) {
            let steps = steps(table, case);
            cases += usize::from(steps.is_some());
            all.extend(steps.into_iter().flatten());
        }
    }
    assert!(cases >= 40, "{cases} cases");
    let world = world();
    let pods: Vec<Value> = world
        .pods
        .iter()
        .map(|pod| {
            let ports = pod.ports.iter().map(|(name, protocol, number)| {
            json!({ "name": name, "protocol": protocol, "containerPort": number })
        });
            json!({
                "pod": format!("{}/{}", pod.namespace, pod.name), "labels": pod.labels,
                "ports": ports.collect::<Vec<_>>(), "address": pod.addresses[0],
            })
        })
        .collect();
    let namespaces: Vec<Value> = world
        .namespaces
        .iter()
        .map(|(name, labels)| json!({ "name": name, "labels": labels }))
        .collect();
    let lines = |all: &[Value]| {
        let lines: Vec<String> = all.iter().map(|one| format!("    {one}")).collect();
        lines.join(",\n")
    };
    let text = format!(
        "{{\n  \"namespaces\": [\n{}\n  ],\n  \"pods\": [\n{}\n  ],\n  \"steps\": [\n{}\n  ]\n}}\n",
        lines(&namespaces),
        lines(&pods),
        lines(&all)
    );
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kubernetes/policy_cases.json");
    if std::env::var_os("UPDATE_CASES").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(known == text, "run UPDATE_CASES=1 cargo test -p vswitch-agent --test policy");
}
