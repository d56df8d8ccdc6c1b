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

    /// Ports whose pods have ended, as far as the kernel has announced it since the last call.
    pub fn ended(&mut self) -> BTreeSet<PortId> {
        let mut ended = BTreeSet::new();
        if self.poll.poll(&mut self.events, Some(Duration::ZERO)).is_err() {
            return ended;
        }
        let mut is_something_removed = false;
        for event in &self.events {
            match event.token() {
                DIRECTORIES => is_something_removed = true,
                Token(port) => ended.extend(u16::try_from(port).map(PortId)),
            }
        }
        if is_something_removed {
            let removed = self.removed();
            let pods = self.pods.iter();
            ended.extend(
                pods.filter(|(_, pod)| pod.may_be(&removed) && pod.has_ended()).map(|(id, _)| *id),
            );
        }
        ended
    }

    /// As `ended`, by looking at each: an announcement may have been missed.
    #[must_use]
    pub fn look(&self) -> BTreeSet<PortId> {
        self.pods.iter().filter(|(_, pod)| pod.has_ended()).map(|(id, _)| *id).collect()
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
        let Self::Path { path, namespace } = self else { return false };
        let Some(directory) = path.parent() else { return false };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => directory.is_dir(),
            Err(_) => false,
            // Where mounts made outside do not show, what is there is an empty file.
            Ok(found) => namespace.is_some_and(|(device, inode)| {
                let is_namespace =
                    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type as u64 == NSFS_MAGIC);
                is_namespace && (found.dev(), found.ino()) != (device, inode)
            }),
        }
    }
}

impl AsRawFd for Namespaces {
    /// Readable when a pod may have ended.
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
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
        PortFds { port: Arc::new(port), process: None }
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
        assert_eq!(namespaces.ended(), BTreeSet::new());
        fs::remove_file(dir.path().join("3")).expect("there");
        fs::rename(dir.path().join("4"), dir.path().join("other")).expect("there");
        assert_eq!(namespaces.ended(), BTreeSet::from([PortId(3), PortId(4)]));
        assert_eq!(namespaces.look(), BTreeSet::from([PortId(3), PortId(4)]));
        namespaces.forget(PortId(3));
        assert_eq!(namespaces.look(), BTreeSet::from([PortId(4)]));
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
        assert_eq!(namespaces.ended(), BTreeSet::new());
        drop(process.stdin.take());
        process.wait().expect("ours");
        assert_eq!(namespaces.ended(), BTreeSet::from([PortId(2)]));
    }

    #[test]
    fn a_path_that_cannot_be_seen_tells_nothing() {
        let mut namespaces = Namespaces::new().expect("room");
        let dir = tempfile::TempDir::new().expect("a directory");
        for (path, since, expected) in [
            ("/nowhere/netns/x".into(), Since::Before, BTreeSet::new()),
            (dir.path().join("x"), Since::Now, BTreeSet::new()),
            (dir.path().join("x"), Since::Before, BTreeSet::from([PortId(2)])),
        ] {
            namespaces.watch(PortId(2), &path, &fds(), since);
            assert_eq!(namespaces.look(), expected, "{path:?} {since:?}");
        }
    }
}
