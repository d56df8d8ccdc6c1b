//! The XDP program on the NIC: a pinhole, so that Linux keeps the rest.
//!
//! Enters: what is ours ([`Steering`]), from the daemon's configuration. Leaves: a program on the
//! NIC that gives just these packets to the AF_XDP sockets in an [`XskMap`], and everything else
//! to the kernel. It is assembled here, instruction by instruction: no compiler, no object file.
//!
//! The program hangs on a `bpf_link`, which the kernel closes with this process however it ends:
//! the node keeps its NIC.

mod asm;
mod bpf;
mod program;
mod too_big;

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use bpf::Hook;
pub use bpf::XskMap;
pub use program::Steering;

use crate::{Error, Result};

/// A program that the kernel has accepted, attached to nothing yet.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
}

/// What the program does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The kernel's network stack has it.
    Pass,
    /// The AF_XDP socket of its queue has it.
    Redirect,
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
    map: XskMap,
    mode: AttachMode,
}

impl Program {
    /// Assembles the program and has the kernel check it.
    ///
    /// # Errors
    /// If the steering is impossible, saying why, or the kernel refuses.
    pub fn load(steering: &Steering, map: &XskMap) -> Result<Self> {
        let instructions = program::assemble(steering, map.as_fd().as_raw_fd())
            .map_err(|reason| Error::Steering { reason })?;
        Ok(Self { fd: bpf::load(&instructions)? })
    }

    /// Asks the kernel what the program does with a frame that arrives on queue 0. Nothing is
    /// sent. A packet that is ours is passed too as long as queue 0 has no socket.
    ///
    /// # Errors
    /// If the frame is shorter than an Ethernet header or longer than a page, less some headroom.
    pub fn run(&self, frame: &[u8]) -> Result<Action> {
        Ok(match bpf::test_run(self.fd.as_fd(), frame)? {
            2 => Action::Pass,
            4 => Action::Redirect,
            other => Action::Other(other),
        })
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
        steering: &Steering,
        wish: AttachWish,
    ) -> Result<Self> {
        let map = XskMap::new(queues)?;
        let program = Program::load(steering, &map)?;
        let attach = |hook| bpf::attach(program.fd.as_fd(), ifindex, hook);
        let busy = |error: &std::io::Error| {
            matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
        };
        let reason = match wish {
            AttachWish::Generic => "generic mode is configured".to_owned(),
            AttachWish::NativeThenGeneric => match attach(Hook::Native) {
                Ok(link) => return Ok(Self { link, map, mode: AttachMode::Native }),
                Err(error) if busy(&error) => return Err(Error::XdpBusy { ifindex }),
                Err(error) => format!("the driver refuses native mode: {error}"),
            },
        };
        match attach(Hook::Generic) {
            Ok(link) => Ok(Self { link, map, mode: AttachMode::Generic { reason } }),
            Err(error) if busy(&error) => Err(Error::XdpBusy { ifindex }),
            Err(source) => Err(Error::XdpAttach { ifindex, native: reason, source }),
        }
    }

    /// Takes something else from now on. One packet meets the old program, the next one the new:
    /// nothing in between.
    ///
    /// # Errors
    /// If the steering is impossible or the interface is gone; the old program then stays.
    pub fn update(&mut self, steering: &Steering) -> Result<()> {
        let program = Program::load(steering, &self.map)?;
        bpf::replace(self.link.as_fd(), program.fd.as_fd())
    }

    /// Which hook was got, and why.
    #[must_use]
    pub fn mode(&self) -> &AttachMode {
        &self.mode
    }

    /// Where the sockets go.
    #[must_use]
    pub fn xsk_map(&self) -> &XskMap {
        &self.map
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Generic { reason } => write!(f, "generic ({reason})"),
        }
    }
}
