//! All system calls of the daemon, save rtnetlink's.
//!
//! Frames enter from pods and from the NIC and leave to them; what forwards them is not known
//! here. Synchronous: a worker polls, or sleeps in epoll on the fds. Whatever opens a socket or
//! `/dev/net/tun` does so in the network namespace of the calling thread.
//!
//! | module | holds |
//! |---|---|
//! | [`port`]    | a pod's or the host's TAP, or a socketpair that plays one |
//! | [`uplink`]  | the NIC, by whichever kind takes it: what workers receive from and send to |
//! | [`pinhole`] | the XDP program that takes only what is ours from the NIC |
//! | [`xsk`]     | one AF_XDP socket for each NIC queue |
//! | [`ethtool`] | a NIC's driver and the number of its queues |
//! | [`fdpass`]  | file descriptors over a unix socket, and the process that sent them |
//! | [`session_file`] | the mapped files under the session table |
//! | [`activation`] | sockets that the service manager opened for us |
//! | [`xtables`] | whether iptables-legacy's firewall drops what is forwarded |

pub mod activation;
mod error;
pub mod ethtool;
pub mod fdpass;
pub mod pinhole;
pub mod port;
pub mod session_file;
mod sys;
pub mod uplink;
pub mod xsk;
pub mod xtables;

pub use error::{Error, Result};
