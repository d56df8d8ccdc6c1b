//! Answers about services and sessions.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use api::{ServiceEntry, ServiceSpec, SessionCounts, SessionEnd, SessionEntry, Sessions};
use controlplane::plane::ControlPlane;
use dataplane::Millis;
use dataplane::session::{Class, Endpoint, PortSessions, Session, SessionEvents, Tick};

use dataplane::tables::VirtualPort;
use dataplane::wire::Protocol;

use crate::daemon::Daemon;

/// Buckets of the session table that are read at a time.
const PAGE: u32 = 1024;
/// Sessions of one answer at most, whatever is asked for: some 200 bytes each.
const MOST: u32 = 20_000;

impl Daemon {
    /// All services by name.
    pub(super) fn show_services(&self) -> Vec<ServiceEntry> {
        let model = self.plane.model();
        let entry = |service: &ServiceSpec| ServiceEntry {
            spec: service.clone(),
            refused: model.served.refused.get(&service.name).cloned().unwrap_or_default(),
        };
        model.services.values().map(|service| entry(service)).collect()
    }

    /// Counts of sessions, and some of them.
    pub(super) fn show_sessions(&self, most: u32) -> Sessions {
        let table = &self.node.shared.sessions;
        let now = Millis(self.node.shared.origin.elapsed().as_millis() as u64).tick();
        let counted = ["IPv4", "IPv6"].into_iter().zip(table.totals()).zip(table.events());
        let families = counted
            .map(|((family, totals), events)| counts(family, &totals, &events, table.capacity()));
        let families = families.collect();
        let most = most.min(MOST) as usize;
        let pages = (0..table.buckets()).step_by(PAGE as usize);
        let sessions = pages.flat_map(|first| table.page(first..first.saturating_add(PAGE), now));
        let names = Names::of(&self.plane);
        let sessions = sessions.take(most).map(|session| shown(&session, now, &names)).collect();
        Sessions { families, sessions }
    }

    /// Calls with each session, and what shows one.
    pub(super) fn each_session(
        &self,
        mut call: impl FnMut(&Session, &dyn Fn(&Session) -> SessionEntry),
    ) {
        let table = &self.node.shared.sessions;
        let now = Millis(self.node.shared.origin.elapsed().as_millis() as u64).tick();
        let names = Names::of(&self.plane);
        for first in (0..table.buckets()).step_by(PAGE as usize) {
            for session in table.page(first..first.saturating_add(PAGE), now) {
                call(&session, &|session| shown(session, now, &names));
            }
        }
    }
}

fn counts(
    family: &str,
    totals: &PortSessions,
    events: &SessionEvents,
    capacity: u32,
) -> SessionCounts {
    let PortSessions { embryonic, established, closing, steered: _ } = *totals;
    let refused = events.refused_full + events.refused_quota + events.refused_taken;
    SessionCounts {
        family: family.to_owned(),
        embryonic,
        established,
        closing,
        capacity,
        created: events.created,
        refused: refused + events.refused_busy,
    }
}

/// What the ends of sessions are called.
struct Names<'a> {
    pods: HashMap<IpAddr, String>,
    services: &'a BTreeMap<VirtualPort, Arc<ServiceSpec>>,
}

impl<'a> Names<'a> {
    fn of(plane: &'a ControlPlane) -> Self {
        let model = plane.model();
        let pods = model.attachments.iter().flat_map(|(attachment, lease)| {
            let name = plane.port_name(attachment);
            lease.addresses.iter().map(move |net| (net.addr(), name.clone()))
        });
        Self { pods: pods.collect(), services: &model.served.ports }
    }

    fn pod(&self, end: Endpoint) -> Option<String> {
        self.pods.get(&end.address).cloned()
    }

    fn service(&self, end: Endpoint, protocol: Protocol) -> Option<String> {
        let port = VirtualPort { address: end.address, protocol, port: end.port };
        self.services.get(&port).map(|service| service.name.clone())
    }
}

fn shown(session: &Session, now: Tick, names: &Names<'_>) -> SessionEntry {
    let end = |end: Endpoint| SessionEnd { address: end.address, port: end.port };
    let (client, server) = (session.client_side, session.server_side);
    let other = |seen: Endpoint, sent: Endpoint| (seen != sent).then(|| end(seen));
    let state = match session.state.class {
        Class::Embryonic => "embryonic",
        Class::Established => "established",
        Class::Finished => "finished",
        Class::Reset => "reset",
    };
    SessionEntry {
        protocol: session.protocol().to_string(),
        client: end(client.source()),
        client_name: names.pod(client.source()),
        server: end(client.destination()),
        server_name: names
            .service(client.destination(), session.protocol())
            .or_else(|| names.pod(client.destination())),
        backend: other(server.destination(), client.destination()),
        backend_name: names
            .pod(server.destination())
            .filter(|_| server.destination() != client.destination()),
        client_at_backend: other(server.source(), client.source()),
        state: state.to_owned(),
        is_revoked: session.policy.is_revoked,
        idle_seconds: now.since(session.state.last_seen),
    }
}
