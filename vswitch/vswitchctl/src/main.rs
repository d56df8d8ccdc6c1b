//! `vswitchctl`: the operator's tool. Asks the daemon over its control socket and prints.

#![forbid(unsafe_code)]

mod arguments;
mod follow;
mod interruption;
mod latency;
mod print;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use api::{ClientError, FollowDrops, PATIENCE, Reply, Request, Wait};
use clap::Parser;

use arguments::{Arguments, Command, Intervals, Limits};
use follow::FollowError;

/// The daemon refused, or is not there.
const FAILED: u8 = 1;
/// The connection that was asked about is denied.
const DENIED: u8 = 1;
/// It cannot be told whether it is.
const NOT_TOLD: u8 = 2;

fn main() -> ExitCode {
    // clap ends with 2 if the command line is wrong.
    let arguments = Arguments::parse();
    if let Command::Drops(drops) = &arguments.command
        && let Some((asked, limits)) = drops.followed()
    {
        return follow_drops(&arguments, asked, limits);
    }
    if let Command::Latency(latency) = &arguments.command
        && let Some(intervals) = latency.intervals()
    {
        return watch_latency(&arguments, &latency.request(), intervals);
    }
    let request = arguments.command.request();
    let reply = api::call(&arguments.socket, &request, &[], Wait::Silence(PATIENCE));
    let failed = if matches!(request, Request::Explain(_)) { NOT_TOLD } else { FAILED };
    let is_denied = matches!(&reply, Ok(Reply::Explained(told)) if !told.allowed);
    let answered = if is_denied { ExitCode::from(DENIED) } else { ExitCode::SUCCESS };
    let text = match reply.map(|reply| arguments.command.select(reply)) {
        Ok(reply) if arguments.json => print::json(&reply),
        Ok(Reply::Done) => String::new(),
        Ok(reply) => print::text(&reply),
        Err(error) => return fail(&error, failed),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => answered,
        // `| head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => answered,
        Err(_) => ExitCode::from(failed),
    }
}

fn follow_drops(arguments: &Arguments, asked: FollowDrops, limits: Limits) -> ExitCode {
    let (socket, mut out) = (&arguments.socket, io::stdout().lock());
    shown(follow::follow(socket, asked, limits, arguments.json, &mut out))
}

fn watch_latency(arguments: &Arguments, request: &Request, intervals: Intervals) -> ExitCode {
    let (socket, mut out) = (&arguments.socket, io::stdout().lock());
    shown(watch::watch(socket, request, intervals, arguments.json, &mut out))
}

/// The exit code of what goes on for a time.
fn shown(result: Result<(), FollowError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(FollowError::Client(error)) => fail(&error, FAILED),
        // `| head` has seen enough.
        Err(FollowError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(FollowError::Io(error)) => {
            let _ = writeln!(io::stderr(), "vswitchctl: nothing can be shown: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn fail(error: &ClientError, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "vswitchctl: {}", api::chain(error));
    ExitCode::from(code)
}
