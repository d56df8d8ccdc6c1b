//! When pods' network namespaces end.
//!
//! Enters: each pod's port with the path of its namespace, or the process whose namespace it is. Leaves:
//! the ports whose pod has ended, to be closed at once: a TAP's descriptor that was opened in a namespace
//! keeps that alive, and with it everything in it. DEL closes it too; this is for pods whose DEL is late
//! or never comes.
//!
//! A path that is not to be seen from here, as in a container without the directory, tells nothing: then
//! DEL and GC alone close the port.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dataplane::tables::PortId;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::descriptors::PortFds;

/// `NSFS_MAGIC` of the kernel's include/uapi/linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// Of the directories; processes have the number of their port.
const DIRECTORIES: Token = Token(usize::MAX);
/// For the events of one read: each has a header and at most a file name.
const EVENTS_BYTES: usize = 4096;

/// What is watched.
#[derive(Debug)]
pub struct Namespaces {
    poll: Poll,
    events: Events,
    inotify: OwnedFd,
    /// Directories of namespaces, with the kernel's number for each watch.
    directories: BTreeMap<PathBuf, i32>,
    pods: BTreeMap<PortId, Pod>,
}

/// Since when a port is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Its pod is being made: a path that is not there now is of another machine's view.
    Now,
    /// A former daemon had it: a path that is not there is one that was removed.
    Before,
}

#[derive(Debug)]
enum Pod {
    /// A process, whose namespace ends with it as far as we need to know.
    Process(Arc<OwnedFd>),
    /// A file, that the runtime removes when the pod ends.
    Path {
        path: PathBuf,
        /// Device and inode of the namespace that the interface is in.
        namespace: Option<(u64, u64)>,
    },
}

impl Namespaces {
    /// Nothing is watched yet.
    ///
    /// # Errors
    /// If the kernel has no room for another readiness queue or set of watches.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let fd = inotify.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), DIRECTORIES, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(64),
            inotify,
            directories: BTreeMap::new(),
            pods: BTreeMap::new(),
        })
    }

    /// Watches the namespace of a port's pod.
    pub fn watch(&mut self, id: PortId, path: &Path, fds: &PortFds, since: Since) {
        self.forget(id);
        if let Some(process) = &fds.process {
            let fd = process.as_raw_fd();
            let token = Token(usize::from(id.0));
            match self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE) {
                Ok(()) => drop(self.pods.insert(id, Pod::Process(Arc::clone(process)))),
                Err(error) => tracing::warn!("{id}: its process cannot be watched: {error}"),
            }
            return;
        }
        let is_seen = since == Since::Before || path.exists();
        let directory = path.parent().filter(|directory| is_seen && directory.is_dir());
        let Some(directory) = directory else { return };
        if !self.directories.contains_key(directory) {
            let flags = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::ONLYDIR;
            match inotify::add_watch(&self.inotify, directory, flags) {
                Ok(watch) => drop(self.directories.insert(directory.to_owned(), watch)),
                // It is looked at every half a minute all the same.
                Err(error) => tracing::warn!("{} cannot be watched: {error}", directory.display()),
            }
        }
        let namespace = fds.port.namespace();
        self.pods.insert(id, Pod::Path { path: path.to_owned(), namespace });
    }

    /// The port is no more.
    pub fn forget(&mut self, id: PortId) {
        let Some(pod) = self.pods.remove(&id) else { return };
        match pod {
            Pod::Process(process) => {
                let _ = self.poll.registry().deregister(&mut SourceFd(&process.as_raw_fd()));
            }
            Pod::Path { path, .. } => {
                let directory = path.parent().map(Path::to_owned);
                let is_used = self.pods.values().any(|pod| pod.directory() == directory.as_deref());
                if !is_used
                    && let Some(watch) = directory.and_then(|path| self.directories.remove(&path))
                {
                    let _ = inotify::remove_watch(&self.inotify, watch);
                }
            }
        }
    }

    /// Whether the kernel has announced since the last call that a pod may have ended.
    pub fn may_have_ended(&mut self) -> bool {
        if self.poll.poll(&mut self.events, Some(Duration::ZERO)).is_err() {
            return true;
        }
        let mut may_have = false;
        for event in &self.events {
            may_have |= match event.token() {
                DIRECTORIES => {
                    let removed = self.removed();
                    self.pods.values().any(|pod| pod.may_be(&removed))
                }
                _ => true,
            };
        }
        may_have
    }

    /// Whether the pod of a port has ended; `None` if it is not watched.
    #[must_use]
    pub fn has_ended(&self, id: PortId) -> Option<bool> {
        self.pods.get(&id).map(Pod::has_ended)
    }

    /// Names of files that were removed; `None` if it is not known which.
    fn removed(&self) -> Option<BTreeSet<OsString>> {
        let mut space = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut reader = inotify::Reader::new(&self.inotify, &mut space);
        let mut removed = BTreeSet::new();
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => return None,
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    removed.extend(name.map(OsStr::to_owned));
                }
                Err(Errno::INTR) => {}
                Err(_) => return Some(removed),
            }
        }
    }
}

