//! The model's changes on disk.
//!
//! Enters: edits, before the reply that acknowledges them. Leaves: at the next start, the edits
//! again. One line a transaction:
//!
//! ```text
//!   vswitch-journal 1
//!   1b2c3d4e5f607182 [{"edit":"lease",…}]
//! ```
//!
//! The number before a line is a hash of the rest and of its place, so that a line that was cut,
//! changed or moved is known. The last line may be torn by a crash: its transaction was never
//! acknowledged, and is dropped. Anything else that does not fit is damage: what can be read is
//! used, and the damaged file is kept aside under another name, never deleted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use controlplane::model::Edit;

const NAME: &str = "journal";
const MAGIC: &str = "vswitch-journal ";
const VERSION: u32 = 1;

/// Rewritten when it has this many lines more than twice what a snapshot has.
const SLACK_LINES: usize = 256;
/// Or this many bytes more than twice a snapshot's: a line of a large cluster's peers has megabytes.
const SLACK_BYTES: u64 = 16 * 1024 * 1024;

/// Why there is no journal, or no line more in it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another version wrote it.
    #[error(
        "{path} was written by a newer version (format {theirs}, this one reads {VERSION}); \
         start that version, or move the file away to begin without state"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        theirs: u32,
    },
    /// An edit that JSON cannot hold: never of this program's making.
    #[error("an edit cannot be written")]
    Unwritable(#[source] serde_json::Error),
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Replay {
    /// The edits, in order.
    pub edits: Vec<Edit>,
    /// What was wrong, for the log and for `status`.
    pub warnings: Vec<String>,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
    /// Bytes that are known to be whole lines on disk.
    len: u64,
    lines_of_snapshot: usize,
    len_of_snapshot: u64,
}

impl Journal {
    /// Opens the journal of a state directory, makes it if there is none, and reads it.
    ///
    /// # Errors
    /// If the directory cannot be used, or a newer version wrote the journal.
    pub fn open(dir: &Path) -> Result<(Self, Replay), JournalError> {
        fs::create_dir_all(dir).map_err(failed("make the directory", dir))?;
        let path = dir.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let (mut replay, damaged) = read(&path, &bytes)?;
        if damaged {
            let aside = set_aside(dir, &path)?;
            replay.warnings.push(format!(
                "{} was damaged; what could be read is used, and the file is kept as {}: compare before deleting it",
                path.display(),
                aside.display()
            ));
        }
        // Rewriting also removes a torn last line, behind which nothing must be appended.
        let journal = Self::create(&path, &replay.edits)?;
        Ok((journal, replay))
    }

    /// Adds a transaction; it is on disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written; the journal is then as it was.
    pub fn append(&mut self, edits: &[Edit]) -> Result<(), JournalError> {
        if edits.is_empty() {
            return Ok(());
        }
        let line = line(self.lines, edits).map_err(JournalError::Unwritable)?;
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line must not stay in front of the next one.
            let _ = self.file.set_len(self.len);
            return Err(failed("write to", &self.path)(error));
        }
        self.lines += 1;
        self.len += line.len() as u64;
        Ok(())
    }

    /// It has grown far beyond what a snapshot needs.
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        self.lines > 2 * self.lines_of_snapshot + SLACK_LINES
            || self.len > 2 * self.len_of_snapshot + SLACK_BYTES
    }

    /// Replaces everything by a snapshot.
    ///
    /// # Errors
    /// If that cannot be written; the journal is then as it was.
    pub fn compact(&mut self, snapshot: &[Edit]) -> Result<(), JournalError> {
        *self = Self::create(&self.path, snapshot)?;
        Ok(())
    }

    /// Writes a whole new file beside the old one and puts it in its place: at no moment is there
    /// none, or half of one.
    fn create(path: &Path, snapshot: &[Edit]) -> Result<Self, JournalError> {
        let fresh = path.with_extension("new");
        let mut bytes = format!("{MAGIC}{VERSION}\n").into_bytes();
        let mut lines = 0;
        // A line each, so that damage to one costs one.
        for edits in snapshot.chunks(1) {
            bytes.extend(line(lines, edits).map_err(JournalError::Unwritable)?);
            lines += 1;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(failed("make", &fresh))?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed("write", &fresh))?;
        fs::rename(&fresh, path).map_err(failed("replace", path))?;
        sync_dir(path)?;
        let file = OpenOptions::new().append(true).open(path).map_err(failed("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            lines,
            len: bytes.len() as u64,
            lines_of_snapshot: lines,
            len_of_snapshot: bytes.len() as u64,
        })
    }
}

