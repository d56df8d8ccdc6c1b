//! Mapping of a port of the node to one of a pod: a hostPort.
//!
//! The plugin has the mappings from its runtime (capability `portMappings`) and sends them with
//! [`Reserve`](crate::Reserve); the daemon has the node's kernel translate.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Mappings that one attachment has at most.
pub const MAX_PORT_MAPPINGS: usize = 1024;

/// Protocols that a port can be mapped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportProtocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl TransportProtocol {
    /// Name of the protocol, as CNI and nftables write it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Number of the protocol, as in an IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// What comes to a port of the node goes to a port of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// Protocol of both ports.
    pub protocol: TransportProtocol,
    /// The node's address; every one of the pod's families if absent, every one of its own family if
    /// it is unspecified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// Port of the node.
    pub host_port: u16,
    /// Port of the pod.
    pub container_port: u16,
}

impl PortMapping {
    /// Whether a packet can be meant by both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let are_addresses_disjoint = match (self.host_ip, other.host_ip) {
            (Some(one), Some(another)) if one.is_ipv4() != another.is_ipv4() => true,
            (Some(one), Some(another)) => {
                one != another && !one.is_unspecified() && !another.is_unspecified()
            }
            _ => false,
        };
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && !are_addresses_disjoint
    }
}

impl fmt::Display for PortMapping {
    /// Written as `tcp 198.51.100.11:8080 -> 80`; the address is left out where any will do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, host_ip, host_port, container_port } = self;
        match host_ip {
            None => write!(f, "{} {host_port} -> {container_port}", protocol.label()),
            Some(host_ip) => {
                let node = SocketAddr::new(*host_ip, *host_port);
                write!(f, "{} {node} -> {container_port}", protocol.label())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PortMapping, TransportProtocol};

    fn mapping(protocol: TransportProtocol, host_ip: &str, host_port: u16) -> PortMapping {
        let host_ip = (!host_ip.is_empty()).then(|| host_ip.parse().expect("an address"));
        PortMapping { protocol, host_ip, host_port, container_port: 80 }
    }

    #[test]
    fn mappings_overlap_where_a_packet_can_be_meant_by_both() {
        use TransportProtocol::{Tcp, Udp};
        let any = mapping(Tcp, "", 8080);
        let table = [
            (mapping(Tcp, "", 8080), true),
            (mapping(Udp, "", 8080), false),
            (mapping(Tcp, "", 8081), false),
            (mapping(Tcp, "198.51.100.11", 8080), true),
            (mapping(Tcp, "2001:db8::1", 8080), true),
        ];
        for (other, overlaps) in table {
            assert_eq!(
                (any.overlaps(&other), other.overlaps(&any)),
                (overlaps, overlaps),
                "{other}"
            );
        }
        let one = mapping(Tcp, "198.51.100.11", 8080);
        let table = [("198.51.100.12", false), ("0.0.0.0", true), ("::", false)];
        for (host_ip, overlaps) in table {
            assert_eq!(one.overlaps(&mapping(Tcp, host_ip, 8080)), overlaps, "{host_ip}");
        }
    }

    #[test]
    fn they_are_written_for_people() {
        let table = [
            ("", "tcp 8080 -> 80"),
            ("198.51.100.11", "tcp 198.51.100.11:8080 -> 80"),
            ("2001:db8::1", "tcp [2001:db8::1]:8080 -> 80"),
        ];
        for (host_ip, text) in table {
            assert_eq!(mapping(TransportProtocol::Tcp, host_ip, 8080).to_string(), text);
        }
    }
}
