//! Detachments that wait on disk for a daemon that is away.
//!
//! Enters: attachments whose `Detach` the CNI plugin could not hand to the daemon. Leaves: the same
//! attachments, to the daemon, at its start and while it runs. A queue is a directory beside the
//! journal, with one file for each attachment:
//!
//! ```text
//!   STATE_DIR/del-queue/HASH.json       a whole entry: the attachment, as JSON
//!                       HASH.new        one that is being written, or was when its writer was killed
//!                       NAME.damaged    what was found in the place of an entry, and is none
//! ```
//!
//! The plugin runs as root and the daemon does not, so either may find what the other has planted:
//! nothing in the directory is reached through a link, and what is read is data. The directory belongs
//! to the owner of the state directory, who may therefore delete what root has written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, fchmod, fchown, flock, fstat, fsync,
    mkdirat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::AttachmentId;

/// Directory of the daemon's journal unless another is configured.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/vswitch";

/// Entries of a queue at most: some times the pods of a node.
pub const MAX_QUEUED: usize = 1024;

const NAME: &str = "del-queue";
const ENTRY: &str = ".json";
const UNFINISHED: &str = ".new";
const DAMAGED: &str = ".damaged";

/// A container id has 256 bytes at most, an interface's name 15.
const MAX_ENTRY_BYTES: u64 = 4096;

/// Pause between two attempts to get the lock, which is held for one write to disk.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Why a queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process has the lock and does not release it.
    #[error("{path} is locked by another process; try again later")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// There are [`MAX_QUEUED`] entries.
    #[error(
        "{path} has {MAX_QUEUED} entries, which is all that it takes; start vswitchd, which applies them"
    )]
    Full {
        /// The directory.
        path: PathBuf,
    },
}

/// The queue of a state directory, held open.
#[derive(Debug)]
pub struct DetachQueue {
    directory: OwnedFd,
    path: PathBuf,
}

/// What a queue holds.
#[derive(Debug, Default)]
pub struct Queued {
    /// The attachments to be detached.
    pub attachments: Vec<AttachmentId>,
    /// Files that are no entries, under the names that they were given to set them aside.
    pub damaged: Vec<PathBuf>,
}

/// The exclusive right to add to a queue. Dropping it releases the lock.
#[derive(Debug)]
pub struct QueueLock<'q> {
    queue: &'q DetachQueue,
}

impl DetachQueue {
    /// Opens the queue of a state directory, which must be there; makes the queue if there is none.
    ///
    /// # Errors
    /// `Io` if the state directory or the queue cannot be used, also if a link is in its place.
    pub fn open(state_dir: &Path) -> Result<Self, QueueError> {
        let path = state_dir.join(NAME);
        // The state directory itself may be reached by a link: systemd's DynamicUser makes one.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent =
            openat(CWD, state_dir, flags, Mode::empty()).map_err(failed("open", state_dir))?;
        let is_new = match mkdirat(&parent, NAME, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(failed("make", &path)(error)),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory =
            openat(&parent, NAME, flags, Mode::empty()).map_err(failed("open", &path))?;
        if is_new {
            let stat = |of, path| fstat(of).map_err(failed("examine", path));
            let (theirs, ours) =
                (stat(parent.as_fd(), state_dir)?, stat(directory.as_fd(), &path)?);
            if (theirs.st_uid, theirs.st_gid) != (ours.st_uid, ours.st_gid) {
                let owner = rustix::fs::Uid::from_raw(theirs.st_uid);
                let group = rustix::fs::Gid::from_raw(theirs.st_gid);
                fchown(&directory, Some(owner), Some(group))
                    .map_err(failed("give to the owner of the state directory", &path))?;
            }
            fsync(&parent).map_err(failed("sync the directory", state_dir))?;
        }
        Ok(Self { directory, path })
    }

    /// Takes the lock; waits for it until then.
    ///
    /// # Errors
    /// `Locked` if another process has it all the time.
    pub fn lock(&self, until: Instant) -> Result<QueueLock<'_>, QueueError> {
        loop {
            match flock(&self.directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(QueueLock { queue: self }),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => {
                    thread::sleep(LOCK_PAUSE);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    return Err(QueueError::Locked { path: self.path.clone() });
                }
                Err(error) => return Err(failed("lock", &self.path)(error)),
            }
        }
    }

    /// What is queued. What is no entry is set aside, under another name; what a plugin that was killed
    /// has left unfinished is removed. The lock is not needed: an entry is there as a whole or not at
    /// all.
    ///
    /// # Errors
    /// `Io` if the directory cannot be read.
    pub fn queued(&self) -> Result<Queued, QueueError> {
        self.remove_unfinished()?;
        let mut queued = Queued::default();
        for name in self.names(ENTRY)? {
            match self.read(&name) {
                Ok(Some(attachment)) if entry_name(&attachment) == name => {
                    queued.attachments.push(attachment);
                }
                // Another process was faster.
                Err(Errno::NOENT) => {}
                _ => queued.damaged.push(self.set_aside(&name)?),
            }
        }
        Ok(queued)
    }

