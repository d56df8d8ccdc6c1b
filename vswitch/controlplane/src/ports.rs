//! The numbers of ports, and which of them are live.
//!
//! Enters: attachments as they are reserved, attached and deleted. Leaves: the pods' live ports, to
//! `compile`. An attachment has its number from the reservation to its deletion, with or without a
//! live port: it is shown under it all that time. The file descriptors are the workers'.

use std::collections::{BTreeMap, BTreeSet};

use api::AttachmentId;
use dataplane::tables::{MAX_PORTS, Offloads, PortId};

use crate::compile::PodPort;

/// The node's own port.
pub const HOST: PortId = PortId(0);
/// The NIC.
pub const UPLINK: PortId = PortId(1);
/// The first number of a pod.
const FIRST_POD: u16 = 2;
/// Numbers that pods can have.
const POD_NUMBERS: u16 = MAX_PORTS as u16 - FIRST_POD;

/// A pod's device as it was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodDevice {
    /// Offloads that the pod's kernel accepts.
    pub offloads: Offloads,
    /// Queues that packets come by; not more than there are workers.
    pub queues: usize,
}

/// A pod's port.
#[derive(Debug, Clone)]
pub struct LivePort {
    /// Offloads that the pod's kernel accepts.
    pub offloads: Offloads,
    /// The worker that receives from each of its queues, no two the same: most ports have one.
    pub workers: Vec<usize>,
    /// False once its device is gone.
    pub up: bool,
}

/// All ports of pods.
#[derive(Debug, Clone, Default)]
pub struct Ports {
    numbers: BTreeMap<AttachmentId, PortId>,
    live: BTreeMap<AttachmentId, LivePort>,
    /// Taken from the tables, but not yet from every worker.
    leaving: Vec<PortId>,
    cursor: u16,
}

impl Ports {
    /// A number for each of these: the one that it had, if nobody else has that; one beyond the limit
    /// has none.
    pub fn numbered<'a>(
        attachments: impl IntoIterator<Item = (&'a AttachmentId, Option<u16>)> + Clone,
    ) -> Self {
        let mut ports = Self::default();
        let mut taken = BTreeSet::new();
        for (attachment, had) in attachments.clone() {
            let had = had.filter(|had| (FIRST_POD..FIRST_POD + POD_NUMBERS).contains(had));
            if let Some(had) = had.filter(|had| taken.insert(*had)) {
                ports.numbers.insert(attachment.clone(), PortId(had));
            }
        }
        for (attachment, _) in attachments {
            ports.number(attachment);
        }
        ports
    }

    /// The attachment's number, a new one if it has none; `None` if all are taken.
    pub fn number(&mut self, attachment: &AttachmentId) -> Option<PortId> {
        if let Some(id) = self.numbers.get(attachment) {
            return Some(*id);
        }
        let id = self.next_free()?;
        // Round robin, so that a number in an old log line seldom means a new port.
        self.cursor = (id.0 - FIRST_POD + 1) % POD_NUMBERS;
        self.numbers.insert(attachment.clone(), id);
        Some(id)
    }

    /// The number that the next attachment would get; `None` if all are taken.
    pub(crate) fn next_free(&self) -> Option<PortId> {
        let mut candidates = (0..POD_NUMBERS)
            .map(|step| PortId(FIRST_POD + (self.cursor.wrapping_add(step)) % POD_NUMBERS));
        let taken: BTreeSet<_> =
            self.numbers.values().chain(&self.leaving).map(|id| id.0).collect();
        candidates.find(|id| !taken.contains(&id.0))
    }

    /// The number that the attachment has.
    #[must_use]
    pub fn number_of(&self, attachment: &AttachmentId) -> Option<PortId> {
        self.numbers.get(attachment).copied()
    }

    /// The attachment that has this number.
    #[must_use]
    pub fn attachment_of(&self, id: PortId) -> Option<&AttachmentId> {
        self.numbers.iter().find(|(_, number)| **number == id).map(|(attachment, _)| attachment)
    }

