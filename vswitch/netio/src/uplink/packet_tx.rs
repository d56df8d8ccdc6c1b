//! Transmit handles by a packet socket: for a worker of the kind `af_packet`, and for one that owns no queue of
//! an AF_XDP uplink.
//!
//! Enters: frames. Leaves: the same, many by one `sendmmsg`. Of the kind `af_packet` also superframes and what
//! has an unfinished checksum, each by a call of its own.
//!
//! For a worker without a queue an AF_XDP socket would not do: the kernel has one fill ring and one
//! completion ring for a queue (net/xdp/xsk_buff_pool.c), each for one consumer or producer. A socket of its
//! own memory is refused with EBUSY beside the owner's; one that shares the owner's memory shares these
//! rings, too, and would need a lock or hand frames from thread to thread. The socket bypasses the queueing
//! discipline as the others' do, so that it makes no difference to a pod which worker it has.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use frame::{CAPACITY_BYTES, Packet};

use super::TxError;
use super::packet_socket::{self, HEADER_BYTES, Way};
use crate::port::vnet;
use crate::sys::check;
use crate::xsk::MAX_FRAME_BYTES;
use crate::{Error, Result};

/// A batch of 32 superframes is 32 × 45 = 1,440 pieces, as for AF_XDP.
const SLOTS: usize = 2048;

/// For as many of 1,500 bytes, or for one of any length. The kernel gives what is used: a turn begins at the
/// front again.
const MEMORY_BYTES: usize = SLOTS * 2048;

/// Messages of one system call; their headers lie on the stack.
const BATCH: usize = 64;

/// A transmit handle by a packet socket.
#[derive(Debug)]
pub struct PacketTx {
    socket: Arc<OwnedFd>,
    way: Way,
    /// What is queued, one frame behind the other, each behind its header.
    memory: Vec<u8>,
    /// Where each begins and ends.
    queued: Vec<(usize, usize)>,
    /// Of those the kernel has taken so many, from the first on.
    taken: usize,
}

impl PacketTx {
    /// A handle by a socket of its own on the interface of that index in the calling thread's namespace.
    pub(super) fn open(ifindex: u32, way: Way) -> Result<Self> {
        let socket = packet_socket::open(ifindex, way).map_err(|source| Error::PacketSocket {
            action: "make a packet socket to send by",
            source,
        })?;
        Ok(Self::new(Arc::new(socket), way))
    }

    pub(super) fn new(socket: Arc<OwnedFd>, way: Way) -> Self {
        let (memory, queued) = (vec![0; MEMORY_BYTES], Vec::with_capacity(SLOTS));
        Self { socket, way, memory, queued, taken: 0 }
    }

    pub(super) fn send(&mut self, packet: &Packet) -> std::result::Result<(), TxError> {
        if !packet.offload.is_undone() {
            return self.send_with(packet.frame.len(), |into| into.copy_from_slice(&packet.frame));
        }
        if self.way == Way::Bypass {
            return Err(TxError::Unfinished);
        }
        let header = vnet::encode(&packet.offload, packet.frame.len())
            .map_err(|vnet::Malformed| TxError::Unfinished)?;
        // In the order in which they came.
        if self.flush().is_err() {
            return Err(TxError::Refused);
        }
        if self.pending() > 0 {
            return Err(TxError::Full);
        }
        self.send_at_once(&header[..HEADER_BYTES], &packet.frame)
    }

