//! What the control thread has a worker do.
//!
//! Enters: commands, at the beginning of a turn. Leaves: ports and queues of the NIC that the worker has from then
//! on, and those that it had, to the closer. `turn` alone calls it.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use crossbeam_channel::Sender;
use dataplane::tables::PortId;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use netio::port::PortFd;
use netio::uplink::Rx;

use super::{QUEUE_TOKENS, Turn};
use crate::closer::Disused;
use crate::{Command, WorkerUplink};

impl Turn {
    /// Commands that were sent before tables were published are seen with them. False to end.
    pub(super) fn commands(&mut self) -> bool {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::AddPort { id, io, receives } => self.add(id, io, receives),
                Command::RemovePort { id } => self.remove(id),
                Command::StartReceiving { id } => self.start_receiving(id),
                Command::StopReceiving { id, done } => self.stop_receiving(id, done),
                Command::ChangeUplink(share) => self.change_uplink(*share),
                Command::TakeOver { ring } => {
                    self.inbound.add(ring);
                    self.schedule.take_over();
                }
                Command::HandOver { members, ways } => self.outbound.share(members, ways),
                Command::ForgetLearned => self.dataplane.fdb.forget_all(),
                Command::CopyFdb { into } => self.fdb_copier.begin(into),
                #[cfg(test)]
                Command::Panic => panic!("by order of a test"),
                #[cfg(test)]
                Command::BreakRing => self.ports.break_ring(),
                #[cfg(test)]
                Command::Wait(ended) => while ended.recv().is_ok() {},
                Command::Stop => return false,
            }
        }
        true
    }

    fn add(&mut self, id: PortId, io: Arc<PortFd>, receives: bool) {
        self.remove(id);
        self.ports.latency.forget(id);
        if receives {
            // No tables name the port yet, so that no worker sends to it.
            if let Some(budget) = self.tx_budgets.of(id) {
                budget.reset();
            }
        }
        self.ports.add(id, io);
        if receives {
            self.start_receiving(id);
        }
    }

    fn start_receiving(&mut self, id: PortId) {
        self.stopping = None;
        let Some(io) = self.ports.io(id) else { return };
        let fd = io.as_raw_fd();
        let token = Token(usize::from(id.0));
        match self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE) {
            Ok(()) => self.schedule.ready(id),
            Err(error) => tracing::error!(port = id.0, %error, "cannot watch a port"),
        }
    }

    /// The port stays one to send by.
    fn stop_receiving(&mut self, id: PortId, done: Sender<()>) {
        if let Some(io) = self.ports.io(id) {
            let _ = self.poll.registry().deregister(&mut SourceFd(&io.as_raw_fd()));
        }
        self.schedule.forget(id);
        self.gate.forget(id);
        self.stopping = Some(done);
    }

    pub(super) fn tell_stopped(&mut self) {
        if let Some(done) = self.stopping.take() {
            // The control thread may have waited for long enough.
            let _ = done.try_send(());
        }
    }

    fn remove(&mut self, id: PortId) {
        self.dataplane.forget_port(id);
        self.gate.forget(id);
        if let Some(io) = self.ports.remove(id) {
            // Fails where this worker only sends.
            let _ = self.poll.registry().deregister(&mut SourceFd(&io.as_raw_fd()));
            // The closer outlives the workers.
            let _ = self.to_close.send(Disused::Port { _io: io });
        }
        self.shared.counters.clear_port(id);
    }

    /// Receives from other queues of the NIC from now on, and sends by another handle. What waits in the former
    /// ones is lost. What was handed over is not: it is with others already, and a flow that comes by the new queues
    /// to this worker goes the way that it went.
    fn change_uplink(&mut self, share: WorkerUplink) {
        let WorkerUplink { port, queues, tx } = share;
        self.ports.flush();
        for queue in &self.queues {
            // Of a device that is gone the kernel has forgotten it already.
            let _ = self.poll.registry().deregister(&mut SourceFd(&queue.as_raw_fd()));
        }
        let queues: Vec<Rx> = queues.into_iter().map(|(_, rx)| rx).collect();
        if let Err(error) = watch(&self.poll, &queues) {
            tracing::error!(%error, "cannot watch the NIC's queues");
        }
        self.schedule.set_queues(queues.len());
        self.uplink = Some(port);
        let queues = std::mem::replace(&mut self.queues, queues);
        let tx = self.ports.change_uplink(port, tx);
        // The closer outlives the workers.
        let _ = self.to_close.send(Disused::Uplink { _queues: queues, _tx: tx.map(Box::new) });
    }
}

/// Has the readiness queue tell of queues of the NIC, by their places.
pub(super) fn watch(poll: &Poll, queues: &[Rx]) -> io::Result<()> {
    for (index, queue) in queues.iter().enumerate() {
        let token = Token(QUEUE_TOKENS + index);
        let fd = queue.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
    }
    Ok(())
}
