//! Which worker receives from which pod.
//!
//! Enters: what each port took of its worker lately, once a second. Leaves: a port that another worker is to
//! receive from, at most one at a time. `vswitchd` measures, and carries the move out.
//!
//! A new pod goes to the worker with the fewest ports, as nobody knows yet what it will send. Pods differ: a few
//! send most of what a node sends. So a port is moved from a busy worker to the idlest where that makes the
//! busier of the two less busy by a good deal; else it stays, as a move costs its packets a turn of two workers.
//! What a worker does for the queues of the NIC, and for the host port, stays with it.
//!
//! One pod that keeps a worker busy alone stays where it is, and the others leave.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use dataplane::Millis;
use dataplane::tables::PortId;

/// A second of a core.
pub const SECOND: u64 = 1_000_000_000;

/// A worker that is idle for half of the time has room for what is to come: nothing is moved from it.
const BUSY: u64 = SECOND / 2;

/// A move makes the busier worker less busy by a tenth of a core at least. With less, two workers of nearly the
/// same work would exchange ports whenever a pod sends a little more.
const GAIN: u64 = SECOND / 10;

/// A worker without idle time: whatever leaves it is served better elsewhere.
const FULL: u64 = SECOND * 9 / 10;

/// What a move from such a worker gains at least.
const GAIN_OF_FULL: u64 = SECOND / 50;

/// Work is averaged over about so many looks: a burst of a second is over before a move would help.
const LOOKS: u64 = 4;

/// After a move the averages are those of the former places.
const SETTLE_MS: u64 = 2 * LOOKS * 1000;

/// A port that was moved stays where it is for so long.
const REST_MS: u64 = 60_000;

/// What a port took of the worker that receives from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortWork {
    /// The port.
    pub port: PortId,
    /// Number of the worker that receives from it.
    pub worker: usize,
    /// Nanoseconds a second.
    pub nanos: u64,
}

/// A port that another worker is to receive from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The port.
    pub port: PortId,
    /// The worker that receives from it now.
    pub from: usize,
    /// The worker that is to.
    pub to: usize,
}

/// Averages of all work, and what was moved.
#[derive(Debug, Default)]
pub struct Balance {
    /// Nanoseconds a second of each port.
    ports: BTreeMap<PortId, u64>,
    /// Nanoseconds a second that a worker has beside its ports.
    fixed: Vec<u64>,
    /// Nothing is moved before this time.
    settles: Option<Millis>,
    /// Ports that were moved, and until when each stays.
    rests: BTreeMap<PortId, Millis>,
}

impl Balance {
    /// Takes the work of the last second: what each worker did beside its pods' ports, in nanoseconds, and what
    /// each port took. Answers with the move that is due, if one is.
    #[must_use]
    pub fn look(&mut self, fixed: &[u64], ports: &[PortWork], now: Millis) -> Option<Move> {
        self.average(fixed, ports);
        self.rests.retain(|_, until| *until > now);
        if self.settles.is_some_and(|until| until > now) {
            return None;
        }
        let due = self.due(ports)?;
        self.settle(now);
        self.rests.insert(due.port, Millis(now.0 + REST_MS));
        Some(due)
    }

    /// Moves nothing for a while: what workers do has changed otherwise.
    pub fn settle(&mut self, now: Millis) {
        self.settles = Some(Millis(now.0 + SETTLE_MS));
    }

    /// Nanoseconds a second of each worker, with the ports where they are.
    #[must_use]
    pub fn loads(&self, ports: &[PortWork]) -> Vec<u64> {
        let mut loads = self.fixed.clone();
        for port in ports {
            if let Some(load) = loads.get_mut(port.worker) {
                *load += self.work_of(port.port);
            }
        }
        loads
    }

    fn average(&mut self, fixed: &[u64], ports: &[PortWork]) {
        self.fixed.resize(fixed.len(), 0);
        for (average, latest) in self.fixed.iter_mut().zip(fixed) {
            *average = closer(*average, *latest);
        }
        let former = std::mem::take(&mut self.ports);
        let average = |port: &PortWork| {
            closer(former.get(&port.port).copied().unwrap_or_default(), port.nanos)
        };
        self.ports = ports.iter().map(|port| (port.port, average(port))).collect();
    }

    fn work_of(&self, port: PortId) -> u64 {
        self.ports.get(&port).copied().unwrap_or_default()
    }

    /// The move to the idlest worker by which the busier of the two becomes the least busy, compared with before.
    fn due(&self, ports: &[PortWork]) -> Option<Move> {
        let loads = self.loads(ports);
        let (to, idlest) = loads.iter().copied().enumerate().min_by_key(|(_, load)| *load)?;
        let gain = |port: &&PortWork| {
            let (from, work) = (loads.get(port.worker).copied()?, self.work_of(port.port));
            let least = if from < FULL { GAIN } else { GAIN_OF_FULL };
            let gain = from.checked_sub((from.saturating_sub(work)).max(idlest + work))?;
            (from >= BUSY && gain >= least).then_some(gain)
        };
        let movable = ports.iter().filter(|port| !self.rests.contains_key(&port.port));
        let gains = movable.filter_map(|port| Some((gain(&port)?, port)));
        let (_, best) = gains.max_by_key(|(gain, _)| *gain)?;
        Some(Move { port: best.port, from: best.worker, to })
    }
}

/// An average that has come closer to the latest value.
fn closer(average: u64, latest: u64) -> u64 {
    (average * (LOOKS - 1) + latest) / LOOKS
}
