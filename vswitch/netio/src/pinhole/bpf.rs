//! The calls of bpf(2) for maps and programs.
//!
//! `pinhole` alone calls it; `attach` has the calls for hooks. The attribute structs are the first fields of `union bpf_attr`
//! (include/uapi/linux/bpf.h), as far as each command reads them; the kernel takes the rest as
//! zero.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::asm::Instruction;
use crate::sys::{check, check_fd};
use crate::{Error, Result};

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;

const MAP_TYPE_HASH: u32 = 1;
const MAP_TYPE_PROG_ARRAY: u32 = 3;
const MAP_TYPE_XSKMAP: u32 = 17;
/// BPF_F_RDONLY_PROG: a program looks things up and writes nothing.
const READ_ONLY_TO_PROGRAMS: u32 = 1 << 7;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
pub(super) const ATTACH_XDP: u32 = 37;

/// What a program is given: the kernel's types of programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProgramType {
    /// A frame, before the kernel has made a packet of it.
    Xdp,
    /// A packet of the kernel's, on its way in or out.
    Tc,
    /// A packet of the kernel's, of which a socket may get a copy.
    SocketFilter,
}

/// The AF_XDP socket of each queue of one NIC. A socket that is closed leaves it by itself.
#[derive(Debug)]
pub struct XskMap {
    fd: OwnedFd,
    queues: u32,
}

/// A place for one program, which other programs call. It is exchanged while they run.
#[derive(Debug)]
pub(super) struct ProgramSlot {
    fd: OwnedFd,
}

/// A set of addresses of one family, in which a program looks. The kernel has all its memory from
/// the start: what fits is never refused for want of it.
#[derive(Debug)]
pub(super) struct AddressSet {
    fd: OwnedFd,
    key_bytes: u32,
    capacity: u32,
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
struct MapElement {
    map_fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

static VALUE: [u8; 1] = [1];

const LICENSE: &std::ffi::CStr = c"Apache-2.0";

const fn name(text: &str) -> [u8; 16] {
    let mut out = [0; 16];
    let mut at = 0;
    while at < text.len() {
        out[at] = text.as_bytes()[at];
        at += 1;
    }
    out
}

impl XskMap {
    /// A map with room for a NIC's queues.
    ///
    /// # Errors
    /// If the kernel refuses, for want of privileges most likely.
    pub fn new(queues: u32) -> Result<Self> {
        let attributes = MapCreate {
            map_type: MAP_TYPE_XSKMAP,
            key_size: 4,
            value_size: 4,
            max_entries: queues,
            map_flags: 0,
            inner_map_fd: 0,
            numa_node: 0,
            map_name: name("vswitch_xsks"),
        };
        // SAFETY: MAP_CREATE only reads the attributes, which hold no pointer.
        let fd = unsafe { bpf_fd(MAP_CREATE, &attributes) }.map_err(refused("make an XSKMAP"))?;
        Ok(Self { fd, queues })
    }

    /// How many queues have a place.
    #[must_use]
    pub fn queues(&self) -> u32 {
        self.queues
    }

    /// Gives a queue's packets to an AF_XDP socket that has a receive ring; one that was there
    /// before is replaced.
    ///
    /// # Errors
    /// If the queue has no place in the map, or the fd is no such socket.
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<()> {
        let value = socket.as_raw_fd();
        let attributes = MapElement {
            map_fd: self.fd.as_raw_fd() as u32,
            _padding: 0,
            key: address(&queue),
            value: address(&value),
            flags: 0,
        };
        // SAFETY: MAP_UPDATE_ELEM reads four bytes each at key and value, the map's key and value
        // sizes; both live until the call returns.
        unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }
            .map(drop)
            .map_err(refused("put an AF_XDP socket into the XSKMAP"))
    }
}

impl AsFd for XskMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl ProgramSlot {
    /// A place that has none yet.
    pub(super) fn new() -> Result<Self> {
        let attributes = MapCreate {
            map_type: MAP_TYPE_PROG_ARRAY,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            map_flags: 0,
            inner_map_fd: 0,
            numa_node: 0,
            map_name: name("vswitch_filter"),
        };
        // SAFETY: MAP_CREATE only reads the attributes, which hold no pointer.
        let fd = unsafe { bpf_fd(MAP_CREATE, &attributes) }
            .map_err(refused("make a map for the filter of packet sockets"))?;
        Ok(Self { fd })
    }

    /// Puts a program there, in the place of the former. It needs its descriptor no more.
    pub(super) fn put(&self, program: BorrowedFd<'_>) -> Result<()> {
        let (key, value) = (0_u32, program.as_raw_fd());
        let attributes = MapElement {
            map_fd: self.fd.as_raw_fd() as u32,
            _padding: 0,
            key: address(&key),
            value: address(&value),
            flags: 0,
        };
        // SAFETY: MAP_UPDATE_ELEM reads four bytes each at key and value, the map's key and value
        // sizes; both live until the call returns.
        unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }
            .map(drop)
            .map_err(refused("exchange the filter of packet sockets"))
    }
}

impl AsFd for ProgramSlot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AddressSet {
    /// An empty set of addresses of four or sixteen bytes.
    pub(super) fn new(is_v4: bool, capacity: u32) -> Result<Self> {
        let (key_bytes, map_name) =
            if is_v4 { (4, "vswitch_peers4") } else { (16, "vswitch_peers6") };
        let attributes = MapCreate {
            map_type: MAP_TYPE_HASH,
            key_size: key_bytes,
            // Nothing is kept of an address but that it is there; the kernel wants a value.
            value_size: VALUE.len() as u32,
            max_entries: capacity,
            map_flags: READ_ONLY_TO_PROGRAMS,
            inner_map_fd: 0,
            numa_node: 0,
            map_name: name(map_name),
        };
        // SAFETY: MAP_CREATE only reads the attributes, which hold no pointer.
        let fd = unsafe { bpf_fd(MAP_CREATE, &attributes) }
            .map_err(refused("make a map of the peers' addresses"))?;
        Ok(Self { fd, key_bytes, capacity })
    }

