//! The owner of each chunk of a UMEM: we, or the kernel by one of the rings.
//!
//! The rings are memory that the kernel writes. A descriptor in one is believed only if it lies in
//! one chunk of ours and the kernel had that chunk by that way: a faulty driver that hands a chunk
//! back twice, or one that it never had, could otherwise make two packets share bytes. Checked in
//! release builds: two loads and a compare, in a table of one byte a chunk.

/// Size of a chunk and its alignment: what AF_XDP allows at most without huge pages.
pub(super) const CHUNK_BYTES: usize = 4096;

/// The owner of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// We, and nothing is in it.
    Free,
    /// The kernel, to receive into; it comes back by the receive ring.
    InFillRing,
    /// The kernel, to send from; it comes back by the completion ring.
    InTxRing,
}

/// The chunks of one direction. Receiving and sending have chunks of their own, so that neither
/// can starve the other.
#[derive(Debug)]
pub(super) struct Chunks {
    /// The first chunk's number in the UMEM; from there on they are counted here from 0.
    first: usize,
    owners: Vec<Owner>,
    /// Last in, first out: the chunk used last is still in the cache.
    free: Vec<usize>,
    violations: u64,
}

impl Chunks {
    pub(super) fn new(first: usize, count: usize) -> Self {
        let free = (0..count).rev().collect();
        Self { first, owners: vec![Owner::Free; count], free, violations: 0 }
    }

    /// Takes a free chunk; it has no owner until it is lent or put back.
    pub(super) fn take(&mut self) -> Option<usize> {
        self.free.pop()
    }

    /// Puts back a chunk that was taken and not lent.
    pub(super) fn put_back(&mut self, chunk: usize) {
        debug_assert_eq!(self.owners[chunk], Owner::Free, "a chunk that is lent is the kernel's");
        self.free.push(chunk);
    }

    /// Notes that a chunk that was taken is the kernel's now.
    pub(super) fn lend(&mut self, chunk: usize, to: Owner) {
        self.owners[chunk] = to;
    }

    /// The chunk that the kernel gives back by a descriptor, taken; `None`, and a violation
    /// counted, if it is not the kernel's to give or the bytes leave the chunk.
    pub(super) fn reclaim(&mut self, address: usize, len: usize, from: Owner) -> Option<usize> {
        let chunk = (address / CHUNK_BYTES).wrapping_sub(self.first);
        let in_chunk = len <= CHUNK_BYTES - address % CHUNK_BYTES;
        match self.owners.get_mut(chunk) {
            Some(owner) if *owner == from && in_chunk => {
                *owner = Owner::Free;
                Some(chunk)
            }
            _ => {
                self.violations += 1;
                None
            }
        }
    }

    pub(super) fn violations(&self) -> u64 {
        self.violations
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_BYTES, Chunks, Owner};

    /// Chunks 4 to 7 of a UMEM, the first of which the kernel has.
    fn lent() -> Chunks {
        let mut chunks = Chunks::new(4, 4);
        let chunk = chunks.take().expect("four are free");
        chunks.lend(chunk, Owner::InFillRing);
        chunks
    }

    #[test]
    fn a_chunk_goes_and_comes_back_once() {
        let mut chunks = lent();
        let address = 4 * CHUNK_BYTES + 256;
        assert_eq!(chunks.reclaim(address, 1514, Owner::InFillRing), Some(0));
        assert_eq!(chunks.reclaim(address, 1514, Owner::InFillRing), None, "a second time");
        assert_eq!(chunks.violations(), 1);
    }

    #[test]
    fn descriptors_that_are_not_the_kernels_to_give_are_refused() {
        let base = 4 * CHUNK_BYTES;
        for (what, address, len, by) in [
            ("a chunk that we have", base + CHUNK_BYTES, 60, Owner::InFillRing),
            ("a chunk of the other direction", base - 1, 1, Owner::InFillRing),
            ("beyond the last chunk", base + 4 * CHUNK_BYTES, 60, Owner::InFillRing),
            ("the end of the address space", usize::MAX, 1, Owner::InFillRing),
            ("bytes of the next chunk", base + 256, CHUNK_BYTES - 255, Owner::InFillRing),
            ("a length that overflows", base + 256, usize::MAX, Owner::InFillRing),
            ("by the wrong ring", base, 0, Owner::InTxRing),
        ] {
            let mut chunks = lent();
            assert_eq!(chunks.reclaim(address, len, by), None, "{what}");
            assert_eq!(chunks.violations(), 1, "{what}");
            assert!(chunks.reclaim(base, CHUNK_BYTES, Owner::InFillRing).is_some(), "{what}");
        }
    }

    #[test]
    fn all_chunks_are_handed_out_once_and_come_again() {
        let mut chunks = Chunks::new(0, 3);
        let mut taken: Vec<_> = std::iter::from_fn(|| chunks.take()).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2]);
        chunks.put_back(1);
        assert_eq!(chunks.take(), Some(1));
        assert_eq!(chunks.take(), None);
    }
}
