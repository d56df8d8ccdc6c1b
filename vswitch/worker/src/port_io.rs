//! How a worker reads and writes its ports: by io_uring, or by a system call a packet.
//!
//! Enters: what the configuration wants. Leaves: a ring, or none, and the reason, for the log and for
//! `vswitchctl status`. The worker's thread alone calls it, at its start.

use std::fmt;
use std::io;

use dataplane::tables::MAX_PORTS;
use netio::port::{IoCosts, PortRing};

use super::gather::Gather;

/// What the configuration wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PortIo {
    /// What costs less on this machine.
    #[default]
    Auto,
    /// io_uring, unless the kernel refuses.
    IoUring,
    /// A system call a packet.
    ReadWrite,
}

/// What a worker does, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortIoChoice {
    /// Batches go by io_uring.
    pub is_ring: bool,
    /// Why, as a clause.
    pub reason: String,
}

/// Where the configuration has chosen, whatever is cheaper: as soon as there is more than one.
const FORCED_FROM: usize = 2;

/// Chooses for the calling thread.
pub(super) fn choose(wanted: PortIo) -> (Option<Gather>, PortIoChoice) {
    let (from, reason) = match wanted {
        PortIo::ReadWrite => return (None, PortIoChoice::calls("workers.port_io says so".into())),
        PortIo::IoUring => (FORCED_FROM, "workers.port_io says so".to_owned()),
        PortIo::Auto => match IoCosts::measure().map(|costs| (costs, costs.pays_from())) {
            Ok((costs, Some(from))) => (from, measured(&costs, from)),
            Ok((costs, None)) => return (None, PortIoChoice::calls(dearer(&costs))),
            Err(error) => return (None, PortIoChoice::refused(&error)),
        },
    };
    match PortRing::new(MAX_PORTS) {
        Ok(ring) => (Some(Gather::new(ring, from)), PortIoChoice { is_ring: true, reason }),
        Err(error) => (None, PortIoChoice::refused(&error)),
    }
}

impl PortIoChoice {
    /// The name of the way, as the configuration has it.
    #[must_use]
    pub fn by(&self) -> &'static str {
        if self.is_ring { "io_uring" } else { "read_write" }
    }

    fn calls(reason: String) -> Self {
        Self { is_ring: false, reason }
    }

    /// The kernel has no io_uring, or none for this process.
    pub(super) fn refused(error: &io::Error) -> Self {
        Self::calls(format!("io_uring is refused ({error})"))
    }
}

fn measured(costs: &IoCosts, from: usize) -> String {
    let IoCosts { call_ns, batch_ns, .. } = costs;
    format!(
        "from {from} packets on it is cheaper: {batch_ns} ns a read in a batch, {call_ns} ns by a call"
    )
}

fn dearer(costs: &IoCosts) -> String {
    let IoCosts { call_ns, batch_ns, .. } = costs;
    format!("a read takes {call_ns} ns, and {batch_ns} ns in a batch of io_uring")
}

impl fmt::Display for PortIoChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.by(), self.reason)
    }
}
