//! Services, as a node is to serve them: virtual ports, and the backends that their flows are given to.
//!
//! The source that names them decides which backends this node may use; the daemon knows neither zones
//! nor traffic policies. A service with several ports, or whose addresses have different backends, is
//! several of these.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One port of a service at those of its addresses that have the same backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its name, unique: `shop/db:sql`; another set of addresses of it has a blank and more behind that.
    /// A client's affinity is to the name before the blank: it has one backend at all of the addresses.
    pub name: String,
    /// The transport protocol.
    pub protocol: ServiceProtocol,
    /// The port at the virtual addresses.
    pub port: u16,
    /// The virtual addresses.
    pub addresses: Vec<IpAddr>,
    /// Who may speak to them; anyone if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<IpNet>,
    /// What flows are given to.
    pub backends: Vec<BackendSpec>,
    /// What becomes of a new flow while no backend is usable.
    #[serde(default)]
    pub without_backend: WithoutBackend,
    /// For how many seconds of silence all flows of a client go to one backend, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u32>,
}

/// A transport protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ServiceProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// One backend of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendSpec {
    /// Its address.
    pub address: IpAddr,
    /// The port on which it listens.
    pub port: u16,
    /// Which flows it has.
    #[serde(default, skip_serializing_if = "BackendUse::is_all")]
    pub flows: BackendUse,
}

/// Which flows a backend has.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum BackendUse {
    /// New ones too.
    #[default]
    All,
    /// Those that it has already.
    Existing,
    /// Connections that it has already, but no datagrams: it is not ready.
    Connections,
}

/// What becomes of a new flow to a service without a usable backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutBackend {
    /// The client is told at once.
    #[default]
    Refuse,
    /// Dropped: other nodes have backends, and this one may not use them.
    Drop,
}

/// Services of a source that change. A complete list is sent in parts of at most `MAX_REQUEST_BYTES`
/// with `complete` false, and names those that are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSync {
    /// Whether services that are not in `services` are withdrawn.
    pub complete: bool,
    /// Services to add, or to replace if they differ.
    pub services: Vec<ServiceSpec>,
    /// Names of the services to withdraw.
    pub gone: Vec<String>,
}

/// A service, or a part of one, that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedService {
    /// Its name.
    pub name: String,
    /// What is wrong with it, in words.
    pub reason: String,
}

/// A service as the daemon has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEntry {
    /// The service.
    #[serde(flatten)]
    pub spec: ServiceSpec,
    /// Addresses of it that are not served, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedAddress>,
}

/// A virtual address that is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedAddress {
    /// The address.
    pub address: IpAddr,
    /// What is wrong with it, in words.
    pub reason: String,
}

impl BackendUse {
    /// Whether it has new flows too.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }
}

impl ServiceProtocol {
    /// The protocol's number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// Its name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}
