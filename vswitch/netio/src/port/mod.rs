//! A port's file descriptor: the TAP of a pod or of the host, or a socketpair that plays one.
//!
//! Frames enter here from pods, each behind a virtio header that becomes its `Offload`, and leave
//! the same way. Ports are made by this process or arrive over the control socket, from a client
//! that is not trusted to have sent what it claims. A socketpair of SOCK_SEQPACKET keeps the
//! boundaries of frames as a TAP does, so that a whole daemon runs without privileges.
//!
//! Workers share a port by `Arc`: only one of them reads it, any may write to it, and the kernel
//! keeps each frame whole. A TAP may have several queues, each with a descriptor and a reader of its own.

mod costs;
mod queues;
mod ring;
pub(crate) mod vnet;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

pub use costs::IoCosts;
use frame::{CAPACITY_BYTES, Packet};
pub use queues::{Spread, spread};
pub use ring::{BATCH, Done, PortRing};
pub use tap::{QUEUE_PACKETS, TapOffloads};

use crate::sys::{check, check_fd};
use crate::{Error, Result};

/// What is read at most: a frame and its header.
const BUFFER_BYTES: usize = vnet::HEADER_BYTES + CAPACITY_BYTES;

/// Where a port's frames come from and go to.
#[derive(Debug)]
pub struct PortFd {
    file: File,
    kind: PortFdKind,
    offloads: TapOffloads,
}

/// Kind of file descriptor behind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortFdKind {
    /// A TAP device.
    Tap,
    /// One end of a SOCK_SEQPACKET socketpair.
    Seqpacket,
}

/// What a read from a port gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recv {
    /// The packet given now holds a frame and its offload.
    Packet,
    /// There is none now.
    WouldBlock,
    /// One was taken and thrown away: it is too short, too long, or its virtio header contradicts
    /// it.
    Malformed,
    /// The device or the other end is gone for good.
    Gone,
}

/// Why a packet was not written to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The queue is full.
    WouldBlock,
    /// The interface is there but not up.
    Down,
    /// The packet is none that can be written: shorter than an Ethernet header, offloads that
    /// contradict it, or refused by the kernel.
    Refused,
    /// The device or the other end is gone for good.
    Gone,
}

impl PortFd {
    /// A new TAP of that name in the namespace of the calling thread, down, with offloads.
    ///
    /// # Errors
    /// If the name is impossible or taken, or the kernel refuses.
    pub fn create_tap(name: &str) -> Result<Self> {
        let (fd, offloads) = tap::create(name)?;
        Ok(Self { file: fd.into(), kind: PortFdKind::Tap, offloads })
    }

    /// As `create_tap`, with so many queues, each of which is a port to read from.
    ///
    /// # Errors
    /// As for `create_tap`.
    pub fn create_tap_with(name: &str, queues: u8) -> Result<Vec<Self>> {
        let (fds, offloads) = tap::queues::create_with(name, queues)?;
        let port = |fd: OwnedFd| Self { file: fd.into(), kind: PortFdKind::Tap, offloads };
        Ok(fds.into_iter().map(port).collect())
    }

    /// A persistent TAP of the calling thread's namespace that no process has open.
    ///
    /// # Errors
    /// If there is none, another process has it, or the kernel refuses.
    pub fn reattach_tap(name: &str) -> Result<Self> {
        let (fd, offloads) = tap::reattach(name)?;
        Ok(Self { file: fd.into(), kind: PortFdKind::Tap, offloads })
    }

    /// Has the TAP outlive this process, or end with its last descriptor. A socketpair does neither.
    ///
    /// # Errors
    /// If the device is gone, or the kernel refuses.
    pub fn set_persistent(&self, is_persistent: bool) -> Result<()> {
        match self.kind {
            PortFdKind::Tap => Ok(tap::set_persistent(self.file.as_fd(), is_persistent)?),
            PortFdKind::Seqpacket => Ok(()),
        }
    }

    /// The network namespace that the TAP is in, as device and inode of its file; `None` for a
    /// socketpair, for a TAP that is gone, and where the kernel does not tell.
    #[must_use]
    pub fn namespace(&self) -> Option<(u64, u64)> {
        let metadata = File::from(self.open_namespace()?).metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    }

