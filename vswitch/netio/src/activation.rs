//! Descriptors that were opened for this process before it was executed: by systemd, as
//! sd_listen_fds_with_names(3) without the library, or by `vswitchd supervise`.
//!
//! Enters: LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, or [`SUPERVISED`], of the environment. Leaves: the
//! descriptors with their names, once, to the code that starts the daemon. What connects to a socket
//! among them while no daemon runs waits in its queue; what is sent to a TAP, in the TAP's.

use std::env;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::check;

/// SD_LISTEN_FDS_START.
const FIRST_FD: RawFd = 3;
/// A port's, and for each pod that a process names the process's; a bound on what is believed.
const MAX_FDS: RawFd = 16_384;

/// Names the variable in which a supervisor that is our parent passes descriptors: its process id, and
/// then `NUMBER:NAME` for each, all parted by spaces. LISTEN_PID would have to be the pid of a process
/// that is not there yet.
pub const SUPERVISED: &str = "VSWITCHD_DESCRIPTORS";

static TAKEN: AtomicBool = AtomicBool::new(false);

/// A descriptor that was there before us.
#[derive(Debug)]
pub struct Inherited {
    /// FDNAME of the one who gave it; the unit's name for a socket of systemd's.
    pub name: String,
    /// The descriptor, close-on-exec.
    pub fd: OwnedFd,
}

/// The descriptors that are meant for this process; none the second time.
///
/// Called before anything else opens a descriptor: what the environment promises is then either
/// the service manager's or not open.
///
/// # Errors
/// If the environment promises what cannot be, or what is not open.
pub fn take_inherited() -> io::Result<Vec<Inherited>> {
    let promised = match (of_service_manager()?, of_supervisor()?) {
        (Some(promised), _) | (None, Some(promised)) => promised,
        (None, None) => return Ok(Vec::new()),
    };
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    promised
        .into_iter()
        .map(|(number, name)| take(number).map(|fd| Inherited { name, fd }))
        .collect()
}

type Promised = Vec<(RawFd, String)>;

fn of_service_manager() -> io::Result<Option<Promised>> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<RawFd>().ok());
    let ours = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
    if !ours {
        return Ok(None);
    }
    let count = number("LISTEN_FDS").filter(|count| (0..=MAX_FDS).contains(count));
    let count = count.ok_or_else(|| invalid(format!("LISTEN_FDS is no number up to {MAX_FDS}")))?;
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    Ok(Some((FIRST_FD..FIRST_FD + count).zip(names).collect()))
}

fn of_supervisor() -> io::Result<Option<Promised>> {
    let Ok(text) = env::var(SUPERVISED) else { return Ok(None) };
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let parent = words.next().and_then(|pid| pid.parse::<u32>().ok());
    // A program that our parent's other children execute inherits the variable, too.
    if parent != Some(std::os::unix::process::parent_id()) {
        return Ok(None);
    }
    let wrong = || invalid(format!("{SUPERVISED} has something else than NUMBER:NAME"));
    let promised = words.map(|word| {
        let (number, name) = word.split_once(':')?;
        let number = number.parse().ok().filter(|number| (FIRST_FD..=MAX_FDS).contains(number))?;
        Some((number, name.to_owned()))
    });
    let promised = promised.collect::<Option<Promised>>().ok_or_else(wrong)?;
    let mut numbers: Vec<_> = promised.iter().map(|(number, _)| number).collect();
    numbers.sort();
    numbers.dedup();
    if numbers.len() == promised.len() { Ok(Some(promised)) } else { Err(wrong()) }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn take(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes an integer; a descriptor that is not open is refused with EBADF.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, as fcntl has just shown; by either protocol, which names our own pid or our
    // parent's, it was opened for us before we were executed, so that nothing in this process owns it;
    // the numbers differ from each other; and `TAKEN` lets nobody come here twice for it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
