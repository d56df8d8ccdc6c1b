//! Making a TAP, and knowing one when its descriptor arrives: the ioctls of `/dev/net/tun`.
//!
//! Enters: a name, or a descriptor that somebody sent. Leaves: a descriptor of a TAP with the one
//! framing that the switch has, no packet information and a virtio header of 12 bytes, and the
//! offloads that the kernel agreed to. netio calls it for its ports, the CNI plugin for a pod's
//! interface. A crate of its own, because the plugin must not link what AF_XDP needs.
//!
//! A TAP that is persistent outlives its descriptors, with its addresses and routes: [`reattach`] opens
//! it again. It ends when it is deleted, or with the namespace that it is in.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::thread;
use std::time::{Duration, Instant};

mod device;
mod error;
pub mod queues;
pub mod tunnelling;

pub use error::{Error, Result};

/// Bytes of the virtio header before every frame: `struct virtio_net_hdr_v1`.
pub const VNET_HEADER_BYTES: usize = 12;

/// Packets that a TAP's queue holds until the switch reads them: what its pod sends meanwhile. The kernel
/// makes it 1,000 unless asked.
///
/// A pod sends up to 1.4 million small packets a second from one core. A worker that shares its core is
/// away for a slice of the scheduler, 2.8 ms, which ends with the kernel's next tick: 4 ms at 250 ticks a
/// second, 5,600 packets. The next power of two fills 64 KiB of pointers. Full of frames of 1,500 bytes,
/// which the kernel counts as 2,304, the queue takes 18 MiB of the kernel's memory.
pub const QUEUE_PACKETS: u32 = 8192;

/// What the other side of a TAP may leave to us, and we to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapOffloads {
    /// Unfinished transport checksums.
    pub checksum: bool,
    /// TCP superframes, over IPv4 and IPv6.
    pub tso: bool,
    /// UDP superframes, each piece a datagram of its own.
    pub uso: bool,
}

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

/// A ring's end takes an RCU grace period and a turn of a kernel's thread: 10 to 100 ms.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// include/uapi/linux/sockios.h.
const SIOCGSKNS: libc::c_ulong = 0x894C;

/// Makes a TAP in the namespace of the calling thread: down, non-blocking, and gone with its last
/// descriptor. The kernel puts the first free number for a `%d` in the name.
///
/// `/dev/net/tun` is opened in that namespace too: a descriptor keeps the namespace alive in which
/// it was opened, wherever the device goes.
///
/// # Errors
/// If the name is impossible or taken, or the kernel refuses.
pub fn create(name: &str) -> Result<(OwnedFd, TapOffloads)> {
    // IFF_TUN_EXCL: a TAP of that name that is there already is somebody's.
    open(name, libc::IFF_TUN_EXCL, |source| Error::Create { name: name.to_owned(), source })
}

/// Opens a persistent TAP of the calling thread's namespace that has no descriptor. The caller knows
/// that it is there: the kernel would make a new one of that name.
///
/// The descriptor keeps the namespace alive, as it is opened in it. Waits up to a second for the TAP: of a
/// process that was killed with a TAP in a ring of io_uring, the kernel lets go of it some time after the
/// process has ended (io_ring_exit_work, io_uring/io_uring.c).
///
/// # Errors
/// If the name is impossible, another process has the TAP open, or the kernel refuses.
pub fn reattach(name: &str) -> Result<(OwnedFd, TapOffloads)> {
    let deadline = Instant::now() + BUSY_PATIENCE;
    loop {
        match open(name, 0, |source| Error::Reattach { name: name.to_owned(), source }) {
            Err(Error::Reattach { source, .. })
                if source.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                thread::sleep(BUSY_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

fn open(
    name: &str,
    more_flags: libc::c_int,
    failed: impl FnOnce(io::Error) -> Error,
) -> Result<(OwnedFd, TapOffloads)> {
    let ifr_name = interface_name(name)?;
    let file = device::open()?;
    attach(file.as_fd(), ifr_name, more_flags).map_err(failed)?;
    let offloads = configure(file.as_fd())?;
    Ok((file.into(), offloads))
}

/// Attaches a descriptor of `/dev/net/tun` to a TAP of that name, which is made if it is not there.
fn attach(
    fd: BorrowedFd<'_>,
    ifr_name: [libc::c_char; libc::IFNAMSIZ],
    more_flags: libc::c_int,
) -> io::Result<()> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | more_flags;
    let mut request = ifreq(ifr_name, flags);
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) }).map(drop)
}

/// Has a TAP outlive its descriptors, or end with the last of them.
///
/// # Errors
/// If the device is gone, or the kernel refuses.
pub fn set_persistent(fd: BorrowedFd<'_>, is_persistent: bool) -> Result<()> {
    let value = libc::c_ulong::from(is_persistent);
    // SAFETY: TUNSETPERSIST takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST, value) })
        .map(drop)
        .map_err(|source| Error::Setup { action: "set whether the TAP outlives us", source })
}

/// The network namespace that the device is in, wherever the descriptor was opened.
///
/// # Errors
/// If the device is gone, or the kernel refuses: it wants CAP_NET_ADMIN over that namespace.
pub fn namespace(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: SIOCGSKNS reads and writes no memory of ours.
    let namespace = check(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCGSKNS) })?;
    // SAFETY: on success it is a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) })
}

