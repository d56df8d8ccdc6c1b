//! The program on the NIC: a pinhole, so that Linux keeps the rest.
//!
//! Enters: what is ours ([`PinholeFilter`]), from the daemon's configuration. Leaves: a program on the
//! NIC that takes just these packets, and leaves everything else to the kernel. It is assembled here,
//! instruction by instruction: no compiler, no object file. Of XDP ([`Pinhole`]) it gives them to the
//! AF_XDP sockets in an [`XskMap`], of tc ([`TcPinhole`]) it sends them out by a TAP, superframes whole. As
//! the filter of packet sockets ([`SocketsPinhole`]) it gives them copies, and by tc drops the originals.
//!
//! The program hangs on a `bpf_link`, which the kernel closes with this process however it ends:
//! the node keeps its NIC. Where the kernel is too old for that at tc, it hangs on a classifier.

mod asm;
mod attach;
mod bpf;
mod clsact;
mod packet;
mod peers;
mod program;
pub(crate) mod queue_choice;
mod sockets;
mod steering;
mod tc;
mod too_big;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use attach::Hook;
use bpf::ProgramType;
pub use bpf::XskMap;
pub use peers::PeerMap;
use program::{Destination, Maps};
use sockets::SocketFilter;
pub use sockets::{SocketsPinhole, TcWish, remove_leftover};
pub use steering::PinholeFilter;
pub use tc::TcPinhole;

use crate::{Error, Result};

/// A program that the kernel has accepted, attached to nothing yet.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    kind: ProgramType,
}

/// What the program does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinholeAction {
    /// The kernel's network stack has it.
    Pass,
    /// It is ours: the AF_XDP socket of its queue has it, the other interface, or a packet socket.
    Take,
    /// Anything else, by the kernel's number: never wanted.
    Other(u32),
}

/// Which hooks may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttachWish {
    /// In the driver if it can, else generic.
    #[default]
    NativeThenGeneric,
    /// Generic only.
    Generic,
}

/// Which hook was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// After the kernel made an skb of the frame: slower, but anywhere.
    Generic {
        /// Why not native.
        reason: String,
    },
}

/// The program on a NIC. Dropping it detaches it.
#[derive(Debug)]
pub struct Pinhole {
    link: OwnedFd,
    ifindex: u32,
    /// The kernel's number of the program that the link is to have.
    program_id: u32,
    sockets: XskMap,
    made: MadeOf,
    mode: AttachMode,
}

/// What a program was made of.
#[derive(Debug)]
struct MadeOf {
    /// Its peers are those of the map.
    steering: PinholeFilter,
    peers: PeerMap,
}

impl Program {
    /// Assembles the program of XDP and has the kernel check it. Its peers are those that the map has
    /// and will have, whatever the steering has of them.
    ///
    /// # Errors
    /// If the steering is impossible, with the reason, or the kernel refuses.
    pub fn load(steering: &PinholeFilter, sockets: &XskMap, peers: &PeerMap) -> Result<Self> {
        let sockets = Destination::Sockets(sockets.as_fd().as_raw_fd());
        Self::assemble(steering, sockets, peers, ProgramType::Xdp)
    }

    /// The same of tc, for packets that go out by the interface of that index.
    ///
    /// # Errors
    /// As for `load`.
    pub fn load_tc(steering: &PinholeFilter, ifindex: u32, peers: &PeerMap) -> Result<Self> {
        Self::assemble(steering, Destination::Interface(ifindex), peers, ProgramType::Tc)
    }

    /// The same as the filter of a packet socket, which gets a copy of what is ours.
    ///
    /// # Errors
    /// As for `load`.
    pub fn load_socket_filter(steering: &PinholeFilter, peers: &PeerMap) -> Result<Self> {
        Self::assemble(steering, Destination::Reader, peers, ProgramType::SocketFilter)
    }

    /// The same of tc, which drops what is ours.
    ///
    /// # Errors
    /// As for `load`.
    pub fn load_drop(steering: &PinholeFilter, peers: &PeerMap) -> Result<Self> {
        Self::assemble(steering, Destination::Nowhere, peers, ProgramType::Tc)
    }

    fn assemble(
        steering: &PinholeFilter,
        destination: Destination,
        peers: &PeerMap,
        kind: ProgramType,
    ) -> Result<Self> {
        let instructions = program::assemble(steering, destination, Maps::new(peers))
            .map_err(|reason| Error::PinholeFilter { reason })?;
        Ok(Self { fd: bpf::load(&instructions, kind)?, kind })
    }

    /// Asks the kernel what the program does with a frame that arrives on queue 0. Nothing is
    /// sent. A packet that is ours is passed too as long as queue 0 has no socket.
    ///
    /// # Errors
    /// If the frame is shorter than an Ethernet header or longer than a page, less some headroom.
    pub fn run(&self, frame: &[u8]) -> Result<PinholeAction> {
        const TCX_NEXT: u32 = packet::TCX_NEXT.cast_unsigned();
        const TCX_DROP: u32 = packet::TCX_DROP.cast_unsigned();
        if self.kind == ProgramType::SocketFilter {
            let is_taken = SocketFilter::new(self)?.takes(frame);
            let is_taken = is_taken
                .map_err(|source| Error::PacketSocket { action: "run a filter", source })?;
            return Ok(if is_taken { PinholeAction::Take } else { PinholeAction::Pass });
        }
        Ok(match (self.kind, bpf::test_run(self.fd.as_fd(), frame)?) {
            (ProgramType::Xdp, 2) | (ProgramType::Tc, TCX_NEXT) => PinholeAction::Pass,
            (ProgramType::Xdp, 4) | (ProgramType::Tc, 7 | TCX_DROP) => PinholeAction::Take,
            (_, other) => PinholeAction::Other(other),
        })
    }
}

