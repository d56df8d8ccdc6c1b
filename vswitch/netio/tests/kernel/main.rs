//! Against the kernel, in network namespaces of the tests' own: nothing outside them is touched.
//!
//! They need root. Where it, or something of the kernel, is missing, a test reports so on standard
//! error and ends.

mod common;
mod ethtool;
mod frames;
mod offload;
mod packet;
mod pinhole;
mod queues;
mod tap;
mod udp_gso;
mod uplink;
mod xsk;
mod xtables;
