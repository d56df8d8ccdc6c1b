//! The arguments of `drops`, and the requests that they mean.

use std::time::Duration;

use api::{FollowDrops, Request};
use clap::Args;

#[derive(Args)]
pub(crate) struct Drops {
    /// Show dropped packets as they are dropped, until interrupted; without it the counters alone.
    #[arg(long)]
    follow: bool,
    /// Packets of this pod alone (`namespace/name`, as `show ports` has it), sent by it or for it.
    #[arg(long, value_name = "NAMESPACE/POD", requires = "follow")]
    pod: Option<String>,
    /// Packets that are dropped for this reason alone.
    #[arg(long, value_name = "REASON", requires = "follow")]
    reason: Option<String>,
    /// End after so many lines.
    #[arg(long, value_name = "N", requires = "follow", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds.
    #[arg(long = "for", value_name = "SECONDS", requires = "follow", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
}

/// When to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Limits {
    /// Lines.
    pub(crate) count: Option<u64>,
    /// Time from the beginning.
    pub(crate) time: Option<Duration>,
}

impl Drops {
    /// What is followed, and until when; `None` if the counters are asked for.
    pub(crate) fn followed(&self) -> Option<(FollowDrops, Limits)> {
        let Self { follow, pod, reason, count, seconds } = self;
        let asked = FollowDrops { since: Vec::new(), pod: pod.clone(), reason: reason.clone() };
        let limits = Limits { count: *count, time: seconds.map(Duration::from_secs) };
        follow.then_some((asked, limits))
    }

    pub(super) fn request(&self) -> Request {
        match self.followed() {
            Some((asked, _)) => Request::FollowDrops(asked),
            None => Request::ShowDrops,
        }
    }
}
