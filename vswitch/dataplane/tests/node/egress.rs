//! Ports that keep what they are given, and fail on demand.

use std::collections::HashMap;

use dataplane::tables::PortId;
use dataplane::{DropReason, Egress};
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
