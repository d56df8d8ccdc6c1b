//! The calls of bpf(2) by which a program gets to a hook of an interface, and stays there.
//!
//! `pinhole` alone calls it. A program hangs on a `bpf_link`, which ends with its descriptor. The
//! attribute structs are as in `bpf`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::bpf::{ATTACH_XDP, bpf, bpf_fd, refused};
use crate::Result;

const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;

const ATTACH_TCX_INGRESS: u32 = 46;
const ATTACH_TCX_EGRESS: u32 = 47;
/// BPF_F_BEFORE without another program: before all that are there.
const FIRST: u32 = 1 << 3;

/// Which hook a program is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// XDP_FLAGS_SKB_MODE of include/uapi/linux/if_link.h.
    XdpGeneric,
    /// XDP_FLAGS_DRV_MODE.
    XdpNative,
    /// What the interface has received.
    TcIngress,
    /// What it is to send.
    TcEgress,
}

impl Hook {
    /// BPF_XDP, BPF_TCX_*, and the flags that LINK_CREATE wants for it.
    fn attach_type_and_flags(self) -> (u32, u32) {
        match self {
            Self::XdpGeneric => (ATTACH_XDP, 2),
            Self::XdpNative => (ATTACH_XDP, 4),
            Self::TcIngress => (ATTACH_TCX_INGRESS, FIRST),
            Self::TcEgress => (ATTACH_TCX_EGRESS, FIRST),
        }
    }
}

/// LINK_CREATE and LINK_UPDATE have the same shape: an fd, another, a word, flags.
#[repr(C)]
struct Link {
    first_fd: u32,
    second: u32,
    attach_type_or_flags: u32,
    flags_or_old_fd: u32,
}

#[repr(C)]
struct InfoByFd {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    _kind: u32,
    id: u32,
}

/// The beginning of `struct bpf_link_info`, for a link of XDP or of tc: its union is aligned to eight bytes.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    _kind: u32,
    _id: u32,
    program_id: u32,
    _padding: u32,
    ifindex: u32,
}

/// Attaches a program for as long as the returned link is open.
pub(super) fn attach(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<OwnedFd> {
    let (attach_type, flags) = hook.attach_type_and_flags();
    let attributes = Link {
        first_fd: program.as_raw_fd() as u32,
        second: ifindex,
        attach_type_or_flags: attach_type,
        flags_or_old_fd: flags,
    };
    // SAFETY: LINK_CREATE only reads the attributes, which hold no pointer.
    unsafe { bpf_fd(LINK_CREATE, &attributes) }
}

/// Puts another program in the place of the link's.
pub(super) fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let attributes = Link {
        first_fd: link.as_raw_fd() as u32,
        second: program.as_raw_fd() as u32,
        attach_type_or_flags: 0,
        flags_or_old_fd: 0,
    };
    // SAFETY: LINK_UPDATE only reads the attributes, which hold no pointer.
    unsafe { bpf(LINK_UPDATE, &attributes) }
        .map(drop)
        .map_err(refused("replace the program of an interface, which may be gone"))
}

/// The kernel's number of a program.
pub(super) fn program_id(program: BorrowedFd<'_>) -> Result<u32> {
    let mut info = ProgramInfo::default();
    read_info(program, &mut info).map_err(refused("ask for a program's number"))?;
    Ok(info.id)
}

/// Interface and program of a link; an interface of 0 if it was detached.
pub(super) fn attached_to(link: BorrowedFd<'_>) -> Result<(u32, u32)> {
    let mut info = LinkInfo::default();
    read_info(link, &mut info).map_err(refused("ask what a program is attached to"))?;
    Ok((info.ifindex, info.program_id))
}

fn read_info<T>(of: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let attributes = InfoByFd {
        fd: of.as_raw_fd() as u32,
        info_len: size_of::<T>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: OBJ_GET_INFO_BY_FD writes at most `info_len` bytes to `info`, which is as long and
    // lives until the call returns; it holds numbers alone, so that any bytes are valid. The length
    // that it writes back into the attributes stays within them.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &attributes) }.map(drop)
}
