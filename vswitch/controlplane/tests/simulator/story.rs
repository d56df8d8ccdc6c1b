//! What happened, as lines of text: one an event, one an action of its list, and what became of each.
//!
//! Enters: sentences, while a run goes on. Leaves: the text, by which a developer finds out why a run
//! failed. A run that is one of thousands tells nothing: it is run again if it fails.

use std::fmt::Write as _;

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Story {
    is_told: bool,
    text: String,
}

impl Story {
    pub(crate) fn new(is_told: bool) -> Self {
        Self { is_told, text: String::new() }
    }

    /// Something that comes from outside.
    pub(crate) fn event(&mut self, number: usize, line: impl FnOnce() -> String) {
        if self.is_told {
            // Writing to a string does not fail.
            let _ = writeln!(self.text, "{number:>3}. {}", line());
        }
    }

    /// What is done because of it.
    pub(crate) fn detail(&mut self, line: impl FnOnce() -> String) {
        if self.is_told {
            let _ = writeln!(self.text, "       {}", line());
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}
