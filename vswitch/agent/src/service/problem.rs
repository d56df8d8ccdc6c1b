//! What is left out of a Service, in sentences for its log and Event.

use std::net::IpAddr;

use api::ServiceProtocol;

use super::owners::Owner;
use super::translate::{MAX_ADDRESSES, MAX_BACKENDS, MAX_SETS};
use super::virtuals::MAX_SOURCES;
use crate::fields::shown;

/// So many problems of a Service are named; the rest is counted.
const NAMED: usize = 5;

/// Something that is left out of a Service, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum ServiceProblem {
    /// An address that packets cannot be sent to.
    #[error("{kind} {address} {why}")]
    Address {
        /// What it is.
        kind: AddressKind,
        /// The address, as far as it is shown.
        address: String,
        /// Completes the sentence.
        why: &'static str,
    },
    /// An address that the Service names, and that is another's.
    #[error("external address {address} {owner}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        owner: Owner,
    },
    /// A port that cannot be one.
    #[error("port {0} is no port")]
    Port(String),
    /// A protocol that has no ports, or is unknown.
    #[error("protocol {0} is none of TCP, UDP and SCTP")]
    Protocol(String),
    /// Two ports that cannot be told apart.
    #[error("two of its ports are {} {port}", .protocol.label())]
    SamePort {
        /// Their protocol.
        protocol: ServiceProtocol,
        /// Their number, or their name.
        port: String,
    },
    /// Its source ranges cannot be kept, so that nobody may speak to the load balancer's addresses.
    #[error(
        "{0} in loadBalancerSourceRanges is no prefix; without another of its family the load balancer's addresses are not served"
    )]
    Source(String),
    /// More source ranges than are taken.
    #[error(
        "it has {0} loadBalancerSourceRanges, and {MAX_SOURCES} at most are taken: the load balancer's addresses are not served"
    )]
    Sources(usize),
    /// An affinity that cannot be meant.
    #[error("a timeout of {0} seconds is none of sessionAffinity; it is 10800 instead")]
    Affinity(i64),
    /// More addresses than are taken.
    #[error("it has {0} addresses of a kind; {MAX_ADDRESSES} at most are served")]
    Addresses(usize),
    /// More endpoints than are taken.
    #[error(
        "port {port} has {count} endpoints; {MAX_BACKENDS} at most are used, and of all its ports six times as many"
    )]
    Backends {
        /// Name or number of the port.
        port: String,
        /// How many it has.
        count: usize,
    },
    /// More ports than are taken.
    #[error(
        "it has too many ports; {MAX_SETS} at most are served, each family and kind of address counted"
    )]
    Sets,
    /// Names that no Service has.
    #[error("its name {0} is no name of a Service")]
    Name(String),
}

/// Of what an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressKind {
    /// A virtual address of the cluster.
    ClusterIp,
    /// One that the Service's owner names.
    External,
    /// A load balancer's.
    Ingress,
    /// An endpoint's.
    Endpoint,
}

impl std::fmt::Display for AddressKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ClusterIp => "clusterIP",
            Self::External => "externalIP",
            Self::Ingress => "load balancer's address",
            Self::Endpoint => "endpoint",
        })
    }
}

impl AddressKind {
    /// An address that packets can be sent to.
    ///
    /// # Errors
    /// If the text is none.
    pub fn parse(self, text: &str) -> Result<IpAddr, ServiceProblem> {
        let refuse = |why| ServiceProblem::Address { kind: self, address: shown(text), why };
        let address: IpAddr = text.parse().map_err(|_| refuse("is no address"))?;
        match no_host(address) {
            Some(why) => Err(refuse(why)),
            None => Ok(address),
        }
    }
}

/// Why no host of a network can have an address.
fn no_host(address: IpAddr) -> Option<&'static str> {
    let (is_link_local, is_reserved) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[0] == 0 || v4.octets()[0] >= 240),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.to_ipv4_mapped().is_some()),
    };
    if address.is_loopback() {
        Some("is a loopback address")
    } else if address.is_multicast() {
        Some("is a multicast address")
    } else if is_link_local {
        Some("is link-local")
    } else if address.is_unspecified() || is_reserved {
        Some("is no address of a host")
    } else {
        None
    }
}

/// The problems of a Service in one sentence, or none.
#[must_use]
pub fn summary<'p>(problems: impl IntoIterator<Item = &'p ServiceProblem>) -> Option<String> {
    let all: std::collections::BTreeSet<&ServiceProblem> = problems.into_iter().collect();
    let named: Vec<String> = all.iter().take(NAMED).map(ToString::to_string).collect();
    let more = all.len().saturating_sub(NAMED);
    match (named.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(named.join("; ")),
        (false, _) => Some(format!("{}; and {more} more", named.join("; "))),
    }
}
