//! From us to the NIC's queue: the transmit ring and the completion ring.

use std::os::fd::AsRawFd;

use xsk_rs::TxQueue;
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::umem::{CompQueue, Umem};

use super::MAX_FRAME_BYTES;
use super::options;
use super::owners::{Chunks, Owner};
use crate::uplink::TxError;
use crate::{Error, Result};

/// Completions taken from the ring at once.
const BATCH: usize = 64;

/// What one `sendto` sends at most in copy mode: TX_BATCH_SIZE of net/xdp/xsk.c.
const FRAMES_PER_KICK: u32 = 32;

/// The sending half of an AF_XDP socket.
#[derive(Debug)]
pub struct XskTx {
    umem: Umem,
    chunks: Chunks,
    /// Per chunk: its descriptor, at the place where data begins.
    descriptors: Vec<FrameDesc>,
    tx: TxQueue,
    completion: CompQueue,
    ring_size: u32,
    /// On the heap, so that an uplink of another kind need not be as large.
    batch: Box<[FrameDesc; BATCH]>,
}

impl XskTx {
    /// `descriptors` are those of the chunks from `first` on, which are this half's alone; the
    /// rings have room for all of them.
    pub(super) fn new(
        umem: Umem,
        first: usize,
        descriptors: Vec<FrameDesc>,
        tx: TxQueue,
        completion: CompQueue,
    ) -> Self {
        let ring_size = descriptors.len() as u32;
        // One kick then sends a whole ring, on a kernel that knows the option (Linux 6.16). If it
        // does not, `flush` kicks more often.
        let _ = options::set_tx_budget(tx.fd().as_raw_fd(), ring_size);
        let chunks = Chunks::new(first, descriptors.len());
        let batch = Box::new([FrameDesc::default(); BATCH]);
        Self { umem, chunks, descriptors, tx, completion, ring_size, batch }
    }

    /// Queues a frame of `len` bytes, which `write` writes straight into the memory that the kernel
    /// sends from. It is given what an earlier packet left there and must overwrite all of it.
    ///
    /// # Errors
    /// If there is no room, or the length is impossible; `write` is then not called.
    pub fn send_with(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> std::result::Result<(), TxError> {
        match len {
            0..14 => return Err(TxError::TooShort),
            14..=MAX_FRAME_BYTES => {}
            _ => return Err(TxError::TooLong),
        }
        let chunk = match self.chunks.take() {
            Some(chunk) => chunk,
            None => {
                self.complete();
                self.chunks.take().ok_or(TxError::Full)?
            }
        };
        let mut descriptor = self.descriptors[chunk];
        {
            // SAFETY: the descriptor is of this UMEM, unchanged since it was made, and its chunk is
            // ours: it was free and is lent below only.
            let mut data = unsafe { self.umem.data_mut(&mut descriptor) };
            data.cursor().set_pos(len);
            write(data.contents_mut());
        }
        // SAFETY: as above, and nobody touches the chunk until it comes back by the completion
        // ring.
        if unsafe { self.tx.produce_one(&descriptor) } == 0 {
            self.chunks.put_back(chunk);
            return Err(TxError::Full);
        }
        self.chunks.lend(chunk, Owner::InTxRing);
        Ok(())
    }

    /// Has the kernel take what is queued, and takes back what it has sent.
    ///
    /// In copy mode a `sendto` sends few frames and reports nothing of the rest, so it is repeated
    /// until the ring is empty or the NIC takes no more for now; what is left goes with the next
    /// call.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn flush(&mut self) -> Result<()> {
        let mut left = self.pending();
        for _ in 0..=self.ring_size / FRAMES_PER_KICK {
            if left == 0 || !self.tx.needs_wakeup() {
                break;
            }
            self.tx.wakeup().map_err(|source| Error::Xsk { action: "send", source })?;
            self.complete();
            let now_left = self.pending();
            if now_left == left {
                break;
            }
            left = now_left;
        }
        self.complete();
        Ok(())
    }

    /// Frames that are queued and that the kernel has not taken yet.
    pub fn pending(&mut self) -> u32 {
        self.ring_size - self.tx.nb_free_exact().min(self.ring_size)
    }

    /// Takes back the chunks of frames that were sent.
    fn complete(&mut self) {
        loop {
            // SAFETY: the descriptors are only written.
            let taken = unsafe { self.completion.consume(&mut *self.batch) };
            for descriptor in &self.batch[..taken] {
                if let Some(chunk) = self.chunks.reclaim(descriptor.addr(), 0, Owner::InTxRing) {
                    self.chunks.put_back(chunk);
                }
            }
            if taken < BATCH {
                break;
            }
        }
    }

    pub(super) fn violations(&self) -> u64 {
        self.chunks.violations()
    }
}
