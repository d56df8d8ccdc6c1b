//! The files of a state directory.
//!
//! Enters: paths, bytes. Leaves: files. No link is followed, nothing that is not ours is opened, and
//! nothing is truncated but what this process has made or read.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::JournalError;
use controlplane::model::Edit;

pub(super) const NAME: &str = "journal";
/// Written beside the journal, and put in its place when it is on disk.
const FRESH_NAME: &str = "journal.new";
/// Given up when there is no room for a line that frees something.
const RESERVE_NAME: &str = "journal.reserve";
/// Hundreds of lines that free a lease, of 150 bytes each.
const RESERVE_BYTES: u64 = 64 * 1024;
/// What is read at once where the disk fails to read all: a block of most file systems.
const BLOCK_BYTES: usize = 4096;

/// A file of lines, and what of it is on disk.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) file: File,
    /// Bytes that are whole lines.
    pub(super) len: u64,
    /// Length after each line that may not be on disk, by the number of the line.
    unsynced: Vec<(u64, u64)>,
    synced_len: u64,
}

impl Lines {
    pub(super) fn new(file: File, len: u64) -> Self {
        Self { file, len, unsynced: Vec::new(), synced_len: len }
    }

    /// Adds a line.
    pub(super) fn append(&mut self, number: u64, line: &[u8]) -> io::Result<()> {
        failpoint::hit("journal-write")?;
        if let Err(error) = self.file.write_all(line) {
            self.take_back();
            return Err(error);
        }
        self.len += line.len() as u64;
        self.unsynced.push((number, self.len));
        Ok(())
    }

    /// Takes the last line back, or what is there of one that could not be written.
    pub(super) fn drop_last(&mut self) {
        self.unsynced.pop();
        self.len = self.unsynced.last().map_or(self.synced_len, |(_, len)| *len);
        self.take_back();
    }

    /// Lines up to this number are on disk.
    pub(super) fn are_synced(&mut self, up_to: u64) {
        let count = self.unsynced.iter().take_while(|(number, _)| *number <= up_to).count();
        if let Some((_, len)) = self.unsynced.drain(..count).next_back() {
            self.synced_len = len;
        }
    }

    /// Cuts off all that may not be on disk. A later sync would report success and prove nothing: the
    /// kernel has forgotten by then what it could not write, and reads it from memory.
    pub(super) fn cut_unsynced(&mut self) {
        self.unsynced.clear();
        self.len = self.synced_len;
        self.take_back();
    }

    /// Half a line may stay where that fails. What is written behind it is read all the same.
    fn take_back(&self) {
        let _ = self.file.set_len(self.len);
    }
}

/// What was read of a file.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    pub(super) bytes: Vec<u8>,
    /// What could not be read of it.
    pub(super) unreadable: Option<JournalError>,
    /// It has other names too: what is written would show in the file that those name.
    pub(super) is_shared: bool,
}

/// The bytes of a journal; `None` if there is none. Where the disk fails to read a block, it has zeros.
pub(super) fn read(path: &Path) -> Result<Option<Bytes>, JournalError> {
    let file = OpenOptions::new().read(true).custom_flags(no_link()).open(path);
    let mut file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let metadata = file.metadata().map_err(failed("examine", path))?;
    if !metadata.is_file() {
        return Err(not_ours(path, &metadata));
    }
    let mut bytes = Vec::new();
    let mut unreadable = None;
    if let Err(error) = failpoint::hit("journal-read")
        .map_err(io::Error::from)
        .and_then(|()| file.read_to_end(&mut bytes))
    {
        let skipped;
        (bytes, skipped) = read_blocks(metadata.len(), |block, at| file.read_exact_at(block, at));
        let source = io::Error::new(error.kind(), format!("{skipped} bytes of it: {error}"));
        unreadable = Some(failed("read", path)(source));
    }
    Ok(Some(Bytes { bytes, unreadable, is_shared: metadata.nlink() > 1 }))
}

/// All of a file that can be read, block by block, with zeros in the place of the others; and the bytes
/// that those are.
fn read_blocks(
    len: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
) -> (Vec<u8>, usize) {
    let mut bytes = vec![0; len as usize];
    let mut skipped = 0;
    for (number, block) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
        if read(block, (number * BLOCK_BYTES) as u64).is_err() {
            block.fill(0);
            skipped += block.len();
        }
    }
    (bytes, skipped)
}

/// Opens a journal that was read, to add lines behind its first `len` bytes.
pub(super) fn open_to_append(path: &Path, len: u64) -> Result<Lines, JournalError> {
    let file = OpenOptions::new()
        .append(true)
        .custom_flags(no_link())
        .open(path)
        .map_err(failed("open", path))?;
    let metadata = file.metadata().map_err(failed("examine", path))?;
    if !metadata.is_file() {
        return Err(not_ours(path, &metadata));
    }
    if metadata.len() != len {
        file.set_len(len).map_err(failed("cut the torn line off", path))?;
    }
    Ok(Lines::new(file, len))
}

/// Writes a snapshot beside the journal, and waits until it is on disk.
pub(super) fn write_fresh(dir: &Path, snapshot: &[Edit]) -> Result<Lines, JournalError> {
    let path = dir.join(FRESH_NAME);
    let bytes = journal_format::snapshot(snapshot).map_err(JournalError::Unwritable)?;
    let mut file = make(&path)?;
    let written = failpoint::hit("journal-fresh")
        .map_err(io::Error::from)
        .and_then(|()| file.write_all(&bytes))
        .and_then(|()| file.sync_all());
    if let Err(error) = written {
        remove_fresh(dir);
        return Err(failed("write", &path)(error));
    }
    Ok(Lines::new(file, bytes.len() as u64))
}

