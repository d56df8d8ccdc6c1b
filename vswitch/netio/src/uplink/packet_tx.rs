//! Transmit handles by a packet socket: of the kind `af_packet`, and of an AF_XDP uplink for workers whose queue
//! has no zero-copy, and for those that own no queue.
//!
//! Enters: frames. Leaves: the same, many by one `sendmmsg`, and tunnel packets of one flow as one (`udp_gso`).
//! Superframes and what has an unfinished checksum leave as well, each by a call of its own. Beside AF_XDP sockets
//! that send a handle takes finished frames alone, and bypasses the queueing discipline as they do.
//!
//! For a worker without a queue an AF_XDP socket would not do: the kernel has one fill ring and one
//! completion ring for a queue (net/xdp/xsk_buff_pool.c), each for one consumer or producer. A socket of its
//! own memory is refused with EBUSY beside the owner's; one that shares the owner's memory shares these
//! rings, too, and would need a lock or hand frames from thread to thread.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use frame::{CAPACITY_BYTES, Packet};

use super::TxError;
use super::packet_socket::{self, HEADER_BYTES, Way};
use super::udp_gso::{self, Queued, Superframe};
use crate::port::vnet;
use crate::sys::check;
use crate::xsk::MAX_FRAME_BYTES;
use crate::{Error, Result};

/// A batch of 32 superframes is 32 × 45 = 1,440 pieces, as for AF_XDP.
const SLOTS: usize = 2048;

/// For as many of 1,500 bytes, or for one of any length. The kernel gives what is used: a turn begins at the
/// front again.
const MEMORY_BYTES: usize = SLOTS * 2048;

/// Frames of one system call; the headers of its messages lie on the stack. A superframe has no more.
const BATCH: usize = 64;
const _: () = assert!(BATCH >= udp_gso::MAX_FRAMES);

/// A transmit handle by a packet socket.
#[derive(Debug)]
pub struct PacketTx {
    socket: Arc<OwnedFd>,
    way: Way,
    /// What is queued, one frame behind the other, each behind its header.
    memory: Vec<u8>,
    queued: Vec<Slot>,
    /// Of those the kernel has taken so many, from the first on.
    taken: usize,
    /// The kernel takes several frames as one.
    joins: bool,
}

/// Where in the memory a frame is, with its header.
#[derive(Debug, Clone, Copy)]
struct Slot {
    begin: usize,
    end: usize,
    /// The worker has computed the frame's checksums.
    is_summed: bool,
}

/// The frames that one system call offers the kernel, by messages.
struct Messages {
    count: usize,
    /// Of each, how many frames it has.
    frames: [usize; BATCH],
    /// Those that have several, in their order.
    superframes: [Option<Superframe>; BATCH / 2],
}

