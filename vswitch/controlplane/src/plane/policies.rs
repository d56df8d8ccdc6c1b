//! Policies: what a source commits, and what is in force of it.
//!
//! Enters: parts of a change; pods that come and go. Leaves: with the last part, one change of the model,
//! one line of the journal and one publication; at each publication the policies of the pods that are
//! attached; to `show policies` and `status`, what each pod has, and what is refused.

mod staged;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{
    AttachmentId, DirectionPolicies, ErrorReply, GroupId, Isolation, PodPolicies, PolicyDigest,
    PolicyEntry, PolicyState, PolicySummary, PolicySync, RefusedRuleSet, Reply, RuleSetId, Subject,
};
use dataplane::tables::policy::Policies;

use super::ControlPlane;
use super::list::Frame;
use crate::change::{Action, Change, Note, OnFailure, Rollback};
use crate::compile::PodPort;
use crate::config::PolicySettings;
use crate::model::policies::{PodRules, check_names, check_totals};
use crate::model::{Edit, Lease, pod_name};
use crate::policy::{Compiler, FilePolicies, MAX_RULE_SETS_OF_A_POD, rules_of_file};
use staged::Staged;

/// Refusals of one change that are logged one by one; `show policies` has all.
const LOGGED: usize = 10;

/// Why a pod is denied everything whose rule sets nobody told.
const PENDING: &str = "its policies are not known yet";
/// Likewise, for good.
const NAMELESS: &str = "its name was lost with a line of the journal, so that its policies are not known: delete the pod";

/// What is compiled of policies, and what is staged.
#[derive(Debug, Default)]
pub(crate) struct PolicyPlane {
    compiler: Compiler,
    staged: Staged,
    /// Those of the file that the compiler has.
    file: FilePolicies,
}

impl PolicyPlane {
    /// Of a process whose first policies have this generation.
    pub(crate) fn beginning_at(generation: u32) -> Self {
        Self { compiler: Compiler::beginning_at(generation), ..Self::default() }
    }
}

impl ControlPlane {
    /// Takes a part of a change of policies; with the last, all of it.
    pub(super) fn sync_policies(&mut self, sync: PolicySync) -> Result<Change, ErrorReply> {
        if let Err(refusal) = check_names(&sync) {
            self.policies.staged = Staged::default();
            return Err(refusal);
        }
        let Some(whole) = self.policies.staged.take(sync)? else {
            return Ok(answered(Vec::new(), Vec::new()));
        };
        let former = self.refused_rule_sets();
        let mut edits = self.model.sync_policies(whole);
        let mut undo = self.model.apply_all(&edits);
        if let Err(refusal) = check_totals(&self.model.policies) {
            self.model.apply_all(&undo);
            self.follow_policies();
            return Err(refusal);
        }
        self.follow_policies();
        let refused = self.refused_rule_sets();
        let mut notes = Vec::new();
        let fresh: Vec<_> = refused.iter().filter(|one| !former.contains(one)).collect();
        for RefusedRuleSet { id, reason, .. } in fresh.iter().take(LOGGED) {
            notes.push(Note::warning(format!("rule set {:?} is refused: {reason}", id.0)));
        }
        if let Some(more) = fresh.len().checked_sub(LOGGED).filter(|more| *more > 0) {
            let text = format!("{more} more rule sets are refused; see show policies");
            notes.push(Note::warning(text));
        }
        // What is known already costs neither a line of the journal nor new tables.
        if edits.is_empty() && self.model.policies.are_told() {
            return Ok(answered(refused, notes));
        }
        notes.push(Note::info(format!("policies: {} change(s)", edits.len())));
        let commit = [Edit::PoliciesAre { sum: Some(self.model.policies.sum()) }];
        undo.splice(0..0, self.model.apply_all(&commit));
        edits.extend(commit);
        let rollback = Rollback { undo: undo.clone(), ..Rollback::default() };
        let first = vec![Action::Journal { edits, undo }];
        let answer = Some(Reply::SyncedPolicies(refused));
        Ok(self.request(Frame { first, answer, ..Frame::default() }, rollback, notes))
    }

    /// Forgets all that was told.
    pub(super) fn forget_policies(&mut self) -> Change {
        self.policies.staged = Staged::default();
        let edits = self.model.policies.forgetting();
        let note = Note::warning("all policies that were told are forgotten, as was asked");
        self.edited(edits, Reply::Done, vec![note])
    }

    /// Whether pods that have a name are denied everything while their policies are not known.
    #[must_use]
    pub fn keeps_policies(&self) -> bool {
        self.config.kubernetes.policies || self.model.policies.are_told()
    }

    /// What is known of policies.
    #[must_use]
    pub fn policy_digest(&self) -> PolicyDigest {
        self.model.policies.digest()
    }