impl Pod {
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Process(_) => None,
            Self::Path { path, .. } => path.parent(),
        }
    }

    /// Whether it may be one of these files; without names each may.
    fn may_be(&self, names: &Option<BTreeSet<OsString>>) -> bool {
        let Self::Path { path, .. } = self else { return false };
        let Some(names) = names else { return true };
        path.file_name().is_some_and(|name| names.contains(name))
    }

    /// Whether the path leads to the pod's namespace no more.
    fn has_ended(&self) -> bool {
        let (path, namespace) = match self {
            Self::Process(process) => return is_readable(process),
            Self::Path { path, namespace } => (path, namespace),
        };
        if is_gone(path) {
            return true;
        }
        // Where mounts made outside do not show, what is there is an empty file.
        fs::metadata(path).is_ok_and(|found| {
            namespace.is_some_and(|(device, inode)| {
                let is_namespace =
                    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type as u64 == NSFS_MAGIC);
                is_namespace && (found.dev(), found.ino()) != (device, inode)
            })
        })
    }
}

/// Whether a path leads to no namespace any more: there is none, though the directory is to be seen.
#[must_use]
pub fn is_gone(path: &Path) -> bool {
    let is_missing = fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    is_missing && path.parent().is_some_and(Path::is_dir)
}

/// A process's descriptor is readable once the process has ended: pidfd_open(2).
fn is_readable(process: &OwnedFd) -> bool {
    let mut ready = [PollFd::new(process, PollFlags::IN)];
    poll(&mut ready, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}

impl AsRawFd for Namespaces {
    /// Readable when a pod may have ended.
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use dataplane::tables::PortId;
    use netio::port::PortFd;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::{Namespaces, Since};
    use crate::descriptors::PortFds;

    fn fds() -> PortFds {
        let (port, _) = PortFd::pair().expect("a socketpair");
        PortFds::of(Arc::new(port))
    }

    #[test]
    fn a_path_that_is_removed_ends_its_port_and_no_other() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let mut namespaces = Namespaces::new().expect("room");
        for number in 2..5 {
            let path = dir.path().join(number.to_string());
            fs::write(&path, "").expect("room");
            namespaces.watch(PortId(number), &path, &fds(), Since::Now);
        }
        let ended = |namespaces: &Namespaces| {
            [2, 3, 4, 5].map(|number| namespaces.has_ended(PortId(number)))
        };
        fs::write(dir.path().join("another"), "").expect("room");
        fs::remove_file(dir.path().join("another")).expect("there");
        assert!(!namespaces.may_have_ended(), "no pod's");
        fs::remove_file(dir.path().join("3")).expect("there");
        fs::rename(dir.path().join("4"), dir.path().join("other")).expect("there");
        assert!(namespaces.may_have_ended());
        assert!(!namespaces.may_have_ended(), "it was told");
        assert_eq!(ended(&namespaces), [Some(false), Some(true), Some(true), None]);
        namespaces.forget(PortId(3));
        assert_eq!(ended(&namespaces), [Some(false), None, Some(true), None]);
        (2..5).for_each(|number| namespaces.forget(PortId(number)));
        assert!(namespaces.directories.is_empty());
    }

    #[test]
    fn a_process_that_ends_ends_its_port() {
        let mut namespaces = Namespaces::new().expect("room");
        let mut process =
            Command::new("cat").stdin(Stdio::piped()).spawn().expect("every Linux has cat");
        let pid = Pid::from_child(&process);
        let process_fd = pidfd_open(pid, PidfdFlags::empty()).expect("it runs");
        let fds = PortFds { process: Some(Arc::new(process_fd)), ..fds() };
        namespaces.watch(PortId(2), "/proc/1/ns/net".as_ref(), &fds, Since::Now);
        assert_eq!(
            (namespaces.may_have_ended(), namespaces.has_ended(PortId(2))),
            (false, Some(false))
        );
        drop(process.stdin.take());
        process.wait().expect("ours");
        assert_eq!(
            (namespaces.may_have_ended(), namespaces.has_ended(PortId(2))),
            (true, Some(true))
        );
    }

    #[test]
    fn a_path_that_cannot_be_seen_tells_nothing() {
        let mut namespaces = Namespaces::new().expect("room");
        let dir = tempfile::TempDir::new().expect("a directory");
        for (path, since, expected) in [
            ("/nowhere/netns/x".into(), Since::Before, None),
            (dir.path().join("x"), Since::Now, None),
            (dir.path().join("x"), Since::Before, Some(true)),
        ] {
            namespaces.watch(PortId(2), &path, &fds(), since);
            assert_eq!(namespaces.has_ended(PortId(2)), expected, "{path:?} {since:?}");
        }
    }
}
