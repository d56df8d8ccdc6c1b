//! Path MTUs that routers of the underlay reported, until the control thread takes them.
//!
//! Enters: [`PathMtu`]s, from `process`. Leaves: the same, by `Dataplane::take_path_mtus`. Room is
//! bounded: a flood of messages keeps others out for as long as it lasts, and routers repeat theirs
//! at the next packet that is too large.

use crate::walk::path_mtu::PathMtu;

/// Tunnel ends that an MTU is noted of at once: what a batch or two may bring.
const ROOM: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct PathMtuInbox {
    noted: [Option<PathMtu>; ROOM],
}

impl PathMtuInbox {
    /// Keeps a path MTU; of several of one tunnel's end, the smallest.
    pub(crate) fn note(&mut self, path_mtu: PathMtu) {
        let same = |noted: &&mut PathMtu| noted.address == path_mtu.address;
        if let Some(noted) = self.noted.iter_mut().flatten().find(same) {
            noted.mtu = noted.mtu.min(path_mtu.mtu);
        } else if let Some(free) = self.noted.iter_mut().find(|noted| noted.is_none()) {
            *free = Some(path_mtu);
        }
    }

    /// Gives all away.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = PathMtu> {
        self.noted.iter_mut().filter_map(Option::take)
    }
}

#[cfg(test)]
mod tests {
    use super::{PathMtuInbox, ROOM};
    use crate::PathMtu;

    fn path_mtu(last: u8, mtu: u16) -> PathMtu {
        PathMtu { address: [203, 0, 113, last].into(), mtu }
    }

    #[test]
    fn of_one_end_the_smallest_is_kept_and_room_is_bounded() {
        let mut noted = PathMtuInbox::default();
        for mtu in [1400, 1300, 1350] {
            noted.note(path_mtu(1, mtu));
        }
        for last in 2..=255 {
            noted.note(path_mtu(last, 1400));
        }
        let taken: Vec<_> = noted.take().collect();
        assert_eq!(taken.len(), ROOM);
        assert_eq!(taken.first(), Some(&path_mtu(1, 1300)));
        assert_eq!(noted.take().count(), 0);
    }
}
