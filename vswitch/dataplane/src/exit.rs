//! The last step of a packet: to its port, at once or when the port's rate allows, or dropped.
//!
//! Enters: packets as they leave, from `act` and the coalescer. Leaves: packets to [`Egress`], ends to
//! [`Tally`], packets that wait to [`Shaper`].

use frame::{Packet, Pool};

use crate::act::{Egress, Tally};
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
        let len = packet.frame.len();
        let sent = self.egress.send(port, packet);
        self.count(ingress, port, 1, len, sent);
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
                    if shaper.hold(limit, port, held).is_some() {
                        self.drop(ingress, packets, DropReason::BandwidthExceeded);
                    }
                    return;
                }
                Admission::Never => {
                    return self.drop(ingress, packets, DropReason::BandwidthExceeded);
                }
            }
        }
        let len = packet.frame.len();
        let sent = self.egress.send(port, packet);
        self.count(ingress, port, packets, len, sent);
    }

    /// Sends what the coalescer gives out.
    pub(crate) fn send_train(&mut self, train: Train) {
        let (ingress, port) = (train.ingress, train.port);
        let (packet, packets) = train.into_packet();
        self.send(ingress, port, packet, packets);
    }

    /// Sends a packet of `len` bytes that `write` puts where it is to lie; `invalid` counts one that it
    /// could not write.
    pub(crate) fn send_with(
        &mut self,
        ingress: PortId,
        port: PortId,
        len: usize,
        invalid: DropReason,
        mut write: impl FnMut(&mut [u8]) -> Option<()>,
    ) {
        let limit = self.tables.port(port).and_then(|port| port.tx_limit.as_ref());
        if limit.is_some() && self.shaper.is_some() {
            // It may have to wait, and so lies in memory of ours.
            let Some(mut frame) = self.pool.alloc() else {
                return self.drop(ingress, 1, DropReason::NoFrames);
            };
            return match frame.extend(len).ok().and_then(&mut write) {
                Some(()) => self.send(ingress, port, Packet::plain(frame), 1),
                None => self.drop(ingress, 1, invalid),
            };
        }
        let mut whole = None;
        let sent = self.egress.send_with(port, len, &mut |into| whole = write(into));
        let sent = sent.and_then(|()| whole.ok_or(invalid));
        self.count(ingress, port, 1, len, sent);
    }

    #[inline(always)]
    pub(crate) fn drop(&mut self, ingress: PortId, packets: u64, reason: DropReason) {
        self.tally.dropped(ingress, packets, reason);
    }

    #[inline(always)]
    fn count(
        &mut self,
        ingress: PortId,
        port: PortId,
        packets: u64,
        len: usize,
        sent: Result<(), DropReason>,
    ) {
        match sent {
            Ok(()) => self.tally.sent(port, packets, len),
            Err(reason) => self.drop(ingress, packets, reason),
        }
    }
}
