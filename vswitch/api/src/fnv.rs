//! A hash that is the same in every version and build of these programs.
//!
//! Enters: bytes. Leaves: 64 bits, by which files, names and contents are told apart; anybody can make two
//! that are equal, so nothing is safe by it.

use core::hash::Hasher;

/// FNV-1a of 64 bits (draft-eastlake-fnv).
#[derive(Debug, Clone, Copy)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher;

    use super::Fnv;

    #[test]
    fn it_is_the_published_function() {
        for (bytes, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            let mut fnv = Fnv::default();
            fnv.write(bytes.as_bytes());
            assert_eq!(fnv.finish(), hash, "{bytes:?}");
        }
    }
}
