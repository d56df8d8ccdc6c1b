//! Every counter of a node by name, and what moved between two readings.

use std::collections::BTreeMap;

use dataplane::tables::PortId;
use dataplane::tables::policy::Direction;
use dataplane::{Dataplane, DropReason, counters::Counters};

/// What policies decided begins with these.
const ALLOWED: &str = "allowed";
const DENIED: &str = "denied";

/// Counters by the name that scenarios use.
pub(super) type Ledger = BTreeMap<String, u64>;

pub(super) fn read(ports: &[String], counters: &Counters, dataplane: &Dataplane) -> Ledger {
    let mut ledger = Ledger::new();
    for (number, name) in ports.iter().enumerate() {
        let port = PortId(number as u16);
        let counts = counters.port(port);
        ledger.insert(format!("{name} rx"), counts.rx_packets);
        ledger.insert(format!("{name} tx"), counts.tx_packets);
        ledger.insert(format!("{name} tx delayed"), counts.tx_delayed);
        for reason in DropReason::ALL {
            ledger.insert(format!("{name} drop {reason}"), counters.drops(port, *reason));
        }
    }
    ledger.insert("made".into(), counters.accounting().made);
    ledger.insert("learned".into(), dataplane.fdb.len() as u64);
    let sessions = dataplane.sessions().totals();
    let count = sessions.iter().map(|one| one.embryonic + one.established + one.closing);
    ledger.insert("sessions".into(), count.map(u64::from).sum());
    let revoked = dataplane.sessions().events().iter().map(|one| one.revoked).sum();
    ledger.insert("revoked".into(), revoked);
    for (direction, in_or_out) in [(Direction::Ingress, "in"), (Direction::Egress, "out")] {
        for (allowed, said) in [(true, ALLOWED), (false, DENIED)] {
            ledger.insert(format!("{said} {in_or_out}"), counters.judged(direction, allowed));
        }
    }
    ledger
        .insert("established".into(), sessions.iter().map(|one| u64::from(one.established)).sum());
    ledger
}

/// Whether it counts what policies decided.
pub(super) fn is_decision(name: &str) -> bool {
    name.starts_with(ALLOWED) || name.starts_with(DENIED)
}

pub(super) fn moved(before: &Ledger, after: &Ledger) -> BTreeMap<String, i64> {
    let moved = after.iter().map(|(name, now)| {
        (name.clone(), *now as i64 - before.get(name).map_or(0, |was| *was as i64))
    });
    moved.filter(|(_, by)| *by != 0).collect()
}

/// `pod-a rx +1, uplink tx +1`.
pub(super) fn parse(text: &str, names: &Ledger) -> Result<BTreeMap<String, i64>, String> {
    let mut moved = BTreeMap::new();
    for item in text.split(',').map(str::trim) {
        let (name, by) = item.rsplit_once(' ').ok_or(format!("`{item}`: NAME +N"))?;
        if !names.contains_key(name) {
            return Err(format!("`{name}` is no counter"));
        }
        let by: i64 = by.parse().map_err(|_| format!("`{by}` is no number"))?;
        if moved.insert(name.to_owned(), by).is_some() || by == 0 {
            return Err(format!("`{name}` is named twice, or for nothing"));
        }
    }
    Ok(moved)
}
