//! A program at the ingress of an interface by a classifier of tc, for kernels without links to tc.
//!
//! Enters: a program, and the index of an interface in the calling thread's namespace. Leaves: messages of
//! rtnetlink (tc-bpf(8), in direct-action mode) that hang it there. The kernel keeps such a program when this
//! process is killed: it drops what pods would get until a start removes it. `sockets` alone calls this.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::sys::{check, check_fd, set_receive_timeout};
use crate::{Error, Result};

/// The longest that the kernel's acknowledgement is waited for, which it makes before the request is sent.
const PATIENCE_SECONDS: i64 = 2;

// include/uapi/linux/rtnetlink.h.
const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;

// include/uapi/linux/pkt_cls.h.
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const DIRECT_ACTION: u32 = 1;

/// TC_H_CLSACT of include/uapi/linux/pkt_sched.h: the parent of the discipline that has no queue.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// TC_H_MIN_INGRESS of it.
const INGRESS: u32 = 0xffff_fff2;
/// Of the first that are asked, and of every protocol (ETH_P_ALL).
const PRIORITY_AND_PROTOCOL: u32 = 1 << 16 | (3_u16.to_be() as u32);
/// Ours among those of this priority, of which others may have some.
const HANDLE: u32 = 0x7673_0001;

const CREATE: u16 = (libc::NLM_F_CREATE) as u16;
const EXCLUSIVE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// A program that hangs on an interface until this is dropped.
#[derive(Debug)]
pub(super) struct Classifier {
    program: OwnedFd,
    tc: Tc,
}

/// rtnetlink of the namespace in which it was opened, and an interface there.
#[derive(Debug)]
struct Tc {
    socket: OwnedFd,
    ifindex: u32,
}

impl Classifier {
    /// Hangs a program there, in the place of one that a former daemon left.
    pub(super) fn attach(program: OwnedFd, ifindex: u32) -> Result<Self> {
        let refused = |source| Error::TcClassifier { ifindex, source };
        let tc = Tc::open(ifindex).map_err(refused)?;
        tc.make_discipline().and_then(|()| tc.hang(&program, CREATE)).map_err(refused)?;
        Ok(Self { program, tc })
    }

    /// Puts another program in its place.
    pub(super) fn replace(&mut self, program: OwnedFd) -> Result<()> {
        self.tc.hang(&program, CREATE).map_err(|source| self.refused(source))?;
        self.program = program;
        Ok(())
    }

    /// Puts it back if it is not there; true if so.
    pub(super) fn settle(&mut self) -> Result<bool> {
        let settled =
            self.tc.make_discipline().and_then(|()| match self.tc.hang(&self.program, EXCLUSIVE) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
                other => other.map(|()| true),
            });
        settled.map_err(|source| self.refused(source))
    }

    fn refused(&self, source: io::Error) -> Error {
        Error::TcClassifier { ifindex: self.tc.ifindex, source }
    }

    /// Removes the one that a former daemon left, if any.
    pub(super) fn remove_leftover(ifindex: u32) {
        // Without rtnetlink there would be no interface either.
        let _ = Tc::open(ifindex).map(|tc| tc.remove());
    }
}

impl Drop for Classifier {
    fn drop(&mut self) {
        self.tc.remove();
    }
}

impl Tc {
    fn open(ifindex: u32) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: three integers. The result is new and nobody else's.
        let socket =
            unsafe { check_fd(libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE)) }?;
        set_receive_timeout(socket.as_fd(), PATIENCE_SECONDS)?;
        Ok(Self { socket, ifindex })
    }

    fn remove(&self) {
        // Mostly there is none, which the kernel reports as one of several errors.
        let _ = self.ask(&message(RTM_DELTFILTER, 0, self.ifindex, HANDLE, INGRESS, &[]));
    }

    /// The discipline that classifiers hang on; one that another program made does as well.
    fn make_discipline(&self) -> io::Result<()> {
        let kind = attribute(TCA_KIND, b"clsact\0");
        let request = message(RTM_NEWQDISC, EXCLUSIVE, self.ifindex, CLSACT_HANDLE, CLSACT, &kind);
        self.ask(&request).or_else(|error| match error.raw_os_error() {
            Some(libc::EEXIST) => Ok(()),
            _ => Err(error),
        })
    }

    fn hang(&self, program: &OwnedFd, flags: u16) -> io::Result<()> {
        let program = program.as_raw_fd() as u32;
        let options = [
            attribute(TCA_BPF_FD, &program.to_ne_bytes()),
            attribute(TCA_BPF_NAME, b"vswitch_pinhole\0"),
            attribute(TCA_BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes()),
        ]
        .concat();
        let attributes = [attribute(TCA_KIND, b"bpf\0"), attribute(TCA_OPTIONS, &options)].concat();
        self.ask(&message(RTM_NEWTFILTER, flags, self.ifindex, HANDLE, INGRESS, &attributes))
    }

    /// Sends a request to the kernel and waits for its acknowledgement, which is an error of zero.
    fn ask(&self, request: &[u8]) -> io::Result<()> {
        // SAFETY: a structure of integers, for all of which zero is a value: the kernel's own address.
        let mut kernel: libc::sockaddr_nl = unsafe { zeroed() };
        kernel.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        let len = size_of_val(&kernel) as libc::socklen_t;
        // SAFETY: the kernel reads the request and the address, which are as long as told.
        let sent = unsafe {
            let (bytes, to) = (request.as_ptr().cast(), (&raw const kernel).cast());
            libc::sendto(self.socket.as_raw_fd(), bytes, request.len(), 0, to, len)
        };
        check(sent as libc::c_int)?;
        let mut answer = [0_u8; 4096];
        // SAFETY: the kernel writes at most as many bytes as there are.
        let received = unsafe {
            libc::recv(self.socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0)
        };
        let received = check(received as libc::c_int).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "the kernel did not answer the request about tc within {PATIENCE_SECONDS} s"
                ),
            ),
            _ => error,
        })?;
        // The error follows the header.
        match answer[..received as usize].get(16..20).and_then(|error| error.try_into().ok()) {
            Some(error) => match i32::from_ne_bytes(error) {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(-error)),
            },
            None => Err(io::Error::other("the kernel's answer is too short")),
        }
    }
}

/// An attribute, padded (netlink(7)).
fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + payload.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A request about tc that wants an acknowledgement: `struct nlmsghdr`, then `struct tcmsg`.
fn message(
    kind: u16,
    flags: u16,
    ifindex: u32,
    handle: u32,
    parent: u32,
    attributes: &[u8],
) -> Vec<u8> {
    let info = if kind == RTM_NEWQDISC { 0 } else { PRIORITY_AND_PROTOCOL };
    let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let len = 16 + 20 + attributes.len() as u32;
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence and port: one request, one answer.
    bytes.extend([0; 8]);
    // The family is none.
    for word in [0, ifindex, handle, parent, info] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(attributes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{RTM_NEWQDISC, attribute, message};

    #[test]
    fn a_message_is_as_the_kernel_reads_it() {
        let kind = attribute(1, b"bpf\0");
        assert_eq!(kind, [&8_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), b"bpf\0"].concat());
        assert_eq!(attribute(1, b"clsact\0").len(), 12);
        let bytes = message(RTM_NEWQDISC, 0, 7, 1, 2, &kind);
        assert_eq!(bytes.len(), 44);
        assert_eq!(bytes[..4], 44_u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 7_u32.to_ne_bytes());
        assert_eq!(bytes[32..36], [0; 4]);
    }
}
