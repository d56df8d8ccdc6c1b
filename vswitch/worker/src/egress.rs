//! One worker's transmit handles: the way out of the walk.
//!
//! Enters: packets from `Dataplane::process`. Leaves: writes to TAPs, at once; frames in the NIC's
//! transmit ring, if its kind of uplink has one, which `flush` hands to the kernel at the end of the
//! turn. A full queue drops, and
//! reports so; nothing here waits.

use std::sync::Arc;

use crossbeam_channel::Sender;
use dataplane::tables::{MAX_PORTS, PortId};
use dataplane::{DropReason, Egress};
use frame::{Packet, Pool};
use netio::port::{PortFd, SendError};
use netio::uplink::{Tx, TxError};

pub(super) struct EgressPorts {
    handles: Vec<Option<Port>>,
    uplink: Option<Uplink>,
    pool: Pool,
    port_gone: Sender<PortId>,
    /// The packet that was refused last, until it is taken back.
    refused: Option<Packet>,
}

struct Port {
    io: Arc<PortFd>,
    gone: bool,
}

struct Uplink {
    id: PortId,
    tx: Tx,
}

impl EgressPorts {
    pub(super) fn new(uplink: Option<(PortId, Tx)>, pool: Pool, port_gone: Sender<PortId>) -> Self {
        let uplink = uplink.map(|(id, tx)| Uplink { id, tx });
        let handles = (0..MAX_PORTS).map(|_| None).collect();
        Self { handles, uplink, pool, port_gone, refused: None }
    }

    /// Returns the handle that it replaces, if any.
    pub(super) fn add(&mut self, id: PortId, io: Arc<PortFd>) -> Option<Arc<PortFd>> {
        let place = self.handles.get_mut(usize::from(id.0))?;
        place.replace(Port { io, gone: false }).map(|port| port.io)
    }

    pub(super) fn remove(&mut self, id: PortId) -> Option<Arc<PortFd>> {
        self.handles.get_mut(usize::from(id.0))?.take().map(|port| port.io)
    }

    pub(super) fn io(&self, id: PortId) -> Option<&Arc<PortFd>> {
        self.handles.get(usize::from(id.0))?.as_ref().map(|port| &port.io)
    }

    /// Sends by another handle to the NIC from now on; returns the former.
    pub(super) fn change_uplink(&mut self, id: PortId, tx: Tx) -> Option<Tx> {
        self.uplink.replace(Uplink { id, tx }).map(|former| former.tx)
    }

    /// Reports to the control thread, once, that a port's device has ended.
    pub(super) fn note_gone(&mut self, id: PortId) {
        if let Some(Some(port)) = self.handles.get_mut(usize::from(id.0))
            && !port.gone
        {
            port.gone = true;
            // The control thread outlives the workers unless it is ending itself.
            let _ = self.port_gone.send(id);
        }
    }

    /// Hands queued frames to the kernel; true if some are left for the next turn.
    pub(super) fn flush(&mut self) -> bool {
        let Some(Uplink { tx, .. }) = &mut self.uplink else { return false };
        if tx.pending() == 0 {
            return false;
        }
        if let Err(error) = tx.flush() {
            tracing::debug!(%error, "the NIC takes no frames");
        }
        tx.pending() > 0
    }

    fn send_to_fd(&mut self, id: PortId, packet: &mut Packet) -> Result<(), DropReason> {
        let Some(Some(port)) = self.handles.get(usize::from(id.0)) else {
            return Err(DropReason::PortGone);
        };
        match port.io.send(packet) {
            Ok(()) => Ok(()),
            Err(SendError::WouldBlock) => Err(DropReason::QueueFull),
            Err(SendError::Down | SendError::Refused) => Err(DropReason::PortRefused),
            Err(SendError::Gone) => {
                self.note_gone(id);
                Err(DropReason::PortGone)
            }
        }
    }
}

impl Egress for EgressPorts {
    fn send(&mut self, port: PortId, mut packet: Packet) -> Result<(), DropReason> {
        let sent = match &mut self.uplink {
            Some(uplink) if uplink.id == port => uplink.queue(|tx| tx.send(&mut packet)),
            _ => self.send_to_fd(port, &mut packet),
        };
        if sent.is_err() {
            self.refused = Some(packet);
        }
        sent
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
        if let Some(uplink) = self.uplink.as_mut().filter(|uplink| uplink.id == port) {
            return uplink.queue(|tx| tx.send_with(len, &mut *write));
        }
        let mut frame = self.pool.alloc().ok_or(DropReason::NoFrames)?;
        write(frame.extend(len).map_err(|_| DropReason::PortRefused)?);
        self.send_to_fd(port, &mut Packet::plain(frame))
    }
}

impl Uplink {
    /// Makes room once by handing over what is queued.
    fn queue(
        &mut self,
        mut send: impl FnMut(&mut Tx) -> Result<(), TxError>,
    ) -> Result<(), DropReason> {
        for retry in [true, false] {
            match send(&mut self.tx) {
                Ok(()) => return Ok(()),
                Err(
                    TxError::TooLong | TxError::TooShort | TxError::Unfinished | TxError::Refused,
                ) => {
                    return Err(DropReason::PortRefused);
                }
                // The control thread sees to it.
                Err(TxError::Gone) => return Err(DropReason::PortGone),
                Err(TxError::Full) if retry => {
                    if self.tx.flush().is_err() {
                        return Err(DropReason::PortRefused);
                    }
                }
                Err(TxError::Full) => break,
            }
        }
        Err(DropReason::QueueFull)
    }
}
