//! Sockets that the service manager opened before it executed us: sd_listen_fds(3) without the
//! library.
//!
//! Enters: LISTEN_PID and LISTEN_FDS of the environment. Leaves: the descriptors, once, to the code that
//! starts the daemon. What connects to such a socket while no daemon runs waits in its queue.

use std::env;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::check;

/// SD_LISTEN_FDS_START.
const FIRST_FD: RawFd = 3;
/// More than a service manager passes to a daemon with one socket; a bound on what is believed.
const MAX_FDS: RawFd = 64;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors that are meant for this process, now close-on-exec; none the second time.
///
/// Called before anything else opens a descriptor: what the environment promises is then either
/// the service manager's or not open.
///
/// # Errors
/// If the environment promises what cannot be, or what is not open.
pub fn take_listen_fds() -> io::Result<Vec<OwnedFd>> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<RawFd>().ok());
    let ours = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
    if !ours || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").filter(|count| (0..=MAX_FDS).contains(count));
    let count = count.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("LISTEN_FDS is no number up to {MAX_FDS}"),
        )
    })?;
    (FIRST_FD..FIRST_FD + count).map(take).collect()
}

fn take(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes an integer; a descriptor that is not open is refused with EBADF.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, as fcntl has just shown; by the protocol, which names our own pid, it was
    // opened for us before we were executed, so that nothing in this process owns it; and `TAKEN`
    // lets nobody come here twice for it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
