//! The kernel's routing table as a source of routes, and with it the programs that write there:
//! BIRD, FRR, `ip route`.
//!
//! Enters: the table, once, and every change of it, as plain values. Leaves: what the node learns by
//! that, into the [`Tracked`] that the model keeps beside what other sources name. A change of some
//! routes touches those alone.
//!
//! | file | does |
//! |---|---|
//! | `route`   | a route as plain values |
//! | `mirror`  | keeps the routes that may concern pods |
//! | `judge`   | decides what each route means for pods |
//! | `follow`  | follows the changes of the table, and judges what they touch |
//! | `learned` | holds the outcome |
//! | `tracked` | knows which prefixes of the outcome changed lately |

pub mod follow;
pub mod judge;
pub mod learned;
#[cfg(test)]
pub(crate) mod lines;
pub mod mirror;
pub mod route;
pub mod tracked;

pub use follow::{Changes, Follower, TableEvent};
pub use judge::Scope;
pub use learned::{Hop, Judgement, LearnedRoutes, Way};
pub use route::{KernelHop, KernelRoute, Placement, ROUTE_PROTOCOL, RouteKind};
pub use tracked::{Revision, Tracked};

/// Metric of the routes into the host port that we give the kernel; one of the operator's own with
/// a lower metric wins.
pub const HOST_METRIC: u32 = 50;
