//! The pod's network namespace, and the TAP device. The plugin's only unsafe code is here: three
//! ioctls of TUN.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::Error;

/// `NSFS_MAGIC` of the kernel's include/uapi/linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The kernel fills in the number: unique in the namespace, and the device leaves it at once.
const TAP_NAME_PATTERN: &[u8] = b"vswtap%d";

/// `struct virtio_net_hdr_mrg_rxbuf`: the ten bytes of `virtio_net_hdr` and `num_buffers`.
const VNET_HDR_BYTES: libc::c_int = 12;

/// What the switch takes unsegmented and without checksum, best first: checksum, TSO for IPv4 and
/// IPv6, USO for both (kernel 6.2 and later); without USO; checksum alone; nothing.
const OFFLOADS: [libc::c_ulong; 4] = [0x67, 0x07, 0x01, 0x00];

/// A pod's network namespace, held open.
pub(crate) struct NetNs {
    file: File,
    path: PathBuf,
}

impl NetNs {
    /// Opens the namespace at `path`.
    ///
    /// # Errors
    /// `Netns` if the path is not there, is no network namespace, or is the plugin's own one.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let refuse = |why: String| Error::Netns { path: path.to_owned(), why };
        // Non-blocking: what is there instead of a namespace may be a FIFO.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| refuse(format!("cannot be opened: {error}")))?;
        let no_stat = |error: io::Error| refuse(format!("cannot be examined: {error}"));
        let statfs = rustix::fs::fstatfs(&file).map_err(|error| no_stat(error.into()))?;
        if statfs.f_type as u64 != NSFS_MAGIC {
            return Err(refuse("is no namespace".into()));
        }
        let own = fs::metadata("/proc/thread-self/ns/net").map_err(no_stat)?;
        let metadata = file.metadata().map_err(no_stat)?;
        if (own.dev(), own.ino()) == (metadata.dev(), metadata.ino()) {
            return Err(refuse("is the one that the plugin itself runs in".into()));
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Runs `work` inside, in a thread that ends with it: no other ever enters.
    ///
    /// # Errors
    /// `Netns` if it cannot be entered; else what `work` returns.
    pub(crate) fn run<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let inside = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| Error::Netns {
                    path: self.path.clone(),
                    why: format!("cannot be entered: {}", io::Error::from(error)),
                })?;
            work()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A TAP device that lives as long as a descriptor of it does.
pub(crate) struct Tap {
    file: File,
    /// The name that it was made with.
    pub(crate) name: String,
}

impl Tap {
    /// Makes a TAP in the namespace of the calling thread. `/dev/net/tun` is opened there too: a
    /// descriptor keeps the namespace alive in which it was opened, and the pod's must be able to
    /// go.
    ///
    /// # Errors
    /// `Kernel`.
    pub(crate) fn create() -> Result<Self, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(Error::kernel("open /dev/net/tun"))?;

        let mut name = [0; libc::IFNAMSIZ];
        for (to, from) in name.iter_mut().zip(TAP_NAME_PATTERN) {
            *to = *from as libc::c_char;
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let mut request = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags as libc::c_short },
        };
        // SAFETY: the descriptor is open for the whole call; TUNSETIFF reads and writes one
        // `struct ifreq`, which `request` is, alone borrowed, and its name ends with NUL as the
        // pattern is shorter than the field.
        let status = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        check(status).map_err(Error::kernel("create a TAP device"))?;

        let len = VNET_HDR_BYTES;
        // SAFETY: TUNSETVNETHDRSZ reads one int through the pointer, and `len` outlives the call.
        let status =
            unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) };
        check(status).map_err(Error::kernel("set the TAP device's header length"))?;

        let mut outcome = Ok(());
        for offloads in OFFLOADS {
            // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
            let status = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) };
            outcome = check(status);
            if outcome.is_ok() {
                break;
            }
        }
        outcome.map_err(Error::kernel("set the TAP device's offloads"))?;

        let bytes = request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
        let name = String::from_utf8(bytes).expect("the kernel put digits for `%d`");
        Ok(Self { file, name })
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::NetNs;

    #[test]
    fn what_is_no_other_network_namespace_is_code_8() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let table = [
            (Path::new("/proc/self/ns/net"), "is the one that the plugin itself runs in"),
            (file.path(), "is no namespace"),
            (Path::new("/nowhere"), "cannot be opened: No such file or directory (os error 2)"),
        ];
        for (path, why) in table {
            let error = NetNs::open(path).err().expect("refused");
            assert_eq!(error.code(), 8);
            assert_eq!(error.to_string(), format!("network namespace {path:?} {why}"));
        }
    }
}
