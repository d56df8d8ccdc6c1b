//! What the door `session` knows of services.
//!
//! Enters: what is served, and what was. Leaves: services into tables, each with its backends; what did
//! not change is not made again.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use api::{BackendUse, Fnv, ServiceSpec, WithoutBackend};
use dataplane::session::Endpoint;
use dataplane::tables::{
    self, Backend, BackendState, Backends, ClientAffinity, ConnectionCount, Service, Services,
    VirtualPort,
};
use ipnet::IpNet;

use crate::model::services::{ServedServices, name_of};

/// The services of virtual ports.
type Ports = BTreeMap<VirtualPort, Arc<ServiceSpec>>;

/// Makes the services of some virtual ports those of others.
pub(super) fn follow(services: &mut Arc<Services>, old: &ServedServices, new: &ServedServices) {
    let (old, new, connections) = (&old.ports, &new.ports, &new.connections);
    let is_other = |port: &VirtualPort, service: &Arc<ServiceSpec>, among: &Ports| {
        among.get(port).is_none_or(|known| !Arc::ptr_eq(known, service) && known != service)
    };
    let mut made: BTreeMap<(*const ServiceSpec, bool), Service> = BTreeMap::new();
    for port in old.keys().filter(|port| !new.contains_key(port)) {
        Arc::make_mut(services).remove(port);
    }
    for (port, spec) in new.iter().filter(|(port, spec)| is_other(port, spec, old)) {
        let v4 = port.address.is_ipv4();
        let service = made.entry((Arc::as_ptr(spec), v4)).or_insert_with(|| {
            let count = connections.get(name_of(spec)).cloned().unwrap_or_default();
            make(spec, v4, count)
        });
        Arc::make_mut(services).insert(*port, service.clone());
    }
}

/// The service of this IP version.
fn make(spec: &ServiceSpec, v4: bool, connections: ConnectionCount) -> Service {
    let backends = spec.backends.iter().filter(|backend| backend.address.is_ipv4() == v4);
    let backends = backends.map(|backend| Backend {
        endpoint: Endpoint { address: backend.address, port: backend.port },
        state: match backend.flows {
            BackendUse::All => BackendState::Usable,
            BackendUse::Existing => BackendState::Serving,
            BackendUse::Connections => BackendState::NotServing,
        },
    });
    let backends = Backends::new(backends);
    let sources: Vec<IpNet> =
        spec.sources.iter().filter(|net| matches!(net, IpNet::V4(_)) == v4).copied().collect();
    Service {
        generation: generation(&backends),
        backends: Arc::new(backends),
        without_backend: match spec.without_backend {
            WithoutBackend::Refuse => tables::WithoutBackend::Refuse,
            WithoutBackend::Drop => tables::WithoutBackend::Drop,
        },
        affinity: spec
            .affinity_seconds
            .map(|timeout_s| ClientAffinity { service: number(spec), timeout_s }),
        // Ranges of the other version alone admit nobody of this one.
        sources: (!spec.sources.is_empty()).then(|| sources.into()),
        connections,
    }
}

/// A number of the service by which its clients' affinities are found: the same at all of its addresses,
/// in both of its services if these have other backends, and after a restart. What is behind a blank in
/// a name tells such services apart ([`ServiceSpec::name`]).
fn number(spec: &ServiceSpec) -> u64 {
    let mut hasher = Fnv::default();
    (name_of(spec), spec.protocol.number(), spec.port).hash(&mut hasher);
    hasher.finish()
}

/// A number that the same backends have again after a restart, so that sessions of before need not look
/// for theirs. Others have the same one once in 2^32 times; a flow then stays where it is.
fn generation(backends: &Backends) -> u32 {
    let mut hasher = Fnv::default();
    backends.all().hash(&mut hasher);
    let hash = hasher.finish();
    (hash >> 32) as u32 ^ hash as u32
}

#[cfg(test)]
mod tests {
    use api::{ServiceProtocol, ServiceSpec, WithoutBackend};

    use super::number;

    #[test]
    fn an_affinity_is_to_a_service_and_not_to_some_of_its_addresses() {
        let spec = |name: &str, port, address: &str| ServiceSpec {
            name: name.into(),
            protocol: ServiceProtocol::Tcp,
            port,
            addresses: vec![address.parse().expect("an address")],
            sources: Vec::new(),
            backends: Vec::new(),
            without_backend: WithoutBackend::Refuse,
            affinity_seconds: Some(60),
        };
        let web = number(&spec("shop/web:http", 80, "198.19.0.1"));
        assert_eq!(web, number(&spec("shop/web:http external", 80, "203.0.113.1")));
        assert_eq!(web, number(&spec("shop/web:http ipv6", 80, "fd00:19::1")));
        assert_ne!(web, number(&spec("shop/web:https", 80, "198.19.0.1")));
        assert_ne!(web, number(&spec("shop/web:http", 81, "198.19.0.1")));
    }
}
