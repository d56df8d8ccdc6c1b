//! What the control thread may ask of handing over.
//!
//! Enters: which workers share the packets of one. Leaves: rings between them, which are made when they are needed
//! first and stay; what was handed over so far. The control thread calls it, as [`Workers`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Ring, Way};
use crate::schedule::work;
use crate::{Command, Handle, Workers};

/// Packets of IPIP that the queues of one worker gave, as [`work`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IpipWork {
    /// Those that it processed.
    pub kept: u64,
    /// Those that it handed over, by the number of the other worker.
    pub handed: Vec<u64>,
}

impl Workers {
    /// Has a worker share its packets of IPIP with others, by inner flow, from now on: `members` are all that
    /// process some, itself included if it does. Without others it keeps them, and counts them. A flow goes to
    /// another worker as soon as the former one has carried out all that it had of it.
    pub fn hand_over(&mut self, worker: usize, members: &[usize]) {
        let is_there = |member: &usize| *member < self.handles.len();
        if !is_there(&worker) || !members.iter().all(is_there) {
            return tracing::error!(worker, ?members, "no such worker is there to share packets");
        }
        let mut ways = Vec::new();
        for &member in members {
            let has_ring = self.handles[worker].rings.iter().any(|(to, _)| *to == member);
            if member == worker || has_ring {
                continue;
            }
            let ring = Arc::new(Ring::new());
            let to = &self.handles[member];
            to.send(Command::TakeOver { ring: Arc::clone(&ring) });
            ways.push(Way::new(member, Arc::clone(&ring), Arc::clone(&to.bell)));
            self.handles[worker].rings.push((member, ring));
        }
        self.handles[worker].members = members.to_vec();
        self.handles[worker].send(Command::HandOver { members: members.to_vec(), ways });
    }

    /// What the queues of each worker gave of IPIP so far, in the order of their numbers; zero of one that was never
    /// told to share.
    #[must_use]
    pub fn ipip_work(&self) -> Vec<IpipWork> {
        let of = |handle: &Handle| {
            let kept = &handle.shared.kept;
            let mut handed = vec![0; self.handles.len()];
            for (to, ring) in &handle.rings {
                let (packets, bytes) = ring.counts();
                handed[*to] = work(packets, bytes);
            }
            let (packets, bytes) = (&kept.packets, &kept.bytes);
            let kept = work(packets.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
            IpipWork { kept, handed }
        };
        self.handles.iter().map(of).collect()
    }
}

impl Handle {
    /// Other workers that are to process packets of its queues.
    pub(crate) fn hands_over_to(&self) -> Vec<usize> {
        self.members.iter().copied().filter(|member| *member != self.id).collect()
    }

    /// Packets that it has handed over so far.
    pub(crate) fn handed_over(&self) -> u64 {
        self.rings.iter().map(|(_, ring)| ring.counts().0).sum()
    }
}
