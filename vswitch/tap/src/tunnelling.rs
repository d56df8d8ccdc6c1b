//! A TAP by which superframes pass whole also inside of UDP tunnels: the uplink's.
//!
//! Enters: a name, or the descriptors of a TAP that was removed. Leaves: a descriptor for each queue, with
//! no packet information and a virtio header of 24 bytes. netio calls it.
//!
//! Such a TAP ends with its last descriptor. If it is removed before that, its descriptors stay where they
//! are, in workers' hands and epoll sets, and [`make_again`] attaches them to a new one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::{Error, Result, attach, device, frame_by, interface_name, name, take_undone};

/// Bytes of the virtio header before every frame: `struct virtio_net_hdr_v1_hash_tunnel`.
pub const TUNNEL_VNET_HEADER_BYTES: usize = 24;

/// include/uapi/linux/if_tun.h, from Linux 6.17 on.
const TUN_F_UDP_TUNNEL_GSO: libc::c_uint = 0x080;
const TUN_F_UDP_TUNNEL_GSO_CSUM: libc::c_uint = 0x100;

const UNDONE: libc::c_uint = libc::TUN_F_CSUM
    | libc::TUN_F_TSO4
    | libc::TUN_F_TSO6
    | libc::TUN_F_USO4
    | libc::TUN_F_USO6
    | TUN_F_UDP_TUNNEL_GSO
    | TUN_F_UDP_TUNNEL_GSO_CSUM;

/// Makes a TAP with so many queues in the namespace of the calling thread: down and non-blocking. The
/// kernel puts the first free number for a `%d` in the name.
///
/// # Errors
/// `NoTunnels` if the kernel does not cut superframes inside of tunnels; also if the name is impossible or
/// taken, or the kernel refuses.
///
/// # Panics
/// If no queue is asked for.
pub fn create(name_wanted: &str, queues: usize) -> Result<Vec<OwnedFd>> {
    assert!(queues > 0, "a TAP has one queue at least");
    let fds = (0..queues).map(|_| device::open().map(OwnedFd::from)).collect::<Result<Vec<_>>>()?;
    attach_all(&fds, name_wanted)?;
    Ok(fds)
}

/// Makes a TAP of that name for those descriptors of one that was removed: what reads and writes goes on.
///
/// # Errors
/// As for `create`.
pub fn make_again(fds: &[impl AsFd], name_wanted: &str) -> Result<()> {
    attach_all(fds, name_wanted)
}

fn attach_all(fds: &[impl AsFd], name_wanted: &str) -> Result<()> {
    let queues = if fds.len() > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
    let failed = |source| Error::Create { name: name_wanted.to_owned(), source };
    // An attempt may have failed half-way.
    let mut given = fds.iter().find_map(|fd| name(fd.as_fd()).ok());
    for fd in fds.iter().map(AsFd::as_fd).filter(|fd| name(*fd).is_err()) {
        // A TAP of that name that is there already is somebody's.
        let exclusive = if given.is_none() { libc::IFF_TUN_EXCL } else { 0 };
        let wanted = interface_name(given.as_deref().unwrap_or(name_wanted))?;
        attach(fd, wanted, queues | exclusive).map_err(failed)?;
        given = Some(name(fd).map_err(failed)?);
        configure(fd)?;
    }
    Ok(())
}

fn configure(fd: BorrowedFd<'_>) -> Result<()> {
    frame_by(fd, TUNNEL_VNET_HEADER_BYTES)?;
    take_undone(fd, UNDONE).map_err(|source| match source.raw_os_error() {
        Some(libc::EINVAL) => Error::NoTunnels { source },
        _ => Error::Setup { action: "set the offloads", source },
    })
}

/// Whether the TAP of a descriptor was removed.
#[must_use]
pub fn is_gone(fd: BorrowedFd<'_>) -> bool {
    matches!(name(fd), Err(error) if is_of_no_device(&error))
}

/// Whether an error of reading or writing means that the TAP was removed.
#[must_use]
pub fn is_of_no_device(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}
