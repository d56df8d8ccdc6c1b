//! One client against a handler, over a socketpair.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::time::{Duration, Instant};

use api::{
    Attach, AttachmentId, Decoder, ErrorKind, Mac, Reply, Request, Response, encode_request,
};
use mio::net::UnixStream;

use super::client::{Client, Progress};

fn pair() -> (Client, StdStream) {
    let (ours, theirs) = StdStream::pair().expect("a socketpair");
    ours.set_nonblocking(true).expect("a socket");
    (Client::new(UnixStream::from_std(ours)), theirs)
}

/// Lets the client progress until it waits or is closed; what it asked, with the descriptors.
fn serve(client: &mut Client) -> (Vec<(Request, usize)>, Progress) {
    let mut asked = Vec::new();
    loop {
        let progress = client.progress(|request, fds| {
            asked.push((request, fds.len()));
            Some(Ok(Reply::Done))
        });
        if progress != Progress::More {
            return (asked, progress);
        }
    }
}

fn answers(stream: &mut StdStream) -> Vec<Response> {
    stream.set_nonblocking(true).expect("a socket");
    let mut decoder = Decoder::for_responses();
    let mut buffer = [0; 4096];
    let mut answers = Vec::new();
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        decoder.feed(&buffer[..len]);
        while let Some(answer) = decoder.next_response().expect("ours") {
            answers.push(answer);
        }
    }
    answers
}

fn attach() -> Request {
    let attachment = AttachmentId { container_id: "c".into(), ifname: "eth0".into() };
    Request::Attach(Attach { attachment, mac: Mac([2; 6]), queues: 1 })
}

#[test]
fn requests_are_answered_in_order_however_they_come() {
    let (mut client, mut theirs) = pair();
    let mut bytes = encode_request(&Request::Status).expect("small");
    bytes.extend(encode_request(&Request::ShowFib).expect("small"));
    let (first, rest) = bytes.split_at(7);
    theirs.write_all(first).expect("room");
    assert_eq!(serve(&mut client), (Vec::new(), Progress::Waiting));
    theirs.write_all(rest).expect("room");
    let (asked, progress) = serve(&mut client);
    assert_eq!(asked, [(Request::Status, 0), (Request::ShowFib, 0)]);
    assert_eq!(progress, Progress::Waiting);
    assert_eq!(answers(&mut theirs), [Ok(Reply::Done), Ok(Reply::Done)]);
    drop(theirs);
    assert_eq!(serve(&mut client).1, Progress::Closed);
}

#[test]
fn descriptors_belong_to_the_request_that_they_came_with() {
    let (mut client, mut theirs) = pair();
    let (fd, _other) = StdStream::pair().expect("a socketpair");
    let bytes = encode_request(&attach()).expect("small");
    netio::fdpass::send(&theirs, &bytes, &[fd.as_fd()]).expect("room");
    theirs.write_all(&encode_request(&attach()).expect("small")).expect("room");
    assert_eq!(serve(&mut client).0, [(attach(), 1), (attach(), 0)]);
}

#[test]
fn descriptors_that_drip_in_are_bounded() {
    let (mut client, theirs) = pair();
    let (fd, _other) = StdStream::pair().expect("a socketpair");
    for byte in encode_request(&attach()).expect("small") {
        netio::fdpass::send(&theirs, &[byte], &[fd.as_fd()]).expect("room");
    }
    let mut held: Vec<OwnedFd> = Vec::new();
    while client.progress(|_, fds| {
        held = fds;
        Some(Ok(Reply::Done))
    }) == Progress::More
    {}
    assert_eq!(held.len(), netio::fdpass::MAX_FDS);
}

#[test]
fn what_is_no_request_is_answered_once_and_closed() {
    let (mut client, mut theirs) = pair();
    theirs.write_all(b"\0\0\0\x02{}").expect("room");
    theirs.write_all(&encode_request(&Request::Status).expect("small")).expect("room");
    let (asked, progress) = serve(&mut client);
    assert_eq!((asked, progress), (Vec::new(), Progress::Closed));
    let answers = answers(&mut theirs);
    assert!(matches!(answers.as_slice(), [Err(error)] if error.kind == ErrorKind::Invalid));
}

#[test]
fn who_does_not_read_is_not_read_from_and_stalls() {
    let (mut client, mut theirs) = pair();
    let request = encode_request(&Request::ShowFib).expect("small");
    theirs.write_all(&request).expect("room");
    let long = || {
        let message = "x".repeat(8 << 20);
        Some(Err(api::ErrorReply { kind: ErrorKind::Internal, message }))
    };
    assert_eq!(client.progress(|_, _| long()), Progress::More);
    theirs.write_all(&request).expect("room");
    let mut asked = 0;
    for _ in 0..3 {
        let progress = client.progress(|_, _| {
            asked += 1;
            Some(Ok(Reply::Done))
        });
        assert_eq!(progress, Progress::Waiting);
    }
    assert_eq!(asked, 0);
    let now = Instant::now();
    assert!(!client.has_stalled(now));
    assert!(client.has_stalled(now + Duration::from_secs(11)));
    // Between requests it may wait longer.
    let (idle, _theirs) = pair();
    assert!(!idle.has_stalled(now + Duration::from_secs(11)));
}

#[test]
fn a_request_that_drips_in_is_bounded_in_time() {
    let (mut client, mut theirs) = pair();
    let now = Instant::now();
    let request = encode_request(&Request::Status).expect("small");
    for byte in &request[..9] {
        theirs.write_all(&[*byte]).expect("room");
        assert_eq!(serve(&mut client), (Vec::new(), Progress::Waiting));
    }
    assert_eq!(client.held_bytes(), 9);
    assert!(client.begun().is_some_and(|begun| begun >= now));
    assert!(!client.has_stalled(now + Duration::from_secs(9)));
    assert!(client.has_stalled(Instant::now() + Duration::from_secs(11)));
    theirs.write_all(&request[9..]).expect("room");
    assert_eq!(serve(&mut client).0, [(Request::Status, 0)]);
    assert_eq!((client.begun(), client.held_bytes()), (None, 0));
}

#[test]
fn who_waits_for_an_answer_is_not_read_from_and_then_served_in_order() {
    let (mut client, mut theirs) = pair();
    let requests = [Request::Status, Request::ShowFib].map(|one| encode_request(&one));
    theirs.write_all(&requests.map(|one| one.expect("small")).concat()).expect("room");
    assert_eq!(client.progress(|_, _| None), Progress::Waiting);
    // Whatever wakes it, it waits, and it is not one that has nothing to do.
    assert_eq!(serve(&mut client), (Vec::new(), Progress::Waiting));
    assert_eq!((client.idle_since(), answers(&mut theirs)), (None, Vec::new()));
    client.answer(&Ok(Reply::Peers(Vec::new())));
    assert_eq!(serve(&mut client), (vec![(Request::ShowFib, 0)], Progress::Waiting));
    assert_eq!(answers(&mut theirs), [Ok(Reply::Peers(Vec::new())), Ok(Reply::Done)]);
    assert!(client.idle_since().is_some());
}
