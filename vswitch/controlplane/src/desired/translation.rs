//! Ports of the node that the kernel translates to pods' ports.
//!
//! Enters: the leases of pods that were attached. Leaves: where each port leads, to the nftables table,
//! and to what deletes the flows that the kernel tracks by former ones.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use api::{PortMapping, TransportProtocol};

use crate::model::{Lease, Model};

/// A port of the node, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodePort {
    /// IPv4 rather than IPv6.
    pub is_v4: bool,
    /// The node's address; any of the family's if absent.
    pub address: Option<IpAddr>,
    /// Protocol of the port.
    pub protocol: TransportProtocol,
    /// Number of the port.
    pub port: u16,
}

/// Where packets to a port of the node go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Translation {
    /// The port of the node.
    pub from: NodePort,
    /// The pod's address and port.
    pub to: SocketAddr,
}

/// Where each port of the node leads.
pub type Translations = BTreeMap<NodePort, SocketAddr>;

/// What the pods that were attached have mapped. Where several interfaces of a container share a mapping,
/// the first by name has it.
#[must_use]
pub fn translations(model: &Model) -> Translations {
    let mut all = Translations::new();
    for lease in model.attachments.values().filter(|lease| lease.attached) {
        for Translation { from, to } in lease.port_mappings.iter().flat_map(|one| of(one, lease)) {
            all.entry(from).or_insert(to);
        }
    }
    all
}

/// One a family that the mapping and the pod have.
fn of(mapping: &PortMapping, lease: &Lease) -> impl Iterator<Item = Translation> {
    let PortMapping { protocol, host_ip, host_port: port, container_port } = *mapping;
    let families = [true, false].into_iter();
    let families = families.filter(move |is_v4| host_ip.is_none_or(|ip| ip.is_ipv4() == *is_v4));
    families.filter_map(move |is_v4| {
        let pod = lease.addresses.iter().find(|net| net.addr().is_ipv4() == is_v4)?.addr();
        let address = host_ip.filter(|ip| !ip.is_unspecified());
        let from = NodePort { is_v4, address, protocol, port };
        Some(Translation { from, to: SocketAddr::new(pod, container_port) })
    })
}

/// What `one` has and `other` has not, or leads elsewhere.
#[must_use]
pub fn difference(one: &Translations, other: &Translations) -> Vec<Translation> {
    let missing = one.iter().filter(|(from, to)| other.get(from) != Some(to));
    missing.map(|(from, to)| Translation { from: *from, to: *to }).collect()
}

impl NodePort {
    /// Whether what the node sends to itself by a loopback address may be meant.
    #[must_use]
    pub fn includes_loopback(&self) -> bool {
        self.address.is_none_or(|address| address.is_loopback())
    }
}

impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from: NodePort { address, protocol, port, .. }, to } = self;
        match address {
            Some(address) => {
                write!(f, "{} {} -> {to}", protocol.label(), SocketAddr::new(*address, *port))
            }
            None => write!(f, "{} {port} -> {to}", protocol.label()),
        }
    }
}
