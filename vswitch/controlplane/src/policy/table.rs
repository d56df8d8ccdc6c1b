//! The rules of a combination of rule sets, and the rows that they make.
//!
//! Enters: the rule sets that some subject has for a direction, and classes that come and go. Leaves: a
//! [`RuleTable`] for the workers. Subjects with the same rule sets share it, and classes for which the
//! same of its peer sets count share a row.

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;

use api::PolicyTier;
use dataplane::tables::policy::{
    ClassId, Interval, Matrix, PeerSetId, Rule, RulePeers, RuleTable, Rules,
};

use super::classes::{ClassChanges, ClassTable};
use super::paint::paint;

/// The rules of a policy for one direction, in numbers.
#[derive(Debug)]
pub(super) struct NumberedSet {
    pub(super) policy: Arc<str>,
    pub(super) tier: PolicyTier,
    pub(super) rules: Vec<Rule>,
    /// Index in the policy of each rule.
    pub(super) indexes: Vec<u32>,
}

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    rules: Arc<Rules>,
    policies: Vec<(u16, Arc<str>)>,
    indexes: Vec<u32>,
    /// Rules that name each set, ascending.
    naming: HashMap<PeerSetId, Vec<usize>>,
    /// Rules for every peer, ascending.
    for_any: Vec<usize>,
    form: Form,
    compiled: Arc<RuleTable>,
    /// Comparisons that its rules take for some class at most, while they are gone through.
    comparisons: Option<usize>,
}

#[derive(Debug)]
enum Form {
    Rows(Rows),
    /// The rules are gone through. A matrix would take this many bytes, if it is known.
    Linear {
        matrix_bytes: Option<usize>,
    },
}

/// Rows that are kept while no class has them, before all are made anew.
const SPARE_ROWS: usize = 64;

#[derive(Debug, Default)]
struct Rows {
    /// The first is that of classes with none of the sets.
    rows: Vec<Arc<[Interval]>>,
    numbers: HashMap<Arc<[Interval]>, u32>,
    /// The row of each combination of sets that rules name.
    by_sets: HashMap<Vec<PeerSetId>, u32>,
    by_class: HashMap<ClassId, u32>,
    intervals: usize,
}

/// The rows have more intervals than may be.
struct TooLarge;

impl Table {
    /// The table of these rule sets, which are in the order of evaluation. Its matrix takes no more than
    /// `max_bytes`: the rules are gone through instead.
    pub(super) fn new(sets: &[&NumberedSet], classes: &ClassTable, max_bytes: usize) -> Self {
        let (mut policies, mut indexes) = (Vec::new(), Vec::new());
        let (mut admin, mut network_policy, mut baseline) = (Vec::new(), None, Vec::new());
        for set in sets {
            policies.push((indexes.len() as u16, Arc::clone(&set.policy)));
            indexes.extend_from_slice(&set.indexes);
            match set.tier {
                PolicyTier::Admin { .. } => &mut admin,
                PolicyTier::NetworkPolicy => network_policy.get_or_insert_default(),
                PolicyTier::Baseline { .. } => &mut baseline,
            }
            .extend_from_slice(&set.rules);
        }
        let rules = Arc::new(Rules::new(admin, network_policy, baseline));
        let (mut naming, mut for_any) = (HashMap::<_, Vec<usize>>::new(), Vec::new());
        for (number, rule) in rules.all().iter().enumerate() {
            let RulePeers::Sets(sets) = &rule.peers else {
                for_any.push(number);
                continue;
            };
            for set in sets {
                naming.entry(*set).or_default().push(number);
            }
        }
        let linear = Arc::new(RuleTable::linear(Arc::clone(&rules), &policies, &indexes));
        let form = Form::Linear { matrix_bytes: None };
        let compiled = linear;
        let mut table =
            Self { rules, policies, indexes, naming, for_any, form, compiled, comparisons: None };
        table.work_out(classes, max_bytes);
        table
    }

    /// The table as the workers have it.
    pub(super) fn compiled(&self) -> &Arc<RuleTable> {
        &self.compiled
    }

    /// Comparisons that a judgement takes at most, if its rules are gone through. `have_changed`: the
    /// classes are others than when it was last asked.
    pub(super) fn comparisons(
        &mut self,
        classes: &ClassTable,
        have_changed: bool,
    ) -> Option<usize> {
        if !self.compiled.is_linear() {
            self.comparisons = None;
        } else if have_changed || self.comparisons.is_none() {
            let of_class = classes.all().map(|(_, sets)| self.rules.comparisons(sets));
            // Of an address without a class too.
            self.comparisons = of_class.chain([self.rules.comparisons(&[])]).max();
        }
        self.comparisons
    }