/// Removes what was written beside the journal and is of no use: it may have the room that others need.
pub(super) fn remove_fresh(dir: &Path) {
    let _ = fs::remove_file(dir.join(FRESH_NAME));
}

/// Puts what was written beside the journal in its place.
pub(super) fn put_in_place(dir: &Path) -> Result<(), JournalError> {
    let path = dir.join(NAME);
    fs::rename(dir.join(FRESH_NAME), &path).map_err(failed("replace", &path))
}

/// Gives a damaged journal a second name, so that it stays when it is replaced; that name.
pub(super) fn set_aside(dir: &Path) -> Result<Option<PathBuf>, JournalError> {
    let path = dir.join(NAME);
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for number in 0.. {
        let aside = dir.join(format!("{NAME}.damaged-{seconds}-{number}"));
        match fs::hard_link(&path, &aside) {
            Ok(()) => return Ok(Some(aside)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // The operator has moved it away meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(failed("set aside", &path)(error)),
        }
    }
    Ok(None)
}

/// What the directory has by name is on disk.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes the directory if there is none, and sees to it that there is room for some lines beside the
/// reserve.
pub(super) fn make_room(dir: &Path) -> Result<(), JournalError> {
    fs::create_dir_all(dir).map_err(failed("make the directory", dir))?;
    let reserve = dir.join(RESERVE_NAME);
    let has_reserve = match fs::symlink_metadata(&reserve) {
        Ok(metadata) => metadata.is_file() && metadata.len() >= RESERVE_BYTES,
        Err(_) => false,
    };
    // One more than is needed: what is written next must find room, too.
    let probe = dir.join(format!("{RESERVE_NAME}.new"));
    let file = make(&probe)?;
    let allocated =
        failpoint::hit("journal-room").map_err(io::Error::from).and_then(|()| allocate(&file));
    if let Err(error) = allocated {
        let _ = fs::remove_file(&probe);
        return Err(failed("keep room in", dir)(error));
    }
    if has_reserve {
        fs::remove_file(&probe).map_err(failed("remove", &probe))
    } else {
        fs::rename(&probe, &reserve).map_err(failed("replace", &reserve))
    }
}

fn allocate(file: &File) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
        // A file system that cannot.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            (&*file).write_all(&[0; RESERVE_BYTES as usize])
        }
        outcome => Ok(outcome?),
    }
}

/// Makes room for lines that must be written.
pub(super) fn give_up_reserve(dir: &Path) -> io::Result<()> {
    fs::remove_file(dir.join(RESERVE_NAME))
}

/// Makes a file that nobody else has. One of ours, which a crash has left, is removed; anything else
/// is refused.
fn make(path: &Path) -> Result<File, JournalError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(not_ours(path, &metadata)),
        // Its name, and not what it has: it may have other names.
        Ok(_) => fs::remove_file(path).map_err(failed("remove", path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("examine", path)(error)),
    }
    OpenOptions::new()
        .create_new(true)
        .append(true)
        .mode(0o600)
        .custom_flags(no_link())
        .open(path)
        .map_err(failed("make", path))
}

/// Not to wait for the other end of a pipe either.
fn no_link() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32
}

fn not_ours(path: &Path, metadata: &Metadata) -> JournalError {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_symlink() => "a symbolic link, which is not followed",
        () if kind.is_dir() => "a directory",
        () => "no regular file",
    };
    JournalError::NotAFile { path: path.to_owned(), what }
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::LOOP) => {
            JournalError::NotAFile { path, what: "a symbolic link, which is not followed" }
        }
        _ => JournalError::Io { action, path, source },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::{BLOCK_BYTES, JournalError, make_room, read, read_blocks, write_fresh};

    #[test]
    fn no_link_is_followed_and_nothing_of_others_is_touched() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let other = dir.path().join("precious");
        fs::write(&other, "of somebody else").expect("room");
        for name in ["journal", "journal.new", "journal.reserve.new"] {
            symlink(&other, dir.path().join(name)).expect("a free name");
        }
        for refused in [
            read(&dir.path().join("journal")).map(drop),
            write_fresh(dir.path(), &[]).map(drop),
            make_room(dir.path()),
        ] {
            assert!(matches!(refused, Err(JournalError::NotAFile { .. })), "{refused:?}");
        }
        assert_eq!(fs::read_to_string(&other).expect("there"), "of somebody else");
    }

    #[test]
    fn what_a_crash_has_left_is_replaced_and_its_other_names_keep_it() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let (fresh, other) = (dir.path().join("journal.new"), dir.path().join("other"));
        fs::write(&other, "of somebody else").expect("room");
        fs::hard_link(&other, &fresh).expect("a free name");
        write_fresh(dir.path(), &[]).expect("room");
        assert_eq!(fs::read_to_string(&other).expect("there"), "of somebody else");
    }

    #[test]
    fn a_block_that_cannot_be_read_costs_itself() {
        let text: Vec<u8> = (0..3 * BLOCK_BYTES + 100).map(|at| (at % 251) as u8 + 1).collect();
        let (bytes, skipped) = read_blocks(text.len() as u64, |block, at| {
            if at as usize == BLOCK_BYTES {
                return Err(std::io::Error::other("a bad block"));
            }
            block.copy_from_slice(&text[at as usize..][..block.len()]);
            Ok(())
        });
        assert_eq!(skipped, BLOCK_BYTES);
        assert_eq!(bytes[..BLOCK_BYTES], text[..BLOCK_BYTES]);
        assert!(bytes[BLOCK_BYTES..2 * BLOCK_BYTES].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[2 * BLOCK_BYTES..], text[2 * BLOCK_BYTES..]);
    }
}
