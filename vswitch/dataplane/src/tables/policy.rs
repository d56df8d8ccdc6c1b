//! Which connections of a pod policies allow.
//!
//! Enters: rule tables, compiled by `controlplane::policy`. Leaves: a [`Judgement`] of a peer's
//! address, protocol and port, to the walk, once a connection.
//!
//! ```text
//! peer's address -- longest prefix --> class -- the subject's table --> row
//! protocol, port --------------------------------- binary search in it --> judgement
//! ```
//!
//! Addresses are of one class if the same groups and blocks contain them, whatever rules are made of
//! these. So a pod that joins a known class changes the prefixes alone, which all subjects share, and
//! no subject's table.
//!
//! | file | holds |
//! |---|---|
//! | `classes` | the class of an address, and the peer sets that contain a class |
//! | `ports`   | the order of protocols and ports |
//! | `matrix`  | the rules of a subject, worked out for each class and port |
//! | `rules`   | the rules themselves, to be gone through: where a matrix would be too large |
//! | `index`   | those of them that match a peer |

mod classes;
mod index;
mod matrix;
mod ports;
mod rules;

use core::fmt;
use core::net::IpAddr;
use std::sync::Arc;

use super::PortId;
use crate::wire::Protocol;
pub use classes::{ClassId, ClassSets, Classes, PeerSetId};
pub use matrix::{Interval, Matrix};
pub use ports::{PortKey, PortSpan};
pub use rules::{Action, Rule, RulePeers, Rules};

/// The direction of a connection's first packet, as the subject sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To the subject; the peer is the source.
    Ingress,
    /// From the subject; the peer is the destination.
    Egress,
}

/// Number of a rule in the table of its subject and direction, in the order of evaluation. It means
/// nothing in another table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleNumber(pub u16);

impl RuleNumber {
    /// No rule decided: the default did.
    pub const NONE: Self = Self(0x7fff);
    /// Rules in a table at most: numbers have 15 bits, and the last is [`Self::NONE`].
    pub const MAX_RULES: usize = Self::NONE.0 as usize;
}

/// What policies make of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Judgement {
    /// Whether it may be.
    pub allowed: bool,
    /// The rule that decided.
    pub rule: RuleNumber,
}

impl Judgement {
    /// Allowed, as no rule says otherwise.
    pub const ALLOWED: Self = Self { allowed: true, rule: RuleNumber::NONE };
    /// Denied, as no rule allows it.
    pub const DENIED: Self = Self { allowed: false, rule: RuleNumber::NONE };
}

/// A rule as people know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleName<'a> {
    /// Namespace and name of the policy, `shop/web-to-db`.
    pub policy: &'a str,
    /// Index of the rule in the policy's list.
    pub index: u32,
}

impl fmt::Display for RuleName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rule {}", self.policy, self.index)
    }
}

/// The policies of a subject for one direction.
#[derive(Debug, Clone, Default)]
pub enum DirectionPolicy {
    /// No policy concerns it: everything is allowed.
    #[default]
    Open,
    /// The policies are not known yet: everything is denied.
    Pending,
    /// The policies cannot be compiled: everything is denied.
    Closed,
    /// By these rules.
    Rules(Arc<RuleTable>),
}

/// The policies of a subject.
#[derive(Debug, Clone, Default)]
pub struct SubjectPolicies {
    /// Connections to it.
    pub ingress: DirectionPolicy,
    /// Connections from it.
    pub egress: DirectionPolicy,
}

/// The rules of one or more subjects for one direction.
#[derive(Debug)]
pub struct RuleTable {
    form: Form,
    /// Policies in the order of their rules, each with its first rule's number.
    policies: Box<[(u16, Arc<str>)]>,
    /// Index in its policy of each rule.
    indexes: Box<[u32]>,
}

#[derive(Debug)]
enum Form {
    Matrix(Matrix),
    Linear(Arc<Rules>),
}

impl RuleTable {
    /// A table that is looked up. `policies` are the names in the order of the rules, each with the
    /// number of its first rule; one without rules has that of the next. `indexes` are the rules'
    /// indexes in their policies.
    #[must_use]
    pub fn matrix(matrix: Matrix, policies: &[(u16, Arc<str>)], indexes: &[u32]) -> Self {
        Self { form: Form::Matrix(matrix), policies: policies.into(), indexes: indexes.into() }
    }

    /// A table whose rules are gone through, one after the other, as far as they match the peer.
    #[must_use]
    pub fn linear(rules: Arc<Rules>, policies: &[(u16, Arc<str>)], indexes: &[u32]) -> Self {
        Self { form: Form::Linear(rules), policies: policies.into(), indexes: indexes.into() }
    }

