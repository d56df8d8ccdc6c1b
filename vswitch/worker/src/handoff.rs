//! Packets that a worker leaves to another one: of IPIP, by the inner flow.
//!
//! A NIC spreads packets over its queues by what their outer headers say. Those of IPIP say which node sent them,
//! and nothing more: all of a peer's come by one queue, to one worker. That worker may hand them over, so that
//! what takes the time, the walk and the writes to pods, is done by several. A frame stays with its worker: the
//! bytes of a packet are copied into a ring, and from there into a frame of the other worker's.
//!
//! | file | holds |
//! |---|---|
//! | `ring`     | packets on their way from one worker to another |
//! | `outbound` | which packets are handed over, to which worker |
//! | `inbound`  | the rings that a worker empties |
//! | `bell`     | wakes a worker that sleeps |
//! | `control`  | what the control thread may ask |
//!
//! # Order
//! Packets of a flow have one hash, and with it one of [`outbound::BUCKETS`] places; a place has one worker. It gets
//! another one when the former has carried out everything of the place: of its own packets a worker knows that at the
//! end of a turn, of those that it has handed over by a word that the other one publishes then. Until that moment they
//! go where they went. Carried out means written to the pod's interface: what a turn gathers is written, and what it
//! merges is sent, before its end, and while something waits for the rate of a port nothing counts as carried out.
//! Packets of any length take the same way, in as many pieces as it takes: a flow of which some were handed over
//! and others not would lose its order.

mod bell;
mod control;
mod inbound;
mod outbound;
mod ring;

pub(crate) use bell::Bell;
pub use control::IpipWork;
pub(crate) use inbound::Inbound;
pub(crate) use outbound::{Handed, Kept, Outbound, Way};
pub(crate) use ring::Ring;

/// A word that one thread writes and others read often: on a pair of cache lines of its own, as pairs are
/// prefetched together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(T);
