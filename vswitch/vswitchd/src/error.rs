//! What can end the daemon, or keep it from starting.

use std::path::PathBuf;

pub use api::chain;

use crate::config_file::Refusal;
use crate::journal::JournalError;

/// A `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, on what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot work.
    #[error("the configuration cannot be used:\n{0}")]
    Config(Refusal),
    /// Another daemon is there already.
    #[error(
        "another vswitchd is running and holds {path}; stop it first, or give this one its own {key}"
    )]
    AlreadyRunning {
        /// The lock.
        path: PathBuf,
        /// The configuration key that would keep them apart.
        key: &'static str,
    },
    /// A file or socket of the daemon's own.
    #[error("cannot {action} {path}")]
    File {
        /// The operation that failed.
        action: &'static str,
        /// The file or socket.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The service manager's socket is not the one that clients look for.
    #[error(
        "the service manager should have passed one socket that listens at {path} (control.socket), but {why}; make ListenStream= of vswitchd.socket and control.socket the same"
    )]
    Inherited {
        /// control.socket.
        path: PathBuf,
        /// What the service manager did instead.
        why: String,
    },
    /// A test's.
    #[error(transparent)]
    Fault(#[from] failpoint::Fault),
    /// The state cannot be used.
    #[error("the journal cannot be used")]
    Journal(#[from] JournalError),
    /// The NIC cannot be used.
    #[error("the uplink {interface} cannot be used")]
    Uplink {
        /// Name of the interface.
        interface: String,
        /// Why.
        source: netio::Error,
    },
    /// Native XDP was demanded and is not to be had.
    #[error(
        "uplink.xdp is \"native\", but {interface} gave {mode}; set it to \"auto\" to accept that"
    )]
    NotNative {
        /// The NIC.
        interface: String,
        /// The mode that it gave, and why.
        mode: String,
    },
    /// The kernel lacks what the kind `offload` takes.
    #[error(
        "the uplink {interface} cannot be of the kind \"offload\"; set uplink.kind to \"af_xdp\", or to \"auto\", which falls back to that"
    )]
    OffloadUplink {
        /// The NIC.
        interface: String,
        /// Why.
        source: netio::Error,
    },
    /// Not even packet sockets are to be had.
    #[error("the uplink {interface} cannot be of the kind \"af_packet\"")]
    PacketUplink {
        /// The NIC.
        interface: String,
        /// Why.
        source: netio::Error,
    },
    /// The host port's TAP cannot be made.
    #[error("the host port {interface} cannot be made")]
    HostTap {
        /// Name of the interface.
        interface: String,
        /// Why.
        source: netio::Error,
    },
    /// The host port cannot be given its addresses, neighbours or routes.
    #[error("the host port {interface} cannot be set up")]
    Host {
        /// Name of the interface.
        interface: String,
        /// Why.
        source: netlink::Error,
    },
    /// Its name or a prefix is taken.
    #[error("the host port cannot be made: {0}")]
    HostTaken(String),
    /// The masquerading rules cannot be set.
    #[error("the masquerading rules cannot be set: {0}")]
    Masquerade(String),
    /// `nft` was waited for, in vain.
    #[error("the masquerading rules cannot be set: {0}")]
    NftTooSlow(String),
    /// The kernel does not take what the node needs.
    #[error("the node cannot be made ready: {0}")]
    NotStarted(String),
    /// The kernel's netlink cannot be used.
    #[error("the kernel cannot be asked about its interfaces")]
    Netlink(#[source] netlink::Error),
    /// A worker cannot start.
    #[error("the workers cannot be started")]
    Workers(#[source] std::io::Error),
    /// The kernel takes no filter of system calls.
    #[error(
        "the kernel takes no filter of system calls; set sandbox.seccomp = \"off\" to run without one"
    )]
    Sandbox(#[source] std::io::Error),
    /// The daemon that was asked to drain the node did not.
    #[error(
        "the node is not drained; a daemon has to run for that, as it has the pods' ports open"
    )]
    Drain(#[source] api::ClientError),
    /// Metrics have no socket.
    #[error(
        "metrics cannot be read from {address} (metrics.listen); stop what has that address, or choose another"
    )]
    Metrics {
        /// The address.
        address: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The control thread cannot wait for events.
    #[error("the control thread cannot {action}")]
    Control {
        /// The operation that failed.
        action: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

impl Error {
    /// The exit code of a daemon that ends by this: 2 if the configuration has to be changed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Config(_)) { Self::CONFIGURATION } else { 1 }
    }

    /// The exit code of a daemon whose configuration has to be changed.
    pub const CONFIGURATION: u8 = 2;
}
