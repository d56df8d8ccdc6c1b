//! The kind `af_packet`, its sending half: a packet socket on the NIC.
//!
//! Enters: finished frames. Leaves: the same, many by one `sendmmsg`. It is for a worker that owns no
//! queue of the NIC. An AF_XDP socket would not do: the kernel has one fill ring and one completion
//! ring for a queue (net/xdp/xsk_buff_pool.c), each for one consumer or producer. A socket of its own
//! memory is refused with EBUSY beside the owner's; one that shares the owner's memory shares these
//! rings, too, and would need a lock or hand frames from thread to thread.
//!
//! The socket bypasses the queueing discipline, as AF_XDP's copy mode does: both end in
//! `__dev_direct_xmit` (net/core/dev.c), so it makes no difference to a pod which worker it has. That
//! function does not cut superframes, so the socket takes none. It receives nothing, as it is bound to
//! no protocol.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};

use super::TxError;
use crate::sys::{check, check_fd};
use crate::xsk::MAX_FRAME_BYTES;
use crate::{Error, Result};

/// A batch of 32 superframes is 32 × 45 = 1,440 pieces, as for AF_XDP. 8 MiB, of which the kernel
/// gives what is used: a turn begins with the first slot again.
const SLOTS: usize = 2048;

/// Messages of one system call; their headers lie on the stack.
const BATCH: usize = 64;

/// What the socket may have under way in the driver: the slots at 2,304 bytes, which the kernel counts
/// for a frame of 1,500. The kernel doubles what it is asked for.
const SEND_BUFFER_BYTES: libc::c_int = (SLOTS * 2304 / 2) as libc::c_int;

/// A transmit handle by a packet socket.
#[derive(Debug)]
pub struct PacketTx {
    socket: OwnedFd,
    /// `SLOTS` of `MAX_FRAME_BYTES` each.
    memory: Vec<u8>,
    /// The length of the frame in each slot that is queued.
    lens: Vec<usize>,
    /// Of those the kernel has taken so many, from the first on.
    taken: usize,
}

impl PacketTx {
    /// A socket on the interface of that index in the namespace of the calling thread.
    pub(super) fn open(ifindex: u32) -> Result<Self> {
        let socket = socket(ifindex).map_err(|source| Error::PacketSocket {
            action: "make a packet socket to send by",
            source,
        })?;
        Ok(Self {
            socket,
            memory: vec![0; SLOTS * MAX_FRAME_BYTES],
            lens: Vec::with_capacity(SLOTS),
            taken: 0,
        })
    }

    pub(super) fn send_with(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> std::result::Result<(), TxError> {
        match len {
            0..14 => return Err(TxError::TooShort),
            14..=MAX_FRAME_BYTES => {}
            _ => return Err(TxError::TooLong),
        }
        if self.lens.len() == SLOTS {
            return Err(TxError::Full);
        }
        let begin = self.lens.len() * MAX_FRAME_BYTES;
        write(&mut self.memory[begin..begin + len]);
        self.lens.push(len);
        Ok(())
    }

    /// Sends until the queue is empty or the kernel has no room. A frame that the kernel refuses for
    /// itself, such as one that is longer than the NIC's MTU, is dropped and the others are sent.
    pub(super) fn flush(&mut self) -> Result<()> {
        let failed = |source| Error::PacketSocket { action: "send by a packet socket", source };
        let mut outcome = Ok(());
        while self.taken < self.lens.len() {
            match self.send_batch() {
                Ok(sent) => self.taken += sent,
                Err(error) => match error.raw_os_error() {
                    // The driver's queue or the socket's memory is full.
                    Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => {
                        return outcome;
                    }
                    // What packet_snd (net/packet/af_packet.c) returns for the frame, not for the NIC.
                    Some(libc::EMSGSIZE | libc::EINVAL) => {
                        self.taken += 1;
                        outcome = Err(failed(error));
                    }
                    _ => return Err(failed(error)),
                },
            }
        }
        self.lens.clear();
        self.taken = 0;
        outcome
    }

    pub(super) fn pending(&self) -> u32 {
        (self.lens.len() - self.taken) as u32
    }

    /// Offers the kernel the next frames; how many it took. An error is that of the first.
    fn send_batch(&self) -> io::Result<usize> {
        // SAFETY: both are structures of integers and pointers, for all of which zero is a value.
        let (mut vectors, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { (zeroed(), zeroed()) };
        let waiting = self.lens.iter().zip(self.memory.chunks_exact(MAX_FRAME_BYTES));
        let mut count = 0;
        for (vector, (len, slot)) in vectors.iter_mut().zip(waiting.skip(self.taken)) {
            // The kernel only reads what a message to send points to.
            vector.iov_base = slot.as_ptr().cast_mut().cast();
            vector.iov_len = *len;
            count += 1;
        }
        for (message, vector) in messages.iter_mut().zip(&mut vectors).take(count) {
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the first `count` messages each point to one live vector, and that to `len` bytes of
        // a live slot; the rest of a header is zero, which is no address and no control data.
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
}

fn socket(ifindex: u32) -> io::Result<OwnedFd> {
    // SAFETY: three integers. The result is new and nobody else's.
    let socket =
        unsafe { check_fd(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)) }?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
    // Needs CAP_NET_ADMIN beyond net.core.wmem_max; a smaller buffer only means shorter bursts.
    let _ = set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER_BYTES);
    // SAFETY: a structure of integers, for all of which zero is a value; a protocol of zero is none.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `address`.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(socket)
}

fn set(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len)
    })?;
    Ok(())
}