/// An interface name in the form that `ifreq` wants.
///
/// # Errors
/// If it is empty, too long, or holds a NUL, a slash or a space: the kernel would cut or refuse it.
pub fn interface_name(name: &str) -> Result<[libc::c_char; libc::IFNAMSIZ]> {
    let bytes = name.as_bytes();
    let is_well_formed = !bytes.is_empty()
        && bytes.len() < libc::IFNAMSIZ
        && !bytes.iter().any(|&byte| byte == 0 || byte == b'/' || byte.is_ascii_whitespace());
    if !is_well_formed {
        return Err(Error::Name { name: name.to_owned() });
    }
    let mut out = [0; libc::IFNAMSIZ];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    Ok(out)
}

/// Whether the fd is `/dev/net/tun`, so that its ioctls mean what we think: the same numbers mean
/// something else to another driver.
///
/// # Errors
/// If it cannot be asked.
pub fn is_tun(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let metadata = File::from(fd.try_clone_to_owned()?).metadata()?;
    let device = metadata.rdev();
    Ok(metadata.file_type().is_char_device()
        && (libc::major(device), libc::minor(device)) == TUN_DEVICE)
}

/// Checks that an fd of `/dev/net/tun` is a TAP with our framing and sets the rest.
///
/// # Errors
/// `NotOurs` if it is anything else, saying what it lacks.
pub fn adopt(fd: BorrowedFd<'_>) -> Result<TapOffloads> {
    let refused = |reason: &str| Error::NotOurs { reason: reason.to_owned() };
    let request = interface(fd)
        .map_err(|error| refused(&format!("it is attached to no TUN or TAP device ({error})")))?;
    if flags(&request) & libc::IFF_TAP == 0 {
        return Err(refused("it is a TUN device; a TAP is needed (IFF_TAP)"));
    }
    if flags(&request) & libc::IFF_VNET_HDR == 0 {
        return Err(refused("the TAP was made without IFF_VNET_HDR"));
    }
    let no_pi =
        has_no_pi(fd).map_err(|source| Error::Setup { action: "read the TAP's flags", source })?;
    if !no_pi {
        return Err(refused("the TAP was made without IFF_NO_PI"));
    }
    configure(fd)
}

/// The device's name as it is now, in whatever namespace it is.
///
/// # Errors
/// If the device is gone.
pub fn name(fd: BorrowedFd<'_>) -> io::Result<String> {
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
    // SAFETY: an integer of the union, which `ifreq` set and TUNGETIFF wrote.
    libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags })
}

fn interface(fd: BorrowedFd<'_>) -> io::Result<libc::ifreq> {
    let mut request = ifreq([0; libc::IFNAMSIZ], 0);
    // SAFETY: TUNGETIFF writes one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    Ok(request)
}

fn configure(fd: BorrowedFd<'_>) -> Result<TapOffloads> {
    let failed = |action| move |source| Error::Setup { action, source };
    frame_by(fd, VNET_HEADER_BYTES)?;
    let mut refusal = None;
    for (offloads, bits) in OFFLOADS {
        match take_undone(fd, bits) {
            Ok(()) => return Ok(offloads),
            Err(error) => refusal = Some(error),
        }
    }
    let source = refusal.unwrap_or_else(|| io::ErrorKind::Unsupported.into());
    Err(failed("set the offloads")(source))
}

/// A virtio header of so many bytes stands before every frame.
fn frame_by(fd: BorrowedFd<'_>, header_bytes: usize) -> Result<()> {
    let size = header_bytes as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })
        .map_err(|source| Error::Setup { action: "set the size of the virtio header", source })?;
    // The header is in our byte order unless somebody set one of these; both are undone.
    let native: libc::c_int = 0;
    for request in [libc::TUNSETVNETLE, libc::TUNSETVNETBE] {
        // SAFETY: either ioctl reads one int, which outlives the call. A kernel without
        // CONFIG_TUN_VNET_CROSS_LE refuses the second, and then it was never set.
        let _ = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw const native) };
    }
    Ok(())
}

/// The kernel may leave this work to us.
fn take_undone(fd: BorrowedFd<'_>, bits: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(bits)) })
        .map(drop)
}

fn ifreq(ifr_name: [libc::c_char; libc::IFNAMSIZ], flags: libc::c_int) -> libc::ifreq {
    let ifru_flags = flags as libc::c_short;
    libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags } }
}

/// The result of a system call: -1 is an error in `errno`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::{Error, interface_name, is_tun};

    #[test]
    fn names_that_the_kernel_would_cut_or_refuse_are_refused() {
        for good in ["eth0", "a23456789012345", "vswtap%d"] {
            assert!(interface_name(good).is_ok(), "{good:?}");
        }
        for bad in ["", "a234567890123456", "a b", "a/b", "a\0b"] {
            assert!(matches!(interface_name(bad), Err(Error::Name { .. })), "{bad:?}");
        }
    }

    #[test]
    fn another_device_is_no_tun() {
        let null = File::open("/dev/null").expect("every Linux has it");
        assert!(!is_tun(null.as_fd()).expect("it can be asked"));
    }
}
