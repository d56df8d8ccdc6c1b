//! Policies of a node in text, made into `Policies` by hand: nothing of the compiler is used.
//!
//! ```text
//! group web 198.18.1.2 198.18.2.0/24           addresses that rules name; again: in place of the former
//! policy shop/db ingress pod-b from web 203.0.113.0/24 except 203.0.113.9 ports tcp 80 udp 53-60
//!                                              a rule of a network policy. `ingress` or `egress`; peers
//!                                              behind `from` or `to`, none of them for any; protocols
//!                                              behind `ports`, each with a port, some, or none for all of it
//! policy shop/deny egress pod-b isolate        a policy without rules
//! policy admin/x ingress pod-b admin deny from web
//!                                              a rule of another tier: `admin` or `baseline`, in front of
//!                                              the peers; that denies, or passes on (`deny`, `pass`)
//! no-policy shop/db                            a policy goes
//! policies pending pod-b                       they are not known yet; `closed`: they cannot be compiled;
//!                                              `known`: neither
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::tables::PortId;
use dataplane::tables::policy::{
    Action, ClassId, ClassSets, Classes, Direction, DirectionPolicy, PeerSetId, Policies, PortSpan,
    Rule, RulePeers, RuleTable, Rules, SubjectPolicies,
};
use dataplane::wire::Protocol;
use ipnet::IpNet;

use super::Words;

/// All that was declared.
#[derive(Default)]
pub(crate) struct Declared {
    groups: BTreeMap<String, Vec<IpNet>>,
    /// In the order of their lines.
    rules: Vec<DeclaredRule>,
    unknown: BTreeMap<PortId, DirectionPolicy>,
    generation: u32,
}

#[derive(Debug, Clone)]
struct DeclaredRule {
    policy: String,
    direction: Direction,
    subject: PortId,
    tier: Tier,
    /// `None` if the policy has no rule.
    rule: Option<(Action, Vec<Peers>, Vec<PortSpan>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Admin,
    Network,
    Baseline,
}

/// What one peer set contains.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Peers {
    Group(String),
    Block { net: IpNet, except: Vec<IpNet> },
}

impl Declared {
    pub(crate) fn group(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let name = words.next("name")?.to_owned();
        let nets = words.all::<String>()?.iter().map(|one| net(one)).collect::<Result<_, _>>()?;
        self.groups.insert(name, nets);
        Ok(())
    }

    pub(crate) fn policy(
        &mut self,
        words: &mut Words<'_>,
        port: impl Fn(&str) -> Result<PortId, String>,
    ) -> Result<(), String> {
        let policy = words.next("name")?.to_owned();
        let direction = match words.next("direction")? {
            "ingress" => Direction::Ingress,
            "egress" => Direction::Egress,
            other => return Err(format!("`{other}` is no direction")),
        };
        let subject = port(words.next("port")?)?;
        let tier = match (words.flag("admin"), words.flag("baseline")) {
            (true, _) => Tier::Admin,
            (_, true) => Tier::Baseline,
            _ => Tier::Network,
        };
        let action = match (words.flag("deny"), words.flag("pass")) {
            (true, _) => Action::Deny,
            (_, true) => Action::Pass,
            _ => Action::Allow,
        };
        let isolates = words.flag("isolate");
        let rest = words.all::<String>()?;
        let (peers, ports) = match rest.iter().position(|word| word == "ports") {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (&rest[..], &[][..]),
        };
        let rule = match (isolates, rest.is_empty()) {
            (true, true) => None,
            (true, false) => return Err("a policy that isolates has no rule".into()),
            _ => Some((action, self.peers(peers)?, spans(ports)?)),
        };
        self.rules.push(DeclaredRule { policy, direction, subject, tier, rule });
        Ok(())
    }

    pub(crate) fn no_policy(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let name = words.next("name")?;
        let before = self.rules.len();
        self.rules.retain(|rule| rule.policy != name);
        if self.rules.len() == before { Err(format!("no policy `{name}`")) } else { Ok(()) }
    }

    pub(crate) fn unknown(
        &mut self,
        words: &mut Words<'_>,
        port: impl Fn(&str) -> Result<PortId, String>,
    ) -> Result<(), String> {
        let how = words.next("`pending`, `closed` or `known`")?;
        let subject = port(words.next("port")?)?;
        match how {
            "pending" => self.unknown.insert(subject, DirectionPolicy::Pending),
            "closed" => self.unknown.insert(subject, DirectionPolicy::Closed),
            "known" => self.unknown.remove(&subject),
            other => return Err(format!("`{other}`?")),
        };
        Ok(())
    }

    /// `from web 203.0.113.0/24 except 203.0.113.9 203.0.113.10 db`: what follows `except` is cut from
    /// the block in front of it, up to the next group or block that it does not contain.
    fn peers(&self, words: &[String]) -> Result<Vec<Peers>, String> {
        let words = match words.split_first() {
            None => return Ok(Vec::new()),
            Some((word, words)) if word == "from" || word == "to" => words,
            Some((word, _)) => return Err(format!("`{word}`?")),
        };
        let mut peers: Vec<Peers> = Vec::new();
        let mut is_except = false;
        for word in words {
            if word == "except" {
                is_except = true;
            } else if self.groups.contains_key(word) {
                peers.push(Peers::Group(word.clone()));
            } else {
                let block = net(word)?;
                match peers.last_mut() {
                    Some(Peers::Block { net, except }) if is_except && net.contains(&block) => {
                        except.push(block);
                    }
                    _ => peers.push(Peers::Block { net: block, except: Vec::new() }),
                }
            }
        }
        Ok(peers)
    }

