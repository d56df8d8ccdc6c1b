//! The kernel's view of the network, asked for and changed by rtnetlink.
//!
//! The daemon's control thread calls it: for the links and addresses of the underlay, for the way to
//! each peer (the kernel's route and the kernel's neighbour: it resolves, we never send ARP on the
//! NIC), for the routes that others gave the kernel, and to route the cluster's prefixes to the host's
//! TAP. [`Monitor`] announces when any of it changed. The CNI plugin calls it to configure a pod's
//! interface from inside the pod's namespace; the daemon reads its counters from outside. [`Conntrack`]
//! deletes flows that the kernel tracks.
//!
//! What the kernel sends is read without a socket in [`datagram`], too, as a test has none of the kernel's.
//!
//! A [`Netlink`] belongs to the network namespace in which it was opened. Attributes that are not
//! known are skipped.

#![forbid(unsafe_code)]

mod address;
mod advertised;
mod conntrack;
mod counters;
pub mod datagram;
mod error;
mod fib;
mod link;
mod monitor;
mod neighbor;
mod nfnetlink;
mod route;
mod ruleset;
mod socket;

pub use conntrack::{Conntrack, FlowFilter, TrackedFlow};
pub use error::{Error, Result};
pub use fib::{FibHop, FibRoute, FibRouteKind, RouteFilter, RoutePlacement};
pub use link::{Link, LinkChange, TapQueues};
pub use monitor::{KernelEvent, Monitor};
pub use neighbor::{Neighbor, NudState};
pub use route::{MAIN_TABLE, ROUTE_PROTOCOL, Route, RouteLookup};
pub use ruleset::{RulesetMonitor, Writer};
pub use socket::Netlink;
