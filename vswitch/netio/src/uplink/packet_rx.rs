//! The receiving half of the kind `af_packet`: a packet socket with a virtio header in front of each packet.
//!
//! Enters: copies of what is ours, superframes and all. Leaves: packets in frames of the pool, into which the
//! kernel writes them, many by one system call. It is asked when epoll has said that it is ready, so that a
//! spinning worker makes no system call for an empty socket. `af_packet` makes it.

use std::io::{self, ErrorKind};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use frame::{CAPACITY_BYTES, Frame, Packet, Pool};

use super::packet_socket::HEADER_BYTES;
use super::{RxError, tap_header};
use crate::sys::check;

/// Packets of one system call: the headers of the messages lie on the stack.
const BATCH: usize = 32;

/// A packet socket of a worker's.
#[derive(Debug)]
pub struct PacketRx {
    socket: Arc<OwnedFd>,
    /// It may have packets.
    is_ready: bool,
    /// How many packets are asked for at once: twice as many as came, so that a lonely packet costs no
    /// thirty frames taken and given back.
    batch: usize,
}

/// What one system call gave.
struct Batch {
    frames: [Option<Frame>; BATCH],
    headers: [[u8; HEADER_BYTES]; BATCH],
    /// With the header, and whether it was longer than the frame.
    lens: [(usize, bool); BATCH],
    count: usize,
}

impl PacketRx {
    pub(super) fn new(socket: Arc<OwnedFd>) -> Self {
        Self { socket, is_ready: true, batch: 1 }
    }

    /// Epoll says that there are packets.
    pub(super) fn note_ready(&mut self) {
        self.is_ready = true;
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub(super) fn recv(
        &mut self,
        pool: &Pool,
        budget: usize,
        mut deliver: impl FnMut(Result<Packet, RxError>),
    ) -> usize {
        let mut count = 0;
        while self.is_ready && count < budget {
            let wanted = self.batch.min(budget - count);
            let mut batch = Batch::with_frames(pool, wanted);
            if batch.count == 0 {
                // Taken all the same, so that it is counted.
                match self.discard() {
                    Ok(()) => deliver(Err(RxError::NoFrame)),
                    Err(error) if self.is_over(&error) => return count,
                    Err(_) => deliver(Err(RxError::Malformed)),
                }
                count += 1;
                continue;
            }
            let asked = batch.count;
            match batch.receive(&self.socket) {
                Ok(()) => {}
                Err(error) if self.is_over(&error) => return count,
                // What packet_rcv_vnet (net/packet/af_packet.c) returns for a packet whose offload no
                // header can say, and which it took.
                Err(_) => {
                    deliver(Err(RxError::Malformed));
                    count += 1;
                    continue;
                }
            }
            let received = batch.count;
            self.batch = (2 * received).clamp(1, BATCH);
            for at in 0..received {
                deliver(batch.packet(at));
            }
            count += received;
            // Whether it was the last is known when the kernel has said so: it also ends early at a packet
            // that it refuses.
            if received < asked {
                return count;
            }
        }
        count
    }

    /// Whether an error is none of a packet's: there is nothing, or the NIC is down or gone.
    fn is_over(&mut self, error: &io::Error) -> bool {
        let is_over = error.raw_os_error() != Some(libc::EINVAL);
        // The kernel reports once that the NIC went down; packets may wait behind that.
        if error.kind() == ErrorKind::WouldBlock {
            self.is_ready = false;
        }
        is_over
    }

    /// Takes a packet for which there is no frame.
    fn discard(&self) -> io::Result<()> {
        let mut header = [0_u8; HEADER_BYTES];
        // SAFETY: the kernel writes at most as many bytes as the header has; what does not fit is lost.
        let received = unsafe {
            libc::recv(
                self.socket.as_raw_fd(),
                header.as_mut_ptr().cast(),
                header.len(),
                libc::MSG_DONTWAIT,
            )
        };
        check(received as libc::c_int).map(drop)
    }
}

impl Batch {
    /// Frames for so many packets, fewer if the pool has no more.
    fn with_frames(pool: &Pool, wanted: usize) -> Self {
        let mut batch = Self {
            frames: [const { None }; BATCH],
            headers: [[0; HEADER_BYTES]; BATCH],
            lens: [(0, false); BATCH],
            count: 0,
        };
        for place in batch.frames.iter_mut().take(wanted) {
            let Some(mut frame) = pool.alloc() else { break };
            frame.extend(CAPACITY_BYTES).expect("an empty frame has its whole capacity");
            *place = Some(frame);
            batch.count += 1;
        }
        batch
    }

    /// Fills the frames with what has arrived; as many as came are counted.
    fn receive(&mut self, socket: &OwnedFd) -> io::Result<()> {
        // SAFETY: both are structures of integers and pointers, for all of which zero is a value.
        let (mut vectors, mut messages): ([[libc::iovec; 2]; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { (zeroed(), zeroed()) };
        let places = self.frames.iter_mut().flatten().zip(&mut self.headers);
        for (((frame, header), vector), message) in places.zip(&mut vectors).zip(&mut messages) {
            vector[0].iov_base = header.as_mut_ptr().cast();
            vector[0].iov_len = header.len();
            vector[1].iov_base = frame.as_mut_ptr().cast();
            vector[1].iov_len = frame.len();
            message.msg_hdr.msg_iov = vector.as_mut_ptr();
            message.msg_hdr.msg_iovlen = vector.len();
        }
        // SAFETY: the first `count` messages each point to two live vectors: one of a live header, one of
        // the bytes of a frame that this batch owns. Nothing else refers to them until the call returns. The
        // rest of a message is zero: no address, no control data. No timeout is given.
        let received = check(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                self.count as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        })?;
        self.count = received as usize;
        for (len, message) in self.lens.iter_mut().zip(&messages).take(self.count) {
            let is_cut = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            *len = (message.msg_len as usize, is_cut);
        }
        Ok(())
    }

    fn packet(&mut self, at: usize) -> Result<Packet, RxError> {
        let mut frame = self.frames[at].take().ok_or(RxError::NoFrame)?;
        let (len, is_cut) = self.lens[at];
        if is_cut {
            return Err(RxError::TooLong);
        }
        let packet_len = len.checked_sub(HEADER_BYTES).ok_or(RxError::Malformed)?;
        let mut header = [0; tap_header::HEADER_BYTES];
        header[..HEADER_BYTES].copy_from_slice(&self.headers[at]);
        // A superframe inside of a tunnel is described as if there were no tunnel.
        let offload = tap_header::decode(&header, packet_len).map_err(|_| RxError::Malformed)?;
        frame.truncate(packet_len);
        Ok(Packet { frame, offload })
    }
}

impl AsRawFd for PacketRx {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
