//! Requests to vswitchd by its control socket, with the plugin's deadline and errors. Called by the
//! commands.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use api::{Attach, AttachmentId, ClientError, Mac, Reply, Request, Wait};

use crate::deadline::Deadline;
use crate::error::Error;

/// Sends `request` on a connection of its own, and reads the reply. `doing` completes the message
/// "vswitchd cannot …".
///
/// # Errors
/// `Unreachable` if no daemon has it, `NoAnswer` if the request may or may not have been carried out,
/// `Daemon` if it was refused.
pub(crate) fn call(
    socket: &Path,
    doing: &'static str,
    request: &Request,
    deadline: &Deadline,
) -> Result<Reply, Error> {
    send(socket, doing, request, &[], deadline)
}

fn send(
    socket: &Path,
    doing: &'static str,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
    deadline: &Deadline,
) -> Result<Reply, Error> {
    let wait = Wait::Until(deadline.moment());
    api::call(socket, request, descriptors, wait).map_err(|error| match error {
        ClientError::Refused(reply) => Error::Daemon { doing, reply },
        error if error.is_unsent() => Error::Unreachable(error),
        error => Error::NoAnswer(error),
    })
}

/// Hands a pod's interface over: each queue of the TAP, and the process whose namespace it is in, if its path
/// names one.
///
/// # Errors
/// As `call`.
pub(crate) fn attach(
    socket: &Path,
    attachment: &AttachmentId,
    mac: Mac,
    queues: &[OwnedFd],
    process: Option<BorrowedFd<'_>>,
    deadline: &Deadline,
) -> Result<(), Error> {
    let descriptors: Vec<_> = queues.iter().map(AsFd::as_fd).chain(process).collect();
    let count = u8::try_from(queues.len()).unwrap_or(u8::MAX);
    let request = Request::Attach(Attach { attachment: attachment.clone(), mac, queues: count });
    match send(socket, "attach the pod", &request, &descriptors, deadline)? {
        Reply::Done => Ok(()),
        other => Err(unexpected(socket, &other)),
    }
}

/// As `call`, for a request with `Done` as its only good answer.
///
/// # Errors
/// As `call`.
pub(crate) fn order(
    socket: &Path,
    doing: &'static str,
    request: &Request,
    deadline: &Deadline,
) -> Result<(), Error> {
    match call(socket, doing, request, deadline)? {
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
    order(socket, "detach the pod", &Request::Detach(attachment.clone()), deadline)
}

/// The error for a reply to another request.
pub(crate) fn unexpected(socket: &Path, reply: &Reply) -> Error {
    Error::NoAnswer(ClientError::unexpected(socket, reply))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};
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

    fn ask(path: &Path, deadline_ms: u64) -> Result<Reply, Error> {
        let deadline = Deadline::after(Duration::from_millis(deadline_ms));
        call(path, "say so", &Request::Status, &deadline)
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
        assert!(error.to_string().contains("did not answer within 0"), "{error}");
    }
}
