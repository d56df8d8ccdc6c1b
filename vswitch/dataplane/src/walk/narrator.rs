//! Who hears what the doors have to say.
//!
//! Every door tells a [`Narrator`] what it found. `trace` has one that takes notes; forwarding has
//! [`Silent`], which costs nothing: the sentences are closures that nobody calls.

use crate::verdict::Verdict;

/// Hears what the doors have to say.
pub(crate) trait Narrator {
    fn say(&mut self, door: &'static str, what: impl FnOnce() -> String);

    fn verdict(&mut self, verdict: &Verdict);
}

/// Forwarding: the sentences are not even made.
pub(crate) struct Silent;

impl Narrator for Silent {
    #[inline]
    fn say(&mut self, _: &'static str, _: impl FnOnce() -> String) {}

    #[inline]
    fn verdict(&mut self, _: &Verdict) {}
}
