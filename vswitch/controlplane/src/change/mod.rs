//! A change is a list of actions.
//!
//! Enters: an event, at [`ControlPlane::on`]. Leaves: a [`Change`]: what is to be done, in order, and
//! how the control plane goes back if one of the actions of a request fails. `perform` carries a list
//! out by way of a [`Performer`]: `vswitchd` on a node, a model of one in the simulator.
//!
//! The order is make before break: whatever a packet may need is there before the first packet can
//! need it, and goes after the last one did.
//!
//! | action | why it stands there |
//! |---|---|
//! | journal         | what is answered is on disk, so that a crash loses nothing that was answered |
//! | nftables table  | what new pods send to the world is masqueraded from their first packet |
//! | host port, widened | the kernel has addresses and routes for the new beside those for the old |
//! | take the port   | tables that name a port are published when every worker can send by it |
//! | look up         | tables have the next hops of new peers, as far as the kernel knows them |
//! | accept tunnels, then steer | before anything is sent another way, what may come back that way is accepted: by the workers first, then by the NIC, which never gives them what they do not know |
//! | forget VTEPs    | only where VTEPs change: what was learned from them names numbers that will mean others |
//! | publish         | every worker forwards by the new tables when this is done |
//! | remove ports    | a port is closed when no worker has tables that name it |
//! | steer, narrowed | what no table accepts any more is the kernel's again |
//! | host port, narrowed | likewise for addresses and routes |
//! | nftables table, narrowed | likewise for hostPorts of pods that are gone |
//! | forget flows | what the kernel tracks by the former table is translated by the present one |
//! | call the adjuster | pods' interfaces get their other MTU, where it changed |
//! | answer          | last: what it reports is so |
//!
//! [`ControlPlane::on`]: crate::plane::ControlPlane::on

mod action;
mod perform;

pub use action::Action;
pub use perform::{Performed, Performer};

use crate::config::{Config, Former};
use crate::kernel::Follower;
use crate::model::{Edit, Model, Refused};
use crate::next_hop::NextHops;
use crate::ports::Ports;

/// What an event comes to.
#[derive(Debug)]
pub struct Change {
    /// What is to be done, in order.
    pub actions: Vec<Action>,
    /// What the log has of it once it is done.
    pub notes: Vec<Note>,
    pub(crate) failure: OnFailure,
}

/// What becomes of the rest if an action fails.
#[derive(Debug)]
pub(crate) enum OnFailure {
    /// A request: what was done is reversed, the control plane goes back, the client is refused.
    Reverse(Rollback),
    /// A fact, such as another MTU of the uplink: it is logged and the list goes on, unless what
    /// follows depends on the action that failed.
    GoOn,
}

/// What the control plane was before.
#[derive(Debug, Default)]
pub(crate) struct Rollback {
    /// Edits that take the model back.
    pub(crate) undo: Vec<Edit>,
    /// The ports, if they changed.
    pub(crate) ports: Option<Ports>,
    /// The refused peers, if they changed.
    pub(crate) refused: Option<Refused>,
    /// What a reload replaces.
    pub(crate) reloaded: Option<Box<Reloaded>>,
    /// What was wrong with MTUs, and was said.
    pub(crate) mtu_notes: Option<Vec<String>>,
    /// The ways to those other nodes that there were.
    pub(crate) next_hops: Option<NextHops>,
}

/// What a reload replaces.
#[derive(Debug)]
pub(crate) struct Reloaded {
    pub(crate) config: Config,
    pub(crate) model: Model,
    pub(crate) former: Former,
    /// If that was replaced, too.
    pub(crate) follower: Option<Option<Follower>>,
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How much attention it wants.
    pub level: Level,
    /// The sentence.
    pub text: String,
}

/// How much attention a [`Note`] wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It is worth knowing.
    Info,
    /// An operator should look.
    Warning,
    /// Something does not work.
    Error,
}

impl Note {
    /// A note that is worth knowing.
    pub fn info(text: impl Into<String>) -> Self {
        Self { level: Level::Info, text: text.into() }
    }

    /// A note that an operator should look at.
    pub fn warning(text: impl Into<String>) -> Self {
        Self { level: Level::Warning, text: text.into() }
    }

    /// A note that something does not work.
    pub fn error(text: impl Into<String>) -> Self {
        Self { level: Level::Error, text: text.into() }
    }
}
