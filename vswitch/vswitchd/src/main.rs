//! `vswitchd`: the command line, the log, the exit code.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use api::{Reply, Request, Wait};
use clap::{Parser, Subcommand};
use netlink::Netlink;
use tracing_subscriber::EnvFilter;
use vswitchd::config_file;
use vswitchd::control::{ControlLoop, Signals, Socket};
use vswitchd::daemon::Daemon;
use vswitchd::descriptors::Left;
use vswitchd::error::{Error, Result, chain};
use vswitchd::journal;
use vswitchd::machine;
use vswitchd::notify::Notify;
use vswitchd::router_advertisements::Advertised;
use vswitchd::supervise::{DRAINED, DaemonOptions, end_with_supervisor, supervise};

/// The vSwitch of a Kubernetes node: switches packets between its pods, the node and other nodes.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Signals: SIGTERM stops, SIGHUP reloads the configuration. Pods keep their interfaces over\n\
    a stop, and their connections over a restart.\n\
    Exit codes: 0 stopped, valid or drained, 1 failed, 2 the configuration or command line must be\n\
    changed, 3 ended as another process drained it: not to be started again."
)]
struct Arguments {
    #[command(flatten)]
    daemon: DaemonOptions,
    /// Validate the configuration, also against this machine, and exit.
    #[arg(long)]
    check: bool,
    /// Have the daemon that runs detach every pod, remove all that it has set up of this node, and end:
    /// pods lose their interfaces, and are not served again until they are made anew.
    #[arg(long, conflicts_with = "check")]
    drain: bool,
    #[command(subcommand)]
    command: Option<Role>,
}

/// Other roles than the daemon's.
#[derive(Subcommand)]
enum Role {
    /// Run the daemon, start it again whenever it ends, and keep pods' ports open meanwhile: for where no
    /// systemd does so. SIGTERM ends both, SIGHUP has the configuration reloaded.
    Supervise(DaemonOptions),
}

fn main() -> ExitCode {
    failpoint::begin();
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Some(Role::Supervise(options)) => {
            log(options.log_level.as_deref());
            supervise(options)
        }
        None => run(&arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // The log may be filtered or not yet there; this must be seen.
            let _ = writeln!(std::io::stderr(), "vswitchd: {}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let options = &arguments.daemon;
    let config = config_file::load(&options.config).map_err(Error::Config)?;
    if arguments.check {
        let recorded = || journal::recorded_addresses(&config.control.state_dir);
        let facts = machine::examine(&config, recorded)?;
        let mut out = std::io::stdout().lock();
        for warning in facts.iter().flat_map(|facts| facts.warnings.iter().chain(&facts.awaited)) {
            let _ = writeln!(out, "warning: {warning}");
        }
        if config.host.is_some() {
            let advertised = Advertised::read(&mut Netlink::open().map_err(Error::Netlink)?);
            for warning in advertised.notes().chain(advertised.warnings()) {
                let _ = writeln!(out, "warning: {warning}");
            }
        }
        let _ = writeln!(out, "{}: valid", options.config.display());
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.drain {
        return drain(&config.control.socket);
    }
    // First of all, while no other descriptor is open.
    let inherited = netio::activation::take_inherited().map_err(|source| Error::Control {
        action: "take over the service manager's descriptors",
        source,
    })?;
    failpoint::hit("start-inherited")?;
    end_with_supervisor()?;
    log(options.log_level.as_deref());
    // Before anything is made that a signal must not leave behind.
    let signals = Signals::register()?;
    let notify = Notify::from_env();
    tracing::info!("vswitchd {} starts as {}", env!("CARGO_PKG_VERSION"), config.node.name);
    let mut left = Left::sort(inherited);
    let sockets = std::mem::take(&mut left.sockets);
    let socket = Socket::inherit(sockets, &config.control.socket)?;
    let daemon = Daemon::start(config, options.config.clone(), left, notify.clone())?;
    let is_drained = ControlLoop::new(daemon, socket, signals, notify)?.run()?;
    Ok(if is_drained { ExitCode::from(DRAINED) } else { ExitCode::SUCCESS })
}

/// Asks the daemon at this socket to leave nothing behind.
fn drain(socket: &Path) -> Result<ExitCode> {
    let reply = api::call(socket, &Request::Drain, &[], Wait::Silence(api::PATIENCE));
    let mut out = std::io::stdout().lock();
    match reply.map_err(Error::Drain)? {
        Reply::Drained { pods, without_port } => {
            let _ = writeln!(out, "drained: {pods} pod(s) were detached");
            for name in without_port {
                let _ = writeln!(out, "{name} had no port: its interface stays until the pod ends");
            }
            Ok(ExitCode::SUCCESS)
        }
        other => Err(Error::Drain(api::ClientError::unexpected(socket, &other))),
    }
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
