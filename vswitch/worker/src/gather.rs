//! Writes of packets to ports, and reads from one of them, that go to the kernel together.
//!
//! Enters: packets as the walk sends them. Leaves: one batch of a [`PortRing`], in the order in which the
//! packets came, reads behind the writes; or, where there are too few for that to pay, a system call each.
//! `egress` alone calls it.

use std::io;
use std::sync::Arc;

use dataplane::Account;
use dataplane::tables::PortId;
use frame::{Packet, Pool};
use netio::port::{BATCH, Done, PortFd, PortRing, SendError};

/// Writes of one batch; the other half of a ring's is for reads.
const WRITES: usize = BATCH / 2;

/// A packet's way, while the packet itself is the ring's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Posting {
    pub(super) port: PortId,
    pub(super) account: Account,
}

/// The worker's ring, and what waits for its next batch.
pub(super) struct Gather {
    ring: PortRing<Posting>,
    /// From so many operations on the ring costs less than system calls.
    from: usize,
    writes: Vec<(Packet, Posting)>,
    #[cfg(test)]
    pub(super) is_broken: bool,
}

/// Packets to be read together.
pub(super) struct Reads<'a> {
    pub(super) id: PortId,
    pub(super) io: &'a PortFd,
    pub(super) count: usize,
    pub(super) pool: &'a Pool,
}

impl Gather {
    pub(super) fn new(ring: PortRing<Posting>, from: usize) -> Self {
        Self {
            ring,
            from,
            writes: Vec::with_capacity(WRITES),
            #[cfg(test)]
            is_broken: false,
        }
    }

    /// Whether reading so many at a time is cheaper than one by one.
    pub(super) fn pays(&self, operations: usize) -> bool {
        operations >= self.from
    }

    /// Takes a port in; false if the kernel refuses, so that it is read and written without a ring.
    pub(super) fn add(&mut self, id: PortId, io: &PortFd) -> bool {
        let added = self.ring.register(id.0, io);
        added
            .inspect_err(
                |error| tracing::warn!(port = id.0, %error, "io_uring does not take a port"),
            )
            .is_ok()
    }

    /// Lets go of a port's file, so that its last descriptor can end it.
    pub(super) fn remove(&mut self, id: PortId) {
        if let Err(error) = self.ring.unregister(id.0) {
            tracing::error!(port = id.0, %error, "io_uring does not let go of a port");
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.writes.len() == WRITES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Keeps a packet for the next batch; there is room.
    pub(super) fn push(&mut self, packet: Packet, posting: Posting) {
        self.writes.push((packet, posting));
    }

    /// Writes what was kept, then reads. `port` knows the ports, `done` gets the packets back.
    ///
    /// # Errors
    /// If the kernel does not want the ring any more. Every packet came back all the same.
    pub(super) fn run<'a>(
        &mut self,
        port: impl Fn(PortId) -> Option<&'a Arc<PortFd>>,
        reads: Option<Reads<'_>>,
        mut done: impl FnMut(Done<Posting>),
    ) -> io::Result<()> {
        #[cfg(test)]
        if self.is_broken {
            let refused =
                |(packet, posting)| Done::Write(packet, posting, Err(SendError::WouldBlock));
            self.writes.drain(..).map(refused).for_each(done);
            return Err(io::Error::other("by order of a test"));
        }
        let count = self.writes.len() + reads.as_ref().map_or(0, |reads| reads.count);
        let pays = self.pays(count);
        for (mut packet, posting) in self.writes.drain(..) {
            let Some(io) = port(posting.port) else {
                done(Done::Write(packet, posting, Err(SendError::Gone)));
                continue;
            };
            if !pays {
                let outcome = io.send(&mut packet);
                done(Done::Write(packet, posting, outcome));
            } else if let Err((packet, error)) =
                self.ring.write(posting.port.0, io, packet, posting)
            {
                done(Done::Write(packet, posting, Err(error)));
            }
        }
        if let Some(Reads { id, io, count, pool }) = reads {
            for frame in (0..count).map_while(|_| pool.alloc()) {
                if self.ring.read(id.0, io, Packet::plain(frame)).is_err() {
                    break;
                }
            }
        }
        if self.ring.is_empty() { Ok(()) } else { self.ring.run(done) }
    }
}