    /// The policies of all that was declared, of another generation than before.
    pub(crate) fn policies(&mut self) -> Policies {
        self.generation += 1;
        let mut sets: Vec<Peers> = Vec::new();
        for peers in self.rules.iter().flat_map(|rule| &rule.rule).flat_map(|(_, peers, _)| peers) {
            if !sets.contains(peers) {
                sets.push(peers.clone());
            }
        }
        let prefixes: BTreeSet<IpNet> = sets.iter().flat_map(|set| self.prefixes(set)).collect();
        let mut classes = Classes::default();
        let mut sets_of_class = Vec::new();
        for (number, prefix) in prefixes.iter().enumerate() {
            classes.insert(*prefix, ClassId(number as u32));
            let having = (0u32..).zip(&sets).filter(|(_, set)| self.contains(set, prefix));
            sets_of_class.push(having.map(|(id, _)| PeerSetId(id)).collect::<Vec<_>>());
        }
        let class_sets = ClassSets::new(sets_of_class.iter().map(Vec::as_slice));
        let ports = self.rules.iter().map(|rule| rule.subject).chain(self.unknown.keys().copied());
        let most = ports.max().map_or(0, |port| usize::from(port.0) + 1);
        let subjects: Vec<_> = (0..most as u16)
            .map(|port| SubjectPolicies {
                ingress: self.of_subject(PortId(port), Direction::Ingress, &sets),
                egress: self.of_subject(PortId(port), Direction::Egress, &sets),
            })
            .collect();
        let (classes, class_sets) = (Arc::new(classes), Arc::new(class_sets));
        Policies::new(self.generation, classes, class_sets, subjects.into())
    }

    fn of_subject(&self, subject: PortId, direction: Direction, sets: &[Peers]) -> DirectionPolicy {
        if let Some(unknown) = self.unknown.get(&subject) {
            return unknown.clone();
        }
        let own = |rule: &&DeclaredRule| rule.subject == subject && rule.direction == direction;
        let mut declared: Vec<_> = self.rules.iter().filter(own).collect();
        if declared.is_empty() {
            return DirectionPolicy::Open;
        }
        declared.sort_by_key(|rule| (rule.tier, rule.policy.clone()));
        let mut tiers = [Vec::new(), Vec::new(), Vec::new()];
        let (mut names, mut indexes) = (Vec::<(u16, Arc<str>)>::new(), Vec::new());
        for (at, one) in declared.iter().enumerate() {
            let is_first = at == 0 || declared[at - 1].policy != one.policy;
            if is_first {
                names.push((indexes.len() as u16, one.policy.as_str().into()));
            }
            let Some((action, peers, spans)) = &one.rule else { continue };
            let begin = names.last().map_or(0, |(begin, _)| usize::from(*begin));
            indexes.push((indexes.len() - begin) as u32);
            let ids = peers.iter().map(|peer| sets.iter().position(|set| set == peer));
            let mut ids: Vec<_> = ids.map(|at| PeerSetId(at.expect("named") as u32)).collect();
            ids.sort_unstable();
            let peers = if ids.is_empty() { RulePeers::Any } else { RulePeers::Sets(ids.into()) };
            tiers[one.tier as usize].push(Rule {
                action: *action,
                peers,
                spans: spans.clone().into(),
            });
        }
        let [admin, network, baseline] = tiers;
        let isolated = declared.iter().any(|rule| rule.tier == Tier::Network);
        let rules = Rules::new(admin, isolated.then_some(network), baseline);
        DirectionPolicy::Rules(Arc::new(RuleTable::linear(Arc::new(rules), &names, &indexes)))
    }

    fn prefixes(&self, set: &Peers) -> Vec<IpNet> {
        match set {
            Peers::Group(name) => self.groups[name].clone(),
            Peers::Block { net, except } => except.iter().copied().chain([*net]).collect(),
        }
    }

    fn contains(&self, set: &Peers, prefix: &IpNet) -> bool {
        match set {
            Peers::Group(name) => self.groups[name].iter().any(|net| net.contains(prefix)),
            Peers::Block { net, except } => {
                net.contains(prefix) && !except.iter().any(|net| net.contains(prefix))
            }
        }
    }
}

/// `tcp 80 tcp 8000-8010 udp icmp`; all of them where there is none.
fn spans(words: &[String]) -> Result<Vec<PortSpan>, String> {
    if words.is_empty() {
        return Ok(vec![PortSpan::ANY]);
    }
    let mut spans = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let protocol = match word.as_str() {
            "tcp" => Protocol::TCP,
            "udp" => Protocol::UDP,
            "sctp" => Protocol::SCTP,
            "icmp" => Protocol::ICMP,
            other => return Err(format!("unknown protocol `{other}`")),
        };
        let ports = words.next_if(|next| next.starts_with(|first: char| first.is_ascii_digit()));
        spans.push(match ports {
            None => PortSpan::protocol(protocol),
            Some(ports) => {
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                let number = |text: &str| text.parse().map_err(|_| format!("`{ports}`: ports"));
                PortSpan::ports(protocol, number(first)?..=number(last)?)
            }
        });
    }
    spans.sort_unstable();
    // Those of a rule do not overlap.
    spans.dedup_by(|next, kept| {
        let overlaps = next.first <= kept.last;
        if overlaps {
            kept.last = kept.last.max(next.last);
        }
        overlaps
    });
    Ok(spans)
}

/// A prefix, or an address alone.
fn net(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| address())
        .map_err(|_| format!("`{text}` is no group, prefix or address"))
}
