//! The Kubernetes agent of a node: the cluster's Nodes in the API server become vswitchd's
//! peers and pod prefixes, its Services and EndpointSlices what vswitchd serves, its policies what vswitchd
//! enforces, and what vswitchd is becomes annotations and a condition of the own Node.
//!
//! ```text
//!   API server                                                        vswitchd
//!       | watch     watch -> node -> desired -> sync --> daemon           ^
//!       v               \       \        |           /       \            |
//!     Nodes              service ---------|---> held          control socket
//!     Services           policy ---------|---> held
//!     policies                 publish  report
//!       ^ patch, Event <- cluster <-/------/
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `object`  | a Node as the API server sends it, as far as it is read |
//! | `fields`  | what a Node's fields may be, and `problem`, why not |
//! | `node`    | judges a Node: the peers that it makes, or what is wrong with it |
//! | `flannel` | the annotations of flannel's nodes, read and written |
//! | `desired` | all Nodes to the peers that there should be; conflicts |
//! | `sync`    | the difference to what the daemon has, in messages |
//! | `policy`  | policies, pods and namespaces to groups, rules and subjects, without labels |
//! | `service` | Services and their endpoints to what the daemon serves |
//! | `publish` | the patch that describes this node, and `degraded`, a condition in it |
//! | `report`  | nodes that are kept out, Services that are not served and policies that are not enforced as they say, pods that lost their interface: the log, notices, the state file |
//! | `event`   | Events of notices |
//! | `agent`   | the loop: what comes from either side, and when something is done about it; `burst`, what is one change |
//! | `link`    | the daemon, there or gone, and what it holds |
//! | `listing`, `watching` | how far a list has come, and whether its watch goes on |
//! | `watch`, `cluster`, `daemon` | the two sides: the API server, read and written, and the control socket |
//! | `install` | the plugin's binary and the conflist, on the node |
//!
//! The upper half is pure; only the lower half knows clocks, sockets and files. If either side is
//! gone, nothing is taken back: vswitchd forwards on with what it received last.

#![forbid(unsafe_code)]

pub mod agent;
pub mod backoff;
mod burst;
pub mod cluster;
pub mod daemon;
pub mod degraded;
pub mod desired;
pub mod error;
pub mod event;
pub mod fields;
pub mod flannel;
pub mod install;
mod link;
pub mod listing;
pub mod node;
pub mod object;
pub mod policy;
pub mod problem;
pub mod publish;
pub mod report;
pub mod service;
pub mod sync;
pub mod watch;
mod watching;
