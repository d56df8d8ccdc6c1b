//! What goes wrong, and at which action.
//!
//! Enters: random numbers, or a systematic choice. Leaves: faults, to the world, which counts the
//! calls of an event's list, its reversals included, and lets each go wrong in its turn.

use std::fmt;

use crate::random::Random;

/// How an action goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused, and nothing was done. What cannot be refused is done.
    Refused,
    /// Half of it is done, and it is refused.
    HalfRefused,
    /// A worker comes to a stop before it looks at the published tables.
    WorkerStops(usize),
    /// A worker comes to a stop between the tables, which it has taken, and its commands.
    WorkerStopsInTurn(usize),
    /// The process dies before.
    DiesBefore,
    /// The process dies when a half is done.
    DiesIn,
    /// The process dies after.
    DiesAfter,
}

impl Fault {
    /// Each kind, with the workers of a node that has two.
    pub(crate) const ALL: [Self; 8] = [
        Self::Refused,
        Self::HalfRefused,
        Self::WorkerStops(0),
        Self::WorkerStopsInTurn(0),
        Self::WorkerStopsInTurn(1),
        Self::DiesBefore,
        Self::DiesIn,
        Self::DiesAfter,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::HalfRefused => f.write_str("refused when a half was done"),
            Self::WorkerStops(worker) => write!(f, "worker {worker} stops"),
            Self::WorkerStopsInTurn(worker) => write!(f, "worker {worker} stops within its turn"),
            Self::DiesBefore => f.write_str("the process dies before"),
            Self::DiesIn => f.write_str("the process dies in it"),
            Self::DiesAfter => f.write_str("the process dies after"),
        }
    }
}

/// Which calls of one event's list go wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    at: Vec<(usize, Fault)>,
    /// What was written cannot be synced.
    pub(crate) fails_to_sync: bool,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// The calls of these numbers, from 0, go wrong.
    pub(crate) fn at(faults: &[(usize, Fault)]) -> Self {
        Self { at: faults.to_vec(), fails_to_sync: false }
    }

    /// All is done, and the journal cannot be synced.
    pub(crate) fn sync() -> Self {
        Self { at: Vec::new(), fails_to_sync: true }
    }

    /// None mostly, else one; sometimes two, of which the second meets what takes back.
    pub(crate) fn random(random: &mut Random) -> Self {
        /// As many calls as a long list makes.
        const CALLS: usize = 12;
        let count = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2][random.below(10)];
        let at = (0..count).map(|_| (random.below(CALLS), random.of(&Fault::ALL))).collect();
        Self { at, fails_to_sync: random.percent(3) }
    }

    pub(crate) fn are_none(&self) -> bool {
        self.at.is_empty()
    }

    /// Those of a list that begins when so many calls were made.
    pub(crate) fn after(&self, calls: usize) -> Self {
        let later = self.at.iter().filter(|(at, _)| *at >= calls);
        let at = later.map(|(at, fault)| (at - calls, *fault)).collect();
        Self { at, ..*self }
    }

    /// What becomes of the call of this number.
    pub(crate) fn of(&self, call: usize) -> Option<Fault> {
        self.at.iter().find(|(at, _)| *at == call).map(|(_, fault)| *fault)
    }
}
