//! Receives from the sources of a turn, and has each packet walked to its end.
//!
//! Enters: packets of the NIC's queues, of other workers and of ports, as the schedule has them. Leaves: the same,
//! to the dataplane or to another worker, and what serving each source took, to the schedule. `turn` alone calls it.

use std::sync::Arc;

use dataplane::rate::{Limit, Nanos};
use dataplane::tables::{PortId, Tables};
use dataplane::{Dataplane, DropReason, Millis, wire_len};
use frame::Packet;
use netio::port::Recv;
use netio::uplink::RxError;

use super::Turn;
use crate::egress::Settled;
use crate::gather::Posting;
use crate::handoff::Handed;
use crate::port_io::PortIoChoice;
use crate::schedule::{Left, SHARE, Source, cost};

/// Packets from a queue of the NIC at a time: amortizes the kick of a batch, lets pieces of a flow be merged,
/// and takes about as long as a share of a TAP, as receiving costs no system call.
pub(super) const QUEUE_BUDGET: usize = 32;
const QUEUE_COST: i64 = SHARE / QUEUE_BUDGET as i64;

/// What a packet of the NIC takes, as `schedule` counts it. A superframe, which some uplinks give whole, takes its
/// bytes: pods would wait for more of these than of their own.
const fn cost_by_queue(len: usize) -> i64 {
    let bytes = len as i64;
    if bytes > QUEUE_COST { bytes } else { QUEUE_COST }
}

/// What serving a source came to.
struct Served {
    /// Packets that were received.
    packets: usize,
    /// What they took, as `schedule` counts it.
    took: i64,
    left: Left,
}

/// A port that is being served.
#[derive(Clone, Copy)]
struct From<'a> {
    tables: &'a Tables,
    id: PortId,
    limit: Option<&'a Limit>,
    now: Millis,
    nanos: Nanos,
}

impl Turn {
    /// Packets that were received.
    pub(super) fn serve(&mut self, tables: &Tables, now: Millis, nanos: Nanos) -> usize {
        let mut received = 0;
        let mut plan = self.schedule.begin();
        while let Some((source, credit)) = self.schedule.next(&mut plan) {
            let served = match source {
                Source::Handoff | Source::Queue(_) => self.nic(tables, source, credit, now),
                Source::Port(id) => self.tap(tables, id, credit, now, nanos),
            };
            received += served.packets;
            self.schedule.served(source, served.took, served.left);
        }
        self.note_ring_failure();
        received
    }

    /// Packets of the NIC: of a queue, some of which may be another worker's, or those that others have left to
    /// this one.
    fn nic(&mut self, tables: &Tables, source: Source, credit: i64, now: Millis) -> Served {
        let Self { queues, pool, dataplane, ports, path_mtu, batch, outbound, inbound, .. } = self;
        let Some(uplink) = self.uplink else {
            return Served { packets: 0, took: 0, left: Left::Nothing };
        };
        let looks_for_others = matches!(source, Source::Queue(_)) && outbound.looks();
        ports.latency.serve(uplink);
        let budget = (credit / QUEUE_COST).clamp(1, QUEUE_BUDGET as i64) as usize;
        // All of a batch that is looked ahead for hold their memory until the first is processed.
        let looks_ahead = dataplane.looks_ahead(tables);
        let budget = if looks_ahead { budget.min(pool.available().max(1)) } else { budget };
        ports.gather();
        let mut took = 0;
        let deliver = |received: Result<Packet, RxError>| match received {
            Ok(packet) => {
                took += cost_by_queue(packet.frame.len());
                let handed =
                    if looks_for_others { outbound.hand_over(tables, &packet) } else { Handed::No };
                match handed {
                    // The other one has its bytes, and counts it.
                    Handed::Over => {}
                    Handed::NoRoom => dataplane.not_handed_over(uplink, &packet.frame),
                    Handed::No if looks_ahead => batch.push(packet),
                    Handed::No => dataplane.process(tables, uplink, packet, now, ports),
                }
            }
            Err(error) => {
                took += cost_by_queue(0);
                let reason = match error {
                    RxError::NoFrame => DropReason::NoFrames,
                    RxError::TooLong => DropReason::PortRefused,
                    RxError::Malformed => DropReason::OffloadInvalid,
                };
                dataplane.unreadable(uplink, reason);
            }
        };
        let packets = match source {
            Source::Queue(queue) => {
                let queue = queues.get_mut(usize::from(queue));
                queue.map_or(0, |queue| queue.recv(pool, budget, deliver))
            }
            _ => inbound.recv(pool, budget, deliver),
        };
        outbound.publish();
        dataplane.prefetch(tables, batch.iter().map(|packet| (uplink, packet)));
        for packet in batch.drain(..) {
            dataplane.process(tables, uplink, packet, now, ports);
        }
        dataplane.end_batch(tables, packets == budget, ports);
        ports.release(|end| settle(dataplane, end));
        if packets > 0 {
            for heard in dataplane.take_path_mtus() {
                // One that has no room is reported again by the router.
                let _ = path_mtu.try_send(heard);
            }
        }
        let left = if packets < budget { Left::Nothing } else { Left::Some };
        Served { packets, took, left }
    }

