//! What the daemon shows of the session table.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Some of the sessions, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Counts of IPv4, then of IPv6.
    pub families: Vec<SessionCounts>,
    /// Sessions, as many as were asked for.
    pub sessions: Vec<SessionEntry>,
}

/// How many sessions of one IP version there are, and what became of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCounts {
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// Not answered yet.
    pub embryonic: u32,
    /// Answered.
    pub established: u32,
    /// Finished or reset.
    pub closing: u32,
    /// Entries that there is room for; a translated session takes two.
    pub capacity: u32,
    /// Begun since the table was made.
    pub created: u64,
    /// Not begun, for want of room.
    pub refused: u64,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// Name of the transport protocol.
    pub protocol: String,
    /// Who opened it.
    pub client: SessionEnd,
    /// Its name, if it is a pod of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// What the opener speaks to.
    pub server: SessionEnd,
    /// The name of that service, or of that pod of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Who answers, if that is another: a service's backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<SessionEnd>,
    /// Its name, if it is a pod of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_name: Option<String>,
    /// The client as the backend sees it, if that is another address or port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_at_backend: Option<SessionEnd>,
    /// `embryonic`, `established`, `finished` or `reset`.
    pub state: String,
    /// Policies do not allow it any more: its packets are dropped.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub is_revoked: bool,
    /// Seconds since its last packet.
    pub idle_seconds: u32,
}

/// One end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEnd {
    /// Its address.
    pub address: IpAddr,
    /// Its port, or the identifier of an echo.
    pub port: u16,
}
