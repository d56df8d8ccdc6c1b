//! Many reads and writes of ports by one system call: io_uring.
//!
//! Enters: packets to be written, and empty ones to be read into, each given away until its batch has run.
//! Leaves: the packets again, in the order in which they were given, with what became of each. Each operation
//! is one that does not wait, so that a batch is complete when the call returns, and the operations of one
//! port happen in their order. A worker makes its ring in its own thread, and alone uses it.
//!
//! Packet memory is not registered with the kernel: it would be wholly resident then, and measured no gain.

use std::io;
use std::os::fd::AsRawFd;

use frame::Packet;
use io_uring::squeue::Entry;
use io_uring::types::Fixed;
use io_uring::{IoUring, opcode};

use super::with_header;
use super::{PortFd, PortFdKind, Recv, SendError, buffer_of, nothing_read, received, refusal};

/// Operations of one batch at most.
pub const BATCH: usize = 64;

/// A worker's ring. `T` is what the caller wants to know again of a packet that it writes.
pub struct PortRing<T> {
    /// Before the batch, so that the kernel has let go of the ring when the packets are dropped.
    ring: IoUring,
    batch: Vec<Given<T>>,
    /// The kernel has refused a batch, of which entries are left in the queue: it must not get them any more.
    is_broken: bool,
}

/// A packet that belongs to the ring until its batch has run.
struct Given<T> {
    packet: Packet,
    task: Task<T>,
    /// What the kernel answered, as a system call would: a length, or an error as a negative number.
    result: Option<i32>,
}

enum Task<T> {
    Read,
    Write(T),
}

/// What became of a packet that was given to the ring.
#[derive(Debug)]
pub enum Done<T> {
    /// It was to be read into.
    Read(Packet, Recv),
    /// It was to be written.
    Write(Packet, T, Result<(), SendError>),
}

impl<T> PortRing<T> {
    /// A ring with places for the files of so many ports. The calling thread alone may use it.
    ///
    /// # Errors
    /// What the kernel says: ENOSYS, EPERM of seccomp or of `kernel.io_uring_disabled`, ENOMEM of the limit of
    /// locked memory, EINVAL before 6.6.
    pub fn new(ports: usize) -> io::Result<Self> {
        let ring = build()?;
        let places = u32::try_from(ports).map_err(io::Error::other)?;
        ring.submitter().register_files_sparse(places)?;
        Ok(Self { ring, batch: Vec::with_capacity(BATCH), is_broken: false })
    }

    /// Takes a port's file into its place.
    ///
    /// # Errors
    /// If there is no such place, or the kernel refuses.
    pub fn register(&mut self, place: u16, port: &PortFd) -> io::Result<()> {
        self.set_file(place, port.as_raw_fd())
    }

    /// Lets go of the file in a place; it may be empty.
    ///
    /// # Errors
    /// If there is no such place, or the kernel refuses.
    pub fn unregister(&mut self, place: u16) -> io::Result<()> {
        self.set_file(place, -1)
    }

    fn set_file(&self, place: u16, fd: i32) -> io::Result<()> {
        self.ring.submitter().register_files_update(place.into(), &[fd]).map(drop)
    }

    /// Room for so many packets in the batch.
    #[must_use]
    pub fn room(&self) -> usize {
        BATCH - self.batch.len()
    }

    /// Whether no packet was given since the last batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Gives a packet to be read into, from the port whose file is in this place.
    ///
    /// # Errors
    /// The packet, if the batch has no room.
    pub fn read(&mut self, place: u16, port: &PortFd, mut packet: Packet) -> Result<(), Packet> {
        let buffer = buffer_of(&mut packet);
        let (into, len) = (buffer.as_mut_ptr(), buffer.len() as u32);
        let entry = match port.kind() {
            PortFdKind::Tap => {
                opcode::Read::new(Fixed(place.into()), into, len).rw_flags(libc::RWF_NOWAIT).build()
            }
            PortFdKind::Seqpacket => {
                opcode::Recv::new(Fixed(place.into()), into, len).flags(libc::MSG_DONTWAIT).build()
            }
        };
        self.give(entry, packet, Task::Read).map_err(|(packet, _)| packet)
    }

