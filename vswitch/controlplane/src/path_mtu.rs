//! How large a packet gets through the underlay to a peer, as far as it is known.
//!
//! Enters: what routers of the underlay reported to the workers; time. Leaves: for a tunnel's other end
//! the largest outer packet, to `compile` and `show peers`. A way may have become wider, and no router
//! reports that: a report counts for ten minutes (RFC 1191, section 6.3), then the next packet that is
//! too large brings it again. The journal has what is known, so that a restart costs no packet; the ten
//! minutes begin anew then.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane::{Millis, PathMtu};

/// RFC 1191, section 6.3: "the recommended value for this timeout is 10 minutes".
const LIFETIME_MS: u64 = 600_000;

/// Path MTUs by underlay address; at most as many as there are peers, as workers accept no others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathMtus {
    known: BTreeMap<IpAddr, Known>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    mtu: u16,
    noted: Millis,
}

impl PathMtus {
    /// Notes what a router reported; true if forwarding is to change. What is larger than the known one
    /// is about another of several ways, or was under way for long: it changes nothing.
    pub fn note(&mut self, heard: PathMtu, now: Millis) -> bool {
        let fresh = Known { mtu: heard.mtu, noted: now };
        match self.known.get_mut(&heard.address) {
            Some(known) if heard.mtu > known.mtu => false,
            Some(known) => {
                let changed = heard.mtu < known.mtu;
                *known = fresh;
                changed
            }
            None => {
                self.known.insert(heard.address, fresh);
                true
            }
        }
    }

    /// Forgets what was reported too long ago; true if forwarding is to change.
    pub fn expire(&mut self, now: Millis) -> bool {
        let before = self.known.len();
        self.known.retain(|_, known| now.since(known.noted) < LIFETIME_MS);
        self.known.len() != before
    }

    /// What is known, by address.
    pub fn known(&self) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
        self.known.iter().map(|(address, known)| (*address, known.mtu))
    }

    /// The addresses of which others know something else.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = IpAddr> + 'a {
        let ends = self.known.keys().chain(other.known.keys()).copied();
        ends.filter(|end| self.to(*end) != other.to(*end))
    }

    /// The largest packet that gets through to this address, bytes, if a router reported one.
    #[must_use]
    pub fn to(&self, address: IpAddr) -> Option<u32> {
        self.known.get(&address).map(|known| known.mtu.into())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use dataplane::{Millis, PathMtu};

    use super::{LIFETIME_MS, PathMtus};

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 12));

    #[test]
    fn the_smallest_counts_until_nobody_has_said_it_for_a_while() {
        let (mut mtus, start) = (PathMtus::default(), Millis(7));
        let heard = |mtu| PathMtu { address: PEER, mtu };
        assert_eq!(mtus.to(PEER), None);
        assert!(mtus.note(heard(1400), start));
        assert!(!mtus.note(heard(1450), start));
        assert_eq!(mtus.to(PEER), Some(1400));
        assert!(mtus.note(heard(1300), start));
        assert_eq!(mtus.to(PEER), Some(1300));

        let again = Millis(start.0 + 60_000);
        assert!(!mtus.note(heard(1300), again));
        assert!(!mtus.expire(Millis(start.0 + LIFETIME_MS)));
        assert_eq!(mtus.to(PEER), Some(1300));
        assert!(mtus.expire(Millis(again.0 + LIFETIME_MS)));
        assert_eq!(mtus.to(PEER), None);
        assert!(!mtus.expire(Millis(again.0 + LIFETIME_MS)));
    }
}
