//! Changes of one table of the nftables ruleset, as they happen.
//!
//! Enters: notifications of nfnetlink. Leaves: whether a table of a certain name changed, and which
//! program changed it, to the control thread, which polls the fd. What the table then has is another
//! question: `nft` answers it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::nfnetlink::{HEADER_BYTES, attribute};
use super::socket::{DATAGRAM_BYTES, Header, parts};
use crate::{Error, Result};

/// NFNLGRP_NFTABLES of include/uapi/linux/netfilter/nfnetlink.h.
const GROUP: u32 = 7;
/// NFNL_SUBSYS_NFTABLES, the upper byte of a message's type.
const SUBSYSTEM: u16 = 10;
/// NFT_MSG_NEWGEN, which ends a transaction and names the program.
const NEW_GENERATION: u16 = 15;
/// NFTA_TABLE_NAME, and NFTA_*_TABLE of everything that is in a table.
const TABLE: u16 = 1;
/// NFTA_GEN_PROC_PID, in network byte order.
const PROCESS: u16 = 2;
/// NFTA_GEN_PROC_NAME.
const PROCESS_NAME: u16 = 3;

/// A socket that receives changes of one table, in the namespace in which it was opened.
#[derive(Debug)]
pub struct RulesetMonitor {
    socket: Socket,
    datagram: Vec<u8>,
    table: String,
    /// The transaction that is under way concerns the table.
    is_concerned: bool,
}

/// The program that changed the ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// Number of its process.
    pub pid: u32,
    /// Name of its process, as the kernel has it: 15 bytes at most.
    pub name: String,
}

impl RulesetMonitor {
    /// A monitor in the namespace of the calling thread, of the tables with this name.
    ///
    /// # Errors
    /// If the kernel refuses a socket, or the membership, which takes CAP_NET_ADMIN.
    pub fn open(table: &str) -> Result<Self> {
        let failed = |source| Error::Socket { action: "open", source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        socket.add_membership(GROUP).map_err(failed)?;
        Ok(Self {
            socket,
            datagram: Vec::with_capacity(DATAGRAM_BYTES),
            table: table.to_owned(),
            is_concerned: false,
        })
    }

    /// The programs that have changed the table since the last call; one that is not known counts
    /// too, if changes were lost.
    ///
    /// # Errors
    /// If the socket fails otherwise than by an overrun.
    pub fn drain(&mut self) -> Result<Vec<Option<Writer>>> {
        let mut writers = Vec::new();
        loop {
            self.datagram.clear();
            match self.socket.recv_from(&mut self.datagram, 0) {
                Ok((_, from)) if from.port_number() != 0 => continue,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(writers),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    writers.push(None);
                    continue;
                }
                Err(source) => return Err(Error::Socket { action: "read from", source }),
            }
            for part in parts(&self.datagram) {
                if let Some(writer) = read(part, &self.table, &mut self.is_concerned) {
                    writers.push(Some(writer));
                }
            }
        }
    }
}

impl AsFd for RulesetMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for RulesetMonitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The writer, at the end of a transaction that concerned the table.
pub(crate) fn read(part: &[u8], table: &str, is_concerned: &mut bool) -> Option<Writer> {
    let header = Header::of(part)?;
    if header.kind >> 8 != SUBSYSTEM {
        return None;
    }
    let attributes = header.payload.get(HEADER_BYTES..)?;
    if header.kind & 0xff != NEW_GENERATION {
        let name = attribute(attributes, TABLE).map(text);
        *is_concerned |= name.as_deref() == Some(table);
        return None;
    }
    if !std::mem::take(is_concerned) {
        return None;
    }
    let pid = attribute(attributes, PROCESS)?.first_chunk::<4>()?;
    let name = attribute(attributes, PROCESS_NAME).map(text).unwrap_or_default();
    Some(Writer { pid: u32::from_be_bytes(*pid), name })
}

/// A string that ends with a zero byte.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{NEW_GENERATION, SUBSYSTEM, Writer, read};
    use crate::nfnetlink::put;

    /// A message of nfnetlink with these attributes.
    fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut payload = vec![1, 0, 0, 0];
        for (kind, value) in attributes {
            put(&mut payload, *kind, value);
        }
        let mut message = (payload.len() as u32 + 16).to_ne_bytes().to_vec();
        message.extend((SUBSYSTEM << 8 | kind).to_ne_bytes());
        message.extend([0; 10]);
        message.extend(payload);
        message
    }

    #[test]
    fn the_program_is_named_that_changed_the_table_and_no_other() {
        const DELETE_TABLE: u16 = 2;
        let end: [(u16, &[u8]); 3] = [(1, &[0, 0, 0, 9]), (2, &[0, 0, 1, 2]), (3, b"nft\0")];
        let end = message(NEW_GENERATION, &end);
        let mut is_concerned = false;
        let other = message(DELETE_TABLE, &[(1, b"filter\0")]);
        assert_eq!(read(&other, "vswitch", &mut is_concerned), None);
        assert_eq!(read(&end, "vswitch", &mut is_concerned), None);

        let ours = message(DELETE_TABLE, &[(2, b"x\0"), (1, b"vswitch\0")]);
        assert_eq!(read(&ours, "vswitch", &mut is_concerned), None);
        let writer = Writer { pid: 258, name: "nft".into() };
        assert_eq!(read(&end, "vswitch", &mut is_concerned), Some(writer));
        assert_eq!(read(&end, "vswitch", &mut is_concerned), None, "the next transaction");
    }

    #[test]
    fn what_is_cut_short_is_passed_over() {
        let whole = message(NEW_GENERATION, &[(2, &[0, 0, 1, 2]), (3, b"nft\0")]);
        for len in 0..whole.len() {
            let _ = read(&whole[..len], "vswitch", &mut true);
        }
        let _ = read(&message(2, &[(1, b"")]), "vswitch", &mut false);
    }
}