    /// The network namespace that the TAP is in, which the descriptor keeps alive; `None` as for
    /// `namespace`.
    #[must_use]
    pub fn open_namespace(&self) -> Option<OwnedFd> {
        match self.kind {
            PortFdKind::Tap => tap::namespace(self.file.as_fd()).ok(),
            PortFdKind::Seqpacket => None,
        }
    }

    /// Makes a port of an fd that a client sent: a TAP with IFF_NO_PI and IFF_VNET_HDR, or a
    /// SOCK_SEQPACKET socket.
    ///
    /// The fd becomes non-blocking, for the sender's copy of it too.
    ///
    /// # Errors
    /// If it is anything else, with what it lacks.
    pub fn adopt(fd: OwnedFd) -> Result<Self> {
        let setup = |action| move |source| Error::PortSetup { action, source };
        let (kind, offloads) = if tap::is_tun(fd.as_fd()).map_err(setup("tell the kind of file"))? {
            let offloads = tap::adopt(fd.as_fd()).map_err(|error| match error {
                tap::Error::NotOurs { reason } => Error::NotAPort { reason },
                other => other.into(),
            })?;
            (PortFdKind::Tap, offloads)
        } else if is_seqpacket(fd.as_fd()) {
            (PortFdKind::Seqpacket, TapOffloads { checksum: true, tso: true, uso: true })
        } else {
            let reason = "it is neither a TAP nor a SOCK_SEQPACKET socket".to_owned();
            return Err(Error::NotAPort { reason });
        };
        set_nonblocking(fd.as_fd()).map_err(setup("set O_NONBLOCK"))?;
        Ok(Self { file: fd.into(), kind, offloads })
    }

    /// Two ports, each the other's other side, without privileges.
    ///
    /// # Errors
    /// If the kernel refuses a socketpair.
    pub fn pair() -> Result<(Self, Self)> {
        let mut fds = [-1; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: the kernel writes two ints into the array.
        check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })
            .map_err(|source| Error::PortSetup { action: "make a socketpair", source })?;
        // SAFETY: the call succeeded, so both are new and nobody else's.
        let [a, b] = fds.map(|fd| unsafe { check_fd(fd) }.expect("not negative on success"));
        Ok((Self::adopt(a)?, Self::adopt(b)?))
    }

    /// Kind of file descriptor behind the port.
    #[must_use]
    pub fn kind(&self) -> PortFdKind {
        self.kind
    }

    /// The TAP's name as it is now, in whatever namespace it is; `None` for a socketpair and for a
    /// TAP that is gone.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match self.kind {
            PortFdKind::Tap => tap::name(self.file.as_fd()).ok(),
            PortFdKind::Seqpacket => None,
        }
    }

    /// The offloads that were agreed with the kernel.
    #[must_use]
    pub fn offloads(&self) -> TapOffloads {
        self.offloads
    }

    /// Takes the next frame, into `packet`; its earlier content is gone in any case.
    pub fn recv(&self, packet: &mut Packet) -> Recv {
        let outcome = self.read(buffer_of(packet));
        received(packet, outcome)
    }

    /// Writes a packet; its bytes are as before afterwards.
    ///
    /// # Errors
    /// If it could not be written; it may be sent elsewhere or dropped.
    pub fn send(&self, packet: &mut Packet) -> std::result::Result<(), SendError> {
        let whole = with_header(packet)?;
        self.write(whole).map_err(|error| refusal(error.raw_os_error()))
    }

    fn read(&self, buffer: &mut [u8]) -> std::result::Result<usize, Recv> {
        let outcome = match self.kind {
            PortFdKind::Tap => (&self.file).read(buffer),
            PortFdKind::Seqpacket => {
                // SAFETY: pointer and length are those of a live slice, which the call writes to.
                let received = unsafe {
                    let into = buffer.as_mut_ptr().cast();
                    libc::recv(self.file.as_raw_fd(), into, buffer.len(), libc::MSG_DONTWAIT)
                };
                usize::try_from(received).map_err(|_| io::Error::last_os_error())
            }
        };
        outcome.map_err(|error| nothing_read(error.raw_os_error()))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self.kind {
            PortFdKind::Tap => (&self.file).write(bytes).map(drop),
            PortFdKind::Seqpacket => {
                // The other end may clear O_NONBLOCK for both, so each call sets MSG_DONTWAIT; and
                // that it was closed is no reason to kill the process.
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                // SAFETY: pointer and length are those of a live slice.
                let sent = unsafe {
                    libc::send(self.file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags)
                };
                if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
            }
        }
    }
}