    /// How many addresses it takes.
    pub(super) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Adds an address; one that is there already stays.
    pub(super) fn insert(&self, address: IpAddr) -> Result<()> {
        self.change(MAP_UPDATE_ELEM, address, VALUE.as_ptr() as u64)
            .map_err(refused("add a peer's address to the map"))
    }

    /// Whether an address is there.
    pub(super) fn has(&self, address: IpAddr) -> Result<bool> {
        let mut value = VALUE;
        match self.change(MAP_LOOKUP_ELEM, address, value.as_mut_ptr() as u64) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(refused("look a peer's address up in the map")(error)),
        }
    }

    /// Removes an address, whether it was there or not.
    pub(super) fn remove(&self, address: IpAddr) -> Result<()> {
        self.change(MAP_DELETE_ELEM, address, 0)
            .or_else(|error| match error.raw_os_error() {
                Some(libc::ENOENT) => Ok(()),
                _ => Err(error),
            })
            .map_err(refused("remove a peer's address from the map"))
    }

    /// `value` is the address of what an update reads or a look-up writes, one byte, and zero for all
    /// else.
    fn change(&self, command: libc::c_int, of: IpAddr, value: u64) -> io::Result<()> {
        let (v4, v6);
        let key: &[u8] = match of {
            IpAddr::V4(address) => {
                v4 = address.octets();
                &v4
            }
            IpAddr::V6(address) => {
                v6 = address.octets();
                &v6
            }
        };
        assert_eq!(key.len(), self.key_bytes as usize, "a set has addresses of one family");
        let attributes = MapElement {
            map_fd: self.fd.as_raw_fd() as u32,
            _padding: 0,
            key: key.as_ptr() as u64,
            value,
            flags: 0,
        };
        // SAFETY: every command reads `key_bytes` bytes at the key, which has as many; an update reads
        // one byte at the value, which is `VALUE`, and a look-up writes one, into a variable of the
        // caller's. All of them live until the call returns.
        unsafe { bpf(command, &attributes) }.map(drop)
    }
}

impl AsFd for AddressSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Has the verifier check a program and loads it.
pub(super) fn load(instructions: &[Instruction], kind: ProgramType) -> Result<OwnedFd> {
    // Without a log first: the kernel writes one in any case then, which is slow, and fails with
    // ENOSPC where it does not fit.
    load_with(instructions, kind, &mut []).or_else(|source| {
        let mut log = vec![0; 1 << 16];
        match load_with(instructions, kind, &mut log) {
            Ok(fd) => Ok(fd),
            Err(_) => {
                let text = log.split(|&byte| byte == 0).next().unwrap_or_default();
                let text = String::from_utf8_lossy(text);
                let detail = match text.trim() {
                    "" => String::new(),
                    text => format!("; the verifier says: {text}"),
                };
                Err(Error::Bpf { action: "load a program for the NIC", detail, source })
            }
        }
    })
}

fn load_with(
    instructions: &[Instruction],
    kind: ProgramType,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let (prog_type, expected_attach_type) = match kind {
        ProgramType::Xdp => (PROG_TYPE_XDP, ATTACH_XDP),
        // Its hook is chosen when it is attached.
        ProgramType::Tc => (PROG_TYPE_SCHED_CLS, 0),
        ProgramType::SocketFilter => (PROG_TYPE_SOCKET_FILTER, 0),
    };
    let attributes = ProgramLoad {
        prog_type,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kern_version: 0,
        prog_flags: 0,
        prog_name: name("vswitch_pinhole"),
        prog_ifindex: 0,
        expected_attach_type,
    };
    // SAFETY: PROG_LOAD reads `insn_cnt` instructions and a string that ends with NUL, and writes
    // at most `log_size` bytes into the log; all live until the call returns.
    unsafe { bpf_fd(PROG_LOAD, &attributes) }
}

/// What the program returns for a packet that arrives on queue 0. Nothing is sent.
pub(super) fn test_run(program: BorrowedFd<'_>, packet: &[u8]) -> Result<u32> {
    let mut attributes = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: packet.len() as u32,
        data_in: packet.as_ptr() as u64,
        ..TestRun::default()
    };
    // SAFETY: PROG_TEST_RUN reads `data_size_in` bytes of the packet and writes back nothing but
    // the attributes, as there is no `data_out`.
    check(unsafe { call(PROG_TEST_RUN, &raw mut attributes) })
        .map_err(refused("run a program on a packet"))?;
    Ok(attributes.retval)
}

pub(super) fn refused(action: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Bpf { action, detail: String::new(), source }
}

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}

/// # Safety
/// As for `bpf`, and the command makes a new fd.
pub(super) unsafe fn bpf_fd<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: passed on; a new fd is nobody else's.
    unsafe { check_fd(call(command, std::ptr::from_ref(attributes).cast_mut())) }
}

/// # Safety
/// The command only reads the attributes, and every pointer in them is to what the command reads
/// or writes there.
pub(super) unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: passed on.
    check(unsafe { call(command, std::ptr::from_ref(attributes).cast_mut()) })
}

/// # Safety
/// As for `bpf`, but the command may write to the attributes.
unsafe fn call<T>(command: libc::c_int, attributes: *mut T) -> libc::c_int {
    // SAFETY: the attributes are as long as we say, and the caller vouches for their pointers. The
    // result is an fd, zero or -1, all of which fit.
    unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) as libc::c_int }
}
