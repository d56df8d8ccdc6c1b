//! `vswitch-agent`: the command line, the log, the exit code.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;
use vswitch_agent::agent::{Agent, Settings};
use vswitch_agent::cluster;
use vswitch_agent::error::{Error, Result, chain};
use vswitch_agent::install::{InstallTarget, wait_for_daemon};
use vswitch_agent::report::State;
use vswitch_agent::watch;

/// kube logs each attempt that fails; we log that they begin to fail.
const LOG: &str = "info,kube_client=off,kube_runtime=off";
/// Notices that wait to become Events; refusals beyond these go to the log alone.
const NOTICES: usize = 64;

/// Tells this node's vswitchd of the cluster's other nodes, its Services and its policies, as the
/// Kubernetes API server has them, and the cluster of this node.
#[derive(Parser)]
#[command(
    version,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true,
    after_help = "Signals: SIGTERM and SIGINT stop; vswitchd forwards on with what it was told.\n\
    Exit codes: 0 stopped or done, 1 failed, 2 the command line or the credentials must be changed."
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Command {
    /// Puts the CNI plugin and, last and once vswitchd networks pods, the conflist on this node.
    Install(Install),
    /// Exits with 0 if the running agent is ready, as its state file says.
    Probe {
        /// The agent's.
        #[arg(long, value_name = "FILE")]
        state_file: PathBuf,
    },
}

#[derive(Args)]
struct Run {
    /// This node's name in the cluster.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", required = true)]
    node_name: Option<String>,
    /// vswitchd's control socket.
    #[arg(long, value_name = "PATH", default_value = api::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// How to reach the API server; by default as the pod's service account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Write flannel's annotations too, so that nodes with flannel send to this one. The overlay in
    /// vswitch.toml must then be flannel's: vxlan, by default with vni = 1 and vxlan_port = 8472.
    #[arg(long)]
    flannel: bool,
    /// Have vswitchd serve the cluster's Services to this node's pods. With `false` it serves none, and
    /// kube-proxy does.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    services: bool,
    /// Have vswitchd enforce the cluster's policies: NetworkPolicies, and those of the whole cluster if
    /// their custom resources are there. With `false` nothing is sent of them, and nothing withdrawn.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    policies: bool,
    /// Keep the agent's state here, for `vswitch-agent probe` and for people.
    #[arg(long, value_name = "FILE")]
    state_file: Option<PathBuf>,
    /// Install this conflist once vswitchd networks pods; without `portmap` where that is missing.
    #[arg(long, value_name = "FILE")]
    conflist: Option<PathBuf>,
    /// Where the runtime looks for plugins.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    cni_bin_dir: PathBuf,
    /// Where to.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    /// What to log: error, warn, info, debug, trace, or a filter of tracing. RUST_LOG if absent.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Args)]
struct Install {
    /// The plugin to install.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Where to.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    cni_bin_dir: PathBuf,
    /// The conflist to install; without `portmap` where that is missing.
    #[arg(long, value_name = "FILE")]
    conflist: Option<PathBuf>,
    /// Where to.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    /// vswitchd's control socket.
    #[arg(long, value_name = "PATH", default_value = api::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// How long to wait for vswitchd before the conflist.
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    wait: u64,
    /// Remove instead, the conflist first.
    #[arg(long)]
    uninstall: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may be filtered or not yet there; this must be seen.
            let _ = writeln!(std::io::stderr(), "vswitch-agent: {}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn execute(arguments: Arguments) -> Result<()> {
    if let Some(Command::Probe { state_file }) = &arguments.command {
        return State::probe(state_file).map(|_| ());
    }
    let log_level =
        if arguments.command.is_some() { None } else { arguments.run.log_level.as_deref() };
    log(log_level);
    // One thread is plenty: the agent waits, and parses a Node now and then.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System { action: "start the runtime", source })?;
    match arguments.command {
        Some(Command::Install(install)) => runtime.block_on(place(&install)),
        _ => runtime.block_on(run(arguments.run)),
    }
}

async fn run(run: Run) -> Result<()> {
    let stopped = stopped()?;
    let node_name = run.node_name.unwrap_or_default();
    let client = cluster::client(run.kubeconfig.as_deref()).await?;
    let conflist = run.conflist.map(|file| InstallTarget { file, directory: run.cni_conf_dir });
    let state_file = run.state_file.clone();
    let settings = Settings {
        node_name: node_name.clone(),
        socket: run.socket,
        services: run.services,
        policies: run.policies,
        flannel: run.flannel,
        state_file: run.state_file,
        conflist,
        cni_bin_dir: run.cni_bin_dir,
    };
    tracing::info!("vswitch-agent {} starts for {node_name}", env!("CARGO_PKG_VERSION"));
    let (publications, said) = tokio::sync::watch::channel(None);
    let (notices, told) = mpsc::channel(NOTICES);
    let agent = Agent::new(settings, publications, notices);
    let publish = cluster::publish(client.clone(), node_name.clone(), said);
    let report = cluster::report(client.clone(), node_name, told);
    tokio::select! {
        () = stopped => tracing::info!("stops; vswitchd forwards on with what it was told"),
        () = agent.run(watch::watches(&client, run.services, run.policies)) => {}
        // These end after the agent, if at all.
        _ = async { tokio::join!(publish, report) } => {}
    }
    if let Some(path) = &state_file {
        remove_state(path);
    }
    Ok(())
}

/// So that the next agent is not taken for ready by the state of this one.
fn remove_state(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!("{} stays behind: {error}", path.display());
    }
}

/// The signals are taken over at once; what is returned waits for one.
fn stopped() -> Result<impl Future<Output = ()>> {
    let take =
        |kind| signal(kind).map_err(|source| Error::System { action: "take over signals", source });
    let (mut terminate, mut interrupt) =
        (take(SignalKind::terminate())?, take(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn place(install: &Install) -> Result<()> {
    let placement = |file: &Option<PathBuf>, directory: &Path| {
        file.as_ref()
            .map(|file| InstallTarget { file: file.clone(), directory: directory.to_owned() })
    };
    let plugin = placement(&install.plugin, &install.cni_bin_dir);
    let conflist = placement(&install.conflist, &install.cni_conf_dir);
    if install.uninstall {
        // No new pods, then no plugin.
        conflist.map_or(Ok(()), |conflist| conflist.remove())?;
        return plugin.map_or(Ok(()), |plugin| plugin.remove());
    }
    if let Some(plugin) = plugin {
        plugin.install_program()?;
        tracing::info!("installed {}", plugin.target().display());
    }
    if let Some(conflist) = conflist {
        wait_for_daemon(&install.socket, Duration::from_secs(install.wait)).await?;
        conflist.install_configuration(&install.cni_bin_dir)?;
    }
    Ok(())
}

fn log(level: Option<&str>) {
    let filter = match level {
        Some(level) => EnvFilter::new(level),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
