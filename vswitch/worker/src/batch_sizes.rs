//! How many packets of a TAP are read at a time by io_uring.
//!
//! Enters: what serving a port found. Leaves: how many packets to ask for when it is served again. A read that
//! finds nothing costs time and one too long credit, so as many are expected as the last time, each as long as
//! the longest of these. Pure; the turn alone calls it.

use dataplane::tables::{MAX_PORTS, PortId};

use super::schedule::cost;

/// Packets that are read at a time at most: half of a ring's batch, whose other half is for writes.
pub(super) const MOST: usize = netio::port::BATCH / 2;

/// What was found when a port was served the last time.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    packets: usize,
    /// Cost of the longest.
    cost: i64,
}

pub(super) struct BatchSizes {
    found: Vec<Found>,
}

impl BatchSizes {
    pub(super) fn new() -> Self {
        Self { found: vec![Found::default(); MAX_PORTS] }
    }

    /// Packets to be asked for, with so much credit left and so many frames free.
    pub(super) fn expected(&self, id: PortId, credit: i64, frames: usize) -> usize {
        let Some(found) = self.found.get(usize::from(id.0)) else { return 1 };
        // Of the frames half are for what is made of the packets: pieces and copies.
        let fits = (credit / found.cost.max(cost(0))).clamp(1, MOST as i64) as usize;
        found.packets.min(fits).min(frames / 2)
    }

    /// Notes what serving a port found: packets, and the bytes of the longest. Nothing says nothing: epoll
    /// tells of packets that were read meanwhile.
    pub(super) fn note(&mut self, id: PortId, packets: usize, longest: usize) {
        if let Some(found) = self.found.get_mut(usize::from(id.0)).filter(|_| packets > 0) {
            *found = Found { packets, cost: cost(longest) };
        }
    }
}

#[cfg(test)]
mod tests {
    use dataplane::tables::PortId;

    use super::{BatchSizes, MOST};
    use crate::schedule::{SHARE, cost};

    const PORT: PortId = PortId(7);

    #[test]
    fn as_many_are_expected_as_were_found() {
        let mut sizes = BatchSizes::new();
        assert_eq!(sizes.expected(PORT, SHARE, 64), 0, "nothing is known of it");
        for found in [1, 2, 8, 5] {
            sizes.note(PORT, found, 60);
            assert_eq!(sizes.expected(PORT, SHARE, 64), found);
        }
        sizes.note(PORT, 0, 0);
        assert_eq!(sizes.expected(PORT, SHARE, 64), 5, "nothing says nothing");
        assert_eq!(sizes.expected(PortId(8), SHARE, 64), 0, "each port by itself");
        assert_eq!(sizes.expected(PortId(u16::MAX), SHARE, 64), 1);
    }

    #[test]
    fn no_more_are_asked_for_than_the_credit_is_for() {
        let mut sizes = BatchSizes::new();
        for longest in [0, 60, 1500, 9000, 65_000] {
            sizes.note(PORT, 100, longest);
            for credit in [1, SHARE / 2, SHARE, 4 * SHARE] {
                let expected = sizes.expected(PORT, credit, 1024);
                assert!((1..=MOST).contains(&expected));
                assert!(expected == 1 || expected as i64 * cost(longest) <= credit);
            }
        }
        sizes.note(PORT, 4, 65_000);
        assert_eq!(sizes.expected(PORT, SHARE, 64), 1, "a superframe takes a share");
    }

    #[test]
    fn frames_are_left_for_what_is_made_of_the_packets() {
        let mut sizes = BatchSizes::new();
        sizes.note(PORT, 9, 60);
        assert_eq!(sizes.expected(PORT, SHARE, 10), 5);
        assert_eq!(sizes.expected(PORT, SHARE, 1), 0, "one by one then");
    }
}
