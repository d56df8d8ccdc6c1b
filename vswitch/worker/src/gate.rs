//! Which ports are not read for now: what their pods may send is used up.
//!
//! Enters: what was read from ports with a rate. Leaves: whether to read on, and which ports are to be
//! read again at what time. What a pod sends meanwhile waits in its own TAP: nothing is lost here.
//! Budgets are shared, as the queues of one port may be read by several workers.

use std::sync::Arc;

use dataplane::rate::{Budgets, Limit, Nanos};
use dataplane::tables::{MAX_PORTS, PortId};

pub(super) struct Gate {
    budgets: Arc<Budgets>,
    /// By port: not to be read before this time.
    closed_until: Vec<Option<Nanos>>,
    closed: Vec<PortId>,
    /// When the first of them opens.
    due: Option<Nanos>,
}

impl Gate {
    pub(super) fn new(budgets: Arc<Budgets>) -> Self {
        Self {
            budgets,
            closed_until: vec![None; MAX_PORTS],
            closed: Vec::with_capacity(MAX_PORTS),
            due: None,
        }
    }

    /// Whether the port may be read; closes it if not.
    pub(super) fn is_open(&mut self, port: PortId, limit: &Limit, now: Nanos) -> bool {
        let Some(budget) = self.budgets.of(port) else { return true };
        let opens = budget.opens_at(limit);
        if opens <= now {
            return true;
        }
        if let Some(until @ None) = self.closed_until.get_mut(usize::from(port.0)) {
            *until = Some(opens);
            self.closed.push(port);
            self.due = Some(self.due.map_or(opens, |due| due.min(opens)));
        }
        false
    }

    /// Charges what was read: the length of a packet is known by then alone.
    pub(super) fn charge(&self, port: PortId, limit: &Limit, bytes: u32, now: Nanos) {
        if let Some(budget) = self.budgets.of(port) {
            budget.charge(limit, bytes, now);
        }
    }

    /// Whether the port is closed, and will be opened.
    pub(super) fn is_closed(&self, port: PortId) -> bool {
        matches!(self.closed_until.get(usize::from(port.0)), Some(Some(_)))
    }

    /// When the first port opens; `None` if all are open.
    pub(super) fn due(&self) -> Option<Nanos> {
        self.due
    }

    /// Opens the ports whose time has come, each of which is to be read then.
    pub(super) fn open(&mut self, now: Nanos, mut read: impl FnMut(PortId)) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let (closed_until, mut next) = (&mut self.closed_until, None::<Nanos>);
        self.closed.retain(|port| {
            let Some(until) = closed_until.get_mut(usize::from(port.0)) else { return false };
            match *until {
                Some(opens) if opens > now => {
                    next = Some(next.map_or(opens, |next| next.min(opens)));
                    true
                }
                _ => {
                    *until = None;
                    read(*port);
                    false
                }
            }
        });
        self.due = next;
    }

    /// The port is another's from now on, or nobody's.
    pub(super) fn forget(&mut self, port: PortId) {
        if let Some(budget) = self.budgets.of(port) {
            budget.reset();
        }
        if let Some(until) = self.closed_until.get_mut(usize::from(port.0)) {
            *until = None;
        }
        self.closed.retain(|closed| *closed != port);
        if self.closed.is_empty() {
            self.due = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dataplane::rate::{Budgets, Limit, Nanos};
    use dataplane::tables::PortId;

    use super::Gate;

    const MILLI: u64 = 1_000_000;

    /// Reads frames of 1,250 bytes as long as the port is open; how many.
    fn read(gate: &mut Gate, port: PortId, limit: &Limit, now: u64) -> usize {
        let mut count = 0;
        while gate.is_open(port, limit, Nanos(now)) {
            gate.charge(port, limit, 1250, Nanos(now));
            count += 1;
        }
        count
    }

    fn opened(gate: &mut Gate, now: u64) -> Vec<PortId> {
        let mut ports = Vec::new();
        gate.open(Nanos(now), |port| ports.push(port));
        ports
    }

    #[test]
    fn a_port_is_read_again_when_its_budget_is_earned_and_others_are_at_once() {
        // A frame takes 10 ms, as does the burst.
        let limit = Limit::new(1_000_000, Some(0));
        let (port, other) = (PortId(1), PortId(2));
        let mut gate = Gate::new(Arc::default());
        assert_eq!(read(&mut gate, port, &limit, 0), 2);
        assert!(gate.is_closed(port) && !gate.is_closed(other));
        assert_eq!(read(&mut gate, other, &limit, 4 * MILLI), 2);
        assert_eq!(gate.due(), Some(Nanos(10 * MILLI)));
        assert_eq!(opened(&mut gate, 10 * MILLI - 1), []);
        assert_eq!(opened(&mut gate, 10 * MILLI), [port]);
        assert_eq!(gate.due(), Some(Nanos(14 * MILLI)));
        // What a late turn missed is made up for.
        assert_eq!(opened(&mut gate, 45 * MILLI), [other]);
        assert_eq!(read(&mut gate, port, &limit, 45 * MILLI), 2);
        assert_eq!(gate.due(), Some(Nanos(55 * MILLI)));
    }

    #[test]
    fn workers_that_read_queues_of_one_port_share_its_rate() {
        let limit = Limit::new(1_000_000, Some(0));
        let (port, budgets) = (PortId(1), Arc::<Budgets>::default());
        let [mut one, mut other] = [(); 2].map(|()| Gate::new(Arc::clone(&budgets)));
        assert_eq!(read(&mut one, port, &limit, 0), 2);
        assert_eq!(read(&mut other, port, &limit, 0), 0);
        let opens = one.due();
        assert!(other.due() == opens && opens == Some(Nanos(10 * MILLI)));
        // Both find it open before either has read: what each reads counts.
        assert!(one.is_open(port, &limit, Nanos(10 * MILLI)));
        assert!(other.is_open(port, &limit, Nanos(10 * MILLI)));
        one.charge(port, &limit, 1250, Nanos(10 * MILLI));
        other.charge(port, &limit, 1250, Nanos(10 * MILLI));
        assert!(!one.is_open(port, &limit, Nanos(30 * MILLI - 1)));
        assert!(one.is_open(port, &limit, Nanos(30 * MILLI)));
    }

    #[test]
    fn a_number_that_is_given_to_another_port_begins_open() {
        let limit = Limit::new(1_000, None);
        let port = PortId(1);
        let mut gate = Gate::new(Arc::default());
        let burst = read(&mut gate, port, &limit, 0);
        gate.forget(port);
        assert!(!gate.is_closed(port));
        assert_eq!(gate.due(), None);
        assert_eq!(opened(&mut gate, u64::MAX), []);
        assert_eq!(read(&mut gate, port, &limit, 0), burst);
    }
}
