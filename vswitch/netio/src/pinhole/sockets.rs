//! The pinhole by packet sockets: each gets copies of what is ours, and the kernel gets none of it.
//!
//! ```text
//!   NIC, received ─┬─ copy ─ the filter of a packet socket: is it ours? ─┬─ yes ─ to us
//!                  │                                                     └─ no ── nothing
//!                  └─ tc: is it ours? ─┬─ no ── the kernel's network stack, as if nothing were there
//!                                      └─ yes ─ dropped: we have it
//! ```
//! A packet meets the sockets before tc (`__netif_receive_skb_core`, net/core/dev.c), so that both are asked.
//! Without the drop the kernel would answer a tunnel packet with "port unreachable", and route what is a
//! pod's a second time. Both programs are of one source and one map of peers. `uplink` alone calls this.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use super::attach::Hook;
use super::bpf::{self, ProgramSlot, ProgramType};
use super::clsact::Classifier;
use super::tc::Attached;
use super::{MadeOf, PeerMap, PinholeFilter, Program, program};
use crate::sys::set_option;
use crate::{Error, Result};

/// The filters of packet sockets, and the program that drops what they take. Dropping it detaches that.
#[derive(Debug)]
pub struct SocketsPinhole {
    filter: SocketFilter,
    made: MadeOf,
    dropping: Dropping,
}

/// A filter that several sockets have, and that is exchanged for all of them at once. The filter of each calls
/// it: the kernel counts what is attached to a socket against net.core.optmem_max, 20 KiB before Linux 6.8,
/// and a program with many prefixes is longer.
#[derive(Debug)]
pub(super) struct SocketFilter {
    slot: ProgramSlot,
    caller: OwnedFd,
}

/// Where the program hangs that drops.
#[derive(Debug)]
enum Dropping {
    /// On a link of bpf(2), which ends with this process: Linux 6.6.
    Link(Attached),
    /// On a classifier, which the kernel keeps until it is removed: for kernels without such links, or where
    /// no link is to be had.
    Classifier { classifier: Classifier, reason: String },
}

/// Which hook of tc is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcWish {
    /// A link where the kernel has it, else a classifier.
    LinkThenClassifier,
    /// A classifier.
    Classifier,
}

impl SocketsPinhole {
    /// Gives sockets that are bound to no protocol yet their filter, and has tc drop what they will take.
    ///
    /// # Errors
    /// If the steering is impossible, or the kernel refuses.
    pub fn attach(
        nic: u32,
        sockets: &[Arc<OwnedFd>],
        steering: &PinholeFilter,
        wish: TcWish,
    ) -> Result<Self> {
        let peers = PeerMap::new(&steering.peers)?;
        let filter = SocketFilter::new(&Program::load_socket_filter(steering, &peers)?)?;
        sockets.iter().try_for_each(|socket| filter.attach_to(socket.as_fd()))?;
        let program = || Program::load_drop(steering, &peers).map(|program| program.fd);
        let link = match wish {
            TcWish::LinkThenClassifier => Attached::new(program()?, nic, Hook::TcIngress),
            TcWish::Classifier => {
                Err(Error::TcAttach { ifindex: nic, source: io::Error::other("none is asked for") })
            }
        };
        let dropping = match link {
            Ok(link) => Dropping::Link(link),
            Err(Error::TcAttach { source, .. }) => Dropping::Classifier {
                classifier: Classifier::attach(program()?, nic)?,
                reason: source.to_string(),
            },
            Err(error) => return Err(error),
        };
        let made = MadeOf { steering: steering.clone(), peers };
        Ok(Self { filter, made, dropping })
    }

    /// Takes something else from now on. What is new is ours first, and then not the kernel's any more:
    /// a packet between the two may reach both.
    ///
    /// # Errors
    /// If the steering is impossible or the NIC is gone; what was taken before may be taken still.
    pub fn update(&mut self, steering: &PinholeFilter) -> Result<()> {
        let Self { filter, made, dropping } = self;
        made.update(steering, |steering, peers| {
            filter.put(&Program::load_socket_filter(steering, peers)?)?;
            let program = Program::load_drop(steering, peers)?.fd;
            match dropping {
                Dropping::Link(attached) => attached.replace(program),
                Dropping::Classifier { classifier, .. } => classifier.replace(program),
            }
        })
    }

    /// Puts the program back that another program detached or replaced; true if so.
    ///
    /// # Errors
    /// If the interface is gone, or the kernel does not answer.
    pub fn settle(&mut self) -> Result<bool> {
        match &mut self.dropping {
            Dropping::Link(attached) => attached.settle(),
            Dropping::Classifier { classifier, .. } => classifier.settle(),
        }
    }

    /// Adds peers again that another program removed from the map; how many.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn restore_peers(&mut self) -> Result<usize> {
        self.made.peers.restore()
    }

    /// Why the program hangs on a classifier, if it does.
    #[must_use]
    pub fn why_classifier(&self) -> Option<&str> {
        match &self.dropping {
            Dropping::Link(_) => None,
            Dropping::Classifier { reason, .. } => Some(reason),
        }
    }
}

/// Removes from an interface what a daemon that was killed has left there on an old kernel: it would keep
/// dropping what was ours.
pub fn remove_leftover(nic: u32) {
    Classifier::remove_leftover(nic);
}

impl SocketFilter {
    pub(super) fn new(program: &Program) -> Result<Self> {
        let slot = ProgramSlot::new()?;
        slot.put(program.fd.as_fd())?;
        let caller = program::assemble_call(slot.as_fd().as_raw_fd());
        Ok(Self { slot, caller: bpf::load(&caller, ProgramType::SocketFilter)? })
    }

    fn put(&self, program: &Program) -> Result<()> {
        self.slot.put(program.fd.as_fd())
    }

    fn attach_to(&self, socket: BorrowedFd<'_>) -> Result<()> {
        let failed = |source| Error::PacketSocket { action: "filter a packet socket", source };
        let caller = self.caller.as_raw_fd();
        set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, caller).map_err(failed)
    }

    /// Whether a socket with this filter gets a frame. The kernel's test run has no Ethernet header for
    /// filters of sockets; to a socket between two processes a frame is what one of them sends.
    pub(super) fn takes(&self, frame: &[u8]) -> io::Result<bool> {
        let (sender, receiver) = UnixDatagram::pair()?;
        receiver.set_nonblocking(true)?;
        self.attach_to(receiver.as_fd()).map_err(io::Error::other)?;
        sender.send(frame)?;
        match receiver.recv(&mut vec![0; frame.len()]) {
            Ok(len) => Ok(len == frame.len()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}
