//! Faults at chosen places, for tests of the built daemon and of the built plugin.
//!
//! Enters: `VSWITCH_FAILPOINTS` of the process, such as `journal-sync=delay:250,add-attach=error:2`, or
//! `@FILE`, a file with the same text. Leaves: a delay, an error or the end of the process, at the places
//! that are named. Without the feature `enabled`, which no build for use has, nothing of it is compiled.
//!
//! | fault | the place |
//! |---|---|
//! | `delay:MS` | waits so many milliseconds, each time |
//! | `error`    | fails each time; `error:N`, the first N times |
//! | `kill`     | ends the process as SIGKILL does |
//!
//! A file is read at each place, and is removed when a fault of it happens: it happens once, in the first
//! process that comes there, and the test that wrote the file sees that it did. [`PLACES`] has every place.

#![forbid(unsafe_code)]

#[cfg(feature = "enabled")]
mod chosen;
mod places;

use std::fmt;
use std::io;

#[cfg(feature = "enabled")]
pub use chosen::{begin, hit, pass};
pub use places::{PLACES, Place};

/// The error of a place that was made to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    place: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the failpoint {}", self.place)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::other(fault)
    }
}

/// Called at the start of a program: what the environment asks for must be understood.
#[cfg(not(feature = "enabled"))]
#[inline]
pub fn begin() {}

/// A place where something can be made to go wrong.
///
/// # Errors
/// If that was asked for.
#[cfg(not(feature = "enabled"))]
#[inline]
pub fn hit(_place: &str) -> Result<(), Fault> {
    Ok(())
}

/// As [`hit`], where nothing can fail: the process waits there, or ends.
#[cfg(not(feature = "enabled"))]
#[inline]
pub fn pass(_place: &str) {}