    /// The port that was handed over.
    #[must_use]
    pub fn live(&self, attachment: &AttachmentId) -> Option<&LivePort> {
        self.live.get(attachment)
    }

    /// Whether it was handed over and its device is there.
    #[must_use]
    pub fn is_up(&self, attachment: &AttachmentId) -> bool {
        self.live.get(attachment).is_some_and(|live| live.up)
    }

    /// Ports that are up.
    #[must_use]
    pub fn count_up(&self) -> usize {
        self.live.values().filter(|live| live.up).count()
    }

    /// Notes a port that was handed over; answers with the worker of each of its queues, of so many: those that
    /// receive from the fewest.
    pub fn take_up(
        &mut self,
        attachment: &AttachmentId,
        device: PodDevice,
        workers: usize,
    ) -> Vec<usize> {
        let loads = self.loads(workers);
        let mut receivers: Vec<_> = (0..loads.len()).collect();
        receivers.sort_by_key(|worker| loads[*worker]);
        receivers.truncate(device.queues.max(1));
        let (offloads, workers) = (device.offloads, receivers.clone());
        self.insert(attachment, LivePort { offloads, workers, up: true });
        receivers
    }

    /// A former port of the same number has not to be closed any more: workers have this one in its place.
    fn insert(&mut self, attachment: &AttachmentId, live: LivePort) {
        let number = self.number_of(attachment);
        self.leaving.retain(|id| Some(*id) != number);
        self.live.insert(attachment.clone(), live);
    }

    /// The device of this port is gone; the attachment that has it, if it was up. The number stays
    /// its own.
    pub fn mark_down(&mut self, id: PortId) -> Option<AttachmentId> {
        let attachment = self.attachment_of(id)?.clone();
        let live = self.live.get_mut(&attachment).filter(|live| live.up)?;
        live.up = false;
        self.leaving.push(id);
        Some(attachment)
    }

    /// No worker has the port: the attachment is without one.
    pub fn was_not_taken(&mut self, id: PortId) {
        if let Some(attachment) = self.attachment_of(id).cloned() {
            self.live.remove(&attachment);
        }
    }

    /// Forgets the port and the number, which stays taken until [`Ports::have_left`]; true if the port
    /// was live.
    pub fn forget(&mut self, attachment: &AttachmentId) -> bool {
        let live = self.live.remove(attachment);
        let number = self.numbers.remove(attachment);
        if live.is_some() {
            self.leaving.extend(number);
        }
        live.is_some()
    }

    /// Ports that no table names any more and workers may still have.
    #[must_use]
    pub fn leaving(&self) -> &[PortId] {
        &self.leaving
    }

    /// Whether all of these are.
    #[must_use]
    pub fn are_leaving(&self, ids: &[PortId]) -> bool {
        ids.iter().all(|id| self.leaving.contains(id))
    }

    /// No table names these any more, and workers may still have them.
    pub fn leave(&mut self, ids: &[PortId]) {
        let fresh: Vec<_> = ids.iter().filter(|id| !self.leaving.contains(id)).copied().collect();
        self.leaving.extend(fresh);
    }

    /// Every worker has let go of these.
    pub fn have_left(&mut self, ids: &[PortId]) {
        self.leaving.retain(|id| !ids.contains(id));
    }

    /// What `compile` needs.
    #[must_use]
    pub fn compiled(&self) -> BTreeMap<AttachmentId, PodPort> {
        let up = self.live.iter().filter(|(_, live)| live.up);
        up.filter_map(|(attachment, live)| {
            let id = *self.numbers.get(attachment)?;
            Some((attachment.clone(), PodPort { id, offloads: live.offloads }))
        })
        .collect()
    }

    /// Each port that is up and has one queue, with the worker that receives from it. One with several is spread
    /// already, and stays where it is.
    pub fn movable(&self) -> impl Iterator<Item = (PortId, usize)> {
        let up = self.live.iter().filter(|(_, live)| live.up);
        up.filter_map(|(attachment, live)| match live.workers[..] {
            [worker] => Some((self.number_of(attachment)?, worker)),
            _ => None,
        })
    }

