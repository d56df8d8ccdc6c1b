//! What the `walk` target and its seeds share.
//!
//! | file | holds |
//! |---|---|
//! | `live`   | tables in which every kind of port, route and tunnel occurs |
//! | `policies` | policies of some of the pods there |
//! | `script` | packets as a file of bytes: what the fuzzer mutates |
//! | `walk`   | runs a script and checks what must hold after each packet |

pub mod live;
mod policies;
pub mod script;
mod walk;

pub use walk::{sessions, walk};
