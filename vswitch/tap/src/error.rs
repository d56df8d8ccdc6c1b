//! What can go wrong with a TAP, one sentence each; the system's own words are the source.

use std::io;

/// A `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, on what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be that of an interface.
    #[error("{name:?} cannot be the name of an interface: 1 to 15 characters, no space, no slash")]
    Name {
        /// The name as given.
        name: String,
    },

    /// `/dev/net/tun` could not be opened.
    #[error("cannot open /dev/net/tun, of which every TAP is made; {advice}")]
    Device {
        /// What stands in the way, and what to do about it.
        advice: String,
        /// What the kernel said.
        source: io::Error,
    },

    /// A TAP could not be made.
    #[error("cannot make the TAP {name}; it needs CAP_NET_ADMIN and a free name")]
    Create {
        /// The name it should have had.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },

    /// A TAP that outlived its descriptors could not be opened again.
    #[error("cannot open the TAP {name} again; a TAP that another process has open says EBUSY")]
    Reattach {
        /// Its name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },

    /// The kernel does not know superframes inside of tunnels.
    #[error(
        "the kernel cannot cut superframes inside of UDP tunnels, which needs Linux 6.17 or later"
    )]
    NoTunnels {
        /// What the kernel said.
        source: io::Error,
    },

    /// A file descriptor is not that of a TAP with the switch's framing.
    #[error("the file descriptor is no TAP of ours: {reason}")]
    NotOurs {
        /// What it is, or what it lacks.
        reason: String,
    },

    /// An operation on a TAP failed while it was set up.
    #[error("cannot {action} on the TAP")]
    Setup {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
