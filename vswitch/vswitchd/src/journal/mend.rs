//! How a journal is written anew, and put right when it could not be written.
//!
//! Enters: what the disk reports, time, a snapshot of the model. Leaves: orders for the disk, and a
//! journal to which lines can be added, as soon as there can be one.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use controlplane::model::Edit;

use super::disk::{Order, Report};
use super::error::described;
use super::file::{self, Lines};
use super::{Journal, JournalError, Rewrite};

/// Rewritten when it has this many lines more than twice what a snapshot has.
pub(super) const SLACK_LINES: usize = 256;
/// Or this many bytes more than twice a snapshot's: a line of a large cluster's peers has megabytes.
const SLACK_BYTES: u64 = 16 * 1024 * 1024;
/// What failed is tried again so much later.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What failed and is not needed, so much later.
pub(super) const REWRITE_AFTER: Duration = Duration::from_secs(30);
impl Journal {
    /// Takes what the disk has reported.
    pub fn on_event(&mut self) {
        for report in self.disk.reports() {
            self.hear(report);
        }
    }

    /// It is to be written anew: it has grown far beyond a snapshot, or lines cannot be added to it.
    #[must_use]
    pub fn wants_rewrite(&self, now: Instant) -> bool {
        let has_grown = self.growth.is_some()
            || self.lines > 2 * self.snapshot.lines + SLACK_LINES
            || self
                .current
                .as_ref()
                .is_some_and(|current| current.len > 2 * self.snapshot.bytes + SLACK_BYTES);
        let is_needed = self.current.is_none() && self.has_reserve == Some(true);
        let pause = if self.growth.is_some() { REWRITE_AFTER } else { RETRY_AFTER };
        matches!(self.rewrite, Rewrite::No)
            && self.unread.is_none()
            && (is_needed && self.may_try(now, RETRY_AFTER)
                || has_grown && self.may_try(now, pause))
    }

    /// Writes everything anew, from a snapshot, and puts it in the place of what is there. Nobody waits
    /// for that: lines that are written meanwhile are in both.
    pub fn rewrite(&mut self, snapshot: Vec<Edit>) {
        self.tried = Some(Instant::now());
        self.snapshot.lines = snapshot.len();
        self.rewrite = Rewrite::Snapshot(VecDeque::new());
        self.disk.order(Order::WriteFresh(snapshot));
    }

    /// Tries what failed again, if it is time to: first whether there is room.
    pub fn mend(&mut self, now: Instant) {
        if self.is_making_room
            || !matches!(self.rewrite, Rewrite::No)
            || !self.may_try(now, RETRY_AFTER)
        {
            return;
        }
        if self.unread.is_some() {
            // A file that could not be read may hold leases. Once it has been moved away, what is known
            // is all there is.
            match std::fs::symlink_metadata(self.dir.join(file::NAME)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.unread = None,
                _ => {
                    self.tried = Some(now);
                    return;
                }
            }
        }
        let could_not_write = self.trouble.is_some() && self.current.is_some();
        if could_not_write || self.has_reserve != Some(true) {
            self.tried = Some(now);
            self.make_room();
        }
    }

    pub(super) fn make_room(&mut self) {
        self.is_making_room = true;
        self.disk.order(Order::MakeRoom);
    }

    fn may_try(&self, now: Instant, pause: Duration) -> bool {
        self.tried.is_none_or(|tried| now.saturating_duration_since(tried) >= pause)
    }

    pub(super) fn has_trouble(&mut self, error: &JournalError) {
        if self.unread.is_none() {
            self.trouble = Some(described(error));
        }
    }

    pub(super) fn hear(&mut self, report: Report) {
        match report {
            Report::Synced(up_to, Ok(())) => {
                self.synced = self.synced.max(up_to);
                let fresh = match &mut self.rewrite {
                    Rewrite::Replacing(fresh) => Some(fresh),
                    _ => None,
                };
                self.current.iter_mut().chain(fresh).for_each(|lines| lines.are_synced(up_to));
            }
            Report::Synced(_, Err(error)) => {
                if let Some(mut current) = self.current.take() {
                    current.cut_unsynced();
                    self.has_trouble(&error);
                }
            }
            Report::WrittenFresh(Ok(fresh)) => self.replace_by(fresh),
            Report::WrittenFresh(Err(error)) => self.is_not_rewritten(&error),
            Report::Replaced(Err(error)) => {
                file::remove_fresh(&self.dir);
                self.is_not_rewritten(&error);
            }
            Report::Replaced(Ok(aside)) => {
                let rewrite = std::mem::replace(&mut self.rewrite, Rewrite::No);
                if let Rewrite::Replacing(fresh) = rewrite {
                    self.is_rewritten(fresh, aside.as_deref());
                }
            }
            Report::Room(outcome) => {
                self.is_making_room = false;
                self.has_reserve = Some(outcome.is_ok());
                if let Err(error) = outcome {
                    return self.has_trouble(&error);
                }
                // Lines are tried again, and at once what has to be written anew.
                if self.current.is_none() || self.trouble.is_some() {
                    self.tried = None;
                }
                if self.current.is_some() {
                    self.trouble = None;
                }
            }
        }
    }

    /// The snapshot is on disk: it gets the lines that came after it.
    fn replace_by(&mut self, mut fresh: Lines) {
        let Rewrite::Snapshot(later) = std::mem::replace(&mut self.rewrite, Rewrite::No) else {
            return;
        };
        self.snapshot.bytes = fresh.len;
        for (number, line) in &later {
            if let Err(source) = fresh.append(*number, line) {
                let error = file::failed("write the new journal in", &self.dir)(source);
                file::remove_fresh(&self.dir);
                return self.is_not_rewritten(&error);
            }
        }
        self.lines = self.snapshot.lines + 1 + later.len();
        self.rewrite = Rewrite::Replacing(fresh);
        self.disk.order(Order::Replace { keep: self.keeps_former });
    }

    fn is_rewritten(&mut self, fresh: Lines, aside: Option<&Path>) {
        if let Some(aside) = aside {
            self.warnings.push(format!(
                "{} was damaged; what could be read is used, and the file is kept as {}: compare before deleting it",
                self.dir.join(file::NAME).display(),
                aside.display()
            ));
        }
        self.keeps_former = false;
        self.growth = None;
        self.current = Some(fresh);
        if self.has_reserve != Some(false) {
            self.trouble = None;
        }
        // What was written after the snapshot is to be on disk here, too.
        self.disk.order(Order::Sync(self.written));
    }

    fn is_not_rewritten(&mut self, error: &JournalError) {
        self.rewrite = Rewrite::No;
        // First of all the next attempt looks whether there is room.
        self.has_reserve = self.has_reserve.filter(|has_reserve| !has_reserve);
        // It is long, and that is all, if lines can still be added to it.
        if self.current.is_none() {
            self.has_trouble(error);
        } else {
            self.growth = Some(format!(
                "the journal cannot be written anew, and grows until it can: {}",
                described(error)
            ));
        }
    }
}
