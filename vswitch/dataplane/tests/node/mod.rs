//! A node in a few lines of text, and packets in one line each: what all tests of the walk share.
//!
//! | file | holds |
//! |---|---|
//! | `words`    | one line, word by word; a word that nobody took is an error |
//! | `topology` | ports, peers and routes, made into `Tables` by hand |
//! | `services` | virtual addresses and their backends |
//! | `policies` | policies of its pods, made into `Policies` by hand |
//! | `packet`   | the notation of packets: layer by layer, from the outside in |
//! | `layers`   | the bytes of a layer, by etherparse: nothing of the code under test makes them |
//! | `messages` | IP headers, ARP, ICMP and neighbour discovery |
//! | `worker`   | the dataplane over these, and what holds of any packet |
//! | `egress`   | ports that keep what they are given, and fail on demand |

pub(crate) mod egress;
mod layers;
mod messages;
pub(crate) mod packet;
mod policies;
mod services;
pub(crate) mod topology;
mod words;
mod worker;

pub(crate) use egress::Ports;
pub(crate) use packet::Described;
pub(crate) use topology::Node;
pub(crate) use words::Words;
pub(crate) use worker::Worker;
