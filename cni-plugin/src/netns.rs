//! The pod's network namespace, and how a thread gets into it. Called by every command that touches
//! the pod's interface.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::deadline::Deadline;
use crate::error::Error;

/// Between two attempts to get the lock of a namespace: an ADD takes some 20 ms.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// `NSFS_MAGIC` of the kernel's include/uapi/linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// A pod's network namespace, held open.
pub(crate) struct NetNs {
    file: File,
    path: PathBuf,
    process: Option<OwnedFd>,
}

impl NetNs {
    /// Opens the namespace at `path`.
    ///
    /// # Errors
    /// `Netns` if the path is not there, is no network namespace, or is the plugin's own one.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let refuse = |why: String| Error::Netns { path: path.to_owned(), why };
        // Before the path is followed: that the number is another process's by now would show below.
        let process = process_of(path);
        // Non-blocking: what is there instead of a namespace may be a FIFO.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| refuse(format!("cannot be opened: {error}")))?;
        let no_stat = |error: io::Error| refuse(format!("cannot be examined: {error}"));
        let statfs = rustix::fs::fstatfs(&file).map_err(|error| no_stat(error.into()))?;
        if statfs.f_type as u64 != NSFS_MAGIC {
            return Err(refuse("is no namespace".into()));
        }
        let own = fs::metadata("/proc/thread-self/ns/net").map_err(no_stat)?;
        let metadata = file.metadata().map_err(no_stat)?;
        if (own.dev(), own.ino()) == (metadata.dev(), metadata.ino()) {
            return Err(refuse("is the one that the plugin itself runs in".into()));
        }
        Ok(Self { file, path: path.to_owned(), process })
    }

    /// The process whose namespace this is, if the path names one: a descriptor that shows its end.
    pub(crate) fn process(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|process| process.as_fd())
    }

    /// Waits until no other ADD is at work in this namespace, and keeps others out until this is dropped, or the
    /// process ends. The lock is on the namespace itself: by whatever path it is opened, the inode is one.
    ///
    /// # Errors
    /// `Busy` if another ADD does not end in time, `Netns` if the kernel refuses.
    pub(crate) fn lock(&self, deadline: &Deadline) -> Result<(), Error> {
        loop {
            match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK) if deadline.remaining().is_some() => {
                    thread::sleep(LOCK_PAUSE);
                }
                Err(Errno::WOULDBLOCK) => return Err(Error::Busy { path: self.path.clone() }),
                Err(Errno::INTR) => {}
                Err(error) => {
                    let why = format!("cannot be locked: {}", io::Error::from(error));
                    return Err(Error::Netns { path: self.path.clone(), why });
                }
            }
        }
    }

    /// Runs `work` inside, in a thread that ends with it: no other ever enters.
    ///
    /// # Errors
    /// `Netns` if it cannot be entered; else what `work` returns.
    pub(crate) fn run<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let inside = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| Error::Netns {
                    path: self.path.clone(),
                    why: format!("cannot be entered: {}", io::Error::from(error)),
                })?;
            work()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

/// The process of a path such as `/proc/123/ns/net`.
fn process_of(path: &Path) -> Option<OwnedFd> {
    let mut parts = path.strip_prefix("/proc").ok()?.components();
    let pid = parts.next()?.as_os_str().to_str()?.parse().ok()?;
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::NetNs;

    #[test]
    fn what_is_no_other_network_namespace_is_code_8() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let table = [
            (Path::new("/proc/self/ns/net"), "is the one that the plugin itself runs in"),
            (file.path(), "is no namespace"),
            (Path::new("/nowhere"), "cannot be opened: No such file or directory (os error 2)"),
        ];
        for (path, why) in table {
            let error = NetNs::open(path).err().expect("refused");
            assert_eq!(error.code(), 8);
            assert_eq!(error.to_string(), format!("network namespace {path:?} {why}"));
        }
    }
}
