//! `vswitchd`: the command line, the log, the exit code.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use vswitchd::config_file;
use vswitchd::control::{ControlLoop, Signals, Socket};
use vswitchd::daemon::Daemon;
use vswitchd::error::{Error, Result, chain};
use vswitchd::machine;
use vswitchd::notify::Notify;

/// The vSwitch of a Kubernetes node: switches packets between its pods, the node and other nodes.
#[derive(Parser)]
#[command(
    version,
    after_help = "Signals: SIGTERM stops, SIGHUP reloads the configuration.\n\
    Exit codes: 0 stopped or valid, 1 failed, 2 the configuration or command line must be changed."
)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/vswitch/vswitch.toml")]
    config: PathBuf,
    /// Validate the configuration, also against this machine, and exit.
    #[arg(long)]
    check: bool,
    /// What to log: error, warn, info, debug, trace, or a filter of tracing. RUST_LOG if absent.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may be filtered or not yet there; this must be seen.
            let _ = writeln!(std::io::stderr(), "vswitchd: {}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let config = config_file::load(&arguments.config).map_err(Error::Config)?;
    if arguments.check {
        let facts = machine::examine(&config)?;
        let mut out = std::io::stdout().lock();
        for warning in facts.iter().flat_map(|facts| facts.warnings.iter().chain(&facts.awaited)) {
            let _ = writeln!(out, "warning: {warning}");
        }
        let _ = writeln!(out, "{}: valid", arguments.config.display());
        return Ok(());
    }
    // First of all, while no other descriptor is open.
    let inherited = netio::activation::take_listen_fds().map_err(|source| Error::Control {
        action: "take over the service manager's sockets",
        source,
    })?;
    log(arguments.log_level.as_deref());
    // Before anything is made that a signal must not leave behind.
    let signals = Signals::register()?;
    let notify = Notify::from_env();
    tracing::info!("vswitchd {} starts as {}", env!("CARGO_PKG_VERSION"), config.node.name);
    let inherited = Socket::inherit(inherited, &config.control.socket)?;
    let daemon = Daemon::start(config, arguments.config.clone())?;
    ControlLoop::new(daemon, inherited, signals, notify)?.run()
}

fn log(level: Option<&str>) {
    let filter = match level {
        Some(level) => EnvFilter::new(level),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