    /// Gives a packet to be written to the port whose file is in this place; `note` comes back with it.
    ///
    /// # Errors
    /// The packet and why it cannot be written, or that the batch has no room (`WouldBlock`).
    pub fn write(
        &mut self,
        place: u16,
        port: &PortFd,
        mut packet: Packet,
        note: T,
    ) -> Result<(), (Packet, SendError)> {
        let whole = match with_header(&mut packet) {
            Ok(whole) => whole,
            Err(error) => return Err((packet, error)),
        };
        let (from, len) = (whole.as_ptr(), whole.len() as u32);
        let entry = match port.kind() {
            PortFdKind::Tap => opcode::Write::new(Fixed(place.into()), from, len)
                .rw_flags(libc::RWF_NOWAIT)
                .build(),
            PortFdKind::Seqpacket => opcode::Send::new(Fixed(place.into()), from, len)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build(),
        };
        self.give(entry, packet, Task::Write(note))
            .map_err(|(packet, _)| (packet, SendError::WouldBlock))
    }

    fn give(
        &mut self,
        entry: Entry,
        packet: Packet,
        task: Task<T>,
    ) -> Result<(), (Packet, Task<T>)> {
        let entry = entry.user_data(self.batch.len() as u64);
        if self.batch.len() == BATCH || self.is_broken {
            return Err((packet, task));
        }
        // SAFETY: the kernel accesses the packet's memory and nothing else: pointer and length are those of a
        // slice of it. From here on the packet lies in `batch`, out of everyone's reach, and leaves it when
        // the kernel has answered, or has not taken the entry and never will. The memory does not move with
        // the packet.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            return Err((packet, task));
        }
        self.batch.push(Given { packet, task, result: None });
        Ok(())
    }

    /// Has the kernel do what was given, in that order, and gives each packet back to `done`.
    ///
    /// # Errors
    /// If the kernel refuses. What it did not take counts as `WouldBlock` then, and the ring takes no more.
    ///
    /// # Panics
    /// If the kernel answers what it was not asked, or not what it took: packet memory would not be safe.
    pub fn run(&mut self, done: impl FnMut(Done<T>)) -> io::Result<()> {
        let outcome = self.submit();
        self.is_broken |= outcome.is_err();
        self.batch.drain(..).map(Given::done).for_each(done);
        outcome
    }

    fn submit(&mut self) -> io::Result<()> {
        let mut missing = self.batch.len();
        let mut waits = 0;
        while missing > 0 {
            let outcome = self.ring.submit_and_wait(waits);
            missing -= self.take_completions();
            match outcome {
                // Of operations that do not wait nothing should be missing.
                Ok(_) => waits = missing,
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => {
                    let mut queue = self.ring.submission();
                    queue.sync();
                    assert_eq!(missing, queue.len(), "the kernel answers all that it took");
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Notes what the kernel has answered, and says how much.
    fn take_completions(&mut self) -> usize {
        let mut count = 0;
        for completion in self.ring.completion() {
            let given = usize::try_from(completion.user_data())
                .ok()
                .and_then(|index| self.batch.get_mut(index))
                .expect("the kernel answers what it was asked");
            let former = given.result.replace(completion.result());
            assert_eq!(former, None, "the kernel answers once");
            count += 1;
        }
        count
    }
}

impl<T> Drop for PortRing<T> {
    /// The kernel would let go of the files later than of the ring, and of a TAP that another process wants.
    fn drop(&mut self) {
        let _ = self.ring.submitter().unregister_files();
    }
}

impl<T> Given<T> {
    fn done(self) -> Done<T> {
        let Self { mut packet, task, result } = self;
        let result = result.unwrap_or(-libc::EAGAIN);
        let result = usize::try_from(result).map_err(|_| Some(-result));
        match task {
            Task::Read => {
                let outcome = received(&mut packet, result.map_err(nothing_read));
                Done::Read(packet, outcome)
            }
            Task::Write(note) => Done::Write(packet, note, result.map(drop).map_err(refusal)),
        }
    }
}

/// A ring without files.
pub(super) fn build() -> io::Result<IoUring> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        // Nothing is done for the ring while packets are processed.
        .setup_defer_taskrun()
        // An operation that fails does not keep the next ones from being submitted.
        .setup_submit_all()
        // An array less to be written. Kernels before the one that has this (6.6) may let go of a removed
        // file some time later.
        .setup_no_sqarray()
        .build(BATCH as u32)?;
    // Spares each call the look-up of the ring; it works without.
    let _ = ring.submitter().register_ring_fd();
    Ok(ring)
}

#[cfg(test)]
mod tests;
