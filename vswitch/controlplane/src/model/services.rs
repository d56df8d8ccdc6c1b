//! Services: which of their addresses are served, and which are somebody's already.
//!
//! Enters: `SyncServices`, and services of the journal. Leaves: edits for what changed, a reason for
//! each service that may not be; to `compile`, what is served at each virtual port. A service that
//! takes the address of a pod, a node or another service for its own would divert their traffic
//! (CVE-2020-8554): such an address is not served, and the rest of the service is.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::{RefusedAddress, RefusedService, ServiceSpec, ServiceSync};
use dataplane::tables::{ConnectionCount, VirtualPort};
use dataplane::wire::Protocol;
use ipnet::IpNet;

use super::{Edit, Model};

/// Bytes of a name: a namespace's, a service's and a port's, with room for what tells its addresses
/// apart.
const MAX_NAME_LEN: usize = 512;
/// Addresses of one service at most.
const MAX_ADDRESSES: usize = 128;
/// Backends of one service at most: a Maglev table has a number of 16 bits for each.
const MAX_BACKENDS: usize = 60_000;
/// Virtual ports of a node at most: about 100 bytes each.
const MAX_PORTS: usize = 200_000;

/// Services by name.
pub type NamedServices = BTreeMap<String, Arc<ServiceSpec>>;

/// What is served, and what is not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServedServices {
    /// The service of each virtual port.
    pub ports: BTreeMap<VirtualPort, Arc<ServiceSpec>>,
    /// Virtual addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// How many connections each service was given, by its name before the blank.
    pub connections: BTreeMap<String, ConnectionCount>,
    /// Addresses that are not served, by the name of their service.
    pub refused: BTreeMap<String, Vec<RefusedAddress>>,
}

impl ServedServices {
    /// Everything that is refused, as the answer to a sync has it.
    pub fn refusals(&self) -> impl Iterator<Item = RefusedService> {
        let one = |name: &String, at: &RefusedAddress| RefusedService {
            name: name.clone(),
            reason: format!("{} is not served: {}", at.address, at.reason),
        };
        self.refused.iter().flat_map(move |(name, all)| all.iter().map(move |at| one(name, at)))
    }
}

impl Model {
    /// The edits that a sync comes to, and why some of its services are not taken at all.
    #[must_use]
    pub fn sync_services(&self, sync: ServiceSync) -> (Vec<Edit>, BTreeMap<String, String>) {
        let ServiceSync { complete, services, gone } = sync;
        let mut refused = BTreeMap::new();
        let mut wanted: BTreeMap<String, ServiceSpec> = BTreeMap::new();
        for service in services {
            match problem(&service) {
                None => {
                    wanted.insert(service.name.clone(), service);
                }
                Some(why) => {
                    refused.insert(service.name, why);
                }
            }
        }
        let gone: HashSet<String> = gone.into_iter().collect();
        let is_gone = |name: &String| {
            !wanted.contains_key(name)
                && (gone.contains(name) || complete && !refused.contains_key(name))
        };
        let withdrawn = self.services.keys().filter(|name| is_gone(name));
        let mut edits: Vec<_> =
            withdrawn.map(|name| Edit::NoService { name: name.clone() }).collect();
        let is_new = |service: &ServiceSpec| {
            self.services.get(&service.name).is_none_or(|known| **known != *service)
        };
        let fresh = wanted.into_values().filter(is_new);
        edits.extend(fresh.map(|service| Edit::Service { service }));
        (edits, refused)
    }

    /// Judges anew which addresses are served.
    pub(super) fn serve(&mut self) {
        if self.services.is_empty() && self.served.ports.is_empty() {
            return;
        }
        let taken = Taken::by(self);
        let mut served = ServedServices::default();
        for (name, service) in self.services.iter() {
            for address in &service.addresses {
                let port = VirtualPort {
                    address: *address,
                    protocol: Protocol(service.protocol.number()),
                    port: service.port,
                };
                let other = served.ports.get(&port).map(|other| {
                    format!("it is that of the service {}, with the same port", other.name)
                });
                let full = (served.ports.len() >= MAX_PORTS)
                    .then(|| format!("{MAX_PORTS} virtual ports are served already"));
                match taken.owner_of(*address).or(other).or(full) {
                    None => {
                        served.addresses.insert(*address);
                        served.ports.insert(port, Arc::clone(service));
                        let name = name_of(service);
                        if !served.connections.contains_key(name) {
                            let count = self.served.connections.get(name).cloned();
                            served.connections.insert(name.to_owned(), count.unwrap_or_default());
                        }
                    }
                    Some(reason) => {
                        let refused = served.refused.entry(name.clone()).or_default();
                        refused.push(RefusedAddress { address: *address, reason });
                    }
                }
            }
        }
        if *self.served != served {
            self.served = Arc::new(served);
        }
    }
}

