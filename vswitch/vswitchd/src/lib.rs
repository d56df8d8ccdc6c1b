//! The daemon of a node: what it should be, what forwards, and which clients may change it.
//!
//! Requests enter by the control socket and change the model of `controlplane`, which compiles it to
//! tables; workers forward by them. One control thread owns everything but the packets.
//!
//! | module | holds |
//! |---|---|
//! | [`config_file`] | the configuration, read |
//! | [`machine`]    | what only the machine can show of a configuration |
//! | [`journal`]    | the model's changes on disk |
//! | [`kernel`]     | reads the kernel's routing table, a source of routes |
//! | [`underlay`]   | the kernel's routes and neighbours towards the other nodes |
//! | [`uplink`]     | the NIC: pinhole and AF_XDP sockets |
//! | [`host`]       | the node's own port, and the kernel's routes to it |
//! | [`sysctl`], [`router_advertisements`] | the kernel's settings; what a node loses by one of them |
//! | [`rules`]      | the nftables table, and the thread that waits for `nft` |
//! | [`firewall`]   | firewalls of the node that drop what pods send |
//! | [`flows`]      | flows that the kernel tracks, forgotten where hostPorts change |
//! | [`node`]       | performs the actions of a change |
//! | [`daemon`]     | events in, lists of actions performed |
//! | [`requests`]   | what each request does |
//! | [`control`]    | the loop: socket, signals, kernel, time |
//! | [`metrics`]    | counters for Prometheus |
//! | [`lock`], [`notify`] | one daemon a socket; the service manager |
//! | [`sandbox`]    | the system calls that each thread may make |
//! | [`sessions`]   | the session table that the workers share |
//! | [`namespaces`] | when pods' network namespaces end |
//! | [`supervise`] | plays the service manager where there is none |
//! | [`descriptors`] | descriptors that the service manager keeps over a restart |

#![forbid(unsafe_code)]

pub mod config_file;
pub mod control;
pub mod daemon;
pub mod descriptors;
mod ends_process;
pub mod error;
pub mod firewall;
pub mod flows;
pub mod host;
pub mod journal;
pub mod kernel;
pub mod lock;
pub mod machine;
pub mod metrics;
pub mod namespaces;
pub mod node;
pub mod notify;
pub mod requests;
pub mod router_advertisements;
pub mod rules;
pub mod sandbox;
pub mod sessions;
pub mod supervise;
pub mod sysctl;
pub mod underlay;
pub mod uplink;
