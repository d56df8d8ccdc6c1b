//! The inputs, and what follows of a change.
//!
//! Enters: groups' members, rule sets and subjects, one after the other, and then the ports of the pods
//! that live: a publication. Leaves: [`Policies`]. Whatever cannot be compiled closes the subjects that
//! it concerns, and is named.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::{
    AttachmentId, GroupId, PolicyPeers, PolicyPorts, PolicyRule, RuleAction, RuleSet, RuleSetId,
    SubjectRules,
};
use dataplane::tables::policy::{
    Action, ClassSets, DirectionPolicy, PeerSetId, Policies, PortSpan, Rule, RulePeers,
    SubjectPolicies,
};
use dataplane::wire::Protocol;

use super::cap::{MATRIX_BYTES, MAX_COMPARISONS, keep_below};
use super::classes::ClassTable;
use super::judge::{MAX_RULE_SETS_OF_A_POD, MAX_RULES, RuleSetProblem, blocks, groups, judge};
use super::peer_sets::{PeerSet, PeerSets};
use super::table::{NumberedSet, Table};
use crate::compile::PodPort;

/// The rule sets of a table, in the order of evaluation.
type Combination = Vec<RuleSetId>;

/// All that policies are compiled of.
#[derive(Debug)]
pub struct Compiler {
    members: BTreeMap<GroupId, BTreeSet<IpAddr>>,
    rule_sets: BTreeMap<RuleSetId, Stored>,
    /// `None` while it is not known which rules a pod has.
    subjects: BTreeMap<AttachmentId, Option<SubjectRules>>,
    peer_sets: PeerSets,
    classes: ClassTable,
    tables: BTreeMap<Combination, Table>,
    /// Those of which a judgement would take too long, with the comparisons that it would take.
    too_slow: BTreeMap<Combination, usize>,
    /// Rule sets that are not as the tables have them.
    stale: BTreeSet<RuleSetId>,
    closed: BTreeMap<AttachmentId, String>,
    class_sets: Arc<ClassSets>,
    subjects_in_force: Arc<[SubjectPolicies]>,
    policies: Policies,
    max_bytes: usize,
}

#[derive(Debug)]
struct Stored {
    set: RuleSet,
    numbered: Result<NumberedSet, RuleSetProblem>,
}

/// How much there is, for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Rule sets of sources.
    pub rule_sets: usize,
    /// Tables, each for the subjects with the same rule sets in a direction.
    pub tables: usize,
    /// Those of them whose rules are gone through, as there is no room for their matrices.
    pub linear: usize,
    /// Classes of addresses.
    pub classes: usize,
    /// Memory of the tables, bytes.
    pub table_bytes: usize,
    /// Memory of the prefixes, bytes.
    pub prefix_bytes: usize,
}

impl Default for Compiler {
    fn default() -> Self {
        Self::with_matrix_bytes(MATRIX_BYTES)
    }
}

impl Compiler {
    /// A compiler whose first policies have this generation. Sessions of a former process have stamps of
    /// that one's: another number has them judged anew.
    #[must_use]
    pub fn beginning_at(generation: u32) -> Self {
        let policies = Policies::new(generation, Arc::default(), Arc::default(), Arc::default());
        Self { policies, ..Self::default() }
    }

    /// A compiler whose matrices take so many bytes at most.
    #[must_use]
    pub fn with_matrix_bytes(max_bytes: usize) -> Self {
        Self {
            members: BTreeMap::new(),
            rule_sets: BTreeMap::new(),
            subjects: BTreeMap::new(),
            peer_sets: PeerSets::default(),
            classes: ClassTable::default(),
            tables: BTreeMap::new(),
            too_slow: BTreeMap::new(),
            stale: BTreeSet::new(),
            closed: BTreeMap::new(),
            class_sets: Arc::default(),
            subjects_in_force: Arc::default(),
            policies: Policies::default(),
            max_bytes,
        }
    }

    /// Addresses leave a group, and others join it.
    pub fn change_members(&mut self, group: &GroupId, join: &[IpAddr], leave: &[IpAddr]) {
        let id = self.peer_sets.group(group);
        let members = self.members.entry(group.clone()).or_default();
        for address in leave {
            members.remove(address);
            if let Some(id) = id {
                self.classes.leave(*address, id);
            }
        }
        for address in join {
            members.insert(*address);
            if let Some(id) = id {
                self.classes.join(*address, id);
            }
        }
        if members.is_empty() {
            self.members.remove(group);
        }
    }

    /// The members of a group.
    pub fn members(&self, group: &GroupId) -> impl Iterator<Item = IpAddr> {
        self.members.get(group).into_iter().flatten().copied()
    }

