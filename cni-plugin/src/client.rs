//! The control socket of vswitchd: a request goes out, with the port's descriptor where one travels
//! with it; the reply comes back before the deadline, or an error does. Called by the commands.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use api::{AttachmentId, Decoder, Reply, Request};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, socket_with,
};

use crate::deadline::Deadline;
use crate::error::Error;

/// How long to wait before another attempt while the daemon's backlog is full.
const BACKLOG_PAUSE: Duration = Duration::from_millis(5);

/// Sends `request` on a connection of its own, and reads the reply. `doing` completes the message
/// "vswitchd cannot …".
///
/// # Errors
/// `Unreachable` if nobody listens, `NoAnswer` if the request may or may not have been carried out,
/// `Daemon` if it was refused.
pub(crate) fn call(
    socket: &Path,
    doing: &'static str,
    request: &Request,
    descriptor: Option<BorrowedFd<'_>>,
    deadline: &Deadline,
) -> Result<Reply, Error> {
    let mut stream = open(socket, deadline)
        .map_err(|source| Error::Unreachable { socket: socket.to_owned(), source })?;
    let no_answer = |why: String| Error::NoAnswer { socket: socket.to_owned(), why };
    let response = exchange(&mut stream, request, descriptor, deadline).map_err(no_answer)?;
    response.map_err(|reply| Error::Daemon { doing, reply })
}

/// As `call`, for a request whose only good answer is `Done`.
///
/// # Errors
/// As `call`.
pub(crate) fn order(
    socket: &Path,
    doing: &'static str,
    request: &Request,
    descriptor: Option<BorrowedFd<'_>>,
    deadline: &Deadline,
) -> Result<(), Error> {
    match call(socket, doing, request, descriptor, deadline)? {
        Reply::Done => Ok(()),
        other => Err(unexpected(socket, &other)),
    }
}

/// Frees whatever the daemon holds for `attachment`.
///
/// # Errors
/// As `call`.
pub(crate) fn detach(
    socket: &Path,
    attachment: &AttachmentId,
    deadline: &Deadline,
) -> Result<(), Error> {
    order(socket, "detach the pod", &Request::Detach(attachment.clone()), None, deadline)
}

/// The error for a reply to another question.
pub(crate) fn unexpected(socket: &Path, reply: &Reply) -> Error {
    let shown: String = format!("{reply:?}").chars().take(80).collect();
    Error::NoAnswer { socket: socket.to_owned(), why: format!("its reply was {shown}") }
}

/// A blocking `connect` waits for ever on a full backlog; so it is made non-blocking.
fn open(path: &Path, deadline: &Deadline) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match connect(&socket, &address) {
            Ok(()) => break,
            Err(Errno::AGAIN | Errno::INTR) if deadline.remaining().is_some() => {
                thread::sleep(BACKLOG_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn exchange(
    stream: &mut UnixStream,
    request: &Request,
    descriptor: Option<BorrowedFd<'_>>,
    deadline: &Deadline,
) -> Result<api::Response, String> {
    let bytes = api::encode_request(request).map_err(|error| error.to_string())?;
    send(stream, &bytes, descriptor, deadline).map_err(|error| why("sending", &error))?;
    let mut decoder = Decoder::for_responses();
    let mut chunk = [0; 16 * 1024];
    loop {
        if let Some(response) = decoder.next_response().map_err(|error| error.to_string())? {
            return Ok(response);
        }
        let len = time_left(deadline)
            .and_then(|left| stream.set_read_timeout(Some(left)))
            .and_then(|()| stream.read(&mut chunk));
        match len {
            Ok(0) => return Err("it closed the connection".into()),
            Ok(len) => decoder.feed(&chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(why("receiving", &error)),
        }
    }
}

fn send(
    stream: &mut UnixStream,
    mut bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
    deadline: &Deadline,
) -> io::Result<()> {
    stream.set_write_timeout(Some(time_left(deadline)?))?;
    if let Some(descriptor) = descriptor {
        // unix(7): ancillary data belongs to the first byte that is sent with it.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        assert!(
            control.push(SendAncillaryMessage::ScmRights(&descriptors)),
            "the buffer has space for one descriptor"
        );
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

fn time_left(deadline: &Deadline) -> io::Result<Duration> {
    deadline.remaining().ok_or_else(|| io::ErrorKind::TimedOut.into())
}

fn why(doing: &str, error: &io::Error) -> String {
    match error.kind() {
        // A socket's own timeout shows as EAGAIN.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("{doing} took too long"),
        _ => format!("{doing}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::thread;
    use std::time::Duration;

    use api::{Decoder, ErrorKind, ErrorReply, Reply, Request, Response};

    use super::call;
    use crate::deadline::Deadline;
    use crate::error::Error;

    fn socket() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        (dir, path)
    }

    fn ask(path: &std::path::Path, deadline_ms: u64) -> Result<Reply, Error> {
        let deadline = Deadline::after(Duration::from_millis(deadline_ms));
        call(path, "say so", &Request::Status, None, &deadline)
    }

    fn answered(response: Option<Response>) -> Result<Reply, Error> {
        let (_dir, path) = socket();
        let listener = UnixListener::bind(&path).expect("bound");
        let daemon = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut decoder = Decoder::for_requests();
            let mut byte = [0];
            while decoder.next_request().expect("ours").is_none() {
                stream.read_exact(&mut byte).expect("a request");
                decoder.feed(&byte);
            }
            if let Some(response) = response {
                stream.write_all(&api::encode_response(&response).expect("small")).expect("sent");
            }
        });
        let reply = ask(&path, 10_000);
        daemon.join().expect("the daemon's thread");
        reply
    }

    #[test]
    fn replies_and_refusals_come_back() {
        assert!(matches!(answered(Some(Ok(Reply::Done))), Ok(Reply::Done)));
        let refusal = ErrorReply { kind: ErrorKind::Exhausted, message: "none left".into() };
        let error = answered(Some(Err(refusal))).expect_err("refused");
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (11, "vswitchd cannot say so: none left")
        );
    }

    #[test]
    fn a_connection_that_is_closed_is_no_answer() {
        assert!(matches!(answered(None), Err(Error::NoAnswer { .. })));
    }

    #[test]
    fn nobody_there_is_try_again_later() {
        let (_dir, path) = socket();
        let error = ask(&path, 100).expect_err("nobody listens");
        assert!(matches!(error, Error::Unreachable { .. }));
        assert_eq!(error.code(), 11);
    }

    #[test]
    fn a_daemon_that_hangs_is_not_waited_for() {
        let (_dir, path) = socket();
        let _listener = UnixListener::bind(&path).expect("bound");
        let error = ask(&path, 50).expect_err("nobody answers");
        assert_eq!(error.code(), 11);
        assert!(error.to_string().ends_with("receiving took too long"), "{error}");
    }
}
