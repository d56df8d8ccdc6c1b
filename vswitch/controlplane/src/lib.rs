//! The control plane of a node: what the node should be, and the tables that make it so.
//!
//! Everything here is a function of its arguments: no interface, no file, no socket, no thread and
//! no clock. `vswitchd` reads files, netlink and requests, hands over what they hold, and carries
//! out what comes back; time is an argument.
//!
//! | module | holds |
//! |---|---|
//! | [`config`]      | the configuration out of its text, and every problem in it with its line |
//! | [`model`]       | the desired state: leases, peers, routes, entries; the address allocator |
//! | [`kernel`]      | the kernel's routes: what of them concerns pods, and what each means |
//! | [`next_hop`]    | how the kernel reaches an underlay address |
//! | [`own_address`] | which of the uplink's addresses is this node's |
//! | [`mtu`]         | how long pods' packets may be |
//! | [`path_mtu`]    | how long packets through the underlay may be, as routers reported it |
//! | [`ports`]       | the number of each attachment's port |
//! | [`balance`]     | which worker receives from which pod |
//! | [`handoff`]     | which workers share the packets of IPIP that one receives |
//! | [`repairs`]     | what had to be put right of the node, and when not to |
//! | [`compile`]     | the tables out of all of these |
//! | [`policy`]      | the tables that judge connections, out of groups and rules |
//! | [`desired`]     | what the kernel is to have: host port, nftables, what is taken from the NIC |
//! | [`plane`]       | what every event comes to |
//! | [`change`]      | an event as a list of actions, and how a list is performed |

#![forbid(unsafe_code)]

pub mod balance;
pub mod change;
pub mod compile;
pub mod config;
pub mod desired;
pub mod handoff;
pub mod kernel;
pub mod model;
pub mod mtu;
pub mod next_hop;
pub mod own_address;
pub mod path_mtu;
pub mod plane;
pub mod policy;
pub mod ports;
pub mod repairs;
