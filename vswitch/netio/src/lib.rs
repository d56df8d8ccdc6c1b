//! All system calls of the daemon.
//!
//! Frames enter from pods and from the NIC and leave to them; what forwards them is not known
//! here. Synchronous: a worker polls, or sleeps in epoll on the fds. Whatever opens a socket or
//! `/dev/net/tun` does so in the network namespace of the calling thread.
//!
//! | module | holds |
//! |---|---|
//! | [`netlink`] | the kernel's links, addresses, routes and neighbours |

mod error;
pub mod netlink;
mod sys;

pub use error::{Error, Result};