impl MadeOf {
    /// Takes something else from now on: `replace` puts a program of this steering and these peers in
    /// the place of the former. Peers come and go one by one: those that come before the program is
    /// replaced, those that go after it.
    fn update(
        &mut self,
        steering: &PinholeFilter,
        mut replace: impl FnMut(&PinholeFilter, &PeerMap) -> Result<()>,
    ) -> Result<()> {
        if self.peers.has_room_for(&steering.peers) {
            self.peers.add(&steering.peers)?;
            if !steering.is_same_program(&self.steering) {
                replace(steering, &self.peers)?;
            }
        } else {
            // The old map goes with the old program.
            let peers = PeerMap::new(&steering.peers)?;
            replace(steering, &peers)?;
            self.peers = peers;
        }
        self.steering.clone_from(steering);
        self.peers.retain(&steering.peers)
    }
}

impl Pinhole {
    /// Puts the program on an interface of the calling thread's namespace, with room for the
    /// sockets of so many queues.
    ///
    /// # Errors
    /// If another XDP program is there already, which is never replaced; if the steering is
    /// impossible; if neither hook can be had.
    pub fn attach(
        ifindex: u32,
        queues: u32,
        steering: &PinholeFilter,
        wish: AttachWish,
    ) -> Result<Self> {
        let sockets = XskMap::new(queues)?;
        let peers = PeerMap::new(&steering.peers)?;
        let program = Program::load(steering, &sockets, &peers)?;
        let program_id = attach::program_id(program.fd.as_fd())?;
        let made = MadeOf { steering: steering.clone(), peers };
        let attached = |link, mode| Self { link, ifindex, program_id, sockets, made, mode };
        let attach = |hook| attach::attach(program.fd.as_fd(), ifindex, hook);
        let reason = match wish {
            AttachWish::Generic => "generic mode is configured".to_owned(),
            AttachWish::NativeThenGeneric => match attach(Hook::XdpNative) {
                Ok(link) => return Ok(attached(link, AttachMode::Native)),
                Err(error) if is_busy(&error) => return Err(Error::XdpBusy { ifindex }),
                Err(error) => format!("the driver refuses native mode: {error}"),
            },
        };
        match attach(Hook::XdpGeneric) {
            Ok(link) => Ok(attached(link, AttachMode::Generic { reason })),
            Err(error) if is_busy(&error) => Err(Error::XdpBusy { ifindex }),
            Err(source) => Err(Error::XdpAttach { ifindex, native: reason, source }),
        }
    }

    /// Takes something else from now on. One packet meets the old program, the next one the new:
    /// nothing in between.
    ///
    /// # Errors
    /// If the steering is impossible or the interface is gone; the old program then stays, but
    /// peers may have been added or removed.
    pub fn update(&mut self, steering: &PinholeFilter) -> Result<()> {
        let Self { link, program_id, sockets, made, .. } = self;
        made.update(steering, |steering, peers| {
            let program = Program::load(steering, sockets, peers)?;
            attach::replace(link.as_fd(), program.fd.as_fd())?;
            *program_id = attach::program_id(program.fd.as_fd())?;
            Ok(())
        })
    }

    fn replace(&mut self, program: &Program) -> Result<()> {
        attach::replace(self.link.as_fd(), program.fd.as_fd())?;
        self.program_id = attach::program_id(program.fd.as_fd())?;
        Ok(())
    }

    /// Whether the interface still has our program: another program may detach it by its link's
    /// number, or put another in its place.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn is_in_place(&self) -> Result<bool> {
        Ok(attach::attached_to(self.link.as_fd())? == (self.ifindex, self.program_id))
    }

    /// Adds peers again that another program removed from the program's map; how many. The map of the
    /// sockets cannot be compared: the kernel does not let a XSKMAP be read.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn restore_peers(&mut self) -> Result<usize> {
        self.made.peers.restore()
    }

    /// Puts our program back, with its maps and so with its sockets.
    ///
    /// # Errors
    /// If another XDP program is there by now, or the interface is gone.
    pub fn put_back(&mut self) -> Result<()> {
        let MadeOf { steering, peers } = &self.made;
        let program = Program::load(steering, &self.sockets, peers)?;
        let (ifindex, _) = attach::attached_to(self.link.as_fd())?;
        if ifindex == self.ifindex {
            return self.replace(&program);
        }
        let hook = match self.mode {
            AttachMode::Native => Hook::XdpNative,
            AttachMode::Generic { .. } => Hook::XdpGeneric,
        };
        let attached = attach::attach(program.fd.as_fd(), self.ifindex, hook);
        let ifindex = self.ifindex;
        self.link = attached.map_err(|source| match is_busy(&source) {
            true => Error::XdpBusy { ifindex },
            false => Error::XdpAttach { ifindex, native: "it was detached".to_owned(), source },
        })?;
        self.program_id = attach::program_id(program.fd.as_fd())?;
        Ok(())
    }

    /// Which hook was got, and why.
    #[must_use]
    pub fn mode(&self) -> &AttachMode {
        &self.mode
    }

    /// Where the sockets go.
    #[must_use]
    pub fn xsk_map(&self) -> &XskMap {
        &self.sockets
    }
}

/// Whether another program has the hook.
fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Generic { reason } => write!(f, "generic ({reason})"),
        }
    }
}
