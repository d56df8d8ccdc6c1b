//! Performers and orders that are wrong on purpose: the rules must find each of them.
//!
//! Enters: a list of actions. Leaves: the same in a wrong order, or without one of them. A performer
//! that does not do what it says is in `world`.

use std::mem::discriminant;

use controlplane::change::Action;

/// One way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The journal says that it has the edits, and has not.
    JournalsNothing,
    /// Clients are answered before the disk has what was written.
    AnswersBeforeSync,
    /// The nftables table is not set.
    SetsNoNftTable,
    /// Workers keep their ports.
    RemovesNoPorts,
    /// What is answered is on disk a moment later.
    JournalsLast,
    /// What is published is on disk a moment later.
    JournalsAfterPublishing,
    /// The client is told at once.
    AnswersFirst,
    /// The NIC gives packets that no worker accepts yet.
    SteersBeforeAccepting,
    /// New tunnels are not accepted before the rest.
    AcceptsNothing,
    /// What is not accepted any more is taken from the NIC for ever.
    NarrowsNoSteering,
    /// Addresses and routes of the host port stay for ever.
    NarrowsNoHostPort,
    /// Ports are closed while tables name them.
    RemovesPortsFirst,
    /// Tables name ports that workers do not have yet.
    PublishesBeforeTakingPorts,
    /// Nothing is published.
    PublishesNothing,
    /// Nobody is called to change pods' MTU.
    CallsNobody,
    /// What is published has the policies of before.
    PublishesFormerPolicies,
}

impl Broken {
    pub(crate) const ALL: [Self; 16] = [
        Self::JournalsNothing,
        Self::AnswersBeforeSync,
        Self::SetsNoNftTable,
        Self::RemovesNoPorts,
        Self::JournalsLast,
        Self::JournalsAfterPublishing,
        Self::AnswersFirst,
        Self::SteersBeforeAccepting,
        Self::AcceptsNothing,
        Self::NarrowsNoSteering,
        Self::NarrowsNoHostPort,
        Self::RemovesPortsFirst,
        Self::PublishesBeforeTakingPorts,
        Self::PublishesNothing,
        Self::CallsNobody,
        Self::PublishesFormerPolicies,
    ];

    /// Makes a list wrong.
    pub(crate) fn spoil(self, actions: &mut Vec<Action>) {
        let is_journal = |action: &Action| matches!(action, Action::Journal { .. });
        let is_steer = |action: &Action| matches!(action, Action::Steer { .. });
        let is_publish = |action: &Action| *action == Action::Publish;
        match self {
            Self::JournalsNothing
            | Self::AnswersBeforeSync
            | Self::SetsNoNftTable
            | Self::RemovesNoPorts
            | Self::PublishesFormerPolicies => {}
            Self::JournalsLast => {
                let at = actions.iter().position(is_journal);
                let journal = at.map(|at| actions.remove(at));
                actions.extend(journal);
            }
            Self::JournalsAfterPublishing => put_behind(actions, is_journal, is_publish),
            Self::AnswersFirst => {
                let at = actions.iter().position(|action| matches!(action, Action::Answer(_)));
                if let Some(at) = at {
                    let answer = actions.remove(at);
                    actions.insert(0, answer);
                }
            }
            Self::SteersBeforeAccepting => {
                put_behind(actions, |action| *action == Action::AcceptTunnels, is_steer);
            }
            Self::AcceptsNothing => actions.retain(|action| *action != Action::AcceptTunnels),
            Self::NarrowsNoSteering => drop_behind_publish(actions, is_steer),
            Self::NarrowsNoHostPort => {
                drop_behind_publish(actions, |action| matches!(action, Action::SetHostPort { .. }))
            }
            Self::RemovesPortsFirst => {
                put_behind(actions, is_publish, |action| matches!(action, Action::RemovePorts(_)));
            }
            Self::PublishesBeforeTakingPorts => {
                put_behind(actions, |action| matches!(action, Action::TakePort { .. }), is_publish)
            }
            Self::PublishesNothing => actions.retain(|action| !is_publish(action)),
            Self::CallsNobody => {
                let call = discriminant(&Action::CallAdjuster { mtu: 0 });
                actions.retain(|action| discriminant(action) != call);
            }
        }
    }
}

/// Puts the first of one kind right behind the first of another.
fn put_behind(
    actions: &mut Vec<Action>,
    is_one: impl Fn(&Action) -> bool,
    is_other: impl Fn(&Action) -> bool,
) {
    let (one, other) = (actions.iter().position(is_one), actions.iter().position(is_other));
    if let (Some(one), Some(other)) = (one, other)
        && one < other
    {
        let action = actions.remove(one);
        actions.insert(other, action);
    }
}

fn drop_behind_publish(actions: &mut Vec<Action>, is_dropped: impl Fn(&Action) -> bool) {
    let mut is_published = false;
    actions.retain(|action| {
        is_published |= *action == Action::Publish;
        !(is_published && is_dropped(action))
    });
}
