//! The few calls of libc that several modules share.

use std::ffi::c_int;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

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
    // SAFETY: the call succeeded, so `fd` is open, and the caller says that it is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An interface name in the form that `ifreq` wants; `None` if it is empty, too long or holds a
/// NUL or a slash.
pub(crate) fn interface_name(name: &str) -> Option<[libc::c_char; libc::IFNAMSIZ]> {
    let bytes = name.as_bytes();
    let well_formed = !bytes.is_empty()
        && bytes.len() < libc::IFNAMSIZ
        && !bytes.iter().any(|&byte| byte == 0 || byte == b'/' || byte.is_ascii_whitespace());
    well_formed.then(|| {
        let mut out = [0; libc::IFNAMSIZ];
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = from.cast_signed();
        }
        out
    })
}

/// An `ifreq` with this name and nothing else set.
pub(crate) fn ifreq(name: [libc::c_char; libc::IFNAMSIZ]) -> libc::ifreq {
    // SAFETY: `ifreq` is an array of characters and a union of integers and pointers, for all of
    // which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name = name;
    request
}

#[cfg(test)]
mod tests {
    use super::interface_name;

    #[test]
    fn names_that_the_kernel_would_cut_or_refuse_are_refused() {
        assert!(interface_name("eth0").is_some());
        assert!(interface_name("a23456789012345").is_some());
        for bad in ["", "a234567890123456", "a b", "a/b", "a\0b"] {
            assert!(interface_name(bad).is_none(), "{bad:?}");
        }
    }
}
