//! `[[policies]]`: what is allowed between pods, of a node that no cluster tells it.
//!
//! Enters: `Reader`. Leaves: policies in the terms of a NetworkPolicy, with pods by name in place of
//! labels; a problem for whatever cannot be meant.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use api::{PeerBlock, PolicyPorts, is_v4};
use ipnet::IpNet;

use super::read::{Reader, Section};
use super::sections::{PORT, PREFIX, required};
use super::values::{check_canonical, check_name};
use crate::policy::check_rule_set;

const POD: &str =
    "a pod's name such as \"demo/db\", the beginning of names such as \"demo/*\", or \"*\" for all";
const RULES: &str = "a list of rules; [] allows nothing";
/// IANA's numbers.
const PROTOCOLS: [(&str, u8); 3] = [("tcp", 6), ("udp", 17), ("sctp", 132)];

/// A policy of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySettings {
    /// Its name.
    pub name: String,
    /// The pods of this node that it selects.
    pub pods: Vec<PodPattern>,
    /// What may be opened to them; if absent, the policy leaves that open.
    pub ingress: Option<Vec<PolicyRuleSettings>>,
    /// What they may open; likewise.
    pub egress: Option<Vec<PolicyRuleSettings>>,
}

/// What a policy allows: these peers, by these ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRuleSettings {
    /// The peers; if absent, every address.
    pub peers: Option<Vec<PolicyPeer>>,
    /// Destination ports; if absent, everything, with ports or without.
    pub ports: Option<Vec<PolicyPorts>>,
}

/// Peers of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyPeer {
    /// Pods of this node.
    Pods(Vec<PodPattern>),
    /// Addresses.
    Block(PeerBlock),
}

impl PolicyPeer {
    /// The addresses, if it is a peer by address.
    #[must_use]
    pub fn block(&self) -> Option<&PeerBlock> {
        match self {
            Self::Pods(_) => None,
            Self::Block(block) => Some(block),
        }
    }
}

/// The name of a pod as `show ports` has it, or with `*` at its end the beginning of names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodPattern(String);

impl PodPattern {
    /// Whether a pod of this name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.0,
        }
    }
}

impl fmt::Display for PodPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PodPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.strip_suffix('*').unwrap_or(text).contains('*') {
            return Err("* can only be the last character".to_owned());
        }
        check_name(text)?;
        Ok(Self(text.to_owned()))
    }
}

/// The policies of the file.
pub(super) fn read<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> Vec<PolicySettings> {
    let (mut policies, mut names) = (Vec::new(), BTreeSet::new());
    for mut section in reader.sections(root, "policies") {
        let name = required(reader, &mut section, "name", "a string such as \"db\"");
        let name = name.unwrap_or_default();
        if section.has("name") {
            let key = section.key("name");
            if let Err(message) = check_name(&name) {
                reader.refuse(&key, message);
            } else if !names.insert(name.clone()) {
                reader.refuse(&key, format!("another policy is called \"{name}\"; rename one"));
            }
        }
        let pods = pods(reader, &mut section, "a policy");
        if !section.has("ingress") && !section.has("egress") {
            reader.refuse(
                section.path(),
                "the policy does nothing: it needs ingress, egress or both; [] denies all of a direction",
            );
        }
        let ingress = rules(reader, &mut section, "ingress", "from");
        let egress = rules(reader, &mut section, "egress", "to");
        let path = section.path().to_owned();
        reader.finish(section);
        let policy = PolicySettings { name, pods, ingress, egress };
        for (direction, set) in policy.rule_sets() {
            if let Err(problem) = check_rule_set(&set) {
                reader.refuse(&format!("{path}.{direction}"), problem.to_string());
            }
        }
        policies.push(policy);
    }
    policies
}

fn pods<'t>(reader: &mut Reader<'t>, section: &mut Section<'t>, of: &str) -> Vec<PodPattern> {
    if !section.has("pods") {
        reader.refuse(section.path(), format!("{of} needs pods, a list of {POD}"));
    }
    let problems = reader.problems.len();
    let pods = reader.list(section, "pods", POD);
    if section.has("pods") && pods.is_empty() && reader.problems.len() == problems {
        reader.refuse(&section.key("pods"), "at least one name is needed; [\"*\"] is every pod");
    }
    pods
}

