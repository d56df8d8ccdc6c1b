//! What only the driver knows: its name, and how many queues are in use.
//!
//! By ioctl, as xsk-rs and `ethtool -l` have it; the structs are those of
//! include/uapi/linux/ethtool.h.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::sys::{check, check_fd};
use crate::{Error, Result};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// The driver of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// Name of the driver: `veth`, `ice`, `mlx5_core`.
    pub name: String,
    /// Version of the driver; often the kernel's.
    pub version: String,
    /// Where the device is: a PCI address; empty for a virtual one.
    pub bus: String,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    erom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// The driver of an interface in the calling thread's namespace.
///
/// # Errors
/// If there is no such interface, or its driver does not report it.
pub fn driver(ifname: &str) -> Result<Driver> {
    let mut info = DriverInfo {
        cmd: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        erom: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    // SAFETY: GDRVINFO writes a struct ethtool_drvinfo.
    unsafe { request(ifname, &mut info) }?.map_err(|source| Error::Ethtool {
        action: "read the driver",
        ifname: ifname.to_owned(),
        source,
    })?;
    let text = |bytes: &[u8]| {
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    };
    Ok(Driver { name: text(&info.driver), version: text(&info.version), bus: text(&info.bus) })
}

/// How many queues of an interface receive now, in the calling thread's namespace; `None` if its
/// driver does not report it, and then `Link::rx_queues` bounds it.
///
/// # Errors
/// If there is no such interface.
pub fn rx_queues(ifname: &str) -> Result<Option<u32>> {
    let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
    // SAFETY: GCHANNELS writes a struct ethtool_channels.
    match unsafe { request(ifname, &mut channels) }? {
        Ok(()) => Ok(Some(channels.rx + channels.combined).filter(|&queues| queues > 0)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(source) => Err(Error::Ethtool {
            action: "read the number of queues",
            ifname: ifname.to_owned(),
            source,
        }),
    }
}

/// # Safety
/// `command` is the struct that the command in its first field reads and writes.
unsafe fn request<T>(ifname: &str, command: &mut T) -> Result<io::Result<()>> {
    let ifru_data = std::ptr::from_mut(command).cast();
    let mut request = libc::ifreq {
        ifr_name: tap::interface_name(ifname)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data },
    };
    let answer = any_socket().and_then(|socket| {
        // SAFETY: SIOCETHTOOL reads an ifreq, and by its pointer the command, which the caller
        // vouches for; both outlive the call.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) })
    });
    match answer {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            Err(Error::NoInterface { name: ifname.to_owned() })
        }
        answer => Ok(answer.map(drop)),
    }
}

/// The ioctl is the same on any socket; it only names the namespace.
pub(crate) fn any_socket() -> io::Result<OwnedFd> {
    // SAFETY: three integers; a new fd is nobody else's.
    unsafe { check_fd(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)) }
}
