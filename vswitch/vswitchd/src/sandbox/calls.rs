//! A system call that a thread may make, with the reason.
//!
//! Enters: nothing. Leaves: the shape of the lists beside this file.

/// A system call that is allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// Its name, as the constant of libc is called.
    #[cfg_attr(not(test), expect(dead_code, reason = "lists are sorted by it"))]
    pub(super) name: &'static str,
    /// Its number on this architecture.
    pub(super) number: i64,
    /// What a thread needs it for.
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers; none is empty"))]
    pub(super) reason: &'static str,
}

/// A list of calls: the constant of libc, and the reason. Calls that newer architectures lack are of x86_64 alone.
macro_rules! calls {
    ($($(#[$on:meta])* $name:ident: $reason:literal,)*) => {
        &[$($(#[$on])* $crate::sandbox::calls::Call {
            name: stringify!($name),
            number: libc::$name,
            reason: $reason,
        },)*]
    };
}

pub(super) use calls;
