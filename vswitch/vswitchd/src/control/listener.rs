//! The unix socket: who may connect.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::{ErrorKind, ErrorReply};
use mio::net::UnixListener;
use netio::fdpass;

use crate::error::{Error, Result};

/// The listening socket. Dropping it removes its file.
pub struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at a path, with mode 0600. A socket that a killed daemon left there is replaced: the
    /// lock beside it says that no daemon lives.
    ///
    /// # Errors
    /// If something else is there, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self> {
        let failed = |action| {
            let path = path.to_owned();
            move |source: io::Error| Error::File { action, path, source }
        };
        match fs::symlink_metadata(path) {
            Ok(there) if there.file_type().is_socket() => {
                fs::remove_file(path).map_err(failed("remove the old socket"))?;
            }
            Ok(_) => {
                let source = io::Error::from(io::ErrorKind::AlreadyExists);
                return Err(failed("listen at, as something else is there,")(source));
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed("listen at"))?;
        // Between these two lines `admit` alone keeps others out.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed("restrict"))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("{} stays behind: {error}", self.path.display());
        }
    }
}

/// Root may connect, and whoever the daemon runs as.
pub(super) fn admit(stream: impl AsFd) -> std::result::Result<(), ErrorReply> {
    let refuse = |message: String| ErrorReply { kind: ErrorKind::Invalid, message };
    let peer = fdpass::peer_credentials(stream)
        .map_err(|error| refuse(format!("the client's user cannot be told: {error}")))?;
    let own = rustix::process::geteuid().as_raw();
    if peer.uid == 0 || peer.uid == own {
        return Ok(());
    }
    Err(refuse(format!("user {} may not control vswitchd; only root may", peer.uid)))
}
