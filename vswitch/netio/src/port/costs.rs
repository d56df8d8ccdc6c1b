//! What an operation costs by a system call of its own, and by one for many: whether io_uring pays.
//!
//! A system call takes 60 to 400 ns, by processor and hypervisor, by what is done against speculation, by
//! seccomp and auditing; an operation of a ring takes as much as some of these. So it is measured, in a
//! millisecond. Enters: nothing. Leaves: nanoseconds, and what follows from them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::types::Fixed;
use io_uring::{IoUring, opcode};

use super::ring;
use crate::sys::check_fd;

/// Operations in the batch that is measured: about what a share of a worker's time is of short packets.
const MANY: usize = 16;

/// Each is measured so often, and the shortest time counts: what lasted longer was interrupted.
const ROUNDS: usize = 32;

/// The larger of two costs has to be so much larger, in percent.
const MARGIN: u64 = 5;

/// Nanoseconds that a short read takes, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoCosts {
    /// By a system call of its own.
    pub call_ns: u64,
    /// By a ring, alone.
    pub ring_ns: u64,
    /// By a ring, as one of 16.
    pub batch_ns: u64,
}

impl IoCosts {
    /// Measures on the calling thread's core.
    ///
    /// # Errors
    /// If there can be no ring, or the kernel does not do what is measured.
    pub fn measure() -> io::Result<Self> {
        let mut ring = ring::build()?;
        let file = source()?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        let mut best = [Duration::MAX; 3];
        for _ in 0..ROUNDS {
            let took = [
                timed(|| (0..MANY).try_for_each(|_| call(&file)))?,
                timed(|| (0..MANY).try_for_each(|_| batch(&mut ring, 1)))?,
                timed(|| batch(&mut ring, MANY))?,
            ];
            for (best, took) in best.iter_mut().zip(took) {
                *best = took.min(*best);
            }
        }
        let [call_ns, ring_ns, batch_ns] = best.map(|best| best.as_nanos() as u64 / MANY as u64);
        Ok(Self { call_ns, ring_ns, batch_ns })
    }

    /// From how many operations on a batch is cheaper than so many system calls; `None` if it never is, or
    /// from more on than a worker has at a time.
    #[must_use]
    pub fn pays_from(&self) -> Option<usize> {
        // One operation of a batch of n takes `each` and an n-th of the call.
        let many = MANY as u64;
        let call = self.ring_ns.saturating_sub(self.batch_ns) * many / (many - 1);
        let each = self.ring_ns.saturating_sub(call);
        let gain =
            (self.call_ns * (100 - MARGIN) / 100).checked_sub(each).filter(|gain| *gain > 0)?;
        let from = usize::try_from(call.div_ceil(gain)).ok()?.max(2);
        (from <= MANY).then_some(from)
    }
}

/// A file that always has eight bytes to be read.
fn source() -> io::Result<File> {
    // SAFETY: takes two integers.
    let fd = unsafe {
        libc::eventfd(u32::MAX, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
    };
    // SAFETY: the return value of such a call, which nobody else has.
    Ok(unsafe { check_fd(fd) }?.into())
}

fn timed(what: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let start = Instant::now();
    what()?;
    Ok(start.elapsed())
}

fn call(mut file: &File) -> io::Result<()> {
    file.read_exact(&mut [0; 8])
}

fn batch(ring: &mut IoUring, count: usize) -> io::Result<()> {
    let mut buffer = [0; 8];
    for _ in 0..count {
        let entry =
            opcode::Read::new(Fixed(0), buffer.as_mut_ptr(), 8).rw_flags(libc::RWF_NOWAIT).build();
        // SAFETY: the kernel writes eight bytes to `buffer`, which outlives the wait for all of them.
        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    }
    ring.submit_and_wait(count)?;
    let read = ring.completion().filter(|completion| completion.result() == 8).count();
    if read == count { Ok(()) } else { Err(io::Error::other("io_uring does not read an eventfd")) }
}

#[cfg(test)]
mod tests {
    use super::IoCosts;

    fn pays_from(call_ns: u64, ring_ns: u64, batch_ns: u64) -> Option<usize> {
        IoCosts { call_ns, ring_ns, batch_ns }.pays_from()
    }

    #[test]
    fn a_ring_pays_where_system_calls_are_dear() {
        // An EPYC with Safe RET: 120 ns of a read are the call, and 250 of one that a ring has alone.
        assert_eq!(pays_from(200, 530, 260), None);
        // The same where a call takes 370 ns.
        assert_eq!(pays_from(450, 780, 270), Some(3));
        assert_eq!(pays_from(300, 560, 290), None, "not from 17 on");
        assert_eq!(pays_from(300, 310, 100), Some(2), "one alone is not a batch");
    }

    #[test]
    fn times_that_make_no_sense_are_no_reason() {
        assert_eq!(pays_from(0, 0, 0), None);
        assert_eq!(pays_from(100, 100, 400), None);
        assert_eq!(pays_from(u64::MAX / 200, 1, 1), Some(2));
    }

    #[test]
    fn what_is_measured_takes_time() {
        match IoCosts::measure() {
            Ok(costs) => assert!(costs.call_ns > 0 && costs.batch_ns > 0, "{costs:?}"),
            // A kernel or a sandbox without io_uring.
            Err(error) => assert!(error.raw_os_error().is_some(), "{error}"),
        }
    }
}
