//! Memory that threads share word by word: the session table's.
//!
//! Enters: a number of words for the heap, or a mapping that `netio` made of a file. Leaves: a slice
//! of atomics, which needs no `unsafe` to use. The memory lives as long as its last clone.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::prefetch::prefetch;

const LINE_BYTES: usize = 64;

/// Atomic words, the first at the start of a cache line. Clones share them.
#[derive(Clone)]
pub struct Words {
    base: NonNull<AtomicU64>,
    len: usize,
    _owner: Arc<Owner>,
}

/// Gives the memory back when it is dropped, which is never read.
struct Owner {
    release: Option<Box<dyn FnOnce() + Send + Sync>>,
}

// SAFETY: the words are atomics, which threads may share. `base` stays valid while the owner lives, and
// the owner can be dropped by any thread, as what it calls is Send.
unsafe impl Send for Words {}
// SAFETY: as above; `&Words` gives out `&[AtomicU64]` and nothing else.
unsafe impl Sync for Words {}

impl Words {
    /// Zeroed words on the heap. Their pages become resident when they are first touched.
    ///
    /// # Panics
    /// If the size overflows `isize`.
    #[must_use]
    pub fn on_heap(len: usize) -> Self {
        let bytes =
            len.checked_mul(size_of::<u64>()).and_then(|bytes| bytes.checked_add(LINE_BYTES));
        // The allocator's own alignment, and the line found inside: zeros of a larger alignment would be
        // written by hand and be wholly resident.
        let layout = bytes
            .and_then(|bytes| Layout::from_size_align(bytes, align_of::<AtomicU64>()).ok())
            .expect("the words fit the address space");
        // SAFETY: the layout's size is not zero, as a line is added to it.
        let allocation = unsafe { alloc_zeroed(layout) };
        let allocation = NonNull::new(allocation).unwrap_or_else(|| handle_alloc_error(layout));
        let to_line = allocation.as_ptr().align_offset(LINE_BYTES);
        assert!(to_line < LINE_BYTES, "a byte pointer can be aligned to a line");
        // SAFETY: to_line < LINE_BYTES, which the allocation holds beyond its words.
        let base = unsafe { allocation.add(to_line) }.cast();
        let allocation = Allocation { allocation, layout };
        let release = Some(Box::new(move || allocation.free()) as Box<_>);
        Self { base, len, _owner: Arc::new(Owner { release }) }
    }

    /// The words of a mapping. `release` is called once, when the last clone is dropped.
    ///
    /// # Safety
    /// From now until `release` is called, `len` words from `base` on are mapped, may be read and
    /// written, and are accessed by nothing in this process except through atomics of their size.
    /// `base` is aligned to a cache line, and `len` words are at most `isize::MAX` bytes.
    #[must_use]
    pub unsafe fn from_mapping(
        base: NonNull<u64>,
        len: usize,
        release: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        debug_assert!(base.as_ptr().align_offset(LINE_BYTES) == 0, "a mapping begins with a line");
        let release = Some(Box::new(release) as Box<_>);
        Self { base: base.cast(), len, _owner: Arc::new(Owner { release }) }
    }

    /// Asks the processor to load a word's cache line, if there is such a word. Has no effect that
    /// could be seen but time.
    #[inline]
    pub fn prefetch(&self, at: usize) {
        if let Some(word) = self.get(at) {
            prefetch(word);
        }
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `len` words from `base` are valid while the owner lives, which `self` keeps alive:
        // on the heap they were allocated zeroed, so initialized; of a mapping the caller of
        // `from_mapping` promised it. An AtomicU64 has the layout of a u64 and any value.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Words").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

struct Allocation {
    allocation: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it is an address and a size; freeing is allowed from any thread.
unsafe impl Send for Allocation {}
// SAFETY: a shared reference to it allows nothing.
unsafe impl Sync for Allocation {}

impl Allocation {
    fn free(self) {
        // SAFETY: it came from `alloc_zeroed` with this layout, and is freed once, as `self` is taken.
        // No reference is left: the last clone of its Words was just dropped.
        unsafe { dealloc(self.allocation.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::thread;

    use super::{LINE_BYTES, Words};

    #[test]
    fn words_on_the_heap_begin_zeroed_with_a_line() {
        let words = Words::on_heap(100);
        assert_eq!(words.len(), 100);
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        assert_eq!(words.as_ptr().align_offset(LINE_BYTES), 0);
        assert!(Words::on_heap(0).is_empty());
    }

    #[test]
    fn clones_share_their_words_between_threads() {
        let words = Words::on_heap(2);
        let clone = words.clone();
        let writer = thread::spawn(move || {
            clone[1].store(7, Ordering::Release);
            clone.prefetch(1);
            clone.prefetch(2);
        });
        writer.join().unwrap();
        assert_eq!(words[1].load(Ordering::Acquire), 7);
        assert_eq!(words[0].load(Ordering::Relaxed), 0);
    }

    #[repr(align(64))]
    struct Page {
        words: [AtomicU64; 16],
    }

    struct Leaked(NonNull<Page>);

    // SAFETY: the page is leaked memory of atomics, which any thread may use and free.
    unsafe impl Send for Leaked {}
    // SAFETY: as above.
    unsafe impl Sync for Leaked {}

    impl Leaked {
        fn free(self) {
            // SAFETY: the page came from a Box, and `self` was the last to refer to it.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }

    #[test]
    fn a_mapping_is_released_with_its_last_clone() {
        let page = Box::leak(Box::new(Page { words: [const { AtomicU64::new(3) }; 16] }));
        assert_eq!(page.words[0].load(Ordering::Relaxed), 3);
        let page = NonNull::from(page);
        let (released, leaked) = (Arc::new(AtomicBool::new(false)), Leaked(page));
        let seen = Arc::clone(&released);
        let release = move || {
            seen.store(true, Ordering::Relaxed);
            leaked.free();
        };
        // SAFETY: the page lives until `release`, is aligned to a line, and is accessed by `words` alone.
        let words = unsafe { Words::from_mapping(page.cast(), 16, release) };
        let clone = words.clone();
        drop(words);
        assert!(!released.load(Ordering::Relaxed));
        assert_eq!(clone.len(), 16);
        assert_eq!(clone[15].load(Ordering::Relaxed), 3);
        drop(clone);
        assert!(released.load(Ordering::Relaxed));
    }
}
