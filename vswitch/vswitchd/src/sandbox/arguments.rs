//! Calls of which some arguments alone are allowed.
//!
//! Enters: the number of a call, and the kind of thread. Leaves: rules, one of which has to hold; none where any
//! argument will do. No call of a packet's way has rules: the kernel would run the whole filter for each packet.

use std::process;

use libc::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, AF_XDP, PROT_EXEC};
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{BackendError, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::ThreadKind;

/// Control socket and log; the kernel's tables; NIC queues; ioctls of interfaces, and what their rules are.
const FAMILIES: [i32; 6] = [AF_UNIX, AF_NETLINK, AF_XDP, AF_PACKET, AF_INET, AF_INET6];

pub(super) fn allowed(number: i64, kind: ThreadKind) -> Result<Vec<SeccompRule>, BackendError> {
    match number {
        // Code is what was there at the start.
        libc::SYS_mmap | libc::SYS_mprotect if !kind.runs_programs() => {
            Ok(vec![rule(2, MaskedEq(PROT_EXEC as u64), 0)?])
        }
        // A thread signals its own process alone, when that aborts.
        libc::SYS_tgkill if !kind.runs_programs() => Ok(vec![rule(0, Eq, process::id().into())?]),
        libc::SYS_socket => FAMILIES.iter().map(|family| rule(0, Eq, *family as u64)).collect(),
        _ => Ok(Vec::new()),
    }
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, Dword, operator, value)?])
}
