//! Pods, namespaces and policies, and what the node would judge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{AttachmentId, GroupId};
use controlplane::compile::PodPort;
use controlplane::policy::Compiler;
use dataplane::tables::policy::{Direction, Policies};
use dataplane::tables::{Offloads, PortId};
use dataplane::wire::Protocol;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;
use vswitch_agent::policy::cluster::ClusterPolicySpec;
use vswitch_agent::policy::group::GroupMembers;
use vswitch_agent::policy::pod::{Pod, PodKey, PodObject};
use vswitch_agent::policy::rule::Policy;
use vswitch_agent::policy::selector::Labels;
use vswitch_agent::policy::{Cluster, PolicyNode, Translation};

use crate::oracle;

/// The node whose pods are judged: all of them.
pub(crate) const NODE: &str = "node-a";

/// Protocols by name and number.
pub(crate) const PROTOCOLS: [(&str, Protocol); 3] =
    [("TCP", Protocol::TCP), ("UDP", Protocol::UDP), ("SCTP", Protocol::SCTP)];

/// A pod of the world.
#[derive(Debug, Clone)]
pub(crate) struct WorldPod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) addresses: Vec<IpAddr>,
    /// Name, protocol and number of its named ports.
    pub(crate) ports: Vec<(String, String, u16)>,
    pub(crate) host_network: bool,
    pub(crate) phase: &'static str,
}

/// Kind of a cluster policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Cluster,
    Admin,
    BaselineAdmin,
}

/// All that there is.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) namespaces: BTreeMap<String, Labels>,
    pub(crate) pods: Vec<WorldPod>,
    pub(crate) policies: Vec<NetworkPolicy>,
    pub(crate) cluster_policies: Vec<(Kind, String, ClusterPolicySpec)>,
    pub(crate) nodes: BTreeMap<String, PolicyNode>,
}

/// A connection between two addresses, at least one of which is a pod's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) protocol: (&'static str, Protocol),
    /// `None` of a protocol without ports.
    pub(crate) port: Option<u16>,
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl World {
    /// Nine pods in three namespaces. Each has two ports for each protocol, with names.
    pub(crate) fn nine_pods() -> Self {
        let mut world = Self::default();
        for namespace in ["x", "y", "z"] {
            world.set_namespace(namespace, &[("ns", namespace)]);
            for pod in ["a", "b", "c"] {
                world.set_pod(namespace, pod, &[("pod", pod)]);
            }
        }
        world
    }

    pub(crate) fn set_namespace(&mut self, name: &str, pairs: &[(&str, &str)]) {
        let mut labels = labels(pairs);
        // The API server sets it.
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
        self.namespaces.insert(name.into(), labels);
    }

    /// Sets the labels of a pod, which gets the next address if it is new.
    pub(crate) fn set_pod(&mut self, namespace: &str, name: &str, pairs: &[(&str, &str)]) {
        let labels = labels(pairs);
        let same = |pod: &&mut WorldPod| pod.namespace == namespace && pod.name == name;
        if let Some(pod) = self.pods.iter_mut().find(same) {
            pod.labels = labels;
            return;
        }
        // Some of the nine are in 198.18.1.0/28, some in the rest of 198.18.1.0/24.
        let host = 2 + 3 * self.pods.len() as u16;
        let ports = PROTOCOLS.iter().flat_map(|(protocol, _)| {
            [80, 81].map(|number| {
                let name = format!("serve-{number}-{}", protocol.to_lowercase());
                (name, (*protocol).to_owned(), number)
            })
        });
        self.pods.push(WorldPod {
            namespace: namespace.into(),
            name: name.into(),
            labels,
            addresses: vec![
                [198, 18, 1, host as u8].into(),
                [0xfd00, 0x18, 0, 0, 0, 0, 0, host].into(),
            ],
            ports: ports.collect(),
            host_network: false,
            phase: "Running",
        });
    }

    pub(crate) fn pod(&mut self, namespace: &str, name: &str) -> &mut WorldPod {
        let same = |pod: &&mut WorldPod| pod.namespace == namespace && pod.name == name;
        self.pods.iter_mut().find(same).expect("there is such a pod")
    }

    /// Adds a policy, or replaces the one of its name.
    pub(crate) fn set_policy(&mut self, policy: NetworkPolicy) {
        let key = |policy: &NetworkPolicy| {
            (policy.metadata.namespace.clone(), policy.metadata.name.clone())
        };
        self.policies.retain(|other| key(other) != key(&policy));
        self.policies.push(policy);
    }

    /// Every connection between pods to ports 80 and 81, between addresses of IPv4.
    pub(crate) fn all_probes(&self) -> Vec<Probe> {
        let addresses: Vec<_> = self.pods.iter().map(|pod| pod.addresses[0]).collect();
        let mut probes = Vec::new();
        for from in &addresses {
            for to in &addresses {
                for protocol in PROTOCOLS {
                    for port in [80, 81] {
                        probes.push(Probe { from: *from, to: *to, protocol, port: Some(port) });
                    }
                }
            }
        }
        probes
    }

    /// The objects as the agent reads them.
    pub(crate) fn cluster(&self) -> Cluster {
        let pods = self.pods.iter().map(|pod| {
            let ports: Vec<_> = pod
                .ports
                .iter()
                .map(|(name, protocol, number)| {
                    json!({ "name": name, "protocol": protocol, "containerPort": number })
                })
                .collect();
            let ips: Vec<_> =
                pod.addresses.iter().map(|ip| json!({ "ip": ip.to_string() })).collect();
            let object: PodObject = serde_json::from_value(json!({
                "metadata": { "namespace": pod.namespace, "name": pod.name, "labels": pod.labels },
                "spec": {
                    "nodeName": NODE,
                    "hostNetwork": pod.host_network,
                    "containers": [{ "ports": ports }],
                },
                "status": { "phase": pod.phase, "podIPs": ips },
            }))
            .expect("a Pod");
            Pod::new(&object)
        });
        let policies = self.policies.iter().map(Policy::network);
        let cluster_policies = self.cluster_policies.iter().map(|(kind, name, spec)| match kind {
            Kind::Cluster => Policy::cluster(name, spec),
            Kind::Admin => Policy::admin(name, spec),
            Kind::BaselineAdmin => Policy::baseline_admin(name, spec),
        });
        Cluster {
            namespaces: self.namespaces.clone(),
            pods: pods.collect(),
            nodes: self.nodes.clone(),
            policies: policies
                .chain(cluster_policies)
                .map(|policy| (policy.id.clone(), policy))
                .collect(),
        }
    }
}

