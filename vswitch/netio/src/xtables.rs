//! The policy of iptables-legacy's chain FORWARD, which nft does not list.
//!
//! Enters: a family. Leaves: whether the kernel drops what no rule of that chain accepts, in the namespace of
//! the calling thread; `vswitchd` names it to the operator. The structs are those of
//! include/uapi/linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h. Nothing is changed, and no
//! module of the kernel is loaded.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::ethtool::any_socket;
use crate::sys::{check, check_fd};

/// IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES; those of IPv6 are the same.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// XT_TABLE_MAXNAMELEN.
const NAME_BYTES: usize = 32;
/// The table that drops.
const TABLE: &str = "filter";
/// NF_INET_FORWARD.
const FORWARD: usize = 2;
/// `struct ipt_getinfo`: name, valid_hooks, five of hook_entry, five of underflow, num_entries, size.
const INFO_BYTES: usize = NAME_BYTES + 4 + 20 + 20 + 4 + 4;
const UNDERFLOW_AT: usize = NAME_BYTES + 4 + 20;
const SIZE_AT: usize = INFO_BYTES - 4;
/// `struct ipt_get_entries`: name and size, and the entries at a multiple of eight bytes.
const ENTRIES_AT: usize = NAME_BYTES + 8;
/// `struct xt_entry_target` before the verdict: its size, 29 bytes of name, its revision.
const TARGET_BYTES: usize = 32;
/// A policy's verdict is -NF_DROP - 1.
const DROP: i32 = -1;
/// The table may be replaced between the question for its size and that for its entries.
const ATTEMPTS: usize = 3;

/// What the two families have each their own way.
struct Family {
    names: &'static str,
    domain: i32,
    level: i32,
    /// Where `struct ipt_entry`, or `ip6t_entry`, has its target_offset.
    target_offset_at: usize,
}

/// After `struct ipt_ip`, 84 bytes, and nfcache.
const V4: Family = Family {
    names: "/proc/thread-self/net/ip_tables_names",
    domain: libc::AF_INET,
    level: libc::SOL_IP,
    target_offset_at: 88,
};
/// After `struct ip6t_ip6`, 136 bytes, and nfcache.
const V6: Family = Family {
    names: "/proc/thread-self/net/ip6_tables_names",
    domain: libc::AF_INET6,
    level: libc::SOL_IPV6,
    target_offset_at: 140,
};

/// Whether the kernel drops what it forwards and no rule of the chain FORWARD accepts, by the table `filter` of
/// iptables-legacy (`is_v4`) or ip6tables-legacy. Takes CAP_NET_ADMIN.
///
/// # Errors
/// If the kernel refuses to tell.
pub fn forward_drops(is_v4: bool) -> io::Result<bool> {
    let family = if is_v4 { V4 } else { V6 };
    // The kernel may make an empty table where it is asked for one. The list is root's alone: another user
    // has to ask for the table.
    match fs::read_to_string(family.names) {
        Ok(names) if names.lines().any(|name| name == TABLE) => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        // There are no such tables in this kernel, or none yet.
        Err(_) => return Ok(false),
    }
    let socket = family.socket()?;
    // Asked for entries of a size that it does not have, the kernel only says whether there is the table.
    // Asked for its description it would load the table's module.
    match family.ask(&socket, GET_ENTRIES, &mut question(0)) {
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
        // ENOENT: no such table. ENOPROTOOPT: no iptables-legacy.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT)) => {
            return Ok(false);
        }
        outcome => return outcome.map(|()| false),
    }
    for _ in 0..ATTEMPTS {
        let mut info = question(0);
        info.resize(INFO_BYTES, 0);
        family.ask(&socket, GET_INFO, &mut info)?;
        let size = number(&info, SIZE_AT).unwrap_or_default();
        let mut entries = question(size);
        match family.ask(&socket, GET_ENTRIES, &mut entries) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            outcome => return outcome.map(|()| family.drops(&info, &entries)),
        }
    }
    Err(io::Error::other("the table is replaced again and again"))
}

impl Family {
    fn socket(&self) -> io::Result<OwnedFd> {
        if self.domain == libc::AF_INET {
            return any_socket();
        }
        // SAFETY: three integers; a new fd is nobody else's.
        unsafe { check_fd(libc::socket(self.domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)) }
    }

    fn ask(&self, socket: &OwnedFd, option: i32, bytes: &mut [u8]) -> io::Result<()> {
        let mut len = bytes.len() as libc::socklen_t;
        // SAFETY: the kernel reads and writes `len` bytes of `bytes` at most, and writes `len`.
        check(unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                self.level,
                option,
                bytes.as_mut_ptr().cast(),
                &raw mut len,
            )
        })?;
        Ok(())
    }

    /// The entry that ends the chain has its policy as the verdict of a standard target.
    fn drops(&self, info: &[u8], entries: &[u8]) -> bool {
        let verdict = || {
            let entry = ENTRIES_AT + number(info, UNDERFLOW_AT + 4 * FORWARD)? as usize;
            let target_offset = entries.get(entry + self.target_offset_at..)?.first_chunk()?;
            let target = entry + usize::from(u16::from_ne_bytes(*target_offset));
            let verdict = entries.get(target + TARGET_BYTES..)?.first_chunk()?;
            Some(i32::from_ne_bytes(*verdict))
        };
        verdict() == Some(DROP)
    }
}

/// `struct ipt_get_entries` for so many bytes of entries; its beginning is that of `struct ipt_getinfo`, too.
fn question(size: u32) -> Vec<u8> {
    let mut bytes = vec![0; ENTRIES_AT + size as usize];
    bytes[..TABLE.len()].copy_from_slice(TABLE.as_bytes());
    bytes[NAME_BYTES..NAME_BYTES + 4].copy_from_slice(&size.to_ne_bytes());
    bytes
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|number| u32::from_ne_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::{ENTRIES_AT, FORWARD, Family, INFO_BYTES, TARGET_BYTES, UNDERFLOW_AT, V4, V6};

    /// A table whose chain FORWARD is an entry with this verdict, behind another that drops.
    fn table(family: &Family, verdict: i32) -> (Vec<u8>, Vec<u8>) {
        // As the kernel has it: the entry's own bytes, a target, and eight of its verdict.
        let target_offset = family.target_offset_at + 24 - family.target_offset_at % 8;
        let entry = |verdict: i32| {
            let mut entry = vec![0xa5; target_offset + TARGET_BYTES + 8];
            let offset = family.target_offset_at;
            entry[offset..offset + 2].copy_from_slice(&(target_offset as u16).to_ne_bytes());
            let at = target_offset + TARGET_BYTES;
            entry[at..at + 4].copy_from_slice(&verdict.to_ne_bytes());
            entry
        };
        let first = entry(-1);
        let (mut info, at) = (vec![0; INFO_BYTES], UNDERFLOW_AT + 4 * FORWARD);
        info[at..at + 4].copy_from_slice(&(first.len() as u32).to_ne_bytes());
        (info, [vec![0; ENTRIES_AT], first, entry(verdict)].concat())
    }

    #[test]
    fn the_policy_is_the_verdict_of_the_chains_last_entry() {
        for family in [V4, V6] {
            for (verdict, drops) in [(-1, true), (-2, false), (-5, false), (0, false)] {
                let (info, entries) = table(&family, verdict);
                assert_eq!(family.drops(&info, &entries), drops, "{verdict}");
                for len in 0..entries.len() - 8 {
                    assert!(!family.drops(&info, &entries[..len]), "cut at {len}");
                }
            }
        }
    }
}
