//! The pinned threads, as far as the control plane concerns them: tables and ports.
//!
//! Enters: published tables, commands, and how far each worker gets. Leaves: what each holds. A turn
//! takes the published tables, then all commands, then notes that it uses those tables; a worker may
//! come to a stop before its turn, or between tables and commands.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use controlplane::ports;
use dataplane::tables::{Epoch, PortId, Tables, Tunnels};

/// What the control thread tells a worker.
#[derive(Debug, Clone, Copy)]
enum Command {
    Add(PortId),
    Remove(PortId),
}

/// How a worker goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// It turns all the time.
    Turns,
    /// It has stopped before it looks at the tables.
    Stopped,
    /// It has taken tables, and stopped before it looks at its commands.
    StoppedInTurn,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Ports that it can send by.
    pub(crate) ports: BTreeSet<PortId>,
    /// The tables that it forwards by.
    pub(crate) using: Arc<Tables>,
    /// Of the tables that it has noted.
    noted: Epoch,
    inbox: VecDeque<Command>,
    pace: Pace,
}

/// All of them, and the tables that are published.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) all: Vec<Worker>,
    pub(crate) current: Arc<Tables>,
}

impl Workers {
    /// So many, with the NIC and without tables.
    pub(crate) fn spawned(count: usize, has_uplink: bool) -> Self {
        let current: Arc<Tables> = Arc::default();
        let worker = || Worker {
            ports: has_uplink.then_some(ports::UPLINK).into_iter().collect(),
            using: Arc::clone(&current),
            noted: Epoch(0),
            inbox: VecDeque::new(),
            pace: Pace::Turns,
        };
        Self { all: (0..count).map(|_| worker()).collect(), current: Arc::clone(&current) }
    }

    /// Publishes tables; whether every worker uses them.
    pub(crate) fn publish(&mut self, tables: Tables) -> bool {
        self.current = Arc::new(tables);
        self.turn();
        self.all_follow()
    }

    pub(crate) fn all_follow(&self) -> bool {
        self.all.iter().all(|worker| worker.noted >= self.current.epoch)
    }

    /// Every worker has done what it was told.
    pub(crate) fn are_idle(&self) -> bool {
        self.all.iter().all(|worker| worker.inbox.is_empty())
    }

    pub(crate) fn add(&mut self, id: PortId) {
        self.tell(Command::Add(id));
    }

    pub(crate) fn remove(&mut self, id: PortId) {
        self.tell(Command::Remove(id));
    }

    fn tell(&mut self, command: Command) {
        self.all.iter_mut().for_each(|worker| worker.inbox.push_back(command));
        self.turn();
    }

    fn turn(&mut self) {
        let turning = self.all.iter_mut().filter(|worker| worker.pace == Pace::Turns);
        for worker in turning {
            worker.using = Arc::clone(&self.current);
            worker.obey();
        }
    }

    /// A worker comes to a stop before its next turn.
    pub(crate) fn stop(&mut self, worker: usize) {
        if let Some(worker) = self.all.get_mut(worker)
            && worker.pace == Pace::Turns
        {
            worker.pace = Pace::Stopped;
        }
    }

    /// A worker comes to a stop in its next turn, when it has taken the tables; whether it was not
    /// stopped already.
    pub(crate) fn stop_in_turn(&mut self, worker: usize) -> bool {
        let turning = self.all.get_mut(worker).filter(|worker| worker.pace == Pace::Turns);
        turning.map(|worker| worker.pace = Pace::StoppedInTurn).is_some()
    }

    /// The turn in which it stops has begun.
    pub(crate) fn take_tables(&mut self, worker: usize) {
        if let Some(worker) = self.all.get_mut(worker) {
            worker.using = Arc::clone(&self.current);
        }
    }

    /// A worker gets on, to the end of the turn that it has begun.
    pub(crate) fn resume(&mut self, worker: usize) {
        if let Some(worker) = self.all.get_mut(worker) {
            if worker.pace == Pace::StoppedInTurn {
                worker.obey();
            }
            worker.pace = Pace::Turns;
        }
    }

    /// And turns from now on.
    pub(crate) fn go_on(&mut self) {
        self.turn();
    }
}

impl Worker {
    fn obey(&mut self) {
        for command in self.inbox.drain(..) {
            match command {
                Command::Add(id) => drop(self.ports.insert(id)),
                Command::Remove(id) => drop(self.ports.remove(&id)),
            }
        }
        self.noted = self.using.epoch;
    }

    /// Whether it has tables at all.
    pub(crate) fn forwards(&self) -> bool {
        self.using.epoch > Epoch(0)
    }

    /// Our end of the overlay, as it knows it.
    pub(crate) fn tunnels(&self) -> &Tunnels {
        &self.using.tunnels
    }
}
