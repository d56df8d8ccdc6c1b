//! The last step of a packet: to its port, at once or when the port's rate allows, or dropped.
//!
//! Enters: packets as they leave, from `act` and the coalescer. Leaves: packets to [`Egress`], ends to
//! [`Tally`], packets that wait to [`Shaper`].

use frame::{Packet, Pool};

use crate::act::{Account, Egress, Posted, Tally, frame_of};
use crate::shaper::{Admission, Held, Shaper, wire_len};
use crate::tables::{PortId, Tables};
use crate::verdict::DropReason;
use crate::walk::coalesce::Train;

pub(crate) struct Exit<'a, E, O> {
    pub(crate) tables: &'a Tables,
    pub(crate) pool: &'a Pool,
    pub(crate) egress: &'a mut E,
    pub(crate) tally: O,
    /// `None` for a trace, whose packets use up no rate.
    pub(crate) shaper: Option<&'a mut Shaper>,
}

impl<E: Egress, O: Tally> Exit<'_, E, O> {
    /// Sends a packet to a port without a rate.
    #[inline(always)]
    pub(crate) fn send_unshaped(&mut self, ingress: PortId, port: PortId, packet: Packet) {
        self.post(ingress, port, packet, 1);
    }

    /// Sends a packet, which stands for so many.
    pub(crate) fn send(&mut self, ingress: PortId, port: PortId, packet: Packet, packets: u64) {
        let limit = self.tables.port(port).and_then(|port| port.tx_limit.as_ref());
        if let (Some(limit), Some(shaper)) = (limit, &mut self.shaper) {
            let bytes = wire_len(&packet);
            match shaper.admit(limit, port, bytes) {
                Admission::Now => {}
                Admission::Later => {
                    self.tally.delayed(port);
                    let held = Held { packet, ingress, packets, bytes };
                    if let Some(Held { packet, .. }) = shaper.hold(limit, port, held) {
                        self.drop(ingress, packets, DropReason::BandwidthExceeded, &packet.frame);
                    }
                    return;
                }
                Admission::Never => {
                    let exceeded = DropReason::BandwidthExceeded;
                    return self.drop(ingress, packets, exceeded, &packet.frame);
                }
            }
        }
        self.post(ingress, port, packet, packets);
    }

    #[inline(always)]
    fn post(&mut self, ingress: PortId, port: PortId, packet: Packet, packets: u64) {
        let len = packet.frame.len();
        match self.egress.post(port, packet, Account { ingress, packets }) {
            Ok(Posted::Sent) => self.tally.sent(port, packets, len),
            Ok(Posted::Later) => {}
            Err(reason) => self.refused(ingress, packets, reason),
        }
    }

    /// Sends what the coalescer gives out.
    pub(crate) fn send_train(&mut self, train: Train) {
        let (ingress, port) = (train.ingress, train.port);
        let (packet, packets) = train.into_packet();
        self.send(ingress, port, packet, packets);
    }

    /// Sends a packet of `len` bytes that `write` puts where it is to lie; `invalid` counts one that it
    /// could not write. `whole` is the packet that it is a piece of.
    pub(crate) fn send_with(
        &mut self,
        ingress: PortId,
        port: PortId,
        len: usize,
        invalid: DropReason,
        whole: &[u8],
        mut write: impl FnMut(&mut [u8]) -> Option<()>,
    ) {
        let limit = self.tables.port(port).and_then(|port| port.tx_limit.as_ref());
        if limit.is_some() && self.shaper.is_some() {
            // It may have to wait, and so lies in memory of ours.
            let Some(mut frame) = self.pool.alloc() else {
                return self.drop(ingress, 1, DropReason::NoFrames, whole);
            };
            return match frame.extend(len).ok().and_then(&mut write) {
                Some(()) => self.send(ingress, port, Packet::plain(frame), 1),
                None => self.drop(ingress, 1, invalid, whole),
            };
        }
        let mut written = None;
        let sent = self.egress.send_with(port, len, &mut |into| written = write(into));
        match sent.and_then(|()| written.ok_or(invalid)) {
            Ok(()) => self.tally.sent(port, 1, len),
            Err(reason) => self.drop(ingress, 1, reason, whole),
        }
    }

    /// Counts packets as dropped. `frame` is the first one, as far as it is still there.
    #[inline(always)]
    pub(crate) fn drop(&mut self, ingress: PortId, packets: u64, reason: DropReason, frame: &[u8]) {
        self.tally.dropped(ingress, packets, reason, frame);
    }

    /// Drops what a port did not take.
    #[cold]
    fn refused(&mut self, ingress: PortId, packets: u64, reason: DropReason) {
        let refused = self.egress.take_refused();
        self.drop(ingress, packets, reason, frame_of(refused.as_ref()));
    }
}
