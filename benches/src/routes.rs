//! Prefixes in the proportions of a full table, and addresses inside them.
//!
//! A table of /32s alone would flatter a lookup that asks one hash table per length. The IPv4
//! lengths are those of the Internet's table, rounded; the IPv6 ones are an operator's aggregates
//! down to single links. None of them contains a pod's address.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::Random;

/// Length and how many of a thousand prefixes have it.
const LENGTHS_V4: [(u8, usize); 10] = [
    (24, 600),
    (23, 105),
    (22, 110),
    (21, 55),
    (20, 45),
    (19, 30),
    (18, 18),
    (17, 10),
    (16, 17),
    (14, 10),
];

const LENGTHS_V6: [(u8, usize); 7] =
    [(48, 480), (64, 120), (56, 100), (44, 120), (52, 60), (60, 60), (40, 60)];

/// `count` different IPv4 prefixes.
#[must_use]
pub fn prefixes_v4(count: usize, random: &mut Random) -> Vec<(Ipv4Addr, u8)> {
    distinct(count, || {
        let len = length(&LENGTHS_V4, random);
        // 1.0.0.0 to 126.255.255.255: unicast, and apart from the pods.
        let address = (random.bits() as u32) % (126 << 24) + (1 << 24);
        (Ipv4Addr::from_bits(address & u32::MAX << (32 - len)), len)
    })
}

/// `count` different IPv6 prefixes in 2001:db8::/32.
#[must_use]
pub fn prefixes_v6(count: usize, random: &mut Random) -> Vec<(Ipv6Addr, u8)> {
    distinct(count, || {
        let len = length(&LENGTHS_V6, random);
        let address = 0x2001_0db8 << 96 | u128::from(random.bits()) << 32;
        (Ipv6Addr::from_bits(address & u128::MAX << (128 - len)), len)
    })
}

/// An address inside the prefix.
#[must_use]
pub fn inside_v4((prefix, len): (Ipv4Addr, u8), random: &mut Random) -> Ipv4Addr {
    Ipv4Addr::from_bits(prefix.to_bits() | random.bits() as u32 & (u32::MAX >> len))
}

/// An address inside the prefix.
#[must_use]
pub fn inside_v6((prefix, len): (Ipv6Addr, u8), random: &mut Random) -> Ipv6Addr {
    Ipv6Addr::from_bits(prefix.to_bits() | u128::from(random.bits()) & (u128::MAX >> len))
}

fn distinct<P: Copy + Eq + std::hash::Hash>(count: usize, mut make: impl FnMut() -> P) -> Vec<P> {
    let mut seen = HashSet::with_capacity(count);
    std::iter::from_fn(|| Some(make())).filter(|prefix| seen.insert(*prefix)).take(count).collect()
}

/// Few short prefixes exist: once those are used up, `distinct` draws again.
fn length(lengths: &[(u8, usize)], random: &mut Random) -> u8 {
    let mut at = random.below(lengths.iter().map(|(_, share)| share).sum());
    for (len, share) in lengths {
        match at.checked_sub(*share) {
            Some(left) => at = left,
            None => return *len,
        }
    }
    unreachable!("`at` is below the sum of all shares")
}
