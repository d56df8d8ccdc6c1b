//! The free chunks of one worker.
//!
//! Last in, first out: the chunk that was used last is still in L2, and a pool that is used lightly
//! touches few pages. Not `Send`: no frame changes thread.

use std::cell::RefCell;
use std::rc::Rc;

use crate::arena::Arena;
use crate::buffer::Frame;

/// A pool of frames. Cloning gives another handle to the same pool.
#[derive(Clone)]
pub struct Pool {
    shared: Rc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) arena: Arena,
    free: RefCell<Free>,
}

struct Free {
    stack: Vec<u32>,
    /// Per chunk: a frame holds it. Checked in release builds, so that no chunk is ever handed out
    /// twice whatever goes wrong elsewhere.
    held: Vec<bool>,
}

impl Pool {
    /// Allocates `frames` chunks; nothing is allocated afterwards.
    ///
    /// # Panics
    /// If `frames` is zero.
    #[must_use]
    pub fn new(frames: u32) -> Self {
        let arena = Arena::new(frames);
        let free = RefCell::new(Free {
            stack: (0..frames).rev().collect(),
            held: vec![false; frames as usize],
        });
        Self { shared: Rc::new(Shared { arena, free }) }
    }

    /// An empty frame with [`HEADROOM_BYTES`](crate::HEADROOM_BYTES) before it, or `None` when all
    /// are in use. Its bytes are those of an earlier packet.
    #[must_use]
    #[inline]
    pub fn alloc(&self) -> Option<Frame> {
        let index = {
            let mut free = self.shared.free.borrow_mut();
            let index = free.stack.pop()?;
            let held = free.held.get_mut(index as usize).expect("one flag a chunk");
            assert!(!*held, "a chunk on the free stack is held by nobody");
            *held = true;
            index
        };
        Some(Frame::new(Rc::clone(&self.shared), index))
    }

    /// Frames that can be allocated now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.shared.free.borrow().stack.len()
    }

    /// Frames in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shared.arena.chunks() as usize
    }
}

impl Shared {
    /// Called by `Frame`'s drop alone.
    #[inline]
    pub(crate) fn put_back(&self, index: u32) {
        let mut free = self.free.borrow_mut();
        let held = free.held.get_mut(index as usize).expect("one flag a chunk");
        assert!(*held, "a frame that is dropped held its chunk");
        *held = false;
        free.stack.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::Pool;

    #[test]
    fn an_empty_pool_says_so_and_recovers() {
        let pool = Pool::new(2);
        let a = pool.alloc().expect("two are free");
        let b = pool.alloc().expect("one is free");
        assert!(pool.alloc().is_none());
        drop(a);
        assert_eq!(pool.available(), 1);
        drop(b);
        assert_eq!(pool.available(), pool.total());
    }

    #[test]
    fn the_chunk_used_last_comes_first() {
        let pool = Pool::new(4);
        let mut a = pool.alloc().expect("free");
        a.extend_from_slice(b"last used").expect("room");
        drop(a);
        let mut b = pool.alloc().expect("free");
        assert_eq!(&b.spare_mut()[..9], b"last used");
    }

    #[test]
    fn a_frame_keeps_the_arena_alive_after_its_pool() {
        let pool = Pool::new(1);
        let mut frame = pool.alloc().expect("free");
        drop(pool);
        frame.extend_from_slice(b"still mine").expect("room");
        assert_eq!(&frame[..], b"still mine");
    }
}
