//! A range of addresses, as a runtime asks for one.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Addresses of one family from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    /// The lowest.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
}

impl AddressRange {
    /// Whether an address can be in it at all.
    #[must_use]
    pub fn is_of_family(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4()
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.is_of_family(address) && (self.first..=self.last).contains(&address)
    }
}

impl fmt::Display for AddressRange {
    /// Written as `198.18.1.10 to 198.18.1.20`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::AddressRange;

    #[test]
    fn it_has_its_ends_and_what_is_between_and_nothing_of_the_other_family() {
        let range = |first: &str, last: &str| AddressRange {
            first: first.parse().expect("an address"),
            last: last.parse().expect("an address"),
        };
        let (v4, v6) = (range("198.18.1.9", "198.18.1.11"), range("fd00::9", "fd00::b"));
        for (address, in_v4, in_v6) in [
            ("198.18.1.8", false, false),
            ("198.18.1.9", true, false),
            ("198.18.1.11", true, false),
            ("198.18.1.12", false, false),
            ("fd00::8", false, false),
            ("fd00::a", false, true),
            ("::", false, false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!((v4.contains(address), v6.contains(address)), (in_v4, in_v6), "{address}");
        }
    }
}
