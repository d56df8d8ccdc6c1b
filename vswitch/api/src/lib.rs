//! Messages that travel over vswitchd's control socket.
//!
//! A client (`vswitch-cni`, `vswitchctl`, an agent) connects to the unix stream socket, writes one
//! [`Request`], reads one [`Response`], and may go on. `Attach` carries the port's file descriptor
//! as SCM_RIGHTS on the first byte of its message.
//!
//! | file | holds |
//! |---|---|
//! | `message`    | requests, replies and errors |
//! | `address_range` | addresses from one to another |
//! | `attachment` | a pod's interface: its key, its addresses, its mode |
//! | `bandwidth`  | limits of a pod's traffic |
//! | `peer`       | the other nodes, as sources name them and as they are reached |
//! | `policy`     | groups, rules and subjects: what is allowed between pods |
//! | `policy_state` | what `show policies` answers |
//! | `state`      | what `status` and `show` answer |
//! | `service`    | services, as a node is to serve them |
//! | `session`    | what the daemon shows of the session table |
//! | `latency`    | how long packets take, as counts |
//! | `explain`    | what decides about a connection, stage by stage |
//! | `trace`      | a described packet, and the doors that it passed |
//! | `codec`      | length prefix and JSON, bounded |
//! | `client`     | a request and its reply, for a program that waits for it |
//! | `detach_queue` | what a CNI plugin asks of a daemon that is away |
//! | `error`      | an error with its causes in one line |
//! | `fnv`        | a hash that is the same everywhere |
//! | `mac`        | a MAC address as text |
//! | `prefix`     | how two prefixes relate |

#![forbid(unsafe_code)]

mod address_range;
mod attachment;
mod bandwidth;
mod client;
mod codec;
mod detach_queue;
mod drop_sample;
mod error;
mod explain;
mod fnv;
mod latency;
mod mac;
mod message;
mod peer;
mod policy;
mod policy_state;
mod port_mapping;
mod prefix;
mod service;
mod session;
mod state;
mod trace;

pub use address_range::AddressRange;
pub use attachment::{
    Adjustment, Attach, AttachmentId, Check, Collect, Delegated, MAX_QUEUES, Mode, PodName,
    Reattachment, Recover, Reserve, Reserved, Survey, is_one_queue, one_queue,
};
pub use bandwidth::{Bandwidth, RateLimit};
pub use client::{ClientError, PATIENCE, READ_BYTES, Wait, call};
pub use codec::{
    CodecError, Decoder, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, encode_request, encode_response,
};
pub use detach_queue::{DEFAULT_STATE_DIR, DetachQueue, MAX_QUEUED, QueueError, QueueLock, Queued};
pub use drop_sample::{DropSample, FollowDrops, FollowedDrops};
pub use error::chain;
pub use explain::{
    DecidingRule, Explain, Explained, ExplainedEnd, ExplainedRoute, ExplainedService, Judge,
};
pub use fnv::Fnv;
pub use latency::{LatencyBucket, LatencyCounts, LatencyReport};
pub use mac::{Mac, MacParseError};
pub use message::{ErrorKind, ErrorReply, Reply, Request, Response};
pub use peer::{Encapsulate, Encapsulation, PeerEntry, PeerSpec, PeerSync, RefusedPeer};
pub use policy::{
    GroupChange, GroupId, NamedRuleSet, PeerBlock, PolicyDigest, PolicyPeers, PolicyPorts,
    PolicyRule, PolicySync, PolicyTier, RefusedRuleSet, RuleAction, RuleSet, RuleSetId, Subject,
    SubjectRules, members_hash, rule_set_hash,
};
pub use policy_state::{
    DirectionPolicies, Isolation, PodPolicies, PolicyDecisions, PolicyEntry, PolicyState,
    PolicySummary,
};
pub use port_mapping::{MAX_PORT_MAPPINGS, PortMapping, TransportProtocol};
pub use prefix::{is_v4, overlap};
pub use service::{
    BackendSpec, BackendUse, RefusedAddress, RefusedService, ServiceEntry, ServiceProtocol,
    ServiceSpec, ServiceSync, WithoutBackend,
};
pub use session::{SessionCounts, SessionEnd, SessionEntry, Sessions};
pub use state::{
    DropCount, Drops, FdbEntry, FibEntry, KernelRoutes, LostPod, MasqueradeStatus, NeighborEntry,
    NicQueue, PortCounters, PortEntry, PortKind, PortQueue, RefusedRoute, RepairStatus, RouteSpec,
    RouteTarget, ServiceProblem, ServiceProblemKind, Source, SourceStatus, Status, UplinkStatus,
    WorkerCoreShare, WorkerPortIo, WorkerStatus,
};
pub use trace::{Door, TracePacket, TraceResult};

/// Version of the protocol; a daemon answers another one with `ErrorKind::Invalid`.
pub const PROTOCOL_VERSION: u32 = 1;

/// MTU that the interface of a pod with an IPv6 address has at least, bytes: RFC 8200, section 5, "IPv6
/// requires that every link in the Internet have an MTU of 1280 octets or greater". The kernel takes
/// IPv6 away from a smaller one.
pub const IPV6_MIN_MTU: u32 = 1280;

/// Path of the control socket unless another is configured.
pub const DEFAULT_SOCKET: &str = "/run/vswitch/vswitch.sock";
