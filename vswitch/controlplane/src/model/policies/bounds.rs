//! How much a source may tell of policies.
//!
//! Enters: a part of a change, or all that would be known after one. Leaves: nothing, or what there is too
//! much of: a source that obeys its own bounds never meets these. Names are Kubernetes' own, so that no user
//! of a cluster can make them too long. What a user can make too large costs nobody else anything: a rule set
//! is refused by `policy::judge`, and a pod that too many policies select is closed by the compiler.

use api::{ErrorKind, ErrorReply, PolicySync};

use super::PolicyInputs;
use crate::model::refuse;
use crate::policy::FILE_NAMES;

/// Bytes of a rule set's name at most: those of its policy, and its subjects' ports.
const MAX_RULE_SET_NAME: usize = 4096;
/// Bytes of a namespace's or a pod's name at most: RFC 1123 allows 253.
pub(super) const MAX_POD_NAME: usize = 253;
/// Bytes of a pod's UID at most; a UUID has 36.
const MAX_UID: usize = 128;
/// Pods whose rule sets are known, at most; a node has ports for a quarter of them.
const MAX_SUBJECTS: usize = 4096;
/// Rule sets at most.
const MAX_RULE_SETS: usize = 65_536;
/// Groups with members at most.
const MAX_GROUPS: usize = 65_536;
/// Members of all groups at most, some 100 bytes each with all that is made of them.
const MAX_MEMBERS: usize = 4_000_000;

/// Whether there is no more of anything than is possible.
///
/// # Errors
/// What there is too much of.
pub(crate) fn check_totals(known: &PolicyInputs) -> Result<(), ErrorReply> {
    let totals = [
        ("groups", known.groups.len(), MAX_GROUPS),
        ("members of groups", known.members, MAX_MEMBERS),
        ("rule sets", known.rule_sets.len(), MAX_RULE_SETS),
        ("pods", known.subjects.len(), MAX_SUBJECTS),
    ];
    match totals.iter().find(|(_, count, most)| count > most) {
        None => Ok(()),
        Some((what, count, most)) => Err(refuse(
            ErrorKind::Exhausted,
            format!(
                "policies: there would be {count} {what}; {most} are possible, and all stays as it was"
            ),
        )),
    }
}

/// Whether the names of a part can be.
///
/// # Errors
/// The first that cannot.
pub(crate) fn check_names(sync: &PolicySync) -> Result<(), ErrorReply> {
    let check = |what: &str, text: &str, most: usize| {
        if (1..=most).contains(&text.len()) {
            return Ok(());
        }
        let len = text.len();
        let message = format!("policies: the {what} has {len} bytes; 1 to {most} are possible");
        Err(refuse(ErrorKind::Invalid, message))
    };
    let pods = sync.subjects.iter().map(|subject| &subject.pod).chain(&sync.gone_subjects);
    for pod in pods {
        check("name of a pod's namespace", &pod.namespace, MAX_POD_NAME)?;
        check("name of a pod", &pod.name, MAX_POD_NAME)?;
        pod.uid.as_deref().map_or(Ok(()), |uid| check("UID of a pod", uid, MAX_UID))?;
    }
    let named = sync.subjects.iter().flat_map(|of| of.rules.ingress.iter().chain(&of.rules.egress));
    let sets = sync.rule_sets.iter().map(|named| &named.id);
    for id in named.chain(sets).chain(&sync.gone_rule_sets) {
        check("name of a rule set", &id.0, MAX_RULE_SET_NAME)?;
    }
    let sets = sync.rule_sets.iter().map(|named| &named.id.0);
    let groups = sync.groups.iter().map(|change| &change.group.0);
    if sets.chain(groups).any(|name| name.starts_with(FILE_NAMES)) {
        let message = format!(
            "policies: the name of a group or rule set begins with {FILE_NAMES}, as only those of [[policies]] do"
        );
        return Err(refuse(ErrorKind::Invalid, message));
    }
    Ok(())
}
