//! One daemon for one socket and one state directory.
//!
//! Enters: the two paths. Leaves: locks that the kernel releases with the process, however it ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result};
use controlplane::config::ControlSettings;

/// The locks of this daemon. Dropping it releases them.
#[derive(Debug)]
pub struct Locks {
    _socket: File,
    _state: File,
}

impl Locks {
    /// Takes both, or names the process that has them. Directories that are missing are made.
    ///
    /// # Errors
    /// If another daemon has one, or the files cannot be made.
    pub fn take(control: &ControlSettings) -> Result<Self> {
        let mut socket = control.socket.clone().into_os_string();
        socket.push(".lock");
        Ok(Self {
            _socket: take(&PathBuf::from(socket), "control.socket")?,
            _state: take(&control.state_dir.join("lock"), "control.state_dir")?,
        })
    }
}

fn take(path: &Path, key: &'static str) -> Result<File> {
    let failed = |action| {
        let path = path.to_owned();
        move |source: io::Error| Error::File { action, path, source }
    };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed("make the directory of"))?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
            Err(Error::AlreadyRunning { path: path.to_owned(), key })
        }
        Err(error) => Err(failed("lock")(error.into())),
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
}