    /// The groups with members.
    pub fn groups(&self) -> impl Iterator<Item = &GroupId> {
        self.members.keys()
    }

    /// Adds a rule set, or replaces the one of this name.
    ///
    /// # Errors
    /// If it cannot be compiled; its subjects are denied everything in its direction then, until it is
    /// replaced.
    pub fn set_rules(&mut self, id: RuleSetId, set: RuleSet) -> Result<(), RuleSetProblem> {
        if let Some(stored) = self.rule_sets.get(&id)
            && stored.set == set
        {
            return stored.numbered.as_ref().map(|_| ()).map_err(Clone::clone);
        }
        let judged = judge(&set);
        let numbered = judged.clone().map(|()| self.numbered(&set));
        // After the new one is there: what both name stays as it is.
        self.remove_rules(&id);
        self.rule_sets.insert(id, Stored { set, numbered });
        judged
    }

    /// Removes a rule set, if there is one of this name. Subjects that still name it are denied everything
    /// in its direction.
    pub fn remove_rules(&mut self, id: &RuleSetId) {
        let Some(stored) = self.rule_sets.remove(id) else { return };
        self.stale.insert(id.clone());
        if stored.numbered.is_ok() {
            for rule in &stored.set.rules {
                for set in named(rule) {
                    self.release(set);
                }
            }
        }
    }

    /// The rule sets, each with what is wrong with it.
    pub fn rule_sets(
        &self,
    ) -> impl Iterator<Item = (&RuleSetId, &RuleSet, Option<&RuleSetProblem>)> {
        self.rule_sets.iter().map(|(id, stored)| (id, &stored.set, stored.numbered.as_ref().err()))
    }

    /// Rule sets in the order of evaluation, those of a pod for one direction.
    ///
    /// # Errors
    /// Why such a pod is denied everything.
    pub fn order(&self, ids: &[RuleSetId]) -> Result<Vec<&RuleSet>, String> {
        let sets = self.combination(ids)?;
        self.is_quick(&sets)?;
        Ok(sets.iter().filter_map(|id| Some(&self.rule_sets.get(id)?.set)).collect())
    }

    /// Sets the rule sets of a pod.
    pub fn set_subject(&mut self, attachment: AttachmentId, rules: SubjectRules) {
        self.subjects.insert(attachment, Some(rules));
    }

    /// Denies a pod everything until its rule sets are known.
    pub fn hold(&mut self, attachment: AttachmentId) {
        self.subjects.entry(attachment).or_default();
    }

    /// Forgets a pod: policies do not concern it any more.
    pub fn remove_subject(&mut self, attachment: &AttachmentId) {
        self.subjects.remove(attachment);
    }

    /// The subjects; without rules those that are held.
    pub fn subjects(&self) -> impl Iterator<Item = (&AttachmentId, Option<&SubjectRules>)> {
        self.subjects.iter().map(|(attachment, rules)| (attachment, rules.as_ref()))
    }

    /// The pods with ports that are denied everything in a direction, and why.
    pub fn closed(&self) -> impl Iterator<Item = (&AttachmentId, &str)> {
        self.closed.iter().map(|(attachment, why)| (attachment, why.as_str()))
    }

    /// The policies of the pods with these ports. They are of another generation than the last ones if
    /// anything may be judged otherwise.
    pub fn compile(&mut self, ports: &BTreeMap<AttachmentId, PodPort>) -> Policies {
        let changes = self.classes.settle();
        let stale = std::mem::take(&mut self.stale);
        let wanted = self.combinations(ports);
        self.tables.retain(|combination, _| {
            wanted.contains(combination) && !combination.iter().any(|id| stale.contains(id))
        });
        if !changes.gone.is_empty() || !changes.new.is_empty() {
            for table in self.tables.values_mut() {
                table.follow(&changes, &self.classes, self.max_bytes);
            }
        }
        for combination in wanted {
            if !self.tables.contains_key(&combination) {
                let sets: Vec<_> = combination.iter().filter_map(|id| self.set(id)).collect();
                let table = Table::new(&sets, &self.classes, self.max_bytes);
                self.tables.insert(combination, table);
                // After each, so that there are never many large ones at once.
                keep_below(&mut self.tables, &self.classes, self.max_bytes);
            }
        }
        keep_below(&mut self.tables, &self.classes, self.max_bytes);
        self.too_slow = self.tables_beyond(MAX_COMPARISONS, changes.any);
        self.publish(ports, changes.any);
        self.policies.clone()
    }

