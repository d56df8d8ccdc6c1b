//! One worker's transmit handles: the way out of the walk.
//!
//! Enters: packets from `Dataplane::process`. Leaves: writes to TAPs, at once or, where io_uring pays, many
//! together (`gather`); frames in the NIC's transmit ring, if its kind of uplink has one, which `flush` hands
//! to the kernel at the end of the turn. A full queue drops, and reports so; nothing here waits.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::{io, mem};

use crossbeam_channel::Sender;
use dataplane::tables::{MAX_PORTS, PortId};
use dataplane::{Account, DropReason, Egress, Posted};
use frame::{Packet, Pool};
use netio::port::{Done, PortFd, Recv, SendError};
use netio::uplink::{Tx, TxError};

use super::gather::{Gather, Posting, Reads};
use super::latency_sampler::{LatencySampler, Leaves};

pub(super) struct EgressPorts {
    handles: Vec<Option<Port>>,
    uplink: Option<Uplink>,
    pool: Pool,
    port_gone: Sender<PortId>,
    /// The packet that was refused last, until it is taken back.
    refused: Option<Packet>,
    /// Times what was sent.
    pub(super) latency: LatencySampler,
    /// Where io_uring pays: what is written together.
    gather: Option<Gather>,
    /// Packets are kept for that.
    gathers: bool,
    /// Why there is no gathering any more.
    ring_failure: Option<io::Error>,
    /// Ends of packets that were written while nobody could count them.
    settled: Vec<Settled>,
}

struct Port {
    io: Arc<PortFd>,
    /// That its device has ended was reported.
    gone: Cell<bool>,
    in_ring: bool,
}

/// The end of a packet that was kept.
pub(super) struct Settled {
    pub(super) posting: Posting,
    pub(super) packet: Packet,
    pub(super) outcome: Result<(), DropReason>,
}

struct Uplink {
    id: PortId,
    tx: Tx,
}

impl EgressPorts {
    pub(super) fn new(
        uplink: Option<(PortId, Tx)>,
        pool: Pool,
        port_gone: Sender<PortId>,
        latency: LatencySampler,
        gather: Option<Gather>,
    ) -> Self {
        let uplink = uplink.map(|(id, tx)| Uplink { id, tx });
        let handles = (0..MAX_PORTS).map(|_| None).collect();
        Self {
            handles,
            uplink,
            pool,
            port_gone,
            refused: None,
            latency,
            gather,
            gathers: false,
            ring_failure: None,
            settled: Vec::new(),
        }
    }

    /// Returns the handle that it replaces, if any.
    pub(super) fn add(&mut self, id: PortId, io: Arc<PortFd>) -> Option<Arc<PortFd>> {
        let place = self.handles.get_mut(usize::from(id.0))?;
        let in_ring = self.gather.as_mut().is_some_and(|gather| gather.add(id, &io));
        place.replace(Port { io, gone: Cell::new(false), in_ring }).map(|port| port.io)
    }

    /// The port's file is nobody's but the returned handle's then.
    pub(super) fn remove(&mut self, id: PortId) -> Option<Arc<PortFd>> {
        let port = self.handles.get_mut(usize::from(id.0))?.take()?;
        if let Some(gather) = self.gather.as_mut().filter(|_| port.in_ring) {
            gather.remove(id);
        }
        Some(port.io)
    }

    pub(super) fn io(&self, id: PortId) -> Option<&Arc<PortFd>> {
        self.handles.get(usize::from(id.0))?.as_ref().map(|port| &port.io)
    }

    /// Sends by another handle to the NIC from now on; returns the former.
    pub(super) fn change_uplink(&mut self, id: PortId, tx: Tx) -> Option<Tx> {
        self.uplink.replace(Uplink { id, tx }).map(|former| former.tx)
    }

    /// Reports to the control thread, once, that a port's device has ended.
    pub(super) fn note_gone(&self, id: PortId) {
        note_gone(&self.handles, &self.port_gone, id);
    }

    /// Keeps what is sent to ports from now on, to be written together, where that pays.
    pub(super) fn gather(&mut self) {
        self.gathers = self.gather.is_some();
    }

    /// Whether so many packets of a port are better read together.
    pub(super) fn reads_together(&self, id: PortId, count: usize) -> bool {
        self.gather.as_ref().is_some_and(|gather| gather.pays(count))
            && self
                .handles
                .get(usize::from(id.0))
                .is_some_and(|port| port.as_ref().is_some_and(|port| port.in_ring))
    }

    /// Writes what was kept, and reads so many packets of a port to `received`. Ends go to `settle`.
    pub(super) fn exchange(
        &mut self,
        id: PortId,
        count: usize,
        received: &mut VecDeque<(Packet, Recv)>,
        settle: impl FnMut(Settled),
    ) {
        self.run(Some((id, count)), received, settle);
    }

    /// Writes what was kept, and keeps no more. Ends go to `settle`.
    pub(super) fn release(&mut self, mut settle: impl FnMut(Settled)) {
        self.gathers = false;
        self.settled.drain(..).for_each(&mut settle);
        if self.keeps_some() {
            self.run(None, &mut VecDeque::new(), settle);
        }
    }

