//! Packet memory of one worker, and memory that all of them share.
//!
//! `netio` fills frames from TAPs and sockets and empties them there; `dataplane` reads and edits
//! the bytes in between. Neither needs `unsafe` for it: all pointer arithmetic lives here, and Miri
//! runs this crate's tests.
//!
//! | file | holds |
//! |---|---|
//! | `arena`   | one allocation, cut into chunks whose stride keeps their hot lines in different cache sets |
//! | `pool`    | the chunks that are free, last in first out |
//! | `buffer`  | [`Frame`]: one chunk, owned like a `Box`, with headroom for a header to come |
//! | `offload` | what the sender left to us: an unfinished checksum, a superframe to cut |
//! | `packet`  | [`Packet`]: a frame and its offload |
//! | `prefetch` | asks for memory that is about to be read |
//! | `words`   | [`Words`]: atomic words of the heap or of a mapped file, shared by threads |

mod arena;
mod buffer;
mod offload;
mod packet;
mod pool;
mod prefetch;
mod words;

pub use arena::{CAPACITY_BYTES, HEADROOM_BYTES};
pub use buffer::{Frame, NoRoom};
pub use offload::{Checksum, Gso, GsoKind, Offload, VxlanOver};
pub use packet::Packet;
pub use pool::Pool;
pub use prefetch::prefetch;
pub use words::Words;
