//! The arguments of `latency`, and the request that they mean.

use std::time::Duration;

use api::Request;
use clap::Args;

/// What an interval is unless it is given: long enough for the 99.9th percentile of 100 packets a second.
const INTERVAL_SECONDS: u64 = 10;

#[derive(Args)]
pub(crate) struct Latency {
    /// Also by the port that packets come from, the slowest first.
    #[arg(long)]
    ports: bool,
    /// Of the packets within the next so many seconds; without it of all since the daemon's start.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    interval: Option<u64>,
    /// Again for each interval, of 10 seconds if none is given, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// What is to be measured, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Intervals {
    /// How long each is.
    pub(crate) length: Duration,
    /// After the first others follow.
    pub(crate) go_on: bool,
}

impl Latency {
    /// The intervals to be measured; `None` if all since the daemon's start is asked for.
    pub(crate) fn intervals(&self) -> Option<Intervals> {
        let seconds = self.interval.or(self.watch.then_some(INTERVAL_SECONDS))?;
        Some(Intervals { length: Duration::from_secs(seconds), go_on: self.watch })
    }

    pub(crate) fn request(&self) -> Request {
        Request::ShowLatency { by_port: self.ports }
    }
}
