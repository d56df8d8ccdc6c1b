//! Which backend a flow is given to: Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! Every backend has an order of preference of all places of a table, made of its own name alone, and
//! they take turns to take their next free place. So each has an equal share, and places of the others
//! hardly move when one comes or goes. Tables of the same backends are equal on every node and in every
//! version of this program: the hashes are defined here.

use super::Backend;
use crate::session::{Endpoint, Tuple};

/// Primes, with at least 64 places for each of so many backends. A table of another size moves most
/// flows that have no session yet: this happens when the number of backends passes a power of two, and
/// not among the first four.
const SIZES: [(usize, u32); 9] = [
    (4, 257),
    (8, 521),
    (16, 1031),
    (32, 2053),
    (64, 4099),
    (128, 8209),
    (256, 16_411),
    (512, 32_771),
    // Beyond, places for each backend become fewer.
    (usize::MAX, 65_537),
];

/// A backend for each place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Maglev {
    places: Vec<u16>,
}

impl Maglev {
    /// The table of backends in the order of their endpoints; those beyond 65,535 get no place.
    pub(super) fn of(backends: &[Backend]) -> Self {
        let backends = backends.get(..usize::from(u16::MAX)).unwrap_or(backends);
        if backends.is_empty() {
            return Self::default();
        }
        let size =
            SIZES.iter().find(|(most, _)| backends.len() <= *most).map_or(65_537, |one| one.1);
        let mut turns: Vec<_> =
            backends.iter().map(|backend| Preference::of(&backend.endpoint, size)).collect();
        let mut places: Vec<Option<u16>> = vec![None; size as usize];
        let mut left = size;
        while left > 0 {
            for (backend, turn) in (0..).zip(&mut turns) {
                if left == 0 {
                    break;
                }
                // It visits every place once in `size` steps, and one is free.
                while let Some(place) = places.get_mut(turn.next() as usize) {
                    if place.is_none() {
                        *place = Some(backend);
                        left -= 1;
                        break;
                    }
                }
            }
        }
        Self { places: places.into_iter().flatten().collect() }
    }

    /// The number of the backend at a place of the hash.
    #[inline]
    pub(super) fn choose(&self, hash: u64) -> Option<usize> {
        // As a fraction of all hashes: no division.
        let place = (u128::from(hash) * self.places.len() as u128) >> 64;
        self.places.get(place as usize).map(|backend| usize::from(*backend))
    }
}

/// The places of a table in the order in which one backend wants them.
struct Preference {
    at: u32,
    step: u32,
    size: u32,
}

impl Preference {
    fn of(endpoint: &Endpoint, size: u32) -> Self {
        let hash = hash_endpoint(Hash::new(BACKEND), endpoint).finish();
        let at = (hash >> 32) as u32 % size;
        // Of a prime, every step but zero visits all places.
        Self { at, step: 1 + hash as u32 % (size - 1), size }
    }

    fn next(&mut self) -> u32 {
        let at = self.at;
        self.at = (self.at + self.step) % self.size;
        at
    }
}

/// What is hashed, so that these have nothing to do with each other.
const BACKEND: u64 = 1;
const FLOW: u64 = 2;
const IDENTITY: u64 = 3;

/// A number of a backend, which has nothing to do with its places.
pub(super) fn identity(endpoint: &Endpoint) -> u32 {
    (hash_endpoint(Hash::new(IDENTITY), endpoint).finish() >> 32) as u32
}

/// The hash of a flow to a service. Without the client's port all flows of a client have the same, and
/// without the virtual address those to all addresses of a service.
pub(super) fn hash_of(flow: &Tuple, with_port: bool) -> u64 {
    let client = flow.source();
    let port = if with_port { client.port } else { 0 };
    let client = Endpoint { port, ..client };
    let service = u64::from(flow.destination().port) << 8 | u64::from(flow.protocol().0);
    hash_endpoint(Hash::new(FLOW), &client).add(service).finish()
}

fn hash_endpoint(hash: Hash, endpoint: &Endpoint) -> Hash {
    let bits = match endpoint.address {
        core::net::IpAddr::V4(address) => u128::from(address.to_bits()),
        core::net::IpAddr::V6(address) => address.to_bits(),
    };
    hash.add((bits >> 64) as u64).add(bits as u64).add(endpoint.port.into())
}

/// A hash of words by multiplication and xor-shift (the finalizer of splitmix64, Steele et al., OOPSLA
/// 2014): it need not be secret, as a client chooses a backend with its port in any case.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    const fn new(purpose: u64) -> Self {
        Self(purpose)
    }

    const fn add(self, word: u64) -> Self {
        let mut mixed = (self.0 ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(mixed ^ (mixed >> 31))
    }

    const fn finish(self) -> u64 {
        self.0
    }
}
