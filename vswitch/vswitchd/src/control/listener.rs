//! The unix socket, and which processes may connect.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use api::{ErrorKind, ErrorReply};
use mio::net::UnixListener;
use netio::fdpass;

use crate::error::{Error, Result};

/// The listening socket. Dropping it removes its file, unless that is the service manager's: a client
/// that connects then waits for the next daemon.
pub struct Socket {
    pub(super) listener: UnixListener,
    /// The file that we made.
    path: Option<PathBuf>,
}

impl Socket {
    /// Listens at a path, with mode 0600. A socket that a killed daemon left there is replaced: the
    /// lock beside it shows that no daemon runs.
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
        Ok(Self { listener, path: Some(path.to_owned()) })
    }

    /// Leaves the file in its place: the service manager keeps the socket for the next daemon.
    pub(super) fn outlives_us(&mut self) {
        self.path = None;
    }

    /// The socket that the service manager listens at for us, if it passed one.
    ///
    /// # Errors
    /// If what it passed is anything but one socket that listens at this path.
    pub fn inherit(fds: Vec<OwnedFd>, path: &Path) -> Result<Option<Self>> {
        let wrong = |why: String| Error::Inherited { path: path.to_owned(), why };
        let [fd] = match <[OwnedFd; 1]>::try_from(fds) {
            Ok(one) => one,
            Err(none) if none.is_empty() => return Ok(None),
            Err(several) => return Err(wrong(format!("it passed {} sockets", several.len()))),
        };
        let is_listening = rustix::net::sockopt::socket_acceptconn(&fd).unwrap_or(false);
        let listener = StdListener::from(fd);
        let address = listener
            .local_addr()
            .ok()
            .filter(|_| is_listening)
            .ok_or_else(|| wrong("what it passed is no unix socket that listens".to_owned()))?;
        if address.as_pathname() != Some(path) {
            let at = address.as_pathname().map_or_else(
                || "an address without a path".to_owned(),
                |at| at.display().to_string(),
            );
            return Err(wrong(format!("its socket listens at {at}")));
        }
        listener
            .set_nonblocking(true)
            .map_err(|source| Error::Control { action: "use the inherited socket", source })?;
        tracing::info!("the control socket {} is the service manager's", path.display());
        Ok(Some(Self { listener: UnixListener::from_std(listener), path: None }))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(path) = &self.path else { return };
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!("{} stays behind: {error}", path.display());
        }
    }
}

/// Root may connect, and the user that the daemon runs as.
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
