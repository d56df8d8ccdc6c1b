//! Which of a port's queues the kernel gives packets to.
//!
//! Enters: the descriptors of a port's queues, and how many are to be read. Leaves: as many queues that are
//! attached, and each flow in one of them. The control thread calls it, before workers have the port.

use std::os::fd::AsFd;

use super::{PortFd, PortFdKind};
use crate::pinhole::queue_choice::QueueChoice;
use crate::{Error, Result};

/// How many queues the kernel gives packets to.
#[derive(Debug)]
pub struct Spread {
    /// The first so many.
    pub queues: usize,
    /// Why it is one, although more were to be read.
    pub refusal: Option<Error>,
}

/// Has the kernel give packets to the first `readers` of the queues of one TAP and to no others: what is given to
/// one that nobody reads is lost. Where the kernel does not take the program by which it would keep a flow in one
/// queue, there is one: order matters more than speed. A socketpair's other end chooses by itself.
///
/// # Errors
/// If a queue cannot be detached, so that packets would be lost in it, or the first one not be attached.
pub fn spread(queues: &[&PortFd], readers: usize) -> Result<Spread> {
    let wanted = readers.clamp(1, queues.len().max(1));
    let refusal = if wanted > 1 { choose_and_attach(queues, wanted).err() } else { None };
    let attached = if refusal.is_some() { 1 } else { wanted };
    if queues.len() > 1 || queues.iter().any(|queue| queue.is_multi_queue()) {
        for (number, queue) in queues.iter().enumerate() {
            queue.set_attached(number < attached)?;
        }
    }
    Ok(Spread { queues: attached, refusal })
}

/// The choice comes first: without it the kernel would move flows between the queues.
fn choose_and_attach(queues: &[&PortFd], count: usize) -> Result<()> {
    if let Some(tap) = queues.iter().find(|queue| queue.kind == PortFdKind::Tap) {
        let choice = QueueChoice::load()?;
        tap::queues::choose_by(tap.file.as_fd(), choice.as_fd())?;
    }
    queues.iter().take(count).try_for_each(|queue| queue.set_attached(true))
}

impl PortFd {
    /// Whether it is a queue of a TAP that was made for several.
    #[must_use]
    pub fn is_multi_queue(&self) -> bool {
        self.kind == PortFdKind::Tap
            && tap::queues::is_multi_queue(self.file.as_fd()).unwrap_or(false)
    }

    /// Whether both are of one device, as far as the kernel tells; of socketpairs it tells nothing.
    #[must_use]
    pub fn is_of_same_device(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.name() == other.name()
            && self.namespace() == other.namespace()
    }

    fn set_attached(&self, is_wanted: bool) -> Result<()> {
        match self.kind {
            PortFdKind::Tap => Ok(tap::queues::set_attached(self.file.as_fd(), is_wanted)?),
            PortFdKind::Seqpacket => Ok(()),
        }
    }
}