/// The name of a service, the same for all sets of its addresses ([`ServiceSpec::name`]).
pub(crate) fn name_of(service: &ServiceSpec) -> &str {
    service.name.split(' ').next().unwrap_or_default()
}

/// What is wrong with a service as a whole.
fn problem(service: &ServiceSpec) -> Option<String> {
    let ServiceSpec { name, port, addresses, backends, affinity_seconds, .. } = service;
    if name.is_empty() || name.len() > MAX_NAME_LEN {
        return Some(format!("its name has {} bytes; 1 to {MAX_NAME_LEN} are allowed", name.len()));
    }
    if *port == 0 {
        return Some("its port is 0".into());
    }
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Some(format!(
            "it has {} addresses; 1 to {MAX_ADDRESSES} are allowed",
            addresses.len()
        ));
    }
    if backends.len() > MAX_BACKENDS {
        return Some(format!(
            "it has {} backends; {MAX_BACKENDS} at most are allowed",
            backends.len()
        ));
    }
    if *affinity_seconds == Some(0) {
        return Some("its affinity lasts 0 seconds; leave it out".into());
    }
    backends.iter().find_map(|backend| {
        let why = if backend.port == 0 { Some("its port is 0") } else { no_host(backend.address) };
        why.map(|why| format!("backend {} port {}: {why}", backend.address, backend.port))
    })
}

/// Why no host of a network can have an address.
fn no_host(address: IpAddr) -> Option<&'static str> {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let is_reserved = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    };
    if address.is_loopback() {
        Some("it is a loopback address")
    } else if address.is_unspecified() || is_reserved {
        Some("no host can have it")
    } else if address.is_multicast() {
        Some("it is a multicast address")
    } else if is_link_local {
        Some("it is link-local")
    } else {
        None
    }
}

/// Addresses that are somebody's.
struct Taken<'a> {
    own: Vec<IpAddr>,
    gateways: HashSet<IpAddr>,
    nodes: HashMap<IpAddr, &'a str>,
    /// Prefixes of pods and their nodes, and their lengths, longest first.
    prefixes: HashMap<IpNet, &'a str>,
    lens: [Vec<u8>; 2],
}

impl<'a> Taken<'a> {
    fn by(model: &'a Model) -> Self {
        let mut prefixes: HashMap<IpNet, &str> = HashMap::new();
        let mut nodes = HashMap::new();
        for peer in model.all_peers() {
            nodes.insert(peer.address, peer.name.as_str());
            prefixes.extend(peer.prefixes.iter().map(|prefix| (*prefix, peer.name.as_str())));
        }
        prefixes.extend(model.pods.all().map(|prefix| (*prefix, "this node")));
        let lens = [true, false].map(|v4| {
            let family = prefixes.keys().filter(|net| matches!(net, IpNet::V4(_)) == v4);
            family.map(IpNet::prefix_len).collect::<BTreeSet<_>>().into_iter().rev().collect()
        });
        let own = &model.own;
        let own = own.v4.map(IpAddr::from).into_iter().chain(own.v6.map(IpAddr::from)).collect();
        Self { own, gateways: model.pods.gateways().collect(), nodes, prefixes, lens }
    }

    /// Why an address cannot be a service's.
    fn owner_of(&self, address: IpAddr) -> Option<String> {
        if let Some(why) = no_host(address) {
            return Some(why.to_owned());
        }
        if self.own.contains(&address) {
            return Some("it is this node's own".into());
        }
        if self.gateways.contains(&address) {
            return Some("it is this node's gateway".into());
        }
        if let Some(node) = self.nodes.get(&address) {
            return Some(format!("it is the node {node}'s"));
        }
        let [v4, v6] = &self.lens;
        let lens = if address.is_ipv4() { v4 } else { v6 };
        let mut nets = lens.iter().filter_map(|len| Some(IpNet::new(address, *len).ok()?.trunc()));
        let (net, node) = nets.find_map(|net| Some((net, self.prefixes.get(&net)?)))?;
        Some(format!("it is of {net}, from which pods of {node} have their addresses"))
    }
}
