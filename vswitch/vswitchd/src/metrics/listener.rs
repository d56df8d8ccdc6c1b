//! The socket of metrics.
//!
//! Enters: its address. Leaves: each client's stream, with its time limits set.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use controlplane::config::MetricsAddress;

use crate::error::{Error, Result};

/// A client that sends nothing, or takes nothing, for so long is closed.
const SILENCE: Duration = Duration::from_secs(2);
/// Pause after a client that could not be accepted, most likely for want of descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Listener {
    /// At a path, which is the daemon's.
    Unix(UnixListener, PathBuf),
    /// At an address.
    Tcp(TcpListener),
}

/// A client's stream.
pub(super) trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

impl Listener {
    /// # Errors
    /// If another process has the address, or something else is at the path.
    pub(super) fn bind(address: &MetricsAddress) -> Result<Self> {
        let failed = |source| Error::Metrics { address: address.to_string(), source };
        match address {
            MetricsAddress::Tcp(at) => TcpListener::bind(at).map(Self::Tcp),
            MetricsAddress::Unix(path) => {
                bind_unix(path).map(|listener| Self::Unix(listener, path.clone()))
            }
        }
        .map_err(failed)
    }

    /// Calls with one client's stream after the other, for ever.
    pub(super) fn serve(&self, call: impl Fn(&mut dyn Stream)) {
        loop {
            let served = match self {
                Self::Unix(listener, _) => listener.accept().and_then(|(mut stream, _)| {
                    stream.set_read_timeout(Some(SILENCE))?;
                    stream.set_write_timeout(Some(SILENCE))?;
                    call(&mut stream);
                    Ok(())
                }),
                Self::Tcp(listener) => listener.accept().and_then(|(mut stream, _)| {
                    stream.set_read_timeout(Some(SILENCE))?;
                    stream.set_write_timeout(Some(SILENCE))?;
                    call(&mut stream);
                    Ok(())
                }),
            };
            if let Err(error) = served {
                tracing::warn!("a client of metrics cannot be served: {error}");
                thread::sleep(PAUSE);
            }
        }
    }

    /// Nobody looks for the socket any more.
    pub(super) fn remove_file(&self) {
        let Self::Unix(_, path) = self else { return };
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!("{} stays behind: {error}", path.display());
        }
    }
}

/// A socket that a killed daemon left there is replaced: the lock shows that no daemon runs.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
