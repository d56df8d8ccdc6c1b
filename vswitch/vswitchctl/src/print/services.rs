//! `show services` and `show sessions`.

use std::net::{IpAddr, SocketAddr};

use api::{BackendUse, ServiceEntry, ServiceSpec, SessionEnd, Sessions, WithoutBackend};

use super::table::{Table, line};

/// Backends of one line; a service may have thousands.
const BACKENDS_SHOWN: usize = 4;

pub(super) fn services(services: &[ServiceEntry]) -> String {
    let mut table = Table::new(&["SERVICE", "ADDRESSES", "PORT", "AFFINITY", "BACKENDS"]);
    let mut refused = String::new();
    for entry in services {
        let spec = &entry.spec;
        for at in &entry.refused {
            line(
                &mut refused,
                &format!("{} is not served at {}: {}", spec.name, at.address, at.reason),
            );
        }
        let is_served = |address: &&IpAddr| entry.refused.iter().all(|at| at.address != **address);
        table.row([
            spec.name.clone(),
            addresses_text(spec.addresses.iter().filter(is_served)),
            format!("{}/{}", spec.port, spec.protocol.label()),
            spec.affinity_seconds.map_or("-".to_owned(), |seconds| format!("{seconds} s")),
            backends_text(spec),
        ]);
    }
    table.print() + "\n" + &refused
}

fn addresses_text<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> String {
    let all: Vec<_> = addresses.map(IpAddr::to_string).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

fn backends_text(spec: &ServiceSpec) -> String {
    if spec.backends.is_empty() {
        return match spec.without_backend {
            WithoutBackend::Refuse => "none: refused".to_owned(),
            WithoutBackend::Drop => "none of this node: dropped".to_owned(),
        };
    }
    let shown = spec.backends.iter().take(BACKENDS_SHOWN).map(|backend| {
        let at = SocketAddr::new(backend.address, backend.port);
        match backend.flows {
            BackendUse::All => at.to_string(),
            BackendUse::Existing => format!("{at} (no new flows)"),
            BackendUse::Connections => format!("{at} (not ready)"),
        }
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match spec.backends.len().saturating_sub(BACKENDS_SHOWN) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}

pub(super) fn sessions(sessions: &Sessions) -> String {
    let mut text = String::new();
    for counts in &sessions.families {
        let all = counts.embryonic + counts.established + counts.closing;
        line(
            &mut text,
            &format!(
                "{}: {all} session(s), {} not answered, {} established, {} closing; room for {} entries; {} begun, {} refused",
                counts.family,
                counts.embryonic,
                counts.established,
                counts.closing,
                counts.capacity,
                counts.created,
                counts.refused
            ),
        );
    }
    if sessions.sessions.is_empty() {
        return text;
    }
    let end = |end: &SessionEnd, name: &Option<String>| {
        let at = SocketAddr::new(end.address, end.port);
        name.as_ref().map_or_else(|| at.to_string(), |name| format!("{at} ({name})"))
    };
    let other = |it: &Option<SessionEnd>, name: &Option<String>| {
        it.as_ref().map_or("-".to_owned(), |it| end(it, name))
    };
    let mut table =
        Table::new(&["PROTOCOL", "CLIENT", "SERVER", "BACKEND", "SEEN AS", "STATE", "IDLE S"]);
    for session in &sessions.sessions {
        table.row([
            session.protocol.clone(),
            end(&session.client, &session.client_name),
            end(&session.server, &session.server_name),
            other(&session.backend, &session.backend_name),
            other(&session.client_at_backend, &None),
            if session.is_revoked { "revoked".to_owned() } else { session.state.clone() },
            session.idle_seconds.to_string(),
        ]);
    }
    text + &table.print() + "\n"
}
