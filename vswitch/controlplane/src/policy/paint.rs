//! A row out of the rules that match a class.
//!
//! Enters: the numbers of these rules. Leaves: the intervals of ports, each with the judgement of the
//! first rule that decides there. A sweep over the ports keeps the rules that are open at the moment, so
//! that the row costs what its own rules cost.

use std::collections::BTreeSet;

use dataplane::tables::policy::{Interval, PortKey, Rules};

/// The row of the rules with these numbers.
pub(super) fn paint(rules: &Rules, matching: &[usize]) -> Vec<Interval> {
    let mut edges: Vec<(PortKey, usize)> = Vec::with_capacity(2 * matching.len() + 1);
    for number in matching {
        for span in &rules.all()[*number].spans {
            edges.push((span.first, *number));
            edges.extend(span.last.next().map(|behind| (behind, *number)));
        }
    }
    edges.sort_unstable();
    let mut open = BTreeSet::new();
    let mut row: Vec<Interval> = Vec::new();
    let mut edges = edges.into_iter().peekable();
    let mut first = PortKey::FIRST;
    loop {
        // The spans of a rule do not overlap: where one ends and the next begins, it stays open.
        while let Some((_, number)) = edges.next_if(|(key, _)| *key == first) {
            if !open.remove(&number) {
                open.insert(number);
            }
        }
        let judgement = rules.decide(|tier| open.range(tier).next().copied());
        if row.last().is_none_or(|last| last.judgement != judgement) {
            row.push(Interval { first, judgement });
        }
        let Some((key, _)) = edges.peek() else { return row };
        first = *key;
    }
}
