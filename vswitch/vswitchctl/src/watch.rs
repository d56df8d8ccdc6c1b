//! `latency` of intervals: asks for the counts at the ends of each, and prints what came between.
//!
//! Enters: the request and the intervals; signals. Leaves: a table an interval, or a JSON object.

use std::io::Write;
use std::path::Path;

use api::{ClientError, LatencyReport, PATIENCE, Reply, Request, Wait};

use crate::arguments::Intervals;
use crate::follow::FollowError;
use crate::interruption::Interruption;
use crate::latency::LatencySummary;
use crate::print::{latency_json, latency_text};

/// Shows one interval, or each until a signal.
///
/// # Errors
/// If the daemon does not answer or nothing can be printed.
pub(crate) fn watch(
    socket: &Path,
    request: &Request,
    intervals: Intervals,
    json: bool,
    out: &mut impl Write,
) -> Result<(), FollowError> {
    let mut interruption = Interruption::new()?;
    let mut earlier = ask(socket, request)?;
    let mut is_first = true;
    while !interruption.comes_within(intervals.length)? {
        let later = ask(socket, request)?;
        let summary = LatencySummary::between(&earlier, &later);
        let text = if json {
            latency_json(&summary)
        } else {
            // A line between two tables.
            let separator = if is_first { "" } else { "\n" };
            format!("{separator}{}", latency_text(&summary))
        };
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if !intervals.go_on {
            break;
        }
        (earlier, is_first) = (later, false);
    }
    Ok(())
}

fn ask(socket: &Path, request: &Request) -> Result<LatencyReport, ClientError> {
    match api::call(socket, request, &[], Wait::Silence(PATIENCE))? {
        Reply::Latency(report) => Ok(report),
        other => Err(ClientError::unexpected(socket, &other)),
    }
}