    /// How much there is.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let tables = || self.tables.values().map(Table::compiled);
        Statistics {
            rule_sets: self.rule_sets.len(),
            tables: self.tables.len(),
            linear: tables().filter(|table| table.is_linear()).count(),
            classes: self.classes.all().count(),
            table_bytes: tables().map(|table| table.size_bytes()).sum(),
            prefix_bytes: self.classes.prefixes().size_bytes(),
        }
    }

    /// Tables of which a judgement may take more comparisons, with how many. `have_changed`: the classes
    /// are others than before.
    fn tables_beyond(&mut self, most: usize, have_changed: bool) -> BTreeMap<Combination, usize> {
        let classes = &self.classes;
        let tables = self.tables.iter_mut().filter_map(|(combination, table)| {
            let comparisons = table.comparisons(classes, have_changed)?;
            (comparisons > most).then(|| (combination.clone(), comparisons))
        });
        tables.collect()
    }

    /// Makes new policies, if the ones in force differ.
    fn publish(&mut self, ports: &BTreeMap<AttachmentId, PodPort>, mut is_other: bool) {
        let is_linear = self.tables.values().any(|table| table.compiled().is_linear());
        let has_sets = self.class_sets.size_bytes() > ClassSets::default().size_bytes();
        if is_linear && (is_other || !has_sets) {
            self.class_sets = Arc::new(self.classes.class_sets());
            is_other = true;
        } else if !is_linear && has_sets {
            self.class_sets = Arc::default();
            is_other = true;
        }
        let subjects = self.subject_policies(ports);
        if !is_same(&subjects, &self.subjects_in_force) {
            self.subjects_in_force = subjects.into();
            is_other = true;
        }
        if is_other {
            self.policies = Policies::new(
                self.policies.generation().wrapping_add(1),
                Arc::clone(self.classes.prefixes()),
                Arc::clone(&self.class_sets),
                Arc::clone(&self.subjects_in_force),
            );
        }
    }

    fn subject_policies(
        &mut self,
        ports: &BTreeMap<AttachmentId, PodPort>,
    ) -> Vec<SubjectPolicies> {
        self.closed.clear();
        let mut subjects: Vec<SubjectPolicies> = Vec::new();
        for (attachment, port) in ports {
            let Some(rules) = self.subjects.get(attachment) else { continue };
            let (ingress, egress, closed) = match rules {
                Some(rules) => {
                    let (ingress, egress) = (&rules.ingress, &rules.egress);
                    (self.direction(ingress), self.direction(egress), DirectionPolicy::Closed)
                }
                None => {
                    let why = || "its rule sets are not known yet".to_owned();
                    (Err(why()), Err(why()), DirectionPolicy::Pending)
                }
            };
            if let Some(why) = ingress.as_ref().err().or(egress.as_ref().err()) {
                self.closed.insert(attachment.clone(), why.clone());
            }
            let place = usize::from(port.id.0);
            if subjects.len() <= place {
                subjects.resize_with(place + 1, SubjectPolicies::default);
            }
            subjects[place] = SubjectPolicies {
                ingress: ingress.unwrap_or(closed.clone()),
                egress: egress.unwrap_or(closed),
            };
        }
        subjects
    }

    /// The policy of the subjects with these rule sets, or why they are denied everything.
    fn direction(&self, ids: &[RuleSetId]) -> Result<DirectionPolicy, String> {
        if ids.is_empty() {
            return Ok(DirectionPolicy::Open);
        }
        let combination = self.combination(ids)?;
        self.is_quick(&combination)?;
        let table = self.tables.get(&combination).ok_or("its rules are not compiled")?;
        Ok(DirectionPolicy::Rules(Arc::clone(table.compiled())))
    }

    /// Whether connections are judged in time by these rule sets, or why they are not.
    fn is_quick(&self, combination: &Combination) -> Result<(), String> {
        if let Some(comparisons) = self.too_slow.get(combination) {
            return Err(format!(
                "its policies have so many rules for one peer that a connection would take {comparisons} \
                 comparisons; {MAX_COMPARISONS} are possible where there is no memory to work them out: \
                 have fewer policies select it, or use endPort"
            ));
        }
        Ok(())
    }

    /// The combinations of rule sets that these pods have.
    fn combinations(&self, ports: &BTreeMap<AttachmentId, PodPort>) -> BTreeSet<Combination> {
        let subjects =
            ports.keys().filter_map(|attachment| self.subjects.get(attachment)?.as_ref());
        let lists = subjects.flat_map(|rules| [&rules.ingress, &rules.egress]);
        lists.filter(|ids| !ids.is_empty()).filter_map(|ids| self.combination(ids).ok()).collect()
    }

    /// Rule sets in the order of evaluation, or why they cannot be compiled.
    fn combination(&self, ids: &[RuleSetId]) -> Result<Combination, String> {
        if ids.len() > MAX_RULE_SETS_OF_A_POD {
            return Err(format!(
                "it has {} rule sets in a direction; {MAX_RULE_SETS_OF_A_POD} are possible: have fewer \
                 policies select it",
                ids.len()
            ));
        }
        let (mut sets, mut rules) = (BTreeMap::new(), 0);
        for id in ids {
            let stored = self.rule_sets.get(id);
            let stored = stored.ok_or_else(|| format!("its rule set {:?} is not there", id.0))?;
            let set = stored.numbered.as_ref().map_err(ToString::to_string)?;
            if sets.insert((set.tier, &set.policy, id), ()).is_none() {
                rules += set.rules.len();
            }
        }
        if rules > MAX_RULES {
            return Err(format!(
                "its policies have {rules} rules in a direction; {MAX_RULES} are possible: have fewer \
                 policies select it"
            ));
        }
        Ok(sets.into_keys().map(|(_, _, id)| id.clone()).collect())
    }

    fn set(&self, id: &RuleSetId) -> Option<&NumberedSet> {
        self.rule_sets.get(id)?.numbered.as_ref().ok()
    }

    fn numbered(&mut self, set: &RuleSet) -> NumberedSet {
        NumberedSet {
            policy: set.policy.as_str().into(),
            tier: set.tier,
            rules: set.rules.iter().map(|rule| self.rule(rule)).collect(),
            indexes: set.rules.iter().map(|rule| rule.index).collect(),
        }
    }

    fn rule(&mut self, rule: &PolicyRule) -> Rule {
        let mut sets: Vec<_> = named(rule).map(|set| self.name(set)).collect();
        sets.sort_unstable();
        sets.dedup();
        Rule {
            action: match rule.action {
                RuleAction::Allow => Action::Allow,
                RuleAction::Deny => Action::Deny,
                RuleAction::Pass => Action::Pass,
            },
            peers: match rule.peers {
                PolicyPeers::Any => RulePeers::Any,
                PolicyPeers::Of { .. } => RulePeers::Sets(sets.into()),
            },
            spans: spans(rule.ports.as_deref()),
        }
    }

    fn name(&mut self, set: PeerSet) -> PeerSetId {
        let (id, is_new) = self.peer_sets.name(set.clone());
        match set {
            _ if !is_new => {}
            PeerSet::Block(block) => self.classes.add_block(&block, id),
            PeerSet::Group(group) => {
                for member in self.members.get(&group).into_iter().flatten() {
                    self.classes.join(*member, id);
                }
            }
        }
        id
    }

    fn release(&mut self, set: PeerSet) {
        let Some(id) = self.peer_sets.release(&set) else { return };
        match set {
            PeerSet::Block(block) => self.classes.remove_block(&block, id),
            PeerSet::Group(group) => {
                for member in self.members.get(&group).into_iter().flatten() {
                    self.classes.leave(*member, id);
                }
            }
        }
    }
}