/// What a node has of the world; it follows by differences, as the daemon does.
#[derive(Debug, Default)]
pub(crate) struct Node {
    compiler: Compiler,
    translation: Translation,
    members: BTreeMap<GroupId, BTreeSet<IpAddr>>,
    pub(crate) policies: Policies,
    ports: BTreeMap<AttachmentId, PodPort>,
    by_address: BTreeMap<IpAddr, PortId>,
}

fn attachment(key: &PodKey) -> AttachmentId {
    AttachmentId { container_id: key.to_string(), ifname: "eth0".into() }
}

impl Node {
    pub(crate) fn follow(&mut self, world: &World) {
        let cluster = world.cluster();
        let next = Translation::of(&cluster, NODE);
        let members = next.members(&cluster);
        for (id, group) in &next.groups {
            let pods = cluster.pods.iter().flat_map(|(key, pod)| group.of_pod(&cluster, key, pod));
            let of_pods: BTreeSet<_> = pods.collect();
            let is_of_pods = matches!(group, GroupMembers::Pods { .. });
            assert!(!is_of_pods || members[id] == of_pods, "{id:?}: what each pod contributes");
        }
        for (group, addresses) in &members {
            let former = self.members.remove(group).unwrap_or_default();
            let join: Vec<_> = addresses.difference(&former).copied().collect();
            let leave: Vec<_> = former.difference(addresses).copied().collect();
            self.compiler.change_members(group, &join, &leave);
        }
        for (group, former) in std::mem::replace(&mut self.members, members) {
            self.compiler.change_members(&group, &[], &Vec::from_iter(former));
        }
        for (id, set) in &next.rule_sets {
            self.compiler.set_rules(id.clone(), set.clone()).expect("it can be compiled");
        }
        for id in self.translation.rule_sets.keys().filter(|id| !next.rule_sets.contains_key(id)) {
            self.compiler.remove_rules(id);
        }
        for (key, rules) in &next.subjects {
            self.compiler.set_subject(attachment(key), rules.clone());
        }
        for key in self.translation.subjects.keys().filter(|key| !next.subjects.contains_key(key)) {
            self.compiler.remove_subject(&attachment(key));
        }
        self.translation = next;
        let numbered = world.pods.iter().zip(0..).map(|(pod, number)| {
            let key = PodKey { namespace: pod.namespace.clone(), name: pod.name.clone() };
            (key, pod, PodPort { id: PortId(number), offloads: Offloads::default() })
        });
        self.ports.clear();
        self.by_address.clear();
        for (key, pod, port) in numbered.filter(|(_, pod, _)| oracle::is_judged(pod)) {
            self.ports.insert(attachment(&key), port);
            self.by_address.extend(pod.addresses.iter().map(|address| (*address, port.id)));
        }
        self.policies = self.compiler.compile(&self.ports);
        assert_eq!(self.compiler.closed().count(), 0);
    }

    /// Whether both ends allow it.
    pub(crate) fn allows(&self, probe: Probe) -> bool {
        let Probe { from, to, protocol: (_, protocol), port } = probe;
        let judge = |subject, direction, peer| {
            let subject: Option<&PortId> = self.by_address.get(&subject);
            subject.is_none_or(|subject| {
                self.policies.judge(*subject, direction, peer, protocol, port).allowed
            })
        };
        judge(from, Direction::Egress, to) && judge(to, Direction::Ingress, from)
    }

    /// Panics at the first probe that is not as the oracle has it; how many are allowed.
    pub(crate) fn check(&mut self, world: &World, probes: &[Probe], what: &str) -> usize {
        self.follow(world);
        let mut allowed = 0;
        for probe in probes {
            let expected = oracle::allows(world, *probe);
            assert_eq!(self.allows(*probe), expected, "{what}: {probe:?}");
            allowed += usize::from(expected);
        }
        allowed
    }
}
