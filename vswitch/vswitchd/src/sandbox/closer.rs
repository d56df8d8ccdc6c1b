//! What the closer calls besides.
//!
//! Enters: nothing. Leaves: calls that the end of a port, or of an uplink's share, takes.

use super::calls::{Call, calls};

pub(super) const CALLS: &[Call] = calls! {
    SYS_epoll_ctl: "a descriptor leaves the readiness queue before it is closed",
    SYS_getsockopt: "a packet socket tells what it has lost before it is closed",
    SYS_setsockopt: "a queue's socket gives its rings back",
};
