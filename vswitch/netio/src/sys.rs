//! The few calls of libc that several modules share.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The result of a system call: -1 is an error in `errno`.
pub(crate) fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The result of a system call that makes a new file descriptor.
///
/// # Safety
/// `result` is the return value of such a call, which nobody else has taken.
pub(crate) unsafe fn check_fd(result: c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the call succeeded, so `fd` is open, and the caller promises that it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Bounds how long a read of a socket waits; it fails with `WouldBlock` after that.
pub(crate) fn set_receive_timeout(socket: BorrowedFd<'_>, seconds: i64) -> io::Result<()> {
    let value = libc::timeval { tv_sec: seconds, tv_usec: 0 };
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`.
    check(unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, value, len)
    })?;
    Ok(())
}

/// Sets an option of a socket whose value is an integer.
pub(crate) fn set_option(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: c_int,
) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len)
    })?;
    Ok(())
}