    /// Every rule set that is refused: by itself, or as a pod has more than are possible, which is denied
    /// everything then; of these the first of each pod that is one too many.
    #[must_use]
    pub fn refused_rule_sets(&self) -> Vec<RefusedRuleSet> {
        let refused = self.policies.compiler.rule_sets().filter_map(|(id, set, problem)| {
            let reason = problem?.to_string();
            Some(RefusedRuleSet { id: id.clone(), policy: set.policy.clone(), reason })
        });
        let known = &self.model.policies;
        let surplus = known.subjects().flat_map(|Subject { pod, rules }| {
            [(&rules.ingress, "ingress"), (&rules.egress, "egress")].into_iter().filter_map(
                move |(ids, direction)| {
                    let id = ids.get(MAX_RULE_SETS_OF_A_POD)?.clone();
                    let policy = known.rule_sets().get(&id).map_or("", |set| &set.policy).to_owned();
                    let reason = format!(
                        "the pod {}/{} has {} rule sets for {direction}; {MAX_RULE_SETS_OF_A_POD} are possible, \
                         and it is denied everything in that direction: have fewer policies select it",
                        pod.namespace, pod.name, ids.len(),
                    );
                    Some(RefusedRuleSet { id, policy, reason })
                },
            )
        });
        refused.chain(surplus).collect()
    }

    /// The pods with a port and a name that are denied everything, as nobody told their policies.
    pub fn pending_pods(&self) -> impl Iterator<Item = &AttachmentId> {
        let is_kept = self.keeps_policies();
        let unknown =
            move |lease: &Lease| self.model.pod_rules(lease, is_kept) == PodRules::Unknown;
        self.pods_up(move |_, lease| lease.pod.is_some() && unknown(lease))
    }

    /// The pods with a port that are denied everything, as their name was lost.
    pub fn nameless_pods(&self) -> impl Iterator<Item = &AttachmentId> {
        let is_kept = self.keeps_policies();
        self.pods_up(move |attachment, lease| {
            lease.name_is_lost && self.rules_of(attachment, lease, is_kept) == PodRules::Unknown
        })
    }

    fn pods_up(
        &self,
        is_meant: impl Fn(&AttachmentId, &Lease) -> bool,
    ) -> impl Iterator<Item = &AttachmentId> {
        let leases = self.model.attachments.iter();
        leases
            .filter(move |(pod, lease)| self.ports.is_up(pod) && is_meant(pod, lease))
            .map(|(pod, _)| pod)
    }

    /// Whether a pod is denied everything as nobody told its policies.
    #[must_use]
    pub fn is_pending(&self, attachment: &AttachmentId) -> bool {
        let lease = self.model.attachments.get(attachment);
        lease.is_some_and(|lease| {
            self.model.pod_rules(lease, self.keeps_policies()) == PodRules::Unknown
        })
    }

    /// The policies of each pod, and how much there is of them; without what they decided.
    #[must_use]
    pub fn policy_state(&self) -> PolicyState {
        let is_kept = self.keeps_policies();
        let pods = self.model.attachments.iter().filter_map(|(attachment, lease)| {
            let (ingress, egress) = match self.rules_of(attachment, lease, is_kept) {
                PodRules::Unconcerned => return None,
                PodRules::Unknown => {
                    let reason = if lease.pod.is_some() { PENDING } else { NAMELESS };
                    (pending(reason), pending(reason))
                }
                PodRules::Known(rules) => {
                    (self.direction(&rules.ingress), self.direction(&rules.egress))
                }
            };
            let name = self.port_name(attachment);
            let (attachment, pod) = (attachment.clone(), lease.pod.clone());
            Some(PodPolicies { name, attachment, pod, ingress, egress })
        });
        let (known, statistics) = (&self.model.policies, self.policies.compiler.statistics());
        let file = &self.policies.file;
        let summary = PolicySummary {
            enforced: is_kept || !self.config.policies.is_empty(),
            rule_sets: statistics.rule_sets,
            groups: known.groups().len() + file.groups().len(),
            members: known.count_members()
                + file.groups().values().map(BTreeSet::len).sum::<usize>(),
            subjects: known.subjects().len(),
            tables: statistics.tables,
            linear_tables: statistics.linear,
            bytes: statistics.table_bytes + statistics.prefix_bytes,
            refused: self.refused_rule_sets(),
            // Workers count them.
            ..PolicySummary::default()
        };
        PolicyState { pods: pods.collect(), summary }
    }