    fn tap(
        &mut self,
        tables: &Tables,
        id: PortId,
        credit: i64,
        now: Millis,
        nanos: Nanos,
    ) -> Served {
        let mut served = Served { packets: 0, took: 0, left: Left::Nothing };
        let Some(io) = self.ports.io(id).map(Arc::clone) else { return served };
        served.left = Left::Some;
        // A port comes before the tables that name it: its first packets wait for them.
        let Some(port) = tables.port(id) else { return served };
        let limit = port.rx_limit.as_ref();
        self.ports.latency.serve(id);
        let from = From { tables, id, limit, now, nanos };
        let mut longest = 0;
        while served.took < credit && served.left == Left::Some {
            if let Some(limit) = limit
                && !self.gate.is_open(id, limit, nanos)
            {
                self.shared.counters.rx_delayed(id);
                served.left = Left::Nothing;
                break;
            }
            // The length of a packet is known when it was read: with a rate, the next one may be too much.
            let expected = match limit {
                Some(_) => 1,
                None => self.batch_sizes.expected(id, credit - served.took, self.pool.available()),
            };
            if self.ports.reads_together(id, expected) {
                let Self { ports, received, dataplane, .. } = self;
                ports.gather();
                ports.exchange(id, expected, received, |end| settle(dataplane, end));
                self.dataplane
                    .prefetch(tables, self.received.iter().map(|(packet, _)| (id, packet)));
                while let Some((packet, outcome)) = self.received.pop_front() {
                    longest = longest.max(packet.frame.len());
                    self.take(&from, packet, outcome, &mut served);
                }
            } else {
                let Some(frame) = self.pool.alloc() else { break };
                let mut packet = Packet::plain(frame);
                let outcome = io.recv(&mut packet);
                longest = longest.max(packet.frame.len());
                self.take(&from, packet, outcome, &mut served);
            }
        }
        let Self { ports, dataplane, .. } = self;
        ports.release(|end| settle(dataplane, end));
        self.batch_sizes.note(id, served.packets, longest);
        served
    }

    /// Processes what a read from a port gave.
    #[inline(always)]
    fn take(&mut self, from: &From<'_>, packet: Packet, outcome: Recv, served: &mut Served) {
        let From { tables, id, limit, now, nanos } = *from;
        served.left = Left::Some;
        match outcome {
            Recv::Packet => {
                if let Some(limit) = limit {
                    self.gate.charge(id, limit, wire_len(&packet), nanos);
                }
                served.took += cost(packet.frame.len());
                self.dataplane.process(tables, id, packet, now, &mut self.ports);
            }
            Recv::Malformed => {
                served.took += cost(0);
                self.dataplane.unreadable(id, DropReason::OffloadInvalid);
            }
            Recv::WouldBlock => return served.left = Left::Nothing,
            Recv::Gone => {
                self.ports.note_gone(id);
                return served.left = Left::Nothing;
            }
        }
        served.packets += 1;
    }

    /// Goes on by system calls alone after the kernel has refused a batch.
    fn note_ring_failure(&mut self) {
        if let Some(error) = self.ports.take_ring_failure() {
            tracing::error!(%error, "io_uring has failed; ports are read and written by system calls");
            self.shared.set_port_io(PortIoChoice::refused(&error));
        }
    }
}

/// Counts the end of a packet that was written together with others.
fn settle(dataplane: &mut Dataplane, end: Settled) {
    let Settled { posting: Posting { port, account }, packet, outcome } = end;
    dataplane.settle(port, account, &packet.frame, outcome);
}

#[cfg(test)]
mod tests {
    use super::{QUEUE_BUDGET, cost_by_queue};
    use crate::schedule::SHARE;

    #[test]
    fn a_share_is_a_batch_of_frames_or_a_superframe() {
        let frames = (0..QUEUE_BUDGET).map(|_| cost_by_queue(1514)).sum::<i64>();
        assert!(frames <= SHARE && frames > SHARE / 2, "{frames} of {SHARE}");
        let superframe = cost_by_queue(65_000);
        assert!(superframe <= SHARE && superframe > SHARE / 2, "{superframe} of {SHARE}");
    }
}