/// The edits of a file, and whether it is damaged otherwise than by a torn last line.
fn read(path: &Path, bytes: &[u8]) -> Result<(Replay, bool), JournalError> {
    let mut replay = Replay::default();
    if bytes.is_empty() {
        return Ok((replay, false));
    }
    let mut rest = bytes;
    let mut damaged = match next_line(&mut rest).map(version_of) {
        Some(Some(VERSION)) => false,
        Some(Some(theirs)) if theirs > VERSION => {
            return Err(JournalError::Newer { path: path.to_owned(), theirs });
        }
        // Not ours, or its first line is damaged: its transactions still have their sums.
        _ => true,
    };
    let mut number = 0;
    while !rest.is_empty() {
        let Some(line) = next_line(&mut rest) else {
            replay.warnings.push(format!(
                "the last line of {} was torn by a crash and is dropped; it was never acknowledged",
                path.display()
            ));
            break;
        };
        match edits_of(number, line) {
            Some(edits) => replay.edits.extend(edits),
            None => {
                damaged = true;
                replay.warnings.push(format!(
                    "{}:{}: this line is damaged and skipped",
                    path.display(),
                    number + 2
                ));
            }
        }
        number += 1;
    }
    Ok((replay, damaged))
}

/// The next whole line; `None`, and nothing taken, if no line end follows.
fn next_line<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (line, after) = rest.split_at(end);
    *rest = &after[1..];
    Some(line)
}

fn version_of(line: &[u8]) -> Option<u32> {
    std::str::from_utf8(line).ok()?.strip_prefix(MAGIC)?.parse().ok()
}

