//! Answers about services and sessions.

use api::{ServiceEntry, ServiceSpec, SessionCounts, SessionEnd, SessionEntry, Sessions};
use dataplane::Millis;
use dataplane::session::{Class, Endpoint, PortSessions, Session, SessionEvents, Tick};

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
        let sessions = sessions.take(most).map(|session| shown(&session, now)).collect();
        Sessions { families, sessions }
    }

    /// Calls with each session, and what shows one.
    pub(super) fn each_session(
        &self,
        mut call: impl FnMut(&Session, &dyn Fn(&Session) -> SessionEntry),
    ) {
        let table = &self.node.shared.sessions;
        let now = Millis(self.node.shared.origin.elapsed().as_millis() as u64).tick();
        for first in (0..table.buckets()).step_by(PAGE as usize) {
            for session in table.page(first..first.saturating_add(PAGE), now) {
                call(&session, &|session| shown(session, now));
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
    let PortSessions { embryonic, established, closing, translated: _ } = *totals;
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

fn shown(session: &Session, now: Tick) -> SessionEntry {
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
        server: end(client.destination()),
        backend: other(server.destination(), client.destination()),
        client_at_backend: other(server.source(), client.source()),
        state: state.to_owned(),
        idle_seconds: now.since(session.state.last_seen),
    }
}
