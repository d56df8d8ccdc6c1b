//! Requests, replies and errors of the control socket.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    Adjustment, Attach, AttachmentId, Check, Drops, FdbEntry, FibEntry, Mac, NeighborEntry,
    PeerEntry, PeerSpec, PeerSync, PortEntry, RefusedPeer, Reserve, Reserved, RouteSpec, Status,
    TracePacket, TraceResult,
};

/// One question or order to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", content = "with", rename_all = "kebab-case")]
pub enum Request {
    /// What runs, and why it was chosen so.
    Status,
    /// Every port with its counters.
    ShowPorts,
    /// Static and learned MACs of every bridge domain.
    ShowFdb,
    /// Every route and where it comes from.
    ShowFib,
    /// IP to MAC: pods, and the kernel's entries for underlay next hops.
    ShowNeighbors,
    /// The other nodes.
    ShowPeers,
    /// Dropped packets by reason, with the accounting that closes over them.
    ShowDrops,
    /// Walks a described packet through the live tables, without side effect.
    Trace(TracePacket),

    /// First half of a CNI ADD.
    Reserve(Reserve),
    /// Second half; carries one file descriptor.
    Attach(Attach),
    /// Frees everything that the attachment holds; succeeds if it holds nothing.
    Detach(AttachmentId),
    /// CNI CHECK.
    Check(Check),
    /// Live pods whose interface is to have another MTU, which is set from inside their namespace.
    Adjustments,
    /// A pod's interface has this MTU.
    Adjusted {
        /// Whose.
        attachment: AttachmentId,
        /// Bytes.
        mtu: u32,
    },

    /// Adds or replaces a route.
    AddRoute(RouteSpec),
    /// Removes a route that was added at run time.
    DeleteRoute(IpNet),
    /// Adds or replaces a peer.
    AddPeer(PeerSpec),
    /// Removes a peer, with its routes, by name.
    DeletePeer(String),
    /// What a source says of the other nodes.
    SyncPeers(PeerSync),
    /// The prefixes that this node's pods get their addresses from, one a family, as the cluster
    /// assigned them; for a node whose configuration names none.
    SetPodPrefixes(Vec<IpNet>),
    /// Adds a static FDB entry.
    AddFdb {
        /// Bridge domain.
        bridge: String,
        /// Destination MAC.
        mac: Mac,
        /// Underlay address of the VTEP behind which it lives.
        vtep: IpAddr,
    },
    /// Removes a static FDB entry that was added at run time.
    DeleteFdb {
        /// Bridge domain.
        bridge: String,
        /// Destination MAC.
        mac: Mac,
    },
    /// Adds a static neighbour: for a bridge domain's host that no CNI call announced.
    AddNeighbor {
        /// Bridge domain.
        bridge: String,
        /// Its address.
        address: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
    /// Removes a static neighbour that was added at run time.
    DeleteNeighbor {
        /// Bridge domain.
        bridge: String,
        /// Its address.
        address: IpAddr,
    },
}

/// Answer to a [`Request`].
pub type Response = Result<Reply, ErrorReply>;

/// What the daemon answers when it could do as asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "with", rename_all = "kebab-case")]
pub enum Reply {
    /// Done; there is nothing more to say.
    Done,
    /// To `Status`.
    Status(Box<Status>),
    /// To `ShowPorts`.
    Ports(Vec<PortEntry>),
    /// To `ShowFdb`.
    Fdb(Vec<FdbEntry>),
    /// To `ShowFib`.
    Fib(Vec<FibEntry>),
    /// To `ShowNeighbors`.
    Neighbors(Vec<NeighborEntry>),
    /// To `ShowPeers`.
    Peers(Vec<PeerEntry>),
    /// To `ShowDrops`.
    Drops(Drops),
    /// To `Trace`.
    Trace(TraceResult),
    /// To `Reserve`.
    Reserved(Reserved),
    /// To `Adjustments`.
    Adjustments(Vec<Adjustment>),
    /// To `SyncPeers`: every peer of this source that is refused now, also those of an earlier
    /// request. Everything else is taken.
    Synced(Vec<RefusedPeer>),
}

/// Why the daemon did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorReply {
    /// For programs.
    pub kind: ErrorKind,
    /// For people: what failed, on what, and what to do.
    pub message: String,
}

/// Classes of errors, as far as a client acts on them differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request cannot be granted as it stands.
    Invalid,
    /// It contradicts what is there: an address in use, another attachment of the same name.
    Conflict,
    /// What it names is not there.
    Unknown,
    /// No address, port or memory is left.
    Exhausted,
    /// Try again later.
    NotReady,
    /// The daemon failed; its log says more.
    Internal,
}
