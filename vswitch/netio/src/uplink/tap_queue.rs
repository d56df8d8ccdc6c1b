//! The halves of the kind `offload`: a queue of the uplink's TAP.
//!
//! Enters: what the kernel sent out by the TAP, superframes and all, as packets; packets, superframes and
//! all, that are to leave by the NIC. `offload` makes them. A packet is written at once: there is no ring,
//! and nothing to flush. A queue is read when epoll has said that it is ready, so that a spinning worker
//! makes no system call for an empty one.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use frame::{CAPACITY_BYTES, Packet, Pool};
use tap::tunnelling::is_of_no_device;

use super::tap_header::{self, HEADER_BYTES};
use super::{RxError, TxError};
use crate::port::vnet;

/// The receiving half.
#[derive(Debug)]
pub struct TapRx {
    file: Arc<File>,
    /// It may have packets.
    is_ready: bool,
}

/// The transmit handle.
#[derive(Debug)]
pub struct TapTx {
    file: Arc<File>,
    /// A header and a frame, for frames that are written piece by piece.
    scratch: Box<[u8]>,
}

/// What a read gave.
enum Next {
    Packet(Packet),
    Lost(RxError),
    Nothing,
}

impl TapRx {
    pub(super) fn new(file: Arc<File>) -> Self {
        Self { file, is_ready: true }
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
        for count in 0..budget {
            if !self.is_ready {
                return count;
            }
            match self.next(pool) {
                Next::Packet(packet) => deliver(Ok(packet)),
                Next::Lost(why) => deliver(Err(why)),
                Next::Nothing => {
                    self.is_ready = false;
                    return count;
                }
            }
        }
        budget
    }

    fn next(&self, pool: &Pool) -> Next {
        let Some(mut frame) = pool.alloc() else {
            // Taken all the same, so that it is counted: a queue that is full drops silently.
            return match self.read(&mut [0; HEADER_BYTES + 1]) {
                Ok(_) => Next::Lost(RxError::NoFrame),
                Err(nothing) => nothing,
            };
        };
        frame.extend(CAPACITY_BYTES).expect("an empty frame has its whole capacity");
        let buffer = frame
            .with_prefix_mut(HEADER_BYTES)
            .expect("the headroom of an empty frame exceeds the header");
        let capacity = buffer.len();
        let len = match self.read(buffer) {
            // A full buffer may have cut the frame.
            Ok(len) if len == capacity => return Next::Lost(RxError::TooLong),
            Ok(len) => len,
            Err(nothing) => return nothing,
        };
        let read = buffer.split_first_chunk().and_then(|(header, _)| {
            let packet_len = len.checked_sub(HEADER_BYTES)?;
            Some((packet_len, tap_header::decode(header, packet_len).ok()?))
        });
        let Some((packet_len, offload)) = read else { return Next::Lost(RxError::Malformed) };
        frame.truncate(packet_len);
        Next::Packet(Packet { frame, offload })
    }

    /// How many bytes there were.
    fn read(&self, buffer: &mut [u8]) -> Result<usize, Next> {
        (&*self.file).read(buffer).map_err(|error| match error.raw_os_error() {
            // What tun_put_user (drivers/net/tun.c) returns for a packet whose offload no header can
            // say, and which it took.
            Some(libc::EINVAL) => Next::Lost(RxError::Malformed),
            // Also of a TAP that was removed: the control thread makes it again.
            _ => Next::Nothing,
        })
    }
}

impl AsRawFd for TapRx {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl TapTx {
    pub(super) fn new(file: Arc<File>) -> Self {
        Self { file, scratch: vec![0; HEADER_BYTES + CAPACITY_BYTES].into() }
    }

    pub(super) fn send(&mut self, packet: &mut Packet) -> Result<(), TxError> {
        let len = packet.frame.len();
        let header =
            tap_header::encode(&packet.offload, len).map_err(|vnet::Malformed| match len {
                0..vnet::MIN_FRAME_BYTES => TxError::TooShort,
                _ => TxError::Unfinished,
            })?;
        if let Some(whole) = packet.frame.with_prefix_mut(HEADER_BYTES) {
            whole[..HEADER_BYTES].copy_from_slice(&header);
            return write(&self.file, whole);
        }
        let whole = self.scratch.get_mut(..HEADER_BYTES + len).ok_or(TxError::TooLong)?;
        whole[..HEADER_BYTES].copy_from_slice(&header);
        whole[HEADER_BYTES..].copy_from_slice(&packet.frame);
        write(&self.file, whole)
    }

    pub(super) fn send_with(
        &mut self,
        len: usize,
        write_frame: impl FnOnce(&mut [u8]),
    ) -> Result<(), TxError> {
        if len < vnet::MIN_FRAME_BYTES {
            return Err(TxError::TooShort);
        }
        let whole = self.scratch.get_mut(..HEADER_BYTES + len).ok_or(TxError::TooLong)?;
        whole[..HEADER_BYTES].fill(0);
        write_frame(&mut whole[HEADER_BYTES..]);
        write(&self.file, whole)
    }
}

/// Sends one frame by the NIC. What its queueing discipline drops there is counted by the kernel.
fn write(file: &File, whole: &[u8]) -> Result<(), TxError> {
    let mut file = file;
    file.write(whole).map(drop).map_err(|error| refusal(&error))
}

fn refusal(error: &io::Error) -> TxError {
    match error.raw_os_error() {
        Some(libc::ENOBUFS | libc::ENOMEM) => TxError::Full,
        _ if error.kind() == ErrorKind::WouldBlock => TxError::Full,
        _ if is_of_no_device(error) => TxError::Gone,
        // EIO while the TAP is not up; EINVAL for what the kernel makes no packet of.
        _ => TxError::Refused,
    }
}
