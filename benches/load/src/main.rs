//! `vswitch-load`: the traffic of the node's benchmarks, for scripts/bench.
//!
//! Enters: what to send, to which address, for how long. Leaves: one line of JSON on standard output, with
//! how much was sent. Each command ends by itself, but for `serve`, `sink` and `echo`, which SIGTERM ends.
//! vswitchd and the peers that it is compared with get the same traffic.
//!
//! | file | holds |
//! |---|---|
//! | `stream`      | bytes over TCP connections, and what reads them |
//! | `exchange`    | requests and responses one after the other, and what responds |
//! | `datagrams`   | short datagrams in many flows: a flood, a rate, bursts |
//! | `paced`       | datagrams on a schedule, and how late each arrives |
//! | `connections` | TCP connections made and ended, so many at once |
//! | `server`      | their other end |

#![forbid(unsafe_code)]

mod connections;
mod datagrams;
mod exchange;
mod paced;
mod server;
mod stream;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU64;
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
    /// Sends UDP datagrams as fast as they can be sent, or at another pace.
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
        pace: Pace,
        #[command(flatten)]
        duration: Seconds,
    },
    /// Sends over TCP connections as much as they take; the other end is `sink`.
    Stream {
        /// Where `sink` is.
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: SocketAddrV4,
        /// Connections at once.
        #[arg(long, default_value_t = 1)]
        streams: usize,
        #[command(flatten)]
        duration: Seconds,
    },
    /// Reads what `stream` sends.
    Sink(At),
    /// Exchanges a byte after the other over one TCP connection; the other end is `echo`.
    Ask {
        /// Where `echo` is.
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: SocketAddrV4,
        #[command(flatten)]
        duration: Seconds,
    },
    /// Responds to `ask`.
    Echo(At),
    /// Sends UDP datagrams on a schedule; the other end is `hear`.
    Paced {
        /// Where `hear` is.
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: SocketAddrV4,
        /// Datagrams a second.
        #[arg(long)]
        rate: NonZeroU64,
        #[command(flatten)]
        duration: Seconds,
    },
    /// Receives one schedule of `paced`, and tells how late its datagrams were.
    Hear(At),
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
struct At {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS:PORT")]
    at: SocketAddrV4,
}

#[derive(Args)]
struct Pace {
    /// Datagrams a second; all that can be sent without it.
    #[arg(long, conflicts_with = "burst")]
    rate: Option<NonZeroU64>,
    /// Datagrams without a pause, and then one.
    #[arg(long)]
    burst: Option<usize>,
    /// The pause between bursts, milliseconds.
    #[arg(long, default_value_t = 20, requires = "burst")]
    pause_ms: u64,
}

impl Pace {
    fn of_datagrams(&self) -> datagrams::Pace {
        match (self.rate, self.burst) {
            (Some(rate), _) => datagrams::Pace::Rate(rate.get()),
            (_, Some(burst)) => {
                datagrams::Pace::Bursts(burst, Duration::from_millis(self.pause_ms))
            }
            _ => datagrams::Pace::Flood,
        }
    }
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
        Command::Datagrams { to, flows, payload, pace, duration } => {
            datagrams::send(to, flows, payload, pace.of_datagrams(), duration.duration()?)?
        }
        Command::Stream { to, streams, duration } => {
            stream::send(to, streams, duration.duration()?)?
        }
        Command::Sink(At { at }) => return stream::sink(at),
        Command::Ask { to, duration } => exchange::ask(to, duration.duration()?)?,
        Command::Echo(At { at }) => return exchange::echo(at),
        Command::Paced { to, rate, duration } => paced::send(to, rate, duration.duration()?)?,
        Command::Hear(At { at }) => paced::receive(at)?,
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
