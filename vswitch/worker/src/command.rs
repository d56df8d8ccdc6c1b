//! What the control thread asks of a worker.
//!
//! Enters: calls of [`Workers`](crate::Workers). Leaves: a command, which the worker carries out at the beginning of
//! a turn (`turn/commands`).

use std::sync::Arc;

#[cfg(test)]
use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use dataplane::tables::PortId;
use netio::port::PortFd;

use crate::fdb_pages::FdbEntries;
use crate::handoff::{Ring, Way};
use crate::spec::WorkerUplink;

pub(crate) enum Command {
    AddPort {
        id: PortId,
        io: Arc<PortFd>,
        receives: bool,
    },
    RemovePort {
        id: PortId,
    },
    /// Read from a port that this worker has already.
    StartReceiving {
        id: PortId,
    },
    /// Read from a port no more, and tell when nothing of it waits here any longer.
    StopReceiving {
        id: PortId,
        done: Sender<()>,
    },
    ForgetLearned,
    CopyFdb {
        into: FdbEntries,
    },
    ChangeUplink(Box<WorkerUplink>),
    /// Process what another worker hands over by this ring.
    TakeOver {
        ring: Arc<Ring>,
    },
    /// Share packets of IPIP with these workers; the ways are those that are new.
    HandOver {
        members: Vec<usize>,
        ways: Vec<Way>,
    },
    #[cfg(test)]
    Panic,
    #[cfg(test)]
    BreakRing,
    /// Do nothing until the other end of the channel is gone.
    #[cfg(test)]
    Wait(Receiver<()>),
    Stop,
}
