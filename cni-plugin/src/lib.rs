//! The CNI plugin: a container runtime executes it once for each command, with the command in the
//! environment and the network configuration on stdin. It builds the pod's interface, hands it to
//! vswitchd over the control socket, and prints the result.
//!
//! ```text
//!   runtime -> config -> add | del | check | status | gc -> result -> runtime
//!                         |     |
//!                         |     +-> client  -> vswitchd: addresses, and the port's descriptor
//!                         |     +-> ipam    -> the delegated IPAM plugin, if the configuration names one
//!                         +-> netns, pod -> the kernel
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `config`   | environment and network configuration, validated |
//! | `args`     | what the runtime asks for this pod: addresses, MAC, names |
//! | `port_mappings` | and ports of the node |
//! | `ip_ranges` | parts of the node's prefixes for its addresses |
//! | `bandwidth` | the limits of its traffic that are asked for |
//! | `version`  | commands and specification versions, and which go together |
//! | `add` `del` `check` `status` `gc` | one command each |
//! | `adjust` `watch` | `--adjust`, which is no command of a runtime: once, or whenever the daemon asks |
//! | `survey`   | a part of `adjust`: pods that the daemon's journal lost |
//! | `client`   | requests to vswitchd, bounded in time |
//! | `detach`   | the end of an attachment, also with vswitchd away |
//! | `deadline` | how long a command may take |
//! | `ipam`     | delegation to an IPAM plugin |
//! | `pod`      | the interface inside the pod's namespace |
//! | `alias`    | the alias by which it is known |
//! | `routes`   | its routes, beside those of the pod's other interfaces |
//! | `netns`    | the pod's network namespace |
//! | `undo`     | what a failed ADD takes back |
//! | `result`   | result, error and version output |
//! | `error`    | every failure, and the table of CNI codes |

#![forbid(unsafe_code)]

mod add;
mod adjust;
mod alias;
mod args;
mod bandwidth;
mod check;
mod client;
mod config;
mod deadline;
mod del;
mod detach;
mod error;
mod gc;
mod ip_ranges;
mod ipam;
mod netns;
mod pod;
mod port_mappings;
mod result;
mod routes;
mod status;
mod survey;
mod undo;
mod version;
mod watch;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deadline::{Deadline, Watchdog};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;

pub use args::Wanted;
pub use config::{Call, Env, IpamChoice, NetConf};
pub use error::Error;
pub use ip_ranges::IpRanges;
pub use result::{Plugged, PluggedIp, Previous, PreviousIp, Route, added, previous_of_add};
pub use version::{Command, SpecVersion};

const ABOUT: &str = "\
vswitch-cni is the CNI plugin of vswitchd. A container runtime executes it, with the command in
CNI_COMMAND and the network configuration on stdin. To be run by hand, or by a service, is only

  vswitch-cni --adjust [--watch] [SOCKET]
      gives live pods the MTU that vswitchd wants them to have; with --watch whenever it wants
      another one, until it is stopped

  binary         in the runtime's CNI plugin directory, usually /opt/cni/bin
  configuration  /etc/cni/net.d/10-vswitch.conflist, with \"type\": \"vswitch-cni\"
  supported      CNI specification 0.3.1, 0.4.0, 1.0.0, 1.1.0
";

/// Executes the command that the environment names, as a container runtime expects it: result or
/// error on stdout, log on stderr.
#[must_use]
pub fn run() -> ExitCode {
    failpoint::begin();
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "--help" || arg == "-h") {
        log(ABOUT.trim_end());
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "--adjust") {
        let mut args = std::env::args_os().skip(2).peekable();
        let watches = args.next_if(|arg| arg == "--watch").is_some();
        let socket = args.next().unwrap_or_else(|| api::DEFAULT_SOCKET.into());
        return if watches { watch(socket.as_ref()) } else { adjust(socket.as_ref()) };
    }
    let command = match Command::from_env(|name| std::env::var_os(name)) {
        Ok(command) => command,
        Err(error) => {
            // A person gets the explanation; a runtime that forgot the variable, its JSON.
            log(ABOUT.trim_end());
            if !io::stdout().is_terminal() {
                print_error(&error, None, None);
            }
            return ExitCode::FAILURE;
        }
    };
    if command == Command::Version {
        return print(&result::versions());
    }
    let (watchdog, deadline) = (Watchdog::over(command), Deadline::of_command());
    let mut stdin = Vec::new();
    let outcome = config::read_stdin(&deadline)
        .and_then(|bytes| {
            stdin = bytes;
            watchdog.note_version(config::version_text(&stdin));
            Call::new(command, |name| std::env::var_os(name), &stdin)
        })
        .and_then(|call| execute(&call, &deadline, &watchdog));
    watchdog.answer();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error, Some(command), config::version_text(&stdin));
            ExitCode::FAILURE
        }
    }
}

fn adjust(socket: &Path) -> ExitCode {
    match adjust::adjust(socket, &Deadline::of_command()) {
        Ok(outcomes) => {
            outcomes.iter().for_each(|outcome| log(&outcome.line()));
            let all_are_well = outcomes.iter().all(|outcome| outcome.result.is_ok());
            if all_are_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            log(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn watch(socket: &Path) -> ExitCode {
    // The first process of a container gets no signal that it has not asked for.
    let always = Arc::new(AtomicBool::new(true));
    for signal in [SIGTERM, SIGINT] {
        if let Err(error) = register_conditional_shutdown(signal, 0, Arc::clone(&always)) {
            log(&format!("cannot end at signal {signal}: {error}"));
            return ExitCode::FAILURE;
        }
    }
    match watch::watch(socket, log) {
        Ok(never) => match never {},
        Err(error) => {
            log(&error.sentence());
            ExitCode::FAILURE
        }
    }
}

fn execute(call: &Call, deadline: &Deadline, watchdog: &Watchdog) -> Result<(), Error> {
    match call.command {
        Command::Add => {
            let (result, undo) = add::add(call, deadline)?;
            watchdog.answer();
            // Only a runtime that has the result can be held to a DEL for it.
            write_json(&result)
                .map_err(|source| Error::Io { doing: "print the result", source })?;
            failpoint::hit("cni-add-printed")?;
            undo.disarm();
            Ok(())
        }
        Command::Del => del::del(call, deadline),
        Command::Check => check::check(call, deadline),
        Command::Status => status::status(call, deadline),
        Command::Gc => gc::gc(call, deadline),
        Command::Version => Ok(()),
    }
}

fn print(value: &serde_json::Value) -> ExitCode {
    match write_json(value) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&format!("cannot write to stdout: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn print_error(error: &Error, command: Option<Command>, version: Option<String>) {
    let value = result::error(error, command, version);
    log(&value.to_string());
    if let Err(error) = write_json(&value) {
        log(&format!("cannot write the error to stdout: {error}"));
    }
}

fn write_json(value: &serde_json::Value) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{value}")?;
    stdout.flush()
}

/// A line of the log, which for a CNI plugin is stderr. A closed stderr is no reason to fail.
fn log(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
