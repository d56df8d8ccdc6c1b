//! The rules of a subject, worked out for each class of peers and each port.
//!
//! Enters: rows, from the compiler. Leaves: answers to `Policies::judge`: a hash look-up finds the
//! row, a binary search the interval of ports. A row has an interval only where its own rules change
//! the judgement, so that its length is that of the rules that match the class, and not that of all
//! the ports that any rule of the subject names.

use core::fmt;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{ClassId, Judgement, PortKey, RuleNumber};

/// Judgement of the keys from `first` on, up to the next interval of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interval {
    /// The first key.
    pub first: PortKey,
    /// The judgement.
    pub judgement: Judgement,
}

/// A judgement in 16 bits: the highest denies, the others are the rule's number.
#[derive(Debug, Clone, Copy)]
struct Cell(u16);

const DENIED: u16 = 1 << 15;

/// The judgements of a subject's rules in one direction.
pub struct Matrix {
    /// The row of each class that has another than the first. Class numbers are ours: no seed has to
    /// be secret.
    rows: HashMap<ClassId, u32, FixedState>,
    /// Where each row's intervals begin, and where the last's end.
    starts: Box<[u32]>,
    /// The first key of each interval.
    firsts: Box<[PortKey]>,
    cells: Box<[Cell]>,
}

impl Matrix {
    /// Memory of an interval, bytes.
    pub const INTERVAL_BYTES: usize = size_of::<PortKey>() + size_of::<Cell>();

    /// A matrix of these rows, the first of which is for all classes that are not in `classes`. The
    /// intervals of a row ascend, and begin with [`PortKey::FIRST`]; a class with a row that is not
    /// there is denied everything.
    pub fn new<'a>(
        rows: impl Iterator<Item = &'a [Interval]>,
        classes: impl Iterator<Item = (ClassId, u32)>,
    ) -> Self {
        let (mut starts, mut firsts, mut cells) = (vec![0], Vec::new(), Vec::new());
        for row in rows {
            firsts.extend(row.iter().map(|interval| interval.first));
            cells.extend(row.iter().map(|interval| Cell::new(interval.judgement)));
            starts.push(firsts.len() as u32);
        }
        Self {
            rows: classes.collect(),
            starts: starts.into(),
            firsts: firsts.into(),
            cells: cells.into(),
        }
    }

    /// The judgement of a peer's class and a port.
    #[inline]
    pub(super) fn judge(&self, class: Option<ClassId>, key: PortKey) -> Judgement {
        let row = class.and_then(|class| self.rows.get(&class)).copied().unwrap_or_default();
        self.cell(row as usize, key).map_or(Judgement::DENIED, Cell::judgement)
    }

    #[inline]
    fn cell(&self, row: usize, key: PortKey) -> Option<Cell> {
        let (start, end) = (*self.starts.get(row)? as usize, *self.starts.get(row + 1)? as usize);
        let behind = self.firsts.get(start..end)?.partition_point(|first| *first <= key);
        self.cells.get(start + behind.checked_sub(1)?).copied()
    }

    /// Memory in use, bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.rows.allocation_size()
            + size_of_val(&*self.starts)
            + size_of_val(&*self.firsts)
            + size_of_val(&*self.cells)
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matrix {{ {} classes, {} intervals }}", self.rows.len(), self.cells.len())
    }
}

impl Cell {
    fn new(judgement: Judgement) -> Self {
        let denied = if judgement.allowed { 0 } else { DENIED };
        Self(judgement.rule.0 & !DENIED | denied)
    }

    #[inline]
    fn judgement(self) -> Judgement {
        Judgement { allowed: self.0 & DENIED == 0, rule: RuleNumber(self.0 & !DENIED) }
    }
}
