//! A described packet, and what the walk did with it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Mac;

/// A packet to be injected into the decision code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracePacket {
    /// Name of the port that it enters by.
    pub port: String,
    /// Destination MAC; the gateway's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_mac: Option<Mac>,
    /// Source MAC; the port's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_mac: Option<Mac>,
    /// Source address; the port's first of the family if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    /// Destination address.
    pub dst: IpAddr,
    /// `icmp`, `tcp`, `udp`, `sctp` or a number.
    pub protocol: String,
    /// Source port.
    #[serde(default)]
    pub src_port: u16,
    /// Destination port.
    #[serde(default)]
    pub dst_port: u16,
    /// Length of the IP packet, bytes.
    pub len: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Don't fragment (IPv4).
    pub df: bool,
}

/// One door of the walk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// `decap`, `parse`, `bridge`, `route`, `verdict`, `rewrite`.
    pub door: String,
    /// What happened there.
    pub said: String,
}

/// The whole walk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceResult {
    /// The packet as tcpdump would print it.
    pub packet: String,
    /// The doors in the order in which the packet passed them.
    pub doors: Vec<Door>,
    /// The verdict in words.
    pub verdict: String,
    /// Name of the reason if it is dropped.
    pub dropped: Option<String>,
    /// Packets that leave, as tcpdump would print them, each with the name of its port.
    pub leaves: Vec<String>,
}
