//! The memory under a [`Pool`](crate::Pool): one zeroed allocation, cut into chunks of one size.
//!
//! Enters: a count of chunks. Leaves: pointers to chunks, to `pool` and `buffer` only.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Free bytes before a frame that was just received.
///
/// The largest header that is pushed is 14 + 40 + 8 + 8 + 14 = 84 (VXLAN over IPv6 with the inner
/// Ethernet header), and a TAP write wants up to 24 more for the virtio header in front of it; two
/// cache lines hold both.
pub const HEADROOM_BYTES: usize = 128;

/// Bytes of a frame that was just received, at most: a 64 KB superframe.
///
/// 65,535 of IP and 14 of Ethernet with two VLAN tags are 65,557; rounded up to whole cache lines.
pub const CAPACITY_BYTES: usize = 65_600;

/// Distance of two chunks: 1,027 cache lines.
///
/// Odd, so that the first lines of consecutive chunks fall into different cache sets; with a power
/// of two, every header would compete for the same few ways of L1 and L2.
pub(crate) const STRIDE_BYTES: usize = HEADROOM_BYTES + CAPACITY_BYTES;

const _: () =
    assert!(STRIDE_BYTES.is_multiple_of(LINE_BYTES) && STRIDE_BYTES / LINE_BYTES % 2 == 1);

const LINE_BYTES: usize = 64;

pub(crate) struct Arena {
    allocation: NonNull<u8>,
    layout: Layout,
    /// The first cache line in the allocation.
    base: NonNull<u8>,
    chunks: u32,
}

impl Arena {
    /// Zeroed, so that every byte of every chunk is initialized from the start.
    ///
    /// Only an alignment that malloc has anyway gets its zeros from fresh pages, which the kernel
    /// hands out when they are first touched; a larger one is cleared by hand and wholly resident.
    /// So the cache line is found inside the allocation.
    ///
    /// # Panics
    /// If `chunks` is zero or the size overflows `isize`.
    pub(crate) fn new(chunks: u32) -> Self {
        assert!(chunks > 0, "an arena needs at least one chunk");
        let layout = Layout::from_size_align(STRIDE_BYTES * chunks as usize + LINE_BYTES, 16)
            .expect("chunks × stride fits the address space");
        // SAFETY: the layout's size is not zero, as `chunks` is not.
        let allocation = unsafe { alloc_zeroed(layout) };
        let allocation = NonNull::new(allocation).unwrap_or_else(|| handle_alloc_error(layout));
        let to_line = allocation.as_ptr().align_offset(LINE_BYTES);
        assert!(to_line < LINE_BYTES, "a byte pointer can be aligned to a line");
        // SAFETY: to_line < LINE_BYTES, which the allocation holds beyond its chunks.
        let base = unsafe { allocation.add(to_line) };
        Self { allocation, layout, base, chunks }
    }

    pub(crate) fn chunks(&self) -> u32 {
        self.chunks
    }

    /// The first byte of a chunk; the chunk is `STRIDE_BYTES` long and wholly initialized.
    ///
    /// # Safety
    /// `index` is below [`Arena::chunks`].
    #[inline]
    pub(crate) unsafe fn chunk(&self, index: u32) -> NonNull<u8> {
        debug_assert!(index < self.chunks, "chunk index is in the arena");
        // SAFETY: index < chunks, so the chunk lies in the chunks × STRIDE_BYTES bytes that
        // follow `base` in its allocation, which `from_size_align` held below isize::MAX.
        unsafe { self.base.add(index as usize * STRIDE_BYTES) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: `allocation` came from `alloc_zeroed` with this layout, and is freed once: an Arena is
        // neither Copy nor Clone. No frame outlives it, as each holds a reference to the pool.
        unsafe { dealloc(self.allocation.as_ptr(), self.layout) }
    }
}
