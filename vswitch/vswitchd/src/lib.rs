//! The daemon of a node: what it should be, what forwards, and who may change it.
//!
//! Requests enter by the control socket and change the model; the model is compiled to tables;
//! workers forward by them. One control thread owns everything but the packets.
//!
//! | module | holds |
//! |---|---|
//! | [`config`]     | the file, and every problem in it with its line |
//! | [`machine`]    | what only the machine can say of a configuration |
//! | [`model`]      | what should be: leases, peers, routes, entries; the address allocator |
//! | [`journal`]    | the model's changes on disk |
//! | [`compile`]    | model to tables: a pure function |
//! | [`mtu`]        | how long pods' packets may be |
//! | [`path_mtu`]   | what routers said of the ways to the other nodes |
//! | [`publish`]    | tables to workers, and when they have them |
//! | [`worker`]     | the pinned threads |
//! | [`ports`]      | numbers and file descriptors of pods' ports |
//! | [`kernel`]     | the kernel's routing table as a source of routes |
//! | [`underlay`]   | the kernel's routes and neighbours towards the other nodes |
//! | [`uplink`]     | the NIC: pinhole and AF_XDP sockets |
//! | [`host`]       | the node's own port, and the kernel's routes to it |
//! | [`masquerade`], [`nft`] | the nftables table; the program that sets it |
//! | [`daemon`]     | all of that together; the order in which a change is made |
//! | [`requests`]   | what each request does |
//! | [`control`]    | the loop: socket, signals, kernel, time |
//! | [`lock`], [`notify`] | one daemon a socket; systemd |

#![forbid(unsafe_code)]

pub mod compile;
pub mod config;
pub mod control;
pub mod daemon;
pub mod error;
pub mod host;
pub mod journal;
pub mod kernel;
pub mod lock;
pub mod machine;
pub mod masquerade;
pub mod model;
pub mod mtu;
pub mod nft;
pub mod notify;
pub mod path_mtu;
pub mod ports;
pub mod publish;
pub mod requests;
pub mod underlay;
pub mod uplink;
pub mod worker;