    pub(super) fn send_with(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> std::result::Result<(), TxError> {
        let (longest, header_bytes) = match self.way {
            Way::Bypass => (MAX_FRAME_BYTES, 0),
            Way::Whole => (CAPACITY_BYTES, HEADER_BYTES),
        };
        match len {
            0..vnet::MIN_FRAME_BYTES => return Err(TxError::TooShort),
            _ if len > longest => return Err(TxError::TooLong),
            _ => {}
        }
        let begin = self.queued.last().map_or(0, |(_, end)| *end);
        let end = begin + header_bytes + len;
        if self.queued.len() == SLOTS || end > self.memory.len() {
            return Err(TxError::Full);
        }
        let (header, frame) = self.memory[begin..end].split_at_mut(header_bytes);
        header.fill(0);
        write(frame);
        self.queued.push((begin, end));
        Ok(())
    }

    /// Sends until the queue is empty or the kernel has no room. A frame that the kernel refuses for
    /// itself, such as one that is longer than the NIC's MTU, is dropped and the others are sent. While
    /// the NIC is down or gone, frames that are to pass its queueing discipline are dropped, as the kernel drops
    /// what waits there; others wait, as in an AF_XDP socket's ring.
    pub(super) fn flush(&mut self) -> Result<()> {
        let failed = |source| Error::PacketSocket { action: "send by a packet socket", source };
        let mut outcome = Ok(());
        while self.taken < self.queued.len() {
            match self.send_batch() {
                Ok(sent) => self.taken += sent,
                Err(error) => match (error.raw_os_error(), self.way) {
                    // The queueing discipline dropped it, and counts that.
                    (Some(libc::ENOBUFS), Way::Whole) => self.taken += 1,
                    // The driver's queue or the socket's memory is full.
                    (Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR), _) => {
                        return outcome;
                    }
                    // What packet_snd (net/packet/af_packet.c) returns for the frame, not for the NIC.
                    (Some(libc::EMSGSIZE | libc::EINVAL), _) => {
                        self.taken += 1;
                        outcome = Err(failed(error));
                    }
                    (_, Way::Bypass) => return Err(failed(error)),
                    (_, Way::Whole) => {
                        outcome = Err(failed(error));
                        break;
                    }
                },
            }
        }
        self.queued.clear();
        self.taken = 0;
        outcome
    }

    pub(super) fn pending(&self) -> u32 {
        (self.queued.len() - self.taken) as u32
    }

    /// Offers the kernel the next frames; how many it took. An error is that of the first.
    fn send_batch(&self) -> io::Result<usize> {
        // SAFETY: both are structures of integers and pointers, for all of which zero is a value.
        let (mut vectors, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { (zeroed(), zeroed()) };
        let mut count = 0;
        for (vector, &(begin, end)) in vectors.iter_mut().zip(&self.queued[self.taken..]) {
            let bytes = &self.memory[begin..end];
            // The kernel only reads what a message to send points to.
            vector.iov_base = bytes.as_ptr().cast_mut().cast();
            vector.iov_len = bytes.len();
            count += 1;
        }
        for (message, vector) in messages.iter_mut().zip(&mut vectors).take(count) {
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the first `count` messages each point to one live vector, and that to bytes of the
        // queue's live memory; the rest of a header is zero, which is no address and no control data.
        let sent = check(unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        })?;
        Ok(sent as usize)
    }

    /// Has the kernel take one packet, whatever its header says of it.
    fn send_at_once(&self, header: &[u8], frame: &[u8]) -> std::result::Result<(), TxError> {
        // The kernel only reads what a message to send points to.
        let mut vectors = [header, frame].map(|bytes| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        });
        // SAFETY: a structure of integers and pointers, for all of which zero is a value.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = vectors.len();
        // SAFETY: the message points to two live vectors, and these to live bytes; the rest of it is zero,
        // which is no address and no control data.
        let sent = unsafe {
            libc::sendmsg(self.socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT)
        };
        match check(sent as libc::c_int) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The queueing discipline dropped it, and counts that.
                Some(libc::ENOBUFS) => Ok(()),
                Some(libc::EAGAIN | libc::ENOMEM | libc::EINTR) => Err(TxError::Full),
                Some(libc::ENXIO | libc::ENODEV) => Err(TxError::Gone),
                // EMSGSIZE, ENETDOWN; EINVAL for what the kernel makes no packet of.
                _ => Err(TxError::Refused),
            },
        }
    }
}
