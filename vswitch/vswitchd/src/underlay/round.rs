//! Picks the next few, where all would be too many at once.
//!
//! Enters: a map, and how far the last turn came. Leaves: the next few of its keys.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;

/// The next few keys behind the cursor, which goes round.
pub(super) fn next<T>(
    map: &BTreeMap<IpAddr, T>,
    cursor: &mut Option<IpAddr>,
    count: usize,
) -> Vec<IpAddr> {
    let behind = cursor.map_or(Bound::Unbounded, Bound::Excluded);
    let some: Vec<_> =
        map.range((behind, Bound::Unbounded)).map(|(ip, _)| *ip).take(count).collect();
    *cursor = if some.len() < count { None } else { some.last().copied() };
    some
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use super::next;

    #[test]
    fn a_round_leaves_nobody_out() {
        let map: BTreeMap<IpAddr, ()> =
            (1..=7).map(|last| ([198, 51, 100, last].into(), ())).collect();
        let mut cursor = None;
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.extend(next(&map, &mut cursor, 3));
        }
        assert!(seen.iter().eq(map.keys()));
        assert_eq!(next(&map, &mut cursor, 1), ["198.51.100.1".parse::<IpAddr>().expect("one")]);
    }
}
