//! What can go wrong with rtnetlink, one sentence each; the system's own words are the source.

use std::io;

/// A `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, on what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket failed.
    #[error("cannot {action} the netlink socket")]
    NetlinkSocket {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },

    /// The kernel refused a netlink request.
    #[error("the kernel refused to {action}")]
    Netlink {
        /// What was asked for.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },

    /// The kernel's answer could not be read.
    #[error("the kernel's answer to a netlink request is malformed: {reason}")]
    NetlinkAnswer {
        /// What is wrong with it.
        reason: String,
    },
}