    /// Bytes that its matrix would take, if its rules are gone through and that is known.
    pub(super) fn matrix_bytes_wanted(&self) -> Option<usize> {
        match self.form {
            Form::Linear { matrix_bytes } => matrix_bytes,
            Form::Rows(_) => None,
        }
    }

    /// Has its rules gone through.
    pub(super) fn go_through(&mut self) {
        self.form = Form::Linear { matrix_bytes: Some(self.compiled.size_bytes()) };
        let rules = Arc::clone(&self.rules);
        self.compiled = Arc::new(RuleTable::linear(rules, &self.policies, &self.indexes));
    }

    /// Works its matrix out, if it is not too large.
    pub(super) fn work_out(&mut self, classes: &ClassTable, max_bytes: usize) {
        let max_intervals = max_bytes / Matrix::INTERVAL_BYTES;
        let mut rows = Rows::default();
        let made = rows.number(paint(&self.rules, &self.for_any), max_intervals).and_then(|_| {
            classes
                .all()
                .try_for_each(|(class, sets)| self.place(&mut rows, class, sets, max_intervals))
        });
        if made.is_ok() {
            self.compiled = self.matrix(&rows);
            self.form = Form::Rows(rows);
        }
    }

    /// Follows the classes that came and went.
    pub(super) fn follow(
        &mut self,
        changes: &ClassChanges,
        classes: &ClassTable,
        max_bytes: usize,
    ) {
        let Form::Rows(rows) = &mut self.form else { return };
        let mut rows = std::mem::take(rows);
        let mut is_other = false;
        for class in &changes.gone {
            is_other |= rows.by_class.remove(class).is_some();
        }
        if rows.by_sets.len() > 2 * rows.by_class.len() + SPARE_ROWS {
            return self.work_out_or_go_through(classes, max_bytes);
        }
        let max_intervals = max_bytes / Matrix::INTERVAL_BYTES;
        for class in &changes.new {
            if self.place(&mut rows, *class, classes.sets(*class), max_intervals).is_err() {
                return self.work_out_or_go_through(classes, max_bytes);
            }
            is_other |= rows.by_class.contains_key(class);
        }
        if is_other {
            self.compiled = self.matrix(&rows);
        }
        self.form = Form::Rows(rows);
    }

    /// Makes all rows anew, without those that no class has any more.
    fn work_out_or_go_through(&mut self, classes: &ClassTable, max_bytes: usize) {
        self.go_through();
        self.form = Form::Linear { matrix_bytes: None };
        self.work_out(classes, max_bytes);
    }

    /// Finds the row of a class.
    fn place(
        &self,
        rows: &mut Rows,
        class: ClassId,
        sets: &[PeerSetId],
        max_intervals: usize,
    ) -> Result<(), TooLarge> {
        let named: Vec<_> =
            sets.iter().copied().filter(|set| self.naming.contains_key(set)).collect();
        if named.is_empty() {
            return Ok(());
        }
        let row = match rows.by_sets.get(&named) {
            Some(row) => *row,
            None => {
                let of_sets = named.iter().filter_map(|set| self.naming.get(set)).flatten();
                let mut matching: Vec<_> = of_sets.chain(&self.for_any).copied().collect();
                matching.sort_unstable();
                matching.dedup();
                let row = rows.number(paint(&self.rules, &matching), max_intervals)?;
                rows.by_sets.insert(named, row);
                row
            }
        };
        if row != 0 {
            rows.by_class.insert(class, row);
        }
        Ok(())
    }

    /// The matrix of the rows that are in use.
    fn matrix(&self, rows: &Rows) -> Arc<RuleTable> {
        // The numbers of the used ones among themselves: rows without a class are left out.
        let mut numbers = vec![None; rows.rows.len()];
        let mut used: Vec<&[Interval]> = Vec::with_capacity(rows.rows.len());
        let in_use = rows.by_class.values().map(|row| *row as usize);
        for row in iter::once(0).chain(in_use) {
            numbers[row].get_or_insert_with(|| {
                used.push(&rows.rows[row]);
                used.len() as u32 - 1
            });
        }
        let classes = rows.by_class.iter();
        let classes = classes.filter_map(|(class, row)| Some((*class, numbers[*row as usize]?)));
        let matrix = Matrix::new(used.into_iter(), classes);
        Arc::new(RuleTable::matrix(matrix, &self.policies, &self.indexes))
    }
}

impl Rows {
    /// The number of a row.
    fn number(&mut self, row: Vec<Interval>, max_intervals: usize) -> Result<u32, TooLarge> {
        if let Some(number) = self.numbers.get(&row[..]) {
            return Ok(*number);
        }
        self.intervals += row.len();
        if self.intervals > max_intervals {
            return Err(TooLarge);
        }
        let number = self.rows.len() as u32;
        let row: Arc<[_]> = row.into();
        self.rows.push(Arc::clone(&row));
        self.numbers.insert(row, number);
        Ok(number)
    }
}
