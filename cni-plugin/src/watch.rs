//! `--adjust --watch`: adjusts whenever the daemon asks for it, until it is stopped. What
//! `vswitch-adjust.path` is under systemd, a container of the DaemonSet is by this.
//!
//! Enters: the file `SOCKET.adjust`, which the daemon writes. Leaves: calls of `adjust`, and lines of
//! a log. A pod that cannot be adjusted is tried again, but not for ever: packets that are too long
//! for it are answered with the right length meanwhile.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::adjust::adjust;
use crate::deadline::Deadline;
use crate::error::Error;

/// Between two attempts: those of the unit.
const PAUSE: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 5;

/// For the events of one read: each has a header and at most a file name.
const EVENTS_BYTES: usize = 4096;

/// Adjusts at once, as the daemon may have asked before, and then as often as it does.
///
/// # Errors
/// If the directory of the socket is not there, cannot be watched, or goes: whatever started this
/// starts it again, and it looks anew.
pub(crate) fn watch(socket: &Path, mut log: impl FnMut(&str)) -> Result<Infallible, Error> {
    // Before the first look: what is asked for between the two is not missed.
    let asked = Asked::of(socket)?;
    log(&format!("watching {}", asked.file.display()));
    let mut attempts = 0;
    loop {
        attempts += 1;
        let is_done = attempt(socket, &mut log);
        let pause = (!is_done && attempts < ATTEMPTS).then_some(PAUSE);
        if asked.wait(pause)? || pause.is_none() {
            attempts = 0;
        }
    }
}

/// True if nothing is left to do.
fn attempt(socket: &Path, log: &mut impl FnMut(&str)) -> bool {
    match adjust(socket, &Deadline::of_command()) {
        Ok(outcomes) => {
            outcomes.iter().for_each(|outcome| log(&outcome.line()));
            outcomes.iter().all(|outcome| outcome.result.is_ok())
        }
        // One that starts asks if it has to.
        Err(Error::Unreachable(_)) => true,
        Err(error) => {
            log(&error.sentence());
            false
        }
    }
}

/// The daemon's asking: it writes a file.
struct Asked {
    inotify: OwnedFd,
    directory: PathBuf,
    file: PathBuf,
}

impl Asked {
    fn of(socket: &Path) -> Result<Self, Error> {
        let mut file = OsString::from(socket);
        file.push(".adjust");
        let file = PathBuf::from(file);
        let directory = match file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|errno| Error::kernel("watch files")(io::Error::from(errno)))?;
        // The directory, as the file may not be there yet.
        inotify::add_watch(&inotify, &directory, WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR)
            .map_err(|errno| {
                Error::kernel(format!("watch the directory {}", directory.display()))(
                    io::Error::from(errno),
                )
            })?;
        Ok(Self { inotify, directory, file })
    }

    /// Waits until the daemon asks, for at most so long; whether it did.
    fn wait(&self, longest: Option<Duration>) -> Result<bool, Error> {
        let failed = || Error::kernel(format!("wait for {}", self.file.display()));
        // The pauses of this file fit.
        let timeout = longest.and_then(|longest| Timespec::try_from(longest).ok());
        loop {
            let mut ready = [PollFd::new(&self.inotify, PollFlags::IN)];
            match poll(&mut ready, timeout.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) if self.read()? => return Ok(true),
                // Another file of the directory. The pause begins anew: it is no deadline.
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(failed()(io::Error::from(errno))),
            }
        }
    }

    /// Takes the events that are there; whether one is the daemon's asking.
    fn read(&self) -> Result<bool, Error> {
        let mut space = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut reader = inotify::Reader::new(&self.inotify, &mut space);
        let mut is_asked = false;
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(is_asked),
                Err(Errno::INTR) => continue,
                Err(errno) => {
                    let doing = format!("watch the directory {}", self.directory.display());
                    return Err(Error::kernel(doing)(io::Error::from(errno)));
                }
            };
            if event.events().contains(ReadFlags::IGNORED) {
                let gone = io::Error::from(io::ErrorKind::NotFound);
                let doing = format!("watch the directory {} any longer", self.directory.display());
                return Err(Error::kernel(doing)(gone));
            }
            // After an overflow it is not known what was missed.
            is_asked |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
                || event.file_name().is_some_and(|name| {
                    self.file.file_name().is_some_and(|file| file.as_bytes() == name.to_bytes())
                });
        }
    }
}
