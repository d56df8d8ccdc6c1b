//! One request over the control socket, and its reply, for a program that waits for it.
//!
//! Enters: the path of vswitchd's socket, a request, and the port's descriptor where one travels with
//! it. Leaves: the reply, or an error with what to do. The CNI plugin and vswitchctl call
//! [`call`]; the agent, which waits for more than one thing, keeps an asynchronous connection and has
//! the same errors.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, socket_with,
};

use crate::{
    CodecError, Decoder, ErrorReply, MAX_QUEUES, Reply, Request, Response, encode_request,
};

/// How long a client waits for a silent daemon. It answers within a second, about
/// thousands of peers or a million routes within a few.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that a client reads at once.
pub const READ_BYTES: usize = 64 * 1024;

/// Pause between two attempts to connect while the daemon's backlog is full.
const BACKLOG_PAUSE: Duration = Duration::from_millis(5);

/// How long a reply is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until this moment, whatever arrives before.
    Until(Instant),
    /// As long as the daemon is never silent for so long.
    Silence(Duration),
}

impl Wait {
    /// How long the next system call may take; `None` once the time is over.
    fn left(self) -> Option<Duration> {
        let left = match self {
            Self::Until(moment) => moment.checked_duration_since(Instant::now())?,
            Self::Silence(longest) => longest,
        };
        Some(left).filter(|left| !left.is_zero())
    }
}

/// Why a client of the control socket has no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No process listens.
    #[error(
        "no vswitchd listens at {path}; start it (systemctl start vswitchd), or name the socket of the one that runs"
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The socket is not this user's.
    #[error("{path} is root's: run this as root")]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon is there, and accepts no connection.
    #[error("vswitchd at {path} accepts no connection; see whether it is stopped, and its log")]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be connected to for another reason.
    #[error("vswitchd at {path} cannot be connected to")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The request is too large to be sent.
    #[error("the request cannot be sent")]
    Request(#[source] CodecError),
    /// The daemon is there, and does not answer.
    #[error(
        "vswitchd at {path} did not answer within {} seconds; see whether it is stopped, and its log",
        tenths(.patience)
    )]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The connection ended, or broke.
    #[error("the connection to vswitchd at {path} ended; its log says why")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The answer is no reply of this protocol.
    #[error("vswitchd at {path} speaks another protocol; install the same version of both")]
    Reply {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        source: CodecError,
    },
    /// The daemon replied to another request.
    #[error("vswitchd at {path} replied to another request: {reply}")]
    Unexpected {
        /// The socket.
        path: PathBuf,
        /// The beginning of its reply.
        reply: String,
    },
    /// The daemon did not do as asked.
    #[error("{0}")]
    Refused(ErrorReply),
}

impl ClientError {
    /// The error for a failure to connect.
    #[must_use]
    pub fn of_connect(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Self::NotRunning { path, source }
            }
            io::ErrorKind::PermissionDenied => Self::Forbidden { path },
            // connect(2): the backlog of a unix socket is full.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Busy { path },
            _ => Self::Connect { path, source },
        }
    }

    /// The error for a connection that failed while a reply was waited for.
    #[must_use]
    pub fn of_exchange(path: &Path, patience: Duration, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            // A socket's own timeout shows as EAGAIN.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent { path, patience },
            _ => Self::Broken { path, source },
        }
    }

    /// The error for a reply to another request.
    #[must_use]
    pub fn unexpected(path: &Path, reply: &Reply) -> Self {
        let reply = format!("{reply:?}").chars().take(80).collect();
        Self::Unexpected { path: path.to_owned(), reply }
    }

    /// True if the daemon has not seen the request; otherwise it may have done as asked.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        matches!(
            self,
            Self::NotRunning { .. }
                | Self::Forbidden { .. }
                | Self::Busy { .. }
                | Self::Connect { .. }
                | Self::Request(_)
        )
    }
}

/// Descriptors that a request carries at most: one for each queue of an interface, and a process's.
const MAX_DESCRIPTORS: usize = MAX_QUEUES as usize + 1;

/// Sends `request` on a connection of its own, and with it at most nine descriptors; reads the reply.
///
/// # Errors
/// If the daemon cannot be reached, does not answer in time, or refuses.
pub fn call(
    path: &Path,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
    wait: Wait,
) -> Result<Reply, ClientError> {
    let patience = wait.left().unwrap_or_default();
    let bytes = encode_request(request).map_err(ClientError::Request)?;
    let mut stream = open(path, wait).map_err(|error| ClientError::of_connect(path, error))?;
    let failed = |error| ClientError::of_exchange(path, patience, error);
    // A daemon that refuses us closes before it has read everything: its answer gives the reason.
    let sent = send(&mut stream, &bytes, descriptors, wait);
    if let Some(place) = failpoint_of(request) {
        failpoint::hit(place).map_err(|fault| failed(fault.into()))?;
    }
    let response = receive(&mut stream, wait).map_err(|failure| match (failure, sent) {
        (Failure::Codec(source), _) => ClientError::Reply { path: path.to_owned(), source },
        (Failure::Closed, Err(error)) => failed(error),
        (Failure::Closed, Ok(())) => failed(io::ErrorKind::UnexpectedEof.into()),
        (Failure::Io(error), _) => failed(error),
    })?;
    response.map_err(ClientError::Refused)
}

/// The failpoint between a request and its reply.
fn failpoint_of(request: &Request) -> Option<&'static str> {
    match request {
        Request::Reserve(_) => Some("call-reserve-sent"),
        Request::Attach(_) => Some("call-attach-sent"),
        Request::Detach(_) => Some("call-detach-sent"),
        _ => None,
    }
}

/// A blocking `connect` waits for ever on a full backlog; so it is made non-blocking.
fn open(path: &Path, wait: Wait) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let begun = Instant::now();
    let is_time = || match wait {
        Wait::Until(_) => wait.left().is_some(),
        Wait::Silence(longest) => begun.elapsed() < longest,
    };
    loop {
        match connect(&socket, &address) {
            Ok(()) => break,
            Err(Errno::AGAIN | Errno::INTR) if is_time() => thread::sleep(BACKLOG_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn send(
    stream: &mut UnixStream,
    mut bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    wait: Wait,
) -> io::Result<()> {
    stream.set_write_timeout(Some(time_left(wait)?))?;
    if !descriptors.is_empty() {
        // unix(7): ancillary data belongs to the first byte that is sent with it.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let sent = loop {
            match sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
            {
                Err(Errno::INTR) => {}
                result => break result?,
            }
        };
        bytes = &bytes[sent..];
    }
    stream.write_all(bytes)
}

/// Why no response came.
enum Failure {
    Closed,
    Codec(CodecError),
    Io(io::Error),
}

fn receive(stream: &mut UnixStream, wait: Wait) -> Result<Response, Failure> {
    let mut decoder = Decoder::for_responses();
    let mut chunk = vec![0; READ_BYTES];
    loop {
        if let Some(response) = decoder.next_response().map_err(Failure::Codec)? {
            return Ok(response);
        }
        let timeout = time_left(wait).map_err(Failure::Io)?;
        stream.set_read_timeout(Some(timeout)).map_err(Failure::Io)?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(Failure::Closed),
            Ok(len) => decoder.feed(&chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::Io(error)),
        }
    }
}

fn time_left(wait: Wait) -> io::Result<Duration> {
    wait.left().ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// Seconds, to a tenth.
fn tenths(duration: &Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests;