impl AsFd for PortFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for PortFd {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl From<PortFd> for OwnedFd {
    fn from(port: PortFd) -> Self {
        port.file.into()
    }
}

/// Where a frame is read to, its header before it; what the packet held is gone.
fn buffer_of(packet: &mut Packet) -> &mut [u8] {
    let frame = &mut packet.frame;
    frame.reset();
    frame.extend(CAPACITY_BYTES).expect("an empty frame has its whole capacity");
    frame
        .with_prefix_mut(vnet::HEADER_BYTES)
        .expect("the headroom of an empty frame exceeds the header")
}

/// Makes a packet of what was read to its buffer.
fn received(packet: &mut Packet, outcome: std::result::Result<usize, Recv>) -> Recv {
    let outcome = outcome.and_then(|len| match len {
        // The other end of a socketpair was closed, or sent a message of nothing.
        0 => Err(Recv::Gone),
        // A full buffer may have cut the frame.
        len if len >= BUFFER_BYTES => Err(Recv::Malformed),
        len => {
            let buffer = packet.frame.with_prefix_mut(vnet::HEADER_BYTES);
            let (header, _) =
                buffer.and_then(|buffer| buffer.split_first_chunk()).ok_or(Recv::Malformed)?;
            let packet_len = len.checked_sub(vnet::HEADER_BYTES).ok_or(Recv::Malformed)?;
            let offload = vnet::decode(header, packet_len).map_err(|_| Recv::Malformed)?;
            Ok((packet_len, offload))
        }
    });
    match outcome {
        Ok((packet_len, offload)) => {
            packet.frame.truncate(packet_len);
            packet.offload = offload;
            Recv::Packet
        }
        Err(recv) => {
            packet.frame.reset();
            recv
        }
    }
}

/// What is written for a packet: it and its header before it.
fn with_header(packet: &mut Packet) -> std::result::Result<&mut [u8], SendError> {
    let header = vnet::encode(&packet.offload, packet.frame.len())
        .map_err(|vnet::Malformed| SendError::Refused)?;
    let whole = packet.frame.with_prefix_mut(vnet::HEADER_BYTES).ok_or(SendError::Refused)?;
    whole[..vnet::HEADER_BYTES].copy_from_slice(&header);
    Ok(whole)
}

/// Why a read gave nothing.
fn nothing_read(errno: Option<i32>) -> Recv {
    match errno {
        // An interrupted read took nothing; the caller polls and comes back.
        Some(libc::EAGAIN | libc::EINTR) => Recv::WouldBlock,
        _ => Recv::Gone,
    }
}

/// Why a write was refused.
fn refusal(errno: Option<i32>) -> SendError {
    match errno {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => SendError::WouldBlock,
        // tun_get_user (drivers/net/tun.c) returns EIO while the device is not IFF_UP.
        Some(libc::EIO) => SendError::Down,
        // What tun_get_user returns for a frame that it can't make a packet of.
        Some(libc::EINVAL | libc::EMSGSIZE | libc::EFAULT) => SendError::Refused,
        _ => SendError::Gone,
    }
}

/// A unix socket that keeps the boundaries of messages; SCTP has such a type, too.
fn is_seqpacket(fd: BorrowedFd<'_>) -> bool {
    socket_option(fd, libc::SO_DOMAIN) == Some(libc::AF_UNIX)
        && socket_option(fd, libc::SO_TYPE) == Some(libc::SOCK_SEQPACKET)
}

/// An option that is an int; `None` for what is no socket.
fn socket_option(fd: BorrowedFd<'_>, option: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`; both outlive the call.
    let result = unsafe {
        let into = (&raw mut value).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, into, &raw mut len)
    };
    (result == 0).then_some(value)
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take and give integers.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    Ok(())
}

#[cfg(test)]
mod tests;
