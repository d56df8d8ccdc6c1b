//! Whether a rule set can be compiled.
//!
//! Enters: a rule set of a source, any part of which may be hostile. Leaves: nothing, or what is wrong
//! with it. One that is refused closes its subjects, as a rule that denies might be lost otherwise.

use api::{GroupId, PeerBlock, PolicyPeers, PolicyRule, RuleSet, is_v4};
use dataplane::tables::policy::RuleNumber;
use ipnet::IpNet;
use thiserror::Error;

/// Rules of a rule set at most, and of all that one subject has for a direction.
pub const MAX_RULES: usize = RuleNumber::MAX_RULES;

/// Rule sets of one subject in one direction at most.
pub const MAX_RULE_SETS_OF_A_POD: usize = 4096;

/// Blocks of a rule set at most, their exceptions counted too. Each may take a kilobyte in the table of
/// prefixes.
pub const MAX_BLOCKS: usize = 16_384;

/// Bytes of a group's name at most: the text of its selectors.
pub const MAX_GROUP_NAME: usize = 64 << 10;

/// Bytes of a policy's name at most.
pub const MAX_POLICY_NAME: usize = 1024;

/// Why a rule set is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleSetProblem {
    /// Too many rules.
    #[error(
        "policy {policy} has {rules} rules; {MAX_RULES} are possible: split it, or use endPort"
    )]
    Rules {
        /// Name of the policy.
        policy: String,
        /// Rules that it has.
        rules: usize,
    },
    /// Its name is no policy's.
    #[error("policy {policy}… has a name of {bytes} bytes; {MAX_POLICY_NAME} are possible")]
    Name {
        /// Beginning of the name of the policy.
        policy: String,
        /// Bytes of the whole.
        bytes: usize,
    },
    /// The selectors of a peer are too long.
    #[error(
        "policy {policy}, rule {index}: its selectors have {bytes} bytes; {MAX_GROUP_NAME} are possible"
    )]
    Selectors {
        /// Name of the policy.
        policy: String,
        /// Index of the rule.
        index: u32,
        /// Bytes of the selectors.
        bytes: usize,
    },
    /// Too many blocks.
    #[error(
        "policy {policy} has {blocks} address blocks; {MAX_BLOCKS} are possible: use shorter prefixes"
    )]
    Blocks {
        /// Name of the policy.
        policy: String,
        /// Blocks and exceptions that it has.
        blocks: usize,
    },
    /// An interval of ports whose last is before its first.
    #[error("policy {policy}, rule {index}: the ports {first} to {last} end before they begin")]
    Ports {
        /// Name of the policy.
        policy: String,
        /// Index of the rule.
        index: u32,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// An exception that is not in its block.
    #[error("policy {policy}, rule {index}: the exception {except} is not within {cidr}")]
    Except {
        /// Name of the policy.
        policy: String,
        /// Index of the rule.
        index: u32,
        /// Prefix of the block.
        cidr: IpNet,
        /// The exception.
        except: IpNet,
    },
}

/// Finds the first thing that is wrong with a rule set.
pub(crate) fn judge(set: &RuleSet) -> Result<(), RuleSetProblem> {
    /// Of a name that is too long.
    const SHOWN: usize = 64;
    if set.policy.len() > MAX_POLICY_NAME {
        let policy = set.policy.chars().take(SHOWN).collect();
        return Err(RuleSetProblem::Name { policy, bytes: set.policy.len() });
    }
    let policy = || set.policy.clone();
    if set.rules.len() > MAX_RULES {
        return Err(RuleSetProblem::Rules { policy: policy(), rules: set.rules.len() });
    }
    let count = set.rules.iter().flat_map(blocks).map(|block| 1 + block.except.len()).sum();
    if count > MAX_BLOCKS {
        return Err(RuleSetProblem::Blocks { policy: policy(), blocks: count });
    }
    for rule in &set.rules {
        let index = rule.index;
        if let Some(group) = groups(rule).iter().find(|group| group.0.len() > MAX_GROUP_NAME) {
            let bytes = group.0.len();
            return Err(RuleSetProblem::Selectors { policy: policy(), index, bytes });
        }
        let ports = rule.ports.iter().flatten().filter_map(|ports| ports.ports);
        if let Some((first, last)) = ports.into_iter().find(|(first, last)| first > last) {
            return Err(RuleSetProblem::Ports { policy: policy(), index, first, last });
        }
        for PeerBlock { cidr, except } in blocks(rule) {
            if let Some(except) = except.iter().copied().find(|except| !is_within(except, cidr)) {
                return Err(RuleSetProblem::Except {
                    policy: policy(),
                    index,
                    cidr: *cidr,
                    except,
                });
            }
        }
    }
    Ok(())
}

/// The groups of a rule.
pub(super) fn groups(rule: &PolicyRule) -> &[GroupId] {
    match &rule.peers {
        PolicyPeers::Any => &[],
        PolicyPeers::Of { groups, .. } => groups,
    }
}

/// The blocks of a rule.
pub(super) fn blocks(rule: &PolicyRule) -> &[PeerBlock] {
    match &rule.peers {
        PolicyPeers::Any => &[],
        PolicyPeers::Of { blocks, .. } => blocks,
    }
}

fn is_within(inner: &IpNet, outer: &IpNet) -> bool {
    is_v4(inner) == is_v4(outer) && outer.contains(inner)
}
