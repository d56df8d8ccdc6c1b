//! The kernel's view of the network, asked for and changed by rtnetlink.
//!
//! The control thread calls it: for the links and addresses of the underlay, for the way to each
//! peer (the kernel's route and the kernel's neighbour: it resolves, we never send ARP on the NIC),
//! for the routes that others gave the kernel, and to route the cluster's prefixes to the host's TAP.
//! [`Monitor`] tells when any of it changed.
//!
//! A [`Netlink`] belongs to the network namespace in which it was opened. Attributes that are not
//! known are skipped.

#![forbid(unsafe_code)]

mod address;
mod error;
mod fib;
mod link;
mod monitor;
mod neighbor;
mod route;
mod socket;

pub use error::{Error, Result};
pub use fib::{KernelHop, KernelRoute, Placement, RouteKind};
pub use link::Link;
pub use monitor::{Event, Monitor};
pub use neighbor::{Neighbor, NeighborState};
pub use route::{NextHop, ROUTE_PROTOCOL, Route};
pub use socket::Netlink;
