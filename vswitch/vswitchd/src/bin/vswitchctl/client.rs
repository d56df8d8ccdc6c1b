//! One question over the control socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{CodecError, Decoder, ErrorReply, Request, Response, encode_request};

/// The daemon answers within a second, a million routes within a few.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer to print.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error(
        "no vswitchd listens at {0}; start it (systemctl start vswitchd), or name its socket by --socket"
    )]
    NoDaemon(PathBuf),
    /// The socket is root's.
    #[error("{0} is root's: run vswitchctl as root")]
    Forbidden(PathBuf),
    /// It is there, and says nothing.
    #[error(
        "vswitchd at {path} did not answer within {} seconds; see whether it is stopped, and its log",
        patience.as_secs()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The connection broke.
    #[error("the connection to vswitchd at {path} failed")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not our protocol.
    #[error("vswitchd and vswitchctl do not understand one another")]
    Codec(#[from] CodecError),
    /// It said no.
    #[error("{0}")]
    Refused(ErrorReply),
}

/// Asks and waits for the answer.
///
/// # Errors
/// If there is none.
pub(crate) fn ask(path: &Path, request: &Request) -> Result<Response, ClientError> {
    ask_within(PATIENCE, path, request)
}

fn ask_within(patience: Duration, path: &Path, request: &Request) -> Result<Response, ClientError> {
    let mut stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NoDaemon(path.to_owned())
        }
        io::ErrorKind::PermissionDenied => ClientError::Forbidden(path.to_owned()),
        _ => ClientError::Broken { path: path.to_owned(), source: error },
    })?;
    let broken = |source: io::Error| match source.kind() {
        // A socket's own timeout shows as EAGAIN.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            ClientError::Silent { path: path.to_owned(), patience }
        }
        _ => ClientError::Broken { path: path.to_owned(), source },
    };
    let bytes = encode_request(request)?;
    stream
        .set_read_timeout(Some(patience))
        .and_then(|()| stream.set_write_timeout(Some(patience)))
        .map_err(broken)?;
    // A daemon that refuses us closes before it has read everything: its answer says why.
    let sent = stream.write_all(&bytes);
    let mut decoder = Decoder::for_responses();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if let Some(response) = decoder.next_response()? {
            return Ok(response);
        }
        match stream.read(&mut buffer) {
            Ok(0) => {
                sent.map_err(broken)?;
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(len) => decoder.feed(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use api::Request;

    use super::{ask, ask_within};

    #[test]
    fn a_daemon_that_is_not_there_or_says_nothing_is_told_apart() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let path = dir.path().join("vswitch.sock");
        let error = ask(&path, &Request::Status).expect_err("nobody listens");
        assert!(error.to_string().contains("no vswitchd listens"), "{error}");

        // As a stopped process: the kernel takes the connection and the question for it.
        let _stopped = UnixListener::bind(&path).expect("the directory is ours");
        let error = ask_within(Duration::from_millis(20), &path, &Request::Status)
            .expect_err("nobody answers");
        assert!(error.to_string().contains("did not answer within"), "{error}");
    }
}
