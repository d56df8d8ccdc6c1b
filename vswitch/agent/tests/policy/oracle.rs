//! What the API says of policies, read from the objects one by one for each connection.
//!
//! A connection is allowed if both ends allow it, each by the policies that select it:
//!
//! 1. cluster policies of the Admin tier, by priority, then by name; the rules in their order. The first
//!    that matches decides, or passes on to the next tier;
//! 2. network policies: if any selects the pod for this direction, what one of them allows is allowed, and
//!    all else is denied;
//! 3. cluster policies of the Baseline tier, as in 1;
//! 4. otherwise it is allowed.
//!
//! Pods in the node's network, and those that have finished, are neither subjects nor selected as peers.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use vswitch_agent::policy::cluster::{AdminPort, ClusterPeer, ClusterPolicySpec, ClusterRule};
use vswitch_agent::policy::selector::Labels;

use crate::world::{Kind, Probe, World, WorldPod};

/// Whether a connection is allowed.
pub(crate) fn allows(world: &World, probe: Probe) -> bool {
    End::of(world, probe, Direction::Egress).allows()
        && End::of(world, probe, Direction::Ingress).allows()
}

/// Whether selectors can select a pod.
pub(crate) fn is_judged(pod: &WorldPod) -> bool {
    !pod.host_network && pod.phase != "Succeeded" && pod.phase != "Failed"
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

/// A connection as one of its ends sees it.
struct End<'w> {
    world: &'w World,
    direction: Direction,
    /// The pod at this end; `None` if it is no pod that can be selected.
    subject: Option<&'w WorldPod>,
    /// The pod at the other end, likewise.
    peer: Option<&'w WorldPod>,
    peer_address: IpAddr,
    protocol: &'static str,
    port: Option<u16>,
}

impl<'w> End<'w> {
    fn of(world: &'w World, probe: Probe, direction: Direction) -> Self {
        let (own, other) = match direction {
            Direction::Ingress => (probe.to, probe.from),
            Direction::Egress => (probe.from, probe.to),
        };
        let pod = |address| {
            let mut pods = world.pods.iter().filter(|pod| is_judged(pod));
            pods.find(|pod| pod.addresses.contains(&address))
        };
        let (subject, peer) = (pod(own), pod(other));
        let (protocol, port) = (probe.protocol.0, probe.port);
        Self { world, direction, subject, peer, peer_address: other, protocol, port }
    }

    fn allows(&self) -> bool {
        let Some(subject) = self.subject else { return true };
        self.tier(subject, "Admin")
            .or_else(|| self.network_policies(subject))
            .or_else(|| self.tier(subject, "Baseline"))
            .unwrap_or(true)
    }

    fn network_policies(&self, subject: &WorldPod) -> Option<bool> {
        let concerned = |policy: &&NetworkPolicy| {
            let spec = policy.spec.clone().unwrap_or_default();
            let types = spec.policy_types.unwrap_or_default();
            // Absent, they are Ingress, and Egress if there are rules for it.
            let has_type = match self.direction {
                _ if !types.is_empty() => types.contains(&format!("{:?}", self.direction)),
                Direction::Ingress => true,
                Direction::Egress => spec.egress.is_some_and(|rules| !rules.is_empty()),
            };
            has_type
                && policy.metadata.namespace.as_ref() == Some(&subject.namespace)
                && spec.pod_selector.is_none_or(|selector| selects(&selector, &subject.labels))
        };
        let mut policies = self.world.policies.iter().filter(concerned).peekable();
        policies.peek()?;
        Some(policies.any(|policy| self.network_policy_allows(policy)))
    }

    fn network_policy_allows(&self, policy: &NetworkPolicy) -> bool {
        let spec = policy.spec.clone().unwrap_or_default();
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let rules: Vec<_> = match self.direction {
            Direction::Ingress => {
                spec.ingress.into_iter().flatten().map(|rule| (rule.from, rule.ports)).collect()
            }
            Direction::Egress => {
                spec.egress.into_iter().flatten().map(|rule| (rule.to, rule.ports)).collect()
            }
        };
        rules.into_iter().any(|(peers, ports)| {
            // Empty lists are as absent ones: every peer, every port and protocol.
            let (peers, ports) = (peers.unwrap_or_default(), ports.unwrap_or_default());
            (peers.is_empty() || peers.iter().any(|peer| self.is_peer(namespace, peer)))
                && (ports.is_empty() || ports.iter().any(|port| self.is_port(port)))
        })
    }

    fn is_peer(&self, namespace: &str, peer: &NetworkPolicyPeer) -> bool {
        if let Some(block) = &peer.ip_block {
            return in_prefix(&block.cidr, self.peer_address)
                && !block.except.iter().flatten().any(|cut| in_prefix(cut, self.peer_address));
        }
        let Some(pod) = self.peer else { return false };
        let is_namespace = match &peer.namespace_selector {
            None => pod.namespace == namespace,
            Some(selector) => selects(selector, &self.world.namespaces[&pod.namespace]),
        };
        is_namespace
            && peer.pod_selector.as_ref().is_none_or(|selector| selects(selector, &pod.labels))
    }

