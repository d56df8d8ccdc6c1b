use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

use super::{ClientError, Wait, call};
use crate::{Decoder, ErrorKind, ErrorReply, Reply, Request, Response, encode_response};

const LONG: Wait = Wait::Silence(Duration::from_secs(10));
const SHORT: Wait = Wait::Silence(Duration::from_millis(20));

fn socket() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    (dir, path)
}

fn status(path: &Path, wait: Wait) -> Result<Reply, ClientError> {
    call(path, &Request::Status, &[], wait)
}

fn read_request(stream: &mut UnixStream) -> Request {
    let mut decoder = Decoder::for_requests();
    let mut byte = [0];
    loop {
        if let Some(request) = decoder.next_request().expect("ours") {
            return request;
        }
        stream.read_exact(&mut byte).expect("a request");
        decoder.feed(&byte);
    }
}

/// What the client makes of a daemon that reads its request and then does this.
fn answered(answer: impl FnOnce(&mut UnixStream) + Send + 'static) -> Result<Reply, ClientError> {
    let (_dir, path) = socket();
    let listener = UnixListener::bind(&path).expect("bound");
    let daemon = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        assert_eq!(read_request(&mut stream), Request::Status);
        answer(&mut stream);
    });
    let reply = status(&path, LONG);
    daemon.join().expect("the daemon's thread");
    reply
}

fn sends(response: Response) -> impl FnOnce(&mut UnixStream) {
    move |stream| {
        stream.write_all(&encode_response(&response).expect("small")).expect("sent");
    }
}

#[test]
fn replies_and_refusals_come_back() {
    assert!(matches!(answered(sends(Ok(Reply::Done))), Ok(Reply::Done)));
    let refusal = ErrorReply { kind: ErrorKind::Exhausted, message: "none left".into() };
    let error = answered(sends(Err(refusal.clone()))).expect_err("refused");
    assert!(matches!(&error, ClientError::Refused(reply) if *reply == refusal));
    assert_eq!((error.to_string().as_str(), error.is_unsent()), ("none left", false));
}

#[test]
fn a_connection_that_is_closed_is_no_answer() {
    let error = answered(|_| {}).expect_err("no answer");
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    assert!(!error.is_unsent(), "it may have been carried out");
}

#[test]
fn an_answer_of_another_protocol_is_named_as_such() {
    let error = answered(|stream| stream.write_all(b"\0\0\0\x02{}").expect("sent"));
    let error = error.expect_err("no answer of ours");
    assert!(error.to_string().contains("install the same version of both"), "{error}");
}

#[test]
fn a_daemon_that_is_not_there_or_says_nothing_is_told_apart() {
    let (_dir, path) = socket();
    let error = status(&path, LONG).expect_err("no socket");
    assert!(error.to_string().starts_with("no vswitchd listens at"), "{error}");
    assert!(error.is_unsent());

    // As a stopped process: the kernel takes the connection and the request for it.
    let stopped = UnixListener::bind(&path).expect("the directory is ours");
    for wait in [SHORT, Wait::Until(Instant::now() + Duration::from_millis(20))] {
        let error = status(&path, wait).expect_err("nobody answers");
        assert!(error.to_string().contains("did not answer within 0"), "{error}");
        assert!(!error.is_unsent());
    }

    drop(stopped);
    let error = status(&path, LONG).expect_err("nobody listens");
    assert!(matches!(error, ClientError::NotRunning { .. }), "{error}");
}

#[test]
fn a_full_backlog_is_not_waited_for_for_ever() {
    let (_dir, path) = socket();
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let listener = listener.expect("a socket");
    bind(&listener, &SocketAddrUnix::new(&path).expect("short")).expect("bound");
    listen(&listener, 1).expect("listens");
    let mut waiting = Vec::new();
    let error = loop {
        match super::open(&path, SHORT) {
            Ok(stream) => waiting.push(stream),
            Err(error) => break ClientError::of_connect(&path, error),
        }
    };
    assert!(matches!(error, ClientError::Busy { .. }), "{error}");
    assert!(error.is_unsent());
}

#[test]
fn a_refusal_before_the_request_is_read_is_still_heard() {
    let (_dir, path) = socket();
    let listener = UnixListener::bind(&path).expect("bound");
    let refusal = ErrorReply { kind: ErrorKind::Invalid, message: "not you".into() };
    let response = Err(refusal.clone());
    let daemon = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        sends(response)(&mut stream);
        stream.shutdown(std::net::Shutdown::Both).expect("connected");
        stream
    });
    // More than a socket holds, so that the rest of it finds the connection closed.
    let prefixes = vec!["2001:db8:ffff:ffff::/64".parse().expect("a prefix"); 100_000];
    let error = call(&path, &Request::SetPodPrefixes(prefixes), &[], LONG).expect_err("refused");
    assert!(matches!(&error, ClientError::Refused(reply) if *reply == refusal), "{error}");
    drop(daemon.join().expect("the daemon's thread"));
}

#[test]
fn a_descriptor_travels_with_the_first_byte() {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::mem::MaybeUninit;

    let (_dir, path) = socket();
    let listener = UnixListener::bind(&path).expect("bound");
    let daemon = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let into = &mut [std::io::IoSliceMut::new(&mut byte)];
        recvmsg(&stream, into, &mut control, RecvFlags::CMSG_CLOEXEC).expect("a byte");
        let mut descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights.collect::<Vec<_>>()),
            _ => None,
        });
        let descriptors = descriptors.next().expect("with the first byte");
        sends(Ok(Reply::Done))(&mut stream);
        descriptors.into_iter().next().expect("one")
    });
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    let reply = call(&path, &Request::Status, &[theirs.as_fd()], LONG);
    assert!(matches!(reply, Ok(Reply::Done)));
    drop(theirs);
    let mut arrived = UnixStream::from(daemon.join().expect("the daemon's thread"));
    arrived.write_all(b"x").expect("connected still");
    let mut byte = [0];
    ours.read_exact(&mut byte).expect("the same socket");
    assert_eq!(byte, *b"x");
}

#[test]
fn a_deadline_bounds_a_daemon_that_goes_on_sending() {
    let (_dir, path) = socket();
    let listener = UnixListener::bind(&path).expect("bound");
    let daemon = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        // An answer of a megabyte, a byte at a time, until the client has had enough.
        let mut next: &[u8] = &[0, 0x10, 0, 0];
        while stream.write_all(&next[..1]).is_ok() {
            next = if next.len() > 1 { &next[1..] } else { b" " };
            thread::sleep(Duration::from_millis(1));
        }
    });
    let wait = Wait::Until(Instant::now() + Duration::from_millis(50));
    let error = status(&path, wait).expect_err("never whole");
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
    daemon.join().expect("the daemon's thread");
}
