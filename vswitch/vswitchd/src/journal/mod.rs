//! The model's changes on disk.
//!
//! Enters: edits, before what they bring about is done. Leaves: at the next start, the edits again. A
//! line is written at once, and outlives the process then. It is on disk, and outlives the machine, when
//! a thread of its own has synced it; no client is answered before that, and nobody else waits.
//!
//! | file | has |
//! |---|---|
//! | `file`   | the files of the state directory |
//! | `disk`   | the thread that waits for the disk |
//! | `found`  | what a file comes to at the start |
//! | `mend`   | how it is written anew, and put right |
//! | `error`  | what is wrong, and what to do |
//!
//! Lines, their sums and what damage costs are in the crate `journal-format`.
//!
//! While something is wrong with the directory the daemon runs: see `trouble`. Lines that free
//! something find room in a reserve that was made beforehand. When the journal can be written again it
//! is written anew, from the model.

mod disk;
mod error;
mod file;
mod found;
mod mend;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sandbox::Sandbox;
use controlplane::model::{Edit, frees};
use dataplane::tables::LocalAddresses;

use disk::{Disk, Order};
pub use error::JournalError;
use error::{described, is_full, unread};
use file::Lines;
use found::Found;

/// A start without a journal that lines can be added to waits so long for one.
const START_PATIENCE: Duration = Duration::from_secs(3);

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Replay {
    /// The edits, in order.
    pub edits: Vec<Edit>,
    /// What was wrong, for the log and for `status`.
    pub warnings: Vec<String>,
    /// Lines were lost, or may have been.
    pub is_incomplete: bool,
    /// So many edits are before the last place where lines were lost to damage.
    pub lost_behind: Option<usize>,
    /// There was a journal.
    pub was_there: bool,
}

/// What is known of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnDisk {
    /// It is on disk, with all before it.
    Yes,
    /// It is written, and will be.
    NotYet,
    /// It may not be, and why.
    Failed(String),
}

/// How far writing it anew has come.
#[derive(Debug)]
enum Rewrite {
    /// It is not under way.
    No,
    /// A snapshot is being written beside the journal; these lines came after it.
    Snapshot(VecDeque<(u64, Vec<u8>)>),
    /// It has all lines, gets each further one too, and is being put in the journal's place.
    Replacing(Lines),
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    disk: Disk,
    /// Lines can be added to it.
    current: Option<Lines>,
    rewrite: Rewrite,
    /// Number of the last line that was written, and of the last that is on disk.
    written: u64,
    synced: u64,
    /// Lines in the file.
    lines: usize,
    snapshot: Size,
    /// The journal that is there is damaged, and has to be kept.
    keeps_former: bool,
    /// The journal that is there could not be read: it must not be replaced from the part that could.
    unread: Option<String>,
    has_reserve: Option<bool>,
    is_making_room: bool,
    trouble: Option<String>,
    /// Why it grows, though it was to be written anew.
    growth: Option<String>,
    tried: Option<Instant>,
    warnings: Vec<String>,
}

/// Lines and bytes of the last snapshot.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    lines: usize,
    bytes: u64,
}

/// The underlay addresses that a state directory's journal has of this node; none where it cannot be read. Nothing
/// is changed.
#[must_use]
pub fn recorded_addresses(dir: &Path) -> LocalAddresses {
    let bytes = file::read(&dir.join(file::NAME)).ok().flatten();
    let content =
        bytes.and_then(|bytes| journal_format::read(&bytes.bytes).ok()).unwrap_or_default();
    let last = content.edits.iter().rev().find_map(|edit| match edit {
        Edit::OwnAddresses { v4, v6 } => Some(LocalAddresses { v4: *v4, v6: *v6 }),
        _ => None,
    });
    last.unwrap_or_default()
}

