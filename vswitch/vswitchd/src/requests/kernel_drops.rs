//! What the kernel drops of packets on their way to the switch or from it.
//!
//! Enters: what the kernel counts of the queues of pods' interfaces, of the host port and of an uplink's TAP,
//! and of the sockets of the NIC's queues. Leaves: packets that no counter of the switch's has, with the
//! reason in words, for `show drops`, `show ports` and metrics. Read on request: a few calls of the kernel for each port.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use api::{DropCount, NicQueue};
use controlplane::config::UplinkChoice;
use controlplane::ports::{HOST, UPLINK};
use dataplane::tables::PortId;
use netio::xsk::MAX_FRAME_BYTES;

use crate::daemon::Daemon;
use crate::error::chain;
use crate::machine::largest_mtu;

/// For so long the ports are asked about. A call takes some 20 µs, and longer while another program holds
/// the kernel's lock of all interfaces: the daemon has other work.
const PATIENCE: Duration = Duration::from_millis(200);

/// Name and explanation of a reason.
type Reason = (&'static str, &'static str);

const INTERFACE_QUEUE_FULL: Reason = (
    "interface-queue-full",
    "The queue of the port's interface was full: more was sent than the switch read, as its worker was late or the port's rate used up.",
);
const NO_RECEIVE_MEMORY: Reason =
    ("no-receive-memory", "The NIC's queue had no memory left, as its worker was late.");
const FRAME_TOO_LONG: Reason = (
    "frame-too-long",
    "The frame was longer than the 3,840 bytes that AF_XDP receives: the MTU of who sent it is larger.",
);
const RECEIVE_RING_FULL: Reason =
    ("receive-ring-full", "The NIC's queue was full, as its worker was late.");
const TRANSMIT_REFUSED: Reason = (
    "transmit-refused",
    "The kernel refused what the switch wanted to send by the NIC's queue: a defect, please report it.",
);

impl Daemon {
    /// Packets that found the queue of a port's interface full, since the interface was made. A port
    /// whose interface the kernel does not count, or tells nothing about in time, is left out.
    pub(super) fn lost_in_queues(&mut self) -> BTreeMap<PortId, u64> {
        let (node, deadline) = (&mut self.node, Instant::now() + PATIENCE);
        let mut lost = BTreeMap::new();
        let mut note = |id, name: &str, answer: netlink::Result<Option<u64>>| match answer {
            Ok(packets) => lost.extend(packets.map(|packets| (id, packets))),
            Err(error) => tracing::debug!("{name}: {}", chain(&error)),
        };
        if let Some(host) = &node.host {
            note(HOST, &host.name, node.netlink.tx_dropped(host.ifindex));
        }
        if let Some(tap) = node.uplink.as_ref().and_then(|uplink| uplink.control().tap_name()) {
            let index = node.netlink.link(tap).map(|link| link.map(|link| link.index));
            let dropped = index
                .and_then(|index| index.map_or(Ok(None), |index| node.netlink.tx_dropped(index)));
            note(UPLINK, tap, dropped);
        }
        for (id, pod) in &node.pods {
            if Instant::now() >= deadline {
                tracing::debug!("the kernel is slow to tell what pods' interfaces lost");
                break;
            }
            let port = &pod.fds.port;
            let (Some(namespace), Some(ifname)) = (port.open_namespace(), port.name()) else {
                continue;
            };
            note(*id, &pod.name, node.netlink.tx_dropped_in(namespace.as_fd(), &ifname));
        }
        lost
    }