    /// Another worker receives from this port from now on.
    pub fn is_received_by(&mut self, id: PortId, worker: usize) {
        if let Some(attachment) = self.attachment_of(id).cloned()
            && let Some(live) = self.live.get_mut(&attachment)
        {
            live.workers = vec![worker];
        }
    }

    /// Ports, or queues of ports, that each of so many workers receives from.
    #[must_use]
    pub fn loads(&self, workers: usize) -> Vec<usize> {
        let mut loads = vec![0; workers];
        for worker in self.live.values().filter(|live| live.up).flat_map(|live| &live.workers) {
            if let Some(load) = loads.get_mut(*worker) {
                *load += 1;
            }
        }
        loads
    }
}

/// Offloads in words.
#[must_use]
pub fn describe(offloads: Offloads) -> String {
    let Offloads { checksum, tso, uso, vxlan } = offloads;
    let words = [(checksum, "csum"), (tso, "tso"), (uso, "uso"), (vxlan, "vxlan")];
    let words: Vec<_> = words.iter().filter(|(has, _)| *has).map(|(_, word)| *word).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use api::AttachmentId;
    use dataplane::tables::{MAX_PORTS, Offloads};

    use super::{PodDevice, Ports};

    fn id(number: usize) -> AttachmentId {
        AttachmentId { container_id: format!("c{number}"), ifname: "eth0".into() }
    }

    fn device(queues: usize) -> PodDevice {
        PodDevice { offloads: Offloads::default(), queues }
    }

    #[test]
    fn queues_of_a_port_have_a_worker_each_and_are_not_moved() {
        let mut ports = Ports::default();
        assert!((0..4).all(|pod| ports.number(&id(pod)).is_some()));
        assert_eq!(ports.take_up(&id(0), device(1), 3), [0]);
        assert_eq!(ports.take_up(&id(1), device(2), 3), [1, 2]);
        assert_eq!(ports.take_up(&id(2), device(9), 3), [0, 1, 2]);
        assert_eq!(ports.take_up(&id(3), device(0), 3), [0]);
        assert_eq!(ports.loads(3), [3, 2, 2]);
        let movable: Vec<_> = ports.movable().collect();
        assert_eq!(movable, [0, 3].map(|pod| (ports.number_of(&id(pod)).expect("one"), 0)));
    }

    #[test]
    fn a_number_is_free_again_once_every_worker_let_go() {
        let mut ports = Ports::default();
        for number in 0..MAX_PORTS - 2 {
            let port = ports.number(&id(number)).expect("free");
            assert_eq!(ports.number(&id(number)), Some(port));
        }
        assert_eq!(ports.number(&id(5000)), None);
        assert_eq!(ports.next_free(), None);
        let freed = ports.number_of(&id(7));
        assert_eq!(ports.take_up(&id(7), device(1), 1), [0]);
        assert!(ports.forget(&id(7)));
        assert_eq!(ports.number(&id(5000)), None);
        assert_eq!(ports.leaving(), Vec::from_iter(freed));
        ports.have_left(&Vec::from_iter(freed));
        assert_eq!(ports.number(&id(5000)), freed);
    }

    #[test]
    fn numbers_of_before_are_kept_and_nobody_has_anothers() {
        let pods = [id(1), id(2), id(3), id(4), id(5)];
        // The first had none yet, the fourth one that is no pod's, the fifth another's.
        let had = [None, Some(2), Some(900), Some(1), Some(900)];
        let ports = Ports::numbered(pods.iter().zip(had));
        let number = |pod| ports.number_of(&pods[pod]).expect("a number").0;
        assert_eq!((number(1), number(2)), (2, 900));
        let mut all: Vec<_> = (0..5).map(number).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5);
        assert!(all.iter().all(|number| (2..MAX_PORTS as u16).contains(number)), "{all:?}");
    }
}
