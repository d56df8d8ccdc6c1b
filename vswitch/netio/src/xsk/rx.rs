//! From the NIC's queue to us: the fill ring and the receive ring.

use std::os::fd::{AsRawFd, RawFd};

use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::umem::{FillQueue, Umem};
use xsk_rs::{RxQueue, socket::Fd};

use super::owners::{Chunks, Owner};

/// Descriptors taken from the ring at once: enough to spread the cost of its barrier, few enough
/// to stay in a worker's batch.
const BATCH: usize = 64;

/// The receiving half of an AF_XDP socket.
#[derive(Debug)]
pub struct XskRx {
    umem: Umem,
    chunks: Chunks,
    /// Per chunk: its descriptor, at the place where data begins.
    descriptors: Vec<FrameDesc>,
    rx: RxQueue,
    fill: FillQueue,
    batch: [FrameDesc; BATCH],
}

impl XskRx {
    /// `descriptors` are those of the chunks from `first` on, which are this half's alone.
    pub(super) fn new(
        umem: Umem,
        first: usize,
        descriptors: Vec<FrameDesc>,
        rx: RxQueue,
        fill: FillQueue,
    ) -> Self {
        let chunks = Chunks::new(first, descriptors.len());
        let batch = [FrameDesc::default(); BATCH];
        let mut half = Self { umem, chunks, descriptors, rx, fill, batch };
        half.refill();
        half
    }

    /// Delivers at most `budget` frames, Ethernet header first, and gives their memory back to the
    /// kernel; returns how many there were.
    ///
    /// Fewer than `budget` means that the ring was empty for a moment.
    pub fn recv(&mut self, budget: usize, mut deliver: impl FnMut(&[u8])) -> usize {
        let mut delivered = 0;
        let mut left = budget;
        while left > 0 {
            let wanted = left.min(BATCH);
            // SAFETY: the descriptors are of this socket's UMEM, or the default, and only written.
            let taken = unsafe { self.rx.consume(&mut self.batch[..wanted]) };
            left -= taken;
            for descriptor in &self.batch[..taken] {
                let (address, len) = (descriptor.addr(), descriptor.lengths().data());
                let Some(chunk) = self.chunks.reclaim(address, len, Owner::InFillRing) else {
                    continue;
                };
                // SAFETY: `reclaim` found that the bytes lie in one chunk of this UMEM and that
                // the chunk is ours again, so nobody writes to it until the refill below.
                deliver(unsafe { self.umem.data(descriptor) }.contents());
                self.chunks.put_back(chunk);
                delivered += 1;
            }
            self.refill();
            if taken < wanted {
                break;
            }
        }
        delivered
    }

    /// Lends every free chunk to the kernel, to receive into.
    fn refill(&mut self) {
        let mut lent = false;
        while let Some(chunk) = self.chunks.take() {
            // SAFETY: the descriptor is of this UMEM, and its chunk is free: nobody reads or
            // writes it until it comes back by the receive ring.
            if unsafe { self.fill.produce_one(&self.descriptors[chunk]) } == 0 {
                self.chunks.put_back(chunk);
                break;
            }
            self.chunks.lend(chunk, Owner::InFillRing);
            lent = true;
        }
        // A driver with zero-copy that ran out of chunks sleeps until it is woken; in copy mode the
        // flag is never set. An error is that of a device that is gone, which epoll reports.
        if lent && self.fill.needs_wakeup() {
            let _ = self.rx.poll(0);
        }
    }

    pub(super) fn fd(&self) -> &Fd {
        self.rx.fd()
    }

    pub(super) fn violations(&self) -> u64 {
        self.chunks.violations()
    }
}

impl AsRawFd for XskRx {
    fn as_raw_fd(&self) -> RawFd {
        self.fd().as_raw_fd()
    }
}
