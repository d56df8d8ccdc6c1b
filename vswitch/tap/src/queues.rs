//! A TAP with several queues, each of which has a descriptor of its own and a reader of its own.
//!
//! Enters: a name, or descriptors of such a TAP. Leaves: a descriptor for each queue; which of them are in use,
//! and by what the kernel chooses among these. The CNI plugin makes the queues, netio has them served.
//!
//! What the pod sends to a queue waits until its descriptor is read: nobody else gets it. A queue that is
//! detached stays its descriptor's and is given nothing until it is attached again.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::{Error, Result, TapOffloads, attach, check, flags, ifreq, interface, interface_name};
use crate::{configure, create, device};

/// Makes a TAP as [`create`] does, with so many queues. One that is to have one is a plain TAP.
///
/// # Errors
/// As for [`create`].
pub fn create_with(name: &str, queues: u8) -> Result<(Vec<OwnedFd>, TapOffloads)> {
    if queues < 2 {
        return create(name).map(|(fd, offloads)| (vec![fd], offloads));
    }
    let flags = libc::IFF_TUN_EXCL | libc::IFF_MULTI_QUEUE;
    let failed = |source| Error::Create { name: name.to_owned(), source };
    let (first, offloads) = crate::open(name, flags, failed)?;
    let mut fds = vec![first];
    for _ in 1..queues {
        fds.push(add(name)?);
    }
    Ok((fds, offloads))
}

/// Opens another queue of a TAP of the calling thread's namespace that was made for several. The caller knows
/// that it is there: the kernel would make a new one of that name.
///
/// # Errors
/// If the name is impossible, the TAP is for one queue (EINVAL), or the kernel refuses.
pub fn add(name: &str) -> Result<OwnedFd> {
    let ifr_name = interface_name(name)?;
    let file = device::open()?;
    attach(file.as_fd(), ifr_name, libc::IFF_MULTI_QUEUE)
        .map_err(|source| Error::Reattach { name: name.to_owned(), source })?;
    configure(file.as_fd())?;
    Ok(file.into())
}

/// Whether the TAP was made for several queues.
///
/// # Errors
/// If the device is gone.
pub fn is_multi_queue(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(flags_of(fd)? & libc::IFF_MULTI_QUEUE != 0)
}

/// Has the kernel give packets to the descriptor's queue, or not. What waits in a queue that is detached is
/// lost.
///
/// # Errors
/// If the device is gone, is for one queue, or the kernel refuses.
pub fn set_attached(fd: BorrowedFd<'_>, is_wanted: bool) -> Result<()> {
    let is_attached = flags_of(fd)? & libc::IFF_DETACH_QUEUE == 0;
    if is_attached == is_wanted {
        return Ok(());
    }
    let flag = if is_wanted { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
    let request = ifreq([0; libc::IFNAMSIZ], flag);
    // SAFETY: TUNSETQUEUE reads one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETQUEUE, &raw const request) })
        .map(drop)
        .map_err(|source| Error::Setup { action: "attach or detach a queue", source })
}

/// Has the kernel choose the queue of each packet by a program of the type of socket filters: what it returns,
/// modulo the number of queues that are attached. The device keeps the program.
///
/// # Errors
/// If the device is gone, or the kernel refuses the program.
pub fn choose_by(fd: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let program = program.as_raw_fd();
    // SAFETY: TUNSETSTEERINGEBPF reads one int, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETSTEERINGEBPF, &raw const program) })
        .map(drop)
        .map_err(|source| Error::Setup { action: "set how a queue is chosen", source })
}

fn flags_of(fd: BorrowedFd<'_>) -> Result<libc::c_int> {
    let failed = |source| Error::Setup { action: "read the flags", source };
    interface(fd).map(|request| flags(&request)).map_err(failed)
}