/// Why the kernel did not take the first message that was offered, and how many frames that has.
struct Refused {
    error: io::Error,
    frames: usize,
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
        Self { socket, way, memory, queued, taken: 0, joins: way == Way::Whole }
    }

    pub(super) fn send(&mut self, packet: &Packet) -> std::result::Result<(), TxError> {
        if !packet.offload.is_undone() {
            let write = |into: &mut [u8]| into.copy_from_slice(&packet.frame);
            return self.queue(packet.frame.len(), false, write);
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

    /// Of a frame that the worker makes and whose checksums it computes.
    pub(super) fn send_with(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> std::result::Result<(), TxError> {
        self.queue(len, true, write)
    }

    fn queue(
        &mut self,
        len: usize,
        is_summed: bool,
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
        let begin = self.queued.last().map_or(0, |slot| slot.end);
        let end = begin + header_bytes + len;
        if self.queued.len() == SLOTS || end > self.memory.len() {
            return Err(TxError::Full);
        }
        let (header, frame) = self.memory[begin..end].split_at_mut(header_bytes);
        header.fill(0);
        write(frame);
        self.queued.push(Slot { begin, end, is_summed });
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
            let messages = self.messages();
            let Refused { error, frames } = match self.offer(&messages) {
                Ok(sent) => {
                    self.taken += messages.frames[..sent].iter().sum::<usize>();
                    continue;
                }
                Err(refused) => refused,
            };
            match (error.raw_os_error(), self.way) {
                // The queueing discipline dropped it, and counts that.
                (Some(libc::ENOBUFS), Way::Whole) => self.taken += frames,
                // The driver's queue or the socket's memory is full.
                (Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR), _) => {
                    return outcome;
                }
                // Linux before 6.2 knows no superframe of UDP here (include/linux/virtio_net.h).
                (Some(libc::EINVAL), _) if frames > 1 => self.joins = false,
                // What packet_snd (net/packet/af_packet.c) returns for the frame, not for the NIC.
                (Some(libc::EMSGSIZE | libc::EINVAL), _) => {
                    self.taken += frames;
                    outcome = Err(failed(error));
                }
                (_, Way::Bypass) => return Err(failed(error)),
                (_, Way::Whole) => {
                    outcome = Err(failed(error));
                    break;
                }
            }
        }
        self.queued.clear();
        self.taken = 0;
        outcome
    }

    pub(super) fn pending(&self) -> u32 {
        (self.queued.len() - self.taken) as u32
    }

    /// How the next frames are offered to the kernel.
    fn messages(&self) -> Messages {
        let mut messages =
            Messages { count: 0, frames: [0; BATCH], superframes: [None; BATCH / 2] };
        let mut superframes = messages.superframes.iter_mut();
        let mut next = self.taken;
        while let Some(waiting) = self.queued.get(next..).filter(|waiting| !waiting.is_empty()) {
            let frames = waiting.iter().map(|slot| Queued {
                bytes: &self.memory[slot.begin + HEADER_BYTES..slot.end],
                is_summed: slot.is_summed,
            });
            let joined = if self.joins { udp_gso::superframe(frames) } else { None };
            let count = joined.as_ref().map_or(1, |joined| joined.frames);
            if next + count > self.taken + BATCH {
                break;
            }
            if joined.is_some()
                && let Some(place) = superframes.next()
            {
                *place = joined;
            }
            messages.frames[messages.count] = count;
            messages.count += 1;
            next += count;
        }
        messages
    }

    /// Offers the kernel the next frames by these messages; how many of them it took.
    fn offer(&self, messages: &Messages) -> std::result::Result<usize, Refused> {
        // SAFETY: both are structures of integers and pointers, for all of which zero is a value.
        let (mut vectors, mut headers): ([libc::iovec; BATCH * 3 / 2], [libc::mmsghdr; BATCH]) =
            unsafe { (zeroed(), zeroed()) };
        let mut places = vectors.iter_mut();
        let mut place = |bytes: &[u8]| {
            if let Some(place) = places.next() {
                // The kernel only reads what a message to send points to.
                place.iov_base = bytes.as_ptr().cast_mut().cast();
                place.iov_len = bytes.len();
            }
        };
        let mut frames =
            self.queued[self.taken..].iter().map(|slot| &self.memory[slot.begin..slot.end]);
        let mut superframes = messages.superframes.iter().flatten();
        let messages = &messages.frames[..messages.count];
        for &count in messages {
            if count == 1 {
                frames.by_ref().take(1).for_each(&mut place);
                continue;
            }
            for superframe in superframes.by_ref().take(1) {
                place(superframe.front());
                let payload = HEADER_BYTES + superframe.headers_len;
                frames.by_ref().take(count).for_each(|frame| place(&frame[payload..]));
            }
        }
        let mut free = vectors.as_mut_slice();
        for (header, &count) in headers.iter_mut().zip(messages) {
            let (own, rest) = free.split_at_mut(if count == 1 { 1 } else { 1 + count });
            header.msg_hdr.msg_iov = own.as_mut_ptr();
            header.msg_hdr.msg_iovlen = own.len();
            free = rest;
        }
        // SAFETY: as many headers as there are messages each point to live vectors of their own, and these to
        // live bytes: the queue's memory, or what stands in front of a superframe; the rest of a header is
        // zero, which is no address and no control data.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                messages.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        match check(sent) {
            Ok(sent) => Ok(sent as usize),
            Err(error) => Err(Refused { error, frames: messages.first().copied().unwrap_or(1) }),
        }
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
