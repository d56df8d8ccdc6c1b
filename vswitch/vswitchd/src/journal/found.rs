//! What a journal's file comes to at the start.
//!
//! Enters: the bytes of the file. Leaves: the edits, what is wrong with them in words, and the file to add
//! lines to, if it is sound.

use std::path::Path;

use journal_format::{Damage, Newer};

use super::error::{described, unread};
use super::file::{self, Lines};
use super::{JournalError, Replay};

/// Damaged places that are named; a count stands for the others.
const DAMAGE_NAMED: usize = 20;

/// What a journal's file comes to.
#[derive(Default)]
pub(super) struct Found {
    pub(super) replay: Replay,
    pub(super) lines: usize,
    pub(super) current: Option<Lines>,
    pub(super) is_damaged: bool,
    pub(super) unread: Option<String>,
    pub(super) trouble: Option<String>,
}

impl Found {
    pub(super) fn take(&mut self, path: &Path, read: file::Bytes) -> Result<(), JournalError> {
        let file::Bytes { bytes, unreadable, is_shared } = read;
        let content = journal_format::read(&bytes)
            .map_err(|Newer(theirs)| JournalError::Newer { path: path.to_owned(), theirs })?;
        let name = path.display();
        let named = content.damage.iter().take(DAMAGE_NAMED);
        let mut warnings: Vec<_> = named.map(|damage| format!("{name}: {damage}")).collect();
        if let Some(more) = content.damage.len().checked_sub(DAMAGE_NAMED).filter(|more| *more > 0)
        {
            warnings.push(format!("{name}: {more} more places are damaged"));
        }
        if content.torn_at.is_some() {
            warnings.push(format!(
                "the last line of {name} was torn by a crash and is dropped; it was never acknowledged"
            ));
        }
        self.is_damaged = !content.damage.is_empty();
        self.lines = content.lines;
        let is_incomplete =
            content.torn_at.is_some() || content.damage.iter().any(Damage::costs_lines);
        self.replay = Replay {
            edits: content.edits,
            warnings,
            is_incomplete,
            lost_behind: content.lost_behind,
            was_there: true,
        };
        self.unread = unreadable.as_ref().map(unread);
        // To anything else nothing is added: it is replaced first.
        if content.is_current && !self.is_damaged && !is_shared && self.unread.is_none() {
            let len = content.torn_at.unwrap_or(bytes.len());
            match file::open_to_append(path, len as u64) {
                Ok(lines) => self.current = Some(lines),
                Err(error) => self.trouble = Some(described(&error)),
            }
        }
        Ok(())
    }
}
