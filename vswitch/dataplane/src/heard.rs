//! Beside the walk: what routers of the underlay said, until the control thread asks.
//!
//! Enters: [`PathMtu`]s, from `process`. Leaves: the same, to whoever drains the worker. Room is
//! bounded: a flood of messages keeps the others out for as long as it lasts, and the routers say
//! theirs again with the next packet that is too large.

use crate::walk::path_mtu::PathMtu;

/// Ends of tunnels that something is noted of at once: what a batch or two may bring.
const ROOM: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Heard {
    noted: [Option<PathMtu>; ROOM],
}

impl Heard {
    /// Of one end, the smallest is kept.
    pub(crate) fn note(&mut self, heard: PathMtu) {
        let same = |noted: &&mut PathMtu| noted.address == heard.address;
        if let Some(noted) = self.noted.iter_mut().flatten().find(same) {
            noted.mtu = noted.mtu.min(heard.mtu);
        } else if let Some(free) = self.noted.iter_mut().find(|noted| noted.is_none()) {
            *free = Some(heard);
        }
    }

    pub(crate) fn take(&mut self) -> impl Iterator<Item = PathMtu> {
        self.noted.iter_mut().filter_map(Option::take)
    }
}

#[cfg(test)]
mod tests {
    use super::{Heard, ROOM};
    use crate::PathMtu;

    fn heard(last: u8, mtu: u16) -> PathMtu {
        PathMtu { address: [203, 0, 113, last].into(), mtu }
    }

    #[test]
    fn of_one_end_the_smallest_is_kept_and_room_is_bounded() {
        let mut noted = Heard::default();
        for mtu in [1400, 1300, 1350] {
            noted.note(heard(1, mtu));
        }
        for last in 2..=255 {
            noted.note(heard(last, 1400));
        }
        let taken: Vec<_> = noted.take().collect();
        assert_eq!(taken.len(), ROOM);
        assert_eq!(taken.first(), Some(&heard(1, 1300)));
        assert_eq!(noted.take().count(), 0);
    }
}