    /// Whether its rules are gone through, one after the other.
    #[must_use]
    pub fn is_linear(&self) -> bool {
        matches!(self.form, Form::Linear(_))
    }

    /// The policies that concern the subject in this direction, in the order of evaluation.
    pub fn policies(&self) -> impl Iterator<Item = &str> {
        self.policies.iter().map(|(_, name)| &**name)
    }

    /// The rule of this number; `None` if no rule decided.
    #[must_use]
    pub fn rule(&self, number: RuleNumber) -> Option<RuleName<'_>> {
        let index = *self.indexes.get(usize::from(number.0))?;
        // Of policies that begin with the same rule only the last has it.
        let behind = self.policies.partition_point(|(first, _)| *first <= number.0);
        let (_, policy) = self.policies.get(behind.checked_sub(1)?)?;
        Some(RuleName { policy, index })
    }

    /// Memory in use, bytes; rules that are gone through belong to the compiler too.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let names = size_of_val(&*self.policies) + size_of_val(&*self.indexes);
        names
            + match &self.form {
                Form::Matrix(matrix) => matrix.size_bytes(),
                Form::Linear(_) => 0,
            }
    }
}

/// The policies of all subjects of the node. A copy shares everything.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    generation: u32,
    classes: Arc<Classes>,
    class_sets: Arc<ClassSets>,
    subjects: Arc<[SubjectPolicies]>,
}

impl Policies {
    /// The policies of the subjects, by [`PortId`]. `class_sets` may be empty if no table is linear.
    #[must_use]
    pub fn new(
        generation: u32,
        classes: Arc<Classes>,
        class_sets: Arc<ClassSets>,
        subjects: Arc<[SubjectPolicies]>,
    ) -> Self {
        Self { generation, classes, class_sets, subjects }
    }

    /// Changes whenever a judgement may; it wraps.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The policies of the pod behind this port.
    #[inline]
    #[must_use]
    pub fn of(&self, subject: PortId, direction: Direction) -> &DirectionPolicy {
        let subject = self.subjects.get(usize::from(subject.0));
        subject.map_or(&DirectionPolicy::Open, |subject| match direction {
            Direction::Ingress => &subject.ingress,
            Direction::Egress => &subject.egress,
        })
    }

    /// Whether there are none: no connection is judged.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// Whether the subject's connections of this direction are judged.
    #[inline]
    #[must_use]
    pub fn concern_direction(&self, subject: PortId, direction: Direction) -> bool {
        !matches!(self.of(subject, direction), DirectionPolicy::Open)
    }

    /// Whether any connection of the subject is judged.
    #[inline]
    #[must_use]
    pub fn concern(&self, subject: PortId) -> bool {
        let subject = self.subjects.get(usize::from(subject.0));
        subject.is_some_and(|subject| {
            let is_open = |policy: &DirectionPolicy| matches!(policy, DirectionPolicy::Open);
            !is_open(&subject.ingress) || !is_open(&subject.egress)
        })
    }

    /// Judges a connection between the pod behind this port and a peer. `destination_port` is that of
    /// the connection's first packet, and `None` where the protocol has no ports or the packet does
    /// not show them: only rules for all ports match then.
    #[inline]
    #[must_use]
    pub fn judge(
        &self,
        subject: PortId,
        direction: Direction,
        peer: IpAddr,
        protocol: Protocol,
        destination_port: Option<u16>,
    ) -> Judgement {
        let table = match self.of(subject, direction) {
            DirectionPolicy::Open => return Judgement::ALLOWED,
            DirectionPolicy::Pending | DirectionPolicy::Closed => return Judgement::DENIED,
            DirectionPolicy::Rules(table) => table,
        };
        let class = self.classes.of(peer);
        let key = PortKey::new(protocol, destination_port);
        match &table.form {
            Form::Matrix(matrix) => matrix.judge(class, key),
            Form::Linear(rules) => rules.judge(self.class_sets.of(class), key),
        }
    }

    /// The name of a rule that judged.
    #[must_use]
    pub fn rule(
        &self,
        subject: PortId,
        direction: Direction,
        number: RuleNumber,
    ) -> Option<RuleName<'_>> {
        match self.of(subject, direction) {
            DirectionPolicy::Rules(table) => table.rule(number),
            DirectionPolicy::Open | DirectionPolicy::Pending | DirectionPolicy::Closed => None,
        }
    }

    /// Memory of what all subjects share, bytes; each table has its own size.
    #[must_use]
    pub fn shared_bytes(&self) -> usize {
        self.classes.size_bytes() + self.class_sets.size_bytes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
