//! One owned frame: a chunk of the arena with a window of valid bytes in it.
//!
//! ```text
//!   0        first         first+len          STRIDE
//!   | headroom | bytes ...    | spare            |
//! ```
//!
//! `push` and `pull` move the front of the window, `truncate` and `extend` its end. Neither `Copy`
//! nor `Clone`; dropping it gives the chunk back.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::{fmt, slice};

use crate::arena::{HEADROOM_BYTES, STRIDE_BYTES};
use crate::pool::Shared;

/// One frame, owned like a `Box`. Dereferences to its valid bytes.
///
/// Invariants, which every unsafe block here rests on: `chunk` is one of the pool's arena and held by
/// no other frame, and the `len` bytes from `first` on lie in it. The fields are private to this
/// file, and each method that sets them checks what it was given.
pub struct Frame {
    pool: Rc<Shared>,
    /// The first valid byte: found once, not whenever the bytes are asked for.
    first: NonNull<u8>,
    chunk: u32,
    len: u32,
}

/// A frame has too little room before or behind its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the frame has no room for the bytes to be added")
    }
}

impl std::error::Error for NoRoom {}

impl Frame {
    /// An empty one. The caller has taken the chunk from the pool's free ones.
    ///
    /// # Panics
    /// If the arena has no such chunk.
    #[inline]
    pub(crate) fn new(pool: Rc<Shared>, chunk: u32) -> Self {
        assert!(chunk < pool.arena.chunks(), "the chunk is one of the arena's");
        // SAFETY: asserted; and the headroom is a part of the chunk.
        let first = unsafe { pool.arena.chunk(chunk).add(HEADROOM_BYTES) };
        Self { pool, first, chunk, len: 0 }
    }

    /// Valid bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// None at all.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Free bytes before the first valid one.
    #[must_use]
    #[inline]
    pub fn headroom(&self) -> usize {
        self.first.addr().get() - self.chunk_start().addr().get()
    }

    /// Free bytes behind the last valid one.
    #[must_use]
    #[inline]
    pub fn tailroom(&self) -> usize {
        STRIDE_BYTES - self.headroom() - self.len()
    }

    /// Makes the frame empty again, with the whole headroom.
    pub fn reset(&mut self) {
        // SAFETY: the headroom is a part of the chunk.
        self.first = unsafe { self.chunk_start().add(HEADROOM_BYTES) };
        self.len = 0;
    }

    /// Grows the frame at its front by `count` bytes and returns them, to be written: they hold
    /// whatever was there.
    ///
    /// # Errors
    /// `NoRoom` if the headroom is smaller; the frame is then unchanged.
    #[inline]
    pub fn push(&mut self, count: usize) -> Result<&mut [u8], NoRoom> {
        if count > self.headroom() {
            return Err(NoRoom);
        }
        // SAFETY: the headroom, which has as many bytes, lies before `first` in the chunk.
        self.first = unsafe { self.first.sub(count) };
        self.len += count as u32;
        // SAFETY: they are the first of the valid bytes.
        Ok(unsafe { self.window_mut(self.first, count) })
    }

    /// Removes `count` bytes from the front; false, and unchanged, if there are fewer.
    #[must_use]
    #[inline]
    pub fn pull(&mut self, count: usize) -> bool {
        if count > self.len as usize {
            return false;
        }
        // SAFETY: there are as many valid bytes, which lie in the chunk.
        self.first = unsafe { self.first.add(count) };
        self.len -= count as u32;
        true
    }

