//! Opening `/dev/net/tun`, and what to do where that fails.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use crate::{Error, Result};

const PATH: &str = "/dev/net/tun";

/// Opens `/dev/net/tun`, non-blocking.
///
/// # Errors
/// `Device`, with what stands in the way.
pub(crate) fn open() -> Result<File> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(PATH);
    opened.map_err(|source| {
        let mode = fs::metadata(PATH).ok().map(|metadata| metadata.mode());
        Error::Device { advice: advice(source.raw_os_error(), mode), source }
    })
}

/// What to do about an error of opening it, given the mode of the device file.
fn advice(error: Option<i32>, mode: Option<u32>) -> String {
    match (error, mode) {
        // Everybody may open it where udev made it: what asks for a privilege is making a device.
        (Some(libc::EACCES), Some(mode)) => format!(
            "its mode is {:04o}, which keeps this user out: chmod 0666 {PATH}, as udev makes it",
            mode & 0o7777
        ),
        // The file's mode allows it, so it is the device controller of the cgroup.
        (Some(libc::EPERM), _) => {
            format!(
                "the cgroup of this process forbids the device: allow it, DeviceAllow={PATH} rw"
            )
        }
        (Some(libc::ENOENT), _) => {
            format!("it is not there: mkdir -p /dev/net; mknod -m 0666 {PATH} c 10 200")
        }
        (Some(libc::ENODEV | libc::ENXIO), _) => {
            "the kernel lacks the TUN driver: modprobe tun".to_owned()
        }
        _ => "it needs the TUN driver, and to be readable and writable for this user".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::advice;

    #[test]
    fn a_mode_that_keeps_the_user_out_is_named_with_its_cure() {
        let told = advice(Some(libc::EACCES), Some(0o020_600));
        assert!(told.contains("its mode is 0600"), "{told}");
        assert!(told.contains("chmod 0666 /dev/net/tun"), "{told}");
    }

    #[test]
    fn other_obstacles_are_not_blamed_on_the_mode() {
        for (error, cure) in [
            (libc::EPERM, "DeviceAllow=/dev/net/tun rw"),
            (libc::ENOENT, "mknod -m 0666 /dev/net/tun"),
            (libc::ENODEV, "modprobe tun"),
            (libc::ENXIO, "modprobe tun"),
        ] {
            let told = advice(Some(error), Some(0o020_600));
            assert!(told.contains(cure), "{error}: {told}");
            assert!(!told.contains("its mode"), "{error}: {told}");
        }
    }
}
