//! What the daemon tells its service manager: sd_notify(3), as far as the daemon uses it.
//!
//! Enters: datagrams with descriptors. Leaves: messages of the one process that is listened to; what
//! others send is dropped.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType, bind, getsockname, recvmsg, socket_with,
};

/// Longer than any that the daemon sends.
const MESSAGE_BYTES: usize = 1024;
/// Descriptors in one message.
const MAX_FDS: usize = 4;

/// Something that the daemon tells.
#[derive(Debug)]
pub(super) enum Message {
    /// It forwards.
    Ready,
    /// Every worker turns.
    Alive,
    /// It ends by itself.
    Ends,
    /// These are to be passed to the next daemon.
    Keep { name: String, fds: Vec<OwnedFd> },
    /// Those of this name are not.
    Forget { name: String },
}

/// The socket.
pub(super) struct Messages {
    socket: OwnedFd,
    address: String,
}

impl Messages {
    /// Listens at an abstract address that the kernel chooses: it needs no directory, and nobody but the
    /// daemon is listened to.
    pub(super) fn listen() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        // unix(7): a socket that passes credentials is bound to an address at the first use; an address
        // of the family alone asks for one now.
        bind(&socket, &SocketAddrUnix::new_unnamed())?;
        set_socket_passcred(&socket, true)?;
        let address = SocketAddrUnix::try_from(getsockname(&socket)?)?;
        let name = address.abstract_name().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let address = format!("@{}", String::from_utf8_lossy(name));
        Ok(Self { socket, address })
    }

    /// As NOTIFY_SOCKET has it.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next message of this process.
    pub(super) fn next(&self, process: u32) -> io::Result<Option<Message>> {
        loop {
            let mut bytes = [0; MESSAGE_BYTES];
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let len = match recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
            {
                Ok(received) => received.bytes,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let (mut fds, mut sender) = (Vec::new(), None);
            for message in control.drain() {
                match message {
                    RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                    RecvAncillaryMessage::ScmCredentials(credentials) => {
                        sender = u32::try_from(credentials.pid.as_raw_pid()).ok();
                    }
                    _ => {}
                }
            }
            if sender != Some(process) {
                continue;
            }
            let text = String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into_owned();
            if let Some(message) = read(&text, fds) {
                return Ok(Some(message));
            }
        }
    }
}

/// A message, if it is one that we act upon.
fn read(text: &str, fds: Vec<OwnedFd>) -> Option<Message> {
    let value = |key| text.lines().find_map(|line| line.strip_prefix(key));
    let name = || value("FDNAME=").map(str::to_owned);
    match text {
        _ if value("READY=") == Some("1") => Some(Message::Ready),
        _ if value("WATCHDOG=") == Some("1") => Some(Message::Alive),
        _ if value("STOPPING=") == Some("1") => Some(Message::Ends),
        _ if value("FDSTORE=") == Some("1") => Some(Message::Keep { name: name()?, fds }),
        _ if value("FDSTOREREMOVE=") == Some("1") => Some(Message::Forget { name: name()? }),
        _ => None,
    }
}
