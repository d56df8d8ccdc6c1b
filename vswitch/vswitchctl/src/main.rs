//! `vswitchctl`: the operator's tool. Asks the daemon over its control socket and prints.

#![forbid(unsafe_code)]

mod arguments;
mod print;

use std::io::{self, Write};
use std::process::ExitCode;

use api::{ClientError, PATIENCE, Reply, Wait};
use clap::Parser;

use arguments::Arguments;

/// The daemon refused, or is not there.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    // clap ends with 2 if the command line is wrong.
    let arguments = Arguments::parse();
    let request = arguments.command.request();
    let reply = api::call(&arguments.socket, &request, &[], Wait::Silence(PATIENCE));
    let text = match reply.map(|reply| arguments.command.select(reply)) {
        Ok(reply) if arguments.json => print::json(&reply),
        Ok(Reply::Done) => String::new(),
        Ok(reply) => print::text(&reply),
        Err(error) => return fail(&error),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // `| head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

fn fail(error: &ClientError) -> ExitCode {
    let _ = writeln!(io::stderr(), "vswitchctl: {}", api::chain(error));
    ExitCode::from(FAILED)
}