impl Journal {
    /// Opens and reads the journal of a state directory. Whatever is wrong with the directory is
    /// trouble, and no reason not to start.
    ///
    /// # Errors
    /// If a newer version wrote the journal, or the kernel has no thread for it.
    pub fn open(dir: &Path, sandbox: &Sandbox) -> Result<(Self, Replay), JournalError> {
        let path = dir.join(file::NAME);
        let mut found = Found::default();
        match file::read(&path) {
            Ok(None) => {}
            Ok(Some(bytes)) => found.take(&path, bytes)?,
            Err(error) => found.unread = Some(unread(&error)),
        }
        let trouble = found.unread.clone().or_else(|| found.trouble.take());
        let clone = match &found.current {
            Some(lines) => Some(lines.file.try_clone().map_err(file::failed("open", &path))?),
            None => None,
        };
        let disk =
            Disk::start(dir, clone, sandbox).map_err(file::failed("start a thread for", &path))?;
        let mut journal = Self {
            dir: dir.to_owned(),
            disk,
            current: found.current,
            rewrite: Rewrite::No,
            written: 0,
            synced: 0,
            lines: found.lines,
            snapshot: Size::default(),
            keeps_former: found.is_damaged,
            unread: found.unread,
            has_reserve: None,
            is_making_room: false,
            trouble,
            growth: None,
            tried: None,
            warnings: Vec::new(),
        };
        journal.make_room();
        // A process that was killed has left lines that may not be on disk yet.
        journal.written = 1;
        if journal.current.is_some() {
            journal.disk.order(Order::Sync(journal.written));
        }
        Ok((journal, found.replay))
    }

    /// Writes it anew from the model that it made, and waits for that if no line can be added before:
    /// because of the file, or unless what was read `is_enough` for what is written behind it.
    pub fn begin(&mut self, snapshot: Vec<Edit>, is_enough: bool) {
        if self.unread.is_some() {
            return;
        }
        if !is_enough {
            self.current = None;
        }
        self.rewrite(snapshot);
        let deadline = Instant::now() + START_PATIENCE;
        while self.current.is_none() && !matches!(self.rewrite, Rewrite::No) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(report) = self.disk.wait(left) else { break };
            self.hear(report);
        }
    }

    /// Readable when [`Self::on_event`] has something to do.
    #[must_use]
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.disk.bell()
    }

    /// Adds a transaction. The line outlives this process when it returns; it is on disk when
    /// [`Self::is_on_disk`] says so.
    ///
    /// # Errors
    /// If it cannot be written; the journal is then as it was.
    pub fn append(&mut self, edits: &[Edit]) -> Result<(), JournalError> {
        if edits.is_empty() {
            return Ok(());
        }
        let line = journal_format::line(edits).map_err(JournalError::Unwritable)?;
        let is_release = frees(edits);
        // What room there is without a reserve is for lines that free something. Until it was looked
        // whether there is room again, nothing else is tried.
        let is_kept_for_release = self.has_reserve == Some(false) || self.trouble.is_some();
        if self.current.is_none() || is_kept_for_release && !is_release {
            return Err(JournalError::Unavailable(self.trouble().unwrap_or_default()));
        }
        while let Err(source) = self.write(&line) {
            let is_full = is_full(&source);
            let is_read_only = source.kind() == io::ErrorKind::ReadOnlyFilesystem;
            let error = file::failed("write to", &self.dir.join(file::NAME))(source);
            self.has_trouble(&error);
            // A second time there is none.
            if !(is_release && is_full && file::give_up_reserve(&self.dir).is_ok()) {
                if !is_full && !is_read_only {
                    // The file may be what is wrong.
                    self.current = None;
                }
                return Err(JournalError::Unavailable(described(&error)));
            }
            self.has_reserve = Some(false);
        }
        self.disk.order(Order::Sync(self.written));
        Ok(())
    }

    /// Writes a line to every file that is to have it, or to none.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let number = self.written + 1;
        let Some(current) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        current.append(number, line)?;
        match &mut self.rewrite {
            Rewrite::No => {}
            Rewrite::Snapshot(later) => later.push_back((number, line.to_vec())),
            Rewrite::Replacing(fresh) => {
                if let Err(error) = fresh.append(number, line) {
                    current.drop_last();
                    return Err(error);
                }
            }
        }
        self.written = number;
        self.lines += 1;
        Ok(())
    }

    /// There is a journal that could not be read, or not all of it.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.unread.is_some()
    }

    /// Number of the last line that was written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether a line is on disk, with all before it.
    #[must_use]
    pub fn is_on_disk(&self, line: u64) -> OnDisk {
        match &self.trouble {
            _ if line <= self.synced => OnDisk::Yes,
            // Lines that are not on disk stay so until all is written anew.
            Some(why) if self.current.is_none() => OnDisk::Failed(why.clone()),
            _ => OnDisk::NotYet,
        }
    }

    /// Why no pod can be added now, in words for an operator.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match &self.trouble {
            None if self.current.is_none() => Some("the journal is still being written".into()),
            trouble => trouble.clone(),
        }
    }

    /// Why it grows and is not written anew, in words for an operator.
    #[must_use]
    pub fn growth(&self) -> Option<&String> {
        self.growth.as_ref()
    }

    /// Sentences for the log and for `status`, since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}
