//! Whose an address is that a Service names: another Service's, a Node's, or its own.
//!
//! Enters: Services and Nodes as they come, change and go. Leaves: to `translate`, the owner of an address at
//! a port; to `index`, the Services for which an answer has changed. Whoever may write a Service must not get
//! the packets of others by the addresses in it (CVE-2020-8554).
//!
//! A ClusterIP is its Service's, as the API server assigns it. An external address cannot be a Node's. Of
//! several Services that name an address for the same port it is the one's whose load balancer has it, then
//! the oldest one's, on every node alike.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::ServiceProtocol;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::virtuals::{ClusterService, ServicePort};

/// Whose an address is, if it is not the Service's that names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// It is the ClusterIP of this Service.
    ClusterIp(String),
    /// This Node has it.
    Node(String),
    /// The load balancer of this Service has it, for the same port.
    Balancer(String),
    /// This Service is older, and names it for the same port.
    Older(String),
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClusterIp(service) => write!(f, "is the ClusterIP of Service {service}"),
            Self::Node(node) => write!(f, "is an address of Node {node}"),
            Self::Balancer(service) => {
                write!(f, "is the load balancer's of Service {service}, with the same port")
            }
            Self::Older(service) => {
                write!(f, "is also in the older Service {service}, with the same port")
            }
        }
    }
}

/// An address at a port.
type At = (IpAddr, ServiceProtocol, u16);

/// A Service that names an address for a port. The first in order has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    is_external: bool,
    is_ageless: bool,
    created: Option<Time>,
    service: Arc<str>,
}

/// All addresses of Services and Nodes.
#[derive(Debug, Default)]
pub struct Owners {
    cluster_ips: BTreeMap<IpAddr, Arc<str>>,
    nodes: BTreeSet<(IpAddr, Arc<str>)>,
    of_node: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
    /// Addresses and the Services that name them.
    named: BTreeSet<(IpAddr, Arc<str>)>,
    claims: BTreeMap<At, BTreeSet<Claim>>,
}

impl Owners {
    /// The other owner of an address that a Service has for a port; none if it is the Service's.
    #[must_use]
    pub fn owner_of(
        &self,
        service: &ClusterService,
        address: IpAddr,
        port: &ServicePort,
    ) -> Option<Owner> {
        if service.cluster_ips.contains(&address) {
            return None;
        }
        if let Some(owner) = self.cluster_ips.get(&address) {
            return Some(Owner::ClusterIp(owner.to_string()));
        }
        if service.external_ips.contains(&address)
            && let Some(node) = of_address(&self.nodes, address).next()
        {
            return Some(Owner::Node(node.to_string()));
        }
        let first = self.claims.get(&(address, port.protocol, port.port))?.first()?;
        if *first.service == *service.key {
            return None;
        }
        let owner = first.service.to_string();
        Some(if first.is_external { Owner::Older(owner) } else { Owner::Balancer(owner) })
    }

    /// Takes a Service that comes, changes or goes; `changed` gets those that an answer has changed for.
    pub fn put_service(
        &mut self,
        key: &Arc<str>,
        old: Option<&ClusterService>,
        new: Option<&ClusterService>,
        changed: &mut BTreeSet<Arc<str>>,
    ) {
        let ips = |service: Option<&ClusterService>| -> BTreeSet<IpAddr> {
            service.into_iter().flat_map(|service| service.cluster_ips.iter().copied()).collect()
        };
        let (old_ips, new_ips) = (ips(old), ips(new));
        for address in old_ips.difference(&new_ips) {
            if self.cluster_ips.get(address).is_some_and(|owner| owner == key) {
                self.cluster_ips.remove(address);
                changed.extend(of_address(&self.named, *address).cloned());
            }
        }
        for address in new_ips.difference(&old_ips) {
            // The API server gives none to two; should it, the first keeps it.
            self.cluster_ips.entry(*address).or_insert_with(|| Arc::clone(key));
            changed.extend(of_address(&self.named, *address).cloned());
        }
        for address in old.into_iter().flat_map(ClusterService::named_addresses) {
            self.named.remove(&(address, Arc::clone(key)));
        }
        for address in new.into_iter().flat_map(ClusterService::named_addresses) {
            self.named.insert((address, Arc::clone(key)));
        }
        let (old, new) = (claims(key, old), claims(key, new));
        // Whoever else names an address there is told whose it is.
        let mut tell = |all: &BTreeSet<Claim>| {
            changed.extend(all.iter().map(|claim| Arc::clone(&claim.service)));
        };
        for (at, claim) in old.difference(&new) {
            let Some(all) = self.claims.get_mut(at) else { continue };
            let was_first = all.first() == Some(claim);
            all.remove(claim);
            if was_first {
                tell(all);
            }
            if all.is_empty() {
                self.claims.remove(at);
            }
        }
        for (at, claim) in new.difference(&old) {
            let all = self.claims.entry(*at).or_default();
            all.insert(claim.clone());
            if all.first() == Some(claim) {
                tell(all);
            }
        }
    }

    /// Takes a Node's addresses, of all kinds; none if it is gone. `changed` gets the Services that name one
    /// that came or went.
    pub fn put_node(
        &mut self,
        name: &str,
        addresses: BTreeSet<IpAddr>,
        changed: &mut BTreeSet<Arc<str>>,
    ) {
        let (name, old) =
            self.of_node.remove_entry(name).unwrap_or_else(|| (name.into(), BTreeSet::new()));
        for address in old.symmetric_difference(&addresses) {
            let entry = (*address, Arc::clone(&name));
            if !self.nodes.remove(&entry) {
                self.nodes.insert(entry);
            }
            changed.extend(of_address(&self.named, *address).cloned());
        }
        if !addresses.is_empty() {
            self.of_node.insert(name, addresses);
        }
    }

    /// The Nodes that have addresses.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.of_node.keys()
    }
}

/// What a Service claims: each address that it names, at each of its ports.
fn claims(key: &Arc<str>, service: Option<&ClusterService>) -> BTreeSet<(At, Claim)> {
    let Some(service) = service else { return BTreeSet::new() };
    let claim = |address: &IpAddr| Claim {
        is_external: service.external_ips.contains(address),
        is_ageless: service.created.is_none(),
        created: service.created.clone(),
        service: Arc::clone(key),
    };
    let at =
        |address: IpAddr| service.ports.iter().map(move |port| (address, port.protocol, port.port));
    service
        .named_addresses()
        .flat_map(|address| at(address).map(move |at| (at, address)))
        .map(|(at, address)| (at, claim(&address)))
        .collect()
}

fn of_address(
    all: &BTreeSet<(IpAddr, Arc<str>)>,
    address: IpAddr,
) -> impl Iterator<Item = &Arc<str>> {
    let of_address = all.range((address, Arc::from(""))..);
    of_address.take_while(move |(other, _)| *other == address).map(|(_, name)| name)
}
