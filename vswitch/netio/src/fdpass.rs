//! Bytes with file descriptors over a unix stream socket, and the process at its other end.
//!
//! The control thread calls it: a TAP arrives here from the CNI plugin and leaves to `port`.
//! A stream keeps no boundaries, but the kernel never joins bytes across one that carried fds, so
//! a request and its fds go in one `send`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::sys::check;

/// File descriptors in one message, at most: one for each queue of a port, and a process's.
pub const MAX_FDS: usize = 9;

/// Bytes of fds that a message is given room for. More than [`MAX_FDS`], so that a few too many
/// are seen as such; the kernel closes what does not fit and reports it by MSG_CTRUNC.
const CONTROL_FDS: usize = 16;

/// Room for one control message of `CONTROL_FDS` fds: its header is 16 bytes on a 64-bit machine
/// and less on others. The words keep it aligned as `cmsghdr` must be.
type Control = [u64; CONTROL_WORDS];
const CONTROL_WORDS: usize = 2 + CONTROL_FDS * size_of::<RawFd>() / size_of::<u64>();

/// The process at the other end of a unix socket, as it was when the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, in our pid namespace; 0 if it is not in it.
    pub pid: i32,
}

/// Sends bytes, and with the first of them the fds; returns how many bytes went.
///
/// # Errors
/// `InvalidInput` for more than [`MAX_FDS`] fds, or fds without a byte to carry them; otherwise
/// the kernel's error.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.len() > MAX_FDS || (bytes.is_empty() && !fds.is_empty()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control: Control = [0; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = message(&mut part);
    if !fds.is_empty() {
        let len = size_of_val(fds) as u32;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE is arithmetic.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as usize;
        // SAFETY: `control` is aligned and long enough for one header and MAX_FDS fds (asserted
        // below), so the first header lies in it and its data behind; BorrowedFd is a RawFd in
        // memory (it is repr(transparent)).
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len) as usize;
            libc::CMSG_DATA(header).copy_from_nonoverlapping(fds.as_ptr().cast(), len as usize);
        }
    }
    // SAFETY: every pointer in the message is to something that outlives the call, with its
    // length; sendmsg only reads them.
    let sent = unsafe {
        libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives bytes and the fds that came with them, close-on-exec; 0 bytes is the end.
///
/// # Errors
/// `InvalidData` if there were more than [`MAX_FDS`] fds, all of which are then closed; otherwise
/// the kernel's error, `WouldBlock` included.
pub fn recv(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control: Control = [0; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = message(&mut part);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in the message is to something of our own that outlives the call, with
    // its length.
    let received = unsafe {
        libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC)
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    // Owned before anything is judged, so that every way out closes them.
    let fds = take_fds(&message);
    if message.msg_flags & libc::MSG_CTRUNC != 0 || fds.len() > MAX_FDS {
        let reason = format!("a message carried more than {MAX_FDS} file descriptors");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok((received, fds))
}

/// The credentials of the process that connected.
///
/// # Errors
/// If the socket is not a connected unix socket.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let mut peer = MaybeUninit::<libc::ucred>::zeroed();
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `peer`.
    check(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            peer.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    // SAFETY: zeroed before, three integers, for which every pattern of bits is a value.
    let peer = unsafe { peer.assume_init() };
    Ok(Credentials { uid: peer.uid, gid: peer.gid, pid: peer.pid })
}

fn message(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: integers and pointers, for all of which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

/// Every fd of a message that recvmsg filled in just now; each is taken once.
fn take_fds(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: recvmsg set msg_control and msg_controllen to the control messages it wrote, and the
    // macros stay in them. Each RawFd of an SCM_RIGHTS message is a new fd of this process that
    // nobody else knows; they are read unaligned, as CMSG_DATA promises no alignment.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(control) = header.as_ref() {
            if (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                let bytes = control.cmsg_len - libc::CMSG_LEN(0) as usize;
                for index in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    fds
}

// SAFETY: CMSG_SPACE is arithmetic.
const _: () = assert!(
    size_of::<Control>()
        >= unsafe { libc::CMSG_SPACE((MAX_FDS * size_of::<RawFd>()) as u32) } as usize
);

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixStream;

    use super::{MAX_FDS, peer_credentials, recv, send};

    #[test]
    fn an_fd_arrives_with_its_bytes_and_works() {
        let (a, b) = UnixStream::pair().expect("socketpair");
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        assert_eq!(send(&a, b"request", &[writer.as_fd()]).expect("sent"), 7);
        drop(writer);
        let mut buffer = [0; 64];
        let (len, mut fds) = recv(&b, &mut buffer).expect("received");
        assert_eq!((&buffer[..len], fds.len()), (&b"request"[..], 1));
        let fd = fds.pop().expect("one");
        // SAFETY: F_GETFD gives an integer.
        assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        File::from(fd).write_all(b"through").expect("the pipe's other end is open");
        let mut through = String::new();
        reader.read_to_string(&mut through).expect("ends when the passed fd is closed");
        assert_eq!(through, "through");
    }

    #[test]
    fn bytes_alone_and_the_end_are_plain() {
        let (a, b) = UnixStream::pair().expect("socketpair");
        send(&a, b"x", &[]).expect("sent");
        drop(a);
        let mut buffer = [0; 8];
        assert!(matches!(recv(&b, &mut buffer), Ok((1, fds)) if fds.is_empty()));
        assert!(matches!(recv(&b, &mut buffer), Ok((0, fds)) if fds.is_empty()));
    }

    #[test]
    fn too_many_fds_are_all_closed() {
        // Twice: as many as the control buffer sees, and more than it holds.
        for count in [MAX_FDS + 1, super::CONTROL_FDS + 8] {
            let (a, b) = UnixStream::pair().expect("socketpair");
            let (mut reader, writer) = std::io::pipe().expect("pipe");
            send_without_limit(&a, &vec![writer.as_raw_fd(); count]);
            drop(writer);
            let refused = recv(&b, &mut [0; 8]).expect_err("too many");
            assert_eq!(refused.kind(), ErrorKind::InvalidData, "{count} fds");
            // Every copy of the writing end is closed, so this ends.
            assert_eq!(reader.read(&mut [0; 1]).expect("end of file"), 0, "{count} fds");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let (a, _b) = UnixStream::pair().expect("socketpair");
        let too_many = [a.as_fd(); MAX_FDS + 1];
        for (bytes, fds) in [(&b"x"[..], &too_many[..]), (b"", &too_many[..1])] {
            let refused = send(&a, bytes, fds).expect_err("refused");
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (a, _b) = UnixStream::pair().expect("socketpair");
        let peer = peer_credentials(&a).expect("connected");
        assert_eq!(peer.pid.cast_unsigned(), std::process::id());
        // SAFETY: geteuid only gives an integer.
        assert_eq!(peer.uid, unsafe { libc::geteuid() });
    }

    /// Sends one byte with any number of fds, as a client that does not keep to the limit.
    fn send_without_limit(socket: &UnixStream, fds: &[i32]) {
        let mut control = [0_u64; 64];
        let mut part = libc::iovec { iov_base: b"x".as_ptr().cast_mut().cast(), iov_len: 1 };
        let mut message = super::message(&mut part);
        let len = size_of_val(fds) as u32;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: as in `send`; 512 bytes hold the header and 124 fds.
        let sent = unsafe {
            message.msg_controllen = libc::CMSG_SPACE(len) as usize;
            assert!(message.msg_controllen <= size_of_val(&control), "room for the fds");
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len) as usize;
            libc::CMSG_DATA(header).copy_from_nonoverlapping(fds.as_ptr().cast(), len as usize);
            libc::sendmsg(socket.as_raw_fd(), &raw const message, 0)
        };
        assert_eq!(sent, 1);
    }
}
