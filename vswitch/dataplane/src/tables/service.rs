//! Services: virtual addresses, and the backends that their flows are given to.
//!
//! Enters: services, from `compile` on the control thread. Leaves: to the door `session`, the service
//! that has a destination's protocol and port, and the backend of a flow. That an address is virtual
//! is the FIB's to say ([`Adjacency::Service`](super::Adjacency)).

mod maglev;

use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use ipnet::IpNet;

use crate::session::{Endpoint, Tuple};
use crate::wire::Protocol;
use maglev::Maglev;

/// What a flow to a service is addressed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualPort {
    /// The virtual address.
    pub address: IpAddr,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The service's port.
    pub port: u16,
}

/// Services by what flows are addressed to.
#[derive(Debug, Clone, Default)]
pub struct Services {
    by_port: HashMap<VirtualPort, Service, RandomState>,
}

/// One port of a service at one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Another one when its backends are others: sessions of a former one look at their backend anew.
    pub generation: u32,
    /// What its flows are given to.
    pub backends: Arc<Backends>,
    /// What becomes of a new flow while no backend is usable.
    pub without_backend: WithoutBackend,
    /// How all flows of a client go to one backend, if they do.
    pub affinity: Option<ClientAffinity>,
    /// Who may speak to it; anyone if there is none.
    pub sources: Option<Arc<[IpNet]>>,
    /// How many connections it was given.
    pub connections: ConnectionCount,
}

/// How many connections a service was given. All of its addresses, all workers and the tables that follow share
/// one count: it moves once a connection, when its session begins.
#[derive(Debug, Clone, Default)]
pub struct ConnectionCount(Arc<AtomicU64>);

/// How all flows of a client to a service go to one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAffinity {
    /// A number of the service, the same at all of its virtual addresses and after a restart.
    pub service: u64,
    /// How long the client may begin no flow before it may get another backend.
    pub timeout_s: u32,
}

/// What becomes of a new flow to a service without a usable backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutBackend {
    /// The client is told at once.
    Refuse,
    /// Dropped: other nodes have backends, and this one may not use them.
    Drop,
}

/// The backends of a service port, and the choice among those that take new flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backends {
    /// Those that take new flows come first.
    backends: Vec<Backend>,
    maglev: Maglev,
    /// Numbers of those that take new flows, in the order of their identities.
    by_identity: Vec<(u32, u16)>,
}

/// One backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Which flows it has.
    pub state: BackendState,
}

/// Which flows a backend has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendState {
    /// New ones too.
    Usable,
    /// Those that it has already.
    Serving,
    /// Connections that it has already, but no datagrams: it is not ready.
    NotServing,
}

impl Services {
    /// Adds the service of a virtual port, in place of a former one.
    pub fn insert(&mut self, port: VirtualPort, service: Service) {
        self.by_port.insert(port, service);
    }

    /// Removes the service of a virtual port.
    pub fn remove(&mut self, port: &VirtualPort) {
        self.by_port.remove(port);
    }

    /// The service of a virtual port.
    #[inline]
    #[must_use]
    pub fn get(&self, port: &VirtualPort) -> Option<&Service> {
        self.by_port.get(port)
    }

    /// Virtual ports.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_port.len()
    }

    /// Whether there is no service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_port.is_empty()
    }
}

impl Service {
    /// Whether a client may speak to it.
    #[must_use]
    pub fn admits(&self, client: IpAddr) -> bool {
        let contains = |net: &IpNet| net.contains(&client);
        self.sources.as_ref().is_none_or(|sources| sources.iter().any(contains))
    }

    /// The backend of a new flow; `None` if none is usable. It is the same on every node, and at most
    /// few flows get another one when a backend comes or goes. All flows of a client get the same one
    /// under affinity.
    #[must_use]
    pub fn choose(&self, flow: &Tuple) -> Option<&Backend> {
        self.backends.choose(maglev::hash_of(flow, self.affinity.is_none()))
    }
}

impl ConnectionCount {
    /// One more.
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl PartialEq for ConnectionCount {
    /// Whether it is the same count, whatever it stands at.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ConnectionCount {}

impl Backend {
    /// A number of its endpoint, the same on every node and in every version of this program.
    #[must_use]
    pub fn identity(&self) -> u32 {
        maglev::identity(&self.endpoint)
    }
}

impl Backends {
    /// Backends in any order; of several at one endpoint the one that takes most flows counts.
    #[must_use]
    pub fn new(backends: impl IntoIterator<Item = Backend>) -> Self {
        let mut backends: Vec<_> = backends.into_iter().collect();
        backends.sort_unstable();
        backends.dedup_by_key(|backend| backend.endpoint);
        // Stable: endpoints stay in order.
        backends.sort_by_key(|backend| backend.state);
        let usable = backends.partition_point(|one| one.state == BackendState::Usable);
        let usable = backends.get(..usable).unwrap_or_default();
        let maglev = Maglev::of(usable);
        let mut by_identity: Vec<_> = usable.iter().map(Backend::identity).zip(0..).collect();
        by_identity.sort_unstable();
        Self { backends, maglev, by_identity }
    }

    /// The usable backend at a place of the hash.
    #[must_use]
    pub fn choose(&self, hash: u64) -> Option<&Backend> {
        self.backends.get(self.maglev.choose(hash)?)
    }

    /// The backend with this identity, if it takes new flows. Of two with the same identity, which is
    /// one chance in 2^32, the first.
    #[must_use]
    pub fn usable(&self, identity: u32) -> Option<&Backend> {
        let at = self.by_identity.partition_point(|(other, _)| *other < identity);
        let (found, number) = self.by_identity.get(at)?;
        self.backends.get(usize::from(*number)).filter(|_| *found == identity)
    }

    /// The backend at an endpoint.
    #[must_use]
    pub fn at(&self, endpoint: Endpoint) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.endpoint == endpoint)
    }

    /// Those that take new flows, then the others.
    #[must_use]
    pub fn all(&self) -> &[Backend] {
        &self.backends
    }
}

#[cfg(test)]
mod tests;
