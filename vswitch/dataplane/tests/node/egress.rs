//! Ports that keep what they are given, and fail on demand.

use std::collections::HashMap;

use dataplane::tables::{PortId, Tables};
use dataplane::{Account, Dataplane, DropReason, Egress, Posted};
use frame::{Offload, Packet};

/// One packet that left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) port: PortId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
}

#[derive(Default)]
pub(crate) struct Ports {
    pub(crate) sent: Vec<Sent>,
    /// What a port answers instead of taking a packet.
    pub(crate) failing: HashMap<PortId, DropReason>,
    refused: Option<Packet>,
    /// Packets are put off until `put_off` is emptied.
    pub(crate) puts_off: bool,
    pub(crate) put_off: Vec<(PortId, Packet, Account)>,
}

impl Ports {
    /// Ends a batch that `dataplane` has processed, and lets time pass until nothing stays for more of its flow.
    pub(crate) fn end_batch(&mut self, dataplane: &mut Dataplane, tables: &Tables) {
        dataplane.end_batch(tables, false, self);
        while let Some(due) = dataplane.due().filter(|_| dataplane.merges()) {
            dataplane.turn(tables, due, self);
        }
    }
}

impl Egress for Ports {
    fn send(&mut self, port: PortId, packet: Packet) -> Result<(), DropReason> {
        if let Some(reason) = self.failing.get(&port) {
            self.refused = Some(packet);
            return Err(*reason);
        }
        let (bytes, offload) = (packet.frame.to_vec(), packet.offload);
        self.sent.push(Sent { port, bytes, offload });
        Ok(())
    }

    fn post(
        &mut self,
        port: PortId,
        packet: Packet,
        account: Account,
    ) -> Result<Posted, DropReason> {
        if self.puts_off {
            self.put_off.push((port, packet, account));
            return Ok(Posted::Later);
        }
        self.send(port, packet).map(|()| Posted::Sent)
    }

    fn take_refused(&mut self) -> Option<Packet> {
        self.refused.take()
    }

    fn send_with(
        &mut self,
        port: PortId,
        len: usize,
        write: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), DropReason> {
        if let Some(reason) = self.failing.get(&port) {
            return Err(*reason);
        }
        // A port's own memory holds what was there before: a byte left unwritten shows.
        let mut bytes = vec![0xa5; len];
        write(&mut bytes);
        self.sent.push(Sent { port, bytes, offload: Offload::default() });
        Ok(())
    }
}