/// The groups and blocks that a rule names.
fn named(rule: &PolicyRule) -> impl Iterator<Item = PeerSet> {
    let groups = groups(rule).iter().cloned().map(PeerSet::Group);
    groups.chain(blocks(rule).iter().cloned().map(PeerSet::Block))
}

/// The ports of a rule, ascending and without overlaps.
fn spans(ports: Option<&[PolicyPorts]>) -> Box<[PortSpan]> {
    let Some(ports) = ports else { return [PortSpan::ANY].into() };
    let span = |ports: &PolicyPorts| match (Protocol(ports.protocol), ports.ports) {
        (protocol, Some((first, last))) => PortSpan::ports(protocol, first..=last),
        (protocol, None) => PortSpan::protocol(protocol),
    };
    let mut spans: Vec<_> = ports.iter().map(span).collect();
    spans.sort_unstable();
    spans.dedup_by(|next, kept| {
        let overlaps = next.first <= kept.last;
        if overlaps {
            kept.last = kept.last.max(next.last);
        }
        overlaps
    });
    spans.into()
}

/// Whether subjects have the very same tables.
fn is_same(some: &[SubjectPolicies], others: &[SubjectPolicies]) -> bool {
    let is_same_direction = |one: &DirectionPolicy, other: &DirectionPolicy| match (one, other) {
        (DirectionPolicy::Rules(one), DirectionPolicy::Rules(other)) => Arc::ptr_eq(one, other),
        (DirectionPolicy::Open, DirectionPolicy::Open)
        | (DirectionPolicy::Pending, DirectionPolicy::Pending)
        | (DirectionPolicy::Closed, DirectionPolicy::Closed) => true,
        _ => false,
    };
    some.len() == others.len()
        && some.iter().zip(others).all(|(one, other)| {
            is_same_direction(&one.ingress, &other.ingress)
                && is_same_direction(&one.egress, &other.egress)
        })
}
