//! Requests, replies and errors of the control socket.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    Adjustment, Attach, AttachmentId, Check, Collect, Drops, Explain, Explained, FdbEntry,
    FibEntry, FollowDrops, FollowedDrops, LatencyReport, Mac, NeighborEntry, PeerEntry, PeerSpec,
    PeerSync, PolicyDigest, PolicyState, PolicySync, PortEntry, Reattachment, Recover, RefusedPeer,
    RefusedRuleSet, RefusedService, Reserve, Reserved, RouteSpec, ServiceEntry, ServiceSync,
    Sessions, Status, Survey, TracePacket, TraceResult,
};

/// One question or order to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", content = "with", rename_all = "kebab-case")]
pub enum Request {
    /// Shows what runs, and why it was chosen so.
    Status,
    /// Every port with its counters.
    ShowPorts,
    /// Static and learned MACs of every bridge domain.
    ShowFdb,
    /// Every route and where it comes from.
    ShowFib,
    /// IP to MAC: pods, and the kernel's entries for underlay next hops.
    ShowNeighbors,
    /// Every peer, and how it is reached.
    ShowPeers,
    /// Dropped packets by reason, with the accounting that closes over them.
    ShowDrops,
    /// Samples of the packets that are dropped meanwhile; asked again and again.
    FollowDrops(FollowDrops),
    /// How long packets take through the switch.
    ShowLatency {
        /// Also by the port that they come from.
        by_port: bool,
    },
    /// Every service, and what its flows are given to.
    ShowServices,
    /// The policies of each pod, and how much there is of them.
    ShowPolicies,
    /// What is known of policies, to be compared with what should be.
    PolicyDigest,
    /// Sessions that are known now, at most so many.
    ShowSessions {
        /// Sessions at most.
        most: u32,
    },
    /// Walks a described packet through the live tables, without side effect.
    Trace(TracePacket),
    /// Tells what decides about a connection between two that have names, without side effect.
    Explain(Explain),

    /// First half of a CNI ADD: reserves addresses.
    Reserve(Reserve),
    /// Second half of a CNI ADD; carries the interface's file descriptor, or one for each of its queues, and behind
    /// them that of the process (pidfd_open(2)) if the path of the namespace names one.
    Attach(Attach),
    /// Frees everything that the attachment holds; succeeds if it holds nothing.
    Detach(AttachmentId),
    /// Frees every attachment of a network but those that are listed: CNI GC.
    Collect(Collect),
    /// Detaches every pod, removes what the daemon has set up of the node, and ends the daemon for good.
    Drain,
    /// CNI CHECK.
    Check(Check),
    /// Live pods that need another MTU of their interface, which is set from inside their namespace.
    Adjustments,
    /// Pods that were attached and have no port: their interface is to be opened again in its namespace,
    /// and handed over by `Attach`.
    Reattachments,
    /// Reports that the interface of one of them is not in its namespace.
    InterfaceNotFound(AttachmentId),
    /// Asks whether pods may be missing from the journal, and where they would be found.
    Survey,
    /// Takes up a pod that was found so, which `Attach` follows. Answered as `Reserve`.
    Recover(Recover),
    /// Reports that every place of the survey was looked at, and what was found was taken up or is none.
    Surveyed,
    /// Reports that a pod's interface has this MTU.
    Adjusted {
        /// The attachment of the pod.
        attachment: AttachmentId,
        /// MTU of the interface, bytes.
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
    /// Adds, replaces and withdraws peers of one source.
    SyncPeers(PeerSync),
    /// Adds, replaces and withdraws services.
    SyncServices(ServiceSync),
    /// Forgets all that was told of policies: no pod is isolated until a source tells some again, unless
    /// the configuration has pods wait for that.
    ForgetPolicies,
    /// A part of a change of policies; with the last of them, all is in force.
    SyncPolicies(PolicySync),
    /// Sets the prefixes that this node's pods get their addresses from, one a family, as the cluster
    /// assigned them; for a node that has none in its configuration.
    SetPodPrefixes(Vec<IpNet>),
    /// Adds a static FDB entry.
    AddFdb {
        /// Bridge domain.
        bridge: String,
        /// Destination MAC.
        mac: Mac,
        /// Underlay address of the VTEP behind which it is.
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
        /// Address of the host.
        address: IpAddr,
        /// MAC of the host.
        mac: Mac,
    },
    /// Removes a static neighbour that was added at run time.
    DeleteNeighbor {
        /// Bridge domain.
        bridge: String,
        /// Address of the host.
        address: IpAddr,
    },
}

/// Answer to a [`Request`].
pub type Response = Result<Reply, ErrorReply>;

/// Answer of the daemon that did as asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "with", rename_all = "kebab-case")]
pub enum Reply {
    /// Done; there is nothing more to report.
    Done,
    /// Answer to `Status`.
    Status(Box<Status>),
    /// Answer to `ShowPorts`.
    Ports(Vec<PortEntry>),
    /// Answer to `ShowFdb`.
    Fdb(Vec<FdbEntry>),
    /// Answer to `ShowFib`.
    Fib(Vec<FibEntry>),
    /// Answer to `ShowNeighbors`.
    Neighbors(Vec<NeighborEntry>),
    /// Answer to `ShowPeers`.
    Peers(Vec<PeerEntry>),
    /// Answer to `ShowDrops`.
    Drops(Drops),
    /// Answer to `FollowDrops`.
    FollowedDrops(FollowedDrops),
    /// Answer to `ShowLatency`.
    Latency(LatencyReport),
    /// Answer to `ShowServices`.
    Services(Vec<ServiceEntry>),
    /// Answer to `ShowPolicies`.
    Policies(PolicyState),
    /// Answer to `PolicyDigest`.
    PolicyDigest(PolicyDigest),
    /// Answer to `ShowSessions`.
    Sessions(Sessions),
    /// Answer to `Trace`.
    Trace(TraceResult),
    /// Answer to `Explain`.
    Explained(Box<Explained>),
    /// Answer to `Reserve`.
    Reserved(Reserved),
    /// Answer to `Adjustments`.
    Adjustments(Vec<Adjustment>),
    /// Answer to `Reattachments`.
    Reattachments(Vec<Reattachment>),
    /// Answer to `Survey`; none if no pod can be missing.
    Survey(Option<Survey>),
    /// Answer to `Drain`.
    Drained {
        /// Pods that were detached.
        pods: usize,
        /// Those of them that had no port, by name: their interfaces stay, dead, until their namespaces
        /// end.
        without_port: Vec<String>,
    },
    /// Answer to `SyncPeers`: every peer of this source that is refused now, also those of an earlier
    /// request. Everything else is taken.
    Synced(Vec<RefusedPeer>),
    /// Answer to `SyncServices`: every service that is refused now, as a whole or at some of its
    /// addresses, also of an earlier request.
    SyncedServices(Vec<RefusedService>),
    /// Answer to `SyncPolicies`: every rule set that is refused now, also of an earlier request; none for
    /// a part that is not the last.
    SyncedPolicies(Vec<RefusedRuleSet>),
}

/// Why the daemon did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorReply {
    /// Class of the error, for programs.
    pub kind: ErrorKind,
    /// Text for people: what failed, on what, and what to do.
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
    /// What the request names does not exist.
    Unknown,
    /// No address, port or memory is left.
    Exhausted,
    /// The daemon is not ready; try again later.
    NotReady,
    /// The daemon failed; its log has the details.
    Internal,
}
