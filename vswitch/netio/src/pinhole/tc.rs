//! The pinhole by tc: packets of the kernel's go from the NIC to a TAP, and from the TAP to the NIC.
//!
//! ```text
//!   NIC, received ─ is it ours? ─┬─ no ── the kernel's network stack, as if nothing were there
//!                                └─ yes ─ out by the TAP, where we read it
//!   TAP, to be sent ─ did the NIC receive it? ─┬─ yes ─ to us
//!                                              └─ no ── dropped: the kernel's own is none of ours
//!   TAP, received ─ what we wrote ─ out by the NIC, through its queueing discipline
//! ```
//! Superframes pass whole, as far as the interface that they leave by takes them: the kernel cuts them
//! otherwise. Each program is the first at its hook, and leaves to the others what it does not take.
//! `uplink` alone calls this.

use std::os::fd::{AsFd, OwnedFd};

use super::attach::{self, Hook};
use super::bpf::{self, ProgramType};
use super::{MadeOf, PeerMap, PinholeFilter, Program, program};
use crate::{Error, Result};

/// The programs between a NIC and a TAP. Dropping it detaches them.
#[derive(Debug)]
pub struct TcPinhole {
    nic: u32,
    tap: u32,
    made: MadeOf,
    from_nic: Attached,
    to_us: Attached,
    from_us: Attached,
}

/// A program at a hook. Dropping it detaches it.
#[derive(Debug)]
pub(super) struct Attached {
    program: OwnedFd,
    /// The kernel's number of it.
    id: u32,
    link: OwnedFd,
    ifindex: u32,
    hook: Hook,
}

impl TcPinhole {
    /// Connects a NIC and a TAP of the calling thread's namespace, by their indices.
    ///
    /// # Errors
    /// If the steering is impossible, or the kernel refuses: it needs CONFIG_NET_XGRESS.
    pub fn attach(nic: u32, tap: u32, steering: &PinholeFilter) -> Result<Self> {
        let peers = PeerMap::new(&steering.peers)?;
        let (to_us, from_us) = ends(nic, tap)?;
        let filter = Program::load_tc(steering, tap, &peers)?;
        let from_nic = Attached::new(filter.fd, nic, Hook::TcIngress)?;
        let made = MadeOf { steering: steering.clone(), peers };
        Ok(Self { nic, tap, made, from_nic, to_us, from_us })
    }

    /// Takes something else from now on. One packet meets the old program, the next one the new:
    /// nothing in between.
    ///
    /// # Errors
    /// If the steering is impossible or the NIC is gone; the old program then stays, but peers may have
    /// been added or removed.
    pub fn update(&mut self, steering: &PinholeFilter) -> Result<()> {
        let Self { made, from_nic, tap, .. } = self;
        made.update(steering, |steering, peers| {
            from_nic.replace(Program::load_tc(steering, *tap, peers)?.fd)
        })
    }

    /// Puts back what another program detached or replaced; true if something was missing.
    ///
    /// # Errors
    /// If an interface is gone, or the kernel does not answer.
    pub fn settle(&mut self) -> Result<bool> {
        let mut missing = false;
        for attached in [&mut self.to_us, &mut self.from_us, &mut self.from_nic] {
            missing |= attached.settle()?;
        }
        Ok(missing)
    }

    /// Connects the NIC to another TAP: the former is gone.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn change_tap(&mut self, tap: u32) -> Result<()> {
        (self.to_us, self.from_us) = ends(self.nic, tap)?;
        let MadeOf { steering, peers } = &self.made;
        self.from_nic.replace(Program::load_tc(steering, tap, peers)?.fd)?;
        self.tap = tap;
        Ok(())
    }

    /// Adds peers again that another program removed from the program's map; how many.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn restore_peers(&mut self) -> Result<usize> {
        self.made.peers.restore()
    }
}

/// Both ends of the TAP: what it sends to us, and what it receives from us.
fn ends(nic: u32, tap: u32) -> Result<(Attached, Attached)> {
    let to_us = bpf::load(&program::assemble_only_from(nic), ProgramType::Tc)?;
    let from_us = bpf::load(&program::assemble_redirect(nic), ProgramType::Tc)?;
    Ok((Attached::new(to_us, tap, Hook::TcEgress)?, Attached::new(from_us, tap, Hook::TcIngress)?))
}

impl Attached {
    pub(super) fn new(program: OwnedFd, ifindex: u32, hook: Hook) -> Result<Self> {
        let id = attach::program_id(program.as_fd())?;
        let link = link(&program, ifindex, hook)?;
        Ok(Self { program, id, link, ifindex, hook })
    }

    pub(super) fn replace(&mut self, program: OwnedFd) -> Result<()> {
        attach::replace(self.link.as_fd(), program.as_fd())?;
        self.id = attach::program_id(program.as_fd())?;
        self.program = program;
        Ok(())
    }

    /// Puts it back if it is not there; true if so.
    pub(super) fn settle(&mut self) -> Result<bool> {
        let (ifindex, id) = attach::attached_to(self.link.as_fd())?;
        if (ifindex, id) == (self.ifindex, self.id) {
            return Ok(false);
        }
        if ifindex == self.ifindex {
            attach::replace(self.link.as_fd(), self.program.as_fd())?;
        } else {
            self.link = link(&self.program, self.ifindex, self.hook)?;
        }
        Ok(true)
    }
}

fn link(program: &OwnedFd, ifindex: u32, hook: Hook) -> Result<OwnedFd> {
    attach::attach(program.as_fd(), ifindex, hook)
        .map_err(|source| Error::TcAttach { ifindex, source })
}