    /// What the kernel counts of each queue of the NIC, in the order of their numbers.
    pub(super) fn nic_queues(&self) -> Vec<NicQueue> {
        let Some(uplink) = &self.node.uplink else { return Vec::new() };
        let read = match uplink.control().statistics() {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!("{}: {}", uplink.facts.link.name, chain(&error));
                return Vec::new();
            }
        };
        let workers = self.node.workers.states();
        let owner = |queue| workers.iter().find(|worker| worker.queues.contains(&queue));
        let queues = read.into_iter().map(|(queue, counted)| NicQueue {
            queue,
            worker: owner(queue).map(|worker| worker.id),
            rx_dropped: counted.rx_dropped,
            rx_ring_full: counted.rx_ring_full,
            fill_ring_empty: counted.fill_ring_empty,
            rx_invalid_descriptors: counted.rx_invalid_descriptors,
            tx_invalid_descriptors: counted.tx_invalid_descriptors,
            tx_ring_empty: counted.tx_ring_empty,
        });
        queues.collect()
    }

    /// That packets are lost because the MTU of who sends them is larger than what AF_XDP receives.
    pub(super) fn too_long_frames(&self) -> Option<String> {
        let lost: u64 = self
            .nic_queues()
            .iter()
            .flat_map(of_queue)
            .filter(|((reason, _), _)| *reason == FRAME_TOO_LONG.0)
            .map(|(_, packets)| packets)
            .sum();
        let (name, largest) = (self.name_of(UPLINK), largest_mtu(UplinkChoice::AfXdp));
        (lost > 0).then(|| {
            format!(
                "{lost} packet(s) from the underlay were lost at {name}, as they were longer than the {MAX_FRAME_BYTES} bytes that AF_XDP receives: give {name} and the NICs of the other nodes an MTU of {largest} at most, or set uplink.kind to \"offload\" or \"af_packet\""
            )
        })
    }

    /// All of it, by port, queue of the NIC and reason.
    pub(super) fn kernel_drops(&mut self, queues: &[NicQueue]) -> Vec<DropCount> {
        let interfaces = self.lost_in_queues().into_iter();
        let mut drops: Vec<_> = interfaces
            .map(|(id, packets)| (self.name_of(id), INTERFACE_QUEUE_FULL, packets))
            .collect();
        let uplink = self.name_of(UPLINK);
        for queue in queues {
            let port = format!("{uplink} queue {}", queue.queue);
            let of_queue = of_queue(queue).into_iter();
            drops.extend(of_queue.map(|(reason, packets)| (port.clone(), reason, packets)));
        }
        let drops = drops.into_iter().filter(|(.., packets)| *packets > 0);
        let drops = drops.map(|(port, (reason, explanation), packets)| DropCount {
            port,
            reason: reason.to_owned(),
            explanation: explanation.to_owned(),
            packets,
        });
        drops.collect()
    }

    /// Packets of each port by the name of the reason; the NIC's queues are summed up.
    pub(super) fn kernel_drops_of_ports(&mut self) -> BTreeMap<PortId, Vec<(&'static str, u64)>> {
        let mut drops = BTreeMap::<_, Vec<_>>::new();
        for (id, packets) in self.lost_in_queues() {
            drops.entry(id).or_default().push((INTERFACE_QUEUE_FULL.0, packets));
        }
        for ((reason, _), packets) in self.nic_queues().iter().flat_map(of_queue) {
            drops.entry(UPLINK).or_default().push((reason, packets));
        }
        for of_port in drops.values_mut() {
            of_port.retain(|(_, packets)| *packets > 0);
        }
        drops
    }
}

/// What was lost at a queue of the NIC. Of what was dropped, the kernel counts beside it how often it found no
/// memory: the rest was too long.
fn of_queue(queue: &NicQueue) -> [(Reason, u64); 4] {
    let without_memory = queue.rx_dropped.min(queue.fill_ring_empty);
    [
        (NO_RECEIVE_MEMORY, without_memory),
        (FRAME_TOO_LONG, queue.rx_dropped - without_memory),
        (RECEIVE_RING_FULL, queue.rx_ring_full),
        (TRANSMIT_REFUSED, queue.tx_invalid_descriptors),
    ]
}

#[cfg(test)]
mod tests {
    use api::NicQueue;

    use super::of_queue;

    #[test]
    fn what_was_dropped_with_memory_at_hand_was_too_long() {
        for (rx_dropped, fill_ring_empty, expected) in
            [(0, 0, [0, 0]), (5, 5, [5, 0]), (5, 2, [2, 3]), (7, 0, [0, 7]), (3, 9, [3, 0])]
        {
            let queue = NicQueue {
                queue: 0,
                worker: None,
                rx_dropped,
                rx_ring_full: 0,
                fill_ring_empty,
                rx_invalid_descriptors: 0,
                tx_invalid_descriptors: 0,
                tx_ring_empty: 0,
            };
            let told = of_queue(&queue).map(|((reason, _), packets)| (reason, packets));
            let [no_memory, too_long, ..] = told;
            assert_eq!(no_memory, ("no-receive-memory", expected[0]));
            assert_eq!(too_long, ("frame-too-long", expected[1]));
        }
    }
}