    #[cfg(test)]
    pub(super) fn break_ring(&mut self) {
        if let Some(gather) = &mut self.gather {
            gather.is_broken = true;
        }
    }

    /// Why packets are not gathered any more, once.
    pub(super) fn take_ring_failure(&mut self) -> Option<io::Error> {
        self.ring_failure.take()
    }

    fn keeps_some(&self) -> bool {
        self.gather.as_ref().is_some_and(|gather| !gather.is_empty())
    }

    fn run(
        &mut self,
        reads: Option<(PortId, usize)>,
        received: &mut VecDeque<(Packet, Recv)>,
        mut settle: impl FnMut(Settled),
    ) {
        self.settled.drain(..).for_each(&mut settle);
        let Self { handles, gather, port_gone, pool, .. } = self;
        let Some(ring) = gather else { return };
        let io = |id: PortId| handles.get(usize::from(id.0))?.as_ref().map(|port| &port.io);
        let reads =
            reads.and_then(|(id, count)| Some(Reads { id, io: io(id)?, count, pool: &*pool }));
        let before = received.len();
        let outcome = ring.run(io, reads, |done| match done {
            Done::Read(packet, outcome) => received.push_back((packet, outcome)),
            Done::Write(packet, posting, outcome) => {
                let outcome = outcome.map_err(|error| {
                    if error == SendError::Gone {
                        note_gone(handles, port_gone, posting.port);
                    }
                    reason(error)
                });
                settle(Settled { posting, packet, outcome });
            }
        });
        if let Err(error) = outcome {
            // What was not tried is tried again: epoll would not say once more that there are packets.
            let tried = |(_, outcome): &(Packet, Recv)| *outcome != Recv::WouldBlock;
            received
                .truncate(before + received.iter().skip(before).filter(|one| tried(one)).count());
            *gather = None;
            (self.gathers, self.ring_failure) = (false, Some(error));
        }
    }

    /// Writes what was kept, and leaves it to `release` to count that.
    fn run_aside(&mut self) {
        let mut settled = mem::take(&mut self.settled);
        self.run(None, &mut VecDeque::new(), |end| settled.push(end));
        self.settled = settled;
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
        if self.keeps_some() {
            // A packet to the same port may be among them, and came before this one.
            self.run_aside();
        }
        let Some(Some(port)) = self.handles.get(usize::from(id.0)) else {
            return Err(DropReason::PortGone);
        };
        port.io.send(packet).map_err(|error| {
            if error == SendError::Gone {
                self.note_gone(id);
            }
            reason(error)
        })
    }
}

fn reason(error: SendError) -> DropReason {
    match error {
        SendError::WouldBlock => DropReason::QueueFull,
        SendError::Down | SendError::Refused => DropReason::PortRefused,
        SendError::Gone => DropReason::PortGone,
    }
}

fn note_gone(handles: &[Option<Port>], port_gone: &Sender<PortId>, id: PortId) {
    if let Some(Some(port)) = handles.get(usize::from(id.0))
        && !port.gone.replace(true)
    {
        // The control thread outlives the workers unless it is ending itself.
        let _ = port_gone.send(id);
    }
}

impl Egress for EgressPorts {
    fn send(&mut self, port: PortId, mut packet: Packet) -> Result<(), DropReason> {
        let sent = match &mut self.uplink {
            Some(uplink) if uplink.id == port => {
                uplink.queue(|tx| tx.send(&mut packet)).map(|()| uplink.leaves())
            }
            _ => self.send_to_fd(port, &mut packet).map(|()| Leaves::Now),
        };
        match sent {
            Ok(leaves) => {
                self.latency.sent(port, leaves);
                Ok(())
            }
            Err(reason) => {
                self.refused = Some(packet);
                Err(reason)
            }
        }
    }

    fn post(
        &mut self,
        port: PortId,
        packet: Packet,
        account: Account,
    ) -> Result<Posted, DropReason> {
        let is_kept = self.gathers
            && matches!(self.handles.get(usize::from(port.0)), Some(Some(to)) if to.in_ring);
        if !is_kept {
            return self.send(port, packet).map(|()| Posted::Sent);
        }
        if self.gather.as_ref().is_some_and(Gather::is_full) {
            self.run_aside();
        }
        match &mut self.gather {
            Some(gather) => {
                gather.push(packet, Posting { port, account });
                self.latency.sent(port, Leaves::AtFlush);
                Ok(Posted::Later)
            }
            None => self.send(port, packet).map(|()| Posted::Sent),
        }
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
        let leaves = if let Some(uplink) = self.uplink.as_mut().filter(|uplink| uplink.id == port) {
            uplink.queue(|tx| tx.send_with(len, &mut *write))?;
            uplink.leaves()
        } else {
            let mut frame = self.pool.alloc().ok_or(DropReason::NoFrames)?;
            write(frame.extend(len).map_err(|_| DropReason::PortRefused)?);
            self.send_to_fd(port, &mut Packet::plain(frame))?;
            Leaves::Now
        };
        self.latency.sent(port, leaves);
        Ok(())
    }
}

impl Uplink {
    fn leaves(&self) -> Leaves {
        if self.tx.is_batched() { Leaves::AtFlush } else { Leaves::Now }
    }

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