    fn direction(&self, ids: &[RuleSetId]) -> DirectionPolicies {
        let (isolation, reason, sets) = match self.policies.compiler.order(ids) {
            Err(reason) => (Isolation::Closed, Some(reason), Vec::new()),
            Ok(sets) if sets.is_empty() => (Isolation::Open, None, sets),
            Ok(sets) => (Isolation::Policies, None, sets),
        };
        let policies = sets.into_iter().map(|set| PolicyEntry {
            policy: set.policy.clone(),
            tier: set.tier,
            rules: set.rules.len(),
        });
        DirectionPolicies { isolation, reason, policies: policies.collect() }
    }

    /// What all policies make of a pod.
    fn rules_of(&self, attachment: &AttachmentId, lease: &Lease, is_kept: bool) -> PodRules<'_> {
        with_file(self.model.pod_rules(lease, is_kept), &self.config.policies, attachment, lease)
    }

    /// The policies of these ports, as the model has them now.
    pub(super) fn compile_policies(&mut self, ports: &BTreeMap<AttachmentId, PodPort>) -> Policies {
        self.follow_policies();
        self.follow_file_policies();
        let is_kept = self.keeps_policies();
        let compiler = &mut self.policies.compiler;
        let known: Vec<_> = compiler.subjects().map(|(pod, _)| pod.clone()).collect();
        for attachment in known.iter().filter(|pod| !ports.contains_key(*pod)) {
            compiler.remove_subject(attachment);
        }
        for attachment in ports.keys() {
            let Some(lease) = self.model.attachments.get(attachment) else { continue };
            let told = self.model.pod_rules(lease, is_kept);
            match with_file(told, &self.config.policies, attachment, lease) {
                PodRules::Unconcerned => compiler.remove_subject(attachment),
                PodRules::Known(rules) => {
                    compiler.set_subject(attachment.clone(), rules.into_owned());
                }
                PodRules::Unknown => {
                    // One whose rule sets were withdrawn is held too.
                    compiler.remove_subject(attachment);
                    compiler.hold(attachment.clone());
                }
            }
        }
        compiler.compile(ports)
    }

    /// The compiler has what the model has.
    pub(crate) fn follow_policies(&mut self) {
        if !self.model.policies.have_changed() {
            return;
        }
        let changed = Arc::make_mut(&mut self.model.policies).take_changed();
        let (known, compiler) = (&self.model.policies, &mut self.policies.compiler);
        for (group, touched) in &changed.members {
            follow_members(compiler, group, touched, known.groups().get(group));
        }
        for id in changed.rule_sets {
            match known.rule_sets().get(&id) {
                None => compiler.remove_rules(&id),
                // What is wrong with it stays with it.
                Some(set) => drop(compiler.set_rules(id, (**set).clone())),
            }
        }
    }
}

impl ControlPlane {
    /// The compiler has the policies of the file, and of each name in them the addresses of those pods.
    pub(crate) fn follow_file_policies(&mut self) {
        let PolicyPlane { compiler, file, .. } = &mut self.policies;
        let ports = self.ports.compiled();
        let has_port = |pod: &AttachmentId| ports.contains_key(pod);
        file.follow(compiler, &self.config.policies, &self.model.attachments, has_port);
    }
}

/// What policies make of a pod that those of the file concern too: they unite with those that were told.
fn with_file<'a>(
    told: PodRules<'a>,
    policies: &[PolicySettings],
    attachment: &AttachmentId,
    lease: &Lease,
) -> PodRules<'a> {
    if policies.is_empty() || told == PodRules::Unknown {
        return told;
    }
    // Any of them may select it.
    if lease.name_is_lost {
        return PodRules::Unknown;
    }
    let mut rules = rules_of_file(policies, &pod_name(attachment, Some(lease)));
    if let PodRules::Known(told) = told {
        rules.ingress.extend_from_slice(&told.ingress);
        rules.egress.extend_from_slice(&told.egress);
    }
    PodRules::Known(Cow::Owned(rules))
}

fn follow_members(
    compiler: &mut Compiler,
    group: &GroupId,
    touched: &BTreeSet<std::net::IpAddr>,
    members: Option<&BTreeSet<std::net::IpAddr>>,
) {
    let is_in = |member: &&std::net::IpAddr| members.is_some_and(|all| all.contains(member));
    let (join, leave): (Vec<_>, Vec<_>) = touched.iter().partition(is_in);
    compiler.change_members(group, &join, &leave);
}

fn answered(refused: Vec<RefusedRuleSet>, notes: Vec<Note>) -> Change {
    let actions = vec![Action::Answer(Reply::SyncedPolicies(refused))];
    Change { actions, notes, failure: OnFailure::Reverse(Rollback::default()) }
}

fn pending(reason: &str) -> DirectionPolicies {
    DirectionPolicies {
        isolation: Isolation::Pending,
        reason: Some(reason.to_owned()),
        policies: Vec::new(),
    }
}
