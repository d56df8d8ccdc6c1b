//! Which tables are gone through, as all matrices would be too large.
//!
//! A matrix answers in tens of nanoseconds, and may have as many intervals as all pairs of a class and a
//! rule that matches it. The rules themselves take no more than the policies do, and answer in time by
//! the number of those that match the peer, a nanosecond or two each, once a connection. So the memory is
//! bounded, whatever the policies: the largest matrices give way first, and come back when there is room.
//!
//! What is denied has no session, so that each packet of it is judged. Rules that would take a worker longer
//! than [`MAX_COMPARISONS`] close their subjects instead, as other policies do that are too large.

use std::collections::BTreeMap;

use super::classes::ClassTable;
use super::table::Table;

/// Memory of all matrices of a node, bytes, at most.
pub const MATRIX_BYTES: usize = 8 << 20;

/// Comparisons of ports that a judgement takes at most: 5 to 10 us.
pub const MAX_COMPARISONS: usize = 5000;

/// Brings the tables below `max_bytes`.
pub(super) fn keep_below<K: Ord + Clone>(
    tables: &mut BTreeMap<K, Table>,
    classes: &ClassTable,
    max_bytes: usize,
) {
    let mut total: usize = tables.values().map(bytes).sum();
    for table in tables.values_mut() {
        if table.matrix_bytes_wanted().is_some_and(|wanted| total + wanted <= max_bytes) {
            table.work_out(classes, max_bytes - total);
            total += bytes(table);
        }
    }
    while total > max_bytes {
        let largest = tables.values_mut().max_by_key(|table| bytes(table));
        let Some(largest) = largest.filter(|largest| bytes(largest) > 0) else { return };
        total -= bytes(largest);
        largest.go_through();
    }
}

fn bytes(table: &Table) -> usize {
    if table.compiled().is_linear() { 0 } else { table.compiled().size_bytes() }
}