    fn is_port(&self, port: &NetworkPolicyPort) -> bool {
        if port.protocol.as_deref().unwrap_or("TCP") != self.protocol {
            return false;
        }
        match (&port.port, self.port) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(IntOrString::Int(first)), Some(number)) => {
                (*first..=port.end_port.unwrap_or(*first)).contains(&number.into())
            }
            (Some(IntOrString::String(name)), Some(number)) => self.is_named(name, number),
        }
    }

    /// Whether the destination pod has such a port of the connection's protocol.
    fn is_named(&self, name: &str, number: u16) -> bool {
        let destination = match self.direction {
            Direction::Ingress => self.subject,
            Direction::Egress => self.peer,
        };
        let ports = destination.into_iter().flat_map(|pod| &pod.ports);
        // Of two ports of one name and protocol the first counts.
        let mut of_name =
            ports.filter(|(other, protocol, _)| other == name && protocol == self.protocol);
        of_name.next().is_some_and(|(_, _, found)| *found == number)
    }

    fn tier(&self, subject: &WorldPod, tier: &str) -> Option<bool> {
        let own_tier = |kind: Kind, spec: &ClusterPolicySpec| match kind {
            Kind::Cluster => spec.tier.as_deref() == Some(tier),
            Kind::Admin => tier == "Admin",
            Kind::BaselineAdmin => tier == "Baseline",
        };
        let mut policies: Vec<_> = self.world.cluster_policies.iter().collect();
        policies
            .retain(|(kind, _, spec)| own_tier(*kind, spec) && self.pods(&spec.subject, subject));
        let is_older = |kind: Kind| kind == Kind::BaselineAdmin;
        policies.sort_by_key(|(kind, name, spec)| (is_older(*kind), spec.priority, name));
        let rules = policies.into_iter().flat_map(|(_, _, spec)| match self.direction {
            Direction::Ingress => spec.ingress.iter().flatten(),
            Direction::Egress => spec.egress.iter().flatten(),
        });
        for rule in rules {
            match rule.action.as_str() {
                // A rule with a peer that is not known allows nothing, or denies everything.
                "Accept" | "Allow" if !is_known(rule) => {}
                _ if !is_known(rule) => return Some(false),
                _ if !self.cluster_rule_matches(rule) => {}
                "Pass" => return None,
                action => return Some(matches!(action, "Accept" | "Allow")),
            }
        }
        None
    }

    fn cluster_rule_matches(&self, rule: &ClusterRule) -> bool {
        let is_peer = peers(rule).any(|peer| {
            self.peer.is_some_and(|pod| self.pods(peer, pod))
                || peer.networks.iter().flatten().any(|prefix| in_prefix(prefix, self.peer_address))
                || peer.nodes.as_ref().is_some_and(|selector| {
                    self.world.nodes.values().any(|node| {
                        selects(selector, &node.labels)
                            && node.addresses.contains(&self.peer_address)
                    })
                })
        });
        let is_any_port = rule.protocols.is_none() && rule.ports.is_none();
        let newer = rule.protocols.iter().flatten().any(|protocol| {
            let of = |name, ports: &Option<vswitch_agent::policy::cluster::ClusterPorts>| {
                name == self.protocol
                    && ports.as_ref().is_some_and(|ports| match &ports.destination_port {
                        None => true,
                        Some(port) => self.is_between(match (&port.number, &port.range) {
                            (Some(number), _) => (*number, *number),
                            (None, range) => {
                                range.as_ref().map_or((1, 0), |range| (range.start, range.end))
                            }
                        }),
                    })
            };
            let name = protocol.destination_named_port.as_ref();
            of("TCP", &protocol.tcp)
                || of("UDP", &protocol.udp)
                || of("SCTP", &protocol.sctp)
                || name.is_some_and(|name| self.port.is_some_and(|port| self.is_named(name, port)))
        });
        is_peer
            && (is_any_port
                || newer
                || rule.ports.iter().flatten().any(|port| self.is_admin_port(port)))
    }

    fn is_admin_port(&self, port: &AdminPort) -> bool {
        let is_protocol = |name: &Option<String>| name.as_deref().unwrap_or("TCP") == self.protocol;
        match port {
            AdminPort { port_number: Some(one), .. } => {
                is_protocol(&one.protocol) && self.is_between((one.port, one.port))
            }
            AdminPort { port_range: Some(range), .. } => {
                is_protocol(&range.protocol) && self.is_between((range.start, range.end))
            }
            AdminPort { named_port, .. } => named_port
                .as_ref()
                .is_some_and(|name| self.port.is_some_and(|port| self.is_named(name, port))),
        }
    }

    fn is_between(&self, (first, last): (i32, i32)) -> bool {
        self.port.is_some_and(|port| (first..=last).contains(&port.into()))
    }

    /// Whether a subject or peer of a cluster policy selects a pod.
    fn pods(&self, peer: &ClusterPeer, pod: &WorldPod) -> bool {
        let namespace = &self.world.namespaces[&pod.namespace];
        let by_namespace =
            peer.namespaces.as_ref().is_some_and(|selector| selects(selector, namespace));
        by_namespace
            || peer.pods.as_ref().is_some_and(|pods| {
                selects(&pods.namespace_selector, namespace)
                    && selects(&pods.pod_selector, &pod.labels)
            })
    }
}

fn peers(rule: &ClusterRule) -> impl Iterator<Item = &ClusterPeer> {
    rule.from.iter().chain(&rule.to).flatten()
}

fn is_known(rule: &ClusterRule) -> bool {
    peers(rule).all(|peer| {
        let ClusterPeer { namespaces, pods, nodes, networks } = peer;
        namespaces.is_some() || pods.is_some() || nodes.is_some() || networks.is_some()
    })
}

fn in_prefix(prefix: &str, address: IpAddr) -> bool {
    prefix.parse::<IpNet>().expect("a prefix").contains(&address)
}

/// Whether a selector selects what has these labels: all of its requirements are met, of which it may have
/// none.
fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let mut expressions = selector.match_expressions.iter().flatten();
    equal.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && expressions.all(|expression| {
            let value = labels.get(&expression.key);
            let is_listed = value.is_some_and(|value| {
                expression.values.iter().flatten().any(|listed| listed == value)
            });
            match expression.operator.as_str() {
                "In" => is_listed,
                "NotIn" => !is_listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                other => panic!("no operator {other}"),
            }
        })
}
