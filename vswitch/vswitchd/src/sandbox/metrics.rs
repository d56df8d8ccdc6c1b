//! What the thread of metrics calls besides.
//!
//! Enters: nothing. Leaves: calls on its socket, which is there before, and on its clients' streams.

use super::calls::{Call, calls};

pub(super) const CALLS: &[Call] = calls! {
    SYS_accept4: "a client comes",
    SYS_recvfrom: "its request",
    SYS_sendto: "the answer",
    SYS_setsockopt: "a client that is silent is not waited for",
    SYS_shutdown: "a client's stream ends",
    SYS_writev: "the answer, in pieces",
};
