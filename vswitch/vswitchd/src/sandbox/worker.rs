//! What a worker calls besides.
//!
//! Enters: nothing. Leaves: calls of a packet's way, and of changes of ports. It makes its rings, its sockets and its
//! readiness queue, and pins itself, before the filter is on. What io_uring does for it, reading and writing
//! of registered ports, passes no filter.

use super::calls::{Call, calls};

pub(super) const CALLS: &[Call] = calls! {
    SYS_epoll_ctl: "ports come and go, and stop being read while their rate is used up",
    SYS_epoll_pwait: "which sources are ready, where there is no epoll_wait",
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait: "which sources are ready",
    SYS_getsockopt: "why a port has failed, and what a packet socket has lost",
    SYS_io_uring_enter: "reads and writes many ports at once",
    SYS_io_uring_register: "ports come to the ring and leave it",
    #[cfg(target_arch = "x86_64")]
    SYS_poll: "has the driver go on with what is in a queue's ring",
    SYS_ppoll: "as poll, where that is not there",
    SYS_recvfrom: "packets of a port that is a socket; wakes the driver for a queue's receive ring",
    SYS_recvmmsg: "packets of a packet socket, many at once",
    SYS_recvmsg: "a packet of a packet socket",
    SYS_sendmmsg: "packets by a packet socket, many at once",
    SYS_sendmsg: "a packet by a packet socket",
    SYS_sendto: "packets of a port that is a socket; wakes the driver for a queue's transmit ring",
};
