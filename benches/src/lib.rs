//! What the benchmarks of the pure core share: a node with live tables, and traffic for it.
//!
//! Enters: a choice of attachment, encapsulation and routes, from `benches/*.rs`. Leaves: a
//! [`Node`] with a [`turn`](Node::turn) that takes a batch through `Dataplane::process` and returns how long
//! that took. Nothing here touches a port or the kernel's network.
//!
//! | file | holds |
//! |---|---|
//! | `node`    | a worker without I/O: packet memory, tables, a sink behind the way out |
//! | `live`    | tables of a node with 1,000 pods and 250 peers; in `live/sessions`, with policies, services and sessions |
//! | `routes`  | prefixes in the proportions of a full table, and addresses inside them |
//! | `traffic` | frames as a NIC or a TAP would hand them over |
//! | `random`  | the same numbers in every run |

#![forbid(unsafe_code)]

pub mod live;
pub mod node;
pub mod random;
pub mod routes;
pub mod traffic;

pub use live::{FLOWS, PEERS, PODS, Path};
pub use node::Node;
pub use random::Random;

/// Packets in a batch: what a worker takes from a ring at a time.
pub const BATCH: usize = 32;
