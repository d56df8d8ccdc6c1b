//! Dropped packets as `drops --follow` shows them: some of them, each with its cause.

use serde::{Deserialize, Serialize};

use crate::{ExplainedEnd, Mac};

/// Asks for the packets that were dropped since the last answer. The daemon takes samples for some seconds
/// after each such request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FollowDrops {
    /// Where the last answer ended, by worker; empty to begin now.
    #[serde(default)]
    pub since: Vec<u64>,
    /// Only packets from or to this port, by its name as `show ports` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Only packets that were dropped for this reason, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Dropped packets since the last answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FollowedDrops {
    /// Where the next request goes on, by worker.
    pub next: Vec<u64>,
    /// The samples, oldest first.
    pub samples: Vec<DropSample>,
    /// Samples of one reason in a second that a worker takes at most.
    pub most_a_second: u32,
    /// Packets of all ports that have been dropped so far, for the reason that was asked for or any.
    pub counted: u64,
}

/// A dropped packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropSample {
    /// When it was dropped, milliseconds since 1970.
    pub time_ms: u64,
    /// Name of the reason.
    pub reason: String,
    /// One sentence about it.
    pub explanation: String,
    /// What decided, or what is used up, if more is known than the reason. Found out when this was asked,
    /// a moment after the drop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The port that the packet came from.
    pub port: String,
    /// `out` if a pod sent it, `in` if it was for a pod; of a drop by policies, whichever of both the
    /// policies are about. Absent where no pod of this node is one of the ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// The source, of IP and ARP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ExplainedEnd>,
    /// The destination, of IP and ARP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<ExplainedEnd>,
    /// Source MAC, if the frame is long enough to have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_mac: Option<Mac>,
    /// Destination MAC, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_mac: Option<Mac>,
    /// `TCP`, `UDP`, `ICMP`, `ARP`, or what the packet is else.
    pub protocol: String,
    /// TCP flags (`S`, `SA`, `R`), the kind of an ICMP or ARP message, or `fragment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Bytes of the frame; zero if it was gone when it was counted.
    pub bytes: u32,
    /// Packets that it stands for: itself, and those of its reason that the worker dropped before it and
    /// took no sample of.
    pub packets: u32,
}
