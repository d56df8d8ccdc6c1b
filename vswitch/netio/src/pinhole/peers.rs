//! The addresses of the other tunnel ends, where the program finds them.
//!
//! Enters: the whole set, from `pinhole`, whenever it changes. Leaves: two maps of the kernel's, one
//! a family, in which the program looks. What changes is a call for each address that comes or goes;
//! packets meet each change at once, and no other packet is touched.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use super::bpf::AddressSet;
use crate::Result;

/// Of a map for few peers. A place takes some 70 bytes of the kernel's memory.
const LEAST_CAPACITY: u32 = 256;

/// The other ends of the tunnels, as a program knows them.
#[derive(Debug)]
pub struct PeerMap {
    v4: AddressSet,
    v6: AddressSet,
    held: BTreeSet<IpAddr>,
}

impl PeerMap {
    /// A map that holds these addresses, with room for as many again.
    ///
    /// # Errors
    /// If the kernel refuses, for want of privileges or of memory.
    pub fn new(addresses: &BTreeSet<IpAddr>) -> Result<Self> {
        let [v4, v6] = count(addresses).map(room_for);
        let mut map = Self {
            v4: AddressSet::new(true, v4)?,
            v6: AddressSet::new(false, v6)?,
            held: BTreeSet::new(),
        };
        map.add(addresses)?;
        Ok(map)
    }

    /// Whether these addresses have room beside those that are held.
    #[must_use]
    pub fn has_room_for(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        let [held4, held6] = count(&self.held);
        let [more4, more6] = count(addresses.difference(&self.held));
        held4 + more4 <= self.v4.capacity() && held6 + more6 <= self.v6.capacity()
    }

    /// Adds those of the addresses that are missing.
    ///
    /// # Errors
    /// If there is no room; some may have been added then.
    pub fn add(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<()> {
        let missing: Vec<_> = addresses.difference(&self.held).copied().collect();
        for address in missing {
            self.set_of(address).insert(address)?;
            self.held.insert(address);
        }
        Ok(())
    }

    /// Removes all but these addresses.
    ///
    /// # Errors
    /// If the kernel refuses; some may have been removed then.
    pub fn retain(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<()> {
        let gone: Vec<_> = self.held.difference(addresses).copied().collect();
        for address in gone {
            self.set_of(address).remove(address)?;
            self.held.remove(&address);
        }
        Ok(())
    }

    /// Adds those addresses again that another program removed; how many.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn restore(&mut self) -> Result<usize> {
        let mut missing = 0;
        for address in &self.held {
            let set = self.set_of(*address);
            if !set.has(*address)? {
                set.insert(*address)?;
                missing += 1;
            }
        }
        Ok(missing)
    }

    /// The map's fd for instructions that look for an IPv4 address.
    pub(super) fn fd4(&self) -> i32 {
        self.v4.as_fd().as_raw_fd()
    }

    /// Likewise an IPv6 address.
    pub(super) fn fd6(&self) -> i32 {
        self.v6.as_fd().as_raw_fd()
    }

    fn set_of(&self, address: IpAddr) -> &AddressSet {
        if address.is_ipv4() { &self.v4 } else { &self.v6 }
    }
}

/// IPv4 and IPv6.
fn count<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> [usize; 2] {
    addresses.into_iter().fold([0, 0], |[v4, v6], address| match address {
        IpAddr::V4(_) => [v4 + 1, v6],
        IpAddr::V6(_) => [v4, v6 + 1],
    })
}

/// So many that a few more come without another map.
fn room_for(count: usize) -> u32 {
    let wanted = u32::try_from(count).unwrap_or(u32::MAX / 4).saturating_mul(2);
    wanted.max(LEAST_CAPACITY).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{count, room_for};

    #[test]
    fn there_is_room_for_as_many_again() {
        for (count, room) in [(0, 256), (128, 256), (129, 512), (10_000, 32_768)] {
            assert_eq!(room_for(count), room, "{count}");
        }
    }

    #[test]
    fn families_are_counted_apart() {
        let addresses: [IpAddr; 3] = [[198, 51, 100, 1].into(), [0; 16].into(), [1; 16].into()];
        assert_eq!(count(&addresses), [1, 2]);
    }
}
