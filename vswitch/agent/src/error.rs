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
    /// What they say cannot be used.
    #[error("the credentials for the API server cannot be used")]
    Client(#[source] kube::Error),
    /// Nobody listens at the daemon's socket.
    #[error("no vswitchd answers at {path}")]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The daemon is there, and does not answer.
    #[error("vswitchd did not answer within {} seconds", .0.as_secs())]
    SilentDaemon(Duration),
    /// The connection to the daemon ended.
    #[error("the connection to vswitchd ended")]
    DaemonGone(#[source] std::io::Error),
    /// The two speak different protocols.
    #[error("vswitchd and vswitch-agent do not understand one another; upgrade the older one")]
    Codec(#[from] api::CodecError),
    /// The daemon answered another question.
    #[error("vswitchd gave an answer to another question: {0}")]
    Unexpected(String),
    /// The daemon said no.
    #[error("vswitchd refuses: {0}")]
    Refused(api::ErrorReply),
    /// A file cannot be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The daemon was waited for in vain.
    #[error("after {} seconds vswitchd still does not network pods: {why}", waited.as_secs())]
    NotReady {
        /// So long.
        waited: Duration,
        /// What it lacks.
        why: String,
    },
    /// A probe found the agent not ready.
    #[error("not ready: {0}")]
    Probe(String),
    /// The system refuses what the program is made of.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
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
