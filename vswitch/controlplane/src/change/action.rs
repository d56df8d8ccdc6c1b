//! The actions that lists are made of, and what reverses each.

use std::fmt;

use api::Reply;
use dataplane::tables::PortId;

use crate::desired::{HostPortState, NftTable, Steering, Translation};
use crate::model::{Edit, frees};

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write edits to the journal; they are on disk when it is done.
    Journal {
        /// In order.
        edits: Vec<Edit>,
        /// The edits that take them back.
        undo: Vec<Edit>,
    },
    /// Put the nftables table in place of the former, or remove it.
    SetNftTable {
        /// The table that is to be; none at all if absent.
        to: Option<NftTable>,
        /// The table before.
        from: Option<NftTable>,
    },
    /// Give the host port what it is to have, whatever the kernel has.
    SetHostPort {
        /// What it is to have.
        to: HostPortState,
        /// What it was to have before.
        from: HostPortState,
    },
    /// Hand the port that came with the request to every worker.
    TakePort {
        /// Its number.
        id: PortId,
        /// The worker that receives from it, or from each of its queues.
        workers: Vec<usize>,
    },
    /// Ask the kernel for the next hops of all that the tables name.
    LookUpNextHops,
    /// Publish the present tables with the new tunnels: workers accept what may come.
    AcceptTunnels,
    /// Take these packets from the NIC.
    Steer {
        /// What is to be taken.
        to: Steering,
        /// What was taken before.
        from: Steering,
    },
    /// Publish tables without VTEPs and have every worker forget what it learned from them: their
    /// numbers will mean others.
    ForgetVteps,
    /// Publish the tables of the present model; every worker uses them when it is done.
    Publish,
    /// Take ports from every worker; their file descriptors are closed.
    RemovePorts(Vec<PortId>),
    /// Have the kernel translate anew what it has tracked since before a port of the node led to a pod,
    /// or to another.
    ForgetFlows {
        /// Ports that lead to these pods now.
        begun: Vec<Translation>,
        /// Ports that led to these pods.
        ended: Vec<Translation>,
    },
    /// Have the pods' interfaces given another MTU.
    CallAdjuster {
        /// Bytes.
        mtu: u32,
    },
    /// Answer the client.
    Answer(Reply),
}

impl Action {
    /// The action that takes it back, if there is something to take back.
    #[must_use]
    pub fn reversal(&self) -> Option<Self> {
        match self {
            Self::Journal { edits, undo } => {
                Some(Self::Journal { edits: undo.clone(), undo: edits.clone() })
            }
            Self::SetNftTable { to, from } => {
                Some(Self::SetNftTable { to: from.clone(), from: to.clone() })
            }
            Self::SetHostPort { to, from } => {
                Some(Self::SetHostPort { to: from.clone(), from: to.clone() })
            }
            Self::Steer { to, from } => Some(Self::Steer { to: from.clone(), from: to.clone() }),
            Self::TakePort { id, .. } => Some(Self::RemovePorts(vec![*id])),
            // The control plane has gone back by then: its tables are those of before.
            Self::AcceptTunnels | Self::ForgetVteps | Self::Publish => Some(Self::Publish),
            Self::LookUpNextHops
            | Self::RemovePorts(_)
            | Self::ForgetFlows { .. }
            | Self::CallAdjuster { .. }
            | Self::Answer(_) => None,
        }
    }

    /// Whether what follows in a list relies on it: a port must not be closed while a worker has
    /// tables that name it. On the journal a fact does not: nobody was answered.
    pub(super) fn is_relied_upon(&self) -> bool {
        matches!(self, Self::AcceptTunnels | Self::Publish)
    }

    /// Whether it is a request's line that frees what a pod held. The pod is gone, whether or not that
    /// can be written: the line is owed, and written before the next.
    pub(super) fn may_be_owed(&self) -> bool {
        matches!(self, Self::Journal { edits, .. } if frees(edits))
    }

    /// Whether a part of it may be done although it failed, which its reversal takes back.
    pub(super) fn may_be_half_done(&self) -> bool {
        matches!(
            self,
            Self::SetHostPort { .. } | Self::AcceptTunnels | Self::ForgetVteps | Self::Publish
        )
    }

    /// Whether it only takes away what nothing uses any more. A list that has come so far is done:
    /// what stays behind is dropped and counted, and removed by the next comparison.
    pub(super) fn is_clearing_up(&self) -> bool {
        matches!(
            self,
            Self::RemovePorts(_)
                | Self::ForgetFlows { .. }
                | Self::CallAdjuster { .. }
                | Self::Answer(_)
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal { edits, .. } => write!(f, "journal {} edit(s)", edits.len()),
            Self::SetNftTable { to: Some(_), .. } => f.write_str("set the nftables table"),
            Self::SetNftTable { to: None, .. } => f.write_str("remove the nftables table"),
            Self::SetHostPort { to, .. } => write!(
                f,
                "set the host port: MTU {}, {} address(es), {} route(s)",
                to.mtu,
                to.addresses.len(),
                to.routes.len()
            ),
            Self::TakePort { id, workers } => {
                write!(f, "give {id} to the workers, to receive: {workers:?}")
            }
            Self::LookUpNextHops => f.write_str("look up next hops"),
            Self::AcceptTunnels => f.write_str("accept new tunnels"),
            Self::Steer { to, .. } => {
                write!(
                    f,
                    "steer the NIC: {} peer(s), {} prefix(es)",
                    to.peers.len(),
                    to.prefixes.len()
                )
            }
            Self::ForgetVteps => f.write_str("forget VTEPs"),
            Self::Publish => f.write_str("publish"),
            Self::RemovePorts(ids) => {
                write!(f, "remove {} port(s)", ids.len())
            }
            Self::ForgetFlows { begun, ended } => {
                write!(f, "forget flows of {} hostPort(s)", begun.len() + ended.len())
            }
            Self::CallAdjuster { mtu } => write!(f, "call the adjuster for MTU {mtu}"),
            Self::Answer(_) => f.write_str("answer"),
        }
    }
}
