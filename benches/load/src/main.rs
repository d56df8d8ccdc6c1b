//! `vswitch-load`: the traffic of the node's benchmarks, for scripts/bench.
//!
//! Enters: what to send, to which address, for how long. Leaves: one line of JSON on standard output, with
//! how much was sent. Each command ends by itself, but for `serve`, which SIGTERM ends. vswitchd and the
//! kernel that it is compared with get the same traffic.
//!
//! | file | holds |
//! |---|---|
//! | `datagrams`   | a flood of short datagrams in many flows |
//! | `connections` | TCP connections made and ended, so many at once |
//! | `server`      | their other end |

#![forbid(unsafe_code)]

mod connections;
mod datagrams;
mod server;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Traffic for benchmarks of a node; prints what was done as JSON")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends UDP datagrams as fast as they can be sent.
    Datagrams {
        /// The first of the destinations; each flow has its own port.
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: SocketAddrV4,
        /// Flows, by destination port.
        #[arg(long, default_value_t = 1000)]
        flows: u16,
        /// Bytes after the UDP header; 18 make a frame of 64 bytes with its check sequence.
        #[arg(long, default_value_t = 18)]
        payload: u16,
        #[command(flatten)]
        duration: Seconds,
    },
    /// Opens TCP connections, has each answered, and ends it.
    Connections {
        /// The first of the destinations.
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: SocketAddrV4,
        /// Consecutive addresses that are asked in a scattered order.
        #[arg(long, default_value_t = 1)]
        addresses: u32,
        /// Connections at once.
        #[arg(long, default_value_t = 16)]
        clients: usize,
        #[command(flatten)]
        duration: Seconds,
    },
    /// Answers the connections of `connections`: at its first port with `a`, at the next one with `b`, and so
    /// on in turn; then it closes.
    Serve {
        /// The first port at which it listens.
        #[arg(long, value_name = "ADDRESS:PORT")]
        at: SocketAddrV4,
        /// Consecutive ports.
        #[arg(long, default_value_t = 1)]
        ports: u16,
    },
}

#[derive(Args)]
struct Seconds {
    /// How long, seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

impl Seconds {
    fn duration(&self) -> Result<Duration, io::Error> {
        Duration::try_from_secs_f64(self.seconds).map_err(io::Error::other)
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            _ = writeln!(io::stderr(), "vswitch-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> io::Result<()> {
    let done = match command {
        Command::Datagrams { to, flows, payload, duration } => {
            datagrams::send(to, flows, payload, duration.duration()?)?
        }
        Command::Connections { to, addresses, clients, duration } => {
            let targets = (0..addresses).map(|index| later(to, index)).collect();
            connections::make(targets, clients, duration.duration()?)?
        }
        Command::Serve { at, ports } => return server::serve(at, ports),
    };
    writeln!(io::stdout(), "{done}")
}

/// The address so many further, with the same port.
fn later(first: SocketAddrV4, index: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(first.ip().to_bits().wrapping_add(index)), first.port())
}
