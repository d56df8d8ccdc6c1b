//! Settings of the kernel, by the names that sysctl(8) has for them.
//!
//! Enters: a name. Leaves: the setting's value, or another one in its place. `host`, `router_advertisements`
//! and the daemon's comparisons call it.

use std::fs;
use std::io;

/// A setting, if it is there.
#[must_use]
pub fn read(name: &str) -> Option<i64> {
    fs::read_to_string(path(name)).ok()?.trim().parse().ok()
}

/// Sets a setting.
///
/// # Errors
/// If it may not be written: the shipped unit has settings read-only.
pub fn set(name: &str, value: i64) -> io::Result<()> {
    fs::write(path(name), value.to_string())
}

/// The name of an interface's setting, of `ipv4` or `ipv6`. The dots in the name of an interface, as VLANs have
/// them, are no separators.
#[must_use]
pub fn of_interface(family: &str, interface: &str, setting: &str) -> String {
    let separator = if interface.contains('.') { "/" } else { "." };
    ["net", family, "conf", interface, setting].join(separator)
}

/// A name whose first separator is a slash has no other.
fn path(name: &str) -> String {
    let separators = name.find(['.', '/']).and_then(|at| name.get(at..=at));
    let below = if separators == Some("/") { name.to_owned() } else { name.replace('.', "/") };
    format!("/proc/sys/{below}")
}

#[cfg(test)]
mod tests {
    use super::{of_interface, path};

    #[test]
    fn dots_of_an_interface_are_part_of_its_name() {
        for (interface, name) in [
            ("eth0", "net.ipv6.conf.eth0.accept_ra"),
            ("eth0.100", "net/ipv6/conf/eth0.100/accept_ra"),
        ] {
            let setting = of_interface("ipv6", interface, "accept_ra");
            assert_eq!(setting, name);
            assert_eq!(path(&setting), format!("/proc/sys/net/ipv6/conf/{interface}/accept_ra"));
        }
    }
}
