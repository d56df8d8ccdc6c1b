//! One connection.
//!
//! Enters: bytes and file descriptors. Leaves: whole requests to the daemon, their answers back.
//! While an answer is awaited or not read nothing more is read from the client: it holds one request and
//! one answer at most.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use api::{Decoder, ErrorKind, ErrorReply, Request, Response, encode_response};
use mio::net::UnixStream;
use netio::fdpass;

/// Between requests a client may keep its connection this long.
const IDLE: Duration = Duration::from_secs(120);
/// From the first byte of a request to its last, or before an answer of which it reads nothing, this long.
const STALLED: Duration = Duration::from_secs(10);
/// From the first byte of an answer to its last: the largest, of 256 MB, is read at 2 MB a second.
const ANSWERED: Duration = Duration::from_secs(120);
const READ_BYTES: usize = 16 * 1024;

/// What a client needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// An event.
    Waiting,
    /// Another turn: there may be another request.
    More,
    /// The connection is to be closed.
    Closed,
}

pub(super) struct Client {
    stream: UnixStream,
    decoder: Decoder,
    /// Came with bytes that are not yet a whole request.
    fds: Vec<OwnedFd>,
    answer: Vec<u8>,
    /// A request was taken that has no answer yet.
    is_awaiting: bool,
    sent: usize,
    /// Closed once the answer is sent.
    is_last: bool,
    /// It is a program that tells the daemon of a cluster.
    is_source: bool,
    active: Instant,
    /// When the first byte came of a request that is not whole.
    begun: Option<Instant>,
    /// When the last answer was made.
    answered: Instant,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: Decoder::for_requests(),
            fds: Vec::new(),
            answer: Vec::new(),
            is_awaiting: false,
            sent: 0,
            is_last: false,
            is_source: false,
            active: Instant::now(),
            begun: None,
            answered: Instant::now(),
        }
    }

    /// Whether it is a program that tells the daemon of a cluster.
    pub(super) fn is_source(&self) -> bool {
        self.is_source
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn stream_mut(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Answers before anything was asked, and is done: what the socket's buffer takes at once.
    pub(super) fn refuse(mut self, refusal: ErrorReply) {
        tracing::warn!("a client is refused: {refusal}");
        self.answer_with(&Err(refusal));
        let _ = self.flush();
    }

    pub(super) fn has_stalled(&self, now: Instant) -> bool {
        let since = |from: Instant| now.saturating_duration_since(from);
        since(self.active) > if self.idle_since().is_some() { IDLE } else { STALLED }
            || self.begun.is_some_and(|begun| since(begun) > STALLED)
            || !self.answer.is_empty() && since(self.answered) > ANSWERED
    }

    /// When the first byte came of a request that is not whole.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// Bytes of that request.
    pub(super) fn held_bytes(&self) -> usize {
        self.decoder.held()
    }

    /// Since when it has neither asked nor been answered.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let has_nothing = self.answer.is_empty() && self.decoder.is_empty() && !self.is_awaiting;
        has_nothing.then_some(self.active)
    }

    /// Sends what is left of an answer, else serves one request, else reads. A request that `handle`
    /// has no answer for yet is answered by [`Self::answer`].
    pub(super) fn progress(
        &mut self,
        handle: impl FnOnce(Request, Vec<OwnedFd>) -> Option<Response>,
    ) -> Progress {
        match self.flush() {
            Ok(true) if self.is_last => return Progress::Closed,
            Ok(true) => {}
            Ok(false) => return Progress::Waiting,
            Err(_) => return Progress::Closed,
        }
        if self.is_awaiting {
            return Progress::Waiting;
        }
        loop {
            match self.decoder.next_request() {
                Ok(Some(request)) => {
                    // They belong to this request: none of the next one's bytes came with them.
                    let fds = std::mem::take(&mut self.fds);
                    self.is_awaiting = true;
                    self.begun = None;
                    self.is_source |= tells(&request);
                    match handle(request, fds) {
                        Some(response) => self.answer(&response),
                        None => return Progress::Waiting,
                    }
                    return Progress::More;
                }
                Ok(None) => {}
                Err(error) => {
                    let message = crate::error::chain(&error);
                    self.answer_with(&Err(ErrorReply { kind: ErrorKind::Invalid, message }));
                    self.is_last = true;
                    return Progress::More;
                }
            }
            match self.read() {
                Ok(true) => {}
                Ok(false) => return Progress::Closed,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Progress::Waiting;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!("a client is closed: {error}");
                    return Progress::Closed;
                }
            }
        }
    }

    /// Answers the request that was taken; `progress` sends it.
    pub(super) fn answer(&mut self, response: &Response) {
        self.is_awaiting = false;
        self.answer_with(response);
    }

    /// Reads once; false at the end.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; READ_BYTES];
        let (len, mut fds) = fdpass::recv(&self.stream, &mut buffer)?;
        self.active = Instant::now();
        // A request that drips in with a descriptor on every byte keeps no more than a few.
        fds.truncate(fdpass::MAX_FDS.saturating_sub(self.fds.len()));
        self.fds.append(&mut fds);
        self.decoder.feed(&buffer[..len]);
        // What came behind a whole request waits for its answer first: its time begins then.
        if !self.decoder.is_empty() {
            self.begun.get_or_insert(self.active);
        }
        Ok(len > 0)
    }

    fn answer_with(&mut self, response: &Response) {
        let encoded = encode_response(response).or_else(|error| {
            let message = crate::error::chain(&error);
            encode_response(&Err(ErrorReply { kind: ErrorKind::Internal, message }))
        });
        match encoded {
            Ok(bytes) => self.answer = bytes,
            Err(error) => {
                tracing::error!("an answer cannot be encoded: {error}");
                self.is_last = true;
            }
        }
        self.sent = 0;
        self.active = Instant::now();
        self.answered = self.active;
    }

    /// True once all is sent.
    fn flush(&mut self) -> io::Result<bool> {
        while let Some(rest) = self.answer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    self.sent += len;
                    self.active = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.answer = Vec::new();
        self.sent = 0;
        Ok(true)
    }
}

/// Whether it is the request of a program that tells the daemon of a cluster, or compares what the daemon
/// has with that.
fn tells(request: &Request) -> bool {
    matches!(
        request,
        Request::SyncPeers(_)
            | Request::SyncServices(_)
            | Request::SyncPolicies(_)
            | Request::PolicyDigest
    )
}