fn line(number: usize, edits: &[Edit]) -> serde_json::Result<Vec<u8>> {
    let json = serde_json::to_vec(edits)?;
    let mut line = format!("{:016x} ", sum(number, &json)).into_bytes();
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

fn edits_of(number: usize, line: &[u8]) -> Option<Vec<Edit>> {
    let (hex, json) = line.split_at_checked(17)?;
    let hex = std::str::from_utf8(hex).ok()?.strip_suffix(' ')?;
    // The text that `line` writes and no other spelling of it.
    if hex != format!("{:016x}", sum(number, json)) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// FNV-1a of 64 bits over the line's number and its bytes: against accidents, not against programs
/// that can write the file.
fn sum(number: usize, bytes: &[u8]) -> u64 {
    let number = (number as u64).to_le_bytes();
    number.iter().chain(bytes).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn set_aside(dir: &Path, path: &Path) -> Result<PathBuf, JournalError> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let aside = (0..)
        .map(|number| dir.join(format!("{NAME}.damaged-{seconds}-{number}")))
        .find(|aside| !aside.exists())
        .expect("a number that is not taken");
    // A second name, so that the first is never missing.
    fs::hard_link(path, &aside).map_err(failed("set aside", path))?;
    Ok(aside)
}

fn sync_dir(path: &Path) -> Result<(), JournalError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync the directory of", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use api::Mac;
    use tempfile::TempDir;

    use super::{Journal, JournalError, SLACK_LINES, read};
    use controlplane::model::Edit;

    fn edit(number: u8) -> Edit {
        Edit::Fdb {
            bridge: "default".into(),
            mac: Mac([2, 0, 0, 0, 0, number]),
            vtep: "198.51.100.12".parse().expect("an address"),
        }
    }

    /// A journal of three transactions, and its bytes.
    fn written(dir: &Path) -> Vec<u8> {
        let (mut journal, _) = Journal::open(dir).expect("a new one");
        for number in 1..=3 {
            journal.append(&[edit(number)]).expect("room");
        }
        fs::read(dir.join("journal")).expect("there")
    }

    #[test]
    fn what_was_appended_comes_back_in_order() {
        let dir = TempDir::new().expect("a directory");
        written(dir.path());
        let (mut journal, replay) = Journal::open(dir.path()).expect("ours");
        assert_eq!(replay.edits, [edit(1), edit(2), edit(3)]);
        assert!(replay.warnings.is_empty());
        journal.append(&[edit(4)]).expect("room");
        let (_, replay) = Journal::open(dir.path()).expect("ours");
        assert_eq!(replay.edits.len(), 4);
    }

    #[test]
    fn cut_anywhere_it_starts_with_what_is_whole() {
        let dir = TempDir::new().expect("a directory");
        let bytes = written(dir.path());
        let ends: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').collect();
        for cut in 0..bytes.len() {
            let (replay, damaged) = read(Path::new("journal"), &bytes[..cut]).expect("starts");
            let whole = ends.iter().filter(|end| **end < cut).count().saturating_sub(1);
            assert_eq!(replay.edits, [edit(1), edit(2), edit(3)][..whole], "cut at {cut}");
            let in_first_line = cut > 0 && cut <= ends[0];
            assert_eq!(damaged, in_first_line, "cut at {cut}");
        }
    }

    #[test]
    fn any_flipped_bit_costs_no_more_than_what_it_touches() {
        let dir = TempDir::new().expect("a directory");
        let bytes = written(dir.path());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let (replay, damaged) = match read(Path::new("journal"), &flipped) {
                    Ok(found) => found,
                    // "1" with some bits flipped is a newer version's number.
                    Err(JournalError::Newer { .. }) => {
                        assert_eq!(at, super::MAGIC.len());
                        continue;
                    }
                    Err(error) => panic!("byte {at}, bit {bit}: {error}"),
                };
                // Within a line it is that line. At a line's end it joins two, or tears the last;
                // a new line end moves the lines behind it.
                let ours = [edit(1), edit(2), edit(3)];
                assert!(replay.edits.iter().all(|edit| ours.contains(edit)));
                assert!(replay.edits.len() <= 3);
                assert!(damaged || at == bytes.len() - 1, "byte {at}, bit {bit}");
                let splits = flipped[at] == b'\n' || bytes[at] == b'\n';
                assert!(splits || replay.edits.len() >= 2, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_damaged_file_is_kept_aside_and_what_is_whole_is_used() {
        let dir = TempDir::new().expect("a directory");
        let mut bytes = written(dir.path());
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(dir.path().join("journal"), &bytes).expect("room");
        let (_, replay) = Journal::open(dir.path()).expect("starts");
        assert_eq!(replay.edits.len(), 2);
        assert_eq!(replay.warnings.len(), 2, "{:?}", replay.warnings);
        let aside = fs::read_dir(dir.path()).expect("there").map(|entry| entry.expect("readable"));
        let aside: Vec<_> =
            aside.filter(|entry| entry.file_name().to_string_lossy().contains("damaged")).collect();
        assert_eq!(aside.len(), 1);
        assert_eq!(fs::read(aside[0].path()).expect("there"), bytes);
        // The new file is sound.
        let (_, replay) = Journal::open(dir.path()).expect("starts");
        assert_eq!((replay.edits.len(), replay.warnings.len()), (2, 0));
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().join("journal");
        fs::write(&path, "vswitch-journal 2\nwhatever\n").expect("room");
        assert!(matches!(Journal::open(dir.path()), Err(JournalError::Newer { theirs: 2, .. })));
        assert_eq!(fs::read(&path).expect("there"), b"vswitch-journal 2\nwhatever\n");
    }

    #[test]
    fn compaction_keeps_the_snapshot_alone() {
        let dir = TempDir::new().expect("a directory");
        let (mut journal, _) = Journal::open(dir.path()).expect("a new one");
        while !journal.wants_compaction() {
            journal.append(&[edit(1)]).expect("room");
        }
        journal.compact(&[edit(7), edit(8)]).expect("room");
        assert!(!journal.wants_compaction());
        journal.append(&[edit(9)]).expect("room");
        let (_, replay) = Journal::open(dir.path()).expect("ours");
        assert_eq!(replay.edits, [edit(7), edit(8), edit(9)]);
        // Few lines, but long ones.
        let many = vec![edit(1); 50_000];
        let lines = (0..).take_while(|_| {
            journal.append(&many).expect("room");
            !journal.wants_compaction()
        });
        assert!(lines.count() < SLACK_LINES);
    }
}
