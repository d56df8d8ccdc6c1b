//! `drops --follow`: asks for dropped packets once a second, and prints them as they come.
//!
//! Enters: what to follow and until when; signals. Leaves: a line a flow and second, or a JSON object a
//! sample; at the end how many that were, and how many the counters counted meanwhile.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use api::{ClientError, FollowDrops, FollowedDrops, PATIENCE, Reply, Request, Wait};

use crate::arguments::Limits;
use crate::interruption::Interruption;
use crate::print::{Fold, followed_json, summary};

/// A worker's limit of samples is one of a second, and its ring has room for more than that.
const PAUSE: Duration = Duration::from_secs(1);

/// Why it ended before its time.
#[derive(Debug)]
pub(crate) enum FollowError {
    /// The daemon refused, or did not answer.
    Client(ClientError),
    /// Nothing can be printed, or no signal be caught.
    Io(io::Error),
}

impl From<ClientError> for FollowError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for FollowError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    lines: u64,
    counted: u64,
    most_a_second: u32,
    /// The daemon's counter at the last answer.
    counter: Option<u64>,
}

impl Seen {
    fn note(&mut self, answer: &FollowedDrops) {
        self.most_a_second = answer.most_a_second;
        // A daemon that was started anew counts from zero.
        let since = |before: u64| answer.counted.checked_sub(before).unwrap_or(answer.counted);
        self.counted += self.counter.map_or(0, since);
        self.counter = Some(answer.counted);
    }
}

/// Follows until a limit, a signal, or an error.
///
/// # Errors
/// If the daemon does not answer or nothing can be printed.
pub(crate) fn follow(
    socket: &Path,
    mut asked: FollowDrops,
    limits: Limits,
    json: bool,
    out: &mut impl Write,
) -> Result<(), FollowError> {
    let mut interruption = Interruption::new()?;
    let end = limits.time.map(|time| Instant::now() + time);
    let (mut seen, mut last) = (Seen::default(), Instant::now());
    let result = loop {
        let answer = match ask(socket, &asked) {
            Ok(answer) => answer,
            Err(error) => break Err(error.into()),
        };
        let is_first = seen.counter.is_none();
        seen.note(&answer);
        let now = Instant::now();
        let lines = if json {
            answer.samples.iter().map(followed_json).collect()
        } else {
            Fold::of(&answer.samples).lines(now.duration_since(last))
        };
        last = now;
        let left = limits.count.map_or(u64::MAX, |count| count - seen.lines);
        for line in lines.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            writeln!(out, "{line}")?;
            seen.lines += 1;
        }
        out.flush()?;
        asked.since = answer.next;
        let is_over = |end: Instant| Instant::now() >= end && !is_first;
        if limits.count == Some(seen.lines) || end.is_some_and(is_over) {
            break Ok(());
        }
        let pause =
            end.map_or(PAUSE, |end| PAUSE.min(end.saturating_duration_since(Instant::now())));
        if interruption.comes_within(pause)? {
            break Ok(());
        }
    };
    // Nothing to sum up if the daemon never answered.
    if seen.counter.is_some() {
        let text = summary(seen.lines, seen.counted, seen.most_a_second, asked.reason.as_deref());
        if json { writeln!(io::stderr(), "{text}")? } else { writeln!(out, "{text}")? }
    }
    result
}

fn ask(socket: &Path, asked: &FollowDrops) -> Result<FollowedDrops, ClientError> {
    let request = Request::FollowDrops(asked.clone());
    match api::call(socket, &request, &[], Wait::Silence(PATIENCE))? {
        Reply::FollowedDrops(answer) => Ok(answer),
        other => Err(ClientError::unexpected(socket, &other)),
    }
}
