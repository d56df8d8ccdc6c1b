//! A packet socket on the NIC, as all that use one have it made.
//!
//! Enters: the NIC's index, and what the socket is for. Leaves: a socket of the calling thread's namespace.
//! `af_packet` and `packet_tx` alone call this.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::sys::{check, check_fd, set_option};

/// The header in front of each packet of a socket with PACKET_VNET_HDR, both ways: `struct virtio_net_hdr`
/// (packet(7)), the first ten bytes of the one that a TAP has.
pub(super) const HEADER_BYTES: usize = 10;

/// How a socket sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Past the queueing discipline, as AF_XDP's copy mode does: both end in `__dev_direct_xmit`
    /// (net/core/dev.c), which does not cut superframes. It takes finished frames alone.
    Bypass,
    /// Through the queueing discipline, behind which superframes are cut.
    Whole,
}

/// What the kernel holds for a socket at most, each way: 2,048 frames at 2,304 bytes, which it counts for one
/// of 1,500; as many as an AF_XDP socket has. It doubles what it is asked for.
const BUFFER_BYTES: libc::c_int = 2048 * 2304 / 2;

/// A socket that is bound to no protocol: it sends, and receives nothing yet.
pub(super) fn open(ifindex: u32, way: Way) -> io::Result<OwnedFd> {
    // SAFETY: three integers. The result is new and nobody else's.
    let socket =
        unsafe { check_fd(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)) }?;
    match way {
        Way::Bypass => {
            set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        }
        Way::Whole => set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?,
    }
    // Needs CAP_NET_ADMIN beyond net.core.wmem_max; a smaller buffer only means shorter bursts.
    let _ = set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER_BYTES);
    bind(&socket, ifindex, 0)?;
    Ok(socket)
}

/// Has the socket receive what its filter takes, of every protocol.
pub(super) fn receive(socket: &OwnedFd, ifindex: u32) -> io::Result<()> {
    // Likewise.
    let _ = set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER_BYTES);
    // Linux 4.20. The filter passes what this node sends, too; without this it is asked of each packet.
    let _ = set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1);
    bind(socket, ifindex, (libc::ETH_P_ALL as u16).to_be())
}

/// Spreads what sockets receive over them, by flow. All of them are receiving already, and nothing is theirs
/// yet that a filter would take.
pub(super) fn spread(sockets: &[&OwnedFd]) -> io::Result<()> {
    let [first, others @ ..] = sockets else { return Ok(()) };
    if others.is_empty() {
        return Ok(());
    }
    // The kernel chooses a group's number, and reads the mode in the upper half (packet(7)).
    let join = |socket: &OwnedFd, group: u32, flags: u32| {
        let mode = libc::PACKET_FANOUT_HASH | flags;
        let value = (group | mode << 16).cast_signed();
        set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT, value)
    };
    let (unique, ignore) =
        (libc::PACKET_FANOUT_FLAG_UNIQUEID, libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING);
    // Linux 5.10 has the second flag; the group's setting counts then, and no longer its sockets'.
    let flags = match join(first, 0, unique | ignore) {
        Ok(()) => ignore,
        Err(_) => {
            join(first, 0, unique)?;
            0
        }
    };
    let group = fanout_group(first)?;
    others.iter().try_for_each(|socket| join(socket, group, flags))
}

/// Packets that found the socket's buffer full since this was asked last.
pub(super) fn take_dropped(socket: &OwnedFd) -> io::Result<u32> {
    let mut read = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = size_of_val(&read) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `read`, a structure of integers, and the length.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut read).cast(),
            &raw mut len,
        )
    })?;
    Ok(read.tp_drops)
}

fn fanout_group(socket: &OwnedFd) -> io::Result<u32> {
    let mut value: libc::c_int = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, and the length.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw mut value).cast(),
            &raw mut len,
        )
    })?;
    Ok(value.cast_unsigned() & 0xffff)
}

fn bind(socket: &OwnedFd, ifindex: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: a structure of integers, for all of which zero is a value; a protocol of zero is none.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
    address.sll_protocol = protocol;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `address`.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(())
}
