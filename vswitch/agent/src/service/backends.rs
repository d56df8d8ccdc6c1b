//! Which endpoints this node uses, and for what.
//!
//! Enters: the endpoints of one port of a Service and one family. Leaves: backends, to `translate`. The
//! rules are kube-proxy's: usable are the endpoints that are ready, of these the ones that are meant for
//! this node or its zone; where none is ready, those that are terminating and still answer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{BackendSpec, BackendUse, WithoutBackend};

use super::slice::{Endpoint, EndpointSlice, NodeHint, Readiness};
use super::virtuals::ServicePort;

/// The endpoints of one port of a Service, of one family, each once.
#[derive(Debug, Default)]
pub(crate) struct PortEndpoints<'s> {
    all: BTreeMap<(IpAddr, u16), &'s Endpoint>,
}

/// What flows are given to, and what becomes of them where there is nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Backends {
    pub(crate) all: Vec<BackendSpec>,
    pub(crate) without: WithoutBackend,
}

/// Which of the ready endpoints are meant for this node.
#[derive(Clone, Copy)]
enum Preference<'z> {
    Any,
    Node,
    Zone(&'z str),
}

impl<'s> PortEndpoints<'s> {
    /// Those of the slices whose port has that name and protocol, whatever its number.
    pub(crate) fn of(
        port: &ServicePort,
        is_v4: bool,
        slices: impl Iterator<Item = &'s EndpointSlice>,
    ) -> Self {
        let mut all: BTreeMap<(IpAddr, u16), &Endpoint> = BTreeMap::new();
        for slice in slices {
            let is_it = |its: &&super::slice::SlicePort| {
                *its.name == *port.name && its.protocol == port.protocol
            };
            for its in slice.ports.iter().filter(is_it) {
                for endpoint in slice.endpoints.iter().filter(|e| e.address.is_ipv4() == is_v4) {
                    // One that moves between slices is in both for a while; the better report counts.
                    let known = all.entry((endpoint.address, its.port)).or_insert(endpoint);
                    if rank(endpoint) < rank(known) {
                        *known = endpoint;
                    }
                }
            }
        }
        Self { all }
    }

    /// For clients that any endpoint may serve.
    pub(crate) fn cluster(&self, zone: Option<&str>) -> Backends {
        let preference = self.preference(zone);
        let usable = |endpoint: &Endpoint| {
            endpoint.readiness == Readiness::Ready && preference.takes(endpoint)
        };
        let all = if self.all.values().any(|endpoint| usable(endpoint)) {
            self.backends(usable)
        } else {
            self.backends(|endpoint| endpoint.readiness == Readiness::Draining)
        };
        Backends { all, without: WithoutBackend::Refuse }
    }

    /// For clients that only this node's endpoints may serve.
    pub(crate) fn local(&self) -> Backends {
        let is_here = |readiness| {
            move |endpoint: &Endpoint| endpoint.is_local && endpoint.readiness == readiness
        };
        let has = |readiness| self.all.values().any(|endpoint| is_here(readiness)(endpoint));
        let is_usable = |endpoint: &&Endpoint| endpoint.readiness <= Readiness::Draining;
        if has(Readiness::Ready) {
            let all = self.backends(is_here(Readiness::Ready));
            return Backends { all, without: WithoutBackend::Refuse };
        }
        if has(Readiness::Draining) {
            let all = self.backends(is_here(Readiness::Draining));
            return Backends { all, without: WithoutBackend::Refuse };
        }
        let is_elsewhere = self.all.values().copied().any(|endpoint| is_usable(&endpoint));
        let without = if is_elsewhere { WithoutBackend::Drop } else { WithoutBackend::Refuse };
        Backends { all: self.backends(|_| false), without }
    }

    /// Hints count only if every ready endpoint has one, and one of them names us.
    fn preference<'z>(&self, zone: Option<&'z str>) -> Preference<'z> {
        let ready = || self.all.values().filter(|e| e.readiness == Readiness::Ready);
        if ready().all(|e| e.node_hint != NodeHint::None)
            && ready().any(|e| Preference::Node.takes(e))
        {
            return Preference::Node;
        }
        match zone.map(Preference::Zone) {
            Some(zone)
                if ready().all(|e| !e.zones.is_empty()) && ready().any(|e| zone.takes(e)) =>
            {
                zone
            }
            _ => Preference::Any,
        }
    }

    /// All endpoints: new flows for those that are usable, and to each what it has already.
    fn backends(&self, mut usable: impl FnMut(&Endpoint) -> bool) -> Vec<BackendSpec> {
        let backend = |((address, port), endpoint): (&(IpAddr, u16), &&Endpoint)| BackendSpec {
            address: *address,
            port: *port,
            flows: if usable(endpoint) {
                BackendUse::All
            } else if endpoint.readiness == Readiness::NotServing {
                BackendUse::Connections
            } else {
                BackendUse::Existing
            },
        };
        self.all.iter().map(backend).collect()
    }
}

impl Preference<'_> {
    fn takes(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Any => true,
            Self::Node => endpoint.node_hint == NodeHint::Ours,
            Self::Zone(zone) => endpoint.zones.iter().any(|its| **its == *zone),
        }
    }
}

/// Of two reports of one endpoint the lower one counts.
fn rank(endpoint: &Endpoint) -> (Readiness, bool) {
    (endpoint.readiness, !endpoint.is_local)
}
