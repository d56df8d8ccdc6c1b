//! Making a TAP, and knowing one when an fd arrives: the ioctls of `/dev/net/tun`.
//!
//! `port` alone calls it. The framing is always the same: no packet information, a virtio header
//! of 12 bytes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use super::{TapOffloads, vnet};
use crate::sys::{self, check};
use crate::{Error, Result};

/// Offloads from most to least, with the kernel's word for each. USO needs Linux 6.2.
const OFFLOADS: [(TapOffloads, libc::c_uint); 3] = [
    (
        TapOffloads { checksum: true, tso: true, uso: true },
        libc::TUN_F_CSUM
            | libc::TUN_F_TSO4
            | libc::TUN_F_TSO6
            | libc::TUN_F_USO4
            | libc::TUN_F_USO6,
    ),
    (
        TapOffloads { checksum: true, tso: true, uso: false },
        libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6,
    ),
    (TapOffloads { checksum: false, tso: false, uso: false }, 0),
];

/// The device number of `/dev/net/tun`: Documentation/admin-guide/devices.txt.
const TUN_DEVICE: (u32, u32) = (10, 200);

/// A new TAP in the namespace of the calling thread.
pub(super) fn create(name: &str) -> Result<(OwnedFd, TapOffloads)> {
    let ifname =
        sys::interface_name(name).ok_or_else(|| Error::InterfaceName { name: name.to_owned() })?;
    let failed = |source| Error::TapCreate { name: name.to_owned(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(failed)?;
    let mut request = sys::ifreq(ifname);
    // IFF_TUN_EXCL: a persistent TAP of that name is somebody's; it is adopted, never taken.
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
        .map_err(failed)?;
    let offloads = configure(file.as_fd())?;
    Ok((file.into(), offloads))
}

/// Whether the fd is `/dev/net/tun`, so that its ioctls mean what we think: the same numbers mean
/// something else to another driver.
pub(super) fn is_tun(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let metadata = File::from(fd.try_clone_to_owned()?).metadata()?;
    let device = metadata.rdev();
    Ok(metadata.file_type().is_char_device()
        && (libc::major(device), libc::minor(device)) == TUN_DEVICE)
}

/// Checks that an fd of `/dev/net/tun` is a TAP with our framing and sets the rest.
pub(super) fn adopt(fd: BorrowedFd<'_>) -> Result<TapOffloads> {
    let refused = |reason: &str| Error::NotAPort { reason: reason.to_owned() };
    let request = interface(fd)
        .map_err(|error| refused(&format!("it is attached to no TUN or TAP device ({error})")))?;
    if flags(&request) & libc::IFF_TAP == 0 {
        return Err(refused("it is a TUN device; a TAP is needed (IFF_TAP)"));
    }
    if flags(&request) & libc::IFF_VNET_HDR == 0 {
        return Err(refused("the TAP was made without IFF_VNET_HDR"));
    }
    let no_pi = has_no_pi(fd)
        .map_err(|source| Error::PortSetup { action: "read the TAP's flags", source })?;
    if !no_pi {
        return Err(refused("the TAP was made without IFF_NO_PI"));
    }
    configure(fd)
}

/// The device's name now: it may have been renamed in the pod.
pub(super) fn name(fd: BorrowedFd<'_>) -> io::Result<String> {
    let request = interface(fd)?;
    let bytes = request.ifr_name.iter().take_while(|&&byte| byte != 0);
    Ok(String::from_utf8_lossy(&bytes.map(|byte| byte.cast_unsigned()).collect::<Vec<_>>())
        .into_owned())
}

/// Whether frames come without packet information before them.
///
/// TUNGETIFF gives one bit for IFF_NO_PI and for "no socket filter" (IFF_NOFILTER, 0x1000 both), so
/// it is asked while there is a filter, one that accepts everything; a filter of the sender's is
/// gone afterwards.
fn has_no_pi(fd: BorrowedFd<'_>) -> io::Result<bool> {
    const RETURN_CONSTANT: u16 = 0x06;
    let mut accept_all = libc::sock_filter { code: RETURN_CONSTANT, jt: 0, jf: 0, k: u32::MAX };
    let filter = libc::sock_fprog { len: 1, filter: &raw mut accept_all };
    // SAFETY: TUNATTACHFILTER reads the sock_fprog and its one instruction, which outlive the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNATTACHFILTER, &raw const filter) })?;
    let request = interface(fd);
    // SAFETY: TUNDETACHFILTER has an argument by its number only; nothing is read from it.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNDETACHFILTER, &raw const filter) })?;
    Ok(flags(&request?) & libc::IFF_NO_PI != 0)
}

fn flags(request: &libc::ifreq) -> libc::c_int {
    // SAFETY: an integer of the union, which `sys::ifreq` zeroed and TUNGETIFF wrote.
    libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags })
}

fn interface(fd: BorrowedFd<'_>) -> io::Result<libc::ifreq> {
    let mut request = sys::ifreq([0; libc::IFNAMSIZ]);
    // SAFETY: TUNGETIFF writes one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    Ok(request)
}

fn configure(fd: BorrowedFd<'_>) -> Result<TapOffloads> {
    let failed = |action| move |source| Error::PortSetup { action, source };
    let size = vnet::HEADER_BYTES as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })
        .map_err(failed("set the size of the virtio header"))?;
    // The header is in our byte order unless somebody set one of these; both are undone.
    let native: libc::c_int = 0;
    for request in [libc::TUNSETVNETLE, libc::TUNSETVNETBE] {
        // SAFETY: either ioctl reads one int, which outlives the call. A kernel without
        // CONFIG_TUN_VNET_CROSS_LE refuses the second, and then it was never set.
        let _ = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw const native) };
    }
    let mut refusal = None;
    for (offloads, bits) in OFFLOADS {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        match check(unsafe {
            libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(bits))
        }) {
            Ok(_) => return Ok(offloads),
            Err(error) => refusal = Some(error),
        }
    }
    let source = refusal.unwrap_or_else(|| io::ErrorKind::Unsupported.into());
    Err(failed("set the offloads")(source))
}
