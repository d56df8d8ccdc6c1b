//! Socket options of AF_XDP that xsk-rs has no name for: include/uapi/linux/if_xdp.h.

use std::io;
use std::os::fd::RawFd;

use super::XskStatistics;
use crate::sys::check;

const XDP_STATISTICS: libc::c_int = 7;

const XDP_OPTIONS: libc::c_int = 8;
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

const XDP_OPTIONS_ZEROCOPY: u32 = 1;

/// Whether the driver and we share the memory.
pub(super) fn is_zero_copy(socket: RawFd) -> io::Result<bool> {
    let mut flags = 0_u32;
    let mut len = size_of_val(&flags) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `flags` (struct xdp_options is one u32).
    check(unsafe {
        libc::getsockopt(socket, libc::SOL_XDP, XDP_OPTIONS, (&raw mut flags).cast(), &raw mut len)
    })?;
    Ok(flags & XDP_OPTIONS_ZEROCOPY != 0)
}

/// The kernel's counters of a socket since it was opened.
pub(super) fn statistics(socket: RawFd) -> io::Result<XskStatistics> {
    // struct xdp_statistics: six counters. A kernel before 5.9 has the first three, and counts a full ring
    // among the first.
    let mut counters = [0_u64; 6];
    let mut len = size_of_val(&counters) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `counters`.
    check(unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_XDP,
            XDP_STATISTICS,
            counters.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    let [rx_dropped, rx_invalid, tx_invalid, rx_ring_full, fill_ring_empty, tx_ring_empty] =
        counters;
    Ok(XskStatistics {
        rx_dropped,
        rx_ring_full,
        fill_ring_empty,
        rx_invalid_descriptors: rx_invalid,
        tx_invalid_descriptors: tx_invalid,
        tx_ring_empty,
    })
}

/// Lets one `sendto` in copy mode send up to so many frames instead of 32.
pub(super) fn set_tx_budget(socket: RawFd, frames: u32) -> io::Result<()> {
    let len = size_of_val(&frames) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `frames`.
    check(unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            (&raw const frames).cast(),
            len,
        )
    })?;
    Ok(())
}
