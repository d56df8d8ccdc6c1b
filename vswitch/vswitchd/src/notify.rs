//! Messages to the service manager, systemd or `vswitchd supervise`: sd_notify(3) without the library.
//!
//! Enters: NOTIFY_SOCKET of the environment. Leaves: datagrams, some with descriptors that the service
//! manager keeps while no daemon runs. Without NOTIFY_SOCKET nothing is sent.

use std::env;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};

/// Descriptors in one message: a port's, and a process's.
const MAX_FDS: usize = 2;

/// The service manager, if there is one.
#[derive(Debug, Default, Clone)]
pub struct Notify {
    socket: Option<Arc<(OwnedFd, SocketAddrUnix)>>,
}

impl Notify {
    /// A notifier for the socket that the environment names, if it names one.
    #[must_use]
    pub fn from_env() -> Self {
        let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let address = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
            _ => SocketAddrUnix::new(&path),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
            .and_then(|socket| Ok(Arc::new((socket, address?))));
        let socket = match socket {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!("NOTIFY_SOCKET cannot be used: {error}");
                None
            }
        };
        Self { socket }
    }

    /// Whether there is a service manager.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    /// Sends one state, such as `READY=1`.
    pub fn send(&self, state: &str) {
        if let Err(error) = self.send_with(state, &[]) {
            tracing::warn!("cannot tell the service manager {state}: {error}");
        }
    }

    /// Sends a state with descriptors, at most [`MAX_FDS`].
    ///
    /// # Errors
    /// If it was not sent; `AGAIN` if the service manager has too much to read just now.
    pub fn send_with(&self, state: &str, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let Some((socket, address)) = self.socket.as_deref() else { return Ok(()) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::INVAL);
        }
        let parts = [IoSlice::new(state.as_bytes())];
        sendmsg_addr(socket.as_fd(), address, &parts, &mut control, SendFlags::NOSIGNAL).map(drop)
    }
}
