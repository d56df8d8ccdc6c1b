//! Why the agent ends, or what it waits for.

use std::path::PathBuf;
use std::time::Duration;

pub use api::chain;

/// What failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to the API server.
    #[error(
        "the API server cannot be used: {0}; name a kubeconfig by --kubeconfig, or run in a pod"
    )]
    Credentials(String),
    /// The credentials cannot be used.
    #[error("the credentials for the API server cannot be used")]
    Client(#[source] kube::Error),
    /// The daemon cannot be reached, does not answer, or refuses.
    #[error(transparent)]
    Daemon(#[from] api::ClientError),
    /// A file cannot be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// The operation that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The daemon was waited for in vain.
    #[error("after {} seconds vswitchd still does not network pods: {why}", waited.as_secs())]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// What the daemon lacks.
        why: String,
    },
    /// A probe found the agent not ready.
    #[error("not ready: {0}")]
    Probe(String),
    /// The system refuses what the program is made of.
    #[error("cannot {action}")]
    System {
        /// The operation that failed.
        action: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

/// The crate's results.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The exit code of a program that ends by this: 2 if its command line must be changed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Credentials(_) | Self::Client(_)) { 2 } else { 1 }
    }
}