    /// Shortens the frame to `len` bytes; longer ones have no effect.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len < self.len as usize {
            self.len = len as u32;
        }
    }

    /// Grows the frame at its end by `count` bytes, which hold whatever was there, and returns
    /// them.
    ///
    /// # Errors
    /// `NoRoom` if the tailroom is smaller; the frame is then unchanged.
    #[inline]
    pub fn extend(&mut self, count: usize) -> Result<&mut [u8], NoRoom> {
        if count > self.tailroom() {
            return Err(NoRoom);
        }
        let spare = self.spare();
        self.len += count as u32;
        // SAFETY: the tailroom, which has as many bytes, lies behind the valid ones in the chunk.
        Ok(unsafe { self.window_mut(spare, count) })
    }

    /// Appends a copy of `bytes`.
    ///
    /// # Errors
    /// `NoRoom` if the tailroom is smaller; the frame is then unchanged.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.extend(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// All the room behind the valid bytes, for a read of unknown length; `extend` by the length
    /// that arrived makes it valid.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        // SAFETY: the tailroom lies behind the valid bytes in the chunk.
        unsafe { self.window_mut(self.spare(), self.tailroom()) }
    }

    /// Before the valid bytes, the last `count` of the headroom: where an I/O header is written
    /// that is not part of the packet. `None` if the headroom is smaller.
    ///
    /// The slice runs on over the packet, so that one write or read covers both.
    pub fn with_prefix_mut(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.headroom() {
            return None;
        }
        // SAFETY: the headroom, which has as many bytes, lies before `first` in the chunk, and the
        // valid ones from there on.
        Some(unsafe { self.window_mut(self.first.sub(count), count + self.len()) })
    }

    #[inline]
    fn chunk_start(&self) -> NonNull<u8> {
        // SAFETY: the chunk is one of the arena's.
        unsafe { self.pool.arena.chunk(self.chunk) }
    }

    /// Where the tailroom begins.
    #[inline]
    fn spare(&self) -> NonNull<u8> {
        // SAFETY: the valid bytes lie in the chunk.
        unsafe { self.first.add(self.len()) }
    }

    /// # Safety
    /// The bytes lie in this frame's chunk.
    #[inline]
    unsafe fn window_mut(&mut self, start: NonNull<u8>, len: usize) -> &mut [u8] {
        // SAFETY: the arena initialized (zeroed) the chunk and lives as long as `pool`. No other
        // frame holds the chunk, and `&mut self` excludes every other reference to it.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) }
    }
}

impl Deref for Frame {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: as in `window_mut`, and `&self` excludes a `&mut` to the chunk.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len()) }
    }
}

impl DerefMut for Frame {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the valid bytes lie in the chunk.
        unsafe { self.window_mut(self.first, self.len()) }
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        self.pool.put_back(self.chunk);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame {{ chunk: {}, head: {}, len: {} }}", self.chunk, self.headroom(), self.len)
    }
}

#[cfg(test)]
mod tests {
    use crate::{CAPACITY_BYTES, HEADROOM_BYTES, NoRoom, Pool};

    #[test]
    fn push_and_pull_move_the_front_and_keep_the_rest() {
        let pool = Pool::new(1);
        let mut frame = pool.alloc().expect("free");
        frame.extend_from_slice(b"payload").expect("room");
        frame.push(3).expect("room").copy_from_slice(b"hdr");
        assert_eq!(&frame[..], b"hdrpayload");
        assert!(frame.pull(5));
        assert_eq!(&frame[..], b"yload");
        assert!(!frame.pull(6));
        assert_eq!(&frame[..], b"yload");
    }

    #[test]
    fn room_ends_where_the_chunk_ends() {
        let pool = Pool::new(2);
        let mut frame = pool.alloc().expect("free");
        assert_eq!(frame.push(HEADROOM_BYTES + 1).err(), Some(NoRoom));
        assert_eq!(frame.push(HEADROOM_BYTES).map(|b| b.len()), Ok(HEADROOM_BYTES));
        assert_eq!(frame.extend(CAPACITY_BYTES).map(|b| b.len()), Ok(CAPACITY_BYTES));
        assert_eq!(frame.extend(1).err(), Some(NoRoom));
        assert_eq!(frame.tailroom(), 0);
    }

    #[test]
    fn two_frames_never_share_a_byte() {
        let pool = Pool::new(2);
        let (mut a, mut b) = (pool.alloc().expect("free"), pool.alloc().expect("free"));
        for (frame, byte) in [(&mut a, 0xaa), (&mut b, 0xbb)] {
            frame.push(HEADROOM_BYTES).expect("room").fill(byte);
            frame.extend(CAPACITY_BYTES).expect("room").fill(byte);
        }
        assert!(a.iter().all(|&byte| byte == 0xaa));
        assert!(b.iter().all(|&byte| byte == 0xbb));
    }

    #[test]
    fn an_io_prefix_lies_before_the_packet_and_is_not_part_of_it() {
        let pool = Pool::new(1);
        let mut frame = pool.alloc().expect("free");
        frame.extend_from_slice(b"packet").expect("room");
        let whole = frame.with_prefix_mut(4).expect("room");
        whole[..4].copy_from_slice(b"vnet");
        assert_eq!(whole, b"vnetpacket");
        assert_eq!(&frame[..], b"packet");
        assert!(frame.with_prefix_mut(HEADROOM_BYTES + 1).is_none());
    }

    #[test]
    fn truncate_only_shortens() {
        let pool = Pool::new(1);
        let mut frame = pool.alloc().expect("free");
        frame.extend_from_slice(b"abcdef").expect("room");
        frame.truncate(9);
        assert_eq!(frame.len(), 6);
        frame.truncate(2);
        assert_eq!(&frame[..], b"ab");
        frame.reset();
        assert!(frame.is_empty());
        assert_eq!(frame.headroom(), HEADROOM_BYTES);
    }
}