    /// Takes an attachment from the queue.
    ///
    /// # Errors
    /// `Io` if its file cannot be removed.
    pub fn remove(&self, attachment: &AttachmentId) -> Result<(), QueueError> {
        let name = entry_name(attachment);
        match unlinkat(&self.directory, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("remove", &self.path.join(name))(error)),
        }
    }

    /// Its pod's DEL was killed with it: the runtime repeats that.
    fn remove_unfinished(&self) -> Result<(), QueueError> {
        if self.names(UNFINISHED)?.is_empty() {
            return Ok(());
        }
        // Where a plugin has the lock, one may be just being written. The next look finds what stays.
        let Ok(_lock) = self.lock(Instant::now()) else { return Ok(()) };
        for name in self.names(UNFINISHED)? {
            // One that cannot be removed stands in no entry's way.
            let _ = unlinkat(&self.directory, &name, AtFlags::empty());
        }
        Ok(())
    }

    /// Names of the files that end so.
    fn names(&self, ending: &str) -> Result<Vec<String>, QueueError> {
        let cannot_read = failed("read the directory", &self.path);
        let read = || -> Result<Vec<String>, Errno> {
            let mut names = Vec::new();
            for entry in Dir::read_from(&self.directory)? {
                // Names that are not UTF-8 are none of ours.
                if let Ok(name) = entry?.file_name().to_str()
                    && name.ends_with(ending)
                {
                    names.push(name.to_owned());
                }
            }
            Ok(names)
        };
        read().map_err(cannot_read)
    }

    /// The attachment of an entry; `None` if it is no entry.
    fn read(&self, name: &str) -> Result<Option<AttachmentId>, Errno> {
        // Non-blocking: what is there may be a FIFO.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.directory, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let read = File::from(file).take(MAX_ENTRY_BYTES).read_to_end(&mut bytes);
        Ok(read.ok().and_then(|_| serde_json::from_slice(&bytes).ok()))
    }

    fn set_aside(&self, name: &str) -> Result<PathBuf, QueueError> {
        let aside = format!("{name}{DAMAGED}");
        renameat(&self.directory, name, &self.directory, &aside)
            .map_err(failed("set aside", &self.path.join(name)))?;
        Ok(self.path.join(aside))
    }
}

impl QueueLock<'_> {
    /// Adds an attachment; it is on disk when this returns. One that is queued already stays once.
    ///
    /// # Errors
    /// `Full`, or `Io` if it cannot be written; nothing is queued then.
    pub fn push(&self, attachment: &AttachmentId) -> Result<(), QueueError> {
        let DetachQueue { directory, path } = self.queue;
        let name = entry_name(attachment);
        let entries = self.queue.names(ENTRY)?;
        if entries.contains(&name) {
            return Ok(());
        }
        if entries.len() >= MAX_QUEUED {
            return Err(QueueError::Full { path: path.clone() });
        }
        let unfinished = format!("{name}{UNFINISHED}");
        let fresh = path.join(&unfinished);
        // One that a killed plugin has left. Nobody else writes here: we have the lock.
        match unlinkat(directory, &unfinished, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("remove", &fresh)(error)),
        }
        let written = self.write(&unfinished, attachment).map_err(failed("write", &fresh));
        let put = written.and_then(|()| {
            let put = || -> io::Result<()> {
                failpoint::hit("queue-write")?;
                renameat(directory, &unfinished, directory, &name)?;
                failpoint::hit("queue-put")?;
                Ok(fsync(directory)?)
            };
            put().map_err(failed("write", &path.join(&name)))
        });
        if put.is_err() {
            // The error is what counts; both are there only if that came late.
            let _ = unlinkat(directory, &unfinished, AtFlags::empty());
            let _ = unlinkat(directory, &name, AtFlags::empty());
        }
        put
    }

    fn write(&self, name: &str, attachment: &AttachmentId) -> Result<(), io::Error> {
        let json = serde_json::to_vec(attachment)?;
        if json.len() as u64 > MAX_ENTRY_BYTES {
            return Err(io::Error::other("no runtime has such long names"));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.queue.directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        // The daemon may be another user; who cannot enter the state directory does not read it.
        fchmod(&file, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH)?;
        let mut file = File::from(file);
        file.write_all(&json)?;
        file.sync_all()
    }
}

impl Drop for QueueLock<'_> {
    fn drop(&mut self) {
        // The kernel releases it at the latest when the directory is closed.
        let _ = flock(&self.queue.directory, FlockOperation::Unlock);
    }
}

/// File name of an attachment: a hash, as a container id may be longer than a file name. FNV-1a of 128
/// bits, which no two ids share by accident.
fn entry_name(attachment: &AttachmentId) -> String {
    let AttachmentId { container_id, ifname } = attachment;
    // No id has a byte of 0.
    let bytes = container_id.bytes().chain([0]).chain(ifname.bytes());
    let hash = bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    format!("{hash:032x}{ENTRY}")
}

fn failed<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl Fn(E) -> QueueError {
    let path = path.to_owned();
    move |error| QueueError::Io { action, path: path.clone(), source: error.into() }
}

#[cfg(test)]
mod tests;