fn rules<'t>(
    reader: &mut Reader<'t>,
    section: &mut Section<'t>,
    direction: &'static str,
    peers: &'static str,
) -> Option<Vec<PolicyRuleSettings>> {
    let is_present = section.has(direction);
    let mut rules = Vec::new();
    for mut rule in reader.tables(section, direction, RULES) {
        let what =
            "a list of peers such as { pods = [\"demo/web\"] } or { cidr = \"192.0.2.0/24\" }";
        let peers = some(reader, &mut rule, peers, what, "every address", peer);
        let what = "a list of ports such as { protocol = \"tcp\", port = 5432 }";
        let ports = some(reader, &mut rule, "ports", what, "every port", ports);
        reader.finish(rule);
        rules.push(PolicyRuleSettings { peers, ports });
    }
    is_present.then_some(rules)
}

/// What a list has that is not empty, if it is there. In a NetworkPolicy an empty one allows everything,
/// which nobody means who has removed its last element.
fn some<'t, T>(
    reader: &mut Reader<'t>,
    rule: &mut Section<'t>,
    name: &'static str,
    what: &str,
    everything: &str,
    read: impl Fn(&mut Reader<'t>, &mut Section<'t>) -> Option<T>,
) -> Option<Vec<T>> {
    let (problems, is_present) = (reader.problems.len(), rule.has(name));
    let mut values = Vec::new();
    for mut section in reader.tables(rule, name, what) {
        values.extend(read(reader, &mut section));
        reader.finish(section);
    }
    if is_present && values.is_empty() && reader.problems.len() == problems {
        reader.refuse(
            &rule.key(name),
            format!(
                "it is empty; leave the key out to allow {everything}, or remove the rule to allow nothing"
            ),
        );
    }
    is_present.then_some(values)
}

fn peer<'t>(reader: &mut Reader<'t>, section: &mut Section<'t>) -> Option<PolicyPeer> {
    let (has_pods, has_cidr) = (section.has("pods"), section.has("cidr"));
    let listed = if has_pods { pods(reader, section, "a peer") } else { Vec::new() };
    let cidr: Option<IpNet> = reader.parsed(section, "cidr", PREFIX);
    let has_except = section.has("except");
    let except: Vec<IpNet> = reader.list(section, "except", PREFIX);
    if !has_pods {
        // Known, also where it is not there.
        reader.list::<PodPattern>(section, "pods", POD);
    }
    match (has_pods, has_cidr) {
        (true, true) => {
            reader.refuse(section.path(), "a peer has pods or cidr; write two peers for both");
        }
        (false, false) => reader.refuse(section.path(), "a peer needs pods or cidr"),
        (true, false) if has_except => {
            reader.refuse(&section.key("except"), "only a peer with cidr has except; remove it");
        }
        _ => {}
    }
    if has_pods {
        return Some(PolicyPeer::Pods(listed));
    }
    let cidr = cidr?;
    if let Err(message) = check_canonical(&cidr) {
        reader.refuse(&section.key("cidr"), message);
    }
    for (index, inner) in except.iter().enumerate() {
        let key = section.key(&format!("except[{index}]"));
        if let Err(message) = check_canonical(inner) {
            reader.refuse(&key, message);
        } else if is_v4(inner) != is_v4(&cidr) || !cidr.contains(inner) {
            reader.refuse(&key, format!("{inner} is not within {cidr}; remove it"));
        }
    }
    Some(PolicyPeer::Block(PeerBlock { cidr, except }))
}

fn ports<'t>(reader: &mut Reader<'t>, section: &mut Section<'t>) -> Option<PolicyPorts> {
    let protocol = reader.one_of(section, "protocol", &PROTOCOLS).unwrap_or(PROTOCOLS[0].1);
    let has_port = section.has("port");
    let first = reader.integer(section, "port", PORT).map(|port| port as u16);
    let last = reader.integer(section, "end_port", PORT).map(|port| port as u16);
    if section.has("end_port") && !has_port {
        reader.refuse(&section.key("end_port"), "it needs port, the first of the ports");
    }
    if let (Some(first), Some(last)) = (first, last)
        && last < first
    {
        let message = format!("expected {first} or more, as port is {first}, found {last}");
        reader.refuse(&section.key("end_port"), message);
        return None;
    }
    Some(PolicyPorts { protocol, ports: first.map(|first| (first, last.unwrap_or(first))) })
}
