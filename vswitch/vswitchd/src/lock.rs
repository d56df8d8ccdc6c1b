//! One daemon for one socket and one state directory.
//!
//! Enters: the two paths. Leaves: locks that the kernel releases with the process, however it ends. A
//! state directory to which nothing can be written is locked all the same, as far as there is one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::{Error, Result};
use controlplane::config::ControlSettings;

/// The locks of this daemon. Dropping it releases them.
#[derive(Debug)]
pub struct Locks {
    _socket: File,
    _state: Option<File>,
}

impl Locks {
    /// Takes both, or names the process that has them. Directories that are missing are made.
    ///
    /// # Errors
    /// If another daemon has one, or that of the socket cannot be made.
    pub fn take(control: &ControlSettings) -> Result<Self> {
        let mut socket = control.socket.clone().into_os_string();
        socket.push(".lock");
        Ok(Self {
            _socket: take(&PathBuf::from(socket), "control.socket")?,
            _state: take_state(&control.state_dir)?,
        })
    }
}

/// What is wrong with the directory is the journal's to report: it is no reason not to start.
fn take_state(dir: &Path) -> Result<Option<File>> {
    const KEY: &str = "control.state_dir";
    let path = dir.join("lock");
    match take(&path, KEY) {
        Err(Error::File { .. }) => {}
        outcome => return outcome.map(Some),
    }
    // On a disk that is read-only or full.
    let there = options().read(true).open(&path).or_else(|_| File::open(dir));
    there.ok().map(|file| lock(file, &path, KEY)).transpose()
}

fn take(path: &Path, key: &'static str) -> Result<File> {
    let failed = |action| {
        let path = path.to_owned();
        move |source: io::Error| Error::File { action, path, source }
    };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed("make the directory of"))?;
    }
    let file = options().create(true).truncate(false).write(true).mode(0o600).open(path);
    lock(file.map_err(failed("open"))?, path, key)
}

/// No link is followed.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(OFlags::NOFOLLOW.bits() as i32);
    options
}

fn lock(file: File, path: &Path, key: &'static str) -> Result<File> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
            Err(Error::AlreadyRunning { path: path.to_owned(), key })
        }
        Err(error) => {
            let source = error.into();
            Err(Error::File { action: "lock", path: path.to_owned(), source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Locks;
    use crate::error::Error;
    use controlplane::config::ControlSettings;

    #[test]
    fn the_second_daemon_is_told_what_the_first_holds() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let control = |socket: &str, state: &str| ControlSettings {
            socket: dir.path().join(socket),
            state_dir: dir.path().join(state),
        };
        let first = Locks::take(&control("run/a.sock", "a")).expect("free");
        for (other, expected) in [
            (control("run/a.sock", "b"), "control.socket"),
            (control("run/b.sock", "a"), "control.state_dir"),
        ] {
            match Locks::take(&other) {
                Err(Error::AlreadyRunning { key, .. }) => assert_eq!(key, expected),
                other => panic!("{other:?}"),
            }
        }
        drop(first);
        assert!(Locks::take(&control("run/a.sock", "a")).is_ok());
    }

    #[test]
    fn a_state_directory_that_takes_no_file_is_locked_as_far_as_it_is_there() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let control = |socket: &str| ControlSettings {
            socket: dir.path().join(socket),
            state_dir: dir.path().join("state"),
        };
        // It is a file.
        std::fs::write(dir.path().join("state"), "").expect("room");
        let first = Locks::take(&control("a.sock")).expect("free");
        assert!(matches!(Locks::take(&control("b.sock")), Err(Error::AlreadyRunning { .. })));
        drop(first);
        // Its lock is a link, which is not followed.
        std::fs::remove_file(dir.path().join("state")).expect("there");
        std::fs::create_dir(dir.path().join("state")).expect("a free name");
        let other = dir.path().join("other");
        std::os::unix::fs::symlink(&other, dir.path().join("state/lock")).expect("a free name");
        let _first = Locks::take(&control("a.sock")).expect("free");
        assert!(matches!(Locks::take(&control("b.sock")), Err(Error::AlreadyRunning { .. })));
        assert!(!other.exists());
    }
}
